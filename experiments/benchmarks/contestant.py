"""A process that repeats named workloads when told to: how contestants of a benchmark take turns."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from typing import Any


class Contestant:
    """One process; it answers a line of JSON for every line it reads.

    Attributes:
      start: seconds until its first answer (imports and building).
      first: seconds of the first call by workload: compilation, where there is any.
      seconds: of every later call by workload.
      told: the last answer by workload.
    """

    def __init__(self, name: str, line: list[str], environment: dict[str, str] | None = None):
        self.name = name
        self.first: dict[str, float] = {}
        self.seconds: dict[str, list[float]] = {}
        self.told: dict[str, dict[str, Any]] = {}
        began = time.perf_counter()
        self.process = subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, bufsize=1
        )
        self.absent = self.say("ready").get("absent")
        self.start = time.perf_counter() - began

    def say(self, word: str) -> dict[str, Any]:
        """Sends one line and waits for the answer."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError(f"{self.name} has no pipes")
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended without a word (exit code {self.process.wait()}) at {word!r}")
        return json.loads(line)

    def go(self, workload: str) -> None:
        """One timed call; the first one of a workload counts as its compilation."""
        found = self.say(workload)
        self.told[workload] = found
        if workload in self.first:
            self.seconds.setdefault(workload, []).append(found["seconds"])
        else:
            self.first[workload] = found["seconds"]

    def median(self, workload: str) -> float:
        """Of the calls after the first, in seconds."""
        return statistics.median(self.seconds[workload])

    def close(self) -> None:
        """Ends the process."""
        self.process.communicate("end\n")


def serve(calls: dict[str, Any], peak: Any) -> None:
    """The other side: answers "ready", runs ``calls[word]()`` for every word, and ends at "end".

    Args:
      calls: by workload, a function that does the work and returns another one, which gives a number to compare
        contestants by and is not timed.
      peak: returns the peak memory of this process, in MB.
    """
    import sys

    for line in sys.stdin:
        word = line.strip()
        if word == "end":
            return
        if word == "ready":
            print(json.dumps({}), flush=True)
            continue
        began = time.perf_counter()
        told = calls[word]()
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "value": told(), "peak_mb": peak()}), flush=True)
