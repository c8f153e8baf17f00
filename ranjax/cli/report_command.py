"""Write the page of a finished run again, or a page that shows several runs side by side.

    ranjax report runs/ran
    ranjax report runs/ran runs/nih --out compare
    ranjax report runs/study runs/study_seed_1 runs/study_seed_2 --out seeds

A RUN is the folder of a run (its results.json and run.json are read, nothing else). One run: its report/index.html is
written anew. Two or more: the page goes to --out, and the others are compared with the first run.
Runs that differ in their seed alone are pooled as well, with intervals over runs. A key that was added after a run was
made counts as its default there, and the page says so.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ranjax.cli import outcome
from ranjax.core.buckets import workdirs
from ranjax.core.errors import DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a finished run, or its URL")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where the page goes (default: RUN/report for one run, compare for several)",
    )
    parser.add_argument(
        "--markdown",
        action="store_true",
        help="print the claims and main tables as Markdown instead; runs that differ in their seed alone are pooled",
    )


def run(arguments: argparse.Namespace) -> int:
    from ranjax.run import config

    defaults = config.defaults()
    with ExitStack() as held:
        if len(arguments.runs) == 1 and not (arguments.markdown or arguments.out):
            # Its page is written there.
            runs = [held.enter_context(workdirs.opened(arguments.runs[0], "RUN"))[0]]
        else:
            runs = [workdirs.fetched(run, "RUN", _is_read) for run in arguments.runs]
        return _write(arguments, runs, defaults)


def _is_read(name: str) -> bool:
    return name in ("results.json", "run.json")


def _write(arguments: argparse.Namespace, runs: list[Path], defaults: Mapping[str, Any]) -> int:
    from ranjax import report

    try:
        if arguments.markdown:
            written: object = report.markdown(runs, defaults)
        elif len(runs) == 1:
            out = arguments.out or runs[0] / "report"
            written = report.write_report(runs[0] / "results.json", runs[0] / "run.json", out, defaults)
        else:
            written = report.write_comparison(runs, arguments.out or Path("compare"), defaults)
    except OSError as error:
        raise DataError(str(error)) from error
    print(written)
    return outcome.DONE
