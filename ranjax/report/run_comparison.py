"""Several runs side by side on one page: what differs between them, and the same figure of each next to the other's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ranjax.core.errors import DataError
from ranjax.report import claims, figures, markup, page, sections
from ranjax.report import cluster_notes as independent
from ranjax.report import figure_captions as captions
from ranjax.report import labels_text as wording
from ranjax.report import old_configs as earlier
from ranjax.report import pooling as pooled
from ranjax.report import report_tables as tables
from ranjax.report import row_queries as rows_
from ranjax.report.markup import Markup, tag
from ranjax.report.row_queries import Row
from ranjax.report.sections import Book

_OF_SPECTRA = ("run", "condition", "ratio", "method", "features", "sve", "lsvr")
_SIGNS = {claims.ABOVE: "▲", claims.BELOW: "▼", claims.NONE: "○"}


@dataclass(frozen=True)
class Run:
    """One run: its name on the page, the content of its results.json and of its run.json, and its pooled rows."""

    name: str
    results: Mapping[str, Any]
    facts: Mapping[str, Any]
    rows: Sequence[Row]


def load_runs(workdirs: Sequence[Path]) -> list[Run]:
    """Reads results.json and, where there is one, run.json of each folder; names are the shortest that differ.

    Raises:
      DataError: a folder holds no readable results.json, or one is named twice.
    """
    folders = [Path(workdir).resolve() for workdir in workdirs]
    if len(set(folders)) < len(folders):
        raise DataError("The same run is named twice; runs are compared with others.")
    runs = []
    for folder, name in zip(folders, _names(folders)):
        results = rows_.load_results(folder / "results.json")
        facts = rows_.load(folder / "run.json") if (folder / "run.json").exists() else {}
        runs.append(Run(name, results, facts, rows_.pooled(results.get("rows") or [])))
    return runs


def _names(folders: Sequence[Path]) -> list[str]:
    depth = 1
    while True:
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
        depth += 1


def write_comparison(workdirs: Sequence[Path], out_dir: Path) -> Path:
    """Writes index.html and data/*.csv that show runs side by side, and returns the path of index.html.

    Args:
      workdirs: folders of finished runs, two or more; the first is the one that the others are held against.
      out_dir: where the page goes.

    Raises:
      DataError: as `load_runs`, or fewer than two runs are named.
    """
    if len(workdirs) < 2:
        raise DataError(f"{len(workdirs)} run is named; a comparison needs two or more.")
    runs = load_runs(workdirs)
    book = Book({}, [])
    for index, run in enumerate(runs, 1):
        book.csv(
            f"results_{index}_{run.name.replace('/', '_')}", run.results.get("rows") or [], (*rows_.FIELDS, "group")
        )
    written = [
        ("runs", "The runs", _overview(runs)),
        ("differences", "What differs", _differences(runs)),
        (
            "pooled",
            "Over upstream runs",
            pooled.section([run.results for run in runs], book, [run.name for run in runs]),
        ),
        ("noise", "Accuracy against noise", _curves(runs, book)),
        ("tables", "Tables", _tables(runs, book)),
        ("spectra", "Spectra of the features", _spectra(runs, book)),
        ("findings", "Findings of each run", _findings(runs)),
        ("data", "Figures as files", page.files_section(book)),
    ]
    lines = [captions.RECONSTRUCTION]
    for run in runs:
        lines += [line for line in page.notices(run.results.get("card") or {}) if line not in lines]
    notice = tag("div", [tag("p", line) for line in lines], class_="notice", role="note")
    html = page.document(f"{len(runs)} runs side by side", ", ".join(run.name for run in runs), notice, written)
    return page.write_files(Path(out_dir), html, book.files)


def _overview(runs: Sequence[Run]) -> Markup:
    lines = []
    for run in runs:
        stages = [stage for stage in run.facts.get("stages") or [] if wording.finite(stage.get("seconds"))]
        took = wording.duration(sum(stage["seconds"] for stage in stages)) if stages else "–"
        ratios = ", ".join(wording.percent(ratio) for ratio in rows_.ratios(run.rows))
        methods = ", ".join(wording.method_label(name) for name in rows_.methods(rows_.downstream(run.rows)))
        started, command = run.facts.get("started", "–"), run.facts.get("command", "–")
        lines.append([run.name, started, took, ratios, methods, tag("code", command)])
    header = ["Run", "Started", "Took", "Noise ratios", "Methods", "Command"]
    return tables.Table(header, lines, numeric=False).html()


def _differences(runs: Sequence[Run]) -> Markup:
    parts: list[Any] = []
    if any(run.results.get("card") != runs[0].results.get("card") for run in runs):
        parts.append(tag("p", "The data cards differ: figures of these runs need not come from the same test images."))
    configs = [run.results.get("config") or {} for run in runs]
    if said := earlier.provenance([run.name for run in runs], configs):
        parts.append(tag("p", said))
    kinds = [
        ("Configuration", earlier.completed(configs)),
        ("Versions", [earlier.Column(dict(earlier.flat(run.facts.get("versions") or {})), {}) for run in runs]),
        ("Machine", [earlier.Column(dict(earlier.flat(run.facts.get("machine") or {})), {}) for run in runs]),
    ]
    for title, columns in kinds:
        keys = list(dict.fromkeys(key for column in columns for key in column.values))
        lines = [
            [tag("code", key), *(_as_had(column, key) for column in columns)]
            for key in keys
            if len({column.values.get(key) for column in columns}) > 1
        ]
        if lines:
            parts += [tag("h3", title), tables.Table(["Key", *(run.name for run in runs)], lines, numeric=False).html()]
        else:
            parts.append(sections.nothing(f"{title}: no difference."))
    return markup.join(parts)


def _as_had(column: earlier.Column, key: str) -> str:
    shown = column.values.get(key, "–")
    return f"{shown} (default: not in its config)" if key in column.taken else shown


def _together(runs: Sequence[Run]) -> list[Row]:
    """Returns the classification rows of all runs, each with the name of its run as "run"."""
    return [{**row, "run": run.name} for run in runs for row in rows_.downstream(run.rows)]


def _curves(runs: Sequence[Run], book: Book) -> Markup:
    rows = _together(runs)
    parts: list[Any] = []
    for number, (family, members) in enumerate(rows_.families(rows_.methods(rows))):
        panels = _panels(runs, [row for row in rows if row["method"] in members], number)
        if panels:
            parts += [tag("h3", family)] if family else []
            parts += [figures.legend(figures.styles(members), f"compare-{number}"), *panels]
    if not parts:
        return sections.nothing("These runs have no accuracy or AUROC figures.")
    drawn = [row for row in rows if row["metric"] in wording.PLOTTED]
    data = book.csv("compare_against_noise", drawn, ("run", *rows_.FIELDS))
    return markup.join([sections.caption(captions.COMPARE_CURVES), *parts, data])


def _panels(runs: Sequence[Run], rows: Sequence[Row], number: int) -> list[Markup]:
    """Returns, for each task, metric and kind of images, its title and one panel a run and condition on the same axes."""
    looks, attacks = figures.styles(rows_.methods(rows)), rows_.attacks(rows)
    parts: list[Markup] = []
    for task in rows_.distinct(rows, "task"):
        for metric in wording.PLOTTED:
            # Runs may be of different classes, and so of different chance.
            levels = {run.name: wording.chance_level(run.results.get("chance") or {}, metric) for run in runs}
            for split, attack in rows_.columns(rows_.pick(rows, task=task, metric=metric)):
                shared = rows_.pick(rows, task=task, metric=metric, split=split, attack=attack)
                panels = [
                    figures.curve(
                        rows_.of_condition(chosen, condition),
                        shared,
                        looks,
                        levels[run.name],
                        f"{run.name}, condition {wording.condition_label(condition)}",
                        f"compare-{number}-{task}-{metric}-{split}-{attack}-{run.name}-{condition}",
                        list(levels.values()),
                    )
                    for run in runs
                    for chosen in [rows_.pick(shared, run=run.name)]
                    for condition in rows_.conditions(chosen)
                ]
                parts += [tag("h3", _title(metric, split, attack, attacks)), tag("div", panels, class_="panels")]
    return parts


def _title(metric: str, split: str, attack: str, attacks: Sequence[str]) -> str:
    return f"{wording.axis_label(metric)}, {wording.split_label(split)}, {wording.attack_label(attack, attacks)}"


def _tables(runs: Sequence[Run], book: Book) -> Markup:
    rows = _together(runs)
    attacks, tasks = rows_.attacks(rows), rows_.distinct(rows, "task")
    parts: list[Any] = []
    for metric in wording.PLOTTED:
        for split, attack in rows_.columns(rows_.pick(rows, metric=metric)):
            chosen = rows_.pick(rows, metric=metric, split=split, attack=attack)
            lines = []
            for condition in rows_.distinct(chosen, "condition"):
                for ratio in rows_.ratios(rows_.pick(chosen, condition=condition)):
                    for task in tasks:
                        group = rows_.pick(chosen, condition=condition, ratio=ratio, task=task)
                        for method in rows_.methods(group):
                            cells = [rows_.first(group, run=run.name, method=method) for run in runs]
                            start = [
                                wording.condition_label(condition),
                                wording.percent(ratio),
                                wording.method_label(method),
                            ]
                            start += [str(task)] if len(tasks) > 1 else []
                            lines.append([*start, *(_against(cells[0], cell) for cell in cells)])
            header = [
                "Condition",
                "Noise",
                "Method",
                *(["Task"] if len(tasks) > 1 else []),
                *(run.name for run in runs),
            ]
            table = tables.Table(header, lines, heads=len(header) - len(runs))
            label = (
                f"{wording.axis_label(metric)}, {wording.split_label(split)}, {wording.attack_label(attack, attacks)}"
            )
            data = book.csv(f"compare_{metric}_{split}_{attack}", chosen, ("run", *rows_.FIELDS))
            parts.append(tag("details", tag("summary", label), table.html(), data, open=metric == "accuracy"))
    if not parts:
        return sections.nothing("These runs have no accuracy or AUROC figures.")
    held = [tag("p", f"{run.name}: {words}") for run in runs if (words := independent.words(run.results))]
    return markup.join([sections.caption(captions.COMPARE_TABLES), *held, *parts])


def _against(first: Row | None, row: Row | None) -> str:
    """Returns the estimate, with a sign where the row is of another run than the first and both have an interval."""
    shown = wording.estimate(row)
    if first is None or row is None or row is first or not (wording.has_interval(first) and wording.has_interval(row)):
        return shown
    found = claims.ABOVE if row["low"] > first["high"] else claims.BELOW if row["high"] < first["low"] else claims.NONE
    return f"{shown} {_SIGNS[found]}"


def _spectra(runs: Sequence[Run], book: Book) -> Markup:
    parts: list[Any] = []
    records: list[dict[str, Any]] = []
    for run in runs:
        items = run.results.get("spectra") or []
        table = tables.spectra_table(items)
        if table is not None:
            parts += [tag("h3", run.name), table.html()]
            records += [{**item, "run": run.name} for item in items]
    if not parts:
        return sections.nothing("These runs have no spectra.")
    return markup.join([*parts, book.csv("compare_spectra", records, _OF_SPECTRA)])


def _findings(runs: Sequence[Run]) -> Markup:
    return markup.join(
        [part for run in runs for part in (tag("h3", run.name), sections.findings(Book.of(run.results)))]
    )
