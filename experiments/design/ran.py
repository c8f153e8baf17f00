"""Designs RAN on the validation split alone: clean and attacked accuracy of variants, end to end, with intervals.

    ranjax run --config configs/ran.py --workdir runs/ran --until pretrain
    python -m experiments.design.ran runs/ran --condition coattack_30
    python -m experiments.design.ran runs/ran --condition coattack_30 --group scopes

Each variant is fitted on the labelled split and judged on validation images: clean accuracy on all of them, and
attacked accuracy on the first --examples by PGD through filter, encoder and head (the evaluation's steps) at each
radius. The test split is never opened. Groups: "filter" (its width, with and without a defence), "heads" (RAN on cached
features, its terms, heads and sources of attacked features), "schedule" (its epochs, and how often it takes the
singular-value term), "scopes" (LoRA and live heads, their terms and schedule),
"objectives" (what RAN minimises in LoRA's scope, against adversarial training behind the same filter), "parts" (RAN's
features, copies, filter and defence term, of which RAN was put together), "candidates" (for its defence term, in closed
form: `experiments.design.candidates`).
Prints a table and writes it as JSON.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.design.candidates import Candidates
from ranjax.attacks.pgd import PGD
from ranjax.core import files
from ranjax.core.pixels import pixel_units, to_float
from ranjax.evaluation import statistics, zero_shot
from ranjax.evaluation.white_box import WhiteBox
from ranjax.methods import linear_solution
from ranjax.methods.head_training import predict
from ranjax.methods.method_settings import TERMS, Fit, HeadInput, HeadTraining, TowerTraining
from ranjax.methods.own_head import OwnHead, fit_method
from ranjax.methods.table import METHODS, settings_of
from ranjax.methods.tower_methods import Images, TowerFit, encoder_of, head_of, tower_fit
from ranjax.methods.tower_training import tune
from ranjax.objectives.robust import class_logits
from ranjax.run import config as configs
from ranjax.run import plan as planning
from ranjax.run.context import context_of
from ranjax.run.stages import adapt
from ranjax.run.stages import inputs as common
from ranjax.run.stages.cached_features import CachedFeatures, Features, behind_filter
from ranjax.training.devices import make_mesh
from ranjax.training.row_map import RowMap

OPTIONAL = TERMS[1:]
GROUPS = ("filter", "heads", "schedule", "scopes", "objectives", "parts", "candidates")


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("workdir", type=Path)
    p.add_argument("--condition", default="coattack_30")
    p.add_argument("--group", default="heads", choices=GROUPS)
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--attacked-seeds", type=int, default=1, help="how many of them are attacked")
    p.add_argument("--examples", type=int, default=128)
    p.add_argument("--radii", default="2/255,4/255")
    p.add_argument("--only", default="", help="variants whose name holds one of these, split by ;; =NAME: just it")
    p.add_argument("--out", type=Path, default=None, help="JSON file (default: WORKDIR/design_GROUP_ARM.json)")
    arguments = p.parse_args()
    bench = Bench(arguments)
    found = []
    for name, clean, attacked, seconds, share in getattr(bench, arguments.group)():
        line = {"variant": name, "seconds": round(seconds, 2), "share": share}
        shown = []
        for side, hits in (("clean", clean), *attacked.items()):
            at = statistics.bootstrap(hits, 1000, 0)
            line |= {side: at.value, f"{side}_low": at.low, f"{side}_high": at.high}
            shown.append(f"{side} {100 * at.value:5.1f} [{100 * at.low:4.1f}, {100 * at.high:4.1f}]")
        found.append(line)
        print(f"{name:50s} {'  '.join(shown)}  {seconds:6.2f} s  {100 * share:5.2f} %", flush=True)
    out = arguments.out or arguments.workdir / f"design_{arguments.group}_{arguments.condition}.json"
    files.write_json(out, found)
    print(f"written: {out}")
    return 0


class Line(NamedTuple):
    """A variant: who is right, clean bool[S, N] and attacked {radius: bool[S, n]}; seconds a fit; share trained."""

    name: str
    clean: np.ndarray
    attacked: dict[str, np.ndarray]
    seconds: float
    share: float


class Bench:
    """Features, attacked features and white-box attacks of one condition, made once."""

    def __init__(self, arguments: argparse.Namespace):
        workdir, condition = arguments.workdir.absolute(), arguments.condition
        self.arguments, config = arguments, configs.of_run(workdir)
        run = next(r for r in planning.plan(config) if r.id == f"adapt/{condition}")
        self.context = context_of(config, workdir, run, make_mesh(1), {})
        self.data = common.data(self.context)
        self.classes = len(self.data.classes)
        self.functions, self.params = common.encoder(self.context, condition)
        self.width = self.functions.config.embed_dim
        self.numbers = sum(np.size(leaf) for leaf in jax.tree.leaves(self.params))
        self.splits = {name: self.data.task_split(name) for name in ("adapt", "validation")}
        count = min(arguments.examples, len(self.splits["validation"].ids))
        self.some = self.splits["validation"].take(np.arange(count))
        self.images = to_float(self.some.images)
        self.keys = common.example_keys(self.context, "design/attack", self.some.ids)
        evaluate = self.config.evaluate
        self.attack = PGD(evaluate.epsilon, evaluate["pgd"]["step"], evaluate["pgd"]["steps"])
        self.boxes: dict[Any, WhiteBox] = {}
        self.sources: dict[Any, Any] = {}

    def wanted(self, name: str) -> bool:
        parts = self.arguments.only.split(";")
        return any(name == part[1:] if part.startswith("=") else part in name for part in parts)

    @property
    def config(self) -> Any:
        return self.context.config

    def set(self, **values: object) -> None:
        """Change keys of `adapt.*` from here on."""
        config = dataclasses.replace(self.config, adapt=dataclasses.replace(self.config.adapt, **values))
        self.context = dataclasses.replace(self.context, config=config)

    def behind(self, sigma: float) -> Any:
        """The encoder behind a filter of this width; 0: none."""
        self.set(filter=float(sigma))
        return behind_filter(self.config.adapt, self.params) if sigma else self.params

    def examples(self, source: str, sigma: float) -> Any:
        """Cached features behind a filter, clean and attacked by `adapt.defence_source`."""
        if (source, sigma) not in self.sources:
            self.set(defence_source=source, filter=float(sigma))
            cached = CachedFeatures(self.context, self.functions, self.params, self.splits)
            self.sources[source, sigma] = cached.attacked(Features(filtered=sigma > 0))
        return self.sources[source, sigma]

    def attacked(self, head: Any, encoder: Any, *variables: Any, kind: str = "embedding") -> dict[str, np.ndarray]:
        """{radius: bool[n]}, who is right before and under the attack; the head reads features of `kind`."""
        if head not in self.boxes:
            functions = self.functions

            def logits(params: Any, images: Any) -> Any:
                features = functions.features(params[0], images, kind)
                if head is None:
                    return class_logits(features, *params[1:])
                return head.apply(params[1]["params"], params[1]["stats"], features, False)[1]

            def rows(fn: Any, size: int) -> RowMap:
                return RowMap(fn, self.context.mesh, size)

            self.boxes[head] = WhiteBox(logits, self.attack, batch_size=64, map_rows=rows)
        box, found = self.boxes[head], {}
        for radius in self.arguments.radii.split(","):
            settings = self.attack.with_epsilon(pixel_units(radius))
            one = box((encoder, *variables), self.images, self.some.labels, self.keys, settings=settings)
            found[radius] = one.correct
        return found

    def fitted(self, name: str, method: HeadInput, source: str, sigma: float) -> Line:
        """A head on cached features."""
        examples = self.examples(source, sigma)
        settings = Fit(self.config.adapt.epochs, self.config.adapt.batch_size)

        def fit() -> Any:
            both = (examples["adapt"], examples["validation"])
            entry = METHODS["ran_v1" if isinstance(method, HeadTraining) else "lp"]
            seeds = range(self.arguments.seeds)
            return fit_method(entry, method, *both, classes=self.classes, seeds=seeds, shared=settings)

        fit()  # compiles
        started = time.perf_counter()
        found = fit()
        seconds = (time.perf_counter() - started) / self.arguments.seeds
        head = found.head
        logits = np.asarray(predict(head, found.select(0), examples["validation"].features, leading=1)[1])
        clean = logits.argmax(-1) == self.splits["validation"].labels[None]
        hit = [
            self.attacked(head, self.behind(sigma), found.select(0, s)) for s in range(self.arguments.attacked_seeds)
        ]
        share = sum(np.size(x[0, 0]) for x in jax.tree.leaves(found.variables["params"])) / self.numbers
        return Line(name, clean, _stacked(hit), seconds, share)

    def parts(self) -> Iterator[Line]:
        """RAN's parts, by ridge regression on each, and by the robust ridge."""
        for sigma, features, copies in itertools.product((1.0, 2.0, 3.0), ("embedding", "tokens", "blocks"), (0, 7)):
            for name, base in (("ridge", "ridge"), ("robust ridge", "ran")):
                title = f"{name} on {features}, {copies} copies, filter {sigma}"
                if self.wanted(title):
                    settings = dataclasses.replace(
                        settings_of(self.config.adapt, base), features=features, filtered=True, copies=copies
                    )
                    yield self.solved(title, base, settings, sigma)

    def candidates(self) -> Iterator[Line]:
        """What else might have been RAN's defence term; RAN, as it chooses for itself, comes last."""
        sigma, ran = float(self.config.adapt.filter), settings_of(self.config.adapt, "ran")
        given, encoder = Features(True, kind=ran.features, copies=ran.copies), self.behind(sigma)
        examples, handle = self.read(given, sigma)

        def attack(variables: Any, rows: Any, epsilon: float, steps: int) -> Any:
            other = copy.copy(handle)
            other.settings = PGD(epsilon, epsilon / min(steps, 3), steps)
            return other(linear_solution.predict, variables, "train", rows, "margin")

        embeddings = self.read(Features(True, copies=ran.copies), sigma)[0]["adapt"].features
        prompts = common.class_embeddings(self.context, self.functions, self.params)
        scores = np.asarray(zero_shot.logits(embeddings, prompts, 1.0))
        made = Candidates(examples["adapt"], examples["validation"], attack, self.classes, scores)
        held = examples["validation"]
        linear = OwnHead(linear_solution.predict, held.features.shape[1], self.classes)
        for name, head, seconds in made.named():
            if self.wanted(name):
                variables = made.folded(head)
                logits = np.asarray(linear_solution.predict(variables, held.features))
                clean = (logits.argmax(-1) == self.splits["validation"].labels)[None]
                hit = [self.attacked(linear, encoder, {"params": variables, "stats": {}}, kind=ran.features)]
                share = sum(np.size(leaf) for leaf in jax.tree.leaves(variables)) / self.numbers
                yield Line(name, clean, _stacked(hit), seconds, share)
        if self.wanted("RAN"):
            yield self.solved("RAN", "ran", ran, sigma)

    def read(self, given: Features, sigma: float) -> Any:
        """Cached features of a kind, and the handle that attacks them; made once."""
        if (given, sigma) not in self.sources:
            cached = CachedFeatures(self.context, self.functions, self.params, self.splits)
            self.sources[given, sigma] = (cached.clean(given), cached.handle(given))
        return self.sources[given, sigma]

    def solved(self, name: str, entry: str, settings: Any, sigma: float) -> Line:
        """A head in closed form on features of its own choice."""
        encoder = self.behind(sigma)
        examples, handle = self.read(Features(True, kind=settings.features, copies=settings.copies), sigma)
        both, shared = (examples["adapt"], examples["validation"]), Fit(attack=handle)
        started = time.perf_counter()
        found = fit_method(METHODS[entry], settings, *both, classes=self.classes, seeds=[0], shared=shared)
        seconds = time.perf_counter() - started
        logits = np.asarray(predict(found.head, found.select(0), examples["validation"].features, leading=1)[1])
        clean = logits.argmax(-1) == self.splits["validation"].labels[None]
        hit = [self.attacked(found.head, encoder, found.select(0, 0), kind=settings.features)]
        share = sum(np.size(x[0, 0]) for x in jax.tree.leaves(found.variables["params"])) / self.numbers
        return Line(name, clean, _stacked(hit), seconds, share)

    def filter(self) -> Iterator[Line]:
        """How wide the filter should be, and what it is worth alone."""
        ran, rate = (settings_of(self.config.adapt, name) for name in ("ran_v1", "lp"))
        for sigma in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0):
            for name, method in (("LP", rate), ("RAN", ran)):
                if self.wanted(f"{name}, filter {sigma}"):
                    yield self.fitted(f"{name}, filter {sigma}", method, "probe", sigma)

    def heads(self) -> Iterator[Line]:
        """RAN on cached features: its terms, its head, where attacked features come from."""
        sigma = float(self.config.adapt.filter)
        names = ("lp", "mlp", "nmtune", "at", "ran_v1")
        lp, mlp, nmtune, at, ran = (settings_of(self.config.adapt, name) for name in names)
        variants: list[tuple[str, str, float, HeadInput]] = [
            ("LP", "probe", 0.0, lp),
            ("MLP", "probe", 0.0, mlp),
            ("NMTune", "probe", 0.0, nmtune),
            ("AT", "probe", 0.0, at),
            ("LP behind the filter", "probe", sigma, lp),
            ("NMTune behind the filter", "probe", sigma, nmtune),
            ("AT behind the filter", "probe", sigma, at),
            ("RAN", "probe", sigma, ran),
            ("RAN without filter", "probe", 0.0, ran),
            ("RAN, attacks on the encoder alone", "encoder", sigma, ran),
        ]
        for term in OPTIONAL:
            if getattr(ran, term):
                variants.append((f"RAN without {term}", "probe", sigma, dataclasses.replace(ran, **{term: 0.0})))
        for term, weight in (("mse", 1.0), ("cov", 0.04), ("svd", 0.001), ("defence_consistency", 1.0)):
            if not getattr(ran, term):
                with_term = dataclasses.replace(ran, **{term: weight}, head="narrow", learning_rate=3e-3)
                variants.append((f"RAN, narrow head, with {term}", "probe", sigma, with_term))
        for head, rate in (("linear", 1e-2), ("narrow", 3e-3), ("residual", 1e-3)):
            variants.append(
                (f"RAN, {head} head", "probe", sigma, dataclasses.replace(ran, head=head, learning_rate=rate))
            )
        for name, source, width, method in variants:
            if self.wanted(name):
                yield self.fitted(name, method, source, width)

    def schedule(self) -> Iterator[Line]:
        """How long RAN's head is to be trained, and how often the singular-value term is taken."""
        sigma, source = float(self.config.adapt.filter), self.config.adapt.defence_source
        ran, lp = (settings_of(self.config.adapt, name) for name in ("ran_v1", "lp_filter"))
        variants: list[tuple[str, HeadInput]] = [("LP behind the filter", lp)]
        for share, rate, every in itertools.product((1.0, 1 / 2, 1 / 3), (1, 2, 3), (1, 8)):
            name = f"RAN, {share:.2f} of the epochs, rate x {rate}, svd every {every}"
            settings = {"epochs_share": share, "svd_every": every, "learning_rate": rate * ran.learning_rate}
            variants.append((name, dataclasses.replace(ran, **settings)))
        for name, method in variants:
            if self.wanted(name):
                yield self.fitted(name, method, source, sigma)

    def scopes(self) -> Iterator[Line]:
        """Variants that attack encoder and head on the fly."""
        names = ("lora", "at_lora", "ran_live", "tecoa")
        lora, at, live, tecoa = (settings_of(self.config.adapt, name) for name in names)
        ran, base = self.all_terms(), tower_fit(self.config.adapt)
        plain = dataclasses.replace(ran, filtered=False)
        variants: list[tuple[str, TowerTraining, TowerFit]] = [
            ("LoRA", lora, base),
            ("AT (LoRA)", at, base),
            ("AT (LoRA) behind the filter", dataclasses.replace(at, filtered=True), base),
            ("RAN (LoRA)", ran, base),
            ("RAN (LoRA) without filter", plain, base),
            ("RAN (live head)", live, base),
        ]
        for term in OPTIONAL:
            if getattr(ran, term):
                variants.append((f"RAN (LoRA) without {term}", dataclasses.replace(ran, **{term: 0.0}), base))
        variants += [
            ("RAN (LoRA), filter 2.5", ran, dataclasses.replace(base, sigma=2.5)),
            ("RAN (LoRA), 1 attack step", ran, dataclasses.replace(base, attack=PGD(base.attack.epsilon, "5/255", 1))),
            ("RAN (LoRA), 5 epochs", ran, dataclasses.replace(base, epochs=5)),
            ("RAN (LoRA), 20 epochs", ran, dataclasses.replace(base, epochs=20)),
            ("RAN (LoRA), rank 1", dataclasses.replace(ran, rank=1), base),
            ("TeCoA", tecoa, base),
        ]
        for name, method, settings in variants:
            if self.wanted(name):
                yield self.tuned(name, method, settings)

    def objectives(self) -> Iterator[Line]:
        """What RAN minimises in LoRA's scope; every variant behind the filter, with the same attacks in training."""
        ran, at = self.all_terms(), settings_of(self.config.adapt, "at_lora_filter")
        base = tower_fit(self.config.adapt)
        longer = dataclasses.replace(base, attack=dataclasses.replace(base.attack, steps=3))
        bare = {"mse": 0.0, "cov": 0.0, "svd": 0.0}
        alone = {**bare, "defence_consistency": 0.0, "defence_kl": 0.0}
        changes: dict[str, dict[str, float]] = {
            "all terms": {},
            "clean CE 0.5": {"ce": 0.5},
            "no clean CE": {"ce": 0.0},
            "no mse, cov, svd": bare,
            "no mse, cov, svd, no clean CE": {**bare, "ce": 0.0},
            "CE and CE under attack": alone,
            "CE under attack, KL 1": {**alone, "ce": 0.0, "defence_kl": 1.0},
            "TRADES-like, KL 6": {**alone, "defence_ce": 0.0, "defence_kl": 6.0},
        }
        variants: list[tuple[str, TowerTraining, TowerFit]] = [("AT", at, base), ("AT, 3 attack steps", at, longer)]
        for name, change in changes.items():
            variants.append((f"RAN, {name}", dataclasses.replace(ran, **change), base))
        variants.append(("RAN, 3 attack steps", ran, longer))
        for name, method, settings in variants:
            if self.wanted(name):
                yield self.tuned(name, method, settings)

    def all_terms(self) -> TowerTraining:
        """RAN in LoRA's scope with every term, each with the weight that RAN's head gives it."""
        head = settings_of(self.config.adapt, "ran_v1")
        lora = settings_of(self.config.adapt, "ran_lora")
        return dataclasses.replace(lora, **{term: getattr(head, term) for term in TERMS})

    def tuned(self, name: str, method: TowerTraining, settings: TowerFit) -> Line:
        if "clean" not in self.sources:
            self.sources["clean"] = CachedFeatures(self.context, self.functions, self.params, self.splits).clean(
                Features()
            )
        held = [
            Images(self.splits[part].images, self.splits[part].labels, np.asarray(self.sources["clean"][part].features))
            for part in ("adapt", "validation")
        ]
        task = adapt.task_of(self.context, self.functions, self.params)
        head = head_of(method, self.width, self.classes)
        clean, hit, seconds, share = [], [], 0.0, 0.0
        for seed in range(self.arguments.seeds):
            started = time.perf_counter()
            found = tune(self.functions, self.params, method, *held, task, seed=seed, settings=settings)
            seconds += time.perf_counter() - started
            encoder, share = encoder_of(method, self.params, found.trained), found.share
            features = common.image_features(self.context, self.functions, encoder, self.splits["validation"].images)
            if head is None:
                logits = class_logits(features, task.prompts, task.scale)
            else:
                logits = predict(head, found.trained["head"], features)[1]
            clean.append(np.asarray(logits).argmax(-1) == self.splits["validation"].labels)
            if seed < self.arguments.attacked_seeds:
                rest = (task.prompts, task.scale) if head is None else (found.trained["head"],)
                hit.append(self.attacked(head, encoder, *rest))
        return Line(name, np.stack(clean), _stacked(hit), seconds / self.arguments.seeds, share)


def _stacked(found: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {radius: np.stack([one[radius] for one in found]) for radius in found[0]}


if __name__ == "__main__":
    sys.exit(main())
