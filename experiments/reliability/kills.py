"""The real command, killed at chosen moments, and what is left of a run in comparable form."""

from __future__ import annotations

import hashlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ranjax.core import files

ROOT = Path(__file__).resolve().parents[2]
TITLE = re.compile(r"^\[\d+/\d+\] ([^\s:]+)$")
"""The line with which a stage run begins."""
ANSWERS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 75, signal.SIGINT: 75}
"""The exit code with which the command answers each signal."""


class Kill(NamedTuple):
    """What one kill met: the signal, the stage run it hit ("start" before the first), seconds to the process's end, its
    exit code (0: it had finished before), and the end of its output."""

    signal: str
    hit: str
    seconds: float
    code: int
    output: str

    @property
    def expected(self) -> bool:
        """Whether the exit code is the promised one; a run that was done in time or not yet listening has others."""
        number = signal.Signals[self.signal]
        early = self.hit == "start" and self.code == -number
        return self.code in (0, ANSWERS[number]) or early


def command(arguments: Sequence[object], python: str = sys.executable, before: str = "") -> list[str]:
    """The command line of a run; with `before`, Python statements that run ahead of it in the same process."""
    run = 'import runpy; runpy.run_module("ranjax.main", run_name="__main__", alter_sys=True)'
    program = ["-c", f"{before}\n{run}"] if before else ["-m", "ranjax.main"]
    return [python, *program, *map(str, arguments)]


def start(arguments: Sequence[object], before: str = "") -> subprocess.Popen[str]:
    """The command in a process of its own, with its whole output in one pipe."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONUNBUFFERED": "1"}
    line = command(arguments, before=before)
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment
    )


def kill(
    arguments: Sequence[object],
    number: signal.Signals,
    delay_in: Callable[[str], float | None],
    limit: float = 900.0,
) -> Kill:
    """Starts the command and sends it `number` at a chosen moment; it may have ended before.

    Args:
      arguments: of the command.
      number: the signal.
      delay_in: asked with "start" at once, and with the id of every stage run as it begins, until it gives the seconds
        from then on to the signal; None: not here.
      limit: seconds after which a process that does not end is killed, and an error.

    Raises:
      TimeoutError: the process did not end.
    """
    with start(arguments) as process:
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_read, args=(process, lines), daemon=True).start()
        seen: list[str] = []
        hit, began, sent = "start", time.monotonic(), None
        due = _due(delay_in(hit))
        while True:
            now = time.monotonic()
            if sent is None and due is not None and now >= due:
                process.send_signal(number)
                sent = now
            if now - began > limit:
                process.kill()
                raise TimeoutError(f"not done after {limit} s:\n" + "".join(seen[-20:]))
            waits = 0.5 if sent is not None or due is None else min(0.5, max(0.001, due - now))
            try:
                line = lines.get(timeout=waits)
            except queue.Empty:
                continue
            if line is None:
                break
            seen.append(line)
            title = TITLE.match(line)
            if title and sent is None:
                hit = title[1]
                due = _due(delay_in(hit)) if due is None else due
        code = process.wait()
    seconds = 0.0 if sent is None else time.monotonic() - sent
    return Kill(number.name, hit, round(seconds, 2), code, "".join(seen[-30:]))


def _due(delay: float | None) -> float | None:
    return None if delay is None else time.monotonic() + delay


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    for line in process.stdout or ():
        lines.put(line)
    lines.put(None)


def finish(arguments: Sequence[object], limit: float = 900.0) -> str:
    """Runs the command to its end and returns its output. Raises RuntimeError if it fails."""
    with start(arguments) as process:
        output, _ = process.communicate(timeout=limit)
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}:\n{output[-4000:]}")
    return output


def durations(workdir: Path) -> dict[str, float]:
    """Seconds of every stage run of a finished workdir, in the order in which they ended."""
    found = [(path.stat().st_mtime, path) for path in manifests(workdir)]
    return {
        str(path.parent.relative_to(workdir)): files.read_json(path)["seconds"]
        for _, path in sorted(found)
    }  # fmt: skip


def manifests(workdir: Path) -> Iterator[Path]:
    for path in sorted(workdir.rglob("manifest.json")):
        if (path.parent / "stage.json").is_file():
            yield path


def signature(workdir: Path) -> dict[str, str]:
    """SHA-256 by name of everything that a run leaves and that decides or is a result.

    The results, every file that a manifest lists (encoders, heads, tables, tokenizer), the shards of noisy stores, the
    prepared records, and the lines of figures of pre-training. Not in it, as they hold times: run.json, stage seconds,
    TensorBoard's events and the page's footer; and checkpoints, whose encoder is in it.
    """
    found = {"results.json": files.sha256(workdir / "results.json")}
    for path in manifests(workdir):
        run = path.parent.relative_to(workdir)
        listed: Mapping[str, str] = files.read_json(path)["files"]
        found |= {f"{run}/{name}": digest for name, digest in listed.items() if run.name != "report"}
    for pattern in ("**/store/shard-*.array_record", "**/metrics.jsonl"):
        for path in sorted(workdir.glob(pattern)):
            found[str(path.relative_to(workdir))] = files.sha256(path)
    return found | records(workdir)


def records(workdir: Path) -> dict[str, str]:
    """SHA-256 of every split's records in order; the files they lie in are compressed, not always to the same bytes."""
    from ranjax.data.prepared import open_prepared

    found = {}
    for split, source in open_prepared(workdir / "data").splits.items():
        state = hashlib.sha256()
        for index in range(len(source)):
            record = source[index]
            state.update(record["image"].tobytes())
            state.update(repr([record[k] for k in ("id", "report", "label", "patient", "group")]).encode())
        found[f"data/{split}"] = state.hexdigest()
    return found


def examples(workdir: Path) -> dict[str, int]:
    """How many examples a run holds: by split as prepared, and noisy pairs by store."""
    found = {f"split {k}": v for k, v in files.read_json(workdir / "prepare" / "manifest.json")["counts"].items()}
    for path in sorted(workdir.glob("**/store/store.json")):
        shards = sorted(path.parent.glob("shard-*.json"))
        held = sum(len(files.read_json(shard)["ids"]) for shard in shards)
        found[f"noisy pairs {path.parent.parent.relative_to(workdir)}"] = held
    return found


def digest(found: Mapping[str, str]) -> str:
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:16]
