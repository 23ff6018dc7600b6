#!/usr/bin/env bash
# Builds the wheel, installs it into a fresh virtual environment and runs the tests there.
#
# Usage: python/tests/run.sh [arguments of pytest]
# Environment: PYTHON (default python3), CARGO_TARGET_DIR (default target/ of the workspace).
# Ends with one line `N passed, M failed`; the exit status is not 0 if a test failed or nothing could be run.
set -euo pipefail

python_dir=$(cd "$(dirname "$0")/.." && pwd)
root=$(dirname "$python_dir")
target=${CARGO_TARGET_DIR:-$root/target}
venv=$target/python-venv
log=$target/python-tests.log
wheels=$target/python-wheels
export CARGO_TARGET_DIR=$target PIP_DISABLE_PIP_VERSION_CHECK=1

make_venv() {
    rm -rf "$venv"
    "${PYTHON:-python3}" -m venv "$venv"
}

mkdir -p "$target"
if ! make_venv; then
    # Debian's Python comes without venv.
    [ "$(id -u)" = 0 ] || { echo "python3 -m venv does not work here: install python3-venv" >&2; exit 1; }
    apt-get update -q
    apt-get install -y -q python3-venv
    make_venv
fi
"$venv/bin/python" -m pip install -q 'maturin>=1.9.4,<2' 'pytest>=8,<10' 'mypy>=1.11' \
    'prometheus-client>=0.20,<1'

# The receiver first: the crate's build does not need it, the tests do.
cargo build --manifest-path "$root/Cargo.toml" -p tidewire-receiver
export TIDEWIRE_RECEIVER=$target/debug/tidewire-receiver
rm -rf "$wheels"
"$venv/bin/maturin" build --manifest-path "$python_dir/Cargo.toml" --interpreter "$venv/bin/python" \
    --auditwheel skip --out "$wheels"
"$venv/bin/python" -m pip install -q --no-deps "$wheels"/tidewire-*.whl

status=0
# At most 15 minutes, and from another directory, so that the installed package is tested and not the one beside the tests.
cd "$target"
timeout --kill-after=10 900 "$venv/bin/python" -P -m pytest -c "$python_dir/pyproject.toml" --rootdir "$python_dir" \
    "$python_dir/tests" "$@" 2>&1 | tee "$log" || status=$?

count() {
    # What pytest's last line says of one outcome, as in `3 failed, 40 passed, 1 skipped in 9.00s`.
    tail -n 1 "$log" | grep -oE "[0-9]+ $1" | grep -oE '^[0-9]+' || echo 0
}
passed=$(count passed)
failed=$(($(count failed) + $(count 'errors?')))
skipped=$(count skipped)
if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
    failed=1
fi
if [ "$skipped" -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
exit "$status"
