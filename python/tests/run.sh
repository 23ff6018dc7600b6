#!/usr/bin/env bash
# Builds the wheel, installs it into fresh virtual environments and runs the tests there.
#
# Usage: python/tests/run.sh [arguments of pytest]
# Environment: PYTHON (default python3), CARGO_TARGET_DIR (default target/ of the workspace), PYTHONS (other interpreters, on
# which the same wheel is tried: the tests that need no package of others; default: the python3.N that pyenv or PATH has).
# Ends with one line `N passed, M failed`; the exit status is not 0 if a test failed or nothing could be run.
set -euo pipefail

python_dir=$(cd "$(dirname "$0")/.." && pwd)
root=$(dirname "$python_dir")
target=${CARGO_TARGET_DIR:-$root/target}
venv=$target/python-venv
log=$target/python-tests.log
export CARGO_TARGET_DIR=$target PIP_DISABLE_PIP_VERSION_CHECK=1

wheels=$("$python_dir/tests/wheel.sh" | tail -n 1)
rm -rf "$venv"
"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install -q 'pytest>=8,<10' 'mypy>=1.11' 'prometheus-client>=0.20,<1' eventlet gevent cryptography \
    'moto[s3]>=5' boto3 'wsgidav>=4.3' cheroot matplotlib pyright 'maturin>=1.9.4,<2'

# The receiver first: the crate's build does not need it, the tests do.
cargo build --manifest-path "$root/Cargo.toml" -p tidewire-receiver
export TIDEWIRE_RECEIVER=$target/debug/tidewire-receiver
"$venv/bin/python" -m pip install -q --no-deps "$wheels"/tidewire-*.whl

passed=0 failed=0 skipped=0 status=0

count() {
    # What pytest's last line says of one outcome, as in `3 failed, 40 passed, 1 skipped in 9.00s`.
    tail -n 1 "$log" | grep -oE "[0-9]+ $1" | grep -oE '^[0-9]+' || echo 0
}

# run VENV [arguments of pytest]: at most 15 minutes, and from another directory, so that the installed package is tested and not
# the one beside the tests.
run() {
    local python=$1/bin/python ended=0 bad
    shift
    (cd "$target" && timeout --kill-after=10 900 "$python" -m pytest -c "$python_dir/pyproject.toml" --rootdir "$python_dir" \
        "$@" 2>&1) | tee "$log" || ended=$?
    bad=$(($(count failed) + $(count 'errors?')))
    [ "$ended" -eq 0 ] || [ "$bad" -gt 0 ] || bad=1
    [ "$bad" -eq 0 ] || status=1
    passed=$((passed + $(count passed))) failed=$((failed + bad)) skipped=$((skipped + $(count skipped)))
}

if [ $# -gt 0 ]; then
    run "$venv" "$python_dir/tests" "$@"
else
    run "$venv" "$python_dir/tests"
    # One wheel fits all versions; here the quick tests say so.
    have=$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    tried=" $have "
    for other in ${PYTHONS-"$HOME"/.pyenv/versions/3.*/bin/python3 python3.9 python3.10 python3.11 python3.12 python3.13 python3.14}; do
        other=$(command -v "$other" || true)
        [ -n "$other" ] || continue
        version=$("$other" -c 'import sys; print("%d.%d" % sys.version_info[:2] if sys.version_info >= (3, 9) else "")' 2>/dev/null || true)
        case "$tried" in *" $version "*) continue ;; esac
        [ -n "$version" ] || continue
        tried="$tried$version "
        echo "== Python $version"
        rm -rf "$venv-$version"
        "$other" -m venv "$venv-$version" || continue
        "$venv-$version/bin/python" -m pip install -q 'pytest>=8,<10' 'prometheus-client>=0.20,<1'
        "$venv-$version/bin/python" -m pip install -q --no-deps "$wheels"/tidewire-*.whl
        run "$venv-$version" -q "$python_dir"/tests/test_{event,async,reserve,handlers,receive,package}.py -k 'not type_checkers'
    done
fi
if [ "$skipped" -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
exit "$status"
