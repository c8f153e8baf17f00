"""List the entries of a table: their names, as a config takes them, and what they are.

    ranjax list methods
    ranjax list attacks --json
    ranjax list methods my_lab.ridge:RIDGE        (yours beside the built-in ones)

Entries of installed packages (entry points ``ranjax.methods``, ...) are listed, too. How to write one: docs/guides.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Mapping

from ranjax.cli import outcome

TABLES = {
    "methods": "ranjax.methods.table:METHODS",
    "attacks": "ranjax.attacks.attack_table:ATTACKS",
    "defences": "ranjax.methods.defences.defence_table:DEFENCES",
    "controls": "ranjax.models.controls:CONTROLS",
    "recipes": "ranjax.data.recipe_table:RECIPES",
    "towers": "ranjax.models.towers.tower_table:TOWERS",
    "datasets": "ranjax.data.sets:SETS",
    "layouts": "ranjax.models.checkpoints.layouts:LAYOUTS",
    "engines": "ranjax.core.engines.engine_table:ENGINES",
}
"""By the name of a kind of entry, the table that holds it."""
_SHOWN = ("label", "title", "family", "kind", "source")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=tuple(TABLES), help="the table")
    parser.add_argument("names", nargs="*", metavar="MODULE:NAME", help="entries of yours to list with the others")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def run(arguments: argparse.Namespace) -> int:
    module, _, name = TABLES[arguments.kind].partition(":")
    table = getattr(importlib.import_module(module), name)
    table.load_entry_points()
    for name in arguments.names:
        table.resolve(name)
    rows = rows_of(table)
    if arguments.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return outcome.DONE
    widths = {field: max(len(row.get(field, "")) for row in rows) for field in ("name", *_SHOWN)}
    for row in rows:
        print("  ".join(f"{row.get(field, ''):<{width}}" for field, width in widths.items() if width).rstrip())
    return outcome.DONE


def rows_of(table: Mapping[str, object]) -> list[dict[str, str]]:
    """Return the name of each entry of a table and the texts that describe it."""
    rows = []
    for name, entry in table.items():
        shown = {field: getattr(entry, field, None) for field in _SHOWN}
        rows.append({"name": name} | {field: text for field, text in shown.items() if isinstance(text, str) and text})
    return rows
