"""Attacks on texts by whole words: ``from ranjax.attacks import text``.

`text.substitute` follows the gradient, `text.ranked` the order of importance, and `text.choose` takes one of whole
texts; `text.candidates` and its neighbours say which words may stand for which.
"""

from ranjax.core import lazy

__getattr__, __dir__, __all__ = lazy.exports(
    __name__,
    {
        "candidate_sources": (),
        "candidates": (),
        "constraints": (),
        "importance": ("importance", "ranked"),
        "restore": (),
        "rewrites": ("Rewrites", "choose"),
        "substitution": (
            *("Substitution", "TextAttack", "TextLoss", "TextTest"),
            *("needed_length", "similar_to", "substitute"),
        ),
    },
)
