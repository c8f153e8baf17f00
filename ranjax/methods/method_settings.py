"""The settings of the methods that ranjax trains itself; each field is declared once, with its meaning and check.

A field of a method's settings is the configuration key ``adapt.<method>.<field>`` where the method's entry in
`ranjax.methods.table.METHODS` names it; the other fields are what makes the method, and stay as the entry has them.
This module imports no JAX, so that a config can be read without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ranjax.core import checks
from ranjax.core.checks import above, at_least, between, one_of, patterns, share_of
from ranjax.core.settings import setting

TERMS = ("ce", "mse", "cov", "svd", "defence_ce", "defence_consistency", "defence_kl")
"""The fields of `ranjax.objectives.rectification.Weights`; the last three need attacked examples."""
LORA_TARGETS = (r"^vision/.*blocks/.*/(attention|mlp)/[^/]+/kernel$",)
IMAGE_TOWER = ("^vision/", "^visual_projection/")

METRICS = ("accuracy", "balanced_accuracy", "auroc")
"""The validation metrics of `ranjax.methods.selection`, of which one chooses the epoch."""

FEATURES = ("embedding", "tokens", "blocks")
"""What a head may read of an image, see `ranjax.models.DualEncoderFunctions.features`."""

_weight = at_least(0)


def _two_rows(value: int) -> str:
    return "" if value >= 2 else "a number of at least 2: batch norm and covariance need two rows"


def _grid(least: float, inclusive: bool) -> checks.Check:
    def check(value: tuple[float, ...]) -> str:
        good = all(math.isfinite(v) and (v >= least if inclusive else v > least) for v in value)
        where = f"of at least {least:g}" if inclusive else f"above {least:g}"
        return (
            "" if value and good and len(set(value)) == len(value) else f"different numbers {where}, e.g. (1.0, 10.0)"
        )

    return check


@dataclass(frozen=True)
class Variation:
    """How far a copy of a labelled image may differ from it, see `ranjax.methods.acquisition.vary`."""

    turn: float = setting(10.0, "Largest turn, either way.", "degrees", between(0, 180))
    shift: float = setting(0.08, "Largest shift along each axis, as a share of the side.", "share", between(0, 1))
    zoom: float = setting(0.1, "Largest change of scale.", "share", between(0, 0.9))
    contrast: float = setting(0.25, "Largest change of contrast.", "share", between(0, 1))
    brightness: float = setting(0.06, "Largest change of brightness.", "pixel units", between(0, 1))


@dataclass(frozen=True)
class HeadInput:
    """What a head on frozen features is given."""

    features: str = setting(
        "embedding",
        "What it reads of an image: the embedding, the tower's last tokens on a small grid, or all of its blocks.",
        "",
        one_of(*FEATURES),
    )
    filtered: bool = setting(False, "Whether images pass the low-pass filter (adapt.filter) first.")
    copies: int = setting(
        0,
        "Copies of each labelled image, varied as adapt.variation says, that it is fitted on besides.",
        "",
        at_least(0),
    )
    modality: str = setting(
        "both",
        "What the head is given of a set of questions: image and question, or one of the two.",
        "",
        one_of("both", "image", "question"),
    )


@dataclass(frozen=True)
class LogisticSettings(HeadInput):
    """Settings of `ranjax.methods.logistic.fit`."""

    penalties: tuple[float, ...] = setting(
        (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0),
        "Weights of half the squared norm of the coefficients, of which validation chooses.",
        "",
        _grid(0, False),
    )


@dataclass(frozen=True)
class RidgeSettings(HeadInput):
    """Settings of `ranjax.methods.ridge.fit`."""

    penalties: tuple[float, ...] = setting(
        (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0, 30000.0, 100000.0),
        "Weights lambda of the squared norm of the coefficients, of which validation chooses.",
        "",
        _grid(0, False),
    )
    rank: int = setting(0, "Rank of the linear map, kept as two factors; 0: full.", "", at_least(0))


@dataclass(frozen=True)
class RobustRidgeSettings(RidgeSettings):
    """Settings of `ranjax.methods.ridge.fit_robust`; the attack is that of adapt.epsilon, .step and .attack_steps."""

    penalties: tuple[float, ...] = setting(
        (30.0, 100.0, 300.0, 1000.0, 3000.0),
        "Weights lambda of the squared norm of the coefficients, of which validation chooses.",
        "",
        _grid(0, False),
    )
    mus: tuple[float, ...] = setting(
        (0.3, 1.0, 3.0),
        "Weights mu of the squared displacement of the outputs under attack, of which validation chooses.",
        "",
        _grid(0, True),
    )
    rounds: int = setting(3, "Times that the head as it stands is attacked and solved anew.", "rounds", at_least(1))
    displaced: int = setting(0, "Training images that are attacked in a round; 0: all.", "images", at_least(0))
    examples: int = setting(
        192, "Validation images on which candidates are attacked end to end; 0: all.", "images", at_least(0)
    )
    attack_loss: str = setting(
        "margin", "What the attack raises, of one label an image.", "", one_of("margin", "cross_entropy")
    )


@dataclass(frozen=True)
class Objective:
    """Weights of the terms of `ranjax.objectives.rectification.objective`; a term of weight 0 is left out."""

    ce: float = setting(1.0, "Weight of cross-entropy.", "", _weight)
    mse: float = setting(0.0, "Weight of the consistency term.", "", _weight)
    cov: float = setting(0.0, "Weight of the covariance term.", "", _weight)
    svd: float = setting(0.0, "Weight of the dominant-singular-value term.", "", _weight)
    defence_ce: float = setting(0.0, "Weight of cross-entropy on attacked features.", "", _weight)
    defence_consistency: float = setting(0.0, "Weight of feature consistency under attack.", "", _weight)
    defence_kl: float = setting(0.0, "Weight of prediction consistency under attack.", "", _weight)
    top_k: int = setting(1, "Singular values that count as dominant.", "values", at_least(1))
    weight_decay: float = setting(1e-4, "AdamW's, on every trained parameter (as torch's does).", "", at_least(0))
    filtered: bool = setting(False, "Whether images pass the low-pass filter (adapt.filter) first.")

    @property
    def terms(self) -> dict[str, float]:
        """The weight of each term that has one."""
        return {term: getattr(self, term) for term in TERMS if getattr(self, term)}


@dataclass(frozen=True)
class HeadTraining(Objective, HeadInput):
    """How `ranjax.methods.head_training.fit_heads` trains one head on frozen features.

    The singular-value term may be taken every so many steps (lazy regularisation, Karras et al. 2020, arXiv
    1912.04958, section 3.1).
    """

    head: str = setting(
        "residual",
        "The head: a linear map, NMTune's residual one, or NMTune's with a hidden layer of D / 8.",
        "",
        one_of("linear", "residual", "narrow"),
    )
    learning_rate: float = setting(1e-3, "AdamW's first one; a cosine takes it to 0.", "", above(0))
    standardised: bool = setting(
        False, "Whether features are standardised on the training images first, constant ones to 0."
    )
    patience: int = setting(
        0, "Epochs without a better validation figure after which training ends; 0: none, all epochs.", "", at_least(0)
    )
    most_hidden: int = setting(
        0,
        "Width of the hidden layer at most; 0: as the head has it, but 256 for tokens, blocks and raw pixels.",
        "channels",
        at_least(0),
    )
    svd_every: int = setting(
        1, "The singular-value term is taken every so many steps, and counts as many times.", "steps", at_least(1)
    )
    epochs_share: float = setting(1.0, "Share of adapt.epochs that it trains for.", "share", share_of)
    attacked_share: float = setting(
        0.0, "Weight of the attacked validation features in the choice of the epoch.", "share", between(0, 1)
    )

    @property
    def uses_attacked(self) -> bool:
        """Whether it needs features under attack, to train or to choose its epoch."""
        return self.attacked_share > 0 or any("defence" in term for term in self.terms)


@dataclass(frozen=True)
class TowerTraining(Objective):
    """What `ranjax.methods.tower_training.tune` trains in the image tower, and by which objective."""

    scope: str = setting(
        "lora",
        "What is trained: a head alone, a head and adapters in the image tower, or the image tower.",
        "",
        one_of("head", "lora", "full"),
    )
    head: str = setting(
        "linear",
        "The head: one of those on frozen features, or the classes' prompts, which stay as they are.",
        "",
        one_of("linear", "residual", "narrow", "prompts"),
    )
    objective: str = setting(
        "clean",
        "Cross-entropy on clean or attacked images (at), RAN's terms, or a published robust fine-tuning.",
        "",
        one_of("clean", "at", "ran", "tecoa", "fare", "pmg_aft"),
    )
    learning_rate: float = setting(1e-4, "AdamW's first one in the tower; a cosine takes it to 0.", "", above(0))
    head_learning_rate: float = setting(1e-2, "AdamW's first one of the head.", "", above(0))
    rank: int = setting(2, "Rank of LoRA's adapters.", "", at_least(1))
    targets: tuple[str, ...] = setting(
        LORA_TARGETS, "Regular expressions on the paths of the kernels that get an adapter.", "", patterns
    )
    trainable: tuple[str, ...] = setting(
        IMAGE_TOWER, "Regular expressions on the paths of the arrays that are trained.", "", patterns
    )
    pull: float = setting(0.0, "Weight of both of PMG-AFT's pulls.", "", at_least(0))

    def __post_init__(self) -> None:
        # One pattern alone, a list and empty patterns are taken as well; a compiled program needs a tuple.
        for name in ("trainable", "targets"):
            given = getattr(self, name)
            if isinstance(given, (str, list, tuple)):
                listed = (given,) if isinstance(given, str) else given
                object.__setattr__(self, name, tuple(pattern for pattern in listed if pattern != ""))

    @property
    def uses_attacked(self) -> bool:
        """Whether it trains on attacked images."""
        return self.objective != "clean"


@dataclass(frozen=True)
class TTC:
    """Settings of `ranjax.methods.test_time.counterattack` (TTC)."""

    epsilon: str | float = setting("4/255", "Radius of its ball.", "pixel units", checks.epsilon)
    step: str | float = setting("1/255", "Step of its gradient ascent.", "pixel units", checks.epsilon)
    steps: int = setting(2, "Steps of its gradient ascent.", "steps", at_least(0))
    threshold: float = setting(
        0.2, "Images whose embedding moves by this share or more under noise keep the noise alone.", "share", _weight
    )
    beta: float = setting(2.0, "Iterate i of 0..steps counts exp(beta * i) in the final average.")


@dataclass(frozen=True)
class Fit:
    """What all heads of one call of `fit_heads` share.

    Attributes:
      class_weights: "none", "balanced" (N / (C * count); multi-label: absent / present), or one number a class.
      parallel: runs trained side by side; None: one on a CPU (whose caches that suits best), all on an accelerator.
      attack: for methods that need one, ``(predict, variables, split, rows, loss) -> features`` of images attacked
        through the encoder and that head, see `ranjax.methods.attack_handle`; a run has it.
    """

    epochs: int = setting(30, "Passes over the training features.", "epochs", at_least(1))
    batch_size: int = setting(
        64, "Features a step, cut at N; each epoch shuffles anew and drops its last N mod batch_size.", "", _two_rows
    )
    metric: str = setting("accuracy", "Chooses the epoch; of equal epochs: the lower loss.", "", one_of(*METRICS))
    multi_label: bool = setting(False, "Sigmoid outputs and multi-hot labels in place of softmax and one label.")
    class_weights: str | Sequence[float] = "none"
    parallel: int | None = None
    attack: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        # A list or an array is taken as well; the settings are static in a compiled program, which needs a tuple.
        if not isinstance(self.class_weights, (str, tuple)) and hasattr(self.class_weights, "__len__"):
            object.__setattr__(self, "class_weights", tuple(float(weight) for weight in self.class_weights))
