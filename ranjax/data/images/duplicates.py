"""Copies of an image in different splits, found by a perceptual hash.

The hash has 256 bits: whether brightness rises from one cell to its right neighbour in a 17 x 16 reduction of the whole
picture (dHash; Krawetz 2013). It hardly moves with scaling, recompression or brightness, so that a copy lies within a
few bits. Chest radiographs resemble each other, hence the many bits and the small distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

BITS = 256
MAX_DISTANCE = 7
"""Greatest distance that `across` can promise to find: with 8 words, a pair within 7 bits agrees in one word whole."""


class Copy(NamedTuple):
    """Rows `first` and `second` of different splits, `distance` bits apart."""

    first: int
    second: int
    distance: int


def perceptual_hash(picture: Image.Image) -> bytes:
    """Return 32 bytes of a Pillow "L" picture of any size."""
    small = np.asarray(picture.resize((17, 16), Image.Resampling.BOX), np.int16)
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes()


def across(hashes: Sequence[bytes], sides: Sequence[str], distance: int = 4) -> list[Copy]:
    """Return all pairs of rows of different `sides` whose hashes differ in at most `distance` bits, nearest first.

    Words of 32 bits are compared first: rows that agree in none cannot be near. So the time grows with the number of
    such agreements, not with the square of the rows.

    Raises:
      ValueError: a distance beyond what the words can promise (0 to 7).
    """
    if not 0 <= distance <= MAX_DISTANCE:
        raise ValueError(f"distance {distance}; expected 0 to {MAX_DISTANCE} bits")
    if not hashes:
        return []
    # Neighbouring bits resemble each other, so a word takes its bits from all over the picture.
    order = np.random.default_rng(0).permutation(BITS)
    bits = np.unpackbits(np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), -1), axis=1)[:, order]
    words = np.ascontiguousarray(np.packbits(bits, axis=1)).view(np.uint32)
    side = np.unique(np.asarray(sides), return_inverse=True)[1]
    found: dict[tuple[int, int], int] = {}
    for column in range(words.shape[1]):
        rows = np.argsort(words[:, column], kind="stable")
        cuts = np.flatnonzero(np.diff(words[rows, column])) + 1
        for group in np.split(rows, cuts):
            if len(group) > 1 and len(np.unique(side[group])) > 1:
                found |= _within(group, words, side, distance)
    pairs = [Copy(first, second, bits) for (first, second), bits in found.items()]
    return sorted(pairs, key=lambda pair: (pair.distance, pair.first, pair.second))


def _within(group: np.ndarray, words: np.ndarray, side: np.ndarray, distance: int) -> dict[tuple[int, int], int]:
    found = {}
    group = np.sort(group)
    for place, row in enumerate(group[:-1]):
        others = group[place + 1 :]
        apart = np.bitwise_count(words[others] ^ words[row][None]).sum(axis=1)
        for other, bits in zip(others, apart):
            if bits <= distance and side[other] != side[row]:
                found[(int(row), int(other))] = int(bits)
    return found
