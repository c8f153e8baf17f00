"""Sections that show where figures come from: claims held to account, radii, confidence, confusions, feature planes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ranjax.report import cluster_notes as independent
from ranjax.report import feature_figures as figures_inside
from ranjax.report import few_label_notes as few_labels
from ranjax.report import figure_captions as captions
from ranjax.report import figures, markup
from ranjax.report import labels_text as wording
from ranjax.report import paper_claims as abstract
from ranjax.report import report_tables as tables
from ranjax.report import robustness_figures as figures_robust
from ranjax.report import row_queries as rows_
from ranjax.report.markup import Markup, tag
from ranjax.report.row_queries import Row
from ranjax.report.sections import Book, caption, nothing

_SIGNS = {abstract.SHOWN: "✓", abstract.OPPOSITE: "✗", abstract.NOT_SHOWN: "○"}
_FIELDS = ("claim", "measured", "wanted", "difference", "low", "high", "p", "p_holm", "effect", "n", "runs", "verdict")


def claims_table(found: Sequence[abstract.Claim]) -> tables.Table:
    """One line a figure: the claim, its verdict, what is measured, the difference with its interval, p, effect size."""
    lines: list[list[Any]] = []
    breaks: set[int] = set()
    for claim in found:
        if not lines or lines[-1][0] != claim.claim:
            breaks.add(len(lines))
        metric = str(claim.item["metric"])
        shown = wording.estimate({**claim.item, "value": claim.item["difference"]}) if metric else "–"
        effect = claim.item.get("effect")
        lines.append(
            [
                claim.claim,
                claim.measured,
                f"{_SIGNS[claim.verdict]} {claim.verdict}",
                shown,
                "above 0" if claim.wanted > 0 else "below 0",
                p_words(claim.p_holm),
                f"{effect:.2f}" if wording.finite(effect) else "–",
            ]
        )
    for index in range(len(lines) - 1, 0, -1):
        if lines[index][0] == lines[index - 1][0]:
            lines[index][0] = ""
    header = ["Claim", "Measured", "Verdict", "Difference [95 %]", "Claimed", "p (Holm)", "Effect"]
    return tables.Table(header, lines, "", heads=2, breaks=frozenset(breaks - {0}))


def claims_html(found: Sequence[abstract.Claim]) -> Markup:
    """`claims_table` with the claims over their lines, so that the verdicts are in sight on a narrow screen."""
    table = claims_table(found)
    titles = {index: str(line[0]) for index, line in enumerate(table.lines) if line[0]}
    return tables.Table(table.columns[1:], [line[1:] for line in table.lines], titles=titles).html()


def p_words(value: Any) -> str:
    """A p value as it is shown."""
    if not wording.finite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def claims(book: Book) -> Markup:
    """The claims of the abstract, each with the figures that stand for it here."""
    found = abstract.claims([book.results])
    if not found:
        return nothing("This run has no differences between noise ratios or methods that a claim could be held to.")
    held = markup.join([few_labels.said(book.results), independent.said(book.results)])
    return markup.join([caption(captions.CLAIMS), held, claims_html(found), claims_data(book, found, "claims")])


def claims_data(book: Book, found: Sequence[abstract.Claim], name: str) -> Markup:
    """Keeps the claims as a CSV file and returns the line that links to it."""
    return book.csv(name, [{**one.item, **_of(one)} for one in found], _FIELDS)


def _of(claim: abstract.Claim) -> dict[str, Any]:
    return {name: getattr(claim, name) for name in ("claim", "measured", "wanted", "runs", "p_holm", "verdict")}


def radius_points(rows: Sequence[Row], main: Any) -> list[dict[str, Any]]:
    """Rows of accuracy with their "radius" in 1/255: the points of the curve, of which 0 is the same images unattacked.

    Runs of before those had such a point begin with the whole test set.

    Args:
      rows: pooled rows of one condition and ratio.
      main: evaluate.epsilon of the config.
    """
    at_main = wording.radius_of(main)
    worst = "worst" if rows_.pick(rows, attack="worst") else "pgd"
    radii = {worst: at_main} if at_main is not None else {}
    radii |= {} if rows_.pick(rows, attack=f"{worst}@0") else {"none": 0.0}
    found = []
    for row in rows_.pick(rows, metric="accuracy"):
        attack = str(row.get("attack"))
        radius = radii.get(attack, wording.radius(attack))
        if radius is not None:
            found.append({**row, "radius": radius})
    return found


def robustness(book: Book) -> Markup:
    """Accuracy against the radius of the attack, a panel a condition, ratio and split."""
    main = ((book.results.get("config") or {}).get("evaluate") or {}).get("epsilon")
    rows = [row for row in book.rows if row.get("task") == "finding"]
    chance = wording.chance_level(book.results.get("chance") or {}, "accuracy")
    drawn: list[dict[str, Any]] = []
    parts: list[Any] = []
    names = rows_.methods([row for row in rows if rows_.AT in str(row.get("attack"))])
    for number, (family, members) in enumerate(rows_.families(names)):
        looks = figures.styles(members)
        parts += [tag("h3", family)] if family else []
        parts.append(figures.legend(looks, f"radii-{number}"))
        for place, condition in enumerate(rows_.conditions(rows)):
            panels = []
            for split in rows_.splits(rows):
                for ratio in rows_.ratios(rows_.of_condition(rows, condition)):
                    if place and ratio == 0:
                        continue  # the clean encoder is drawn with the first condition
                    cell = rows_.pick(
                        [r for r in rows_.of_condition(rows, condition) if r["ratio"] == ratio], split=split
                    )
                    if not any((wording.radius(row.get("attack")) or 0) > 0 for row in cell):
                        continue
                    points = [point for point in radius_points(cell, main) if point["method"] in looks]
                    drawn += points
                    title = f"{wording.percent(ratio)} noise, {wording.split_label(split)}"
                    name = f"radius-{condition}-{ratio}-{split}-{number}"
                    panels.append(figures_robust.radius_curve(points, looks, chance, title, name))
            if panels:
                several = len(rows_.conditions(rows)) > 1
                parts += (
                    [tag("h4" if family else "h3", f"Condition {wording.condition_label(condition)}")]
                    if several
                    else []
                )
                parts.append(tag("div", panels, class_="panels"))
    if not drawn:
        return nothing("This run was attacked at one radius only (evaluate.radii is empty).")
    data = book.csv("accuracy_against_radius", drawn, (*rows_.FIELDS, "radius"))
    return markup.join([caption(captions.RADII), *parts, data])


def _extremes(items: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
    """(condition, ratio) of the clean encoder and of every condition's highest ratio."""
    kept = [item for item in items if wording.finite(item.get("ratio"))]
    clean = [(str(item["condition"]), 0.0) for item in kept if item["ratio"] == 0][:1]
    noisy = [
        (condition, max(rows_.ratios(rows_.pick(kept, condition=condition)))) for condition in rows_.conditions(kept)
    ]
    return list(dict.fromkeys(clean + noisy))


def _cell_title(condition: str, ratio: float, several: bool) -> str:
    name = f", {wording.condition_label(condition)}" if several and ratio else ""
    return f"{wording.percent(ratio)} noise{name}"


def reliability(book: Book) -> Markup:
    """Confidence against accuracy on the clean test set, on the clean encoder and at the highest ratio of every condition."""
    items = rows_.pick(book.results.get("calibration") or [], split="test", attack="none")
    if not items:
        return nothing("This run has no calibration figures.")
    several = len(rows_.conditions(items)) > 1
    parts: list[Any] = [caption(captions.RELIABILITY)]
    for number, (family, members) in enumerate(rows_.families(rows_.methods(items))):
        looks = figures.styles(members)
        parts += [tag("h3", family)] if family else []
        parts.append(figures.legend(looks, f"reliability-{number}"))
        panels = []
        for condition, ratio in _extremes(items):
            own = [item for item in rows_.pick(items, condition=condition, ratio=ratio) if item["method"] in looks]
            title = _cell_title(condition, ratio, several)
            panels.append(figures_robust.reliability(own, looks, title, f"reliability-{condition}-{ratio}-{number}"))
        parts.append(tag("div", panels, class_="panels"))
    fields = ("condition", "ratio", "method", "split", "bin", "count", "answers", "confidence", "accuracy")
    records = [
        {**item, "bin": number, "answers": total, **dict(zip(("count", "confidence", "accuracy"), line))}
        for item in book.results["calibration"]
        for total in [sum(line[0] for line in item["bins"] if wording.finite(line[0]))]
        for number, line in enumerate(item["bins"], 1)
    ]
    return markup.join([*parts, book.csv("calibration", records, fields)])


def confusions(book: Book) -> Markup:
    """Which class is taken for which: the linear probe and RAN (or the last method), clean and attacked."""
    items = rows_.pick(book.results.get("confusions") or [], split="test")
    classes = [str(name) for name in book.results.get("classes") or []]
    items = [item for item in items if len(item.get("counts") or []) == len(classes) > 0]
    if not items:
        return nothing("This run has no confusion matrices.")
    names = [name for name in rows_.methods(items) if name != "zero_shot"]
    chosen = [name for name in ("lp", "ran") if name in names] or names[-1:]
    attacks = rows_.attacks(items)
    several = len(rows_.conditions(items)) > 1
    parts: list[Any] = [caption(captions.CONFUSIONS)]
    for attack in attacks:
        panels = []
        for condition, ratio in _extremes(items):
            for method in chosen:
                item = rows_.first(items, condition=condition, ratio=ratio, method=method, attack=attack)
                if item is None:
                    continue
                title = f"{wording.method_label(method)}, {_cell_title(condition, ratio, several)}"
                name = f"confusion-{condition}-{ratio}-{method}-{attack}"
                panels.append(figures_inside.confusion(item["counts"], classes, title, name))
        label = f"{wording.attack_label(attack, attacks)[:1].upper()}{wording.attack_label(attack, attacks)[1:]} images"
        inside = tag("div", panels, class_="panels")
        parts.append(tag("details", tag("summary", label), inside, open=attack == "none"))
    fields = ("condition", "ratio", "method", "split", "attack", "truth", "answer", "count")
    records = [
        {**item, "truth": classes[row], "answer": classes[column], "count": count}
        for item in items
        for row, line in enumerate(item["counts"])
        for column, count in enumerate(line)
    ]
    return markup.join([*parts, book.csv("confusions", records, fields)])


def planes(book: Book) -> Markup:
    """Features of test images, clean and attacked, as the encoder has them and as RAN makes them."""
    items = [item for item in book.results.get("projections") or [] if wording.finite(item.get("ratio"))]
    if not items:
        return nothing("This run has no features to draw in a plane.")
    several = len(rows_.conditions(items)) > 1
    panels = []
    for condition, ratio in _extremes(items):
        own = rows_.pick(items, condition=condition, ratio=ratio)
        for method in rows_.methods(own):
            clean, attacked = (rows_.first(own, method=method, features=kind) for kind in ("clean", "attacked"))
            if clean is None and attacked is None:
                continue
            title = f"{wording.method_label(method)}, {_cell_title(condition, ratio, several)}"
            panels.append(figures_inside.plane(clean, attacked, title, f"plane-{condition}-{ratio}-{method}"))
    fields = ("condition", "ratio", "method", "features", "image", "x", "y", "label")
    records = [
        {**item, "image": number, "x": point[0], "y": point[1], "label": label}
        for item in items
        for number, (point, label) in enumerate(zip(item.get("points") or [], item.get("labels") or []), 1)
    ]
    legend = figures.legend(figures_inside.LOOKS, "planes", str.capitalize)
    parts = [caption(captions.PLANES), legend, tag("div", panels, class_="panels")]
    return markup.join([*parts, book.csv("planes", records, fields)])
