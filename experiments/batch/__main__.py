"""Carries out the runs of a sweep file on this machine, on TPU VMs, on a Slurm cluster or on plain hosts over ssh.

    python -m experiments.batch show experiments/sweeps/recipes.py
    python -m experiments.batch run experiments/sweeps/recipes.py --at-a-time 2
    python -m experiments.batch run experiments/sweeps/recipes.py --on tpu --dry-run --project P --zone Z ...
    python -m experiments.batch watch experiments/sweeps/recipes.py --on tpu ...
    python -m experiments.batch collect experiments/sweeps/recipes.py --out table

show prints the runs. run starts them (on this machine: until all are done). watch asks how they stand, again and again,
makes preempted slices anew and starts what stands still, until all are done. down deletes the slices, cancels the jobs
or stops the processes; what was done is saved. collect reads the workdirs in --shared, as this machine sees them.
--dry-run prints every command and runs none.

Exit codes: 0 done; 1 some runs failed; 2 the input was refused; 75 stopped on request.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.batch import collect, local
from experiments.batch.commands import Carry, carried_out, printed
from experiments.batch.slurm import Slurm
from experiments.batch.ssh import Hosts
from experiments.batch.states import state_of
from experiments.batch.sweep import Run, expand
from experiments.batch.tpu import TPU
from ranjax.core.errors import ConfigError, DataError

NEEDED = {"tpu": ("project", "zone"), "slurm": (), "ssh": ("hosts",)}


def parser() -> argparse.ArgumentParser:
    summary, _, details = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(
        prog="python -m experiments.batch",
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("action", choices=("show", "run", "watch", "down", "collect"))
    p.add_argument("sweep", metavar="SWEEP", help="a sweep file: CONFIG, GRID, RUNS")
    p.add_argument("--on", default="local", choices=("local", "tpu", "slurm", "ssh"), help="where (default: local)")
    p.add_argument("--shared", default="", metavar="FOLDER", help="folder of the workdirs (default: runs/<sweep>)")
    p.add_argument("--dry-run", action="store_true", help="print every command, run none")
    p.add_argument("--every", type=float, default=60.0, metavar="SECONDS", help="watch: time between two looks")
    p.add_argument("--out", type=Path, default=Path("table"), metavar="FOLDER", help="collect: where the table goes")
    p.add_argument("--at-a-time", type=int, default=1, metavar="N", help="local, slurm: runs at once")
    p.add_argument("--attempts", type=int, default=3, metavar="N", help="local: tries of a run that crashes")
    tpu = p.add_argument_group("tpu")
    tpu.add_argument("--name", default="ranjax", help="prefix of the slices; slurm: name of the job")
    tpu.add_argument("--project", default="", help="project of Google Cloud")
    tpu.add_argument("--zone", default="", help="zone, e.g. us-west4-a")
    tpu.add_argument("--accelerator", default="v5litepod-8", help="kind and size of a slice")
    tpu.add_argument("--runtime", default="v2-alpha-tpuv5-lite", help="image of the VMs")
    tpu.add_argument("--slices", type=int, default=1, help="slices that share the runs")
    tpu.add_argument("--on-demand", action="store_true", help="not preemptible")
    tpu.add_argument(
        "--setup", default="", metavar="LINE", help="shell line run first on every worker (mount --shared)"
    )
    slurm = p.add_argument_group("slurm")
    slurm.add_argument("--code", default=".", metavar="FOLDER", help="the repository on the cluster, with its .venv")
    slurm.add_argument("--nodes", type=int, default=1)
    slurm.add_argument("--tasks-per-node", type=int, default=1)
    slurm.add_argument("--sbatch", action="append", default=[], metavar="OPTION", help="e.g. --sbatch=--gres=gpu:4")
    ssh = p.add_argument_group("ssh")
    ssh.add_argument("--hosts", default="", metavar="A,B", help="hosts as ssh knows them")
    return p


def machines(arguments: argparse.Namespace, shared: str) -> TPU | Slurm | Hosts:
    """The executor that the command line asks for.

    Raises:
      ConfigError: an option that it cannot do without is missing.
    """
    for name in NEEDED[arguments.on]:
        if not getattr(arguments, name):
            raise ConfigError(f"--{name}", "", f"a value, with --on {arguments.on}")
    if arguments.on == "tpu":
        a = arguments
        return TPU(
            a.name, a.project, a.zone, a.accelerator, a.runtime, shared, a.slices, not a.on_demand, setup=a.setup
        )
    if arguments.on == "slurm":
        code = str(Path(arguments.code).absolute())
        shape = (arguments.at_a_time, arguments.nodes, arguments.tasks_per_node)
        return Slurm(arguments.name, code, str(Path(shared).absolute()), *shape, tuple(arguments.sbatch))
    return Hosts(tuple(arguments.hosts.split(",")), shared=shared)


def watch(place: TPU | Slurm | Hosts, runs: Sequence[Run], carry: Carry, every: float, dry: bool) -> int:
    while True:
        states = place.look_after(runs, carry)
        if dry:
            return 0
        done = sum(state == "done" for state in states.values())
        rest = ", ".join(f"{name}: {state}" for name, state in states.items() if state != "done")
        print(f"{time.strftime('%H:%M:%S')} {done} of {len(runs)} done" + (f"; {rest}" if rest else ""), flush=True)
        if done == len(runs):
            return 0
        time.sleep(every)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        runs = expand(arguments.sweep)
        shared = arguments.shared or f"runs/{Path(arguments.sweep).stem}"
        if arguments.action == "collect":
            found, missing = collect.collect(runs, Path(shared), arguments.out)
            print(
                f"{len(found)} run(s) in {arguments.out / 'table.csv'}" + (f"; not done: {missing}" if missing else "")
            )
            return 0
        if arguments.action == "show" or (arguments.on == "local" and arguments.dry_run):
            for run in runs:
                print(
                    f"{state_of(Path(shared) / run.name)}\tpython -m {' '.join(run.arguments(f'{shared}/{run.name}'))}"
                )
            return 0
        if arguments.on == "local":
            return on_this_machine(arguments, runs, Path(shared))
        place = machines(arguments, shared)
        carry: Carry = printed if arguments.dry_run else carried_out
        if arguments.action == "watch":
            return watch(place, runs, carry, arguments.every, arguments.dry_run)
        for command in place.up(runs) if arguments.action == "run" else place.down(runs):
            carry(command)
    except (ConfigError, DataError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped watching; what was started goes on", file=sys.stderr)
        return 75
    return 0


def on_this_machine(arguments: argparse.Namespace, runs: Sequence[Run], shared: Path) -> int:
    if arguments.action != "run":
        raise ConfigError("action", arguments.action, "show, run or collect with --on local (stop it with Ctrl-C)")
    tally = local.run_all(runs, shared, at_a_time=arguments.at_a_time, attempts=arguments.attempts)
    print(f"{len(tally.done)} of {len(runs)} done" + "".join(f"; {n}: {why}" for n, why in tally.failed.items()))
    if tally.stopped:
        return 75
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
