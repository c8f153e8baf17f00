"""Several runs side by side on one page: what differs between them, and the same figure of each next to the other's."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ranjax.core.errors import DataError
from ranjax.evaluation.result_rows import FIELDS
from ranjax.report import (
    answer,
    figures,
    interval_notes,
    old_configs,
    page,
    pooling,
    record_sections,
    worded_findings,
    wording,
)
from ranjax.report import entry_labels as labels
from ranjax.report import report_tables as tables
from ranjax.report import result_frame as frames
from ranjax.report.accuracy_sections import SIGNS, Part, findings, parts
from ranjax.report.blocks import Blocks, Details, Heading, Panels, Text, missing
from ranjax.report.book import Book
from ranjax.report.report_tables import CONDITION, METHOD, NOISE, TASK, Column, Table
from ranjax.report.stored_results import Results, Row, load, load_results


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
      workdirs: folders of finished runs, two or more; the others are compared with the first.
      out_dir: where the page goes.
      defaults: the configuration keys of this version with their defaults, for runs of earlier versions.

    Raises:
      DataError: as `load_runs`, or fewer than two runs are named.
    """
    if len(workdirs) < 2:
        raise DataError(f"{len(workdirs)} run is named; a comparison needs two or more.")
    runs = load_runs(workdirs)
    names, results = [run.name for run in runs], [run.results for run in runs]
    notices = [line for one in results for line in record_sections.notices(one.get("card") or {})]
    sections = [
        page.Section("runs", "The runs", lambda _: _overview(runs), True),
        page.Section("differences", "What differs", lambda book: _differences(runs, book), True),
        page.Section("pooled", "Over upstream runs", lambda book: pooling.over_runs(results, names, book)),
        page.Section("noise", "Accuracy against noise", lambda book: _curves(runs, book)),
        page.Section("tables", "Tables", lambda book: _tables(runs, book)),
        page.Section("spectra", "Spectra of the features", lambda book: _spectra(runs, book)),
        page.Section("findings", "Findings of each run", lambda _: _findings(runs)),
        page.Section("data", "Figures as files", record_sections.data),
    ]
    with labels.labels_of(results):
        book = Book({}, frames.rows_frame([]), defaults=defaults or {})
        for index, run in enumerate(runs, 1):
            name = f"results_{index}_{run.name.replace('/', '_')}"
            book.csv(name, run.results.get("rows") or [], (*FIELDS, "group"))
        reason = pooling.not_pooled([one.get("config") or {} for one in results], book.defaults)
        found = None if reason else answer.answer(results)
        title, lead = f"{len(runs)} runs side by side", ", ".join(names)
        html = page.document(title, lead, list(dict.fromkeys(notices)), book, sections, "comparison", found)
        return page.write_files(Path(out_dir), html, book.files)


def markdown(workdirs: Sequence[Path], defaults: Mapping[str, object] | None = None) -> str:
    """Return the claims and main tables of runs as Markdown (`pooling.markdown`).

    Raises:
      DataError: as `load_runs`, or the runs differ in more than their seed.
    """
    runs = load_runs(workdirs)
    return pooling.markdown([run.results for run in runs], [run.name for run in runs], defaults)


def _overview(runs: Sequence[Run]) -> Blocks:
    lines = []
    for run in runs:
        stages = [stage for stage in run.facts.get("stages") or [] if wording.finite(stage.get("seconds"))]
        took = wording.duration(record_sections.seconds_of(stages)) if stages else "–"
        ratios = ", ".join(map(wording.percent, frames.values(run.rows, "ratio")))
        methods = ", ".join(map(labels.method_label, frames.values(frames.downstream(run.rows), "method")))
        started, command = str(run.facts.get("started", "–")), str(run.facts.get("command", "–"))
        lines.append([run.name, started, took, ratios, methods, command])
    header = ["Run", "Started", "Took", "Noise ratios", "Methods", "Command"]
    yield Table(header, lines, numeric=False, code=frozenset({5}))


def _differences(runs: Sequence[Run], book: Book) -> Blocks:
    names, configs = [run.name for run in runs], [run.results.get("config") or {} for run in runs]
    if any(run.results.get("card") != runs[0].results.get("card") for run in runs):
        yield Text("The data cards differ: figures of these runs need not come from the same test images.")
    if words := old_configs.provenance(names, configs, book.defaults):
        yield Text(words)
    kinds = {"Configuration": old_configs.completed(configs, book.defaults)}
    for name in ("versions", "machine"):
        found = [dict(old_configs.flat(run.facts.get(name) or {})) for run in runs]
        kinds[name.capitalize()] = [old_configs.Column(values, {}) for values in found]
    for title, columns in kinds.items():
        keys = dict.fromkeys(key for column in columns for key in column.values)
        varied = [key for key in keys if len({column.values.get(key) for column in columns}) > 1]
        if varied:
            lines = [[key, *(_with_default(column, key) for column in columns)] for key in varied]
            yield Heading(title)
            yield Table(["Key", *names], lines, numeric=False, code=frozenset({0}))
        else:
            yield missing(f"{title}: no difference.")


def _with_default(column: old_configs.Column, key: str) -> str:
    shown = column.values.get(key, "–")
    return f"{shown} (default: not in its config)" if key in column.taken else shown


def _together(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the classification rows of all runs, each with the name of its run as "run"."""
    items = [{**row, "run": run.name} for run in runs for row in frames.records(frames.downstream(run.rows))]
    return frames.frame_of(items).assign(run=[item["run"] for item in items])


def _curves(runs: Sequence[Run], book: Book) -> Blocks:
    frame = _together(runs)
    plotted = frame[frame["metric"].isin(wording.PLOTTED)]
    if len(plotted):
        for part in parts(plotted, "compare"):
            yield from part.head
            yield from _panels(runs, part)
        yield book.csv("compare_against_noise", plotted, ("run", *FIELDS))


def _panels(runs: Sequence[Run], part: Part) -> Blocks:
    """Yield, for each task, metric and kind of images, a heading and one panel a run and condition on the same axes."""
    frame, looks = part.rows, part.looks
    attacks = frames.values(frame, "attack")
    for (task, metric), of_metric in frames.ordered(frame, ["task", "metric"]).groupby(["task", "metric"], sort=False):
        # Runs may be of different classes, and so of different chance.
        levels = {run.name: wording.chance_level(run.results.get("chance") or {}, metric) for run in runs}
        for split, attack in frames.columns(of_metric):
            shared = frames.where(of_metric, split=split, attack=attack)
            plots = []
            for run, chosen in shared.groupby("run", sort=False):
                for condition in frames.conditions(chosen):
                    title = f"{run}, condition {wording.condition_label(condition)}"
                    key = f"compare-{part.number}-{task}-{metric}-{split}-{attack}-{run}-{condition}"
                    drawn, every = frames.of_condition(chosen, condition), list(levels.values())
                    plots.append(figures.curve(drawn, shared, looks, levels[run], title, key, every))
            yield Heading(_title(metric, split, attack, attacks))
            yield Panels(plots)


def _title(metric: str, split: str, attack: str, attacks: Sequence[str]) -> str:
    return f"{wording.axis_label(metric)}, {wording.split_label(split)}, {labels.attack_label(attack, attacks)}"


def _tables(runs: Sequence[Run], book: Book) -> Blocks:
    frame = _together(runs)
    attacks = frames.values(frame, "attack")
    heads = [CONDITION, NOISE, METHOD, *([TASK] if len(frames.values(frame, "task")) > 1 else [])]
    columns: list[Row] = [{"run": run.name} for run in runs]
    plotted = frames.ordered(frame[frame["metric"].isin(wording.PLOTTED)], ["metric"])
    for run in runs if len(plotted) else ():
        if words := interval_notes.clusters(run.results):
            yield Text(f"{run.name}: {words}")
    for metric, of_metric in plotted.groupby("metric", sort=False):
        for split, attack in frames.columns(of_metric):
            chosen = frames.where(of_metric, split=split, attack=attack)
            first = {_cell(row): row for row in frames.records(frames.where(chosen, run=runs[0].name))}
            table = tables.cross_table(chosen, heads, _BY_RUN, functools.partial(_against, first), columns=columns)
            file = book.csv(f"compare_{metric}_{split}_{attack}", chosen, ("run", *FIELDS))
            yield Details(_title(metric, split, attack, attacks), [table, file], metric == "accuracy")


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


def _spectra(runs: Sequence[Run], book: Book) -> Blocks:
    items: list[dict[str, object]] = []
    for run in runs:
        found = run.results.get("spectra") or []
        if table := tables.spectra_table(frames.frame_of(found)):
            yield Heading(run.name)
            yield table
            items += [{**item, "run": run.name} for item in found]
    if items:
        yield book.csv("compare_spectra", items, ("run", "condition", "ratio", "method", "features", "sve", "lsvr"))


def _findings(runs: Sequence[Run]) -> Blocks:
    for run in runs:
        yield Heading(run.name)
        found = list(findings(Book.of(run.results)))
        yield from found or [missing("No figure of this run has an interval, so no finding is worded.")]
