"""Methods of adaptation, by one table: ``from ranjax.methods import METHODS, fit_heads, tune``.

A name is imported when it is first used, so that the table can be read without JAX.
"""

from ranjax.core import lazy

__getattr__, __dir__, __all__ = lazy.exports(
    __name__,
    {
        "method_settings": ("TTC", "Fit", "HeadTraining", "TowerTraining"),
        "table": ("METHODS", "Method", "Style", "selected", "settings_of"),
        "search": ("Variant", "grid", "varied"),
        "head_inputs": ("Examples",),
        "fusion_settings": ("FusionTraining",),
        "fusion_training": ("Asked", "FittedFusion", "fit_fusion"),
        "head_fit": ("HeadFit",),
        "attack_handle": ("EncoderAttack", "encoder_attack"),
        "own_head": ("fit_method",),
        "head_training": ("FittedHeads", "class_weights_of", "fit_heads", "predict"),
        "tower_methods": ("Images", "Task", "TowerFit", "encoder_of", "head_of", "tower_fit"),
        "tower_training": ("Diverged", "TowerOutcome", "tune"),
        "test_time": ("counterattack",),
        "few_shot": ("share", "shots"),
    },
)
