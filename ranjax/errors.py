"""The errors a user can cause, each naming what was given and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A configuration key is unknown or holds a value that is not allowed.

    Args:
      key: dotted name of the key, e.g. ``"pretrain.steps"``.
      value: what was received.
      allowed: words that say what is allowed.
      hint: one more sentence, e.g. the nearest key's name.
    """

    def __init__(self, key: str, value: object, allowed: str, hint: str = ""):
        self.key, self.value, self.allowed = key, value, allowed
        super().__init__(f"{key} = {value!r} is not allowed: {allowed}." + (f" {hint}" if hint else ""))


class DataError(ValueError):
    """Input data that a run cannot use: a missing column, an empty split, a label outside the set."""


class RunError(RuntimeError):
    """A run cannot go on as it is, though its config is well-formed: no memory, figures that are not finite, a worker
    that died. What was saved remains; the message says what to change."""


class StuckError(RunError):
    """A thread of this process waits for what never comes, and will not end: leave by `os._exit`, which joins none."""


class OtherProcessError(RuntimeError):
    """Process 0 could not finish what the others wait for. `refused`: its input was bad."""

    def __init__(self, refused: bool):
        self.refused = refused
        super().__init__(f"process 0 {'refused its input' if refused else 'failed'}; its output says why")


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns ``"Did you mean 'x'?"`` for the closest of `names`, or an empty string if none is close."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else ""
