"""Runs AutoAttack on the heads of one condition, through filter and encoder, over several upstream runs.

    python -m experiments.design.autoattack_heads runs/fresh_10 runs/fresh_11 --queries 1000

The evaluation of a run takes the attacks of its config. This takes the stronger suite on heads that are there already:
APGD-CE (100 steps), APGD-T, FAB-T and Square on the images that each leaves (`ranjax.evaluation.autoattack`). Prints
one column a run and the mean with Student's interval, then RAN less each other method; writes JSON where --out says.
What is done is kept in --out and is not attacked again.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from experiments.design.defences import subject_of
from experiments.design.over_runs import METHODS, over_runs
from ranjax.core import files
from ranjax.core.pixels import to_float
from ranjax.evaluation.autoattack import VERSIONS, AutoAttack
from ranjax.methods.defences import undefended
from ranjax.run.audits.audited_defences import parts_of


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("runs", type=Path, nargs="+")
    p.add_argument("--condition", default="targeted_keywords_30")
    p.add_argument("--methods", nargs="+", default=["lp_filter", "ridge_tokens", "ridge_copies", "ran"])
    p.add_argument("--epsilon", default="2/255")
    p.add_argument("--attacks", nargs="+", default=list(VERSIONS["standard"]), choices=VERSIONS["standard"])
    p.add_argument("--images", type=int, default=256)
    p.add_argument("--steps", type=int, default=100)
    p.add_argument("--queries", type=int, default=1000, help="of Square")
    p.add_argument("--out", type=Path, default=None, help="JSON file; what it holds already is not done again")
    arguments = p.parse_args()
    asked = {
        name: getattr(arguments, name) for name in ("condition", "epsilon", "attacks", "images", "steps", "queries")
    }
    kept = files.read_json(arguments.out) if arguments.out and arguments.out.exists() else {"asked": asked, "runs": {}}
    if kept["asked"] != asked:
        p.error(
            f"--out = {arguments.out}: expected figures of the same settings, and it holds those of {kept['asked']}"
        )
    for run in arguments.runs:
        found = kept["runs"].setdefault(run.name, {})
        for method in arguments.methods:
            if method not in found:
                found[method] = attacked(run, method, arguments)
                if arguments.out:
                    files.write_json(arguments.out, kept)
    print("\n".join(table(kept["runs"], [run.name for run in arguments.runs], arguments.methods)))
    return 0


def attacked(run: Path, method: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Return the shares that are right without an attack and after each attack, of the first head of a method."""
    subject, begun = subject_of(run, arguments.condition), time.monotonic()
    examples = subject.some("test", arguments.images)
    features, classify, params = parts_of(subject, method)
    suite = AutoAttack(
        (undefended(features, classify), params), arguments.epsilon, attacks=arguments.attacks, steps=arguments.steps,
        queries=arguments.queries, batch_size=64,
    )  # fmt: skip
    found = suite.run(to_float(examples.images), examples.labels, ids=examples.ids)
    shares = {"clean": float(found.clean.mean())} | {name: float(left.mean()) for name, left in found.survived.items()}
    seconds = time.monotonic() - begun
    print(f"{run.name} {method}: {_percent(shares)} ({seconds:.0f} s) {' '.join(found.notes)}", flush=True)
    return shares


def _percent(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {100 * share:.1f}" for name, share in shares.items())


def table(found: dict[str, dict[str, dict[str, float]]], runs: list[str], methods: list[str]) -> list[str]:
    """Return a line a method, a column a run, of the share after the last attack; then RAN less each other method."""
    left = {name: [100 * list(found[run][name].values())[-1] for run in runs] for name in methods}
    rows = [(METHODS.get(name, name), values) for name, values in left.items()]
    if "ran" in left:
        others = ((name, values) for name, values in left.items() if name != "ran")
        rows += [(f"RAN less {METHODS.get(n, n)}", list(np.subtract(left["ran"], values))) for n, values in others]
    head = [f"| accuracy in %, attacked | {' | '.join(runs)} | mean [95 %] |", f"|---|{'---|' * (len(runs) + 1)}"]
    return head + [
        f"| {name} | {' | '.join(f'{v:.1f}' for v in values)} | {over_runs(values)} |" for name, values in rows
    ]


if __name__ == "__main__":
    sys.exit(main())
