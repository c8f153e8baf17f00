"""Carry out a config: its stages run, and a report comes out.

    ranjax run --config configs/ran.py
    ranjax run ran        (a config that comes with ranjax, from any folder)
    ranjax run --config configs/ran.py:smoke --workdir=runs/smoke --config.pretrain.steps=50
    ranjax craft --config configs/ran.py        (the same, but it ends once the noisy pairs are crafted)
    ranjax run ran --on ray --with gpus=1       (on a machine of a Ray cluster that sees the workdir)
    ranjax craft ran --on ray --with gpus=1     (works here; shards of noisy pairs on all machines of the cluster)
    ranjax describe --config configs/ran.py     (runs nothing: prints every key)

A run that is cut off, by Ctrl-C, a signal or a crash, goes on where it was when the same command is given again.

Exit codes: 0 done; 2 the input was refused (one line says why); 3 the run cannot go on (no space, no memory, figures
that are not finite: one line says what to change); 75 stopped on request, everything saved; 130 stopped at once by a
second Ctrl-C or SIGTERM (the last checkpoint and all finished shards remain).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ranjax.cli import engine_options, outcome
from ranjax.core import extras, files
from ranjax.core.buckets import object_store, workdirs
from ranjax.core.buckets.mirror import STATE, Mirror
from ranjax.core.engines.task_pool import Pool
from ranjax.core.errors import ConfigError
from ranjax.run import config as configs
from ranjax.training import trackers

OVERRIDES = ("--config.",)
NEEDED = (
    "safetensors", "tokenizers", "tensorflow_datasets", "array_record", "grain", "PIL", "tqdm", "tensorboardX",
    "matplotlib", "jinja2", "pandas",
)  # fmt: skip
"""What every run needs besides the core; checked before it begins, not hours later."""
STAGES = ("prepare", "pretrain", "craft", "adapt", "evaluate", "report")


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a config."""
    names = ", ".join(configs.shipped())
    parser.add_argument(
        "name", nargs="?", metavar="NAME[:ARGUMENT]", help=f"in place of --config, one that comes with ranjax: {names}"
    )
    parser.add_argument("--config", metavar="FILE[:ARGUMENT]", help="a config file, e.g. configs/ran.py:smoke")
    parser.set_defaults(refuse=parser.error)
    parser.add_argument("--config.KEY", dest="_", metavar="VALUE", help="set one key, e.g. --config.pretrain.steps=500")


def add_arguments(parser: argparse.ArgumentParser, until: str = "") -> None:
    add_config(parser)
    parser.add_argument(
        "--workdir",
        default="",
        metavar="FOLDER",
        help="folder or URL of the run (default: runs/<config name>)",
    )
    parser.add_argument(
        "--redo", action="store_true", help="set aside stages made with another config, and run them again"
    )
    parser.add_argument(
        "--track",
        default="tensorboard",
        metavar="NAMES",
        help="where figures, config and page go: tensorboard, mlflow, wandb (several by commas), none",
    )
    engine_options.add_engine(parser)
    parser.set_defaults(shards=until == "craft")
    if until:
        parser.set_defaults(until=until)
    else:
        parser.add_argument(
            "--until", default="", choices=STAGES, metavar="STAGE", help="end after this stage: " + ", ".join(STAGES)
        )


def named(arguments: argparse.Namespace) -> str:
    """Return the config that a command line names, with its argument.

    Raises:
      UsageError: none is named, or two are.
    """
    if arguments.config and arguments.name:
        arguments.refuse(f"unrecognized arguments: {arguments.name}")
    if not (arguments.config or arguments.name):
        arguments.refuse("the following arguments are required: --config")
    return str(arguments.config or arguments.name)


def config_of(arguments: argparse.Namespace) -> ConfigDict:
    """Return the resolved config of a command line.

    Raises:
      ConfigError: an unknown key, or a value that is refused.
    """
    overrides = [(option.removeprefix("--config."), value) for option, value in arguments.overrides]
    return configs.resolve(named(arguments), overrides)


def run(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    extras.require(*NEEDED)
    track = trackers.named(arguments.track)
    name, _, argument = named(arguments).partition(":")
    default = Path("runs") / "_".join(filter(None, (Path(name).stem, argument)))
    workdir = arguments.workdir or str(default)
    object_store.local_path(workdir, "--workdir")  # refused before anything heavy is imported
    here = engine_options.is_local(arguments, "a run takes this machine as --config.devices says")
    if not here and not arguments.shards:
        return _elsewhere(arguments, workdir)
    from ranjax.training import signals

    # Before anything heavy is imported: a machine may be taken away at any moment. Ray takes signals when it is joined.
    with (
        nullcontext() if here else _shards(arguments, workdir) as pool,
        signals.StopFlag(at_once=outcome.INTERRUPTED) as stop,
    ):
        return _run(config, workdir, arguments.redo, arguments.until, track, stop, pool)


def _shards(arguments: argparse.Namespace, workdir: str) -> AbstractContextManager[Pool]:
    """Return the pool of the engine whose machines write shards.

    Raises:
      ConfigError: its machines cannot see the workdir, which lies in an object store.
    """
    from ranjax.core.engines.engine_table import opened

    folder = object_store.local_path(workdir, "--workdir")
    if folder is None:
        hint = "'ranjax run --until craft --on ...' carries the run out on one of its machines."
        raise ConfigError("--workdir", workdir, f"a folder that all machines of {arguments.on} see", hint)
    return opened(arguments.on, arguments.settings, Path(folder).absolute() / ".jobs")


def _elsewhere(arguments: argparse.Namespace, workdir: str) -> int:
    """Carry out the command as one task of an engine, and return its exit code."""
    words = ["run", "--config", named(arguments), "--workdir", workdir, "--track", arguments.track]
    words += [f"--until={arguments.until}"] if arguments.until else []
    words += ["--redo"] if arguments.redo else []
    words += [f"{option}={value}" for option, value in arguments.overrides]
    folder, _, name = workdir.rstrip("/").rpartition("/")
    tally = engine_options.carry_out(arguments, [(name, workdir, words)], folder or ".")
    if name in tally.last:
        print(tally.last[name].said, flush=True)
    if name in tally.failed:
        return tally.last[name].code or outcome.WRONG
    return outcome.DONE if name in tally.done else outcome.STOPPED


def _run(
    config: ConfigDict,
    workdir: str,
    redo: bool,
    until: str,
    track: Sequence[str],
    stop: Callable[[], bool],
    pool: Pool | None,
) -> int:
    from ranjax.run import machine, pipeline
    from ranjax.run.context import Stopped
    from ranjax.training import devices, hosts

    def say(line: str) -> None:
        if hosts.first():
            print(line, flush=True)

    mesh = machine.ready(config)
    if pool is not None and hosts.count() > 1:
        raise ConfigError("--on", "an engine", f"one process; {hosts.count()} share the shards among themselves")

    # The stages, and what came out.
    with _opened(workdir) as (folder, mirror):
        lease = mirror.lease if mirror else None
        say(f"workdir {workdir if lease else folder}; {devices.describe(mesh)}")
        if lease:
            say(f"works in {folder}")
        everyone = hosts.stopping(lambda: stop() or (lease is not None and lease.lost()))
        options: dict[str, Any] = {"redo": redo, "until": until, "track": track, "mirror": mirror, "pool": pool}
        place = ""
        try:
            page = pipeline.execute(config, folder, mesh=mesh, stop=everyone, say=say, **options)
        except Stopped as stopped:
            place = str(stopped)
    # Said once what was done is in the store.
    if place:
        say(f"stopped in {place}. Everything is saved; the same command goes on from here.")
        return outcome.STOPPED
    if hosts.first() and until in ("", "report"):
        _show_results(folder, page)
    return outcome.DONE


@contextmanager
def _opened(workdir: str) -> Iterator[tuple[Path, Mirror | None]]:
    """Open the workdir in process 0, and find its local folder in the others.

    Raises:
      ConfigError: it is in an object store, and some process does not see the local folder of process 0.
    """
    from ranjax.training import hosts

    with ExitStack() as held:
        found = hosts.first_does(lambda: held.enter_context(workdirs.opened(workdir, "--workdir")))
        folder, mirror = found or (None, None)
        folder = Path(hosts.agree(str(folder))).absolute()
        if object_store.local_path(workdir, "--workdir") is None:
            mark = files.read_object(folder / STATE).get("session")
            if hosts.anyone(mark != hosts.agree(mark)):
                expected = f"a folder that all processes see for {workdir}; {folder} is another one in some"
                raise ConfigError(workdirs.VARIABLE, os.environ.get(workdirs.VARIABLE, ""), expected)
        yield folder, mirror


def _show_results(workdir: Path, page: Path) -> None:
    from ranjax.report import terminal_claims, terminal_table

    results = files.read_json(workdir / "results.json")
    last = terminal_claims(results)
    blocks = [terminal_table(results["rows"]), *([last] if last else [])]
    print("\n" + "\n\n".join(blocks) + f"\nreport: {page}", flush=True)
