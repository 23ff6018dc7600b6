#!/usr/bin/env bash
# The tests of the Python module with all that takes long: on every CPython at hand, 500 engines one after the other, pyright, the
# pictures, moto, and a wheel that comes of the sdist.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
export TIDEWIRE_LONG=1
log=$(mktemp) || exit 2
trap 'rm -rf "$log" "${dir-}"' EXIT
python/tests/run.sh 2>&1 | tee "$log"
read -r passed _ failed _ skipped _ < <(tail -n 1 "$log" | tr -d ',')

# sdist: a file of everything, of which pip makes the same package.
dir=$(mktemp -d) || exit 2
target=${CARGO_TARGET_DIR:-$PWD/target}
if "$target/python-venv/bin/python" -m maturin sdist --manifest-path python/Cargo.toml --out "$dir" &&
    "${PYTHON:-python3}" -m venv "$dir/venv" &&
    CARGO_TARGET_DIR=$target "$dir/venv/bin/python" -m pip install -q "$dir"/tidewire-*.tar.gz &&
    (cd "$dir" && venv/bin/python -c 'import tidewire; print(tidewire.Event("b", "k"))'); then
    passed=$((passed + 1))
else
    echo "the sdist does not make a package"
    failed=$((failed + 1))
fi
if [ "${skipped:-0}" -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
[ "$failed" = 0 ]
