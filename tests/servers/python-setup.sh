#!/bin/sh
# Makes a Python environment with libraries that know nothing of firedrill, to check our evidence with, and prints the path
# of its interpreter. Kept between runs in $FIREDRILL_TEST_CACHE (default: target/test-tools).
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
cache=${FIREDRILL_TEST_CACHE:-$root/target/test-tools}
packages='securesystemslib[crypto]==1.6.0 in-toto-attestation==0.9.3'
venv=$cache/python-evidence
stamp=$venv/.packages
mkdir -p "$cache"
# several test processes may ask at once
exec 9>"$cache/python-evidence.lock"
flock 9
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$packages" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv" >&2
    # shellcheck disable=SC2086 # two packages
    "$venv/bin/pip" install --quiet --disable-pip-version-check $packages >&2
    printf '%s' "$packages" >"$stamp"
fi
printf '%s\n' "$venv/bin/python"
