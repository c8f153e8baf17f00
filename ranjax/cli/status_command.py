"""Says where a run stands: while it works, after it was stopped or killed, and when it is done. Changes nothing.

    ranjax status runs/ran
    ranjax status runs/ran --json
    ranjax status runs/ran --watch 10

Exit codes: 0 done; 1 not done (running, stopped, killed, failed, or never started); 2 no such folder.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ranjax.cli import outcome
from ranjax.core import files
from ranjax.core.errors import ConfigError
from ranjax.run import heartbeat

SILENT = 60.0
"""Seconds after which a run on another host, which cannot be asked, counts as gone."""


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("workdir", type=Path, metavar="WORKDIR", help="folder of a run")
    p.add_argument("--json", action="store_true", help="print it as JSON")
    p.add_argument("--watch", type=float, default=0.0, metavar="SECONDS", help="print it again and again, until done")


def run(arguments: argparse.Namespace) -> int:
    try:
        while True:
            found = status(arguments.workdir)
            print(json.dumps(found, indent=2) if arguments.json else describe(found), flush=True)
            if not arguments.watch or found["state"] != "running":
                break
            time.sleep(arguments.watch)
            print()
    except KeyboardInterrupt:
        return outcome.UNFINISHED
    return outcome.DONE if found["state"] == "done" else outcome.UNFINISHED


def status(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Where a run stands.

    Returns:
      {"workdir", "state": "not started", "running", "killed", "stopped", "refused", "failed", "unfinished" or "done",
      "process", "host", "started", "updated", "said", "work": see `heartbeat`, "stages": [{"run", "state": "done",
      "unfinished" or "waiting", "seconds", "checkpoint", "shards", "lines"}]}. "unfinished" is a run that ended where
      it was told to (--until), or was made before there was a status.

    Raises:
      ConfigError: no such folder, or a config of another version.
    """
    workdir = Path(workdir).expanduser().absolute()
    if not workdir.is_dir():
        raise ConfigError("WORKDIR", str(workdir), "a folder that exists")
    found: dict[str, Any] = {"workdir": str(workdir), "state": "not started", "stages": []}
    if not (workdir / "config.json").is_file():
        return found
    from ranjax.run import config as configs
    from ranjax.run import plan as planning

    said = _read(workdir / heartbeat.FILE)
    stages = [_stage(workdir / run.id, run.id) for run in planning.plan(configs.of_run(workdir))]
    done = all(stage["state"] == "done" for stage in stages)
    state = said.get("state", "unfinished")
    if state == "running" and not is_alive(said):
        state = "killed"
    elif state != "running":
        state = "done" if done else "unfinished" if state == "done" else state
    return {**found, **said, "state": state, "stages": stages}


def is_alive(said: dict[str, Any]) -> bool:
    """Whether the process that wrote a status still works; on another host, whether it was heard of lately."""
    if said.get("host") != socket.gethostname():
        return abs(_age(said["updated"])) < SILENT
    process = int(said["process"])
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # Another user's, which is an answer too.
        pass
    place = Path(f"/proc/{process}")
    try:
        # The number may have gone to another program since, and a process that nobody waits for is none.
        dead = (place / "stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
        return not dead and b"ranjax" in (place / "cmdline").read_bytes()
    except OSError:
        return not place.parent.is_dir()


def _stage(folder: Path, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = {"run": run_id, "state": "waiting"}
    if (folder / "manifest.json").is_file():
        found |= {"state": "done", "seconds": _read(folder / "manifest.json").get("seconds")}
    elif (folder / "stage.json").is_file():
        found["state"] = "unfinished"
    steps = [int(path.stem) for path in (folder / "checkpoints").glob("*.json") if path.stem.isdigit()]
    if steps:
        found["checkpoint"] = max(steps)
    if (folder / "store" / "store.json").is_file():
        plan = _read(folder / "store" / "store.json")
        count = -(-len(plan.get("ids", ())) // plan.get("shard_size", 1))
        found["shards"] = [len(list((folder / "store").glob("shard-*.json"))), count]
    return found


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty where it is absent, cut off or damaged, which a status says by leaving it out."""
    try:
        content = files.read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def describe(found: dict[str, Any]) -> str:
    """A status as text."""
    if found["state"] == "not started":
        return f"{found['workdir']}: no run was started here"
    stages = found["stages"]
    done = sum(stage["state"] == "done" for stage in stages)
    lines = [f"{found['workdir']}: {_STATES[found['state']]}, {done} of {len(stages)} stage runs done"]
    if "process" in found:
        since = f", last heard of {_ago(found['updated'])}"
        lines.append(f"process {found['process']} on {found['host']}, started {found['started']}{since}")
    for stage in stages:
        lines.append("  " + _stage_line(stage, found))
    if found.get("said"):
        lines.append(f"last word: {found['said']}")
    if found["state"] in ("killed", "stopped", "unfinished"):
        lines.append("the command of this run goes on from here")
    return "\n".join(lines)


_STATES = {
    "running": "running",
    "killed": "not running (it was killed, or the machine went down)",
    "stopped": "stopped on request",
    "refused": "refused",
    "failed": "failed",
    "unfinished": "not finished",
    "done": "done",
}


def _stage_line(stage: dict[str, Any], found: dict[str, Any]) -> str:
    from ranjax.training.progress import duration

    here = stage["run"] == found.get("run") and found["state"] == "running" and stage["state"] != "done"
    text = f"{stage['run']:<24} {'running' if here else stage['state']}"
    if stage.get("seconds") is not None:
        text += f" in {duration(stage['seconds'])}"
    if stage["state"] != "done":
        if "checkpoint" in stage:
            text += f", last checkpoint of step {stage['checkpoint']}"
        if "shards" in stage:
            text += ", {} of {} shards".format(*stage["shards"])
    work = found.get("work")
    if work and stage["run"] == found.get("run") and stage["state"] != "done":
        text += f", {'' if here else 'got to '}{work['name']} {work['done']}/{work['total']} {work['unit']}"
        if here and work.get("rate"):
            left = duration((work["total"] - work["done"]) / work["rate"])
            text += f", {work['rate']:.3g} {work['unit']}/s, {left} left"
        text += "".join(f", {name} {value:.4g}" for name, value in work["metrics"].items() if name == "loss")
    return text


def _age(moment: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()


def _ago(moment: str) -> str:
    from ranjax.training.progress import duration

    seconds = _age(moment)
    # A clock that was set back, or another host's that goes before this one.
    return f"{duration(seconds)} ago" if seconds >= 0 else f"at {moment}"
