#!/usr/bin/env bash
# 100,000 seeds of the simulator; other seeds with TIDEWIRE_SEEDS="SEEDS FIRST". In runs of some thousand each: the memory of
# processes that were killed in a simulation is never given back, which would be many gigabytes.
set -u
cd "$(dirname "$0")/../.." || exit 2
read -r seeds first <<<"${TIDEWIRE_SEEDS:-100000 1000000}"
chunk=5000
end=$((first + seeds))
failed=0
for ((at = first; at < end; at += chunk)); do
    n=$((end - at < chunk ? end - at : chunk))
    echo "seeds $at to $((at + n - 1))" >&2
    tests/simulate "$n" "$at" >&2 || failed=1
done
if [ "$failed" = 0 ]; then echo "1 passed, 0 failed"; else echo "0 passed, 1 failed"; exit 1; fi
