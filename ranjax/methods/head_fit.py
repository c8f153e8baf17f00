"""What a method's own `fit` may give back besides the variables of its heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ranjax.core.types import Params


@dataclass(frozen=True)
class HeadFit:
    """The result of a `Method.fit`, which may return the variables alone as well.

    Attributes:
      variables: a nested dict of arrays with a leading axis of seeds.
      facts: what was chosen and how well it was solved, for the run's record: numbers and texts by name.
      validation: the figure that chose, where it is another than the metric of clean validation features, e.g. the mean
        of clean and attacked.
      notes: what a reader should know, e.g. of a value at the end of its grid.
      unfinished: of a solver that stopped before its minimum, what it left; `fit_method` warns of it.
    """

    variables: Params
    facts: Mapping[str, object] = field(default_factory=dict)
    validation: float | None = None
    notes: tuple[str, ...] = ()
    unfinished: str = ""
