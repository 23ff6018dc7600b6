#!/usr/bin/env bash
# nginx with the module of ffi/hosts/nginx: builds it against Debian's nginx, and runs the tests, some of them once more with
# the module under the address sanitizer. Ends with `N passed, M failed`.
set -u
cd "$(dirname "$0")/../../.." || exit 2
target=${CARGO_TARGET_DIR:-$PWD/target}
work=$target/nginx

fail() {
    echo "$1"
    echo "0 passed, 1 failed"
    exit 1
}

make -s PROFILE=dev || fail "the library does not build"
cargo build -q -p tidewire || fail "the command does not build"
export TIDEWIRE_COMMAND=$target/debug/tidewire
mkdir -p "$work/lib"
ln -sf "$target/debug/libtidewire.so" "$work/lib/libtidewire.so.0"
ln -sf libtidewire.so.0 "$work/lib/libtidewire.so"
export TIDEWIRE_INC=$PWD/include TIDEWIRE_LIBS="-L$work/lib -ltidewire -Wl,-rpath,$work/lib"
ffi/hosts/nginx/build "$work/plain" || fail "the module does not build"
CC_OPT="-fsanitize=address,undefined -fno-sanitize-recover=all -O1" LD_OPT="-fsanitize=address,undefined" \
    ffi/hosts/nginx/build "$work/asan" || fail "the module does not build with the address sanitizer"

passed=0 failed=0
# part MODULE TEST...
part() {
    local line last=
    while IFS= read -r line; do
        echo "$line"
        last=$line
    done < <(python3 tests/hosts/nginx/test_nginx.py "$@" 2>&1)
    if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
        passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
    else
        failed=$((failed + 1))
    fi
}
part "$work/plain/ngx_http_tidewire_module.so"
# nginx itself is not instrumented, and frees its pools only in part when it ends.
export TIDEWIRE_NGINX_PRELOAD TIDEWIRE_NGINX_ASAN=detect_leaks=0:abort_on_error=1
TIDEWIRE_NGINX_PRELOAD=$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so)
echo "under the address sanitizer:"
part "$work/asan/ngx_http_tidewire_module.so" test_each_ack_level test_keys_are_any_bytes test_collections test_what_fails_is_not_told \
    test_a_full_queue_refuses_before_anything_is_done test_reload_under_load test_workers_that_are_killed_under_load_over_one_engine
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
