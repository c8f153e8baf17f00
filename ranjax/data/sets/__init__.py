"""The sets of this field: how their publishers lay them out, and generic layouts, all read into the same entries.

from ranjax.data import sets
sets.SPECS["nih"].instructions
"""

from __future__ import annotations

from ranjax.data.sets.spec import Entry, Options, Rejected, Spec

__all__ = ["SPECS", "Entry", "Options", "Rejected", "Spec", "spec_of"]


def _gather() -> dict[str, Spec]:
    from ranjax.data.sets import classification_sets as classification
    from ranjax.data.sets import generic_sets as generic
    from ranjax.data.sets import medmnist_sets as medmnist
    from ranjax.data.sets import pair_sets as pairs
    from ranjax.data.sets import question_sets as questions

    rooms = (pairs, classification, medmnist, questions, generic)
    return {spec.name: spec for room in rooms for spec in room.SPECS}


SPECS: dict[str, Spec] = _gather()
"""Every set by the name that `python -m ranjax prepare` takes."""


def spec_of(name: str) -> Spec:
    """The spec of a set. Raises ConfigError for an unknown name, with the nearest."""
    from ranjax.core.errors import ConfigError, nearest

    if name not in SPECS:
        raise ConfigError("NAME", name, f"one of {', '.join(SPECS)}", nearest(name, SPECS))
    return SPECS[name]
