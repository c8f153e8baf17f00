"""The default data set: chest radiographs projected from a real CT with simulated lesions, and reports to go with them.

    cases = sample_cases(seed=0, split="train", count=64)
    images = render_cases(cases, size=64)                 # uint8[64, 64, 64]
    reports = [write_report(case) for case in cases]

One real patient, simulated lesions, no clinical claim: see `DATA_CARD`.
"""

from ranjax.data.radiographs.data_card import DATA_CARD
from ranjax.data.radiographs.findings import (
    CLASSES,
    IN_DOMAIN,
    KINDS,
    OUT_OF_DOMAIN,
    Acquisition,
    Body,
    Case,
    Finding,
    Technique,
    label,
    labels,
)
from ranjax.data.radiographs.grammar import LABEL_WORDS, PROMPTS, write_prompts, write_report
from ranjax.data.radiographs.render import lesion_masks, render_cases
from ranjax.data.radiographs.sampling import sample_cases

__all__ = [
    "CLASSES",
    "DATA_CARD",
    "IN_DOMAIN",
    "KINDS",
    "LABEL_WORDS",
    "OUT_OF_DOMAIN",
    "PROMPTS",
    "Acquisition",
    "Body",
    "Case",
    "Finding",
    "Technique",
    "label",
    "labels",
    "lesion_masks",
    "render_cases",
    "sample_cases",
    "write_prompts",
    "write_report",
]
