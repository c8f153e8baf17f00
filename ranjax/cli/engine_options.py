"""The options ``--on`` and ``--with``, and runs carried out on the engine that they name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ranjax.cli import outcome
from ranjax.core.errors import ConfigError

if TYPE_CHECKING:
    from ranjax.run.sweep_runs import Tally


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add the options that name an engine and set it."""
    text = "where: local (the default), ray or slurm, see 'ranjax list engines'"
    parser.add_argument("--on", default="local", metavar="ENGINE", help=text)
    text = "a setting of the engine, e.g. gpus=1. May come again."
    parser.add_argument("--with", dest="settings", action="append", default=[], metavar="NAME=VALUE", help=text)


def is_local(arguments: argparse.Namespace, instead: str) -> bool:
    """Return whether the command works in this process, on no engine.

    Raises:
      ConfigError: no such engine, or settings for this machine, of which `instead` says what there is in their place.
    """
    from ranjax.core.engines.engine_table import ENGINES, OPTION

    ENGINES.resolve(arguments.on)
    if arguments.on == "local" and arguments.settings:
        raise ConfigError(OPTION, arguments.settings[0], f"no setting for this machine ({instead})")
    return str(arguments.on) == "local"


def carry_out(
    arguments: argparse.Namespace, runs: Sequence[tuple[str, str, Sequence[str]]], folder: str, attempts: int = 3
) -> Tally:
    """Carry out runs, (name, workdir, words) each, on the engine of the command line until they ended or a stop came.

    Outputs and the engine's own files lie in `folder`; where that is in an object store, in a folder of its name below
    ``runs``.
    """
    from ranjax.core.buckets import object_store
    from ranjax.core.engines.engine_table import opened
    from ranjax.run.sweep_runs import run_all
    from ranjax.training.signals import StopFlag

    local = object_store.local_path(folder, "--workdir")
    logs = Path("runs", Path(folder).name) if local is None else Path(local)
    # The signals last: Ray takes them when it is joined.
    with opened(arguments.on, arguments.settings, logs / ".jobs") as pool, StopFlag(outcome.INTERRUPTED) as stop:
        return run_all(runs, pool, logs, attempts=attempts, stop=stop)
