#!/usr/bin/env bash
# Builds the wheel, installs it into a virtual environment of its own and runs the tests there: all of them, those that are not of
# an engine of this process only once more with engines of other processes, and the quick ones on other versions of CPython.
#
# Usage: python/tests/run.sh [arguments of pytest]
# Environment: PYTHON (default python3), CARGO_TARGET_DIR (default target/ of the workspace), PYTHONS (other interpreters;
# default: the python3.N that pyenv or PATH has), TIDEWIRE_LONG (not empty: on all of them and not only the oldest and the newest,
# and with what takes long or needs much).
# Ends with one line `N passed, M failed[, K skipped]`; the exit status is not 0 if a test failed or nothing could be run.
set -euo pipefail

python_dir=$(cd "$(dirname "$0")/.." && pwd)
root=$(dirname "$python_dir")
target=${CARGO_TARGET_DIR:-$root/target}
venv=$target/python-venv
logs=$target/python-tests
export CARGO_TARGET_DIR=$target PIP_DISABLE_PIP_VERSION_CHECK=1
rm -rf "$logs"
mkdir -p "$logs"

# make_venv DIRECTORY INTERPRETER PACKAGES...: keeps one that was made of the same.
make_venv() {
    local dir=$1 interpreter=$2 wanted
    shift 2
    wanted="$("$interpreter" --version) $*"
    if [ "$(cat "$dir/made-of" 2>/dev/null)" != "$wanted" ]; then
        rm -rf "$dir"
        if ! "$interpreter" -m venv "$dir"; then
            # Debian's Python comes without venv.
            [ "$(id -u)" = 0 ] || { echo "$interpreter -m venv does not work here: install python3-venv" >&2; return 1; }
            apt-get update -q
            apt-get install -y -q python3-venv
            "$interpreter" -m venv "$dir"
        fi
        "$dir/bin/python" -m pip install -q "$@"
        echo "$wanted" >"$dir/made-of"
    fi
}

packages=('pytest>=8,<10' 'mypy>=1.11' 'prometheus-client>=0.20,<1' eventlet gevent cryptography 'wsgidav>=4.3' cheroot
    'maturin>=1.9.4,<2')
if [ -n "${TIDEWIRE_LONG-}" ]; then packages+=('matplotlib>=3.5' pyright 'moto[s3]>=5' boto3); fi
make_venv "$venv" "${PYTHON:-python3}" "${packages[@]}"
wheels=$(VENV=$venv "$python_dir/tests/wheel.sh" | tail -n 1)
install() {
    "$1/bin/python" -m pip install -q --no-deps --force-reinstall "$wheels"/tidewire-*.whl
}
install "$venv"
cargo build -q --manifest-path "$root/Cargo.toml" -p tidewire-receiver
export TIDEWIRE_RECEIVER=$target/debug/tidewire-receiver

# run NAME VENV [arguments of pytest]: at most 15 minutes, and from another directory, so that the installed package is tested and
# not the one beside the tests.
run() {
    local log=$logs/$1.log python=$2/bin/python ended=0
    shift 2
    (cd "$target" && timeout --kill-after=10 900 "$python" -m pytest -c "$python_dir/pyproject.toml" \
        --rootdir "$python_dir" "$@") >"$log" 2>&1 || ended=$?
    echo "exit status $ended" >>"$log"
}

# The quick tests on other versions: one wheel fits all, but for interpreters without the global lock, which get one of their own.
others() {
    local other version tried found=()
    tried=" $("$venv/bin/python" -c 'import sys; print("%d.%d%s" % (*sys.version_info[:2], sys.abiflags))') "
    for other in ${PYTHONS-"$HOME"/.pyenv/versions/3.*/bin/python3 python3.9 python3.10 python3.11 python3.12 python3.13 python3.14 \
        "$HOME"/.pyenv/versions/3.*t/bin/python3 python3.14t python3.15t}; do
        other=$(command -v "$other" || true)
        [ -n "$other" ] || continue
        version=$("$other" -c 'import sys; print("%d.%d%s" % (*sys.version_info[:2], sys.abiflags) if sys.version_info >= (3, 9) else "")' 2>/dev/null || true)
        case "$tried" in *" $version "*) continue ;; esac
        [ -n "$version" ] || continue
        tried="$tried$version "
        found+=("$version $other")
    done
    [ ${#found[@]} -gt 0 ] || return 0
    if [ -n "${TIDEWIRE_LONG-}" ]; then
        printf '%s\n' "${found[@]}"
    else
        printf '%s\n' "${found[@]}" | grep -v '^[0-9.]*t ' | sort -V | sed -n '1p;$p' | uniq
    fi
}

run_others() {
    local version other
    others | while read -r version other; do
        make_venv "$venv-$version" "$other" 'pytest>=8,<10' 'prometheus-client>=0.20,<1'
        case $version in
            *t)
                INTERPRETER=$venv-$version/bin/python WHEELS=$target/python-wheels-$version VENV=$venv "$python_dir/tests/wheel.sh" >/dev/null
                "$venv-$version/bin/python" -m pip install -q --no-deps --force-reinstall "$target/python-wheels-$version"/tidewire-*.whl
                ;;
            *) install "$venv-$version" ;;
        esac
        run "$version" "$venv-$version" -q "$python_dir"/tests/test_{event,async,reserve,handlers,receive,package,shared,threads}.py \
            "$python_dir"/tests/test_life.py::test_a_subinterpreter_is_refused \
            -k 'not type_checkers'
    done
}

if [ $# -gt 0 ]; then
    run all "$venv" "$python_dir/tests" "$@"
else
    # Side by side: they wait for more than they compute.
    run all "$venv" "$python_dir/tests" --durations=15 &
    run shared "$venv" -q --shared "$python_dir"/tests/test_{publish,async,reserve,reading,rules,life}.py
    run_others
    wait
fi

passed=0 failed=0 skipped=0
count() { # What pytest's last line says of one outcome, as in `3 failed, 40 passed, 1 skipped in 9.00s`.
    tail -n 2 "$log" | head -n 1 | grep -oE "[0-9]+ $1" | grep -oE '^[0-9]+' || echo 0
}
for log in "$logs"/*.log; do
    echo "== $(basename "$log" .log)"
    cat "$log"
    bad=$(($(count failed) + $(count 'errors?')))
    [ "$bad" -gt 0 ] || tail -n 1 "$log" | grep -qx 'exit status 0' || bad=1
    passed=$((passed + $(count passed))) failed=$((failed + bad)) skipped=$((skipped + $(count skipped)))
done
if [ "$skipped" -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
[ "$failed" -eq 0 ]
