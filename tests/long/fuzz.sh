#!/usr/bin/env bash
# The fuzz targets: a million mutations of each corpus with the stable compiler (see core/tests/corpus.rs); then, where
# cargo-fuzz and a nightly compiler are installed, each under libFuzzer for TIDEWIRE_FUZZ_SECONDS (300).
set -u -o pipefail
cd "$(dirname "$0")/../.." || exit 2
export TIDEWIRE_LONG=1
passed=0 failed=0 skipped=0

read -r p f < <(cargo test -p tidewire --test corpus -- --show-output 2>&1 | tee -a /dev/stderr |
    awk '/^test result: / { p += $4; f += $6 } END { if (p + f == 0) f = 1; print p + 0, f + 0 }')
passed=$((passed + p)) failed=$((failed + f))

for file in fuzz/fuzz_targets/*.rs; do
    target=$(basename "$file" .rs)
    if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
        echo "SKIPPED: $target under libFuzzer: it needs cargo-fuzz (cargo install cargo-fuzz) and a nightly compiler"
        skipped=$((skipped + 1))
        continue
    fi
    # What is found goes into a directory of its own, not into the corpus that is checked in.
    found=fuzz/target/found/$target
    mkdir -p "$found"
    if cargo +nightly fuzz run "$target" "$found" "fuzz/corpus/$target" -- \
        -max_total_time="${TIDEWIRE_FUZZ_SECONDS:-300}" -timeout=20 -rss_limit_mb=4096 -max_len=20000 >&2; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
done
if [ $skipped = 0 ]; then
    echo "$passed passed, $failed failed"
else
    echo "$passed passed, $failed failed, $skipped skipped"
fi
[ $failed = 0 ]
