"""Carry out the runs of a sweep file: on this machine, on a Ray cluster or in Slurm's queue.

    ranjax sweep experiments/sweeps/smoke.py --show
    ranjax sweep experiments/sweeps/smoke.py --with at_once=2
    ranjax sweep experiments/sweeps/recipes.py --on ray --with gpus=1
    ranjax sweep experiments/sweeps/mimic.py --on slurm --with partition=gpu --with gpus=4 --workdir=/shared/mimic
    ranjax sweep experiments/sweeps/smoke.py --collect table

Each run has a workdir of its own below --workdir, which all machines must see: a shared folder, or s3://, gs://, az://.
What is done is skipped; what was cut off, anywhere, goes on when the same command is given again. Ctrl-C asks the runs
to save and stop; on Ray they end at once, and go on from their last checkpoint. --show says which
runs there are and how they stand. --collect writes a table of those that are done.

Exit codes: 0 done; 1 some runs failed; 2 the input was refused; 75 stopped on request.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from ranjax.cli import engine_options, outcome
from ranjax.core.buckets import object_store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sweep", metavar="SWEEP", help="a sweep file: CONFIG, GRID, RUNS")
    engine_options.add_engine(parser)
    parser.add_argument(
        "--workdir", default="", metavar="FOLDER", help="folder or URL of all workdirs (default: runs/<sweep>)"
    )
    parser.add_argument("--attempts", type=int, default=3, metavar="N", help="tries of a run that crashes")
    parser.add_argument("--show", action="store_true", help="print the runs and how they stand, and start none")
    parser.add_argument(
        "--collect", type=Path, metavar="FOLDER", help="write a table of the runs that are done, and start none"
    )


def run(arguments: argparse.Namespace) -> int:
    from ranjax.run import sweep_collect, sweep_file, sweep_runs

    runs = sweep_file.expand(arguments.sweep)
    folder = arguments.workdir or f"runs/{Path(arguments.sweep).stem}"
    object_store.local_path(folder, "--workdir")
    if arguments.show:
        for one in runs:
            print(f"{sweep_runs.state_of(one.workdir(folder))}\tranjax {shlex.join(one.words(folder))}")
        return outcome.DONE
    if arguments.collect:
        found, missing = sweep_collect.collect(runs, folder, arguments.collect)
        left = f"; not done: {', '.join(missing)}" if missing else ""
        print(f"{len(found)} run(s) in {arguments.collect / 'table.csv'}{left}")
        return outcome.DONE
    states = {one.name: sweep_runs.state_of(one.workdir(folder)) for one in runs}
    tasks = [(one.name, one.workdir(folder), one.words(folder)) for one in runs if states[one.name] != "done"]
    tally = engine_options.carry_out(arguments, tasks, folder, arguments.attempts)
    done = len(runs) - len(tasks) + len(tally.done)
    print(f"{done} of {len(runs)} done" + "".join(f"; {name}: {why}" for name, why in tally.failed.items()))
    return outcome.STOPPED if tally.stopped else outcome.WRONG if tally.failed else outcome.DONE
