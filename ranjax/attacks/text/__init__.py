"""Attacks on texts by whole words: ``from ranjax.attacks import text``.

`text.substitute` follows the gradient, `text.ranked` the order of importance; `text.candidates` and its neighbours say
which words may stand for which.
"""

from ranjax.attacks.text import candidate_sources, candidates, constraints, importance, restore
from ranjax.attacks.text.importance import ranked
from ranjax.attacks.text.substitution import (
    Substitution,
    TextAttack,
    TextLoss,
    TextTest,
    needed_length,
    similar_to,
    substitute,
)

__all__ = [
    "Substitution",
    "TextAttack",
    "TextLoss",
    "TextTest",
    "candidate_sources",
    "candidates",
    "constraints",
    "importance",
    "needed_length",
    "ranked",
    "restore",
    "similar_to",
    "substitute",
]
