#!/usr/bin/env bash
# 100,000 seeds of the simulator; other seeds with TIDEWIRE_SEEDS="SEEDS FIRST".
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck disable=SC2086 # two words
if tests/simulate ${TIDEWIRE_SEEDS:-100000 1000000} >&2; then echo "1 passed, 0 failed"; else echo "0 passed, 1 failed"; exit 1; fi
