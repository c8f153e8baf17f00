"""Defences at test time as one table, each a function of images and keys that an attack sees through whole.

from ranjax.methods.defences import DEFENCES, defended
"""

from ranjax.core import lazy

__getattr__, __dir__, __all__ = lazy.exports(
    __name__,
    {
        "defence_table": ("DEFENCES", "Defence"),
        "defended_model": ("Undefended", "defended", "undefended"),
        "image_views": (),
    },
)
