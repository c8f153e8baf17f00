"""Target pairs: the other training pair that an attack drives a pair towards, drawn by the pair's id and the seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from ranjax.core.errors import ConfigError, DataError
from ranjax.data.noisy_pairs import keyed_hash

TARGETS = ("other_class", "random")

Labels = Float[np.ndarray, "pairs classes"]
"""Multi-hot labels."""


def draw(
    ids: Sequence[str], labels: Labels, chosen: Sequence[str], seed: int, kind: str = "other_class"
) -> Int[np.ndarray, " chosen"]:
    """Return i64[chosen], the position in `ids` of the target of each chosen pair.

    A draw depends on the id of its pair, the seed and the set of all pairs; not on which pairs are chosen, nor on any
    order. Pairs are of another class where they share no label, and exactly one or both have any.

    Args:
      ids: of all pairs that may be targets, distinct.
      labels: f32[pairs, classes], multi-hot.
      chosen: ids out of `ids`.
      seed: keys the draws.
      kind: "other_class", or "random" for any other pair.

    Raises:
      ConfigError: an unknown kind. DataError: a chosen pair has no such target.
    """
    if kind not in TARGETS:
        raise ConfigError("target", kind, f"one of {', '.join(TARGETS)}")
    place = {name: i for i, name in enumerate(ids)}
    order = sorted(range(len(ids)), key=lambda i: (keyed_hash(seed, "targets", ids[i]), ids[i]))
    if kind == "random":
        return _any_other(place, order, chosen, seed)
    # Pairs of the same labels form a group; those of another class are whole groups.
    sets, group = np.unique(labels > 0.5, axis=0, return_inverse=True)
    group = group.reshape(-1)
    members: list[list[int]] = [[] for _ in sets]
    for i in order:
        members[group[i]].append(i)
    eligible = [[m for other, m in zip(sets, members) if not same_class(own, other)] for own in sets]
    found = []
    for name in chosen:
        groups = eligible[group[place[name]]]
        count = sum(map(len, groups))
        if not count:
            raise DataError(f"pair {name!r} has no pair of another class to be its target; 'random' takes any other")
        index = _number(seed, name) % count
        for one in groups:
            if index < len(one):
                found.append(one[index])
                break
            index -= len(one)
    return np.array(found, np.int64)


def same_class(one: Bool[np.ndarray, " classes"], other: Bool[np.ndarray, " classes"]) -> bool:
    """Return whether two pairs share a label, or have none both."""
    return bool((one & other).any() or not (one | other).any())


def check(ids: Sequence[str], labels: Labels, chosen: Sequence[str], targets: Sequence[str], kind: str) -> None:
    """Refuse targets that are not of their kind.

    Raises:
      DataError: a target that is no training pair, is the pair itself, or (kind "other_class") is of its class.
    """
    place = {name: i for i, name in enumerate(ids)}
    held = labels > 0.5
    for name, target in zip(chosen, targets, strict=True):
        if target not in place:
            raise DataError(f"the target {target!r} of pair {name!r} is no training pair")
        if target == name:
            raise DataError(f"pair {name!r} is its own target")
        if kind == "other_class" and same_class(held[place[name]], held[place[target]]):
            raise DataError(f"the target {target!r} of pair {name!r} is of the same class")


def _any_other(
    place: dict[str, int], order: Sequence[int], chosen: Sequence[str], seed: int
) -> Int[np.ndarray, " chosen"]:
    if len(order) < 2 and chosen:
        raise DataError(f"pair {chosen[0]!r} is the only one: there is no other to be its target")
    rank = {i: n for n, i in enumerate(order)}
    # The next ones from its own place on, itself left out.
    steps = ((rank[place[name]], _number(seed, name) % (len(order) - 1)) for name in chosen)
    return np.array([order[(own + 1 + step) % len(order)] for own, step in steps], np.int64)


def _number(seed: int, name: str) -> int:
    return int.from_bytes(keyed_hash(seed, "target", name), "little")
