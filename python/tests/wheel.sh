#!/usr/bin/env bash
# Builds the wheel into a directory of its own, whose name is the last line printed.
#
# Usage: wheel.sh [--release]
# Environment: VENV (where maturin is, or comes to be; default target/python-build), PYTHON (to make it with, default python3),
# INTERPRETER (what the wheel is for, default that of VENV), WHEELS (the directory; what is in it goes), CARGO_TARGET_DIR (default
# target/ of the workspace).
set -euo pipefail

python_dir=$(cd "$(dirname "$0")/.." && pwd)
root=$(dirname "$python_dir")
target=${CARGO_TARGET_DIR:-$root/target}
venv=${VENV:-$target/python-build}
wheels=${WHEELS-$target/python-wheels${1-}}
export CARGO_TARGET_DIR=$target PIP_DISABLE_PIP_VERSION_CHECK=1

{
    if ! "$venv/bin/python" -m maturin --version; then
        rm -rf "$venv"
        mkdir -p "$target"
        "${PYTHON:-python3}" -m venv "$venv"
        "$venv/bin/python" -m pip install -q 'maturin>=1.9.4,<2'
    fi
    rm -rf "$wheels"
    "$venv/bin/python" -m maturin build --manifest-path "$python_dir/Cargo.toml" --interpreter "${INTERPRETER-$venv/bin/python}" \
        --auditwheel skip --out "$wheels" "$@"
} >&2
echo "$wheels"
