#!/usr/bin/env bash
# The example host driven with boto3, in a virtual environment of its own. Ends with `N passed, M failed`.
set -u
cd "$(dirname "$0")/../../.." || exit 2
target=${CARGO_TARGET_DIR:-$PWD/target}
venv=$target/venv-boto3

fail() {
    echo "$1"
    echo "0 passed, 1 failed"
    exit 1
}

cargo build --quiet -p tidewire-s3-host -p tidewire-receiver || fail "the host does not build"
if ! "$venv/bin/python" -c 'import boto3' 2>/dev/null; then
    rm -rf "$venv"
    python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check 'boto3>=1.35,<2' ||
        fail "boto3 cannot be installed"
fi
exec "$venv/bin/python" tests/hosts/s3s/test_boto3.py "$target/debug"
