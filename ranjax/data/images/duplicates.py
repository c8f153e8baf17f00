"""Copies of an image in different splits, found by a perceptual hash.

The hash has 256 bits: whether brightness rises from one cell to its right neighbour in a 17 x 16 reduction of the whole
picture (dHash; Krawetz 2013). It hardly moves with scaling, recompression or brightness, so that a copy lies within a
few bits. Chest radiographs resemble each other, hence the many bits and the small distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt32
from PIL import Image

BITS = 256
_BLOCK = 1 << 16
MAX_DISTANCE = 7
"""Greatest distance that `across` can promise to find: with 8 words, a pair within 7 bits agrees in one word whole."""


class Group(NamedTuple):
    """Rows of several sides that are copies of each other, directly or by others of the group; in order.

    distance: the greatest number of bits between two that are joined.
    """

    rows: tuple[int, ...]
    distance: int


def perceptual_hash(picture: Image.Image) -> bytes:
    """Return 32 bytes of a Pillow "L" picture of any size."""
    small = np.asarray(picture.resize((17, 16), Image.Resampling.BOX), np.int16)
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes()


def across(
    hashes: Sequence[bytes] | UInt8[np.ndarray, "rows 32"], sides: Sequence[str], distance: int = 4
) -> list[Group]:
    """Return the groups of rows of different `sides` whose hashes differ in at most `distance` bits, nearest first.

    Equal hashes are one, and words of 32 bits are compared first: hashes that agree in none cannot be near. So memory
    grows with the rows, whatever the number of copies, and time with the agreements of different hashes.

    Raises:
      ValueError: a distance beyond what the words can promise (0 to 7).
    """
    if not 0 <= distance <= MAX_DISTANCE:
        raise ValueError(f"distance {distance}; expected 0 to {MAX_DISTANCE} bits")
    if not len(hashes):
        return []
    given = (
        np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), -1)
        if not isinstance(hashes, np.ndarray)
        else hashes
    )
    words, member = np.unique(_words(given), axis=0, return_inverse=True)
    member = member.reshape(-1)
    # The sides of each different hash as bits of one number: two of one and the same side are no copies across sides.
    number = np.unique(np.asarray(sides), return_inverse=True)[1]
    side = np.zeros(len(words), np.int64)
    np.bitwise_or.at(side, member, np.int64(1) << number)
    joined = _Joined(len(words))
    for column in range(words.shape[1]):
        rows = np.argsort(words[:, column], kind="stable")
        cuts = np.flatnonzero(np.diff(words[rows, column])) + 1
        starts, ends = np.append(0, cuts), np.append(cuts, len(rows))
        # Nearly all words are of one hash alone.
        for which in np.flatnonzero(ends - starts > 1):
            bucket = rows[starts[which] : ends[which]]
            if np.bitwise_count(np.bitwise_or.reduce(side[bucket])) > 1:
                _join_within(bucket, words, side, distance, joined)
    shared = np.bitwise_count(side) > 1
    shared[list(joined.touched)] = True
    found: dict[int, list[int]] = {}
    for row in np.flatnonzero(shared[member]):
        found.setdefault(joined.root(int(member[row])), []).append(int(row))
    groups = [
        Group(tuple(rows), joined.distance.get(root, 0))
        for root, rows in found.items()
        if len({sides[r] for r in rows}) > 1
    ]
    return sorted(groups, key=lambda group: (group.distance, group.rows))


def _words(hashes: UInt8[np.ndarray, "rows 32"]) -> UInt32[np.ndarray, "rows 8"]:
    """Return hashes as words of 32 bits, each of which takes its bits from all over the picture, as neighbouring bits
    resemble each other."""
    order = np.random.default_rng(0).permutation(BITS)
    found = np.zeros((len(hashes), BITS // 32), np.uint32)
    for start in range(0, len(hashes), _BLOCK):
        bits = np.unpackbits(hashes[start : start + _BLOCK], axis=1)[:, order]
        found[start : start + _BLOCK] = np.ascontiguousarray(np.packbits(bits, axis=1)).view(np.uint32)
    return found


class _Joined:
    """Disjoint sets of numbers, each with the greatest distance that joined it; `touched`: numbers that were joined."""

    def __init__(self, count: int):
        self._parent = np.arange(count)
        self.distance: dict[int, int] = {}
        self.touched: set[int] = set()

    def root(self, number: int) -> int:
        while self._parent[number] != number:
            self._parent[number] = self._parent[self._parent[number]]
            number = int(self._parent[number])
        return number

    def join(self, first: int, second: int, distance: int) -> None:
        self.touched |= {first, second}
        first, second = self.root(first), self.root(second)
        self._parent[second] = first
        self.distance[first] = max(self.distance.get(first, 0), self.distance.get(second, 0), distance)


def _join_within(bucket: np.ndarray, words: np.ndarray, side: np.ndarray, distance: int, joined: _Joined) -> None:
    for place, row in enumerate(bucket[:-1]):
        others = bucket[place + 1 :]
        apart = np.bitwise_count(words[others] ^ words[row][None]).sum(axis=1)
        near = (apart <= distance) & (np.bitwise_count(side[others] | side[row]) > 1)
        for other, bits in zip(others[near], apart[near]):
            joined.join(int(row), int(other), int(bits))
