"""The table of defences at test time: the evaluation through them, audits and the command line read it.

An entry of your own is an object of type `Defence` in a module of yours, named as `my_lab.round:ROUND`. Importing this
module imports no JAX; an entry's functions do when they are called.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ranjax.core import checks, lazy
from ranjax.core.checks import above, at_least, between, share_of
from ranjax.core.errors import ConfigError
from ranjax.core.registry import Table, check_entry
from ranjax.core.settings import DataclassInstance, setting
from ranjax.methods.method_settings import TTC

THROUGH, IDENTITY = "through", "identity"
"""What an attacker's gradient passes: the defence as it stands, or the identity in the place of its preprocessing."""
GRADIENTS = (THROUGH, IDENTITY)


def _finite(value: float) -> str:
    return "" if math.isfinite(value) and value > 0 else "a finite number above 0"


@dataclass(frozen=True)
class Defence:
    """A defence at test time: what it does to images, how it answers, and how an attacker sees through it.

    Attributes:
      name: part of keys and rows, e.g. "ttc".
      label: what the page calls it.
      preprocess: `(model, images f32[B, H, W, C] in [0, 1], keys key[B], settings) -> images`; None: none. `model` is
        the `Undefended` one, whose features it may read.
      answer: `(model, images, keys, settings) -> logits f32[B, C]`: the loop at test time; None: the model's own.
      settings: an instance of a frozen dataclass of `core.settings.setting`s, or None.
      random: whether keys decide its answer. An attack then raises the mean over draws, and one draw that the
        attacker does not see judges.
      gradients: which of `GRADIENTS` an attacker takes; each is an attack of its own and the worst counts. "through"
        differentiates the defence as it stands, its loops unrolled. "identity" is backward pass differentiable
        approximation (Athalye et al. 2018, arXiv 1802.00420): right where the preprocessing has no slope to follow.
      source: the paper, and what is done otherwise here.
    """

    name: str
    label: str
    preprocess: Callable[..., Any] | None = None
    answer: Callable[..., Any] | None = None
    settings: DataclassInstance | None = None
    random: bool = False
    gradients: tuple[str, ...] = (THROUGH,)
    source: str = ""

    def __post_init__(self) -> None:
        given = [field for field in ("preprocess", "answer") if getattr(self, field) is not None]
        check_entry(self, *given)
        if not given:
            raise ConfigError("Defence.preprocess", None, "a function, here or as answer")
        unknown = [kind for kind in self.gradients if kind not in GRADIENTS]
        if unknown or not self.gradients:
            raise ConfigError("Defence.gradients", self.gradients, f"some of {', '.join(GRADIENTS)}")
        if IDENTITY in self.gradients and self.preprocess is None:
            raise ConfigError("Defence.gradients", self.gradients, "'through' where nothing is preprocessed")


@dataclass(frozen=True)
class LowPassSettings:
    """Settings of the low-pass filter."""

    sigma: float = setting(1.5, "Standard deviation of the Gaussian.", "pixels", _finite)


@dataclass(frozen=True)
class ResizeSettings:
    """Settings of random resizing and padding."""

    views: int = setting(1, "Draws whose logits are averaged.", "views", at_least(1))
    smallest: float = setting(0.9, "Least side, as a share of the image's.", "share", share_of)


@dataclass(frozen=True)
class EntropySettings:
    """Settings of entropy minimisation over views (R-TPT)."""

    views: int = setting(8, "The image and its random crops.", "views", at_least(2))
    smallest: float = setting(0.5, "Least area of a crop, as a share of the image's.", "share", share_of)
    confident: float = setting(0.25, "Share of the views, those of least entropy, that tune.", "share", share_of)
    steps: int = setting(1, "Steps of the tuning.", "steps", at_least(0))
    rate: float = setting(0.1, "Length of a step, as a share of the feature's.", "share", at_least(0))
    neighbours: int = setting(3, "Nearest other views that a view's weight is of, at most.", "views", at_least(1))
    temperature: float = setting(0.01, "Of the softmax over views.", "", above(0))


@dataclass(frozen=True)
class PaddingSettings:
    """Settings of test-time padding (TTP)."""

    border: int = setting(4, "Width of the border that the image is shrunk for.", "pixels", at_least(1))
    threshold: float = setting(
        0.9, "An image whose feature keeps this cosine behind a black border is left alone.", "cosine", between(-1, 1)
    )
    views: int = setting(4, "The image and its random crops, all behind one border.", "views", at_least(2))
    smallest: float = setting(0.5, "Least area of a crop, as a share of the image's.", "share", share_of)
    confident: float = setting(0.5, "Share of the views, those of least entropy, that tune the border.", "", share_of)
    steps: int = setting(1, "Steps of the tuning.", "steps", at_least(0))
    rate: float = setting(0.1, "Greatest change of a border's pixel in a step.", "pixel units", at_least(0))
    temperature: float = setting(0.01, "Of the softmax over views.", "", above(0))


@dataclass(frozen=True)
class DirectionSettings:
    """Settings of directional bias (DBD)."""

    views: int = setting(8, "Random views beside the image.", "views", at_least(2))
    smallest: float = setting(0.5, "Least area of a crop, as a share of the image's.", "share", share_of)
    noise: float = setting(0.05, "Standard deviation of the noise on every view.", "pixel units", at_least(0))
    kept: float = setting(0.5, "Share of the views, those of least entropy, that are read.", "share", share_of)
    threshold: float = setting(0.8, "Mean cosine to the common direction above which it counts more.", "", at_least(0))
    strength: float = setting(2.5, "How much more.", "", at_least(0))


@dataclass(frozen=True)
class ConsistencySettings:
    """Settings of self-calibrated consistency (SCC)."""

    epsilon: str | float = setting("4/255", "Radius of its ball.", "pixel units", checks.epsilon)
    step: str | float = setting("1/255", "Step of its ascent.", "pixel units", checks.epsilon)
    steps: int = setting(2, "Steps of the counterattack, and as many of the ascent.", "steps", at_least(0))
    views: int = setting(4, "The image and its random crops.", "views", at_least(2))
    smallest: float = setting(0.5, "Least area of a crop, as a share of the image's.", "share", share_of)
    temperature: float = setting(0.5, "Below 1 the mean answer of the views is sharpened.", "", above(0))
    weight: float = setting(1.0, "Of the views' agreement beside the margin.", "", at_least(0))


DEFENCES: Table[Defence] = Table(
    "defence",
    Defence,
    (
        Defence(
            name="low_pass",
            label="Low-pass filter",
            preprocess=lazy.function("ranjax.methods.defences.random_resize", "low_pass"),
            settings=LowPassSettings(),
            source="Ours: the filter in front of RAN, alone. Linear, so an attack differentiates through it.",
        ),
        Defence(
            name="random_resize",
            label="Random resizing",
            answer=lazy.function("ranjax.methods.defences.random_resize", "random_resize"),
            settings=ResizeSettings(),
            random=True,
            source="Xie et al. 2018, arXiv 1711.01991. Theirs enlarges, 299 to 331 pixels; the size here stays.",
        ),
        Defence(
            name="resize_ensemble",
            label="Random resizing, ensemble",
            answer=lazy.function("ranjax.methods.defences.random_resize", "random_resize"),
            settings=ResizeSettings(views=8),
            random=True,
            source="The mean of eight such draws: Pérez et al. 2021, arXiv 2108.04584, on random views.",
        ),
        Defence(
            name="ttc",
            label="TTC",
            preprocess=lazy.function("ranjax.methods.test_time", "counterattacked"),
            settings=TTC(),
            random=True,
            gradients=(THROUGH, IDENTITY),
            source="Xing et al. 2025, arXiv 2503.03613; its sign has a stand-in slope in the attacker's gradient.",
        ),
        Defence(
            name="scc",
            label="SCC",
            preprocess=lazy.function("ranjax.methods.defences.self_calibration", "self_calibrated"),
            settings=ConsistencySettings(),
            random=True,
            gradients=(THROUGH, IDENTITY),
            source="Liu et al. 2025, arXiv 2510.22785, as described; no code was found, values are ours; sign as TTC.",
        ),
        Defence(
            name="r_tpt",
            label="R-TPT (on embeddings)",
            answer=lazy.function("ranjax.methods.defences.entropy_tuning", "tuned_by_entropy"),
            settings=EntropySettings(),
            random=True,
            source="Sheng et al. 2025, arXiv 2504.11195; a shift of the embedding for the prompt, 8 views for 64.",
        ),
        Defence(
            name="ttp",
            label="TTP",
            answer=lazy.function("ranjax.methods.defences.padding_tuning", "padded"),
            settings=PaddingSettings(),
            random=True,
            source="Li et al. 2025, arXiv 2512.16523, as described: no code was public; sizes are ours.",
        ),
        Defence(
            name="dbd",
            label="DBD",
            answer=lazy.function("ranjax.methods.defences.directional_bias", "directed"),
            settings=DirectionSettings(),
            random=True,
            source="Liu et al. 2026, arXiv 2606.06186; 8 views, crops and noise, for 31 of twenty kinds.",
        ),
    ),
    key="audit.defences",
)
