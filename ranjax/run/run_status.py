"""Where a run stands, read from its workdir: while it works, after it was stopped or killed, and when it is done."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ranjax.core import files
from ranjax.core.errors import ConfigError
from ranjax.core.process_stat import ENDED, process_stat
from ranjax.run import config as configs
from ranjax.run import heartbeat
from ranjax.run.plan import plan
from ranjax.training.progress import duration

Status = Mapping[str, Any]
"""A JSON object, see `status`."""
SILENT = 60.0
"""Seconds without a new status after which a run on another host counts as gone."""
_MEANINGS = {
    "running": "running",
    "killed": "not running (it was killed, or the machine went down)",
    "stopped": "stopped on request",
    "refused": "refused",
    "failed": "failed",
    "unfinished": "not finished",
    "done": "done",
}


def status(workdir: str | os.PathLike[str]) -> Status:
    """Return where a run stands.

    Returns:
      {"workdir", "state": "not started", "running", "killed", "stopped", "refused", "failed", "unfinished" or "done",
      "process", "host", "started", "updated", "said", "work": see `heartbeat`, "stages": [{"run", "state": "done",
      "unfinished" or "waiting", "seconds", "checkpoint", "shards"}]}. An "unfinished" run ended at its ``--until``, or
      was made by a version that wrote no status.

    Raises:
      ConfigError: no such folder, or a config of another version.
    """
    workdir = Path(workdir).expanduser().absolute()
    if not workdir.is_dir():
        raise ConfigError("WORKDIR", str(workdir), "a folder that exists")
    found: dict[str, object] = {"workdir": str(workdir), "state": "not started", "stages": []}
    if not (workdir / "config.json").is_file():
        return found
    written = _read(workdir / heartbeat.FILE)
    stages = [_stage(workdir / run.id, run.id) for run in plan(configs.of_run(workdir))]
    done = all(stage["state"] == "done" for stage in stages)
    state = written.get("state", "unfinished")
    if state == "running" and not is_alive(written):
        state = "killed"
    elif state != "running":
        state = "done" if done else "unfinished" if state == "done" else state
    return {**found, **written, "state": state, "stages": stages}


def is_alive(written: Status) -> bool:
    """Return whether the process that wrote a status still works; on another host, whether it wrote lately."""
    if written.get("host") != socket.gethostname():
        return abs(_age(written["updated"])) < SILENT
    process = int(written["process"])
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is another user's, and works
    place = Path(f"/proc/{process}")
    try:
        # The number may belong to another program by now, and a zombie does not work.
        return process_stat(process)[0] not in ENDED and b"ranjax" in (place / "cmdline").read_bytes()
    except OSError:
        return not place.parent.is_dir()


def describe(found: Status) -> str:
    """Return a status as text."""
    if found["state"] == "not started":
        return f"{found['workdir']}: no run was started here"
    stages = found["stages"]
    done = sum(stage["state"] == "done" for stage in stages)
    lines = [f"{found['workdir']}: {_MEANINGS[found['state']]}, {done} of {len(stages)} stage runs done"]
    if "process" in found:
        heard = f", last heard of {_ago(found['updated'])}"
        lines.append(f"process {found['process']} on {found['host']}, started {found['started']}{heard}")
    lines += [f"  {_stage_line(stage, found)}" for stage in stages]
    if found.get("said"):
        lines.append(f"last word: {found['said']}")
    if found["state"] in ("killed", "stopped", "unfinished"):
        lines.append("the command of this run goes on from here")
    return "\n".join(lines)


def _stage(folder: Path, run_id: str) -> Status:
    found: dict[str, object] = {"run": run_id, "state": "waiting"}
    if (folder / "manifest.json").is_file():
        found |= {"state": "done", "seconds": _read(folder / "manifest.json").get("seconds")}
    elif (folder / "stage.json").is_file():
        found["state"] = "unfinished"
    if steps := [int(path.stem) for path in (folder / "checkpoints").glob("*.json") if path.stem.isdigit()]:
        found["checkpoint"] = max(steps)
    if store := _read(folder / "store" / "store.json"):
        count = -(-len(store.get("ids", ())) // store.get("shard_size", 1))
        found["shards"] = [len(list((folder / "store").glob("shard-*.json"))), count]
    return found


def _stage_line(stage: Status, found: Status) -> str:
    unfinished = stage["state"] != "done"
    here = unfinished and stage["run"] == found.get("run") and found["state"] == "running"
    text = f"{stage['run']:<24} {'running' if here else stage['state']}"
    if stage.get("seconds") is not None:
        text += f" in {duration(stage['seconds'])}"
    if unfinished and "checkpoint" in stage:
        text += f", last checkpoint of step {stage['checkpoint']}"
    if unfinished and "shards" in stage:
        text += ", {} of {} shards".format(*stage["shards"])
    work = found.get("work")
    if work and unfinished and stage["run"] == found.get("run"):
        text += f", {'' if here else 'got to '}{work['name']} {work['done']}/{work['total']} {work['unit']}"
        if here and work.get("rate"):
            left = duration((work["total"] - work["done"]) / work["rate"])
            text += f", {work['rate']:.3g} {work['unit']}/s, {left} left"
        text += "".join(f", {name} {value:.4g}" for name, value in work["metrics"].items() if name == "loss")
    if here and (compiling := found.get("compiling")):
        text += f", compiling {compiling['name']} for {duration(max(_age(compiling['since']), 0.0))}"
    return text


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON object; an empty one where it is absent or damaged, which a status leaves out."""
    try:
        content = files.read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _age(moment: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()


def _ago(moment: str) -> str:
    seconds = _age(moment)
    # A clock was set back, or that of another host is ahead.
    return f"{duration(seconds)} ago" if seconds >= 0 else f"at {moment}"
