#!/usr/bin/env bash
# Which share of the time of Engine.publish and publish_many is in the native part: instructions, counted by valgrind.
#
# Usage: share.sh PYTHON (one that has tidewire, built with --release). Needs valgrind.
set -euo pipefail
python=${1:?the Python to run}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
here=$(cd "$(dirname "$0")" && pwd)
for name in publish 'many list'; do
    # Two counts, so that what starting costs is left out.
    for events in 20000 60000; do
        valgrind --tool=callgrind --callgrind-out-file="$out/$events" "$python" "$here/publish.py" \
            --only "$name" --rounds 1 --events "$events" >/dev/null 2>&1
        callgrind_annotate --threshold=100 "$out/$events" >"$out/$events.txt"
    done
    awk -v name="$name" '
        { gsub(/,/, "") }
        FNR == 1 { file++ }
        /PROGRAM TOTALS/ { total[file] = $1 }
        /_tidewire\.abi3\.so/ { native[file] += $1 }
        END {
            printf "%s: %d instructions per event, %.0f %% of them in the native part\n", name,
                (total[2] - total[1]) / 40000, 100 * (native[2] - native[1]) / (total[2] - total[1])
        }' "$out/20000.txt" "$out/60000.txt"
done
