#!/bin/sh
# Makes a Python environment with libraries that know nothing of firedrill, and prints the path of its interpreter.
#
#   python-setup.sh                  the one to check our evidence with
#   python-setup.sh NAME PACKAGE…    another one
#
# Kept between runs in $FIREDRILL_TEST_CACHE (default: target/test-tools).
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
cache=${FIREDRILL_TEST_CACHE:-$root/target/test-tools}
name=${1:-evidence}
[ $# -eq 0 ] || shift
packages=${*:-securesystemslib[crypto]==1.6.0 in-toto-attestation==0.9.3}
venv=$cache/python-$name
stamp=$venv/.packages
mkdir -p "$cache"
# several test processes may ask at once
exec 9>"$cache/python-$name.lock"
flock 9
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$packages" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv" >&2
    # shellcheck disable=SC2086 # several packages
    "$venv/bin/pip" install --quiet --disable-pip-version-check $packages >&2
    printf '%s' "$packages" >"$stamp"
fi
printf '%s\n' "$venv/bin/python"
