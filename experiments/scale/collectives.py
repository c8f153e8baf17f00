"""The collectives of a compiled program, read from its text: kind, number, bytes; in loops as often as they run."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
_LINE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\(")
_HEAD = re.compile(r"^(?:ENTRY )?%?([\w.-]+) (?:\([^=]*\) -> .*)?\{$")
_CALLED = re.compile(r"(?:body|condition|to_apply|calls)=%?([\w.-]+)")
_TRIPS = re.compile(r"known_trip_count\W+n\W+(\d+)")
_COMMENT = re.compile(r"/\*.*?\*/")
_CONDITION = re.compile(r"condition=%?([\w.-]+)")
_BOUND = re.compile(r"= s32\[\]\S* constant\((\d+)\)")
_PARTS = re.compile(r"channel_id=(\d+).*chain_id=\"(\d+)\"")
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
    """The collectives in the text of a compiled module (``compiled.as_text()``), in its order.

    One in the body of a loop counts once for each turn, where the compiler knows their number. A TPU carries one out in
    several fusions, each of which names it; it counts once.
    """
    parts = _computations(_COMMENT.sub("", text))
    times = _turns(parts)
    found: list[Collective] = []
    seen: set[tuple[str, ...]] = set()
    for name, lines in parts.items():
        for line in lines:
            for result, kind in _LINE.findall(line):
                if (split := _PARTS.search(line)) and split.groups() in seen:
                    continue
                if split:
                    seen.add(split.groups())
                found += [Collective(kind, _size(result))] * times.get(name, 1)
    return found


def _computations(text: str) -> dict[str, list[str]]:
    """{name: lines} of the module's computations; lines outside of any go by the empty name."""
    parts: dict[str, list[str]] = {"": []}
    name = ""
    for line in text.splitlines():
        if head := _HEAD.match(line):
            name = head[1]
            parts[name] = []
        elif line.startswith("}"):
            name = ""
        else:
            parts[name].append(line)
    return parts


def _turns(parts: dict[str, list[str]]) -> dict[str, int]:
    """How often each computation runs for one run of the module."""
    callers: dict[str, tuple[str, int]] = {}
    for name, lines in parts.items():
        for line in lines:
            turns = _turns_of(line, parts) if "body=" in line else 1
            for called in _CALLED.findall(line):
                callers[called] = (name, turns)

    def times(name: str) -> int:
        if name not in callers:
            return 1
        caller, turns = callers[name]
        return turns * times(caller)

    return {name: times(name) for name in parts}


def _turns_of(line: str, parts: dict[str, list[str]]) -> int:
    """Of the loop in a line: as the compiler states it, or by the one number that its condition compares with."""
    if stated := _TRIPS.search(line):
        return int(stated[1])
    condition = _CONDITION.search(line)
    bounds = _BOUND.findall("\n".join(parts.get(condition[1], []))) if condition else []
    return int(bounds[0]) if len(bounds) == 1 else 1


def moved(found: Iterable[Collective], devices: int) -> float:
    """Bytes that each device sends in one step."""
    return sum(c.moved(devices) for c in found)


def totals(found: Iterable[Collective]) -> dict[str, tuple[int, int]]:
    """{kind: (number, bytes of their results)}."""
    sizes: dict[str, list[int]] = {}
    for c in found:
        sizes.setdefault(c.kind, []).append(c.bytes)
    return {kind: (len(each), sum(each)) for kind, each in sorted(sizes.items())}


def _size(result: str) -> int:
    total = 0
    for dtype, shape in _ARRAY.findall(result):
        count = 1
        for side in filter(None, shape.split(",")):
            count *= int(side)
        total += BYTES[dtype] * count
    return total
