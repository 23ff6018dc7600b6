#!/usr/bin/env bash
# `tidewire run` with credentials, formats, compressions and encryptions of every kind: what it sends is verified and read by
# libraries that receivers use, in a virtual environment of its own. Ends with `N passed, M failed`.
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
if ! "$venv/bin/python" -c 'import authlib.oauth2.rfc7523, azure.eventgrid, cloudevents, http_ece, http_message_signatures, jwcrypto, jwt, standardwebhooks, zstandard' 2>/dev/null; then
    rm -rf "$venv"
    python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check 'standardwebhooks>=1,<2' \
        'http-message-signatures>=2,<4' 'authlib>=1.6,<2' 'pyjwt>=2.9,<3' 'cryptography>=43' \
        'jwcrypto>=1.5,<2' 'http-ece>=1.2,<2' 'zstandard>=0.23' 'cloudevents>=1.11,<2' 'azure-eventgrid>=4.17,<5' || fail "the libraries cannot be installed"
fi
passed=0 failed=0
for part in auth oauth formats; do
    last=
    while IFS= read -r line; do
        echo "$line"
        last=$line
    done < <("$venv/bin/python" "tests/hosts/command/test_$part.py" "$target/debug")
    if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
        passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
    else
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
