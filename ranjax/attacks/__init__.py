"""Attacks on images, texts and pairs of both, on any JAX function: ``from ranjax.attacks import PGD, jitted, losses``.

Modules and names are imported when they are first named: the image attacks do not wait for the text attacks, nor the
tables of this package for JAX.
"""

from ranjax.core import lazy

__getattr__, __dir__, __all__ = lazy.exports(
    __name__,
    {
        "apgd": ("apgd", "APGD"),
        "apgd_t": ("apgd_t", "TargetedAPGD"),
        "ascent": ("ImageAttack", "KeyedLoss", "ascend"),
        "attack_table": ("ATTACKS", "Attack"),
        "classifier": ("Classifier",),
        "compile": ("jitted",),
        "fab": ("fab", "FAB"),
        "losses": (),
        "masking": (),
        "minimal": ("MinimalNorm", "minimal_norm"),
        "own_attack": ("OwnAttack",),
        "pairs": ("pairs", "PairAttack", "craft"),
        "pgd": ("pgd", "PGD", "bim", "embedding_attack", "fgsm", "mi_fgsm"),
        "presets": ("presets", "autoattack_lite"),
        "projections": (),
        "square": ("square", "Square"),
        "starts": (),
        "steps": (),
        "text": ("text", "Substitution", "TextAttack", "substitute"),
        "transforms": (),
    },
)
