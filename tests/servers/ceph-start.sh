#!/bin/bash
# A real S3-compatible server with object lock, for tests: Ceph's radosgw over one monitor and one OSD that keeps its
# data in memory. Listens on loopback only, needs no root and no systemd, several can run side by side.
#
#   ceph-start.sh DIR HTTP_PORT HTTPS_PORT MONITOR_PORT
#
# Everything it writes is below DIR. Keys: testaccess / testsecret1234. The CA that signed its certificate: DIR/ca.crt.
# ceph-stop.sh DIR ends it.
set -euo pipefail
dir=${1:?directory} http=${2:?http port} https=${3:?https port} monitor=${4:?monitor port}

mkdir -p "$dir"/{mon,osd,run,log}
fsid=$(cat /proc/sys/kernel/random/uuid)
export CEPH_CONF=$dir/ceph.conf

cat >"$dir/ceph.conf" <<CONF
[global]
fsid = $fsid
mon host = v1:127.0.0.1:$monitor
monmap = $dir/monmap
public addr = 127.0.0.1
ms bind ipv6 = false
# Not "none": without cephx the first command to the monitor races with the monitor map and fails now and then.
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = $dir/keyring
run dir = $dir/run
admin socket = $dir/run/\$cluster-\$name.asok
pid file = $dir/run/\$name.pid
log file = $dir/log/\$name.log
mon cluster log file = $dir/log/cluster.log
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon allow pool delete = true
mon warn on pool no redundancy = false
mon max pg per osd = 1000
mon data avail crit = 1
mon data avail warn = 1

[mon.a]
# The defaults of a second and more are for clusters; they would make this start take 20 s.
paxos propose interval = 0.02
paxos min wait = 0.01
mon tick interval = 1
mon data = $dir/mon

[osd]
osd objectstore = memstore
memstore device bytes = 4294967296
osd data = $dir/osd
osd class load list = *
osd class default list = *
osd class update on start = false
osd crush update on start = false
osd memory target = 939524096

[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:$http ssl_endpoint=127.0.0.1:$https ssl_certificate=$dir/tls.pem
rgw enable usage log = false
rgw lc debug interval = -1
rgw dns name = localhost
rgw enable apis = s3, s3website, admin
CONF

# A CA and a leaf: rustls refuses a CA's own certificate as that of a server.
(
	cd "$dir"
	umask 077
	curve=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
	openssl req -x509 "${curve[@]}" -days 3650 -subj '/CN=firedrill test CA' -keyout ca.key -out ca.crt \
		-addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign'
	openssl req "${curve[@]}" -subj /CN=localhost -keyout tls.key -out tls.csr
	printf '%s\n' 'subjectAltName=DNS:localhost,IP:127.0.0.1' 'basicConstraints=critical,CA:FALSE' \
		'extendedKeyUsage=serverAuth' 'keyUsage=critical,digitalSignature' >leaf.ext
	openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 825 -extfile leaf.ext -out tls.crt
	cat tls.key tls.crt ca.crt >tls.pem
) 2>"$dir/log/openssl"

# One keyring for everybody.
monmaptool --create --clobber --fsid "$fsid" --addv a "[v1:127.0.0.1:$monitor]" "$dir/monmap" >/dev/null
ceph-authtool --create-keyring "$dir/keyring" --gen-key -n mon. --cap mon 'allow *' >/dev/null
for name in client.admin osd.0 client.rgw; do
	ceph-authtool "$dir/keyring" --gen-key -n $name --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' >/dev/null
done

# Monitor.
ceph-mon --mkfs -i a --monmap "$dir/monmap" --keyring "$dir/keyring"
ceph-mon -i a
ceph -s --connect-timeout 10 >/dev/null

# OSD.
uuid=$(cat /proc/sys/kernel/random/uuid)
osd=$(ceph osd new "$uuid")
ceph-osd -i "$osd" --mkfs --osd-uuid "$uuid" --no-mon-config >/dev/null 2>&1
ceph osd crush add-bucket h host root=default >/dev/null 2>&1
ceph osd crush add "osd.$osd" 1.0 host=h root=default >/dev/null 2>&1
for _ in 1 2 3 4 5; do
	ceph-osd -i "$osd" 2>/dev/null && break
	sleep 0.5
done

# Gateway, and one user who may do everything.
radosgw -n client.rgw
for _ in $(seq 1 100); do
	curl -sf "http://127.0.0.1:$http/" >/dev/null && break
	sleep 0.2
done
radosgw-admin user create --uid=admin --display-name=admin --access-key=testaccess --secret-key=testsecret1234 >/dev/null 2>&1
curl -sf "http://127.0.0.1:$http/" >/dev/null || {
	echo "radosgw did not come up, see $dir/log" >&2
	exit 1
}
