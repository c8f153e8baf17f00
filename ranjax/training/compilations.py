"""What XLA compiles: the program under way, and a count with seconds of those that are done.

A stage that is silent for a minute is mostly compiling. JAX says so itself (`jax.monitoring`): an event when a program
is lowered, that is when its compilation begins, and one when it is compiled or found in the persistent cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from jax import monitoring

_TRACED = "/jax/core/compile/jaxpr_trace_duration"
_LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"
_COMPILED = "/jax/core/compile/backend_compile_duration"


@runtime_checkable
class Listener(Protocol):
    """Who is told at once: XLA's CPU compiler keeps Python's lock, so that no other thread hears of it meanwhile."""

    def began(self, name: str, preparing: float) -> None:
        """A program is to be compiled, which took `preparing` seconds to lower."""

    def ended(self, name: str, seconds: float) -> None:
        """It was compiled, or read from the persistent cache."""


class Compilations:
    """The programs of a stretch of work.

    Attributes:
      programs: how often each name was compiled, or read from the persistent cache.
      seconds: of compiling, or reading.
      preparing: seconds of tracing and lowering.
    """

    def __init__(self, listener: Listener | None = None) -> None:
        self.programs: Counter[str] = Counter()
        self.seconds = self.preparing = 0.0
        self._listener = listener

    @property
    def count(self) -> int:
        """Return the number of programs."""
        return self.programs.total()

    def record(self) -> dict[str, object]:
        """Return what was counted, as JSON."""
        seconds = {"seconds": round(self.seconds, 2), "tracing_seconds": round(self.preparing, 2)}
        return {"count": self.count, **seconds, "programs": dict(sorted(self.programs.items()))}

    def hear(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        """Take an event of `jax.monitoring`."""
        if event in (_TRACED, _LOWERED):
            self.preparing += duration_secs
        if event == _LOWERED:
            if self._listener:
                self._listener.began(_name(kwargs), duration_secs)
        elif event == _COMPILED:
            self.programs[_name(kwargs)] += 1
            self.seconds += duration_secs
            if self._listener:
                self._listener.ended(_name(kwargs), duration_secs)


@contextmanager
def counting(listener: Listener | None = None) -> Iterator[Compilations]:
    """Count what this process compiles inside the block, and tell `listener` of each program."""
    found = Compilations(listener)
    monitoring.register_event_duration_secs_listener(found.hear)
    try:
        yield found
    finally:
        monitoring.unregister_event_duration_listener(found.hear)


def _name(facts: dict[str, str | int]) -> str:
    return str(facts.get("fun_name", "?")).removeprefix("jit(").removesuffix(")")
