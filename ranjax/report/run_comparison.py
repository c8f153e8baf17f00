"""Several runs side by side on one page: what differs between them, and the same figure of each next to the other's."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from ranjax.core.errors import DataError
from ranjax.report import entry_labels as labels
from ranjax.report import figures, interval_notes, old_configs, page, pooling, record_sections, worded_findings, wording
from ranjax.report import report_tables as tables
from ranjax.report import result_frame as frames
from ranjax.report.accuracy_sections import SIGNS, Panels
from ranjax.report.accuracy_sections import findings as findings_section
from ranjax.report.book import Book, Fold
from ranjax.report.report_tables import CONDITION, METHOD, NOISE, TASK, Column, Table
from ranjax.report.stored_results import FIELDS, Results, Row, load, load_results


@dataclass(frozen=True)
class Run:
    """One run: its name on the page, the content of its results.json and of its run.json, and its pooled rows."""

    name: str
    results: Results
    facts: Results
    rows: pd.DataFrame


def load_runs(workdirs: Sequence[Path]) -> list[Run]:
    """Read results.json and, where there is one, run.json of each folder; names are the shortest that differ.

    Raises:
      DataError: a folder holds no readable results.json, or one is named twice.
    """
    folders = [Path(workdir).resolve() for workdir in workdirs]
    if len(set(folders)) < len(folders):
        raise DataError("The same run is named twice; runs are compared with others.")
    runs = []
    for folder, name in zip(folders, _names(folders)):
        results = load_results(folder / "results.json")
        facts = load(folder / "run.json") if (folder / "run.json").exists() else {}
        runs.append(Run(name, results, facts, frames.rows_frame(results.get("rows"))))
    return runs


def _names(folders: Sequence[Path]) -> list[str]:
    depth = 1
    while True:
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
        depth += 1


def write_comparison(workdirs: Sequence[Path], out_dir: Path, defaults: Mapping[str, object] | None = None) -> Path:
    """Write index.html and data/*.csv that show runs side by side, and return the path of index.html.

    Args:
      workdirs: folders of finished runs, two or more; the first is the one that the others are held against.
      out_dir: where the page goes.
      defaults: the configuration keys of this version with their defaults, for runs of earlier versions.

    Raises:
      DataError: as `load_runs`, or fewer than two runs are named.
    """
    if len(workdirs) < 2:
        raise DataError(f"{len(workdirs)} run is named; a comparison needs two or more.")
    runs = load_runs(workdirs)
    names, results = [run.name for run in runs], [run.results for run in runs]
    with labels.labels_of(results):
        book = Book({}, frames.rows_frame([]), defaults=defaults or {})
        for index, run in enumerate(runs, 1):
            name = f"results_{index}_{run.name.replace('/', '_')}"
            book.csv(name, run.results.get("rows") or [], (*FIELDS, "group"))
        sections: list[tuple[str, str, Callable[[], Mapping[str, object]]]] = [
            ("runs", "The runs", lambda: _overview(runs)),
            ("differences", "What differs", lambda: _differences(runs, book)),
            ("pooled", "Over upstream runs", lambda: pooling.over_runs(results, book, names)),
            ("noise", "Accuracy against noise", lambda: _curves(runs, book)),
            ("tables", "Tables", lambda: _tables(runs, book)),
            ("spectra", "Spectra of the features", lambda: _spectra(runs, book)),
            ("findings", "Findings of each run", lambda: _findings(runs)),
        ]
        written = [page.written(anchor, title, data(), "comparison") for anchor, title, data in sections]
        written.append(page.written("data", "Figures as files", record_sections.data(book)))
        notices = [line for run in runs for line in record_sections.notices(run.results.get("card") or {})]
        html = page.document(f"{len(runs)} runs side by side", ", ".join(names), list(dict.fromkeys(notices)), written)
        return page.write_files(Path(out_dir), html, book.files)


def markdown(workdirs: Sequence[Path], defaults: Mapping[str, object] | None = None) -> str:
    """Return the claims and main tables of runs as Markdown (`pooling.markdown`).

    Raises:
      DataError: as `load_runs`, or the runs differ in more than their seed.
    """
    runs = load_runs(workdirs)
    return pooling.markdown([run.results for run in runs], [run.name for run in runs], defaults)


def _overview(runs: Sequence[Run]) -> dict[str, object]:
    lines = []
    for run in runs:
        stages = [stage for stage in run.facts.get("stages") or [] if wording.finite(stage.get("seconds"))]
        took = wording.duration(sum(stage["seconds"] for stage in stages)) if stages else "–"
        ratios = ", ".join(map(wording.percent, frames.ratios(run.rows)))
        methods = ", ".join(map(labels.method_label, frames.methods(frames.downstream(run.rows))))
        started, command = str(run.facts.get("started", "–")), str(run.facts.get("command", "–"))
        lines.append([run.name, started, took, ratios, methods, command])
    header = ["Run", "Started", "Took", "Noise ratios", "Methods", "Command"]
    return {"table": Table(header, lines, numeric=False, code=frozenset({5}))}


def _differences(runs: Sequence[Run], book: Book) -> dict[str, object]:
    names, configs = [run.name for run in runs], [run.results.get("config") or {} for run in runs]
    kinds = {"Configuration": old_configs.completed(configs, book.defaults)}
    for name in ("versions", "machine"):
        found = [dict(old_configs.flat(run.facts.get(name) or {})) for run in runs]
        kinds[name.capitalize()] = [old_configs.Column(values, {}) for values in found]
    shown = {}
    for title, columns in kinds.items():
        keys = dict.fromkeys(key for column in columns for key in column.values)
        varied = [key for key in keys if len({column.values.get(key) for column in columns}) > 1]
        lines = [[key, *(_with_default(column, key) for column in columns)] for key in varied]
        shown[title] = Table(["Key", *names], lines, numeric=False, code=frozenset({0})) if lines else None
    return {
        "other_card": any(run.results.get("card") != runs[0].results.get("card") for run in runs),
        "provenance": old_configs.provenance(names, configs, book.defaults),
        "kinds": shown,
    }


def _with_default(column: old_configs.Column, key: str) -> str:
    shown = column.values.get(key, "–")
    return f"{shown} (default: not in its config)" if key in column.taken else shown


def _together(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the classification rows of all runs, each with the name of its run as "run"."""
    items = [{**row, "run": run.name} for run in runs for row in frames.records(frames.downstream(run.rows))]
    return frames.frame_of(items).assign(run=[item["run"] for item in items])


def _curves(runs: Sequence[Run], book: Book) -> dict[str, object]:
    frame = _together(runs)
    drawn = frame[frame["metric"].isin(wording.PLOTTED)]
    families = []
    for number, (family, members) in enumerate(frames.families(frames.methods(frame))):
        rows = _panels(runs, frame[frame["method"].isin(members)], number)
        if rows:
            families.append((family, figures.legend(figures.styles(members), f"compare-{number}"), rows))
    file = book.csv("compare_against_noise", drawn, ("run", *FIELDS)) if families else ""
    return {"families": families, "file": file}


def _panels(runs: Sequence[Run], frame: pd.DataFrame, number: int) -> list[Panels]:
    """Return, for each task, metric and kind of images, its title and one panel a run and condition on the same axes."""
    looks, attacks = figures.styles(frames.methods(frame)), frames.attacks(frame)
    rows = []
    for task in frames.distinct(frame, "task"):
        for metric in wording.PLOTTED:
            # Runs may be of different classes, and so of different chance.
            levels = {run.name: wording.chance_level(run.results.get("chance") or {}, metric) for run in runs}
            of_metric = frames.where(frame, task=task, metric=metric)
            for split, attack in frames.columns(of_metric):
                shared = frames.where(of_metric, split=split, attack=attack)
                plots: list[Markup] = []
                for name, chosen in shared.groupby("run", sort=False):
                    for condition in frames.conditions(chosen):
                        title = f"{name}, condition {wording.condition_label(condition)}"
                        key = f"compare-{number}-{task}-{metric}-{split}-{attack}-{name}-{condition}"
                        drawn, levels_ = frames.of_condition(chosen, condition), list(levels.values())
                        plots.append(figures.curve(drawn, shared, looks, levels[name], title, key, levels_))
                rows.append(Panels(_title(metric, split, attack, attacks), plots))
    return rows


def _title(metric: str, split: str, attack: str, attacks: Sequence[str]) -> str:
    return f"{wording.axis_label(metric)}, {wording.split_label(split)}, {labels.attack_label(attack, attacks)}"


def _tables(runs: Sequence[Run], book: Book) -> dict[str, object]:
    frame = _together(runs)
    attacks = frames.attacks(frame)
    heads = [CONDITION, NOISE, METHOD, *([TASK] if len(frames.distinct(frame, "task")) > 1 else [])]
    columns: list[Row] = [{"run": run.name} for run in runs]
    folds = []
    for metric in wording.PLOTTED:
        of_metric = frames.where(frame, metric=metric)
        for split, attack in frames.columns(of_metric):
            chosen = frames.where(of_metric, split=split, attack=attack)
            first = {_cell(row): row for row in frames.records(frames.where(chosen, run=runs[0].name))}
            cell = functools.partial(_against, first)
            table = tables.cross_table(chosen, heads, _BY_RUN, cell, columns=columns)
            file = book.csv(f"compare_{metric}_{split}_{attack}", chosen, ("run", *FIELDS))
            folds.append(Fold(_title(metric, split, attack, attacks), table, file, metric == "accuracy"))
    notes = {run.name: words for run in runs if (words := interval_notes.clusters(run.results))}
    return {"folds": folds, "notes": notes}


_BY_RUN = Column("", lambda row: row["run"], ("run",))


def _cell(row: Row) -> tuple[object, ...]:
    return tuple(row.get(name) for name in ("condition", "ratio", "method", "task"))


def _against(first: Mapping[tuple[object, ...], Row], row: Row | None) -> str:
    """Return the estimate, with a sign where the row is of another run than the first and both have an interval."""
    shown = wording.estimate(row)
    base = None if row is None else first.get(_cell(row))
    if row is None or base is None or row["run"] == base["run"]:
        return shown
    if not (wording.has_interval(base) and wording.has_interval(row)):
        return shown
    return f"{shown} {SIGNS[worded_findings.side_of(row, base['low'], base['high'])]}"


def _spectra(runs: Sequence[Run], book: Book) -> dict[str, object]:
    shown: dict[str, Table] = {}
    items: list[dict[str, object]] = []
    for run in runs:
        found = run.results.get("spectra") or []
        table = tables.spectra_table(frames.frame_of(found))
        if table is not None:
            shown[run.name] = table
            items += [{**item, "run": run.name} for item in found]
    fields = ("run", "condition", "ratio", "method", "features", "sve", "lsvr")
    return {"tables": shown, "file": book.csv("compare_spectra", items, fields) if shown else ""}


def _findings(runs: Sequence[Run]) -> dict[str, object]:
    return {"runs": {run.name: findings_section(Book.of(run.results))["topics"] for run in runs}}
