"""The sets of this field: how their publishers lay them out, and generic layouts, all read into the same entries.

SETS["nih"].instructions
SETS.resolve("my_lab.films:SPEC")    # your own, a `Spec` in an importable module
"""

from __future__ import annotations

from ranjax.core.registry import Table
from ranjax.data.sets import (
    classification_sets,
    dicom_sets,
    folder_sets,
    generic_sets,
    medmnist_sets,
    pair_sets,
    question_sets,
    table_sets,
)
from ranjax.data.sets.spec import ABSENT, PRESENT, UNCERTAIN, Entry, Options, Rejected, Said, Spec

__all__ = ["ABSENT", "PRESENT", "SETS", "UNCERTAIN", "Entry", "Options", "Rejected", "Said", "Spec"]

_MODULES = (
    *(pair_sets, classification_sets, medmnist_sets, question_sets, table_sets, dicom_sets),
    *(folder_sets, generic_sets),
)
SETS: Table[Spec] = Table("dataset", Spec, (spec for module in _MODULES for spec in module.SPECS), key="data.set.name")
"""Every set by the name that `ranjax prepare` and `data.set.name` take; entry points stand in ``ranjax.datasets``."""
