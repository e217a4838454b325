#!/bin/bash
# Runs every test. Installs what they need first: real servers and the distribution's own backup tools (Debian, Ubuntu).
# Nothing is skipped: where something is missing and cannot be installed, this ends with an error.
set -euo pipefail
cd "$(dirname "$0")/.."

# binary that shows it is there : package that brings it
needs=(
  radosgw:radosgw ceph-mon:ceph-mon ceph-osd:ceph-osd ceph:ceph-common ceph-authtool:ceph-common
  age:age zstd:zstd gzip:gzip xz:xz-utils lz4:lz4 tar:tar setfattr:attr
  ssh-keygen:openssh-client openssl:openssl curl:curl jq:jq sqlite3:sqlite3 dcmmkdir:dcmtk python3:python3 setpriv:util-linux losetup:mount mkfs.ext4:e2fsprogs cc:gcc
  # tools whose backups the recipes restore, and the servers that they back up
  restic:restic borg:borgbackup rclone:rclone duplicity:duplicity gpg:gnupg
  pgbackrest:pgbackrest barman-cloud-restore:barman-cli-cloud /usr/lib/postgresql/15/bin/initdb:postgresql-15
  redis-server:redis-server redis-cli:redis-tools /usr/sbin/slapd:slapd ldapsearch:ldap-utils etcd:etcd-server etcdctl:etcd-client
  mariadb-backup:mariadb-backup mariadbd:mariadb-server-core mariadb-install-db:mariadb-server-core mariadb-admin:mariadb-client mariadb-binlog:mariadb-client
  mariadb:mariadb-client-core innochecksum:mariadb-server-core mbstream:mariadb-backup
)
missing=()
for need in "${needs[@]}"; do
  command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
# Debian puts venv into a package of its own
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
# what duplicity and Barman reach S3 with
/usr/bin/python3 -c 'import boto3' 2>/dev/null || missing+=(python3-boto3)

if [ ${#missing[@]} -gt 0 ]; then
  as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  echo "installing: ${missing[*]}"
  "${as_root[@]}" apt-get update -q
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
fi

# an independent implementation of in-toto and DSSE, for checking our envelopes
export FIREDRILL_TEST_CACHE="${FIREDRILL_TEST_CACHE:-${CARGO_TARGET_DIR:-$PWD/target}/test-tools}"
bash tests/servers/python-setup.sh
# restore tools that the distribution does not have
bash tests/servers/restore-tools-setup.sh
# PostgreSQL of other versions than its own
bash tests/servers/postgres-setup.sh
# a client of S3 that most restore tools are built on
bash tests/servers/python-setup.sh s3 boto3==1.42.0

# how many random points of time a PostgreSQL is recovered to
export FIREDRILL_PITR_TARGETS="${FIREDRILL_PITR_TARGETS:-100}"

cargo test "$@"
# the auditor's verifier stands on its own
cargo test --no-default-features --lib --bin firedrill-verify
