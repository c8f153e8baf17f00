"""List the entries of a table: their names, as a config takes them, and what they are.

    ranjax list methods
    ranjax list attacks --json

Your own entry, named as module:NAME in a config, is the equal of these (docs/guides).
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Mapping

from ranjax.cli import outcome

TABLES = {
    "methods": "ranjax.methods.table:METHODS",
    "layouts": "ranjax.models.checkpoints.layouts:LAYOUTS",
    "datasets": "ranjax.data.sets:SETS",
}
"""By what a user calls a kind of entry, the table that holds it."""
_SHOWN = ("label", "title", "family", "kind", "source")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=tuple(TABLES), help="what to list")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def run(arguments: argparse.Namespace) -> int:
    module, _, name = TABLES[arguments.kind].partition(":")
    rows = rows_of(getattr(importlib.import_module(module), name))
    if arguments.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return outcome.DONE
    widths = {field: max(len(row.get(field, "")) for row in rows) for field in ("name", *_SHOWN)}
    for row in rows:
        print("  ".join(f"{row.get(field, ''):<{width}}" for field, width in widths.items() if width).rstrip())
    return outcome.DONE


def rows_of(table: Mapping[str, object]) -> list[dict[str, str]]:
    """Return what is shown of each entry of a table."""
    rows = []
    for name, entry in table.items():
        shown = {field: getattr(entry, field, None) for field in _SHOWN}
        rows.append({"name": name} | {field: value for field, value in shown.items() if isinstance(value, str)})
    return rows
