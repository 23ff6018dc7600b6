#!/usr/bin/env bash
# Power lost in each of 200 rounds, on a file system of its own (root and loop devices); see tests/e2e/tests/disk.rs.
set -u -o pipefail
cd "$(dirname "$0")/../.." || exit 2
export TIDEWIRE_LONG=1
cargo test --release -p tidewire-e2e --test disk power -- --show-output 2>&1 | tee -a /dev/stderr |
    awk '/^test result: / { p += $4; f += $6 } END { if (p + f == 0) f = 1; print p + 0 " passed, " f + 0 " failed"; exit f > 0 }'
