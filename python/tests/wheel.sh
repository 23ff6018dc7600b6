#!/usr/bin/env bash
# Builds the wheel into a directory of its own, whose name is the last line printed.
#
# Environment: PYTHON (default python3), CARGO_TARGET_DIR (default target/ of the workspace).
set -euo pipefail

python_dir=$(cd "$(dirname "$0")/.." && pwd)
root=$(dirname "$python_dir")
target=${CARGO_TARGET_DIR:-$root/target}
venv=$target/python-build
wheels=$target/python-wheels
export CARGO_TARGET_DIR=$target PIP_DISABLE_PIP_VERSION_CHECK=1

make_venv() {
    rm -rf "$venv"
    "${PYTHON:-python3}" -m venv "$venv"
}

{
    mkdir -p "$target"
    if ! make_venv; then
        # Debian's Python comes without venv.
        [ "$(id -u)" = 0 ] || { echo "python3 -m venv does not work here: install python3-venv" >&2; exit 1; }
        apt-get update -q
        apt-get install -y -q python3-venv
        make_venv
    fi
    "$venv/bin/python" -m pip install -q 'maturin>=1.9.4,<2'
    rm -rf "$wheels"
    "$venv/bin/maturin" build --manifest-path "$python_dir/Cargo.toml" --interpreter "$venv/bin/python" \
        --auditwheel skip --out "$wheels"
} >&2
echo "$wheels"
