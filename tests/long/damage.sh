#!/usr/bin/env bash
# Every bit flip and every cut of segments of 64 KiB; see core/tests/damage.rs.
set -u -o pipefail
cd "$(dirname "$0")/../.." || exit 2
export TIDEWIRE_LONG=1
cargo test -p tidewire --test damage -- --show-output 2>&1 | tee -a /dev/stderr |
    awk '/^test result: / { p += $4; f += $6 } END { if (p + f == 0) f = 1; print p + 0 " passed, " f + 0 " failed"; exit f > 0 }'
