"""Methods that fit a head on frozen features, and the settings they share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ranjax.objectives.rectification import Weights

_CE_ONLY = Weights(ce=1.0)
_NMTUNE = Weights(ce=1.0, mse=1.0, cov=0.04, svd=0.001)


@dataclass(frozen=True)
class Method:
    """How one head is trained.

    Attributes:
      head: "linear" (LP), "residual" (NMTune's head) or "narrow" (the same with a hidden layer of D / 8).
      weights: of the loss terms, see :class:`ranjax.objectives.rectification.Weights`.
      learning_rate: AdamW's first one; a cosine takes it to 0.
      weight_decay: AdamW's, on every parameter (as torch's does).
      top_k: singular values that count as dominant; one value a call of `fit_heads`.
      svd_every: the singular-value term is taken every so many steps and counts as many times (lazy regularisation,
        Karras et al. 2020, arXiv 1912.04958, section 3.1); one value a call of `fit_heads`.
      epochs_share: share of `Fit.epochs` that it trains for, at least one epoch; one value a call of `fit_heads`.
      attacked_share: weight in [0, 1] of the attacked validation features' metric in the choice of the epoch.
      filtered: whether its features come through the low-pass filter (:mod:`ranjax.models.input_filter`); whoever makes
        the features sees to that.
      sees: of a set of questions, "both" image and question, or "image" or "question" alone; whoever makes the features
        sees to that. Elsewhere there is an image only.
    """

    head: str = "residual"
    weights: Weights = _CE_ONLY
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    top_k: int = 1
    svd_every: int = 1
    epochs_share: float = 1.0
    attacked_share: float = 0.0
    filtered: bool = False
    sees: str = "both"


# LP, MLP and NMTune as published (arXiv 2309.17002 and its public code); RAN is this project's reconstruction.
METHODS: dict[str, Method] = {
    "lp": Method(head="linear", learning_rate=1e-2),
    "mlp": Method(),
    "nmtune": Method(weights=_NMTUNE),
    "ran": Method(
        head="narrow",
        weights=_NMTUNE._replace(defence_ce=1.0, defence_consistency=1.0, defence_kl=1.0),
        learning_rate=1e-2,
        svd_every=8,
        epochs_share=0.5,
        attacked_share=0.5,
        filtered=True,
    ),
}
# NMTune's head on attacked features alone; and RAN without one of its parts each.
METHODS["at"] = Method(weights=Weights(ce=0.0, defence_ce=1.0), attacked_share=0.5)
WITHOUT = "ran_without_"
for _term in ("mse", "cov", "svd", "defence_ce", "defence_consistency", "defence_kl"):
    METHODS[WITHOUT + _term] = replace(METHODS["ran"], weights=METHODS["ran"].weights._replace(**{_term: 0.0}))
METHODS[WITHOUT + "filter"] = replace(METHODS["ran"], filtered=False)
# What the filter alone is worth: LP behind it; and what the light head costs: RAN with NMTune's wide one.
METHODS["lp_filter"] = replace(METHODS["lp"], filtered=True)
METHODS["ran_wide"] = replace(METHODS["ran"], head="residual")
# Of a set of questions: what the image alone tells, and what the question alone does (the prior of language).
METHODS["lp_image"] = replace(METHODS["lp"], sees="image")
METHODS["lp_question"] = replace(METHODS["lp"], sees="question")


@dataclass(frozen=True)
class Fit:
    """What all runs of one call share.

    Attributes:
      epochs: passes over the training features.
      batch_size: features a step, cut at N. Each epoch shuffles anew and drops its last N mod batch_size rows.
      metric: that chooses the epoch, one of "accuracy", "balanced_accuracy", "auroc"; equal epochs: the lower loss.
      multi_label: sigmoid outputs and multi-hot labels in place of softmax and one label.
      class_weights: "none", "balanced" (N / (C * count); multi-label: absent / present), or one number a class.
      parallel: runs trained side by side; None: one on a CPU (whose caches that suits best), all on an accelerator.
    """

    epochs: int = 30
    batch_size: int = 64
    metric: str = "accuracy"
    multi_label: bool = False
    class_weights: str | tuple[float, ...] = "none"
    parallel: int | None = None

    def __post_init__(self) -> None:
        # A list or an array is taken as well; the settings are static in a compiled program, which needs a tuple.
        if not isinstance(self.class_weights, str) and np.ndim(self.class_weights) == 1:
            object.__setattr__(self, "class_weights", tuple(np.asarray(self.class_weights).tolist()))


class Examples(NamedTuple):
    """Cached features of a split.

    Attributes:
      features: f32[N, D], or f32[R, N, D] of R encoders.
      labels: i32[N] in [0, C), or multi-hot [N, C].
      attacked: the same examples' features under attack, shape of `features`, or None.
    """

    features: Any
    labels: Any
    attacked: Any = None
