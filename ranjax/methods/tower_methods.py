"""What methods that tune the image tower train of an encoder, and the encoder that comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Key

from ranjax.attacks import pgd
from ranjax.core.checks import at_least, one_of
from ranjax.core.settings import read, setting
from ranjax.core.types import Params
from ranjax.methods.method_settings import METRICS, TowerTraining
from ranjax.models import input_filter, lora
from ranjax.models.heads import HEADS, LinearHead, ResidualHead
from ranjax.models.trainable import combine, describe_adapters, describe_trainable, select

FROZEN = TowerTraining(scope="head")
"""The encoder as it is, or at most behind a filter."""


@runtime_checkable
class ImageEncoder(Protocol):
    """An encoder that can be tuned: hashable, with `image_features` and `config.embed_dim`, D."""

    @property
    def config(self) -> Any: ...

    def __hash__(self) -> int: ...

    def image_features(self, params: Params, images: Array) -> Array:
        """Return f32[B, D] of images f32[B, H, W, C] in [0, 1]."""
        ...


@dataclass(frozen=True)
class TowerFit:
    """What all fits of `tune` share.

    Attributes:
      attack: of the images made on the fly.
    """

    epochs: int = setting(5, "Passes over the training images at most.", "epochs", at_least(1))
    patience: int = setting(
        0, "Epochs without a better validation figure after which training ends; 0: none, all epochs.", "", at_least(0)
    )
    batch_size: int = setting(
        64, "Images a step, cut at N; each epoch shuffles anew and drops its last N mod batch_size.", "", at_least(1)
    )
    attack: pgd.PGD = field(default_factory=lambda: pgd.PGD("4/255", "2/255", 2, keep="last"))
    sigma: float = setting(1.5, "Of the filter, for methods that are `filtered`; 0: none.", "pixels", at_least(0))
    multi_label: bool = setting(False, "Sigmoid outputs and multi-hot labels; for methods with a head of their own.")
    metric: str = setting("accuracy", "Chooses the epoch; of equal epochs: the lower loss.", "", one_of(*METRICS))


def tower_fit(adapt: Any) -> TowerFit:
    """Return what the group `adapt` of a config says of fits in the tower."""
    attack = pgd.PGD(adapt.epsilon, adapt.tower.step, adapt.tower.attack_steps, keep="last")
    fit = TowerFit(attack=attack, sigma=adapt.filter, multi_label=adapt.task == "multi", metric=adapt.metric)
    return read(fit, adapt.tower)


Values = Any
"""An array, or lists, as a library user has them."""


class Images(NamedTuple):
    """A split: images u8[N, H, W, C]; labels i32[N] or f32[N, C]; original f32[N, D], their embeddings at first.

    Training images of FARE have no labels: None.
    """

    images: Values
    labels: Values
    original: Values


class Task(NamedTuple):
    """The classes.

    Attributes:
      prompts: f32[C, D], text embeddings of each.
      scale: f32[], the logit scale.
      weights: f32[C] of their cross-entropy as in `ranjax.objectives.classification`, or None; for methods with a
        head of their own.
    """

    prompts: Values
    scale: Values
    weights: Values = None


def head_of(method: TowerTraining, width: int, classes: int) -> LinearHead | ResidualHead | None:
    """Return the head that is trained, or None where prompts classify."""
    return HEADS[method.head](width, classes) if method.head in HEADS else None


def adapters(params: Params, method: TowerTraining, key: Key[Array, ""], prefix: str = "method") -> dict[str, Params]:
    """Return LoRA's adapters before the first step.

    Raises:
      ConfigError: a target that meets nothing, targets that meet no matrix, or a rank that does not fit; `prefix`
        begins its key.
    """
    select(params, method.targets, f"{prefix}.targets")
    return lora.add(params, method.rank, key, "|".join(method.targets), (f"{prefix}.targets", f"{prefix}.rank"))


def encoder_of(method: TowerTraining, params: Params, trained: Mapping[str, Params]) -> dict[str, Params]:
    """Return the encoder's parameters with what was trained in them and the filter in front; differentiable."""
    parts = dict(trained["encoder"])
    front = {input_filter.NAME: parts.pop(input_filter.NAME)} if input_filter.NAME in parts else {}
    if method.scope == "head":
        return {**params, **front}
    if method.scope == "lora":
        return {**lora.apply(params, parts), **front}
    return {**combine(params, parts), **front}


def describe_scope(method: TowerTraining, params: Params, prefix: str = "method") -> str:
    """Return a table of what a method trains of the encoder, less its head: arrays, numbers, share, first names.

    Raises:
      ConfigError: patterns that meet nothing, or a rank that does not fit; `prefix` begins its key.
    """
    if method.scope == "lora":
        shapes = jax.eval_shape(lambda p: adapters(p, method, jax.random.key(0), prefix), dict(params))
        return describe_adapters(params, shapes)
    patterns = method.trainable if method.scope == "full" else ()
    return describe_trainable(params, select(params, patterns, f"{prefix}.trainable"))
