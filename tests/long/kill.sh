#!/usr/bin/env bash
# The engine killed with SIGKILL in each of 20 rounds of 100,000 events and of 300 rounds of 2,000; see
# tests/e2e/tests/kill.rs.
set -u -o pipefail
cd "$(dirname "$0")/../.." || exit 2
export TIDEWIRE_LONG=1
cargo test --release -p tidewire-e2e --test kill -- --show-output 2>&1 | tee -a /dev/stderr |
    awk '/^test result: / { p += $4; f += $6 } END { if (p + f == 0) f = 1; print p + 0 " passed, " f + 0 " failed"; exit f > 0 }'
