"""One command for everything: ``ranjax run``, ``ranjax prepare``, ``ranjax report`` ..."""

from __future__ import annotations

import importlib
import sys

COMMANDS = ("attack", "export", "prepare", "report", "status", "verify")


def main() -> None:
    """Hands the arguments on to the command that they name first."""
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        print("usage: ranjax " + "|".join(COMMANDS) + " ...", file=sys.stderr)
        raise SystemExit(2)
    name = sys.argv.pop(1)
    importlib.import_module(f"ranjax.cli.{name}_command").main()
