#!/usr/bin/env bash
# `tidewire run` with credentials of every scheme: what it sends is verified by libraries that receivers use, in a virtual
# environment of its own. Ends with `N passed, M failed`.
set -u
cd "$(dirname "$0")/../../.." || exit 2
target=${CARGO_TARGET_DIR:-$PWD/target}
venv=$target/venv-verifiers

fail() {
    echo "$1"
    echo "0 passed, 1 failed"
    exit 1
}

cargo build --quiet -p tidewire --bin tidewire || fail "the command does not build"
if ! "$venv/bin/python" -c 'import http_message_signatures, jwt, standardwebhooks' 2>/dev/null; then
    rm -rf "$venv"
    python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check 'standardwebhooks>=1,<2' \
        'http-message-signatures>=2,<4' 'pyjwt>=2.9,<3' 'cryptography>=43' || fail "the libraries cannot be installed"
fi
exec "$venv/bin/python" tests/hosts/command/test_auth.py "$target/debug"
