"""Data: sets of images and reports, prepared once and read by every run: ``from ranjax.data import open_prepared``.

A name is imported when it is first used, so that settings and tables can be read without what reads images.
"""

from ranjax.core import lazy

__getattr__, __dir__, __all__ = lazy.exports(
    __name__,
    {
        "batches": ("Batches", "Loader"),
        "images.augment": ("Augmentation",),
        "images.reading": ("read_image",),
        "noisy_pairs": ("caption_shuffle", "gaussian", "mix", "select"),
        "prepared": ("PreparedSet", "open_prepared"),
        "radiograph_set": ("prepare_radiographs",),
        "recipe_table": ("RECIPES", "Recipe"),
        "set_settings": ("DataSettings", "PreparedSettings", "RadiographSettings", "SetSettings"),
        "set_writing": ("prepare_set",),
        "sets": ("SETS", "Entry", "Rejected", "Spec"),
        "sources": ("Record", "Source"),
        "splits": ("SPLITS",),
        "store": ("NoisyStore", "StoreWriter"),
        "text.tokenizer": ("Tokenizer", "Tokens"),
    },
)
