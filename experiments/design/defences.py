"""Attacks defences at test time as their papers do, on the undefended model, and through the defence.

    ranjax run --config configs/ran.py --workdir runs/ran --until adapt
    python -m experiments.design.defences runs/ran --condition clean
    python -m experiments.design.defences runs/ran --defences ttc dbd --classifier lp --epsilon 2/255

Each defence stands in front of the encoder of one condition, whose images are classified by the classes' prompts, or by
the first head of LP. Test images are attacked without the defence (as published), by APGD through it (its loops
unrolled, means over draws of random ones; TTC also as the identity), and by Square. Prints a table and writes it as
JSON where --out says.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from ranjax.core import files
from ranjax.core.errors import ConfigError
from ranjax.core.pixels import to_float
from ranjax.evaluation import statistics
from ranjax.evaluation.through_defence import ThroughDefence, published_images, through_defence
from ranjax.methods.defences import DEFENCES, defended, undefended
from ranjax.run import config as configs
from ranjax.run import plan as planning
from ranjax.run.audits.audited_defences import draws_of, parts_of
from ranjax.run.context import context_of
from ranjax.run.stages.evaluation.evaluated_encoder import EvaluatedEncoder
from ranjax.training.devices import make_mesh


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("workdir", type=Path)
    p.add_argument("--condition", default="clean")
    p.add_argument("--defences", nargs="+", default=list(DEFENCES), help="names, or module:NAME")
    p.add_argument("--classifier", default="zero_shot", help="zero_shot, or a head of the run such as lp")
    p.add_argument("--epsilon", default="2/255")
    p.add_argument("--images", type=int, default=128)
    p.add_argument("--steps", type=int, default=10)
    p.add_argument("--draws", type=int, default=4, help="over which attacks on one random view raise the mean")
    p.add_argument("--queries", type=int, default=100)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--out", type=Path, help="file for the figures, as JSON")
    arguments = p.parse_args()
    subject = subject_of(arguments.workdir, arguments.condition)
    examples = subject.some("test", arguments.images)
    images = to_float(examples.images)
    features, classify, params = parts_of(subject, arguments.classifier)
    plain = undefended(features, classify)
    budget = {"epsilons": (arguments.epsilon,), "steps": arguments.steps, "batch_size": arguments.batch}
    begun = time.monotonic()
    moved = published_images(plain, params, images, examples.labels, ids=examples.ids, **budget)
    print(
        f"{len(images)} images, {arguments.classifier}, {arguments.epsilon}; {time.monotonic() - begun:.0f} s",
        flush=True,
    )
    print(
        line("defence", "clean", "published", "gradient", "transfer", "search", "worst [95 %]", "verdict"), flush=True
    )
    found = {}
    for name in arguments.defences:
        entry, begun = DEFENCES.resolve(name, "--defences"), time.monotonic()
        ways = {way: defended(entry, features, classify, gradient=way) for way in entry.gradients}
        found[entry.name] = one = through_defence(
            ways, plain, params, images, examples.labels, ids=examples.ids, name=entry.label, transferred=moved,
            draws=draws_of(entry, arguments.draws), queries=arguments.queries, **budget,
        )  # fmt: skip
        if len(found) == 1:
            print(
                f"undefended: clean {100 * one.undefended.mean():.1f}, {100 * one.undefended_attacked.mean():.1f} left"
            )
        print(row(one), f"({time.monotonic() - begun:.0f} s)", flush=True)
    if arguments.out:
        files.write_json(arguments.out, {name: figures(one) for name, one in found.items()})
    return 0


def subject_of(workdir: Path, condition: str) -> EvaluatedEncoder:
    """Return the encoder and the heads of one condition of a run, which is only read.

    Raises:
      ConfigError: no such condition in the run.
    """
    config = configs.of_run(workdir)
    runs = {run.id: run for run in planning.plan(configs.typed(config))}
    if f"evaluate/{condition}" not in runs:
        known = ", ".join(name.partition("/")[2] for name in runs if name.startswith("evaluate/"))
        raise ConfigError("--condition", condition, f"one of {known}")
    context = context_of(config, workdir, runs[f"evaluate/{condition}"], make_mesh(1), {})
    return EvaluatedEncoder(context, condition, condition)


def row(one: ThroughDefence) -> str:
    """Return a line of the table, in per cent; what is masked is withheld."""
    shown = (one.clean, one.published, one.by_gradient, one.survived["transfer"])
    rest = one.by_gradient & one.survived["transfer"]
    worst = statistics.bootstrap(one.worst[0])
    total = f"{100 * worst.value:.1f} [{100 * worst.low:.1f}, {100 * worst.high:.1f}]"
    alone = f"{100 * (one.worst.mean() - rest.mean()):.1f}"  # what the search broke that nothing else did
    return line(
        one.name,
        *(f"{100 * rows.mean():.1f}" for rows in shown),
        alone,
        "withheld" if one.masked else total,
        one.verdict,
    )


def line(*cells: str) -> str:
    """Return cells in columns."""
    widths = (-26, 7, 11, 10, 10, 8, 20)
    return "".join(f"{cell:<{-w}}" if w < 0 else f"{cell:>{w}}" for cell, w in zip(cells, widths)) + f"  {cells[-1]}"


def figures(one: ThroughDefence) -> dict[str, object]:
    """Return the figures of one defence as JSON takes them."""
    survived = {name: rows.mean(1).tolist() for name, rows in one.survived.items()}
    return {
        **{"label": one.name, "epsilons": list(one.epsilons), "clean": float(one.clean.mean())},
        **{"published": one.published.mean(1).tolist(), "survived": survived, "headline": one.headline},
        **{"masked": one.masked, "verdict": one.verdict},
    }


if __name__ == "__main__":
    sys.exit(main())
