"""Methods that reach into the image tower, as data: scope, head and objective; and what they make of an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from ranjax.attacks import pgd as image_attacks
from ranjax.methods.head_methods import METHODS
from ranjax.models import input_filter, lora
from ranjax.models.heads import HEADS, LinearHead, ResidualHead
from ranjax.models.trainable import combine, describe_adapters, describe_trainable, select
from ranjax.objectives.rectification import Weights

IMAGE_TOWER = (r"^vision/", r"^visual_projection/")
LORA_TARGETS = (r"^vision/.*blocks/.*/(attention|mlp)/[^/]+/kernel$",)


@dataclass(frozen=True)
class Tuned:
    """What a method trains, and for what.

    Attributes:
      scope: "head" (the encoder stays as it is), "lora" (adapters on attention and MLP of the image tower) or "full"
        (the image tower).
      head: "linear", "residual" (NMTune's), "narrow" (its light form), or "prompts": the classes' texts, which stay as
        they are.
      objective: "clean" (cross-entropy), "at" (on attacked images), "ran" (rectification and defence), "tecoa", "fare"
        or "pmg_aft".
      source: the paper.
      filtered: whether a fixed low-pass filter stands in front of the tower (:mod:`ranjax.models.input_filter`).
      without: terms of RAN that are left out.
    """

    scope: str
    head: str
    objective: str
    source: str
    filtered: bool = False
    without: tuple[str, ...] = ()

    @property
    def attacks(self) -> bool:
        """Whether it trains on attacked images."""
        return self.objective != "clean"


TUNED: dict[str, Tuned] = {
    "lora": Tuned("lora", "linear", "clean", "Hu et al. 2022, arXiv 2106.09685"),
    "fft": Tuned("full", "linear", "clean", "full fine-tuning"),
    "at_lora": Tuned("lora", "linear", "at", "Madry et al. 2018, arXiv 1706.06083, in LoRA's scope"),
    "lora_filter": Tuned("lora", "linear", "clean", "LoRA behind RAN's filter", filtered=True),
    "at_lora_filter": Tuned("lora", "linear", "at", "adversarial training in LoRA's scope behind it", filtered=True),
    "ran_lora": Tuned("lora", "linear", "ran", "this project's reconstruction, in LoRA's scope", filtered=True),
    "ran_live": Tuned("head", "narrow", "ran", "RAN's head, its defence examples made on the fly against both", True),
    "tecoa": Tuned("full", "prompts", "tecoa", "Mao et al. 2023, arXiv 2212.07016"),
    "fare": Tuned("full", "prompts", "fare", "Schlarmann et al. 2024, arXiv 2402.12336"),
    "pmg_aft": Tuned("full", "prompts", "pmg_aft", "Wang et al. 2024, arXiv 2401.04350"),
}

FROZEN = Tuned("head", "linear", "clean", "")
"""The encoder as it is, or at most behind a filter."""


@dataclass(frozen=True)
class Tune:
    """Settings of `tune`.

    Attributes:
      epochs, batch_size: each epoch shuffles anew and drops its last N mod batch_size images; the batch is cut at N.
      learning_rate: AdamW's for the whole tower, lora_rate: for adapters, head_rate: for heads; a cosine takes them to
        0.
      weight_decay: AdamW's.
      rank: of LoRA.
      attack: of the images made on the fly.
      weights: of RAN's terms.
      pull: weight of PMG-AFT's two pulls.
      sigma: of the filter in front of the tower in pixels, for methods that are `filtered`; 0: none.
      top_k: singular values that count as dominant.
      trainable: regular expressions on the paths of what scope "full" trains.
      targets: regular expressions on the paths of the kernels that get an adapter in scope "lora".
      multi_label: sigmoid outputs and multi-hot labels; for methods with a head of their own.
      metric: of `selection.METRICS`, by which an epoch is chosen.
    """

    epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 1e-4
    lora_rate: float = 1e-3
    head_rate: float = 1e-2
    weight_decay: float = 1e-4
    rank: int = 2
    attack: image_attacks.PGD = field(default_factory=lambda: image_attacks.PGD("4/255", "2/255", 2, keep="last"))
    weights: Weights = METHODS["ran"].weights
    top_k: int = 1
    trainable: tuple[str, ...] = IMAGE_TOWER
    targets: tuple[str, ...] = LORA_TARGETS
    pull: float = 1.0
    sigma: float = 1.5
    multi_label: bool = False
    metric: str = "accuracy"

    def __post_init__(self) -> None:
        # A list is taken as well, and one pattern alone; a compiled program needs a tuple.
        for name in ("trainable", "targets"):
            given = getattr(self, name)
            if isinstance(given, (str, list)):
                object.__setattr__(self, name, (given,) if isinstance(given, str) else tuple(given))


class Images(NamedTuple):
    """A split: images u8[N, H, W, C]; labels i32[N] or f32[N, C]; original f32[N, D], their embeddings at first."""

    images: np.ndarray
    labels: np.ndarray
    original: np.ndarray


class Task(NamedTuple):
    """The classes.

    Attributes:
      prompts: f32[C, D], text embeddings of each.
      scale: f32[], the logit scale.
      weights: f32[C] of their cross-entropy as in :mod:`ranjax.objectives.classification`, or None; for methods with a
        head of their own.
    """

    prompts: Any
    scale: Any
    weights: Any = None


def head_of(method: Tuned, width: int, classes: int) -> LinearHead | ResidualHead | None:
    """The head that is trained, or None where prompts classify."""
    return HEADS[method.head](width, classes) if method.head in HEADS else None


def adapters(params: Mapping[str, Any], settings: Tune, key: jax.Array) -> dict[str, Any]:
    """LoRA's adapters as the settings ask for them, before the first step.

    Raises:
      ConfigError: a target that meets nothing, targets that meet no matrix, or a rank that does not fit.
    """
    select(params, settings.targets, "adapt.lora_targets")
    keys = ("adapt.lora_targets", "adapt.lora_rank")
    return lora.add(params, settings.rank, key, "|".join(settings.targets), keys)


def encoder_of(method: Tuned, params: Mapping[str, Any], trained: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder's parameters with what was trained in them and the filter in front; differentiable."""
    parts = dict(trained["encoder"])
    front = {input_filter.NAME: parts.pop(input_filter.NAME)} if input_filter.NAME in parts else {}
    if method.scope == "head":
        return {**params, **front}
    if method.scope == "lora":
        return {**lora.apply(params, parts), **front}
    return {**combine(params, parts), **front}


def describe_scope(method: Tuned, params: Mapping[str, Any], settings: Tune) -> str:
    """A table of what a method trains of the encoder (its head not counted): arrays, numbers, share, first names.

    Raises:
      ConfigError: patterns that meet nothing, or a rank that does not fit.
    """
    if method.scope == "lora":
        shapes = jax.eval_shape(lambda p: adapters(p, settings, jax.random.key(0)), dict(params))
        return describe_adapters(params, shapes)
    patterns = settings.trainable if method.scope == "full" else ()
    return describe_trainable(params, select(params, patterns, "adapt.tune_trainable"))
