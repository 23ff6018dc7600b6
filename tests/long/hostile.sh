#!/usr/bin/env bash
# 10,000 deliveries against each behaviour of the hostile receiver, over both kinds of sockets; see core/tests/hostile.rs.
# What is printed for each tells the requests, the time, and what is left of memory.
set -u -o pipefail
cd "$(dirname "$0")/../.." || exit 2
export TIDEWIRE_LONG=1
cargo test --release -p tidewire --test hostile -- --show-output --test-threads 1 2>&1 | tee /dev/stderr |
    awk '/^test result: / { p += $4; f += $6 } END { if (p + f == 0) f = 1; print p + 0 " passed, " f + 0 " failed"; exit f > 0 }'
