"""`ranjax run` and `ranjax describe` under their former name: ``python -m ranjax.main --config configs/ran.py``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ranjax.cli import console


def main(argv: Sequence[str]) -> int:
    """Return the exit code of ``run``, or of ``describe`` where that is the first word."""
    return console.call(_with_command(argv))


def _with_command(argv: Sequence[str]) -> list[str]:
    return list(argv) if argv and argv[0] in ("run", "describe") else ["run", *argv]


if __name__ == "__main__":
    console.main(_with_command(sys.argv[1:]))
