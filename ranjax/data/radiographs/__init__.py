"""The default data set: chest radiographs projected from a real CT with simulated lesions, and reports to go with them.

    cases = sample_cases(seed=0, split="train", count=64)
    images = render_cases(cases, size=64)                 # uint8[64, 64, 64]
    reports = [write_report(case) for case in cases]

One real patient, simulated lesions, no clinical claim: see `DATA_CARD`.
"""

from ranjax.core import lazy

__getattr__, __dir__, __all__ = lazy.exports(
    __name__,
    {
        "data_card": ("DATA_CARD",),
        "findings": (
            *("CLASSES", "IN_DOMAIN", "KINDS", "OUT_OF_DOMAIN", "label", "labels"),
            *("Acquisition", "Body", "Case", "Finding", "Technique"),
        ),
        "grammar": ("LABEL_WORDS", "PROMPTS", "write_prompts", "write_report"),
        "render": ("lesion_masks", "render_cases"),
        "sampling": ("sample_cases",),
    },
)
