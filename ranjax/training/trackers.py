"""Trackers of experiments: a run's scalars, config, tables and page to TensorBoard, MLflow or Weights & Biases.

    with tracking(("mlflow",), workdir, config, say):
        ...                        # every MetricsLog inside sends its figures, too

``workdir/tracking.json`` names the tracked run, so that a run that is resumed goes on in it. MLflow writes into
``workdir/mlflow.db`` unless MLFLOW_TRACKING_URI names a server; Weights & Biases is offline unless WANDB_MODE says
otherwise. A tracker that fails is left out with a line; it never stops a run. Values that could be secrets are hidden.
"""

from __future__ import annotations

import math
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from ranjax.core import extras, files
from ranjax.core.errors import ConfigError, nearest

FILE = "tracking.json"
ARTEFACTS = ("config.json", "results.json", "run.json", "report")
"""What is handed over in the end, below the workdir."""
HIDDEN = "(hidden)"
_SECRET = {"key", "keys", "token", "secret", "password", "passwd", "credential", "credentials"}


class Tracker(Protocol):
    """Where a run's figures go. Its `__init__` takes the workdir and the id of its tracked run, "" for a new one."""

    id: str

    def config(self, values: Mapping[str, object]) -> None:
        """Take the config, by flat key."""

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Take the finite figures of a step of a stage run; what was sent before for that step is not sent twice."""

    def end(self, state: str, paths: Sequence[Path], results: Mapping[str, float]) -> None:
        """Take files, folders and final figures, and close as "done", "stopped" or "failed"."""


class _MLflow:
    """MLflow by its client alone: nothing of the machine, the user or the command line is sent of itself."""

    def __init__(self, workdir: Path, identity: str):
        # Read when the package is imported: it would report its use to its makers.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{workdir / 'mlflow.db'}"
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "ranjax"
        self._client = MlflowClient(uri)
        found = self._client.get_experiment_by_name(name)
        place = (workdir / "mlflow").as_uri() if uri.startswith("sqlite:") else None
        experiment = found.experiment_id if found else self._client.create_experiment(name, artifact_location=place)
        self.id = identity or self._client.create_run(experiment, run_name=workdir.name).info.run_id
        self._client.set_terminated(self.id, "RUNNING")
        self._seen: dict[str, int] = {}

    def config(self, values: Mapping[str, object]) -> None:
        from mlflow.entities import Param

        # A parameter is written once: a run that goes on may have another number of devices.
        known = self._client.get_run(self.id).data.params
        new = [Param(name, str(value)[:500]) for name, value in values.items() if name not in known]
        for start in range(0, len(new), 100):
            self._client.log_batch(self.id, params=new[start : start + 100])

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        if stage not in self._seen:
            self._seen[stage] = self._last(stage, values)
        if step > self._seen[stage]:
            sent = [Metric(f"{stage}/{name}", value, _now(), step) for name, value in values.items()]
            self._client.log_batch(self.id, metrics=sent)

    def _last(self, stage: str, values: Mapping[str, float]) -> int:
        """Return the last step that an earlier start has sent."""
        histories = (self._client.get_metric_history(self.id, f"{stage}/{name}") for name in values)
        return max((metric.step for history in histories for metric in history), default=-1)

    def end(self, state: str, paths: Sequence[Path], results: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        sent = [Metric(re.sub(r"[^\w\-./ ]", "_", name), value, _now(), 0) for name, value in results.items()]
        for start in range(0, len(sent), 500):
            self._client.log_batch(self.id, metrics=sent[start : start + 500])
        for path in paths:
            send = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
            send(self.id, os.fspath(path), *([path.name] if path.is_dir() else []))
        status = {"done": "FINISHED", "stopped": "KILLED"}.get(state, "FAILED")
        self._client.set_terminated(self.id, status)


class _Wandb:
    """Weights & Biases, of whose own collecting (command line, code, machine, console) all is off."""

    def __init__(self, workdir: Path, identity: str):
        # Likewise: errors would be reported to its makers.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        settings = wandb.Settings(
            console="off", disable_code=True, disable_git=True, save_code=False, silent=True, x_disable_meta=True,
            x_disable_stats=True, x_disable_machine_info=True, disable_job_creation=True,
        )  # fmt: skip
        self.id = identity or uuid.uuid4().hex[:12]
        # Its own error names the modes that there are.
        mode: Any = os.environ.get("WANDB_MODE") or "offline"
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "ranjax", id=self.id, name=workdir.name, dir=os.fspath(workdir),
            mode=mode, resume="allow", settings=settings,
        )  # fmt: skip
        self._stages: set[str] = set()

    def config(self, values: Mapping[str, object]) -> None:
        self._run.config.update(dict(values), allow_val_change=True)

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        # The steps of a stage are an axis of their own; what is sent twice for a step is drawn at one place.
        if stage not in self._stages:
            self._stages.add(stage)
            self._run.define_metric(f"{stage}/step", hidden=True)
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        self._run.log({f"{stage}/step": step, **{f"{stage}/{name}": value for name, value in values.items()}})

    def end(self, state: str, paths: Sequence[Path], results: Mapping[str, float]) -> None:
        import wandb

        self._run.summary.update(dict(results))
        if paths:
            kept = wandb.Artifact(f"run-{self.id}", "results")
            for path in paths:
                (kept.add_dir if path.is_dir() else kept.add_file)(os.fspath(path), name=path.name)
            self._run.log_artifact(kept)
        self._run.finish(exit_code=0 if state == "done" else 1)


class _TensorBoard:
    """Event files beside the metrics of a stage, which `metrics_log.MetricsLog` writes itself."""

    def __init__(self, workdir: Path, identity: str):
        self.id = identity

    def config(self, values: Mapping[str, object]) -> None: ...

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None: ...

    def end(self, state: str, paths: Sequence[Path], results: Mapping[str, float]) -> None: ...


MODULES = {"tensorboard": ("tensorboardX",), "mlflow": ("mlflow", "sqlalchemy", "alembic"), "wandb": ("wandb",)}
"""What a tracker needs, by its name."""
_KINDS: dict[str, Callable[[Path, str], Tracker]] = {"tensorboard": _TensorBoard, "mlflow": _MLflow, "wandb": _Wandb}


def named(text: str) -> tuple[str, ...]:
    """Return the trackers of an option's text, "mlflow,wandb"; "none" and "" are none.

    Raises:
      ConfigError: an unknown name.
      MissingExtraError: its packages are not installed.
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip() not in ("", "none")))
    for name in names:
        if name not in _KINDS:
            raise ConfigError("--track", name, f"none, or some of {', '.join(_KINDS)}", nearest(name, list(_KINDS)))
        extras.require(*MODULES[name])
    return names


class _Session:
    """The trackers of a run that goes on; one that fails is left out, and that is said once."""

    def __init__(self, say: Callable[[str], None]):
        self.say = say
        self.active: dict[str, Tracker] = {}

    @contextmanager
    def guarded(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever a tracker raises, the run is worth more
            self.active.pop(name, None)
            said = " ".join(str(error).split())[:200]
            self.say(f"note: tracking by {name} ended ({type(error).__name__}: {said}); the run goes on without it")


_sessions: list[_Session] = []


@contextmanager
def tracking(
    names: Sequence[str], workdir: Path, config: Mapping[str, object], mark: str, say: Callable[[str], None]
) -> Iterator[None]:
    """Send what is logged inside the block to trackers, and close them with the state in which it ends.

    Args:
      names: out of `MODULES`.
      workdir: of the run.
      config: its config by flat key.
      mark: of what decides its results: with another one it is another tracked run.
      say: receives a line where a tracker fails.
    """
    path = workdir / FILE
    stored = files.read_json(path) if path.is_file() else {}
    known: dict[str, str] = stored.get("runs", {}) if stored.get("mark") == mark else {}
    session, state = _Session(say), "failed"
    _sessions.append(session)
    try:
        for name in names:
            with session.guarded(name):
                session.active[name] = _KINDS[name](workdir, known.get(name, ""))
                known[name] = session.active[name].id
                files.write_json(path, {"mark": mark, "runs": known})
                session.active[name].config(hide_secrets(config))
        yield
        state = "done"
    except BaseException as error:
        state = "stopped" if type(error).__name__ in ("Stopped", "KeyboardInterrupt") else "failed"
        raise
    finally:
        paths = [workdir / name for name in ARTEFACTS if state == "done" and (workdir / name).exists()]
        results = _results(workdir) if paths else {}
        for name, tracker in list(session.active.items()):
            with session.guarded(name):
                tracker.end(state, paths, results)
        _sessions.remove(session)


def send(stage: str, step: int, values: Mapping[str, float]) -> None:
    """Send the figures of a step of a stage run to all trackers; those that are not finite stay in metrics.jsonl."""
    finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
    for session in _sessions:
        for name, tracker in list(session.active.items()):
            with session.guarded(name):
                tracker.scalars(stage, step, finite)


def boards() -> bool:
    """Return whether event files for TensorBoard are wanted: always, but where other trackers were chosen."""
    return all("tensorboard" in session.active for session in _sessions)


def hide_secrets(config: Mapping[str, object]) -> dict[str, object]:
    """Return a config without what could be a secret: values of keys so named, what a secret variable of the
    environment holds, and passwords in addresses."""
    held = [value for name, value in os.environ.items() if _is_secret(name) and len(value) >= 8]
    found: dict[str, object] = {}
    for name, value in config.items():
        text = str(value)
        if (_is_secret(name.rsplit(".", 1)[-1]) and text) or any(secret in text for secret in held):
            found[name] = HIDDEN
        else:
            hidden = re.sub(r"(\w://)[^/@\s]+@", rf"\1{HIDDEN}@", text)
            found[name] = value if hidden == text else hidden
    return found


def _is_secret(name: str) -> bool:
    return bool(_SECRET & set(re.split(r"[._\-]", name.lower())))


def _results(workdir: Path) -> dict[str, float]:
    """Return the figures of results.json by condition, method, task, split, attack and metric, means over seeds."""
    if not (workdir / "results.json").is_file():
        return {}
    found: dict[str, list[float]] = {}
    for row in files.read_json(workdir / "results.json")["rows"]:
        parts = (row[name] for name in ("condition", "method", "task", "split", "attack", "metric"))
        if row["value"] is not None:
            found.setdefault("/".join(map(str, parts)), []).append(float(row["value"]))
    return {name: sum(values) / len(values) for name, values in found.items()}


def _now() -> int:
    return int(time.time() * 1000)
