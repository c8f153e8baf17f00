"""Checks what a run left behind: files, checkpoints, noisy stores, and the losses that were written down.

    ranjax verify runs/ran
    ranjax verify runs/ran --sample=256 --repair

Of every finished stage: the SHA-256 of its files. Of checkpoints: that of theirs. Of noisy stores: hash and ids of
every shard; every noisy pair inside its ball and in [0, 1]; its clean image that of the source; its report the
original with only the recorded words replaced, none of them protected, no more than allowed; the pairs just those that
the highest ratio takes; and the loss of a sample, computed again by the encoder that was attacked.

Exit codes: 0 sound; 1 something is wrong (all of it is named); 2 the input was refused. With --repair, what is damaged
is set aside into ``damaged/``: the run's own command then makes just that again, to the same bits.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ranjax.cli import outcome
from ranjax.core.buckets import workdirs
from ranjax.core.errors import ConfigError
from ranjax.run import config as configs


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("workdir", metavar="WORKDIR", help="folder of a run, or its URL")
    p.add_argument(
        "--sample",
        type=int,
        default=64,
        metavar="N",
        help="noisy pairs a store whose loss is computed again (default 64)",
    )
    p.add_argument("--repair", action="store_true", help="set aside what is damaged, so that it is made again")


def run(arguments: argparse.Namespace) -> int:
    if arguments.sample < 0:
        raise ConfigError("--sample", arguments.sample, "0 or more")
    with workdirs.opened(arguments.workdir, "WORKDIR") as (folder, _):
        return _verify(folder.absolute(), arguments)


def _verify(workdir: Path, arguments: argparse.Namespace) -> int:
    config = configs.of_run(workdir)
    from ranjax.core.lock import locked
    from ranjax.run.stages import verification as verify
    from ranjax.training import compile_cache, devices

    if config.compile_cache != "off":
        compile_cache.enable(config.compile_cache or None)
    wrong = seen = 0
    with locked(workdir):
        for verdict in verify.verify(config, workdir, devices.make_mesh(config.devices or None), arguments.sample):
            seen += 1
            wrong += len(verdict.faults)
            print(f"{verdict.run}: {'; '.join(verdict.checked)}: {'WRONG' if verdict.faults else 'sound'}", flush=True)
            for fault in verdict.faults:
                print(f"  {fault}")
            if arguments.repair and verdict.damaged:
                verify.set_aside(workdir, verdict)
                print(f"  set aside: {', '.join(verdict.damaged)}; the run's own command makes them again")
    if not seen:
        raise ConfigError("workdir", str(workdir), "a run with at least one finished stage")
    print(f"{seen} stages, {wrong} faults" if wrong else f"{seen} stages, all sound")
    return outcome.WRONG if wrong else outcome.DONE
