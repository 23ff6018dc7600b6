#!/usr/bin/env bash
# Tens of thousands of short lives of an engine and of a ring of sockets, none of which may stall; see
# core/tests/short_runs.rs and core/src/driver/sockets/tests.rs. What is printed at the end counts wake-ups that were lost.
set -u -o pipefail
cd "$(dirname "$0")/../.." || exit 2
export TIDEWIRE_LONG=1
{
    cargo test --release -p tidewire --test short_runs -- --show-output
    cargo test --release -p tidewire --lib -- driver::sockets::tests::short_lives --show-output
} 2>&1 | tee /dev/stderr |
    awk '/^test result: / { p += $4; f += $6 } END { if (p + f == 0) f = 1; print p + 0 " passed, " f + 0 " failed"; exit f > 0 }'
