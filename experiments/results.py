"""Makes the tables of results in docs/tables from finished runs, one CSV a table.

    python -m experiments.results                                    # from the runs that docs/tables/results.toml names
    python -m experiments.results fresh_seeds=runs/a,runs/b          # one set, from runs that lie elsewhere
    python -m experiments.results --check                            # write nothing; say what would change

docs/tables/results.toml declares the sets: their runs, the command that makes these, and the titles of their tables.
results.json beside it records which runs each table was made from, and the table's hash, so that an edit by hand is
found (tests/experiments/test_results.py). Of a run, results.json and run.json are read and nothing else. A set without
runs here keeps its tables; it is named.

Exit codes: 0 done; 1 with --check: a table would change; 2 refused, one line says why.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.design import over_runs
from ranjax.cli import outcome
from ranjax.core import files
from ranjax.core.errors import ConfigError, DataError
from ranjax.report import pooling
from ranjax.report.report_tables import Table
from ranjax.report.run_comparison import Run, load_runs
from ranjax.run import config

TABLES = Path(__file__).resolve().parents[1] / "docs" / "tables"
RECORD = "results.json"
OVER_SEEDS: dict[str, Callable[[Sequence[Any], Sequence[str]], Table]] = {
    "Accuracy over seeds": lambda runs, _: over_runs.accuracies(runs, noisy(runs)),
    "Endpoints over seeds": over_runs.points,
}


@dataclass(frozen=True)
class TableSet:
    """Tables of one set of runs: patterns of the runs' folders, the command that makes them, titles by file."""

    name: str
    runs: tuple[str, ...]
    command: str
    tables: Mapping[str, str]


def declared(file: Path = TABLES / "results.toml") -> dict[str, TableSet]:
    """Return the sets that a declaration holds, by name.

    Raises:
      DataError: a set has another key, or lacks one.
    """
    found = {}
    for name, content in tomllib.loads(file.read_text("utf-8")).items():
        if set(content) != {"runs", "command", "tables"}:
            raise DataError(f"{file.name}, [{name}]: expected runs, command and tables; found {', '.join(content)}.")
        found[name] = TableSet(name, tuple(content["runs"]), content["command"], content["tables"])
    return found


def noisy(runs: Sequence[Any]) -> str:
    """Return the one noisy condition of runs.

    Raises:
      DataError: there are several, or none.
    """
    named = {row["condition"] for run in runs for row in run["rows"] if (row.get("ratio") or 0) > 0}
    if len(named) != 1:
        raise DataError(f"Accuracy over seeds takes runs of one noisy condition; found {sorted(named)}.")
    return str(named.pop())


def made(wanted: TableSet, folders: Sequence[Path]) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the CSV of each table of a set by its file's name, and the record of each.

    Args:
      wanted: the set.
      folders: of its runs.

    Raises:
      DataError: a run cannot be read, runs cannot be pooled, or they have no table of a title.
    """
    runs = load_runs(folders)
    results = [run.results for run in runs]
    titled: dict[str, Table] = {}
    if set(wanted.tables.values()) - set(OVER_SEEDS):
        titled = dict(pooling.named_tables(results, config.defaults(), f"[{wanted.name}]"))
    names = [f"seed {(one.get('config') or {}).get('seed')}" for one in results]
    texts, record = {}, {}
    for part, title in wanted.tables.items():
        if title not in OVER_SEEDS and title not in titled:
            raise DataError(f"[{wanted.name}]: these runs have no table {title!r}. They have: {'; '.join(titled)}.")
        table = OVER_SEEDS[title](results, names) if title in OVER_SEEDS else titled[title]
        file, text = f"{wanted.name}_{part}.csv", table.csv()
        texts[file] = text
        record[file] = {
            "title": title,
            "command": wanted.command,
            "runs": [_facts(run, folder) for run, folder in zip(runs, folders)],
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        }
    return texts, record


def _facts(run: Run, folder: Path) -> dict[str, Any]:
    """Return what tells a run from others: no path, no machine."""
    versions = run.facts.get("versions") or {}
    return {
        "seed": (run.results.get("config") or {}).get("seed"),
        "started": run.facts.get("started"),
        "python": versions.get("python"),
        "jax": versions.get("jax"),
        "results_sha256": files.sha256(folder / "results.json"),
    }


def folders_of(wanted: TableSet, given: str | None) -> list[Path]:
    """Return the folders of a set's runs; those given must be there.

    Raises:
      DataError: a given folder holds no results.json.
    """
    if given is not None:
        folders = [Path(one) for one in given.split(",")]
        for folder in folders:
            if not (folder / "results.json").is_file():
                raise DataError(f"{folder} holds no results.json: it is no finished run.")
        return folders
    return sorted(path.parent for pattern in wanted.runs for path in Path().glob(f"{pattern}/results.json"))


def main(arguments: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("sets", nargs="*", metavar="SET[=RUN,RUN]", help="sets to make (default: all), and their runs")
    p.add_argument("--out", type=Path, default=TABLES, metavar="FOLDER", help="default: docs/tables")
    p.add_argument("--check", action="store_true", help="write nothing; end with 1 where a table would change")
    given = p.parse_args(arguments)
    return outcome.guard(lambda: _run(given))


def _run(arguments: argparse.Namespace) -> int:
    known = declared()
    given = dict(one.partition("=")[::2] for one in arguments.sets)
    for name in given:
        if name not in known:
            raise ConfigError("SET", name, f"one of {', '.join(known)}")
    out = arguments.out
    record = files.read_json(out / RECORD) if (out / RECORD).is_file() else {}
    changed = []
    for name in given or known:
        folders = folders_of(known[name], given.get(name) or None)
        if not folders:
            print(f"{name}: no finished run at {', '.join(known[name].runs)}; its tables stay as they are")
            continue
        texts, facts = made(known[name], folders)
        for file, text in texts.items():
            same = (out / file).is_file() and (out / file).read_text("utf-8") == text
            print(f"{name}: {file} {'unchanged' if same else 'differs' if arguments.check else 'written'}")
            changed += [] if same else [file]
            if not arguments.check:
                files.write_text(out / file, text)
        record |= facts
    if not arguments.check:
        files.write_json(out / RECORD, dict(sorted(record.items())))
    return outcome.WRONG if arguments.check and changed else outcome.DONE


if __name__ == "__main__":
    sys.exit(main())
