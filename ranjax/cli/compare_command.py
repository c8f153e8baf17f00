"""Set audits side by side: models x repairs x attacks under one protocol, as one page.

    ranjax compare audits/*/results.json
    ranjax compare a/results.json b/results.json --out compared/

Files of another schema, another version or form of the protocol, or other attacks are refused. Models on other data
(by hash) stand in tables of their own.

Exit codes: 0 done; 2 the input was refused (one line says why).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ranjax.cli import outcome
from ranjax.core import extras


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("results", nargs="+", type=Path, metavar="RESULTS.JSON", help="of `ranjax audit`, or their folders")
    p.add_argument(
        "--out", type=Path, default=Path("compared"), metavar="FOLDER", help="of the page (default: compared)"
    )


def run(arguments: argparse.Namespace) -> int:
    extras.require("matplotlib", "jinja2", "pandas")
    from ranjax.report import audit_comparison

    audits = [audit_comparison.load_audit(path) for path in arguments.results]
    page = audit_comparison.write(audits, arguments.out)
    print(f"{audit_comparison.as_text(audits)}\npage: {page}")
    return outcome.DONE
