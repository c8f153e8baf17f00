"""Sections on accuracy: findings, noise, radius, methods compared, tables, retrieval, groups, corruptions.

Each function yields the blocks of one section; a section that yields none shows the words for that instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, cast

import pandas as pd

from ranjax.evaluation.result_rows import FIELDS
from ranjax.methods.table import Style
from ranjax.report import contrast_items, figures, interval_notes, worded_findings, wording
from ranjax.report import entry_labels as labels
from ranjax.report import report_tables as tables
from ranjax.report import result_frame as frames
from ranjax.report.blocks import Blocks, Details, Findings, Heading, Legend, Panels, Text, legend, missing
from ranjax.report.book import Book
from ranjax.report.report_tables import CONDITION, METHOD, NOISE, TASK, Column, Table
from ranjax.report.stored_results import Results, Row
from ranjax.report.worded_findings import ABOVE, BELOW, NONE

SIGNS = {ABOVE: "▲", BELOW: "▼", NONE: "○"}
_HIGHER = {ABOVE: "higher", BELOW: "lower", NONE: "not shown"}
TESTED = ("difference", "low", "high", "p", "p_holm", "effect", "n")
_EFFECTS = {
    "noise": "A method on the noisy encoder less the same on the clean one",
    "recipe": "Another recipe less the first one, at the same noise ratio",
    "restored": "RAN on the noisy encoder less LP on the clean one",
}


def _difference(row: Row) -> str:
    return wording.estimate({**row, "value": row["difference"]})


def p_value(value: object) -> str:
    if not wording.finite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _effect(row: Row) -> str:
    effect = row.get("effect")
    return f"{effect:.2f}" if wording.finite(effect) else "–"


DIFFERENCE = Column("Difference [95 %]", _difference)
P_HOLM = Column("p (Holm)", lambda row: p_value(row.get("p_holm")))
EFFECT = Column("Effect", _effect)


def least_shown(items: Sequence[Row]) -> Blocks:
    """Yield the smallest differences that a table could have shown."""
    if words := interval_notes.least_shown(items):
        yield Text(words, "caption")


def condition_heading(frame: pd.DataFrame, condition: str) -> str:
    """Return ", condition NAME" where the rows have several conditions."""
    return f", condition {wording.condition_label(condition)}" if len(frames.conditions(frame)) > 1 else ""


class Part(NamedTuple):
    """Methods that are drawn together: their rows and styles, the part's number, level of headings, and what is above
    it.
    """

    rows: pd.DataFrame
    looks: Mapping[str, Style]
    number: int
    level: int
    head: list[Heading | Legend]


def parts(frame: pd.DataFrame, key: str, level: int = 3, also: Sequence[str] = ()) -> Iterator[Part]:
    """Yield the methods of rows in one part, or in two where they are many, each under one legend.

    Args:
      frame: rows with a method.
      key: makes the ids of the legends unique.
      level: of the parts' headings.
      also: names that are drawn with every part.
    """
    names = [name for name in frames.values(frame, "method") if name not in also]
    for number, (family, members) in enumerate(frames.families(names) if names else ()):
        looks = figures.styles([*also, *members])
        rows = frame[frame["method"].isin(list(looks))]
        head: list[Heading | Legend] = [Heading(family, level), legend(looks, f"{key}-{number}")]
        yield Part(rows, looks, number, level + bool(family), head)


def _condition_tasks(frame: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame, str]]:
    """Return (condition, task, rows, heading) of each condition and task; the heading is empty where there is only
    one.
    """
    found = []
    for condition in frames.conditions(frame):
        chosen = frames.of_condition(frame, condition)
        tasks = frames.values(chosen, "task")
        for task in tasks:
            title = f"Condition {wording.condition_label(condition)}" + (f", task {task}" if len(tasks) > 1 else "")
            found.append((condition, task, frames.where(chosen, task=task), title))
    return found if len(found) > 1 else [(*one[:3], "") for one in found]


def findings(book: Book) -> Blocks:
    """Yield the worded findings by topic."""
    found = worded_findings.headlines(book.results)
    for topic in dict.fromkeys(one.topic for one in found):
        yield Heading(topic)
        yield Findings([one for one in found if one.topic == topic])


def noise(book: Book) -> Blocks:
    """Yield accuracy and AUROC against the noise ratio."""
    frame = frames.downstream(book.rows)
    plotted = frame[frame["metric"].isin(wording.PLOTTED)]
    if plotted.empty:
        return
    if len(frames.values(frame, "ratio")) == 1:
        yield Text("This run has one noise ratio, so there is a point and no line for each method.", "caption")
    if set(frame["attack"]) == {"none"}:
        yield Text("This run has no attacked figures.", "caption")
    yield from book.notes()
    for condition, task, chosen, title in _condition_tasks(plotted):
        key = f"curves-{condition}-{task}"
        yield Heading(title)
        for part in parts(chosen, key):
            yield from part.head
            for metric in frames.values(chosen, "metric"):
                yield Heading(wording.axis_label(metric), part.level)
                level = wording.chance_level(book.chance, metric)
                yield Panels(figures.curves(part.rows, metric, level, f"{key}-{part.number}"))
        for metric in frames.values(chosen, "metric"):
            yield book.csv(f"{metric}_against_noise_{condition}_{task}", frames.where(chosen, metric=metric))


def radius(book: Book) -> Blocks:
    """Yield accuracy against the radius of the attack, a panel a condition, ratio and split."""
    frame = with_radius(frames.where(book.rows, task="finding", metric="accuracy"), book)
    if frame.empty:
        return
    chance = wording.chance_level(book.chance, "accuracy")
    for part in parts(frame, "radii"):
        yield from part.head
        conditions = frames.conditions(part.rows)
        for place, condition in enumerate(conditions):
            chosen = frames.ordered(frames.of_condition(part.rows, condition), ["split", "ratio"])
            plots = []
            for (split, ratio), cell in chosen.groupby(["split", "ratio"], sort=False):
                if ratio or not place:  # the clean encoder is drawn with the first condition
                    title = f"{wording.percent(ratio)} noise, {wording.split_label(split)}"
                    key = f"radius-{condition}-{ratio}-{split}-{part.number}"
                    plots.append(figures.radius_curve(frames.records(cell), part.looks, chance, title, key))
            if plots:
                words = f"Condition {wording.condition_label(condition)}" if len(conditions) > 1 else ""
                yield Heading(words, part.level)
                yield Panels(plots)
    yield book.csv("accuracy_against_radius", frame, (*FIELDS, "radius"))


def with_radius(frame: pd.DataFrame, book: Book) -> pd.DataFrame:
    """Return the points of the curves, rows with their "radius" in 1/255, of the encoders attacked at several radii."""
    main, attacks = labels.main_attack(frame["attack"]), set(frame["attack"])
    radii = {main: wording.radius_of(((book.results.get("config") or {}).get("evaluate") or {}).get("epsilon"))}
    # Runs of before the point at 0, the same images unattacked, begin with the whole test set.
    radii |= {} if f"{main}@0" in attacks else {"none": 0.0}
    radii = {attack: radii.get(attack, wording.radius(attack)) for attack in attacks}
    frame = frame.assign(radius=frame["attack"].map(radii))
    curves = frame.loc[[(wording.radius(attack) or 0) > 0 for attack in frame["attack"]]]
    cells = set(zip(curves["condition"], curves["ratio"], curves["split"]))
    several = [cell in cells for cell in zip(frame["condition"], frame["ratio"], frame["split"])]
    frame = frame.loc[several]
    return frame[frame["radius"].notna()]


def comparisons(book: Book) -> Blocks:
    """Yield paired differences between methods: plots of those in accuracy, and every one in a table."""
    judged = frames.frame_of(worded_findings.judged(book.results.get("comparisons")))
    accuracy = frames.where(judged, metric="accuracy")
    yield from book.notes() if len(judged) else ()
    for condition in frames.conditions(accuracy):
        for (first, task), group in frames.of_condition(accuracy, condition).groupby(["a", "task"], sort=False):
            words = f"{labels.method_label(first)} minus each other method, accuracy"
            yield Heading(words + condition_heading(accuracy, condition))
            yield Panels(figures.differences(group, f"differences-{condition}-{first}-{task}"))
    fields = ("condition", "ratio", "a", "b", "task", "split", "attack", "metric", *TESTED, "seeds", "verdict")
    for metric, chosen in judged.groupby("metric", sort=False):
        summary = f"All {len(chosen)} comparisons in {wording.metric_label(metric)}"
        file = book.csv(f"comparisons_{metric}", chosen, fields)
        yield Details(summary, [_comparison_table(chosen, judged), *least_shown(frames.records(chosen)), file])


def _comparison_table(frame: pd.DataFrame, among: pd.DataFrame) -> Table:
    def verdict(row: Row) -> str:
        return f"{SIGNS[row['verdict']]} {'not shown' if row['verdict'] == NONE else row['verdict']}"

    heads = [
        NOISE,
        *([CONDITION] if len(frames.conditions(among)) > 1 else []),
        *([TASK] if len(frames.values(among, "task")) > 1 else []),
        Column("Methods", lambda row: f"{labels.method_label(row['a'])} − {labels.method_label(row['b'])}"),
        tables.images(among),
    ]
    columns = [Column("Verdict", verdict), DIFFERENCE, Column("p", lambda row: p_value(row.get("p"))), P_HOLM, EFFECT]
    return tables.listing(frames.records(frame), heads, columns)


def _tested(items: Sequence[Row]) -> list[Row]:
    """Return the differences with a known p, metric by metric, with "p_holm" and the verdict after correction."""
    found = [item for item in worded_findings.judged(items) if "p_holm" in item]
    for item in found:
        item["verdict"] = _HIGHER[item["verdict"]]
    metrics = list(dict.fromkeys(item["metric"] for item in found))
    return sorted(found, key=lambda item: metrics.index(item["metric"]))


_HIGHER_SIGNS = {words: SIGNS[verdict] for verdict, words in _HIGHER.items()}


def effects(book: Book) -> Blocks:
    """Yield what the noise did to each method, paired by test image with the clean encoder; and how recipes differ."""
    items = [item for item in book.results.get("effects") or [] if wording.has_interval(item)]
    if not items:
        return
    yield from book.notes()
    every: list[Row] = []
    verdict = Column("Verdict", lambda row: f"{_HIGHER_SIGNS[row['verdict']]} {row['verdict']}")
    for kind, title in _EFFECTS.items():
        found = _tested([item for item in items if item.get("kind") == kind])
        every += found
        frame = frames.frame_of(found)
        task = [TASK] if len(frames.values(frame, "task")) > 1 else []
        heads = [CONDITION, NOISE, METHOD, *task, tables.images(frame)]
        shown = sum(item["verdict"] != _HIGHER[NONE] for item in found)
        if found:
            summary = f"{title}: {shown} of {len(found)} differences are shown"
            table = tables.listing(found, heads, [verdict, DIFFERENCE, P_HOLM, EFFECT])
            yield Details(summary, [table, *least_shown(found)])
    fields = ("kind", "condition", "ratio", "method", "task", "split", "attack", "metric", *TESTED, "seeds", "verdict")
    yield book.csv("effects", every, fields)


def main_tables(book: Book) -> Blocks:
    """Yield every classification metric by noise ratio and method."""
    frame = frames.downstream(book.rows)
    yield from book.notes(clusters=True) if len(frame) else ()
    for condition, task, chosen, title in _condition_tasks(frame):
        yield Heading(title)
        by_class = chosen["metric"].str.startswith(wording.PER_CLASS)
        for metric in frames.values(chosen[~by_class], "metric"):
            rows = frames.where(chosen, metric=metric)
            table, file = tables.main_table(rows, metric), book.csv(f"table_{metric}_{condition}_{task}", rows)
            lower = ", lower is better" if metric in wording.LOWER_IS_BETTER else ""
            opened = metric in wording.PLOTTED and condition == frames.conditions(frame)[0]
            yield Details(wording.axis_label(metric) + lower, [cast(Table, table), file], opened)
        rows = chosen[by_class]
        for column in frames.columns(rows):
            of_images = frames.where(rows, split=column[0], attack=column[1])
            summary = f"AUROC by class, {tables.column_label(column, frames.values(rows, 'attack')).lower()}"
            file = book.csv(f"table_auroc_by_class_{column[0]}_{column[1]}_{condition}_{task}", of_images)
            yield Details(summary, [tables.class_table(of_images), file])


def ablation_differences(runs: Sequence[Results]) -> list[Row]:
    """Return the worth of each part of RAN that every run compared, with "p_holm"; several runs are one, over runs.

    Args:
      runs: contents of results.json that differ in their seed alone.
    """
    fields = ("condition", "ratio", "a", "b", "task", "split", "attack", "metric")
    found = []
    for results in runs:
        items = [item for item in results.get("comparisons") or [] if labels.is_ablation(item)]
        found.append({tuple(map(item.get, fields)): item for item in items if wording.has_interval(item)})
    common = [key for key in found[0] if all(key in items for items in found)]
    return _tested([contrast_items.pooled([items[key] for items in found]) for key in common])


def ablation_table(items: Sequence[Row]) -> Table | None:
    """Return a line for each part and ratio, a column for each kind of images; None where nothing was left out."""
    if not items:
        return None

    def cell(row: Row | None) -> str:
        return "–" if row is None else f"{_HIGHER_SIGNS[row['verdict']]} {_difference(row)}"

    frame = frames.frame_of(items)
    part = Column("Part", lambda row: labels.part_label(row["b"]), ("b",))
    return tables.cross_table(frame, [*tables.condition_and_noise(frame), part], tables.images(frame), cell)


def ablation(book: Book, name: str = "ablation", runs: Sequence[Results] = ()) -> Blocks:
    """Yield what each part of RAN is worth in this run, or over `runs`."""
    items = ablation_differences(runs or [{"comparisons": book.results.get("ablation")}])
    fields = ("condition", "ratio", "b", "split", "attack", "metric", *TESTED[:5], "seeds")
    if table := ablation_table(items):
        yield table
        yield from least_shown(items)
        yield book.csv(name, items, fields)


def without_head(book: Book) -> Blocks:
    """Yield zero-shot classification and retrieval, with chance."""
    kinds = [
        ("Zero-shot classification", "zero_shot", frames.where(frames.downstream(book.rows), method="zero_shot")),
        ("Retrieval", frames.RETRIEVAL, frames.where(book.rows, task=frames.RETRIEVAL)),
        ("Retrieval by sentences", frames.SENTENCES, frames.where(book.rows, task=frames.SENTENCES)),
    ]
    for title, name, frame in kinds:
        for condition in frames.conditions(frame):
            chosen = frames.of_condition(frame, condition)
            yield Heading(title + condition_heading(frame, condition))
            yield tables.without_head_table(chosen, book.chance, name if name == frames.SENTENCES else "")
            yield book.csv(f"{name}_{condition}", chosen)


def attacked_pairs(book: Book) -> Blocks:
    """Yield retrieval under attacks on images, reports or both, with the attacks' success by both definitions."""
    frame = frames.where(book.rows, task="retrieval_attacked")

    def attack(row: Row) -> str:
        return "nothing" if row["attack"] == "none" else labels.attack_name(row["attack"])

    for starts, title in ((("recall@",), "Recall"), (("recall_drop@", "turned_wrong@"), "Success of the attack")):
        chosen = frame[frame["metric"].astype(str).str.startswith(starts)]
        if len(chosen):
            yield Heading(title)
            yield tables.by_method(chosen, tables.BY_METRIC, Column("Attacked", attack, ("attack",)))
    if len(frame):
        yield book.csv("attacked_pairs", frame)


def groups(book: Book) -> Blocks:
    """Yield accuracy of the worst group of each kind, and of every group."""
    frame = frames.where(book.rows, task="groups")
    if frame.empty:
        return

    def with_group(row: Row | None) -> str:
        return wording.estimate(row) + (f" {row['group']}" if row is not None and row.get("group") else "")

    worst = frame[frame["metric"].str.startswith("worst_group/")]
    kind = Column("", lambda row: f"Worst by {row['metric'].removeprefix('worst_group/')} (%)", ("metric",))
    for split in frames.values(worst, "split"):
        yield Heading(f"Accuracy of the worst group, {wording.split_label(split)}")
        yield tables.by_method(frames.where(worst, split=split), kind, cell=with_group)
    every = frame[frame["metric"].str.startswith("accuracy/")]
    images = Column("Images", lambda row: wording.split_label(row["split"]), ("split",))
    group = Column("", lambda row: row["metric"].partition("=")[2], ("metric",))
    for name in dict.fromkeys(metric.removeprefix("accuracy/").partition("=")[0] for metric in every["metric"]):
        chosen = every[every["metric"].str.startswith(f"accuracy/{name}=")]
        yield Details(f"Accuracy by {name} (%)", [tables.by_method(chosen, group, images)])
    yield book.csv("groups", frame, (*FIELDS, "group"))


def corruptions(book: Book) -> Blocks:
    """Yield mean corruption error, and accuracy by kind and strength."""
    frame = frames.where(book.rows, task="corrupted")
    if frame.empty:
        return
    errors, accuracy = (frames.where(frame, metric=metric) for metric in ("mce", "accuracy"))
    if len(errors):
        yield tables.by_method(errors, Column("", lambda _: "mCE (%)", ("metric",)))
    else:
        yield missing("No mCE: it needs a baseline on the clean encoder that errs under every kind.")
    strength = Column("", lambda row: f"Strength {row['attack'].rpartition('-')[2]}", ("attack",))
    for kind, chosen in accuracy.groupby([attack.rpartition("-")[0] for attack in accuracy["attack"]], sort=False):
        yield Details(f"Accuracy (%) under {kind}", [tables.by_method(chosen, strength)])
    yield book.csv("corruptions", frame)


def questions(book: Book) -> Blocks:
    """Yield open, closed and varied questions, with the accuracy of the most frequent answer, clean and attacked."""
    frame = book.rows[book.rows["task"].astype(str).str.startswith("questions_")]

    def title(row: Row) -> str:
        level = book.chance.get(f"{row['task']}/{row['split']}")
        guessed = f"; most frequent answer {wording.number(level, 'accuracy')}" if wording.finite(level) else ""
        kind = {"varied": "Not told by the question"}.get(kind := row["task"].removeprefix("questions_"), kind)
        return f"{kind.capitalize()}, {wording.split_label(row['split'])} (%{guessed})"

    def attacked(row: Row) -> str:
        return f"{title(row)}, attack {row['attack']}"

    if len(frame):
        accuracy = frames.where(frame, metric="accuracy")
        under = accuracy["attack"] != "none"
        yield tables.by_method(accuracy[~under], Column("", title, ("task", "split")))
        if under.any():
            first = "Accuracy (%) on the first questions of a split under attack, through the fusion end to end"
            yield Details(first, [tables.by_method(accuracy[under], Column("", attacked, ("task", "split", "attack")))])
        yield book.csv("questions", frame)
