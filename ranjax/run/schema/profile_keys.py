"""The key `profile`: which steps or stage runs a profiler traces."""

from __future__ import annotations

import re
from typing import NamedTuple

from ranjax.core.errors import ConfigError

STAGES = ("prepare", "pretrain", "craft", "controls", "adapt", "evaluate", "report")


class Wanted(NamedTuple):
    """What is to be traced: a stage or one of its runs; steps `first` to `last` of it, counted from 1, or None."""

    run: str
    steps: tuple[int, int] | None


def parse(text: str) -> Wanted | None:
    """Reads the key `profile`; None where it is empty.

    Raises:
      ConfigError: no such stage, or steps that cannot be.
    """
    if not text:
        return None
    found = re.fullmatch(r"([a-z]+(?:/[\w.]+)?)(?::(\d+)-(\d+))?", text)
    if found is None or found[1].split("/")[0] not in STAGES:
        raise ConfigError(
            "profile", text, f"STAGE, STAGE/CONDITION or pretrain/CONDITION:FIRST-LAST; stages: {', '.join(STAGES)}"
        )
    if found[2] is None:
        return Wanted(found[1], None)
    first, last = int(found[2]), int(found[3])
    if not found[1].startswith("pretrain") or not 1 <= first <= last:
        raise ConfigError("profile", text, "steps of pretrain, counted from 1, the first not after the last")
    return Wanted(found[1], (first, last))


def matches(wanted: Wanted | None, run_id: str) -> bool:
    """Whether a stage run is among those to be traced."""
    return wanted is not None and wanted.run in (run_id, run_id.split("/")[0])


def check(text: str) -> str:
    """Words that say what is allowed, empty where `text` is."""
    try:
        parse(text)
    except ConfigError as error:
        return error.expected
    return ""
