"""Carry out a plan (`ranjax.run.plan`): skip the stage runs that are done, and run the others.

A stage run (say ``pretrain/coattack_10``) owns one folder of the workdir. Before it starts, ``stage.json`` there lists
everything that decides its outcome: its config keys and the fingerprints of its inputs. When it is done,
``manifest.json`` is written last, by rename; a folder without one is unfinished and is resumed. Same fingerprint:
skipped. Another fingerprint: refused, naming the keys that differ, or set aside on request.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ranjax.core import files, lazy
from ranjax.core.buckets.mirror import Mirror
from ranjax.core.engines.task_pool import Pool
from ranjax.core.errors import ConfigError, RunError
from ranjax.core.lock import locked
from ranjax.run import config as configs
from ranjax.run.context import PARTS, Context, Mesh, Stopped
from ranjax.run.heartbeat import Heartbeat
from ranjax.run.plan import StageRun, config_of, conflicts, decided_by, fingerprints, plan
from ranjax.run.schema import RunConfig
from ranjax.run.stages import memory
from ranjax.training import compilations, hosts, profiling, progress, trackers

NOT_LISTED = (
    PARTS,
    "stage.json",
    "manifest.json",
    "store",
    "checkpoints",
    "damaged",
    "metrics.jsonl",
    "speed.jsonl",
    "tensorboard",
    "profile",
    "encoder/README.md",
)
"""Files and folders that a manifest does not list: stores and checkpoints carry hashes of their own, logs are no
result, and the report writes an encoder's card again with its figures."""


ALONE = ("prepare", "report")
"""Stages that process 0 carries out alone while other processes of the run wait."""


def refuse_or_set_aside(
    config: RunConfig,
    workdir: Path,
    runs: tuple[StageRun, ...],
    redo: bool,
    say: Callable[[str], None],
    mirror: Mirror | None = None,
) -> None:
    """Refuse a workdir of another config; with `redo`, move the folders that differ to ``superseded/`` instead."""
    differing = conflicts(config, workdir, runs)
    if not differing:
        return
    if not redo:
        first, concerned = differing[0], ", ".join(conflict.run_id for conflict in differing)
        made = f"stage {first.run_id} there was made with another ({'; '.join(first.changed)})"
        expected = f"a folder of the same config; {made}, which concerns {concerned}"
        hint = "Take another --workdir, or add --redo to set those stages aside and run them again."
        raise ConfigError("--workdir", str(workdir), expected, hint)
    place = workdir / "superseded"
    number = 1 + max((int(p.name) for p in place.glob("[0-9]*")), default=0)
    for conflict in differing:
        target = place / str(number) / conflict.run_id
        target.parent.mkdir(parents=True, exist_ok=True)
        if mirror:
            mirror.forget(conflict.run_id)
        os.replace(workdir / conflict.run_id, target)
        say(f"set aside {conflict.run_id} ({'; '.join(conflict.changed)}) -> {target.relative_to(workdir)}")


def execute(
    config: ConfigDict,
    workdir: Path,
    *,
    mesh: Mesh,
    stop: Callable[[], bool],
    say: Callable[[str], None],
    redo: bool = False,
    until: str = "",
    track: Sequence[str] = ("tensorboard",),
    mirror: Mirror | None = None,
    pool: Pool | None = None,
) -> Path:
    """Carry out the stage runs that are not done yet, in order, and return the path of the report's page.

    Several processes (`training.hosts`) all call this with one workdir that all of them see. Process 0 holds the lock,
    decides which stage runs are done, and writes manifests and tables. They wait for each other at the end of every
    stage, so that one finds the files that another wrote.

    Args:
      config: a resolved, validated config.
      workdir: folder of this run; created where absent.
      mesh: devices, from `training.devices.make_mesh`.
      stop: polled by the stages, e.g. a `training.signals.StopFlag`.
      say: receives one line of text at a time.
      redo: set stages of another config aside instead of refusing the workdir.
      until: end after the last run of this stage (empty: run all).
      track: trackers that get figures, config and page, see `training.trackers`.
      mirror: of a workdir in an object store; a stage run is done once it is there.
      pool: of the engine whose machines write shards of noisy pairs; None: this process does.

    Raises:
      ConfigError: the workdir is of another config, in use, or not writable.
      Stopped: a stop was asked for; everything done so far is saved.
    """
    whole = configs.typed(config)
    runs = plan(whole)
    last = max((i for i, run in enumerate(runs) if run.stage == until), default=len(runs) - 1)

    def take_over() -> None:
        held.enter_context(locked(workdir))
        refuse_or_set_aside(whole, workdir, runs, redo, say, mirror)
        crafts = [run for run in runs[: last + 1] if run.stage == "craft"]
        if any(not (workdir / run.id / "manifest.json").exists() for run in crafts):
            # The files that crafting reads, which would otherwise be refused hours later.
            lazy.function("ranjax.run.stages.word_candidates", "check_files")(whole.noise)
            lazy.function("ranjax.run.stages.caption_rewrites", "check_files")(whole)
        for note in configs.notes(whole):
            say(f"note: {note}")
        files.remove_leftovers(workdir)
        files.write_json(workdir / "config.json", configs.flatten(whole))

    with ExitStack() as held:
        hosts.first_does(take_over)
        beat = held.enter_context(Heartbeat(workdir)) if hosts.first() else None
        if beat:
            held.enter_context(progress.listening(beat.work))
            say = beat.wrap(say)
            mark = files.digest(fingerprints(whole, runs))
            held.enter_context(trackers.tracking(track, workdir, configs.flatten(whole), mark, say))
        _carry_out(whole, workdir, runs, last + 1, mesh, stop, say, beat, mirror, pool)
    return workdir / "report" / "index.html"


def _carry_out(
    config: RunConfig,
    workdir: Path,
    runs: tuple[StageRun, ...],
    count: int,
    mesh: Mesh,
    stop: Callable[[], bool],
    say: Callable[[str], None],
    beat: Heartbeat | None,
    mirror: Mirror | None,
    pool: Pool | None,
) -> None:
    """Carry out those of the first `count` runs that are not done yet, each until its manifest is written."""
    expected = fingerprints(config, runs)
    shared: dict[Hashable, Any] = {}
    for number, run in enumerate(runs[:count], start=1):
        folder = workdir / run.id
        title = f"[{number}/{len(runs)}] {run.id}"
        if hosts.agree((folder / "manifest.json").exists()):
            say(f"{title}: done before, skipped")
            shared.setdefault("skipped", set()).add(run.id)
            continue
        # What decides the outcome is on the disk before the work begins.
        record = {"fingerprint": expected[run.id], "config": decided_by(config, run), "stage": run.stage}
        hosts.first_does(functools.partial(files.write_json, folder / "stage.json", record))
        if stop():
            raise Stopped(f"before {run.id}")
        if beat:
            beat.at(run.id, number, len(runs))
        say(title)
        context = Context(
            config_of(config, run), workdir, run, runs, expected[run.id], mesh, stop, say, shared=shared, pool=pool
        )
        shared["running"] = run.id
        started = time.monotonic()
        try:
            with (
                profiling.of_stage(config.profile if hosts.first() else "", run.id, folder),
                compilations.counting(beat) as compiled,
            ):
                work = functools.partial(run.run, context)
                outcome = hosts.first_does(work) if run.stage in ALONE else work()
        except (MemoryError, RuntimeError) as error:
            if not memory.is_exhausted(error):
                raise
            raise RunError(memory.explain(error, run.stage, run.id, config)) from error
        seconds = round(time.monotonic() - started, 2)
        hosts.first_does(functools.partial(_finish, folder, record, outcome, seconds, compiled.record(), mirror))
        spent = compiled.seconds + compiled.preparing
        made = f", of which {spent:.1f} s for {compiled.count} compiled programs" if compiled.count else ""
        say(f"{title}: done in {seconds:.1f} s{made}")


def _finish(
    folder: Path,
    record: Mapping[str, object],
    outcome: Mapping[str, object] | None,
    seconds: float,
    compiled: Mapping[str, object],
    mirror: Mirror | None,
) -> None:
    content = {"files": files.hashes(folder, skip=NOT_LISTED), "seconds": seconds, "compiled": compiled}
    files.write_json(folder / "manifest.json", {**record, **(outcome or {}), **content})
    if mirror:
        mirror.push()
