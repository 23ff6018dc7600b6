#!/usr/bin/env bash
# Which share of the time of Engine.publish and publish_many is in the native part: instructions, counted by valgrind. Takes minutes.
#
# Usage: share.sh [PYTHON] (one that has tidewire, built with --release; default: that of `benches/run python`). Needs valgrind.
set -euo pipefail
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
here=$(cd "$(dirname "$0")" && pwd)
python=${1:-${CARGO_TARGET_DIR:-$here/../../target}/bench-python/bin/python}
for name in publish_parts many_list; do
    # Two counts, so that what starting costs is left out.
    for times in 1 3; do
        valgrind --tool=callgrind --callgrind-out-file="$out/$times" "$python" "$here/calls.py" --only "$name" $times >/dev/null 2>&1
        callgrind_annotate --threshold=100 "$out/$times" >"$out/$times.txt"
    done
    awk -v name="$name" '
        { gsub(/,/, "") }
        FNR == 1 { file++ }
        /PROGRAM TOTALS/ { total[file] = $1 }
        /_tidewire\.abi3\.so/ { native[file] += $1 }
        END {
            printf "%s: %d instructions per event, %.0f %% of them in the native part\n", name,
                (total[2] - total[1]) / 100000, 100 * (native[2] - native[1]) / (total[2] - total[1])
        }' "$out/1.txt" "$out/3.txt"
done
