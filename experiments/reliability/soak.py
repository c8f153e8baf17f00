"""Kills real runs at random moments for as long as asked, finishes each, and counts what was lost.

    python -m experiments.reliability.soak --out=soak --minutes=40
    python -m experiments.reliability.soak --out=soak --minutes=0      # prints the tally so far

First two runs are left alone; they must agree. Then, round after round, a run in a fresh workdir is killed (by SIGKILL,
SIGTERM or SIGINT) at moments drawn from the length of its stage runs, up to two times in each, started again by the
same command after each kill, and at last left to end. What it leaves is compared with the first, file by file, by
SHA-256: results, encoders, heads, tables, noisy stores, prepared records, lines of figures.

Written to --out: ``tally.json`` after every kill. Exit codes: 0 nothing lost; 1 something was (all of it is named).
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.reliability import kills
from ranjax.core import files

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CONFIG = Path(__file__).with_name("tiny.py")


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    p.add_argument("--out", type=Path, required=True, help="folder of the runs and of the tally")
    p.add_argument("--minutes", type=float, default=40.0, help="no new round begins after that")
    p.add_argument("--seed", type=int, default=0, help="of the moments and signals")
    p.add_argument("--config", type=Path, default=CONFIG, help="the config that is run (default: a tiny one)")
    arguments = p.parse_args(argv)
    out = arguments.out.absolute()
    tally = out / "tally.json"
    state = files.read_json(tally) if tally.is_file() else {"rounds": [], "seed": arguments.seed}
    if arguments.minutes > 0:
        soak(out, state, arguments)
    print(table(state))
    return 1 if lost(state) else 0


def soak(out: Path, state: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Rounds until the time is over; `state` and tally.json hold what happened."""
    end = time.monotonic() + 60 * arguments.minutes
    whole, again = out / "whole", out / "again"
    # The first fills the cache of compiled programs; the second says how long stage runs are with it.
    for workdir in (whole, again):
        kills.finish(line_of(arguments, out, workdir))
    expected, held, seconds = kills.signature(whole), kills.examples(whole), kills.durations(again)
    if kills.signature(again) != expected:
        raise RuntimeError("two runs that nobody killed differ: there is nothing to compare with")
    state |= {"files": len(expected), "examples": held, "stage_seconds": seconds}
    while time.monotonic() < end:
        number = len(state["rounds"])
        draw = random.Random(f"{state['seed']}/{number}")
        round_: dict[str, Any] = {"kills": [], "different": None, "lost": None}
        state["rounds"].append(round_)
        workdir = out / f"round-{number}"
        shutil.rmtree(workdir, ignore_errors=True)
        while not (workdir / "report" / "manifest.json").is_file():
            hits = Counter(kill["hit"] for kill in round_["kills"])
            found = kills.kill(line_of(arguments, out, workdir), draw.choice(SIGNALS), moment(draw, hits, seconds))
            round_["kills"].append({k: v for k, v in found._asdict().items() if k != "output" or not found.expected})
            files.write_json(out / "tally.json", state)
            print(f"round {number}: {found.signal} in {found.hit}, exit {found.code}", flush=True)
            if not found.expected:
                print(found.output, flush=True)
                break
        kills.finish(line_of(arguments, out, workdir))
        left = kills.signature(workdir)
        round_["different"] = sorted(k for k in {*expected, *left} if expected.get(k) != left.get(k))
        now = kills.examples(workdir)
        round_["lost"] = {k: v - now.get(k, 0) for k, v in held.items() if now.get(k) != v}
        files.write_json(out / "tally.json", state)
        print(f"round {number}: {'the same bits' if not round_['different'] else round_['different']}", flush=True)
        if not round_["different"]:
            shutil.rmtree(workdir)


def moment(draw: random.Random, hits: Counter[str], seconds: dict[str, float]) -> Callable[[str], float | None]:
    """When to kill: within the first stage run that was not hit twice before; now and then during start-up."""
    kinds = {name.split("/")[0]: 0.0 for name in seconds}
    for name, took in seconds.items():
        kinds[name.split("/")[0]] = max(took, kinds[name.split("/")[0]])
    share, early = draw.uniform(0.0, 1.2), draw.random() < 0.1

    def delay_in(place: str) -> float | None:
        if place == "start":
            return share * 5.0 if early else None
        # Later conditions find compiled what the first one compiled, but not in a process of their own.
        return None if hits[place] >= 2 else share * kinds[place.split("/")[0]]

    return delay_in


def line_of(arguments: argparse.Namespace, out: Path, workdir: Path) -> list[object]:
    return ["--config", arguments.config, "--workdir", workdir, f"--config.compile_cache={out / 'cache'}"]


def finished(state: dict[str, Any]) -> list[dict[str, Any]]:
    return [r for r in state["rounds"] if r["different"] is not None]


def lost(state: dict[str, Any]) -> bool:
    every = [kill for r in state["rounds"] for kill in r["kills"]]
    return any(r["different"] or r["lost"] for r in finished(state)) or any(not _expected(kill) for kill in every)


def _expected(kill: dict[str, Any]) -> bool:
    return "output" not in kill


def table(state: dict[str, Any]) -> str:
    """The tally in words and a Markdown table: kills by signal and place, seconds to stop, what was lost."""
    rounds = finished(state)
    every = [k for r in rounds for k in r["kills"] if k["code"] != 0]
    places = list(dict.fromkeys(["start", *state.get("stage_seconds", ())]))
    names = ("SIGKILL", "SIGTERM", "SIGINT")
    count = Counter((k["hit"], k["signal"]) for k in every)
    lines = ["| killed in | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    lines += [f"| {place} | " + " | ".join(str(count[place, name]) for name in names) + " |" for place in places]
    asked = sorted(k["seconds"] for k in every if k["signal"] != "SIGKILL")
    waits = f"; from a request to the exit {asked[len(asked) // 2]:.1f} s in the median, {asked[-1]:.1f} s at most"
    same = sum(not r["different"] for r in rounds)
    missing = json.dumps([r["lost"] for r in rounds if r["lost"]]) if any(r["lost"] for r in rounds) else "none"
    return "\n".join(
        [
            f"{len(rounds)} runs, {len(every)} kills; ended with the same bits in all {state.get('files', 0)} "
            f"files: {same} of {len(rounds)}; examples lost: {missing}" + (waits if asked else ""),
            "",
            *lines,
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
