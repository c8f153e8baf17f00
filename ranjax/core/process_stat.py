"""What the system says of a process by its number, on Linux."""

from __future__ import annotations

from pathlib import Path

ENDED = ("Z", "X")
"""States of a process that does not work any more."""


def process_stat(process: int) -> tuple[str, str]:
    """Return the state of a process, and when it began, in ticks since the machine did.

    Raises:
      OSError: there is no such process, or no /proc.
    """
    # A name of its own in brackets comes first, which may hold blanks and any letters.
    fields = Path(f"/proc/{process}/stat").read_text("ascii", errors="replace").rpartition(")")[2].split()
    return fields[0], fields[19]
