"""The search over each method's settings: its grid, a method's settings at a point of it, and what the search found."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from ranjax.core.settings import DataclassInstance, Node
from ranjax.methods.method_settings import TERMS
from ranjax.methods.table import METHODS, selected, settings_of

S = TypeVar("S", bound="DataclassInstance")


class Variant(NamedTuple):
    """A point of the search grid: factors on learning rate and on the weights of a method's own terms."""

    rate: float
    strength: float


def grid(rates: Sequence[float] = (1.0,), strengths: Sequence[float] = (1.0,)) -> list[Variant]:
    """Return the search grid, the same for every method."""
    return [Variant(*pair) for pair in itertools.product(rates, strengths)]


def varied(settings: S, point: Variant) -> S:
    """Return a method's settings at a point of the grid.

    `rate` multiplies its learning rates. `strength` multiplies the weights of its own terms, or where it has none, its
    weight decay. A factor on the whole loss would change nothing, as AdamW does not feel it: clean cross-entropy, or
    without one that under attack, or else the only term, stays as it is.
    """
    names = [field.name for field in dataclasses.fields(settings)]
    terms = [term for term in TERMS if getattr(settings, term, None)]
    fixed = next((term for term in ("ce", "defence_ce", *terms) if term in terms), "")
    own = [term for term in (*terms, "pull") if term != fixed and getattr(settings, term, None)]
    factors = dict.fromkeys(("learning_rate", "head_learning_rate"), point.rate)
    factors |= dict.fromkeys(own or ("weight_decay",), point.strength)
    changes = {name: getattr(settings, name) * factor for name, factor in factors.items() if name in names}
    return dataclasses.replace(settings, **changes)


def check_scopes(adapt: Node, params: Mapping[str, Any]) -> None:
    """Refuse methods that would find nothing to train in an encoder, before it is trained, which may take hours.

    Args:
      adapt: the config's group, with `methods` and their settings.
      params: of the encoder.

    Raises:
      ConfigError: a pattern that meets nothing, or a rank that does not fit.
    """
    from ranjax.methods.tower_methods import describe_scope

    for name, method in selected(adapt["methods"]).items():
        if method.family == "tower":
            describe_scope(settings_of(adapt, name), params, key_prefix(name))


def key_prefix(name: str) -> str:
    """Return what a method's keys begin with, those of its base for a variant: "lp_filter" -> "adapt.lp"."""
    return f"adapt.{METHODS[name].variant_of or name}"
