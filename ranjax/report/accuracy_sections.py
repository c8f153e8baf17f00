"""Sections on accuracy: claims, findings, noise, radius, methods compared, tables, retrieval, groups, corruptions.

Each function takes a `Book` and returns the data of the template of the same section; an empty first list says that
the run has nothing to show there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, cast

import pandas as pd
from markupsafe import Markup

from ranjax.report import entry_labels as labels
from ranjax.report import figures, paper_claims, worded_findings, wording
from ranjax.report import report_tables as tables
from ranjax.report import result_frame as frames
from ranjax.report.book import Book, Fold
from ranjax.report.report_tables import CONDITION, METHOD, NOISE, TASK, Column, Table
from ranjax.report.stored_results import FIELDS, Results, Row
from ranjax.report.worded_findings import ABOVE, BELOW, NONE

SIGNS = {ABOVE: "▲", BELOW: "▼", NONE: "○"}
_CLAIM_SIGNS = {paper_claims.SHOWN: "✓", paper_claims.OPPOSITE: "✗", paper_claims.NOT_SHOWN: "○"}
_SHOWN = {ABOVE: "higher", BELOW: "lower", NONE: "not shown"}
_TEST = ("difference", "low", "high", "p", "p_holm", "effect", "n")
_WHERE = ("condition", "ratio", "task", "split", "attack", "metric")
ABLATION_FIELDS = ("condition", "ratio", "b", "split", "attack", "metric", "difference", "low", "high", "p", "p_holm")
ABLATION_FIELDS += ("seeds",)


def difference(row: Row | None) -> str:
    """Return a difference with its interval."""
    return "–" if row is None else wording.estimate({**row, "value": row["difference"]})


def _p(value: object) -> str:
    if not wording.finite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _effect(row: Row) -> str:
    effect = row.get("effect")
    return f"{effect:.2f}" if wording.finite(effect) else "–"


DIFFERENCE = Column("Difference [95 %]", difference)
P_HOLM = Column("p (Holm)", lambda row: _p(row.get("p_holm")))
EFFECT = Column("Effect", _effect)


class Panels(NamedTuple):
    """A row of plots under a heading, which may be empty."""

    heading: str
    plots: list[Markup]


class Family(NamedTuple):
    """The plots of methods that are drawn together, under a heading, which may be empty, with one legend."""

    heading: str
    legend: list[figures.LegendEntry]
    rows: list[Panels]


def condition_heading(frame: pd.DataFrame, condition: str) -> str:
    """Return ", condition NAME" where the rows have several conditions."""
    return f", condition {wording.condition_label(condition)}" if len(frames.conditions(frame)) > 1 else ""


def _condition_tasks(frame: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame, str]]:
    """Return (condition, task, rows, heading) of each condition and task; the heading is empty where there is only one."""
    found = []
    for condition in frames.conditions(frame):
        chosen = frames.of_condition(frame, condition)
        tasks = frames.distinct(chosen, "task")
        for task in tasks:
            heading = f"Condition {wording.condition_label(condition)}" + (f", task {task}" if len(tasks) > 1 else "")
            found.append((condition, task, frames.where(chosen, task=task), heading))
    return found if len(found) > 1 else [(*one[:3], "") for one in found]


def claim_rows(found: Sequence[paper_claims.Claim]) -> list[Row]:
    """Return claims as rows: the difference of each with its claim, the words for it, and its verdict."""
    names = ("claim", "measured", "wanted", "runs", "p_holm", "verdict")
    return [cast(Row, {**one.item, **{name: getattr(one, name) for name in names}}) for one in found]


def claims_table(found: Sequence[paper_claims.Claim], over_lines: bool = False) -> Table:
    """Return one line a figure: claim, measured figure, verdict, difference with its interval, p, effect size.

    Args:
      found: the claims.
      over_lines: whether claims stand over their lines, so that the verdicts are in sight on a narrow screen.
    """
    rows = claim_rows(found)
    columns = [
        Column("Verdict", lambda row: f"{_CLAIM_SIGNS[row['verdict']]} {row['verdict']}"),
        DIFFERENCE,
        Column("Claimed", lambda row: "above 0" if row["wanted"] > 0 else "below 0"),
        P_HOLM,
        EFFECT,
    ]
    starts = {index for index, row in enumerate(rows) if not index or rows[index - 1]["claim"] != row["claim"]}
    measured = Column("Measured", lambda row: row["measured"])
    if over_lines:
        return replace(
            tables.listing(rows, [measured], columns), titles={index: rows[index]["claim"] for index in starts}
        )
    for index in set(range(len(rows))) - starts:
        rows[index]["claim"] = ""
    table = tables.listing(rows, [Column("Claim", lambda row: row["claim"]), measured], columns)
    return replace(table, breaks=frozenset(starts - {0}))


CLAIM_FIELDS = ("claim", "measured", "wanted", *_TEST, "runs", "verdict")


def claims(book: Book) -> dict[str, object]:
    """Return the claims of the abstract, each with the figures that stand for it here."""
    found = paper_claims.claims([book.results])
    return {
        "claims": claims_table(found, over_lines=True) if found else None,
        "file": book.csv("claims", claim_rows(found), CLAIM_FIELDS) if found else "",
    }


def findings(book: Book) -> dict[str, object]:
    """Return the worded findings by topic."""
    found = worded_findings.headlines(book.results)
    topics = {
        topic: [one for one in found if one.topic == topic] for topic in dict.fromkeys(one.topic for one in found)
    }
    return {"topics": topics}


def noise(book: Book) -> dict[str, object]:
    """Return accuracy and AUROC against the noise ratio."""
    frame = frames.downstream(book.rows)
    chance = book.results.get("chance") or {}
    shown = []
    for condition, task, chosen, heading in _condition_tasks(frame):
        metrics = [name for name in wording.PLOTTED if len(frames.where(chosen, metric=name))]
        families = []
        for number, (family, members) in enumerate(
            frames.families(frames.methods(chosen[chosen["metric"].isin(metrics)]))
        ):
            drawn = chosen[chosen["method"].isin(members)]
            key = f"curves-{condition}-{task}-{number}"
            rows = [
                Panels(
                    wording.axis_label(metric),
                    figures.curves(drawn, metric, wording.chance_level(chance, metric), key),
                )
                for metric in metrics
            ]
            families.append(Family(family, figures.legend(figures.styles(members), key), rows))
        files = [
            book.csv(f"{metric}_against_noise_{condition}_{task}", frames.where(chosen, metric=metric))
            for metric in metrics
        ]
        if metrics:
            shown.append((heading, families, files))
    attacked = any(name != "none" for name in frames.attacks(frame))
    return {"conditions": shown, "one_ratio": len(frames.ratios(frame)) == 1, "attacked": attacked}


def radius_points(frame: pd.DataFrame, main: object) -> list[Row]:
    """Return rows of accuracy with their "radius" in 1/255: the points of the curve, of which 0 is not attacked.

    Runs of before those had such a point begin with the whole test set.

    Args:
      frame: pooled rows of one condition and ratio.
      main: evaluate.epsilon of the config.
    """
    at_main = wording.radius_of(main)
    worst = "worst" if len(frames.where(frame, attack="worst")) else "pgd"
    radii = {worst: at_main} if at_main is not None else {}
    radii |= {} if len(frames.where(frame, attack=f"{worst}@0")) else {"none": 0.0}
    found = []
    for row in frames.records(frames.where(frame, metric="accuracy")):
        radius = radii.get(row["attack"], wording.radius(row["attack"]))
        if radius is not None:
            found.append(cast(Row, {**row, "radius": radius}))
    return found


def radius(book: Book) -> dict[str, object]:
    """Return accuracy against the radius of the attack, a panel a condition, ratio and split."""
    main = ((book.results.get("config") or {}).get("evaluate") or {}).get("epsilon")
    frame = frames.where(book.rows, task="finding")
    chance = wording.chance_level(book.results.get("chance") or {}, "accuracy")
    drawn: list[Row] = []
    families = []
    names = frames.methods(frame[frame["attack"].astype(str).str.contains(frames.AT_RADIUS)])
    for number, (family, members) in enumerate(frames.families(names)):
        looks = figures.styles(members)
        rows = []
        for place, condition in enumerate(frames.conditions(frame)):
            plots = []
            of_condition = frames.of_condition(frame, condition)
            # The clean encoder is drawn with the first condition.
            ratios = [ratio for ratio in frames.ratios(of_condition) if ratio or not place]
            for split, ratio in [(split, ratio) for split in frames.splits(frame) for ratio in ratios]:
                cell = frames.where(of_condition, ratio=ratio, split=split)
                if not any((wording.radius(attack) or 0) > 0 for attack in cell["attack"]):
                    continue
                points = [point for point in radius_points(cell, main) if point["method"] in looks]
                drawn += points
                title = f"{wording.percent(ratio)} noise, {wording.split_label(split)}"
                key = f"radius-{condition}-{ratio}-{split}-{number}"
                plots.append(figures.radius_curve(points, looks, chance, title, key))
            several = len(frames.conditions(frame)) > 1
            if plots:
                rows.append(Panels(f"Condition {wording.condition_label(condition)}" if several else "", plots))
        families.append(Family(family, figures.legend(looks, f"radii-{number}"), rows))
    file = book.csv("accuracy_against_radius", _items(drawn), (*FIELDS, "radius")) if drawn else ""
    return {"families": families if drawn else [], "file": file}


def _items(rows: Sequence[Row]) -> list[dict[str, object]]:
    return [dict(row) for row in rows]


def comparisons(book: Book) -> dict[str, object]:
    """Return paired differences between methods: plots of those in accuracy, and every one in a table."""
    judged = frames.frame_of(_items(worded_findings.judged(book.results.get("comparisons"))))
    accuracy = frames.where(judged, metric="accuracy")
    plots = []
    for condition in frames.conditions(accuracy):
        chosen = frames.of_condition(accuracy, condition)
        for (first, task), group in chosen.groupby(["a", "task"], sort=False):
            heading = f"{labels.method_label(first)} minus each other method, accuracy"
            drawn = figures.differences(group, f"differences-{condition}-{first}-{task}")
            plots.append(Panels(heading + condition_heading(accuracy, condition), drawn))
    folds = []
    for metric, chosen in judged.groupby("metric", sort=False):
        fields = ("condition", "ratio", "a", "b", "task", "split", "attack", "metric", *_TEST, "seeds", "verdict")
        file = book.csv(f"comparisons_{metric}", chosen, fields)
        summary = f"All {len(chosen)} comparisons in {wording.metric_label(str(metric))}"
        folds.append(Fold(summary, _comparison_table(chosen, judged), file))
    return {"plots": plots, "folds": folds}


def _comparison_table(frame: pd.DataFrame, among: pd.DataFrame) -> Table:
    def verdict(row: Row) -> str:
        return f"{SIGNS[row['verdict']]} {'not shown' if row['verdict'] == NONE else row['verdict']}"

    heads = [
        NOISE,
        *([CONDITION] if len(frames.conditions(among)) > 1 else []),
        *([TASK] if len(frames.distinct(among, "task")) > 1 else []),
        Column("Methods", lambda row: f"{labels.method_label(row['a'])} − {labels.method_label(row['b'])}"),
        tables.images(among),
    ]
    columns = [Column("Verdict", verdict), DIFFERENCE, Column("p", lambda row: _p(row.get("p"))), P_HOLM, EFFECT]
    return tables.listing(frames.records(frame), heads, columns)


def tested(items: Sequence[Row] | None) -> list[Row]:
    """Return the differences whose p is known, metric by metric, with "p_holm" and the verdict after correction."""
    found = [item for item in worded_findings.judged(items) if "p_holm" in item]
    for item in found:
        item["verdict"] = _SHOWN[item["verdict"]]
    return [
        item for metric in dict.fromkeys(one["metric"] for one in found) for item in found if item["metric"] == metric
    ]


_VERDICT_SIGNS = {words: SIGNS[verdict] for verdict, words in _SHOWN.items()}
_EFFECTS = {
    "noise": "A method on the noisy encoder less the same on the clean one",
    "recipe": "Another recipe less the first one, at the same noise ratio",
    "restored": "RAN on the noisy encoder less LP on the clean one",
}


def effects(book: Book) -> dict[str, object]:
    """Return what the noise did to each method, paired by test image with the clean encoder; and how recipes differ."""
    every: list[Row] = []
    folds = []
    for kind, title in _EFFECTS.items():
        found = tested([item for item in book.results.get("effects") or [] if item.get("kind") == kind])
        if not found:
            continue
        every += found
        frame = frames.frame_of(_items(found))
        task = [TASK] if len(frames.distinct(frame, "task")) > 1 else []
        verdict = Column("Verdict", lambda row: f"{_VERDICT_SIGNS[row['verdict']]} {row['verdict']}")
        heads = [CONDITION, NOISE, METHOD, *task, tables.images(frame)]
        shown = sum(item["verdict"] != _SHOWN[NONE] for item in found)
        summary = f"{title}: {shown} of {len(found)} differences are shown"
        folds.append(Fold(summary, tables.listing(found, heads, [verdict, DIFFERENCE, P_HOLM, EFFECT])))
    any_interval = any(wording.has_interval(item) for item in book.results.get("effects") or [])
    fields = ("kind", "condition", "ratio", "method", "task", "split", "attack", "metric", *_TEST, "seeds", "verdict")
    return {"folds": folds, "file": book.csv("effects", _items(every), fields) if any_interval else ""}


def main_tables(book: Book) -> dict[str, object]:
    """Return every classification metric by noise ratio and method."""
    frame = frames.downstream(book.rows)
    shown = []
    for condition, task, chosen, heading in _condition_tasks(frame):
        folds = []
        for metric in [
            name for name in frames.metrics(chosen) if not _of_one_class(name) and name not in ("sve", "lsvr")
        ]:
            table = tables.main_table(chosen, metric)
            lower = ", lower is better" if metric in wording.LOWER_IS_BETTER else ""
            file = book.csv(f"table_{metric}_{condition}_{task}", frames.where(chosen, metric=metric))
            opened = metric in wording.PLOTTED and condition == frames.conditions(frame)[0]
            if table is not None:
                folds.append(Fold(wording.axis_label(metric) + lower, table, file, opened))
        folds += _by_class(book, chosen.loc[[_of_one_class(name) for name in chosen["metric"]]], f"{condition}_{task}")
        shown.append((heading, folds))
    return {"conditions": shown}


def _of_one_class(metric: str) -> bool:
    return metric.startswith(wording.PER_CLASS)


def _by_class(book: Book, frame: pd.DataFrame, name: str) -> Iterator[Fold]:
    """Yield AUROC by class, a table a split and attack."""
    for split, attack in frames.columns(frame):
        chosen = frames.where(frame, split=split, attack=attack)
        summary = f"AUROC by class, {tables.column_label((split, attack), frames.attacks(frame)).lower()}"
        file = book.csv(f"table_auroc_by_class_{split}_{attack}_{name}", chosen)
        yield Fold(summary, tables.class_table(chosen), file)


def ablation_differences(runs: Sequence[Results]) -> list[Row]:
    """Return the worth of each part of RAN that every run compared, with "p_holm"; several runs are one, over runs.

    Args:
      runs: contents of results.json that differ in their seed alone.
    """
    fields = ("condition", "ratio", "a", "b", "task", "split", "attack", "metric")
    found = [
        {
            tuple(item.get(name) for name in fields): item
            for item in results.get("comparisons") or []
            if labels.is_ablation(item) and wording.has_interval(item)
        }
        for results in runs
    ]
    common = [key for key in found[0] if all(key in items for items in found)]
    return tested([paper_claims.over_runs([items[key] for items in found]) for key in common])


def ablation_table(items: Sequence[Row]) -> Table | None:
    """Return a line for each part and ratio, a column for each kind of images; None where nothing was left out."""
    if not items:
        return None

    def cell(row: Row | None) -> str:
        return "–" if row is None else f"{_VERDICT_SIGNS[row['verdict']]} {difference(row)}"

    frame = frames.frame_of(_items(items))
    part = Column("Part", lambda row: labels.part_label(row["b"]), ("b",))
    heads = [*tables.condition_and_noise(frame), part]
    return tables.cross_table(frame, heads, tables.images(frame), cell)


def ablation(book: Book) -> dict[str, object]:
    """Return what each part of RAN is worth in this run."""
    items = ablation_differences([{"comparisons": book.results.get("ablation")}])
    file = book.csv("ablation", _items(items), ABLATION_FIELDS) if items else ""
    return {"table": ablation_table(items), "file": file}


def without_head(book: Book) -> dict[str, object]:
    """Return zero-shot classification and retrieval, with chance."""
    chance = book.results.get("chance") or {}
    kinds = [
        ("Zero-shot classification", "zero_shot", frames.where(frames.downstream(book.rows), method="zero_shot")),
        ("Retrieval", frames.RETRIEVAL, frames.where(book.rows, task=frames.RETRIEVAL)),
        ("Retrieval by sentences", frames.SENTENCES, frames.where(book.rows, task=frames.SENTENCES)),
    ]
    shown = []
    for title, name, frame in kinds:
        for condition in frames.conditions(frame):
            chosen = frames.of_condition(frame, condition)
            table = tables.without_head_table(chosen, chance, name if name == frames.SENTENCES else "")
            heading = title + condition_heading(frame, condition)
            shown.append((heading, table, book.csv(f"{name}_{condition}", chosen)))
    return {"tables": shown}


def attacked_pairs(book: Book) -> dict[str, object]:
    """Return retrieval under attacks on images, reports or both, with the attacks' success by both definitions."""
    frame = frames.where(book.rows, task="retrieval_attacked")
    shown = []
    attacked = Column("Attacked", _attacked, ("attack",))
    for starts, title in ((("recall@",), "Recall"), (("recall_drop@", "turned_wrong@"), "Success of the attack")):
        chosen = frame[frame["metric"].astype(str).str.startswith(starts)]
        if len(chosen):
            heads = [*tables.condition_and_noise(chosen), METHOD, attacked]
            shown.append((title, tables.cross_table(chosen, heads, tables.BY_METRIC)))
    return {"tables": shown, "file": book.csv("attacked_pairs", frame) if len(frame) else ""}


def _attacked(row: Row) -> str:
    return "nothing" if row["attack"] == "none" else labels.attack_name(row["attack"])


def _with_group(row: Row | None) -> str:
    """Return the estimate, followed by the group where a row is that of the worst one."""
    return wording.estimate(row) + (f" {row['group']}" if row is not None and row.get("group") else "")


def groups(book: Book) -> dict[str, object]:
    """Return accuracy of the worst group of each kind, and of every group."""
    frame = frames.where(book.rows, task="groups")
    names = frame["metric"].astype(str)
    worst = frame[names.str.startswith("worst_group/")]
    kinds = Column("", lambda row: f"Worst by {row['metric'].removeprefix('worst_group/')} (%)", ("metric",))
    shown = []
    for split in frames.splits(worst):
        chosen = frames.where(worst, split=split)
        table = tables.cross_table(chosen, [*tables.condition_and_noise(chosen), METHOD], kinds, _with_group)
        shown.append((f"Accuracy of the worst group, {wording.split_label(split)}", table))
    every = frame[names.str.startswith("accuracy/")]
    images = Column("Images", lambda row: wording.split_label(row["split"]), ("split",))
    group = Column("", lambda row: row["metric"].partition("=")[2], ("metric",))
    folds = []
    for column in dict.fromkeys(name.removeprefix("accuracy/").partition("=")[0] for name in every["metric"]):
        chosen = every[every["metric"].str.startswith(f"accuracy/{column}=")]
        table = tables.cross_table(chosen, [*tables.condition_and_noise(chosen), METHOD, images], group)
        folds.append(Fold(f"Accuracy by {column} (%)", table))
    file = book.csv("groups", frame, (*FIELDS, "group")) if len(frame) else ""
    return {"worst": shown, "folds": folds, "file": file}


def corruptions(book: Book) -> dict[str, object]:
    """Return mean corruption error, and accuracy by kind and strength."""
    frame = frames.where(book.rows, task="corrupted")
    errors = frames.where(frame, metric="mce")
    table = tables.cross_table(
        errors, [*tables.condition_and_noise(errors), METHOD], Column("", lambda _: "mCE (%)", ("metric",))
    )
    accuracy = frames.where(frame, metric="accuracy")
    places = [str(attack).rpartition("-") for attack in accuracy["attack"]]
    accuracy = accuracy.assign(kind=[place[0] for place in places], strength=[place[2] for place in places])
    strength = Column("", lambda row: f"Strength {row['attack'].rpartition('-')[2]}", ("strength",))
    folds = []
    for kind, chosen in accuracy.groupby("kind", sort=False):
        heads = [*tables.condition_and_noise(chosen), METHOD]
        folds.append(Fold(f"Accuracy (%) under {kind}", tables.cross_table(chosen, heads, strength)))
    file = book.csv("corruptions", frame) if len(frame) else ""
    return {"errors": table if len(errors) else None, "folds": folds, "file": file}


def questions(book: Book) -> dict[str, object]:
    """Return open and closed questions, beside the accuracy of the most frequent answer."""
    frame = book.rows[book.rows["task"].astype(str).str.startswith("questions_")]
    chance = book.results.get("chance") or {}

    def title(row: Row) -> str:
        level = chance.get(f"{row['task']}/{row['split']}")
        guessed = f"; most frequent answer {wording.number(level, 'accuracy')}" if wording.finite(level) else ""
        kind = row["task"].removeprefix("questions_").capitalize()
        return f"{kind}, {wording.split_label(row['split'])} (%{guessed})"

    accuracy = frames.where(frame, metric="accuracy")
    heads = [*tables.condition_and_noise(accuracy), METHOD]
    table = tables.cross_table(accuracy, heads, Column("", title, ("task", "split")))
    return {"table": table if len(frame) else None, "file": book.csv("questions", frame) if len(frame) else ""}
