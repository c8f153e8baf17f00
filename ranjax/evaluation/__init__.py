"""Evaluation: metrics, intervals, robustness, retrieval: ``from ranjax.evaluation import WhiteBox, bootstrap``.

A name is imported when it is first used.
"""

from ranjax.core import lazy

__getattr__, __dir__, __all__ = lazy.exports(
    __name__,
    {
        "result_rows": ("Cell", "Row", "classification_rows"),
        "retrieval": ("Ranks", "ranks"),
        "autoattack": ("autoattack", "AutoAttack", "AutoAttackResult"),
        "robust_accuracy": ("RobustAccuracy", "standard_attacks"),
        "spectrum": ("Spectrum",),
        "through_defence": ("ThroughDefence", "published_images"),
        "statistics": ("Difference", "Interval", "bootstrap", "holm", "paired_difference"),
        "white_box": ("Robustness", "WhiteBox", "survivors"),
        "zero_shot": ("class_embeddings",),
    },
)
