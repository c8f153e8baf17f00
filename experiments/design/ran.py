"""Designs RAN on the validation split alone: clean and attacked accuracy of variants, end to end, with intervals.

    python -m ranjax.main --config configs/ran.py --workdir runs/ran --until pretrain
    python -m experiments.design.ran runs/ran --arm coattack_30
    python -m experiments.design.ran runs/ran --arm coattack_30 --group scopes

Each variant is fitted on the labelled split and judged on validation images: clean accuracy on all of them, and
attacked accuracy on the first --examples by PGD through encoder and head (the evaluation's own radius, steps and step).
The test split is never opened. Groups: "heads" (terms, weights and sources of attacked features on the frozen encoder),
"scopes" (LoRA and full scope). Prints a table and writes it as JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ranjax import config as configs
from ranjax import files, pipeline
from ranjax.attacks.image import PGD
from ranjax.data.images import to_float
from ranjax.evaluation import statistics
from ranjax.evaluation.robustness import WhiteBox
from ranjax.stages import adapt, common
from ranjax.training.adapt import HEADS, METHODS, Fit, Method, Weights, fit_heads, predict
from ranjax.training.devices import make_mesh
from ranjax.training.rows import RowMap
from ranjax.training.tune import TUNED, Images, Tune, Tuned, encoder_of, head_of, tune


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("workdir", type=Path)
    p.add_argument("--arm", default="coattack_30")
    p.add_argument("--group", default="heads", choices=("heads", "scopes"))
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--examples", type=int, default=128)
    p.add_argument("--out", type=Path, default=None, help="JSON file (default: WORKDIR/design_GROUP_ARM.json)")
    arguments = p.parse_args()
    bench = Bench(arguments.workdir.absolute(), arguments.arm, arguments.seeds, arguments.examples)
    found = []
    for name, clean, attacked, seconds, share in bench.heads() if arguments.group == "heads" else bench.scopes():
        line = {"variant": name, "seconds": round(seconds, 2), "share": share}
        for side, hits in (("clean", clean), ("attacked", attacked)):
            at = statistics.bootstrap(hits, 1000, 0)
            line |= {side: at.value, f"{side}_low": at.low, f"{side}_high": at.high}
        found.append(line)
        shown = [
            f"{100 * line[s]:5.1f} [{100 * line[s + '_low']:4.1f}, {100 * line[s + '_high']:4.1f}]"
            for s in ("clean", "attacked")
        ]
        trained = "" if share is None else f"{100 * share:6.2f} %"
        print(f"{name:44s} clean {shown[0]}  attacked {shown[1]}  {seconds:7.2f} s {trained}", flush=True)
    out = arguments.out or arguments.workdir / f"design_{arguments.group}_{arguments.arm}.json"
    files.write_json(out, found)
    print(f"written: {out}")
    return 0


Line = tuple[str, np.ndarray, np.ndarray, float, float | None]


class Bench:
    """Features, attacked features and white-box attacks of one arm, made once."""

    def __init__(self, workdir: Path, arm: str, seeds: int, examples: int):
        config = configs.of_run(workdir)
        run = next(r for r in pipeline.plan(config) if r.id == f"adapt/{arm}")
        self.context = pipeline.context_of(config, workdir, run, make_mesh(1), {})
        self.config, self.seeds = config, seeds
        self.data = common.data(self.context)
        self.classes = len(self.data.classes)
        self.functions, self.params = common.encoder(self.context, arm)
        self.splits = {name: self.data.task_split(name) for name in ("adapt", "validation")}
        self.some = self.splits["validation"].take(np.arange(min(examples, len(self.splits["validation"].ids))))
        self.images = to_float(self.some.images)
        self.keys = common.example_keys(self.context, "design/attack", self.some.ids)
        self.attack = PGD(config.evaluate.epsilon, config.evaluate.step, config.evaluate.steps)
        self.boxes: dict[Any, WhiteBox] = {}
        self.sources: dict[str, Any] = {}

    def examples(self, source: str) -> Any:
        """Cached features, clean and attacked by `adapt.defence_source`."""
        if source not in self.sources:
            with self.config.unlocked():
                self.config.adapt.defence_source = source
            self.sources[source] = adapt._examples(self.context, self.functions, self.params, self.splits, True)
        return self.sources[source]

    def box(self, head: Any) -> WhiteBox:
        """The white-box attack through encoder and head, compiled once a head shape."""
        if head not in self.boxes:
            functions = self.functions

            def logits(params: Any, images: Any) -> Any:
                features = functions.image_features(params[0], images)
                if head is None:
                    return adapt_logits(features, *params[1:])
                return head.apply(params[1]["params"], params[1]["stats"], features, False)[1]

            def rows(fn: Any, size: int) -> RowMap:
                return RowMap(fn, self.context.mesh, size)

            self.boxes[head] = WhiteBox(logits, self.attack, batch_size=64, map_rows=rows)
        return self.boxes[head]

    def heads(self) -> Iterator[Line]:
        """Variants of what is trained on cached features."""
        ran = METHODS["ran"]
        rate = self.config.adapt.learning_rate
        variants: list[tuple[str, str, Method]] = [("LP", "encoder", adapt.method_of(self.config.adapt, "lp"))]
        variants += [(name, "encoder", METHODS[key]) for name, key in (("MLP", "mlp"), ("NMTune", "nmtune"))]
        for source in ("encoder", "probe"):
            variants.append((f"AT, {source}", source, METHODS["at"]))
            variants.append((f"RAN, {source}", source, ran))
            for term in ("mse", "cov", "svd", "defence_ce", "defence_consistency", "defence_kl"):
                weights = ran.weights._replace(**{term: 0.0})
                variants.append((f"RAN without {term}, {source}", source, dataclasses.replace(ran, weights=weights)))
        for factor in (0.1, 0.3, 3.0):
            for source in ("encoder", "probe"):
                terms = dict.fromkeys(("defence_ce", "defence_consistency", "defence_kl"), factor)
                weights = ran.weights._replace(**terms)
                variants.append(
                    (f"RAN, defence x {factor}, {source}", source, dataclasses.replace(ran, weights=weights))
                )
        for factor in (0.1, 10.0):
            weights = ran.weights._replace(mse=factor)
            variants.append((f"RAN, consistency x {factor}, probe", "probe", dataclasses.replace(ran, weights=weights)))
        settings = Fit(self.config.adapt.epochs, self.config.adapt.batch_size)
        for name, source, method in variants:
            if method.head == "residual":
                method = dataclasses.replace(method, learning_rate=rate)
            examples = self.examples(source)
            started = time.perf_counter()
            fitted = fit_heads([method], examples["adapt"], examples["validation"], classes=self.classes,
                               seeds=range(self.seeds), settings=settings)  # fmt: skip
            seconds = time.perf_counter() - started
            head = HEADS[method.head](self.functions.config.embed_dim, self.classes)
            every = fitted.select(0)
            logits = np.asarray(predict(head, every, examples["validation"].features)[1])
            clean = logits.argmax(-1) == self.splits["validation"].labels[None]
            attacked = [self.attacked(head, self.params, fitted.select(0, s)) for s in range(self.seeds)]
            yield name, clean, np.stack(attacked), seconds, None

    def scopes(self) -> Iterator[Line]:
        """Variants that reach into the encoder."""
        examples = self.examples("encoder")
        held = [
            Images(self.splits[name].images, self.splits[name].labels, np.asarray(examples[name].features))
            for name in ("adapt", "validation")
        ]
        task = adapt.task_of(self.context, self.functions, self.params)
        base = adapt._settings(self.config.adapt, adapt.Variant(1.0, 1.0))
        linear = Tuned("lora", "linear", "ran", "")
        trades = Weights(ce=1.0, defence_kl=3.0)
        variants: list[tuple[str, Tuned, Tune]] = [
            ("LoRA", TUNED["lora"], base),
            ("AT (LoRA)", TUNED["at_lora"], base),
            ("RAN (LoRA), residual head", TUNED["ran_lora"], base),
            ("RAN (LoRA), linear head", linear, base),
            ("RAN (LoRA), linear, no rectification", linear,
             dataclasses.replace(base, weights=base.weights._replace(mse=0.0, cov=0.0, svd=0.0))),
            ("RAN (LoRA), linear, CE + 3 KL", linear, dataclasses.replace(base, weights=trades)),
            ("RAN (live head)", TUNED["ran_live"], base),
            ("RAN (LoRA), linear, 15 epochs", linear, dataclasses.replace(base, epochs=15)),
            ("AT (LoRA), 15 epochs", TUNED["at_lora"], dataclasses.replace(base, epochs=15)),
            ("TeCoA", TUNED["tecoa"], base),
        ]  # fmt: skip
        for name, method, settings in variants:
            head = head_of(method, self.functions.config.embed_dim, self.classes)
            clean, attacked, share = [], [], 0.0
            started = time.perf_counter()
            fits = [
                tune(self.functions, self.params, method, *held, task, seed=s, settings=settings)
                for s in range(self.seeds)
            ]
            seconds = time.perf_counter() - started
            for found in fits:
                encoder, share = encoder_of(method, self.params, found.trained), found.share
                variables = (found.trained["head"],) if head is not None else tuple(task)
                features = common.image_features(
                    self.context, self.functions, encoder, self.splits["validation"].images
                )
                if head is None:
                    logits = adapt_logits(features, *task)
                else:
                    logits = predict(head, found.trained["head"], features)[1]
                clean.append(np.asarray(logits).argmax(-1) == self.splits["validation"].labels)
                attacked.append(self.attacked(head, encoder, *variables))
            yield name, np.stack(clean), np.stack(attacked), seconds, share

    def attacked(self, head: Any, encoder: Any, *variables: Any) -> np.ndarray:
        """bool[N], who is right before and under the attack."""
        return self.box(head)((encoder, *variables), self.images, self.some.labels, self.keys).correct


def adapt_logits(features: Any, prompts: Any, scale: Any) -> Any:
    """Logits by the classes' prompts."""
    from ranjax.objectives.robust import class_logits

    return class_logits(features, prompts, scale)


if __name__ == "__main__":
    sys.exit(main())
