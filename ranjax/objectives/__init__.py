"""Objectives as pure functions of one batch: ``from ranjax.objectives import info_nce, objective, tecoa``.

A name is imported when it is first used.
"""

from ranjax.core import lazy

__getattr__, __dir__, __all__ = lazy.exports(
    __name__,
    {
        "classification": ("binary_cross_entropy", "cross_entropy"),
        "contrastive": ("OBJECTIVES", "info_nce", "sigmoid_loss"),
        "rectification": ("Weights", "consistency", "covariance", "divergence", "objective", "singular"),
        "robust": ("class_logits", "fare", "pmg_aft", "tecoa"),
    },
)
