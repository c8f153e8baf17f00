"""One command for everything: ``ranjax run``, ``ranjax prepare``, ``ranjax report`` ...

Each entry of `COMMANDS` names a module of this package. Its docstring is the help text, `add_arguments(parser)` adds
its options, and `run(arguments)` carries it out and returns an exit code (`ranjax.cli.outcome`). Words that begin with
one of the module's `OVERRIDES`, as ``--config.``, become ``arguments.overrides``.
"""

from __future__ import annotations

import argparse
import atexit
import importlib
import io
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import NamedTuple, NoReturn

import ranjax
from ranjax.cli import outcome
from ranjax.core.errors import ConfigError, nearest


class Command(NamedTuple):
    """One command: a line of help, its module below `ranjax.cli`, and what `add_arguments` receives besides."""

    help: str
    module: str
    preset: Mapping[str, str] = {}


COMMANDS: dict[str, Command] = {
    "run": Command("carry out a config: prepare, pretrain, craft, adapt, evaluate, report", "run_command"),
    "craft": Command("run until the noisy pairs are crafted", "run_command", {"until": "craft"}),
    "adapt": Command("run until the methods are fitted", "run_command", {"until": "adapt"}),
    "evaluate": Command("run until everything is evaluated", "run_command", {"until": "evaluate"}),
    "sweep": Command("carry out many runs, here, on a Ray cluster or by Slurm", "sweep_command"),
    "describe": Command("print every key of a config: value, default, unit, meaning, choices", "describe_command"),
    "list": Command("list methods, attacks, recipes, towers, data sets or checkpoint layouts", "list_command"),
    "prepare": Command("prepare a data set, or your own files, for every run", "prepare_command"),
    "captions": Command("ask a language model that you name to rewrite captions", "captions_command"),
    "attack": Command("attack your images and reports with your checkpoint", "attack_command"),
    "audit": Command("say how fragile your model is, what repairs it, and repair it", "audit_command"),
    "compare": Command("set audits side by side, models x repairs x attacks", "compare_command"),
    "export": Command("take an encoder out of a run, as transformers loads it", "export_command"),
    "verify": Command("check what a run left behind, and set aside what is damaged", "verify_command"),
    "status": Command("say where a run stands", "status_command"),
    "report": Command("write the page of a run again, or of several side by side", "report_command"),
    "completion": Command("print the completion script of a shell", "completion_command"),
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise outcome.UsageError(f"{message} (see '{self.prog} --help')")

    def words(self) -> list[str]:
        """Return all words that it knows: options, and the choices of a word without one."""
        found: list[str] = []
        for action in self._actions:
            found += action.option_strings or map(str, action.choices or ())
        return found


def parser_of(name: str) -> tuple[Parser, ModuleType]:
    """Return the parser and the module of a command."""
    command = COMMANDS[name]
    module = importlib.import_module(f"ranjax.cli.{command.module}")
    summary, _, details = (module.__doc__ or "").partition("\n\n")
    parser = Parser(
        prog=f"ranjax {name}",
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser, **command.preset)
    return parser, module


def call(argv: Sequence[str]) -> int:
    """Carry out the command that the first word names, and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal of ASCII alone gets an escape in place of a letter that it cannot show, and no traceback.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    return outcome.guard(lambda: _call(list(argv)))


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Carry out a command, by default that of the command line, and end the process with its exit code.

    Once the outcome is decided, no signal changes that code.
    """
    if argv is None:
        _name_files_in_utf8()
    from ranjax.training import signals

    # What is registered first runs last: the interpreter's own end would bring the handlers back that kill.
    atexit.register(signals.answer_with, signal.SIG_IGN)
    code = call(sys.argv[1:] if argv is None else argv)
    signals.answer_with(lambda *_: os._exit(code))
    if code == outcome.INTERRUPTED:
        # An interrupted compilation can leave XLA in a state that crashes the interpreter's own way out.
        outcome.leave(code)
    sys.exit(code)


def _name_files_in_utf8() -> None:
    """Start this process again in Python's UTF-8 mode, where a C locale has files named in ASCII.

    Python does so by itself unless PYTHONUTF8=0 forbids it; then a table's names of films could not be opened. What is
    printed keeps its encoding.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    own = {"PYTHONUTF8": "1", "PYTHONIOENCODING": os.environ.get("PYTHONIOENCODING") or sys.stdout.encoding}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **own})


def _call(words: list[str]) -> int:
    if not words:
        print(_help(), file=sys.stderr)
        return outcome.REFUSED
    name = words.pop(0)
    if name in ("-h", "--help", "--version"):
        print(f"ranjax {ranjax.__version__}" if name == "--version" else _help())
        return outcome.DONE
    if name not in COMMANDS:
        raise ConfigError("COMMAND", name, f"one of {', '.join(COMMANDS)}", nearest(name, COMMANDS))
    parser, module = parser_of(name)
    words, overrides = split_overrides(words, getattr(module, "OVERRIDES", ()))
    for word in words:
        option, _, value = word.partition("=")
        # Before argparse, which would first ask for what is missing beside a misspelt option.
        if option.startswith("--") and option not in parser.words():
            raise ConfigError(option, value, f"an option of 'ranjax {name}'", nearest(option, parser.words()))
    arguments = parser.parse_args(words)
    arguments.overrides = overrides
    code: int = module.run(arguments)
    return code


def split_overrides(words: Sequence[str], prefixes: tuple[str, ...]) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the words for argparse, and the overrides: argparse takes an option with a space in it for a word.

    Raises:
      ConfigError: an override without a value.
    """
    given: list[str] = []
    overrides: list[tuple[str, str]] = []
    left = iter(words)
    for word in left:
        if not word.startswith(prefixes):
            given.append(word)
            continue
        option, equals, value = word.partition("=")
        following = value if equals else next(left, None)
        if following is None:
            raise ConfigError(option, "", f"a value after it, as in {option}=VALUE")
        overrides.append((option, following))
    return given, overrides


def _help() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{command.help}" for name, command in COMMANDS.items()]
    summary = (ranjax.__doc__ or "").partition("\n")[0]
    last = "'ranjax COMMAND --help' says more about one; 'ranjax --version' says which ranjax this is."
    return "\n".join(["usage: ranjax COMMAND ...", "", summary, "", *lines, "", last])
