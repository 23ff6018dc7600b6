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
  # A child that is told to end before it has become another program is none of it.
  [ "$BASHPID" = $$ ] || return
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

build() { cargo build -q -p tidewire-receiver && make -s PROFILE=dev; }
check "the library builds" build || finish_with_counts
system_libs=$(cat "$target/libtidewire.libs")
mkdir -p "$work/shared" "$work/static"
cp "$target/libtidewire.so" "$work/shared/libtidewire.so.0"
ln -s libtidewire.so.0 "$work/shared/libtidewire.so"
cp "$target/libtidewire.a" "$work/static/"

warnings="-Wall -Wextra -Werror -pedantic -Wundef -Wshadow -Wconversion -Wno-sign-conversion"
c99="-std=c99 -D_GNU_SOURCE -g -I$root/include -pthread $warnings"
shared="-L$work/shared -ltidewire -Wl,-rpath,$work/shared"
static="$work/static/libtidewire.a $system_libs"

# --- header and symbols

cat >"$work/header.c" <<'END'
#include <tidewire.h>
#include <tidewire.h>
int main(void) {
  tidewire_options_t o = TIDEWIRE_OPTIONS_INIT;
  tidewire_event_t e = TIDEWIRE_EVENT_INIT;
  tidewire_publish_options_t p = TIDEWIRE_PUBLISH_OPTIONS_INIT;
  tidewire_completions_options_t q = TIDEWIRE_COMPLETIONS_OPTIONS_INIT;
  tidewire_reserve_options_t r = TIDEWIRE_RESERVE_OPTIONS_INIT;
  tidewire_commit_t c = TIDEWIRE_COMMIT_INIT;
  tidewire_stats_t s = TIDEWIRE_STATS_INIT;
  tidewire_read_options_t d = TIDEWIRE_READ_OPTIONS_INIT;
  tidewire_item_t i = TIDEWIRE_ITEM_INIT;
  tidewire_published_t j = TIDEWIRE_PUBLISHED_INIT;
  tidewire_handler_t h = TIDEWIRE_HANDLER_INIT;
  tidewire_batch_info_t b = TIDEWIRE_BATCH_INFO_INIT;
  tidewire_batch_event_t x = TIDEWIRE_BATCH_EVENT_INIT;
  tidewire_enricher_t y = TIDEWIRE_ENRICHER_INIT;
  e.event_type = TIDEWIRE_EVENT_TEST_EVENT;
  e.key = tidewire_str("k");
  return o.struct_size + e.struct_size + p.struct_size + q.struct_size + r.struct_size + c.struct_size + s.struct_size + d.struct_size + i.struct_size + j.struct_size + h.struct_size + b.struct_size + x.struct_size + y.struct_size == 0;
}
END
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

cat >"$work/header.hpp.cc" <<'END'
#include <tidewire.hpp>
#include <tidewire.hpp>
int main() { return tidewire::version().empty(); }
END
for compiler in g++ clang++; do
  command -v $compiler >/dev/null || continue
  for how in -std=c++17 -std=c++20 "-std=c++17 -fno-exceptions" "-std=c++17 -fno-rtti"; do
    check "the header for C++ with $how for $compiler" \
      $compiler $how $warnings -I"$root/include" -fsyntax-only "$work/header.hpp.cc"
  done
done

header_functions() {
  gcc -E -P -I"$root/include" -x c "$root/include/tidewire.h" | grep -v '^static' |
    grep -o '\btidewire_[a-z0-9_]* *(' | tr -d ' (' | grep -v -x -e tidewire_bytes -e tidewire_str | sort -u
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

# What programs that are out there rely on. A line of abi.txt may change only together with the soname, but for the size of
# a struct that begins with struct_size, which may grow; new lines are added for what is new.
layout() {
  grep -v '^function ' "$here/abi.txt" >"$work/layout"
  awk '/^function / {next}
       / size [0-9]*$/ && NF == 3 {print "STRUCT(" $1 ");"}
       / at [0-9]* size / {split($1, n, "."); print "FIELD(" n[1] ", " n[2] ");"}
       / = / {print "NUMBER(" $1 ");"}' "$here/abi.txt" >"$work/abi.inc"
  gcc -std=c11 -I"$root/include" -I"$work" "$here/abi.c" -o "$work/abi" && "$work/abi" | diff "$work/layout" - &&
    sed -n 's/^function //p' "$here/abi.txt" | sort | diff - "$work/functions"
}
check "functions, structs and numbers are those of tests/c/abi.txt" layout

# --- programs

c_program() { gcc $c99 "$1" -o "$2" "${@:3}"; }
check "the example compiles, shared library" c_program ffi/examples/publish.c "$work/publish" $shared
check "the example compiles, static library" c_program ffi/examples/publish.c "$work/publish-static" $static
check "the example compiles as C++17" \
  g++ -std=c++17 -g -x c++ ffi/examples/publish.c -I"$root/include" -Wall -Wextra -Werror -o "$work/publish-cxx" $shared
for t in test_api test_publish test_rules test_again test_reading test_handlers test_enrich test_shared; do
  check "$t compiles, shared library" c_program tests/c/$t.c "$work/$t" $shared
  check "$t compiles, static library" c_program tests/c/$t.c "$work/$t-static" $static
done
cxx_program() { g++ -std=c++17 -D_GNU_SOURCE -g -I"$root/include" -pthread $warnings "$1" -o "$2" "${@:3}"; }
check "test_cpp compiles, shared library" cxx_program tests/c/test_cpp.cc "$work/test_cpp" $shared
check "test_cpp compiles, static library" cxx_program tests/c/test_cpp.cc "$work/test_cpp-static" $static
check "test_dlopen compiles" gcc $c99 tests/c/test_dlopen.c -o "$work/test_dlopen" -Wl,-rpath,"$work/shared" -ldl
check "the object server in C compiles" c_program ffi/examples/object_server.c "$work/object_server-c" $shared -lmicrohttpd
# The header of the HTTP library does not stand these warnings.
server_in_cxx() {
  g++ -std=c++17 -g -Wall -Wextra -Werror -Iinclude -pthread ffi/examples/object_server.cc -o "$work/object_server-$1" \
    $shared -lcpp-httplib "${@:2}"
}
check "the object server in C++ compiles" server_in_cxx cxx
check "the notification of the RADOS gateway compiles" cxx_program ffi/examples/rgw/main.cc "$work/rgw" $shared
asan="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
check "the example compiles with -fsanitize=address" c_program ffi/examples/publish.c "$work/publish-asan" $asan $shared
for t in test_api test_publish test_rules test_again test_reading test_handlers test_enrich test_shared; do
  check "$t compiles with -fsanitize=address" c_program tests/c/$t.c "$work/$t-asan" $asan $shared
done
check "test_cpp compiles with -fsanitize=address" cxx_program tests/c/test_cpp.cc "$work/test_cpp-asan" $asan $shared
check "the object server in C compiles with -fsanitize=address" \
  c_program ffi/examples/object_server.c "$work/object_server-c-asan" $asan $shared -lmicrohttpd
check "the object server in C++ compiles with -fsanitize=address" server_in_cxx cxx-asan $asan
check "the notification of the RADOS gateway compiles with -fsanitize=address" \
  cxx_program ffi/examples/rgw/main.cc "$work/rgw-asan" $asan $shared
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
  "$@" "http://$address/" "$work/data" || return
  [ "$(cut -d' ' -f1 "$work/records" | sort -u | wc -l)" = 1000 ] || { echo "not 1000 event ids"; return 1; }
  [ "$(cut -d' ' -f2 "$work/records" | sort -u | wc -l)" = 1000 ] || { echo "not 1000 keys"; return 1; }
  # Of the numbers below 1000: those that 10 divides, else 11, else 13.
  local odd
  odd="$(grep -c '%00' "$work/records") $(grep -c '%0A' "$work/records") $(grep -c '%FF' "$work/records")"
  [ "$odd" = "100 81 63" ] || { echo "keys with NUL, newline, 0xFF: $odd"; return 1; }
}
check "the example delivers 1000 events, shared library" deliver timeout 60 "$work/publish"
check "the example delivers 1000 events, static library" deliver timeout 60 "$work/publish-static"
check "the example delivers 1000 events, as C++" deliver timeout 60 "$work/publish-cxx"

# serve PROGRAM: an object server, what curl does with it, and what the receiver gets to know.
serve() {
  local port server status=0
  rm -rf "$work/objects" "$work/data"
  mkdir "$work/objects"
  : >"$work/records"
  cat >"$work/server.toml" <<END
[engine]
data_dir = "$work/data"
[[destination]]
name = "hook"
type = "webhook"
url = "http://$address/"
order = "strict"
[[rule]]
id = "all"
bucket = "photos"
events = ["*"]
destinations = ["hook"]
END
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  # What the last one has said is gone before this one is looked for.
  : >"$work/server"
  "$1" "$port" "$work/objects" "$work/server.toml" >>"$work/server" 2>&1 &
  server=$!
  for _ in $(seq 2400); do
    grep -q '^ready' "$work/server" && break
    kill -0 $server 2>/dev/null || break
    sleep 0.05
  done
  with_curl "http://127.0.0.1:$port" || status=1
  # The client goes in the midst of a body.
  exec 3<>"/dev/tcp/127.0.0.1/$port" && printf 'PUT /photos/cut HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf' >&3
  exec 3>&-
  kill -TERM $server
  wait $server || { echo "the server ended with $?"; status=1; }
  cat "$work/server"
  printf '%s\n' 'a%2Fb.jpg 5' 'a%2Fb.jpg 7' '..%2Fx 0' 'a%2Fb.jpg -' >"$work/wanted"
  cut -d' ' -f2,4 "$work/records" | sed 's|/|%2F|' | diff "$work/wanted" - || status=1
  [ "$(ls -A "$work/objects" | wc -l)" = 2 ] || { ls -lA "$work/objects"; status=1; }
  return $status
}
with_curl() {
  asks() { # status arguments
    local got
    got=$(curl -sS --path-as-is --max-time 60 -o "$work/body" -w '%{http_code}' "${@:2}") && [ "$got" = "$1" ] && return
    echo "$got and not $1: ${*:2}"
    return 1
  }
  asks 404 "$1/photos/a/b.jpg" &&
    asks 201 -T - "$1/photos/a/b.jpg" <<<four &&
    asks 201 -T - "$1/photos/a/b.jpg" <<<sixsix &&
    asks 200 "$1/photos/a/b.jpg" && [ "$(cat "$work/body")" = sixsix ] &&
    asks 201 -T /dev/null "$1/photos/../x" &&
    asks 201 -T - "$1/unwanted/x" <<<silent &&
    asks 204 -X DELETE "$1/photos/a/b.jpg" &&
    asks 404 -X DELETE "$1/photos/a/b.jpg"
}
check "the object server in C tells of what it stores" serve "$work/object_server-c"
check "the object server in C++ tells of what it stores" serve "$work/object_server-cxx"
gateway() {
  : >"$work/records"
  rm -rf "$work/data"
  timeout 60 "$1" "http://$address/" "$work/data" || return
  for _ in $(seq 200); do
    [ "$(wc -l <"$work/records")" -ge 3 ] && break
    sleep 0.05
  done
  printf '%s\n' 'copied' 'put' 'removed' >"$work/wanted"
  cut -d' ' -f2 "$work/records" | sort | diff "$work/wanted" -
}
check "the notification of the RADOS gateway" gateway "$work/rgw"

tests() {
  local name=$1
  shift
  mkdir "$work/tests-$name"
  timeout 300 "$@" "$work/tests-$name"
}
for t in test_api test_publish test_rules test_again test_reading test_handlers test_enrich test_shared test_cpp; do
  check_all "$t, shared library" tests $t "$work/$t"
  check_all "$t, static library" tests $t-static "$work/$t-static"
done
check_all "test_dlopen" tests test_dlopen "$work/test_dlopen"

# --- installed

# In a directory for libraries that is not beside that of the headers, as Debian has them.
to="PREFIX=$work/usr LIBDIR=$work/usr/lib/multiarch"
check "make install" make -s install PROFILE=dev $to
export PKG_CONFIG_PATH=$work/usr/lib/multiarch/pkgconfig
with_pkg_config() { # [--static]
  gcc -std=c99 ffi/examples/publish.c $(pkg-config --cflags tidewire) -o "$work/installed" \
    $(pkg-config --libs "$@" tidewire) -Wl,-rpath,"$(pkg-config --variable=libdir tidewire)"
}
version() { [ "$(pkg-config --modversion tidewire)" = "$1" ]; }
check "pkg-config knows the version" version "$(sed -n 's/^#define TIDEWIRE_VERSION_\(MAJOR\|MINOR\|PATCH\) //p' include/tidewire.h | paste -sd.)"
check "pkg-config: a program is linked" with_pkg_config
check "pkg-config: it delivers" deliver timeout 60 "$work/installed"
mkdir "$work/cmake"
cp ffi/examples/publish.c "$work/cmake/"
cat >"$work/cmake/main.cc" <<'END'
#include <tidewire.hpp>
int main() {
  return tidewire::Engine::try_open(tidewire::Options::text("")).code() == TIDEWIRE_INVALID_ARGUMENT ? 0 : 1;
}
END
cat >"$work/cmake/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.16)
project(host C CXX)
set(CMAKE_CXX_STANDARD 17)
find_package(Tidewire ${WANTED} REQUIRED)
add_executable(shared publish.c)
target_link_libraries(shared PRIVATE Tidewire::tidewire)
add_executable(static publish.c)
target_link_libraries(static PRIVATE Tidewire::tidewire_static)
add_executable(plus main.cc)
target_link_libraries(plus PRIVATE Tidewire::tidewire)
END
configure() { cmake -S "$work/cmake" -B "$work/cmake/$1" -DCMAKE_PREFIX_PATH="$work/usr" -DTidewire_DIR="$work/usr/lib/multiarch/cmake/Tidewire" -DWANTED="$1"; }
refused() { ! configure "$1" && grep -q 'requested version' "$work/out"; }
with_cmake() { configure 0.1 && cmake --build "$work/cmake/0.1"; }
check "CMake: find_package, shared, static and C++" with_cmake
check "CMake: refuses another version" refused 0.2
check "CMake: refuses another version" refused 1.0
linked() { ldd "$work/cmake/0.1/$1" | grep -q libtidewire.so.0; }
not_linked() { ! linked "$1"; }
check "CMake: one is linked with the shared library" linked shared
check "CMake: the other is not" not_linked static
check "CMake: the shared one delivers" deliver timeout 60 "$work/cmake/0.1/shared"
check "CMake: the static one delivers" deliver timeout 60 "$work/cmake/0.1/static"
check "CMake: the one in C++ runs" timeout 60 "$work/cmake/0.1/plus"
rm "$work"/usr/lib/multiarch/libtidewire.so*
check "pkg-config --static: a program is linked" with_pkg_config --static
check "pkg-config --static: it delivers" deliver timeout 60 "$work/installed"
uninstalled() { make -s uninstall $to && [ -z "$(find "$work/usr" -type f)" ]; }
check "make uninstall leaves nothing" uninstalled

# --- memory

export UBSAN_OPTIONS=print_stacktrace=1
export ASAN_OPTIONS=detect_leaks=1:halt_on_error=1:abort_on_error=0:strict_string_checks=1:fast_unwind_on_malloc=0
export LSAN_OPTIONS=suppressions=$here/lsan.supp:print_suppressions=0
check "the example has no memory error and no leak (ASan, UBSan, LSan)" deliver timeout 60 "$work/publish-asan"
for t in test_api test_publish test_rules test_again test_reading test_handlers test_enrich test_shared test_cpp; do
  check_all "$t has no memory error and no leak (ASan, UBSan, LSan)" tests $t-asan "$work/$t-asan"
done

check "the object server in C, with no memory error and no leak (ASan, UBSan, LSan)" serve "$work/object_server-c-asan"
check "the object server in C++, with no memory error and no leak (ASan, UBSan, LSan)" serve "$work/object_server-cxx-asan"
check "the notification of the RADOS gateway, with no memory error and no leak (ASan, UBSan, LSan)" gateway "$work/rgw-asan"

if ! command -v valgrind >/dev/null && [ "$(id -u)" = 0 ]; then
  apt-get install -y -q valgrind >/dev/null 2>&1
fi
if command -v valgrind >/dev/null; then
  # See valgrind_uring.c.
  check "the shim for valgrind compiles" gcc -std=c11 -D_GNU_SOURCE $warnings -shared -fPIC "$here/valgrind_uring.c" \
    -o "$work/valgrind_uring.so" -ldl
  memcheck() {
    LD_PRELOAD=$work/valgrind_uring.so timeout 120 valgrind -q --error-exitcode=99 --leak-check=full --show-leak-kinds=definite,indirect \
      --errors-for-leak-kinds=definite,indirect --num-callers=40 --suppressions="$here/valgrind.supp" "$@"
  }
  check "the example has no memory error and no leak (valgrind)" deliver memcheck "$work/publish"
else
  echo "skip the example under valgrind: it is not installed, and only root can install it"
fi

finish_with_counts
