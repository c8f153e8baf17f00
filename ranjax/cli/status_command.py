"""Say where a run stands: while it works, after it was stopped or killed, and when it is done. Changes nothing.

    ranjax status runs/ran
    ranjax status runs/ran --json
    ranjax status runs/ran --watch 10

Exit codes: 0 done; 1 not done (running, stopped, killed, failed, or never started); 2 no such folder.
"""

from __future__ import annotations

import argparse
import json
import time

from ranjax.cli import outcome
from ranjax.core.buckets import object_store, workdirs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", metavar="WORKDIR", help="folder of a run, or its URL")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument(
        "--watch", type=float, default=0.0, metavar="SECONDS", help="print it again and again, until done"
    )


def run(arguments: argparse.Namespace) -> int:
    from ranjax.run import run_status

    while True:
        folder = workdirs.fetched(arguments.workdir, "WORKDIR", lambda name: name.endswith(".json"))
        found = run_status.status(folder)
        if object_store.is_url(arguments.workdir):
            found = {**found, "workdir": arguments.workdir}
        print(json.dumps(found, indent=2) if arguments.json else run_status.describe(found), flush=True)
        if not arguments.watch or found["state"] != "running":
            return outcome.DONE if found["state"] == "done" else outcome.UNFINISHED
        try:
            time.sleep(arguments.watch)
        except KeyboardInterrupt:
            return outcome.UNFINISHED
        print()
