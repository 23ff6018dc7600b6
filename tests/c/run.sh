#!/usr/bin/env bash
# The C interface, from C: builds the library, compiles programs against it, and runs them plainly, under the address
# and leak sanitizers, and under valgrind. Prints a line per check, then `N passed, M failed`.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cd "$root" || exit 2
target=${CARGO_TARGET_DIR:-$root/target}/debug
work=$(mktemp -d "${TMPDIR:-/tmp}/tidewire-c.XXXXXX")
receiver=
passed=0
failed=0

finish() {
  [ -n "$receiver" ] && kill "$receiver" 2>/dev/null
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# check NAME COMMAND...: runs it, shows what it printed only if it fails.
check() {
  local name=$1
  shift
  if "$@" >"$work/out" 2>&1; then
    echo "ok   $name"
    passed=$((passed + 1))
  else
    echo "FAIL $name"
    tail -n 60 "$work/out" | sed 's/^/     | /'
    failed=$((failed + 1))
    return 1
  fi
}

# check_all NAME COMMAND...: as check, for a program that counts checks of its own.
check_all() {
  local name=$1
  shift
  local status=0
  "$@" >"$work/out" 2>&1 || status=$?
  local counts
  counts=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$work/out" | tail -n 1)
  local good=${counts% *} bad=${counts#* }
  if [ "$status" = 0 ] && [ -n "$counts" ] && [ "$bad" = 0 ]; then
    echo "ok   $name: $good checks"
  else
    echo "FAIL $name: status $status, ${good:-no} checks passed"
    grep -v '^ok' "$work/out" | tail -n 60 | sed 's/^/     | /'
    # A program that ended early, or that the sanitizer found something in.
    [ -n "$bad" ] && [ "$bad" != 0 ] || bad=1
  fi
  passed=$((passed + ${good:-0}))
  failed=$((failed + ${bad:-1}))
}

finish_with_counts() {
  echo "$passed passed, $failed failed"
  [ "$failed" = 0 ]
  exit
}

# --- build

build() {
  cargo build -q -p tidewire-receiver && cargo rustc -q -p tidewire-ffi --lib -- --print native-static-libs
}
check "the library builds" build || finish_with_counts
system_libs=$(sed -n 's/^note: native-static-libs: //p' "$work/out" | tail -n 1)
[ -n "$system_libs" ] || system_libs="-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc"
mkdir -p "$work/shared" "$work/static"
cp "$target/libtidewire.so" "$work/shared/libtidewire.so.0"
ln -s libtidewire.so.0 "$work/shared/libtidewire.so"
cp "$target/libtidewire.a" "$work/static/"

warnings="-Wall -Wextra -Werror -pedantic -Wundef -Wshadow -Wconversion -Wno-sign-conversion"
c99="-std=c99 -D_GNU_SOURCE -g -I$root/include -pthread $warnings"
shared="-L$work/shared -ltidewire -Wl,-rpath,$work/shared"
static="$work/static/libtidewire.a $system_libs"

# --- header and symbols

printf '#include <tidewire.h>\n#include <tidewire.h>\nint main(void) {\n  tidewire_options_t o = TIDEWIRE_OPTIONS_INIT;\n  tidewire_event_t e = TIDEWIRE_EVENT_INIT;\n  tidewire_publish_options_t p = TIDEWIRE_PUBLISH_OPTIONS_INIT;\n  tidewire_stats_t s = TIDEWIRE_STATS_INIT;\n  e.event_type = TIDEWIRE_EVENT_TEST_EVENT;\n  e.key = tidewire_str("k");\n  return o.struct_size + e.struct_size + p.struct_size + s.struct_size == 0;\n}\n' >"$work/header.c"
cp "$work/header.c" "$work/header.cc"
for compiler in gcc clang; do
  command -v $compiler >/dev/null || continue
  for standard in c99 c11; do
    check "the header is $standard for $compiler" \
      $compiler -std=$standard $warnings -I"$root/include" -fsyntax-only "$work/header.c"
  done
done
for compiler in g++ clang++; do
  command -v $compiler >/dev/null || continue
  check "the header is C++17 for $compiler" \
    $compiler -std=c++17 $warnings -I"$root/include" -fsyntax-only "$work/header.cc"
done

header_functions() {
  gcc -E -P -I"$root/include" -x c "$root/include/tidewire.h" | grep -v '^static' |
    grep -o '\btidewire_[a-z_]* *(' | tr -d ' (' | grep -v -x -e tidewire_bytes -e tidewire_str | sort -u
}
symbols() {
  header_functions >"$work/functions"
  nm -D --defined-only "$target/libtidewire.so" | awk '{print $3}' | sort -u | diff "$work/functions" -
}
check "the library exports what the header declares, and nothing else" symbols
soname() {
  readelf -d "$target/libtidewire.so" | grep -q 'soname: \[libtidewire.so.0\]' &&
    readelf -d "$target/libtidewire.so" | grep -q NODELETE
}
check "soname libtidewire.so.0, not unloadable" soname

# The layout of everything that crosses the border: a line that changes or goes breaks programs that are out there.
layout() {
  awk '/size [0-9]*$/ && NF == 3 {print "STRUCT(" $1 ");"}
       / at [0-9]* size / {split($1, n, "."); print "FIELD(" n[1] ", " n[2] ");"}
       / = / {print "NUMBER(" $1 ");"}' "$here/abi.txt" >"$work/abi.inc"
  gcc -std=c11 -I"$root/include" -I"$work" "$here/abi.c" -o "$work/abi" && "$work/abi" | diff "$here/abi.txt" - &&
    { header_functions | grep -v -x -F -f "$here/abi-functions.txt"; header_functions | sort - | comm -13 - "$here/abi-functions.txt" | sed 's/^/gone: /' | tee "$work/gone"; [ ! -s "$work/gone" ]; }
}
check "the layout is that of tests/c/abi.txt" layout

# --- programs

c_program() { gcc $c99 "$1" -o "$2" "${@:3}"; }
check "the example compiles, shared library" c_program ffi/examples/publish.c "$work/publish" $shared
check "the example compiles, static library" c_program ffi/examples/publish.c "$work/publish-static" $static
check "the example compiles as C++17" \
  g++ -std=c++17 -g -x c++ ffi/examples/publish.c -I"$root/include" -Wall -Wextra -Werror -o "$work/publish-cxx" $shared
check "the tests compile, shared library" c_program tests/c/test_api.c "$work/test_api" $shared
check "the tests compile, static library" c_program tests/c/test_api.c "$work/test_api-static" $static
asan="-fsanitize=address -fno-omit-frame-pointer"
check "the example compiles with -fsanitize=address" c_program ffi/examples/publish.c "$work/publish-asan" $asan $shared
check "the tests compile with -fsanitize=address" c_program tests/c/test_api.c "$work/test_api-asan" $asan $shared
[ "$failed" = 0 ] || finish_with_counts

"$target/tidewire-receiver" --listen 127.0.0.1:0 --log "$work/records" >"$work/receiver" 2>&1 &
receiver=$!
for _ in $(seq 100); do
  grep -q '^listening on' "$work/receiver" && break
  sleep 0.05
done
address=$(sed -n 's/^listening on //p' "$work/receiver")

# deliver COMMAND...: runs the example, and looks for each event at the receiver, whose log has the keys URL-encoded.
deliver() {
  : >"$work/records"
  rm -rf "$work/data"
  timeout 120 "$@" "http://$address/" "$work/data" || return
  [ "$(cut -d' ' -f1 "$work/records" | sort -u | wc -l)" = 1000 ] || { echo "not 1000 event ids"; return 1; }
  [ "$(cut -d' ' -f2 "$work/records" | sort -u | wc -l)" = 1000 ] || { echo "not 1000 keys"; return 1; }
  # Of the numbers below 1000: those that 10 divides, else 11, else 13.
  local odd
  odd="$(grep -c '%00' "$work/records") $(grep -c '%0A' "$work/records") $(grep -c '%FF' "$work/records")"
  [ "$odd" = "100 81 63" ] || { echo "keys with NUL, newline, 0xFF: $odd"; return 1; }
}
check "the example delivers 1000 events, shared library" deliver "$work/publish"
check "the example delivers 1000 events, static library" deliver "$work/publish-static"
check "the example delivers 1000 events, as C++" deliver "$work/publish-cxx"

tests() {
  local name=$1
  shift
  mkdir "$work/$name"
  timeout 300 "$@" "$work/$name"
}
check_all "the tests, shared library" tests plain "$work/test_api"
check_all "the tests, static library" tests static "$work/test_api-static"

# --- memory

export ASAN_OPTIONS=detect_leaks=1:halt_on_error=1:abort_on_error=0:strict_string_checks=1
export LSAN_OPTIONS=suppressions=$here/lsan.supp:print_suppressions=0
check "the example has no memory error and no leak (ASan, LSan)" deliver "$work/publish-asan"
check_all "the tests have no memory error and no leak (ASan, LSan)" tests asan "$work/test_api-asan"

if ! command -v valgrind >/dev/null && [ "$(id -u)" = 0 ]; then
  apt-get install -y -q valgrind >/dev/null 2>&1
fi
if command -v valgrind >/dev/null; then
  memcheck() {
    valgrind -q --error-exitcode=99 --leak-check=full --show-leak-kinds=definite,indirect,possible \
      --errors-for-leak-kinds=definite,indirect --suppressions="$here/valgrind.supp" "$@"
  }
  check "the example has no memory error and no leak (valgrind)" deliver memcheck "$work/publish"
else
  echo "skip the example under valgrind: it is not installed, and only root can install it"
fi

finish_with_counts
