"""Shell commands as data: printed in a dry run, carried out otherwise, always the same ones."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One command: its words, what it is for, and whether the rest goes on when it fails."""

    words: tuple[str, ...]
    purpose: str
    may_fail: bool = False
    stdin: str = ""

    def __str__(self) -> str:
        line = shlex.join(self.words)
        return f"{line} <<'END'\n{self.stdin.rstrip()}\nEND" if self.stdin else line


Carry = Callable[[Command], str]
"""Carries a command out and returns what it printed."""


def printed(command: Command) -> str:
    """A dry run: prints the purpose and the command, and does nothing."""
    print(f"# {command.purpose}\n{command}", flush=True)
    return ""


def carried_out(command: Command) -> str:
    """Runs the command.

    Raises:
      RuntimeError: it failed and may not; with its exit code and the end of what it said.
    """
    try:
        done = subprocess.run(command.words, input=command.stdin or None, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise RuntimeError(f"{command.words[0]!r} is not installed here ({command.purpose})") from error
    if done.returncode and not command.may_fail:
        said = (done.stderr or done.stdout).strip()[-800:]
        raise RuntimeError(f"exit code {done.returncode} from: {command}\n{said}")
    return done.stdout
