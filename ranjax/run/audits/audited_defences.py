"""Defences at test time as rows of an audit: each in front of the baseline's head, attacked through and through."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from safetensors.numpy import load_file

from ranjax.core import files
from ranjax.core.keys import example_keys, stream
from ranjax.core.pixels import to_float
from ranjax.core.types import Params
from ranjax.evaluation import statistics, zero_shot
from ranjax.evaluation.through_defence import ThroughDefence, published_images, through_defence
from ranjax.methods.defences.defence_table import DEFENCES, Defence
from ranjax.methods.defences.defended_model import Classify, Features, defended, undefended
from ranjax.methods.table import METHODS
from ranjax.run.audits import latency
from ranjax.run.stages.evaluation.evaluated_encoder import EvaluatedEncoder

_ROWS = ("clean", "undefended", "published", "undefended_attacked", "flat")


def parts_of(subject: EvaluatedEncoder, method: str) -> tuple[Features, Classify, Params]:
    """Return `(features, classify, params)` of zero-shot or of the first head of a method; both take all of params."""
    functions, chosen = subject.functions, subject.methods.get(method)
    params = subject.parameters(method)
    head, kind = (None, "embedding") if chosen is None else (chosen.head, chosen.features)

    def features(params: Params, images: Array) -> Array:
        return functions.features(params[0], images, kind)

    def classify(params: Params, read: Array) -> Array:
        if head is None:
            return zero_shot.logits(read, params[1], functions.logit_scale(params[0]))
        own = params[1]
        return head.apply(own["params"], own["stats"], jnp.asarray(read), False)[1]

    return features, classify, params


def draws_of(defence: Defence, draws: int) -> int:
    """Return over how many draws an attack raises the mean: one where the defence averages views by itself, or none."""
    if not defence.random:
        return 0
    return draws if getattr(defence.settings, "views", 1) == 1 else 1


@dataclasses.dataclass(frozen=True)
class DefenceAudit:
    """What the defences of an audit stand in front of, and how they are attacked.

    Attributes:
      subject: the checkpoint's encoder and heads.
      baseline: the head.
      radii: rising, as texts.
      folder: where what is done is kept.
      steps, queries, images, batch, draws: of the attacks.
      bootstrap: resamples.
    """

    subject: EvaluatedEncoder
    baseline: str
    radii: Sequence[str]
    folder: Path
    steps: int
    queries: int
    images: int
    batch: int
    bootstrap: int
    draws: int = 4

    def rows(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return one item a defence, as the repairs of results.json have them, without a gain."""
        if not names:
            return []
        entries = [DEFENCES.resolve(name, "audit.defences") for name in names]
        subject, context = self.subject, self.subject.context
        features, classify, params = parts_of(subject, self.baseline)
        examples = subject.some("test", self.images)
        images = to_float(examples.images)
        budget: dict[str, Any] = {"epsilons": tuple(self.radii), "steps": self.steps, "batch_size": self.batch}
        budget |= {"ids": examples.ids, "seed": context.config.seed, "poll": context.poll}

        plain = undefended(features, classify)
        moved: dict[str, np.ndarray] | None = None
        items = []
        for entry in entries:
            ways = {way: defended(entry, features, classify, gradient=way) for way in entry.gradients}
            place = self.folder / f"{entry.name}.safetensors"
            mark = files.digest(
                [context.fingerprint, repr(entry.settings), DEFENCES.source_of(entry.name) or "", repr(self.radii)]
            )
            found = self._kept(entry, place, mark)
            if found is None:
                context.check_stop(f"attacking {entry.name}")
                context.say(f"  defence {entry.name}")
                if moved is None:
                    moved = published_images(plain, params, images, examples.labels, **budget)
                found = through_defence(
                    ways, plain, params, images, examples.labels, name=entry.label, transferred=moved,
                    draws=draws_of(entry, self.draws), queries=self.queries, **budget,
                )  # fmt: skip
                _keep(found, place, mark)
            context.say(f"  {entry.name}: {found.verdict}")
            items.append(self._item(entry, found, ways[entry.gradients[0]], params, images[:1]))
        return items

    def _kept(self, entry: Defence, place: Path, mark: str) -> ThroughDefence | None:
        """Return what an earlier call of the same audit found, if it did."""
        if not place.exists():
            return None
        arrays = load_file(place)
        if f"mark {mark}" not in arrays:
            return None
        survived = {name.removeprefix("by "): rows for name, rows in arrays.items() if name.startswith("by ")}
        own = {name: arrays[name] for name in _ROWS}
        return ThroughDefence(name=entry.label, epsilons=tuple(self.radii), survived=survived, **own)

    def _item(
        self, entry: Defence, found: ThroughDefence, function: Any, params: Params, image: np.ndarray
    ) -> dict[str, Any]:
        resamples, seed = self.bootstrap, self.subject.context.config.seed
        clean, score = (
            statistics.bootstrap(rows, resamples, seed)
            for rows in (found.clean.astype(np.float64)[None], found.worst.mean(0)[None])
        )
        return {
            "method": entry.name,
            "label": f"{entry.label}, then {METHODS[self.baseline].label}",
            "kind": "defence",
            "clean": {"value": clean.value, "low": clean.low, "high": clean.high, "n": clean.n},
            "robust": dict(zip(self.radii, found.worst.mean(1).tolist())),
            "published": dict(zip(self.radii, found.published.mean(1).tolist())),
            "score": {"value": score.value, "low": score.low, "high": score.high, "n": score.n},
            "masked": found.masked,
            "verdict": found.verdict,
            "milliseconds": latency.median(
                function, params, jnp.asarray(image), example_keys(stream(0, "latency"), ["0"])
            ),
        }


def _keep(found: ThroughDefence, place: Path, mark: str) -> None:
    arrays = {name: np.asarray(getattr(found, name)) for name in _ROWS}
    arrays |= {f"by {name}": rows for name, rows in found.survived.items()}
    place.parent.mkdir(parents=True, exist_ok=True)
    files.write_tensors(place, arrays | {f"mark {mark}": np.zeros(1, bool)})
