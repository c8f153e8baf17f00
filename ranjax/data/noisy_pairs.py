"""Which pairs are noisy, and what stands in for them: adversarial pairs, or the conditions they are compared with.

Selections are nested: examples are ranked by a keyed hash of their id, and a ratio takes the first of them. So one
crafted store serves every ratio, and a ratio is met within one example.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, UInt8, UInt16

from ranjax.core.errors import ConfigError, DataError
from ranjax.core.pixels import GRID
from ranjax.data.sources import Record, Source
from ranjax.data.store import NoisyStore

PARTS = ("both", "image", "report")


def keyed_hash(seed: int, name: str, identity: str) -> bytes:
    """Return 16 bytes that depend on nothing but the three (BLAKE2b): the same on every machine."""
    return hashlib.blake2b(f"{seed}\x1f{name}\x1f{identity}".encode(), digest_size=16).digest()


def select(ids: Sequence[str], ratio: float, seed: int) -> Bool[np.ndarray, " ids"]:
    """Return bool[N], True on exactly `count_of` examples; a smaller ratio's are among a greater one's.

    Args:
      ids: distinct example ids, in any order: which ones are taken does not depend on it.
      ratio: share from 0 to 1.
      seed: keys the rank.

    Raises:
      ConfigError: a ratio outside [0, 1].
      DataError: an id that is given twice.
    """
    if not 0.0 <= ratio <= 1.0:
        raise ConfigError("noise.ratios", ratio, "a share from 0 to 1")
    if len(set(ids)) != len(ids):
        raise DataError("example ids must differ from each other; at least one is given twice")
    ranked = sorted(range(len(ids)), key=lambda i: (keyed_hash(seed, "noise", ids[i]), ids[i]))
    chosen = np.zeros(len(ids), bool)
    chosen[ranked[: count_of(ratio, len(ids))]] = True
    return chosen


def count_of(ratio: float, total: int) -> int:
    """Return how many of `total` pairs a ratio is: rounded to the nearest, half away from zero.

    By fractions of the ratio as it is written: 0.15 of 10 is 2, which floats (0.15 = 0.1499...) and Python's `round`
    (half to even) have otherwise.
    """
    return int(Fraction(str(float(ratio))) * total + Fraction(1, 2))


class View(Source):
    """A source with some of its records changed, when they are read.

    Images come as uint16 on the grid of 1/65535, which holds 8-bit pixels and their perturbations exactly as stored.

    Args:
      source: the pairs.
      positions: of the records that change.
      replacement: gives the entries that differ, from a position and the record there.
      left: ids of selected pairs that stay as they are.
    """

    def __init__(
        self,
        source: Source,
        positions: Collection[int],
        replacement: Callable[[int, Record], Record],
        left: Sequence[str] = (),
    ):
        self.source, self.changed, self.replacement = source, frozenset(positions), replacement
        self.left = tuple(left)

    def __len__(self) -> int:
        return len(self.source)

    def record(self, index: int) -> Record:
        record = dict(self.source[index])
        record["image"] = widen(record["image"])
        return record | self.replacement(index, record) if index in self.changed else record

    def meta(self, index: int) -> Record:
        if index not in self.changed:
            return self.source.meta(index)
        record = self.record(index)
        record.pop("image")
        return record


def widen(image: UInt8[np.ndarray, "..."] | UInt16[np.ndarray, "..."]) -> UInt16[np.ndarray, "..."]:
    """Return uint8 pixels on the 16-bit grid: 257 times the value, exactly."""
    return image.astype(np.uint16) * np.uint16(257) if image.dtype == np.uint8 else image


def mix(source: Source, store: NoisyStore, ratio: float, seed: int, parts: str = "both") -> Source:
    """Return `source` with a share of its pairs replaced by their adversarial pairs.

    Args:
      source: the clean pairs.
      store: noisy pairs, at least of the pairs that `ratio` selects.
      ratio, seed: see `select`.
      parts: "both", or "image" or "report" to replace one side only.

    Returns:
      A source of the same length and order; at ratio 0 its pixels are those of `source`.

    Raises:
      DataError: noisy pairs are missing, and how many; or, when read, a noisy pair of another image.
    """
    if parts not in PARTS:
        raise ConfigError("noise.parts", parts, f"one of {', '.join(PARTS)}")
    ids = source.ids
    positions = np.flatnonzero(select(ids, ratio, seed)).tolist()
    missing = [ids[i] for i in positions if ids[i] not in store]
    if missing:
        raise DataError(
            f"The store lacks {len(missing)} of the {len(positions)} noisy pairs of ratio {ratio}, {missing[0]!r} first"
        )

    def replacement(index: int, record: Record) -> Record:
        noisy_pair = store[record["id"]]
        if not np.array_equal(widen(noisy_pair["clean_image"]), record["image"]):
            raise DataError(
                f"The store's noisy pair of {record['id']!r} was crafted from another image than the source's."
            )
        image = {"image": noisy_pair["pixels"]}
        report = {name: noisy_pair[name] for name in ("report", "tokens", "mask")}
        return {"both": image | report, "image": image, "report": report}[parts]

    return View(source, positions, replacement)


def caption_shuffle(source: Source, selected: Iterable[str], seed: int) -> View:
    """Swap the captions of the selected pairs among themselves; none keeps a caption with its own wording.

    The selected are put in a keyed order in which equal captions stand together, and captions move on by the size of
    the largest such group, so that none lands on an equal one. Where one wording makes up more than half, not all can
    move: the result's `left` lists the ids that keep their pair, and so it does for a single selected pair.

    Args:
      source: the pairs.
      selected: ids.
      seed: keys the order.
    """
    places = _places(source, selected)
    texts = {i: source.meta(place)["report"] for i, place in places.items()}
    groups: dict[str, list[str]] = {}
    for identity in sorted(places, key=lambda i: keyed_hash(seed, "caption_shuffle", i)):
        groups.setdefault(texts[identity], []).append(identity)
    largest = max(groups.values(), key=len, default=[])
    excess = max(0, 2 * len(largest) - len(places))
    left = [largest.pop() for _ in range(excess)]
    order = [identity for group in groups.values() for identity in group]
    step = max((len(group) for group in groups.values()), default=0)
    origin = {places[i]: places[order[(n + step) % len(order)]] for n, i in enumerate(order)}
    return View(source, origin, lambda index, record: {"report": source.meta(origin[index])["report"]}, left)


def gaussian(source: Source, selected: Iterable[str], seed: int, epsilon: float | Mapping[str, float]) -> View:
    """Add the signs of Gaussian noise to the selected images: the norm of an Linf attack without its direction.

    Args:
      source: the pairs.
      selected: ids.
      seed: keys the signs, with the example's id.
      epsilon: Linf norm in pixel units, one for all or per id (e.g. the noisy pairs' realised norms).
    """
    values = epsilon.values() if isinstance(epsilon, Mapping) else [epsilon]
    if any(not 0.0 <= value <= 0.5 for value in values):
        raise ConfigError("noise.image_epsilon", epsilon, "from 0 to 0.5 (beyond, both signs could leave the box)")

    def replacement(index: int, record: Record) -> Record:
        own = epsilon[record["id"]] if isinstance(epsilon, Mapping) else epsilon
        size = math.floor(own * GRID + 1e-6)
        key = int.from_bytes(keyed_hash(seed, "gaussian", record["id"]), "little")
        draws = np.random.Generator(np.random.Philox(key=key)).standard_normal(record["image"].shape)
        image = record["image"].astype(np.int64)
        delta = np.where(draws < 0, -size, size)
        # A step that would leave the box is taken the other way: clipping it would shrink the norm.
        outside = (image + delta < 0) | (image + delta > GRID)
        return {"image": np.clip(image + np.where(outside, -delta, delta), 0, GRID).astype(np.uint16)}

    return View(source, list(_places(source, selected).values()), replacement)


def _places(source: Source, selected: Iterable[str]) -> dict[str, int]:
    place = {identity: index for index, identity in enumerate(source.ids)}
    chosen = list(selected)
    unknown = [identity for identity in chosen if identity not in place]
    if unknown:
        raise DataError(f"{len(unknown)} selected ids are not in the source, {unknown[0]!r} first")
    return {identity: place[identity] for identity in chosen}
