"""The search over each method's settings: its grid, a method at a point of it, and what came of it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ranjax.attacks import pgd as image_attacks
from ranjax.methods.head_methods import Method
from ranjax.methods.tower_methods import Tune, Tuned, describe_scope
from ranjax.run.stages.adapted_encoder import method_of, tuned_of


class Variant(NamedTuple):
    """A point of the search grid: factors on learning rate and on the weights of a method's own terms."""

    rate: float
    strength: float


def grid(adapt: Any) -> list[Variant]:
    """The search grid, the same for every method."""
    return [Variant(*pair) for pair in itertools.product(adapt.search_rates, adapt.search_strengths)]


def varied(method: Method, variant: Variant) -> Method:
    """A method at a point of the grid."""
    own = {name: w for name, w in method.weights._asdict().items() if name != "ce" and w}
    # Where cross-entropy on attacked features is all there is, its weight is none: it is the whole loss.
    if own and method.weights.ce:
        weights = method.weights._replace(**{name: w * variant.strength for name, w in own.items()})
        return dataclasses.replace(method, weights=weights, learning_rate=method.learning_rate * variant.rate)
    decay = method.weight_decay * variant.strength
    return dataclasses.replace(method, weight_decay=decay, learning_rate=method.learning_rate * variant.rate)


def tune_settings(adapt: Any, method: Tuned, point: Variant) -> Tune:
    """A method that reaches into the encoder at a point of the grid; strength as in `varied`."""
    weights = method_of(adapt, "ran").weights
    used = [name for name, w in weights._asdict().items() if w and name not in method.without]
    # A factor on the whole loss would change nothing, as AdamW is blind to it: without a clean cross-entropy, that
    # under attack stays as it is.
    fixed = next((name for name in ("ce", "defence_ce", *used) if name in used), None)
    strong = {name: w * point.strength for name, w in weights._asdict().items() if name not in ("ce", fixed)}
    own = method.objective == "pmg_aft" or (method.objective == "ran" and len(used) > 1)
    return Tune(
        epochs=adapt.tune_epochs,
        batch_size=adapt.tune_batch_size,
        learning_rate=adapt.tune_learning_rate * point.rate,
        lora_rate=adapt.lora_learning_rate * point.rate,
        head_rate=adapt.lp_learning_rate * point.rate,
        weight_decay=adapt.weight_decay * (1.0 if own else point.strength),
        rank=adapt.lora_rank,
        attack=image_attacks.PGD(adapt.epsilon, adapt.tune_step, adapt.tune_attack_steps, keep="last"),
        weights=weights._replace(**strong),
        top_k=adapt.top_k,
        trainable=tuple(pattern for pattern in adapt.tune_trainable if pattern),
        targets=tuple(pattern for pattern in adapt.lora_targets if pattern),
        pull=point.strength,
        sigma=adapt.filter,
        multi_label=adapt.task == "multi",
        metric=adapt.metric,
    )


def check_scopes(adapt: Any, params: Mapping[str, Any]) -> None:
    """Refuses methods that would find nothing to train in an encoder: before it is trained, which may take hours.

    Raises:
      ConfigError: a pattern that meets nothing, or a rank that does not fit.
    """
    for name in adapt.methods:
        method = tuned_of(adapt, name)
        if method is not None:
            describe_scope(method, params, tune_settings(adapt, method, grid(adapt)[0]))


def searched(points: Sequence[Variant], scores: Any, taken: int) -> dict[str, Any]:
    """What the search tried and chose; the score of a point that diverged is None."""
    shown = [float(score) if np.isfinite(score) else None for score in scores]
    tried = [{**point._asdict(), "validation": score} for point, score in zip(points, shown)]
    return {"chosen": points[taken]._asdict(), "tried": tried}


def diverged(name: str, points: Sequence[Variant], scores: Any) -> list[str]:
    """A note on the points of the grid with which a method's outputs did not stay finite, if there are any."""
    rates = [f"{point.rate:g}" for point, score in zip(points, scores) if not np.isfinite(score)]
    if not rates:
        return []
    return [f"{name} diverged with {len(rates)} of {len(points)} settings (rate x {', '.join(dict.fromkeys(rates))})"]
