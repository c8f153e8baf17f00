"""Carry an audit out: prepare, run the stages on the checkpoint as it is, and write page, results and repaired model.

What is done stands in the folder; the same command goes on after a stop or a kill.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ranjax.core import files
from ranjax.core.errors import ConfigError, RunError
from ranjax.methods.defences.defence_table import DEFENCES
from ranjax.run import pipeline
from ranjax.run.audits import audit_config, audit_data, audit_results, repaired_folder
from ranjax.run.audits.audited_checkpoint import AuditedCheckpoint, open_checkpoint
from ranjax.run.context import Mesh, Stopped
from ranjax.run.stages import memory
from ranjax.training import progress
from ranjax.training.progress import ProgressUpdate, duration

REQUEST = "audit.json"
RUN, DATA, REPAIRED = "run", "data", "repaired"
SHARES = {"prepare": 2, "pretrain": 2, "adapt": 30, "evaluate": 55, "report": 3}
"""Rough shares of the stages in an audit's time, for the time left; controls count a tenth."""


def audit_checkpoint(
    checkpoint: str,
    data: str,
    out: Path,
    *,
    quick: bool = False,
    seed: int = 0,
    options: tuple[str, ...] = (),
    modalities: tuple[str, ...] = (),
    repairs: tuple[str, ...] = (),
    defences: tuple[str, ...] | None = None,
    mesh: Mesh | None = None,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Audit a checkpoint on labelled images, and return the content of results.json.

    Args:
      checkpoint: a folder or file that ranjax reads, a run's workdir, or package:NAME.
      data: see `audit_data.open_audit_data`.
      out: folder of results.json, index.html, repaired/ and the stages.
      quick: few images and small budgets (`audit_config.QUICK`).
      seed: of everything that is drawn.
      options: of a table, NAME=VALUE.
      modalities: what made the images (`evaluate.modalities`); (): as their classes, title or reports say.
      repairs: to try beside the baseline (`audit_config.repairs`); (): those of the form.
      defences: at test time, names of `DEFENCES` or module:NAME; None: those of the form.
      mesh: devices; None: the first one.
      stop: polled; what is done stays.
      say: receives a line of text at a time.

    Raises:
      ConfigError, DataError: the checkpoint or the data are refused, or `out` holds another audit.
      Stopped, decode.Interrupted: `stop` said so.
    """
    from ranjax.training import devices

    form = audit_config.QUICK if quick else audit_config.FULL
    if defences is not None:
        form = dataclasses.replace(form, defences=defences)
    DEFENCES.names_of(form.defences, "audit.defences")
    found = open_checkpoint(checkpoint)
    asked = {"checkpoint": found.fingerprint, "data": str(Path(data).absolute()), "form": form.name, "seed": seed}
    asked |= {"options": list(options), "modalities": list(modalities), "repairs": list(repairs)}
    _claim(out, {**asked, "defences": list(form.defences), "version": audit_config.VERSION})
    say(_introduced(found))
    limit = sum((form.limit, form.limit // 2, form.limit)) if form.limit else 0
    prepared = audit_data.open_audit_data(data, out / DATA, found.image_size, options, limit, say, stop)
    splits, task = audit_data.splits_of(prepared), audit_data.task_of(prepared)
    reports, size = audit_data.has_reports(prepared), prepared.splits["test"].image_shape[0]
    made_by = modalities or audit_data.modalities(prepared)
    notes = _notes(found, task, reports, size, made_by)
    if not form.tuned and not repairs:
        tried = f"{', '.join(audit_config.TUNED)} train in the image tower"
        notes.append(f"{tried}: the quick form leaves them out, --repair NAME tries one")
    for line in notes:
        say(f"note: {line}")
    config = audit_config.audit_config(
        found,
        str(prepared.folder),
        splits,
        size,
        task=task,
        reports=reports,
        modalities=made_by,
        methods=repairs,
        form=form,
        seed=seed,
    )
    mesh = devices.make_mesh(1) if mesh is None else mesh
    clock = Clock(say)
    with progress.listening(clock.update):
        _execute(config, out / RUN, mesh, stop, clock.say)
    say("writing the repaired checkpoint, the page and results.json")
    chosen = audit_results.Audit(config, out / RUN, mesh, found, prepared, data, form, stop=stop, say=say)
    results = chosen.results(notes)
    repaired_folder.write(chosen, results, out / REPAIRED)
    files.write_json(out / "results.json", results)
    from ranjax.report import audit_page

    audit_page.write(results, out)
    return results


def _claim(out: Path, asked: dict[str, object]) -> None:
    """Write what is asked for into the folder, or refuse a folder of another audit."""
    place = out / REQUEST
    if place.exists():
        before = files.read_json(place)
        changed = [name for name in asked if before.get(name) != asked[name]]
        if changed:
            said = "; ".join(f"{name}: {before.get(name)!r} then, {asked[name]!r} now" for name in changed)
            raise ConfigError("--out", str(out), f"a new folder, or that of the same audit ({said})")
        return
    out.mkdir(parents=True, exist_ok=True)
    files.write_json(place, asked)


def _execute(
    config: ConfigDict, workdir: Path, mesh: Mesh, stop: Callable[[], bool], say: Callable[[str], None]
) -> None:
    """Carry out the stages; where memory runs out, the batch is halved, which changes no figure."""
    while True:
        try:
            pipeline.execute(config, workdir, mesh=mesh, stop=stop, say=say)
            return
        except RunError as error:
            size = config.evaluate.batch_size
            if error.__cause__ is None or not memory.is_exhausted(error.__cause__) or size == 1:
                raise
            config.evaluate.batch_size = size // 2
            say(f"note: out of memory with batches of {size} images; goes on with {size // 2}")


def _introduced(checkpoint: AuditedCheckpoint) -> str:
    kind = f"layout {checkpoint.layout}" if checkpoint.texts else "an image tower alone"
    return f"checkpoint {checkpoint.name}: {kind}, images of {checkpoint.image_size} px, {checkpoint.fingerprint}"


def _notes(
    checkpoint: AuditedCheckpoint, task: str, reports: bool, size: int, modalities: tuple[str, ...]
) -> list[str]:
    """Return what this audit leaves out or does otherwise, and why."""
    found = [
        f"corruptions are those of {' and '.join(modalities)}"
        if modalities
        else "what made the images is not known, so corruptions are the general ones: --modality says it"
    ]
    if not checkpoint.texts:
        found.append("the checkpoint has no text tower: zero-shot, retrieval and attacks on reports are left out")
    elif not reports:
        found.append("the data have no reports of their own: attacks on reports and pairs are left out")
    if task == "multi":
        found.append("most images have several labels: each is judged by itself, and zero-shot accuracy is left out")
    if size != checkpoint.image_size:
        found.append(f"images are {size} px as prepared, the checkpoint's {checkpoint.image_size}: it is interpolated")
    return found


class Clock:
    """Lines of an audit with its share and the time left.

    Args:
      say: receives a line.
      interval: least seconds between two lines of the time left.
    """

    def __init__(self, say: Callable[[str], None], interval: float = 15.0) -> None:
        self._say, self._interval = say, interval
        self._begun, self._first, self._printed = time.monotonic(), -1.0, time.monotonic()
        self._before, self._now = 0.0, 0.0

    def say(self, line: str) -> None:
        """Pass a line on, and note which stage it begins."""
        words = line.split()
        if len(words) == 2 and line.startswith("["):
            self._before, self._now = self._before + self._now, _share(words[1])
        elif line.startswith("[") and line.endswith("skipped"):
            self._before += _share(words[1].rstrip(":"))
        self._say(line)

    def update(self, standing: ProgressUpdate) -> None:
        """Say now and then how much of the audit is done and how long the rest takes, by rough shares of stages."""
        now = time.monotonic()
        if now - self._printed < self._interval:
            return
        share = min(0.99, (self._before + self._now * standing.done / max(standing.total, 1)) / _TOTAL)
        if self._first < 0:
            self._first, self._begun = share, now
        self._printed, gained = now, share - self._first
        left = f", about {duration((now - self._begun) * (1 - share) / gained)} left" if gained > 0.01 else ""
        self._say(f"audit {100 * share:.0f} % done{left}")


def _share(run_id: str) -> float:
    stage, _, condition = run_id.partition("/")
    return SHARES.get(stage, 0) * (1.0 if condition in ("", "clean") else 0.1)


_TOTAL = sum(SHARES.values()) + 2 * 0.1 * (SHARES["adapt"] + SHARES["evaluate"])
__all__ = ["Clock", "Stopped", "audit_checkpoint"]
