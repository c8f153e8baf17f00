"""Attacks on images, texts and pairs of both, on any JAX function: ``from ranjax.attacks import PGD, jitted, losses``.

Modules and names are imported when they are first named: the image attacks do not wait for the text attacks, nor the
tables of this package for JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ranjax.attacks import apgd, losses, masking, pairs, pgd, presets, projections, starts, steps, text, transforms
    from ranjax.attacks.apgd import APGD
    from ranjax.attacks.ascent import ImageAttack, KeyedLoss, ascend
    from ranjax.attacks.attack_table import ATTACKS, Attack
    from ranjax.attacks.compile import jitted
    from ranjax.attacks.minimal import MinimalNorm, minimal_norm
    from ranjax.attacks.own_attack import OwnAttack
    from ranjax.attacks.pairs import PairAttack, craft
    from ranjax.attacks.pgd import PGD, bim, embedding_attack, fgsm, mi_fgsm
    from ranjax.attacks.presets import autoattack_lite
    from ranjax.attacks.text import Substitution, TextAttack, substitute

__all__ = [
    "APGD",
    "ATTACKS",
    "PGD",
    "Attack",
    "ImageAttack",
    "KeyedLoss",
    "MinimalNorm",
    "OwnAttack",
    "PairAttack",
    "Substitution",
    "TextAttack",
    "apgd",
    "ascend",
    "autoattack_lite",
    "bim",
    "craft",
    "embedding_attack",
    "fgsm",
    "jitted",
    "losses",
    "masking",
    "mi_fgsm",
    "minimal_norm",
    "pairs",
    "pgd",
    "presets",
    "projections",
    "starts",
    "steps",
    "substitute",
    "text",
    "transforms",
]

_HOMES = {
    "apgd": ("APGD",),
    "ascent": ("ImageAttack", "KeyedLoss", "ascend"),
    "attack_table": ("ATTACKS", "Attack"),
    "compile": ("jitted",),
    "minimal": ("MinimalNorm", "minimal_norm"),
    "own_attack": ("OwnAttack",),
    "pairs": ("PairAttack", "craft"),
    "pgd": ("PGD", "bim", "embedding_attack", "fgsm", "mi_fgsm"),
    "presets": ("autoattack_lite",),
    "text": ("Substitution", "TextAttack", "substitute"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f"{__name__}.{_HOME_OF.get(name, name)}")
    return getattr(home, name) if name in _HOME_OF else home


def __dir__() -> list[str]:
    return list(__all__)
