#!/usr/bin/env bash
# The tests of the Python module with all that takes long: on every CPython at hand, 500 engines one after the other, pyright, the
# pictures, moto; and that pip makes the package of the directory, and of the sdist.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
export TIDEWIRE_LONG=1
log=$(mktemp) || exit 2
trap 'rm -rf "$log" "${dir-}"' EXIT
python/tests/run.sh 2>&1 | tee "$log"
read -r passed _ failed _ skipped _ < <(tail -n 1 "$log" | tr -d ',')

dir=$(mktemp -d) || exit 2
target=${CARGO_TARGET_DIR:-$PWD/target}

# installs NAME WHAT: pip makes the package, in release, and it works without anything else.
installs() {
    if "${PYTHON:-python3}" -m venv "$dir/$1" && CARGO_TARGET_DIR=$target "$dir/$1/bin/python" -m pip install -q "$2" &&
        (cd "$dir" && "$1/bin/python" -c 'import tidewire; print(tidewire.Event("b", "k"), tidewire.__file__)'); then
        passed=$((passed + 1))
    else
        echo "pip makes no package of $2"
        failed=$((failed + 1))
    fi
}

installs directory ./python
"$target/python-venv/bin/python" -m maturin sdist --manifest-path python/Cargo.toml --out "$dir"
installs sdist "$(echo "$dir"/tidewire-*.tar.gz)"
if [ "${skipped:-0}" -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
[ "$failed" = 0 ]
