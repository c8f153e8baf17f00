"""The page of a run, made from results.json and run.json alone; several runs side by side; the same as Markdown.

    from ranjax import report

    report.write_report(run / "results.json", run / "run.json", run / "report")

A page needs the extra "report" (jinja2, pandas, matplotlib); importing this package does not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ranjax.core import extras

if TYPE_CHECKING:
    from ranjax.report.claim_sections import terminal_claims as terminal_claims
    from ranjax.report.page import write_report as write_report
    from ranjax.report.paper_claims import claims as claims
    from ranjax.report.report_tables import terminal_table as terminal_table
    from ranjax.report.run_comparison import load_runs as load_runs
    from ranjax.report.run_comparison import markdown as markdown
    from ranjax.report.run_comparison import write_comparison as write_comparison

_MODULES = {
    "claims": "paper_claims",
    "terminal_claims": "claim_sections",
    "load_runs": "run_comparison",
    "markdown": "run_comparison",
    "terminal_table": "report_tables",
    "write_comparison": "run_comparison",
    "write_report": "page",
}
__all__ = ["claims", "load_runs", "markdown", "terminal_claims", "terminal_table", "write_comparison", "write_report"]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    extras.require("jinja2", "pandas", "matplotlib")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
