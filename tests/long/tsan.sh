#!/usr/bin/env bash
# The C and C++ tests under the thread sanitizer: the library, its dependencies in Rust and the standard library are built with
# it, which takes a nightly toolchain with the component rust-src; so are the programs. Code in C and assembler that libraries
# bring is not, and the kernel's side of io_uring cannot be. tests/c/tsan.supp says what is not looked at, and why.
set -u
cd "$(dirname "$0")/../.." || exit 2
root=$PWD
triple=$(rustc -vV | sed -n 's/^host: //p')
sysroot=$(rustc +nightly --print sysroot 2>/dev/null)
if [ ! -e "$sysroot/lib/rustlib/src/rust/library/Cargo.lock" ]; then
    echo "SKIPPED: rustup toolchain install nightly && rustup component add rust-src --toolchain nightly"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi
target=${CARGO_TARGET_DIR:-$root/target}/tsan
runtime=$(echo "$sysroot/lib/rustlib/$triple/lib"/librustc-nightly_rt.tsan.a)
work=$(mktemp -d "${TMPDIR:-/tmp}/tidewire-tsan.XXXXXX")
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

if ! CARGO_TARGET_DIR=$target RUSTFLAGS="-Zsanitizer=thread" cargo +nightly rustc -q -Zbuild-std --target "$triple" \
    -p tidewire-ffi --lib --crate-type staticlib >"$work/out" 2>&1; then
    tail -n 40 "$work/out"
    echo "0 passed, 1 failed"
    exit 1
fi
library=$target/$triple/debug/libtidewire.a
export TSAN_OPTIONS="suppressions=$root/tests/c/tsan.supp halt_on_error=0 exitcode=66 second_deadlock_stack=1 history_size=4"

for t in test_api test_publish test_rules test_again test_reading test_handlers test_enrich test_cpp; do
    source=tests/c/$t.c compiler="gcc -std=c99"
    [ -e "$source" ] || source=tests/c/$t.cc compiler="g++ -std=c++17"
    # The run time that belongs to the library's instrumentation is newer than that of the compiler, and serves both.
    # shellcheck disable=SC2086
    if ! $compiler -D_GNU_SOURCE -g -O1 -Iinclude -fsanitize=thread -c "$source" -o "$work/$t.o" ||
        ! g++ -no-pie "$work/$t.o" -o "$work/$t" "$library" -Wl,--whole-archive "$runtime" -Wl,--no-whole-archive \
            -lgcc_s -lutil -lrt -lpthread -lm -ldl -lc >"$work/out" 2>&1; then
        tail -n 20 "$work/out"
        failed=$((failed + 1))
        continue
    fi
    mkdir "$work/data-$t"
    # Addresses that are laid out at random may be where the sanitizer keeps its shadow.
    setarch -R timeout 900 "$work/$t" "$work/data-$t" >"$work/out" 2>&1
    status=$?
    counts=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$work/out" | tail -n 1)
    races=$(grep -c '^WARNING: ThreadSanitizer' "$work/out")
    passed=$((passed + ${counts% *}))
    if [ $status = 0 ] && [ "$races" = 0 ] && [ "${counts#* }" = 0 ]; then
        echo "ok   $t: ${counts% *} checks"
    else
        echo "FAIL $t: status $status, $races reports, ${counts:-no} passed and failed"
        grep -v '^ok' "$work/out" | head -n 120
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
