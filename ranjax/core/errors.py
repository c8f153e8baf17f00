"""Errors that a user can cause; each names what was found and what is expected."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A configuration key is unknown, or its value is refused.

    Args:
      key: dotted name of the key, e.g. "pretrain.steps".
      value: what was found.
      expected: words that say what is expected, e.g. "a number of at least 1".
      hint: what to do, as one more sentence, or `nearest`'s "did you mean 'x'?".
    """

    def __init__(self, key: str, value: object, expected: str, hint: str = ""):
        self.key, self.value, self.expected, self.hint = key, value, expected, hint
        text = f"{key} = {value!r}: expected {expected}"
        super().__init__(f"{text} ({hint})" if hint.startswith("did you mean") else f"{text}. {hint}".rstrip())

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, object, str, str]]:
        """Say how it is made again: another process sends it as it is."""
        return type(self), (self.key, self.value, self.expected, self.hint)


class DataError(ValueError):
    """Input data that a run cannot use: a missing column, an empty split, a label outside the set."""


class RunError(RuntimeError):
    """A run cannot go on, though its config is valid: no memory, figures that are not finite, a worker that died.

    What was saved remains; the message says what to change.
    """


class ConvergenceWarning(UserWarning):
    """A head was not fitted to its end: its best epoch is its last, or its gradient is still large."""


class StuckError(RunError):
    """A thread of this process waits for something that never comes: leave by `os._exit`, which joins no thread."""


class OtherProcessError(RuntimeError):
    """Process 0 failed while the others waited for it; `refused` says that its input was bad."""

    def __init__(self, refused: bool):
        self.refused = refused
        super().__init__(f"process 0 {'refused its input' if refused else 'failed'}; its output says why")


def nearest(name: str, names: Iterable[str]) -> str:
    """Return "did you mean 'x'?" for the closest of `names`, or an empty string if none is close."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else ""
