"""The collectives of a compiled program, read from its text: kind, number, bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
_LINE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\(")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


@dataclass(frozen=True)
class Collective:
    """One collective: its kind and the bytes of its result on each device."""

    kind: str
    bytes: int

    def moved(self, devices: int) -> float:
        """Bytes that each device sends, by the ring algorithm.

        All-reduce: 2 (n - 1) / n of the result (reduce-scatter, then all-gather). All-gather: (n - 1) / n of the
        result, which is the whole. Reduce-scatter: (n - 1) times the result, which is one part. Others: once.
        """
        share = (devices - 1) / devices
        factor = {"all-reduce": 2 * share, "all-gather": share, "reduce-scatter": devices - 1}
        return self.bytes * factor.get(self.kind, 1.0)


def read(text: str) -> list[Collective]:
    """The collectives in the text of a compiled module (``compiled.as_text()``), in its order."""
    return [Collective(kind, _size(result)) for result, kind in _LINE.findall(text)]


def moved(found: Iterable[Collective], devices: int) -> float:
    """Bytes that each device sends in one step."""
    return sum(c.moved(devices) for c in found)


def _size(result: str) -> int:
    total = 0
    for dtype, shape in _ARRAY.findall(result):
        count = 1
        for side in filter(None, shape.split(",")):
            count *= int(side)
        total += BYTES[dtype] * count
    return total
