#!/usr/bin/env bash
# The filter for OpenStack Swift in the proxy of a real Swift (PyPI), with the real client. Needs liberasurecode and memcached.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
target=${CARGO_TARGET_DIR:-$root/target}
venv=$target/swift-venv

missing=
command -v memcached >/dev/null || missing="$missing memcached"
[ -e /usr/include/erasurecode.h ] || [ -e /usr/include/liberasurecode/erasurecode.h ] || missing="$missing liberasurecode-dev"
if [ -n "$missing" ]; then
    [ "$(id -u)" = 0 ] || { echo "as root: apt-get install$missing" >&2; exit 2; }
    apt-get update -q
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -q --no-install-recommends $missing
fi

wheels=$(python/tests/wheel.sh | tail -n 1)
rm -rf "$venv"
"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install -q --disable-pip-version-check 'swift>=2.33' pyeclib python-swiftclient 'setuptools<81' \
    'pytest>=8,<10' 'prometheus-client>=0.20,<1'
"$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps "$wheels"/tidewire-*.whl

log=$target/swift-tests.log
status=0
cd "$target"
PYTHONPATH=$root/python/tests timeout --kill-after=20 1800 "$venv/bin/python" -P -m pytest -c "$root/python/pyproject.toml" \
    --rootdir "$root/python" "$root/python/peers" "$@" 2>&1 | tee "$log" || status=$?
count() {
    tail -n 1 "$log" | grep -oE "[0-9]+ $1" | grep -oE '^[0-9]+' || echo 0
}
failed=$(($(count failed) + $(count 'errors?')))
[ "$status" -eq 0 ] || [ "$failed" -gt 0 ] || failed=1
echo "$(count passed) passed, $failed failed"
exit "$status"
