"""Draws latency and throughput: ``python -m tidewire.plot stats.json [-o picture.png]``.

The file has one JSON object, or a line for each of several: what :meth:`tidewire.Engine.stats` answers, the results of
``benches/python``, or the report of ``tidewire bench --json``. Needs matplotlib: ``pip install 'tidewire[plot]'``.

Statistics make two charts: latency by quantile, and deliveries by destination. Several of them with a ``time`` (seconds) make the
throughput between one and the next. Results of benches make a bar each: nanoseconds per call. A report makes a chart of each
part that has an axis: latency against throughput, cost against rules and destinations.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Optional

__all__ = ["draw", "main", "read"]

QUANTILES = ("p50", "p90", "p99", "p999", "max")


def read(path: Path) -> "list[dict[str, Any]]":
    """The objects of a file, which is one JSON document or a line for each.

    Raises :exc:`ValueError` that says where it is none.
    """
    text = path.read_text()
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        document = []
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    document.append(json.loads(line))
                except json.JSONDecodeError as error:
                    raise ValueError(f"{path}:{number}:{error.colno}: this is not JSON: {error.msg}") from None
    objects = document if isinstance(document, list) else [document]
    if not objects or not all(isinstance(o, dict) for o in objects):
        raise ValueError(f"{path}: there is no JSON object in it; give what Engine.stats answers")
    return objects


def draw(objects: "list[dict[str, Any]]", path: Path) -> None:
    """Draws them into a file, whose name tells the format.

    Raises :exc:`ValueError` if they are neither statistics nor results of benches.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    if all("ns_per_call" in o for o in objects):
        figure, axes = pyplot.subplots(figsize=(8, 0.5 * len(objects) + 1.5))
        bars = axes.barh([o["name"] for o in objects], [o["ns_per_call"] for o in objects])
        axes.bar_label(bars, fmt="%.0f", padding=3)
        axes.set_xlabel("nanoseconds per call")
        axes.invert_yaxis()
    elif all("latency_us" in o and "destinations" in o for o in objects):
        figure = _statistics(pyplot, objects)
    elif len(objects) == 1 and "figures" in objects[0] and "machine" in objects[0]:
        figure = _report(pyplot, objects[0])
    else:
        raise ValueError("these are neither statistics of an engine nor results of its benches")
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def _statistics(pyplot: Any, objects: "list[dict[str, Any]]") -> Any:
    timed = len(objects) > 1 and all("time" in o for o in objects)
    figure, axes = pyplot.subplots(1, 3 if timed else 2, figsize=(15 if timed else 10, 4))
    last = objects[-1]
    latency = last["latency_us"]
    axes[0].bar(QUANTILES, [max(latency.get(q, 0), 1) for q in QUANTILES])
    axes[0].set_yscale("log")
    axes[0].set_ylabel("microseconds from acceptance to answer")
    axes[0].set_title("latency")
    names = [d["name"] for d in last["destinations"]]
    axes[1].bar(names, [d["delivered"] for d in last["destinations"]], label="delivered")
    below = [d["delivered"] for d in last["destinations"]]
    axes[1].bar(names, [d["waiting"] for d in last["destinations"]], bottom=below, label="waiting")
    axes[1].set_title("deliveries")
    axes[1].legend()
    if timed:
        pairs = list(zip(objects, objects[1:]))
        rates = [(b["delivered"] - a["delivered"]) / max(b["time"] - a["time"], 1e-9) for a, b in pairs]
        axes[2].plot([b["time"] - objects[0]["time"] for _, b in pairs], rates)
        axes[2].set_xlabel("seconds")
        axes[2].set_title("deliveries per second")
    return figure


def _report(pyplot: Any, report: "dict[str, Any]") -> Any:
    charts: "dict[tuple[str, str], dict[str, list[dict[str, Any]]]]" = {}
    for f in report["figures"]:
        if "at" in f:
            charts.setdefault((f["part"], f["at"]["axis"]), {}).setdefault(f["at"]["line"], []).append(f)
    if not charts:
        raise ValueError("no part of the report makes a chart: see `tidewire bench --help`")
    figure, axes = pyplot.subplots(1, len(charts), figsize=(6 * len(charts), 4.5), squeeze=False)
    for chart, ((part, axis), lines) in zip(axes[0], charts.items()):
        for line, points in lines.items():
            values = [p["value"] for p in points]
            below = [p["value"] - p["range"][0] for p in points]
            above = [p["range"][1] - p["value"] for p in points]
            places = [p["at"]["value"] for p in points]
            chart.errorbar(places, values, yerr=[below, above], marker="o", capsize=3, label=f"{line} [{points[0]['unit']}]")
        chart.set_title(part, fontsize=10)
        chart.set_xlabel(axis)
        if axis == "events per second":
            chart.set_yscale("log")
        else:
            chart.set_xscale("symlog", linthresh=1)
            chart.set_ylim(bottom=0)
        chart.legend(fontsize=8)
    machine = report["machine"]
    figure.suptitle(f"{machine['processors']} x {machine['processor']}, Linux {machine['kernel']}", fontsize=9)
    return figure


def main(arguments: Optional["list[str]"] = None) -> int:
    """The command. Answers the status of the process."""
    parser = argparse.ArgumentParser(prog="python -m tidewire.plot", description="Draws latency and throughput.")
    parser.add_argument("stats", type=Path, help="what Engine.stats answers, as JSON, or a line for each of several")
    parser.add_argument("-o", "--output", type=Path, help="the picture; default: the same name with .png")
    given = parser.parse_args(arguments)
    output = given.output or given.stats.with_suffix(".png")
    try:
        draw(read(given.stats), output)
    except ModuleNotFoundError as error:
        print(f"{error.name} is missing: pip install 'tidewire[plot]'", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
