"""Long sequences of Python objects on the disk: memory stays flat, whatever their number."""

from __future__ import annotations

import array
import itertools
import json
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from os import pread
from typing import IO, Any, Generic, TypeVar, overload

import numpy as np
from jaxtyping import Int

Item = TypeVar("Item")

KEEP = 20_000
"""Items that stay in memory."""
_WINDOW = 256


class Spilled(Sequence[Item], Generic[Item]):
    """Items that are appended and read by position; behind the first `KEEP` they go to a temporary file.

    The file has no name: it goes with the last reference, or with the process. What is read back is a copy.

    Args:
      pack, unpack: an item to a value that JSON can say, and back.
      items: the first ones.
    """

    def __init__(self, pack: Callable[[Item], Any], unpack: Callable[[Any], Item], items: Iterable[Item] = ()):
        self._pack, self._unpack = pack, unpack
        self._first: list[Item] = []
        self._ends = array.array("q", [0])
        self._file: IO[bytes] | None = None
        self._order: np.ndarray | None = None
        self._owner: Spilled[Item] | None = None
        for item in items:
            self.append(item)

    def append(self, item: Item) -> None:
        """Add an item at the end. Raises ValueError for a sequence that `reordered` returned."""
        if self._order is not None:
            raise ValueError("a reordered sequence takes no more items")
        if len(self._first) < KEEP:
            self._first.append(item)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="ranjax-rows-")  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        self._ends.append(self._ends[-1] + self._file.write(json.dumps(self._pack(item), default=_plain).encode()))

    def reordered(self, order: Int[np.ndarray, " kept"]) -> Spilled[Item]:
        """Return the items at `order`, in that order, without copying them."""
        view = Spilled(self._pack, self._unpack)
        view._first, view._ends, view._file = self._first, self._ends, self._file
        # The file is closed with the sequence that made it.
        view._owner = self
        view._order = np.asarray(order, np.int64) if self._order is None else self._order[order]
        return view

    def __len__(self) -> int:
        return len(self._first) + len(self._ends) - 1 if self._order is None else len(self._order)

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> list[Item]: ...
    def __getitem__(self, place: int | slice) -> Item | list[Item]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(f"place {place} of a sequence of {len(self)}")
        place = int(place) % len(self)
        return self._at(place if self._order is None else int(self._order[place]))

    def __iter__(self) -> Iterator[Item]:
        if self._order is not None:
            yield from (self._at(int(place)) for place in self._order)
            return
        yield from self._first
        # Many at a time: a call of the system costs as much as an item.
        for start in range(0, len(self._ends) - 1, _WINDOW):
            ends = self._ends[start : start + _WINDOW + 1]
            data = self._read(ends[0], ends[-1])
            for begin, end in itertools.pairwise(ends):
                yield self._unpack(json.loads(data[begin - ends[0] : end - ends[0]]))

    def _at(self, place: int) -> Item:
        if place < len(self._first):
            return self._first[place]
        place -= len(self._first)
        return self._unpack(json.loads(self._read(self._ends[place], self._ends[place + 1])))

    def _read(self, begin: int, end: int) -> bytes:
        assert self._file is not None
        self._file.flush()
        data = b""
        while len(data) < end - begin:
            data += pread(self._file.fileno(), end - begin - len(data), begin + len(data))
        return data


def _plain(value: Any) -> Any:
    """Return a NumPy number or array as JSON can say it."""
    return value.tolist()
