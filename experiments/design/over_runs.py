"""Prints RAN's endpoints over several upstream runs: one column a run, then their mean with Student's interval.

    python -m experiments.design.over_runs runs/fresh_10 runs/fresh_11 runs/fresh_12

Reads results.json of each. `ranjax report RUN RUN --markdown` pools every figure of runs that differ in their seed
alone; this takes the endpoints of runs that may differ in more, such as the number of images attacked. Student's
interval takes the runs as a sample, and knows nothing of the images.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ranjax.core import files
from ranjax.evaluation import statistics
from ranjax.report.report_tables import Table

METHODS = {
    "lp": "LP", "mlp": "MLP", "lp_filter": "LP (filter)", "ridge_tokens": "ridge on tokens (filter)",
    "ridge_copies": "the same, with copies", "ran": "**RAN**",
}  # fmt: skip
ENDPOINTS = (
    ("worth_over_pixels", "pre-training over raw pixels (strongest plain head)", "at least 10"),
    ("worth_over_random", "pre-training over a random encoder", "at least 10"),
    ("damage", "30 % noise costs", "at least 5"),
    ("repairs", "RAN **repairs** (interaction with the noise)", "above 0"),
    ("repairs_half", "the same less half of the damage", "above 0"),
    ("uses", "RAN **uses the upstream** (over RAN on the random encoder)", "above 0"),
    ("costs_nothing", "RAN, clean, over the best plain head, 30 %", "lower end above -1"),
    ("ood", "RAN, out of domain, over the best plain head, 30 %", "lower end above 2"),
    ("defends_over_filter", "RAN, attacked, over LP (filter), 30 %", "8, lower end above 5"),
    ("defends", "RAN, attacked, over the best head on its features and filter", "8, lower end above 5"),
    ("term", "the defence term, attacked", "at least 5"),
    ("term_clean", "the defence term, clean", "at least -3"),
)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("runs", type=Path, nargs="+")
    p.add_argument("--noise", default="targeted_keywords", help="the noisy condition of the first table")
    arguments = p.parse_args()
    found = [files.read_json(run / "results.json") for run in arguments.runs]
    tables = accuracies(found, arguments.noise), points(found, [run.name for run in arguments.runs])
    print("\n\n".join(table.markdown() for table in tables))
    return 0


def accuracies(runs: Sequence[Any], noise: str) -> Table:
    """Return a table of means over the runs, in per cent, of the methods that every run has."""
    places = {
        "0 %, clean": ("clean", "test", "none"), "0 %, attacked": ("clean", "test", "worst"),
        "30 %, clean": (noise, "test", "none"), "30 %, attacked": (noise, "test", "worst"),
        "30 %, out of domain": (noise, "ood_test", "none"), "random encoder": ("random_init", "test", "none"),
        "raw pixels": ("pixels", "test", "none"),
    }  # fmt: skip
    lines = []
    for method, name in METHODS.items():
        cells = [[_accuracy(run, method, *place) for run in runs] for place in places.values()]
        lines.append([name, *(f"{100 * sum(of) / len(of):.1f}" for of in cells)])
    return Table([f"accuracy in %, mean of {len(runs)}", *places], lines)


def _accuracy(run: Any, method: str, condition: str, split: str, attack: str) -> float:
    wanted = (condition, method, split, attack, "accuracy", None, "finding")
    names = ("condition", "method", "split", "attack", "metric", "seed", "task")
    return next(row["value"] for row in run["rows"] if tuple(row[name] for name in names) == wanted)


def points(runs: Sequence[Any], names: Sequence[str]) -> Table:
    """Return a table of endpoints in points: a column a run, then mean and Student's 95 % interval, then the goal."""
    lines = []
    for endpoint, words, goal in ENDPOINTS:
        values = [100 * _contrast(run, endpoint) for run in runs]
        lines.append([words, *(f"{value:.1f}" for value in values), over_runs(values), goal])
    return Table(["points", *names, "mean [95 %]", "goal"], lines)


def _contrast(run: Any, endpoint: str) -> float:
    return next(item["difference"] for item in run["contrasts"] if item["endpoint"] == endpoint)


def over_runs(values: Sequence[float]) -> str:
    """Return "mean [low, high]" by Student's t over the runs; of one run its value alone."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    found = statistics.student(values)
    return f"{found.value:.1f} [{found.low:.1f}, {found.high:.1f}]"


if __name__ == "__main__":
    sys.exit(main())
