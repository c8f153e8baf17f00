"""The command line: a config in, its stages run, a report out.

    python -m ranjax.main --config configs/ran.py
    python -m ranjax.main --config configs/ran.py:smoke --workdir=runs/smoke --config.pretrain.steps=50
    python -m ranjax.main describe --config configs/ran.py

A run that is cut off, by Ctrl-C, a signal or a crash, goes on where it was when the same command is given again.

Exit codes: 0 done; 2 the input was refused (one line says why); 3 the run cannot go on (no space, no memory, figures
that are not finite: one line says what to change); 75 stopped on request, everything saved; 130 stopped at once by a
second Ctrl-C or SIGTERM (the last checkpoint and all finished shards remain).
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ranjax.core.errors import ConfigError, DataError, OtherProcessError, RunError, StuckError, nearest
from ranjax.run import config as configs

EXIT_REFUSED, EXIT_FAILED, EXIT_STOPPED, EXIT_INTERRUPTED = 2, 3, 75, 130
STAGES = ("prepare", "pretrain", "craft", "adapt", "evaluate", "report")


def parser() -> argparse.ArgumentParser:
    summary, _, details = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(
        prog="python -m ranjax.main",
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument(
        "action",
        nargs="?",
        default="run",
        choices=("run", "describe"),
        help="run (default), or print every key of the config",
    )
    p.add_argument(
        "--config", required=True, metavar="FILE[:ARGUMENT]", help="a config file, e.g. configs/ran.py:smoke"
    )
    p.add_argument("--config.KEY", dest="_", metavar="VALUE", help="set one key, e.g. --config.pretrain.steps=500")
    p.add_argument("--workdir", default="", metavar="FOLDER", help="folder of the run (default: runs/<config name>)")
    p.add_argument("--redo", action="store_true", help="set aside stages made with another config, and run them again")
    p.add_argument(
        "--until", default="", choices=("", *STAGES), metavar="STAGE", help="end after this stage: " + ", ".join(STAGES)
    )
    return p


def resolve(arguments: argparse.Namespace, rest: Sequence[str]):
    """Loads the config, applies the ``--config.key=value`` overrides in order, and validates the result.

    Raises:
      ConfigError: for anything on the command line that is unknown or not allowed.
    """
    config = configs.load(arguments.config)
    words, settings = list(rest), list[tuple[str, str]]()
    while words:
        word = words.pop(0)
        flag, equals, value = word.partition("=")
        if not flag.startswith("--config."):
            raise ConfigError(
                flag, value, "a known option", nearest(flag, ["--config", "--workdir", "--redo", "--until"])
            )
        if not equals:
            if not words:
                raise ConfigError(flag.removeprefix("--config."), "", "a value must follow, as in --config.key=value")
            value = words.pop(0)
        settings.append((flag.removeprefix("--config."), value))
    configs.override_all(config, settings)
    configs.validate(config)
    return config


def default_workdir(config_argument: str) -> Path:
    name, _, argument = config_argument.partition(":")
    return Path("runs") / "_".join(filter(None, (Path(name).stem, argument)))


def run(config, workdir: Path, redo: bool, until: str) -> int:
    from ranjax.training import signals

    # Before anything heavy is imported: a machine may be taken away at any moment.
    with signals.StopFlag(at_once=EXIT_INTERRUPTED) as stop:
        return _run(config, workdir, redo, until, stop)


def _run(config, workdir: Path, redo: bool, until: str, stop: Callable[[], bool]) -> int:
    from ranjax.core import files
    from ranjax.report.report_tables import terminal_table
    from ranjax.run import pipeline
    from ranjax.run.context import Stopped
    from ranjax.training import allocator, compile_cache, cpu_devices, devices, hosts

    def say(line: str) -> None:
        if hosts.first():
            print(line, flush=True)

    allocator.keep_freed_memory()
    if config.cpu_devices != 1:
        cpu_devices.split(config.cpu_devices)
    hosts.start(config.distributed)
    if config.quick_compile:
        import jax

        jax.config.update("jax_disable_most_optimizations", True)
    if config.compile_cache != "off":
        compile_cache.enable(config.compile_cache or None)
    mesh = devices.make_mesh(config.devices or None, config.model_axis)
    say(f"workdir {workdir}; {devices.describe(mesh)}")
    everyone = hosts.stopping(stop)
    try:
        page = pipeline.execute(config, workdir, mesh=mesh, stop=everyone, say=say, redo=redo, until=until)
    except Stopped as stopped:
        say(f"stopped in {stopped}. Everything is saved; the same command goes on from here.")
        return EXIT_STOPPED
    if hosts.first() and (not until or until == "report"):
        say("")
        say(terminal_table(files.read_json(workdir / "results.json")["rows"]))
        say(f"report: {page}")
    return 0


def _apart(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of argparse, and the overrides: argparse takes an option with a space in it for an argument."""
    given, overrides = list(argv), list[str]()
    for place in reversed(range(len(given))):
        if given[place].startswith("--config."):
            # A value that stands apart from its key goes with it.
            count = 1 if "=" in given[place] else 2
            overrides[:0] = given[place : place + count]
            del given[place : place + count]
    return given, overrides


def _leave(code: int) -> None:
    """Ends the process with all that was said, and waits for no thread or library."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _process() -> None:
    """The whole life of the process: from when its outcome is decided, no signal changes its exit code."""
    import atexit

    from ranjax.training import signals

    # What is registered first runs last: the interpreter's own end would bring the handlers back that kill.
    atexit.register(signals.answer_with, signal.SIG_IGN)
    code = main()
    signals.answer_with(lambda *_: os._exit(code))
    if code == EXIT_INTERRUPTED:
        # An interrupted compilation can leave XLA in a state that crashes the interpreter's own way out.
        _leave(code)
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    given, overrides = _apart(sys.argv[1:] if argv is None else argv)
    arguments, rest = parser().parse_known_args(given)
    rest += overrides
    try:
        config = resolve(arguments, rest)
        if arguments.action == "describe":
            print(configs.describe(config))
            return 0
        workdir = Path(arguments.workdir or default_workdir(arguments.config)).absolute()
        return run(config, workdir, arguments.redo, arguments.until)
    except (ConfigError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        if isinstance(error, StuckError):
            _leave(EXIT_FAILED)
        return EXIT_FAILED
    except OtherProcessError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_REFUSED if error.refused else EXIT_FAILED
    except OSError as error:
        import errno

        if error.errno not in (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG):
            raise
        named = f"cannot write {error.filename}: {error.strerror}" if error.filename else error.strerror
        print(f"error: {named}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        from ranjax.training.signals import AT_ONCE

        print(AT_ONCE, file=sys.stderr)
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    _process()
