"""Attack images through filter, encoder and a head's `predict`, and give the head the features of what comes out.

Methods whose entry says ``needs=("attack",)`` find one as `Fit.attack`. A run makes it; as a library:

    attack = encoder_attack(functions, params, train_images, train_labels, validation_images, validation_labels)
    fit(method, settings, train, validation, classes=3, seeds=[0], shared=Fit(attack=attack))
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ranjax.attacks import losses, pgd
from ranjax.core import precision
from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.core.keys import example_keys, stream, take
from ranjax.core.pixels import as_float
from ranjax.core.types import Params
from ranjax.training.row_map import RowFunction, RowMap

Encode = Callable[[Params, Array, PyTree], Array]
"""``(params, images f32[B, H, W, C], side inputs or None) -> f32[B, D]``, what a head reads."""
Predict = Callable[[Params, Array], Array]


class Target(NamedTuple):
    """The images of a split: images u8 or f32 in [0, 1], labels, a key each, and what a head reads besides them."""

    images: Any
    labels: Any
    keys: Any
    side_inputs: Any = None


MapRows = Callable[[Hashable, RowFunction], RowFunction]
"""Where rows are worked on: ``(key, fn) -> ((shared, rows) -> rows)``, one compiled program a key."""


class EncoderAttack:
    """PGD on a head's loss, end to end through the encoder; one compiled program a `predict` and loss.

    Args:
      encode: see `Encode`; hashable, for it is part of the compiled program's key.
      params: of the encoder, with the filter where there is one.
      splits: by name, "train" and "validation".
      settings: of the PGD.
      map_rows: see `MapRows`; None: the first device, 96 images at a time.
      key: names what `encode` does, where equal programs are to be found again by `map_rows`.
    """

    def __init__(
        self,
        encode: Encode,
        params: Params,
        splits: Mapping[str, Target],
        settings: pgd.PGD,
        map_rows: MapRows | None = None,
        key: Hashable = None,
    ) -> None:
        self.encode, self.params, self.splits, self.settings = encode, params, dict(splits), settings
        self._programs: dict[Hashable, RowFunction] = {}
        self._map_rows, self._key = map_rows or self._on_one_device, encode if key is None else key

    def __call__(
        self,
        predict: Predict,
        variables: Params,
        split: str = "train",
        rows: ArrayLike | None = None,
        loss: str = "",
    ) -> Float[np.ndarray, "rows width"]:
        """Return the features of a split's images, attacked against a head as it stands.

        Args:
          predict: ``(variables, features f32[N, D]) -> logits f32[N, C]``, one object a shape, so it compiles once.
          variables: of one head.
          split: "train" or "validation".
          rows: which examples, i[n]; None: all.
          loss: that is raised, "cross_entropy", "margin" or "dlr"; by default the first, and with multi-hot labels
            binary cross-entropy, the only one.

        Raises:
          ConfigError: another split, rows or loss.
        """
        if split not in self.splits:
            raise ConfigError("split", split, f"one of {', '.join(self.splits)}", nearest(split, self.splits))
        target = self.splits[split]
        multi_hot = np.ndim(target.labels) == 2
        loss = loss or ("binary_cross_entropy" if multi_hot else "cross_entropy")

        def attacked(shared: PyTree, rows: PyTree) -> Array:
            (params, variables), (raw, labels, keys, sides) = shared, rows

            def logits(images: Array) -> Array:
                return predict(variables, self.encode(params, images, sides))

            found = pgd.pgd(losses.of_classifier(logits, labels, loss), as_float(raw), keys, self.settings)
            return precision.exact(self.encode)(params, found.images, sides)

        run = self._map_rows(("head attack", self._key, predict, loss, self.settings), attacked)
        chosen = np.arange(len(target.labels)) if rows is None else np.asarray(rows)
        given = Target(
            target.images[chosen],
            target.labels[chosen],
            take(target.keys, chosen),
            None if target.side_inputs is None else target.side_inputs[chosen],
        )
        return np.asarray(run((self.params, variables), given))

    def _on_one_device(self, key: Hashable, fn: RowFunction) -> RowFunction:
        if key not in self._programs:
            self._programs[key] = RowMap(fn, None, 96)
        return self._programs[key]


def encoder_attack(
    functions: Any,
    params: Params,
    train: tuple[ArrayLike, ArrayLike],
    validation: tuple[ArrayLike, ArrayLike],
    *,
    features: str = "embedding",
    epsilon: str | float = "4/255",
    step: str | float = "1/255",
    steps: int = 5,
    seed: int = 0,
) -> EncoderAttack:
    """Return the attack handle of your own images, for `Fit.attack`.

    Args:
      functions, params: an encoder with ``features(params, images, kind)`` (as `models.split` gives), or, for the
        embedding, with ``image_features(params, images)``; with a filter among the parameters where heads stand behind
        one.
      train, validation: (images u8[N, H, W, C] or f32 in [0, 1], labels i32[N] or multi-hot f32[N, C]).
      features: what the heads read, "embedding", "tokens" or "blocks".
      epsilon, step: radius and step, in pixel units.
      steps: of PGD.
      seed: of its starts.

    Raises:
      ConfigError: an encoder that does not show such features.
      DataError: images and labels of different numbers.
    """
    if features != "embedding" and not hasattr(functions, "features"):
        raise ConfigError(
            "features", features, "'embedding' with an encoder that has no `features(params, images, kind)`"
        )

    def encode(params: Params, images: Array, sides: PyTree) -> Array:
        if features == "embedding":
            return functions.image_features(params, images)
        return functions.features(params, images, features)

    splits = {}
    for name, (images, labels) in (("train", train), ("validation", validation)):
        images, labels = np.asarray(images), np.asarray(labels)
        if len(images) != len(labels):
            raise DataError(f"{name} has {len(images)} images and {len(labels)} labels")
        labels = labels.astype(np.float32 if labels.ndim == 2 else np.int32)
        keys = example_keys(stream(seed, f"attack/{name}"), [str(i) for i in range(len(images))])
        splits[name] = Target(images, labels, keys)
    return EncoderAttack(encode, params, splits, pgd.PGD(epsilon, step, steps))
