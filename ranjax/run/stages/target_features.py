"""The target pairs of an attack on the chosen pairs of a run: which they are, their features, and how near it came."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ranjax.attacks.pairs import Target
from ranjax.core.math import unit_numpy
from ranjax.data import target_pairs
from ranjax.data.recipe_table import Recipe
from ranjax.run.context import Context
from ranjax.run.schema import noise_keys
from ranjax.run.stages import inputs as common

Units = Float[np.ndarray, "pairs dim"]
"""L2-normalised features."""


class Targets(NamedTuple):
    """The targets of N chosen pairs, in their order.

    Attributes:
      ids: of the chosen pairs.
      split: the target pairs.
      features: f32[N, D] of the target pairs.
      clean: f32[N, D], features of the chosen pairs' own clean images.
    """

    ids: list[str]
    split: common.Split
    features: Target
    clean: Units

    def rows(self, positions: Sequence[int]) -> Target:
        """Return the features of the targets of some chosen pairs."""
        return Target(*(side[list(positions)] for side in self.features))

    def reached(self, positions: Sequence[int], attacked: Units) -> Iterator[dict[str, Any]]:
        """Yield what the store records of each pair, from features of its attacked image.

        `target_rank` counts from 1: the target's place by cosine among the clean images of all chosen pairs.
        """
        targets = self.rows(positions).image
        after = np.sum(attacked * targets, axis=1)
        to_chosen = attacked @ self.clean.T
        place = {name: i for i, name in enumerate(self.ids)}
        for row, i in enumerate(positions):
            target, own = self.split.ids[i], to_chosen[row, i]
            nearer = to_chosen[row] > after[row]
            if target in place:
                nearer[place[target]] = False
            yield {
                "target": target,
                "target_cosine_before": float(self.clean[i] @ targets[row]),
                "target_cosine": float(after[row]),
                "own_cosine": float(own),
                "target_rank": 1 + int(nearer.sum()),
                "success": bool(after[row] > own),
            }


def of_run(context: Context, recipe: Recipe, chosen: common.Split) -> Targets:
    """Return the targets of the chosen pairs, out of all training pairs, with features under the surrogate.

    Raises:
      DataError: a pair has no target of the kind that `noise.RECIPE.target` asks for.
    """
    data = common.data(context)
    train = data.split("train")
    split = train.take(_drawn(context, recipe, chosen.ids))
    split = train.take(_drawn(context, recipe, chosen.ids))
    kind = noise_keys.RECIPE_KEYS.settings_of(context.config, recipe).target
    target_pairs.check(train.ids, data.targets("train"), chosen.ids, split.ids, kind)
    functions, params = common.encoder(context, common.clean_condition(context))
    images = (unit_numpy(common.image_features(context, functions, params, x.images)) for x in (split, chosen))
    text = unit_numpy(common.text_features(context, functions, params, data.encode(split.reports)))
    image, clean = images
    return Targets(chosen.ids, split, Target(image, text), clean)


def fault(context: Context, recipe: Recipe, ids: Sequence[str], targets: Sequence[str | None]) -> str:
    """Return "" where stored targets are those that the seed draws, or what is wrong with the first that is not."""
    train = common.data(context).split("train")
    drawn = [train.ids[i] for i in _drawn(context, recipe, ids)]
    wrong = ((name, has, due) for name, has, due in zip(ids, targets, drawn, strict=True) if has != due)
    return next((f"noisy pair {name!r} names the target {has!r}; its own is {due!r}" for name, has, due in wrong), "")


def _drawn(context: Context, recipe: Recipe, ids: Sequence[str]) -> Int[np.ndarray, " ids"]:
    data, kind = common.data(context), noise_keys.RECIPE_KEYS.settings_of(context.config, recipe).target
    train = data.split("train")
    return target_pairs.draw(train.ids, data.targets("train"), ids, context.config.seed, kind)
