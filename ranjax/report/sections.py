"""The sections of the page that hold figures. Each gives HTML, or a word on why there is nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ranjax.report import claims, figures, markup, pictures
from ranjax.report import cluster_notes as independent
from ranjax.report import feature_figures as figures_inside
from ranjax.report import few_label_notes as few_labels
from ranjax.report import figure_captions as captions
from ranjax.report import labels_text as wording
from ranjax.report import report_tables as tables
from ranjax.report import row_queries as rows_
from ranjax.report.markup import Markup, tag
from ranjax.report.row_queries import Row

_LONGEST_NAME = 80
_SIGNS = {
    claims.ABOVE: ("▲", "above"),
    claims.BELOW: ("▼", "below"),
    claims.NONE: ("○", "no difference"),
    "caution": ("!", "caution"),
}
_COMPARISON_FIELDS = (
    "condition",
    "ratio",
    "a",
    "b",
    "task",
    "split",
    "attack",
    "metric",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
    "effect",
    "n",
    "seeds",
    "verdict",
)
_SPECTRA_FIELDS = ("condition", "ratio", "method", "features", "index", "singular_value", "sve", "lsvr")


@dataclass
class Book:
    """What a page is made from, and the CSV files that its plots and tables leave beside it."""

    results: Mapping[str, Any]
    rows: Sequence[Row]
    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, results: Mapping[str, Any]) -> Book:
        """RAN without one of its terms has a section of its own, ``results["ablation"]``, and stands in no other."""
        main = {
            name: [item for item in value if not (isinstance(item, Mapping) and rows_.is_ablation(item))]
            if isinstance(value, list)
            else value
            for name, value in results.items()
        }
        main["ablation"] = [item for item in results.get("comparisons") or [] if rows_.is_ablation(item)]
        return cls(main, rows_.pooled(main.get("rows") or []))

    def csv(self, name: str, records: Iterable[Mapping[str, Any]], fields: Sequence[str] = rows_.FIELDS) -> Markup:
        """Keeps the records as ``data/NAME.csv`` and returns the line that links to it."""
        file = f"data/{_safe(name)}.csv"
        self.files[file] = tables.to_csv(records, fields)
        return tag("p", "Data: ", tag("a", file, href=file), class_="data")


def _safe(name: str) -> str:
    """Returns a file name for `name`; one changed or cut ends in a digest, so that no two become the same."""
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_-.") else "_" for letter in name)
    if plain == name and len(name) <= _LONGEST_NAME:
        return name
    return f"{plain[:_LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def nothing(words: str) -> Markup:
    """Returns the word that stands where a section has nothing to show."""
    return tag("p", words, class_="missing-section")


def caption(words: str) -> Markup:
    return tag("p", markup.figures(words), class_="caption")


def _condition_tasks(rows: Sequence[Row]) -> list[tuple[str, str, list[Row], str]]:
    """Returns (condition, task, rows, heading) for each condition and task; the heading is empty where there is only one."""
    found = []
    for condition in rows_.conditions(rows):
        of_condition = rows_.of_condition(rows, condition)
        for task in rows_.distinct(of_condition, "task"):
            several = f", task {task}" if len(rows_.distinct(of_condition, "task")) > 1 else ""
            found.append(
                (
                    condition,
                    task,
                    rows_.pick(of_condition, task=task),
                    f"Condition {wording.condition_label(condition)}{several}",
                )
            )
    return found if len(found) > 1 else [(condition, task, chosen, "") for condition, task, chosen, _ in found]


def findings(book: Book) -> Markup:
    """The worded findings, grouped by topic, each with a sign for above, below or no difference."""
    found = claims.headlines(book.results)
    if not found:
        return nothing("No figure of this run has an interval, so no finding is worded.")
    parts: list[Any] = []
    for topic in dict.fromkeys(finding.topic for finding in found):
        items = []
        for finding in [one for one in found if one.topic == topic]:
            sign, said = _SIGNS[finding.verdict]
            mark = tag("span", sign, class_="sign", role="img", aria_label=said)
            items.append(tag("li", mark, markup.figures(finding.text), class_=finding.verdict))
        parts += [tag("h3", topic, class_="topic"), tag("ul", items, class_="findings")]
    parts.append(caption(captions.FINDINGS))
    return markup.join(parts)


def curves(book: Book) -> Markup:
    """Accuracy and AUROC against the noise ratio."""
    rows = rows_.downstream(book.rows)
    chance = book.results.get("chance") or {}
    parts: list[Any] = []
    for condition, task, chosen, heading in _condition_tasks(rows):
        metrics = [name for name in wording.PLOTTED if rows_.pick(chosen, metric=name)]
        if not metrics:
            continue
        parts += [tag("h3", heading)] if heading else []
        names = rows_.methods([row for row in chosen if row["metric"] in metrics])
        for number, (family, members) in enumerate(rows_.families(names)):
            drawn = [row for row in chosen if row["method"] in members]
            key = f"curves-{condition}-{task}-{number}"
            parts += [tag("h3", family)] if family else []
            parts.append(figures.legend(figures.styles(members), key))
            for metric in metrics:
                parts.append(tag("h4" if family else "h3", wording.axis_label(metric)))
                panels = figures.curves(drawn, metric, wording.chance_level(chance, metric), key)
                parts.append(tag("div", panels, class_="panels"))
        parts += [book.csv(f"{m}_against_noise_{condition}_{task}", rows_.pick(chosen, metric=m)) for m in metrics]
    if not parts:
        return nothing("This run has no accuracy or AUROC figures.")
    words = captions.CURVES
    if len(rows_.ratios(rows)) == 1:
        words += " This run has one noise ratio, so there is a point and no line for each method."
    if not [name for name in rows_.attacks(rows) if name != "none"]:
        words += " This run has no attacked figures."
    return markup.join([caption(words), few_labels.said(book.results), *parts])


def comparisons(book: Book) -> Markup:
    """Paired differences between methods: a plot of those in accuracy, and every one as a table."""
    judged = claims.judged(book.results)
    if not judged:
        return nothing("This run has no paired comparisons between methods.")
    parts: list[Any] = [caption(captions.COMPARISONS), few_labels.said(book.results)]
    accuracy = rows_.pick(judged, metric="accuracy") or judged[:0]
    for condition in rows_.conditions(accuracy) if accuracy else []:
        for first in rows_.distinct(accuracy, "a"):
            chosen = rows_.pick(rows_.of_condition(accuracy, condition), a=first)
            for task in rows_.distinct(chosen, "task"):
                group = rows_.pick(chosen, task=task)
                title = f"{wording.method_label(first)} minus each other method, accuracy" + (
                    f", condition {wording.condition_label(condition)}" if len(rows_.conditions(accuracy)) > 1 else ""
                )
                parts.append(tag("h3", title))
                parts.append(
                    tag("div", figures.differences(group, f"differences-{condition}-{first}-{task}"), class_="panels")
                )
    for metric in rows_.distinct(judged, "metric"):
        chosen = rows_.pick(judged, metric=metric)
        inside = [
            _comparison_table(chosen, judged).html(),
            book.csv(f"comparisons_{metric}", chosen, _COMPARISON_FIELDS),
        ]
        summary = tag("summary", f"All {len(chosen)} comparisons in {wording.metric_label(str(metric))}")
        parts.append(tag("details", summary, inside))
    return markup.join(parts)


def _comparison_table(items: Sequence[Mapping[str, Any]], among: Sequence[Mapping[str, Any]]) -> tables.Table:
    conditions = rows_.conditions(among)
    attacks, tasks = (rows_.distinct(among, name) for name in ("attack", "task"))
    lines: list[list[Any]] = []
    breaks: set[int] = set()
    for item in items:
        where = tables.column_label((item.get("split", ""), item.get("attack", "none")), attacks)
        words = f"{_SIGNS[item['verdict']][0]} {'not shown' if item['verdict'] == claims.NONE else item['verdict']}"
        line = [wording.percent(item.get("ratio"))]
        line += [wording.condition_label(item.get("condition"))] if len(conditions) > 1 else []
        line += [str(item.get("task"))] if len(tasks) > 1 else []
        line += [
            f"{wording.method_label(item['a'])} − {wording.method_label(item['b'])}",
            where,
            words,
            wording.estimate({**item, "value": item["difference"]}),
        ]
        effect = item.get("effect")
        line += [_p(item.get("p")), _p(item.get("p_holm")), f"{effect:.2f}" if wording.finite(effect) else "–"]
        if lines and lines[-1][0] != line[0]:
            breaks.add(len(lines))
        lines.append(line)
    header = [
        "Noise",
        *(["Condition"] if len(conditions) > 1 else []),
        *(["Task"] if len(tasks) > 1 else []),
        "Methods",
        "Images",
    ]
    header += ["Verdict", "Difference [95 %]", "p", "p (Holm)", "Effect"]
    return tables.Table(header, lines, "", heads=len(header) - 5, breaks=frozenset(breaks))


def _p(value: Any) -> str:
    if not wording.finite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def main_tables(book: Book) -> Markup:
    """Every classification metric by noise ratio and method."""
    rows = rows_.downstream(book.rows)
    parts: list[Any] = []
    for condition, task, chosen, heading in _condition_tasks(rows):
        parts += [tag("h3", heading)] if heading else []
        for metric in _ordered_metrics(chosen):
            table = tables.main_table(chosen, metric)
            if table is None:
                continue
            inside = [table.html(), book.csv(f"table_{metric}_{condition}_{task}", rows_.pick(chosen, metric=metric))]
            lower = ", lower is better" if metric in wording.LOWER_IS_BETTER else ""
            parts.append(
                tag(
                    "details",
                    tag("summary", wording.axis_label(metric) + lower),
                    inside,
                    open=metric in wording.PLOTTED and condition == rows_.conditions(rows)[0],
                )
            )
        parts += _per_class(book, chosen, f"{condition}_{task}")
    if not parts:
        return nothing("This run has no classification figures.")
    held = [few_labels.said(book.results), independent.said(book.results)]
    return markup.join([caption(captions.MAIN_TABLES), *held, *parts])


def _per_class(book: Book, rows: Sequence[Row], name: str) -> list[Markup]:
    """Returns AUROC by class, one folded table a split and attack."""
    rows = [row for row in rows if str(row["metric"]).startswith(wording.PER_CLASS)]
    folded = []
    for split, attack in rows_.columns(rows):
        chosen = rows_.pick(rows, split=split, attack=attack)
        summary = tag("summary", f"AUROC by class, {tables.column_label((split, attack), rows_.attacks(rows)).lower()}")
        data = book.csv(f"table_auroc_by_class_{split}_{attack}_{name}", chosen)
        folded.append(tag("details", summary, tables.class_table(chosen).html(), data))
    return folded


def _ordered_metrics(rows: Sequence[Row]) -> list[str]:
    present = [name for name in rows_.distinct(rows, "metric") if name not in ("sve", "lsvr")]
    present = [name for name in present if not name.startswith(wording.PER_CLASS)]
    return [name for name in wording.METRICS if name in present] + [
        name for name in present if name not in wording.METRICS
    ]


def without_head(book: Book) -> Markup:
    """Zero-shot classification and retrieval, with chance."""
    parts: list[Any] = []
    chance = book.results.get("chance") or {}
    kinds = [
        ("Zero-shot classification", "zero_shot", rows_.pick(rows_.downstream(book.rows), method="zero_shot")),
        ("Retrieval", rows_.RETRIEVAL, rows_.pick(book.rows, task=rows_.RETRIEVAL)),
        ("Retrieval by sentences", rows_.SENTENCES, rows_.pick(book.rows, task=rows_.SENTENCES)),
    ]
    for title, name, rows in kinds:
        conditions = rows_.conditions(rows)
        for condition in conditions:
            chosen = rows_.of_condition(rows, condition)
            heading = f"{title}, condition {wording.condition_label(condition)}" if len(conditions) > 1 else title
            parts += [
                tag("h3", heading),
                tables.without_head_table(chosen, chance, name if name == rows_.SENTENCES else "").html(),
                book.csv(f"{name}_{condition}", chosen),
            ]
    if not parts:
        return nothing("This run has no zero-shot or retrieval figures.")
    return markup.join([caption(captions.WITHOUT_HEAD), *parts])


def spectra(book: Book) -> Markup:
    """Singular values of the features, with their entropy and the weight of the largest."""
    items = [item for item in book.results.get("spectra") or [] if wording.finite(item.get("ratio"))]
    if not items:
        return nothing("This run has no spectra.")
    drawable = [
        item
        for item in items
        if any(wording.finite(value) and value > 0 for value in item.get("singular_values") or [])
    ]
    parts: list[Any] = [caption(captions.SPECTRA)]
    several = len(rows_.conditions(items)) > 1
    for condition in rows_.conditions(items):
        chosen = rows_.of_condition(drawable, condition)
        name = f"spectra-{condition}"
        words = f", condition {wording.condition_label(condition)}" if several else ""
        encoder = rows_.pick(chosen, method="encoder")
        if encoder:
            looks = figures_inside.spectra_styles([item["ratio"] for item in encoder], "ratio")
            parts.append(tag("h3", f"Encoder, by upstream noise{words}"))
            parts.append(
                figures.legend(looks, f"{name}-ratios", lambda key: markup.figures(wording.percent(float(key))))
            )
            parts.append(_spectrum_panels(encoder, f"{name}-encoder", "ratio"))
        if chosen:
            top = rows_.pick(chosen, ratio=max(rows_.ratios(chosen)))
            if len(rows_.methods(top)) > 1:
                shown = f"Encoder and heads at {wording.percent(top[0]['ratio'])} noise{words}"
                parts.append(tag("h3", markup.figures(shown)))
                heads = [one for one in rows_.methods(top) if one != "encoder"]
                for number, (family, members) in enumerate(rows_.families(heads)):
                    drawn = [item for item in top if item["method"] in ("encoder", *members)]
                    looks = figures_inside.spectra_styles(rows_.methods(drawn), "method")
                    parts += [tag("h4", family)] if family else []
                    parts.append(figures.legend(looks, f"{name}-methods-{number}"))
                    parts.append(_spectrum_panels(drawn, f"{name}-heads-{number}", "method"))
    table = tables.spectra_table(items)
    records = [
        {**item, "index": index, "singular_value": value}
        for item in items
        for index, value in enumerate(item.get("singular_values") or [], 1)
    ]
    parts += [*([table.html()] if table else []), book.csv("spectra", records or items, _SPECTRA_FIELDS)]
    return markup.join(parts)


def _spectrum_panels(items: Sequence[Mapping[str, Any]], name: str, by: str) -> Markup:
    panels = []
    for kind in [kind for kind in ("clean", "attacked") if rows_.pick(items, features=kind)]:
        chosen = sorted(rows_.pick(items, features=kind), key=lambda item: str(item[by]))
        panels.append(figures_inside.spectra(chosen, f"{name}-{kind}", by, f"{kind.capitalize()} features"))
    return tag("div", panels, class_="panels")


def masking(book: Book) -> Markup:
    """Whether the attacked figures can be believed: each check of the attack, passed or not."""
    items = [item for item in book.results.get("masking") or [] if wording.finite(item.get("ratio"))]
    if not items:
        return nothing("The attack was not checked for masked gradients in this run: take attacked figures with care.")
    several = len(rows_.conditions(items)) > 1
    names = (["Condition"] if several else []) + ["Noise", "Method"]
    verdicts: list[list[Any]] = []
    every: list[list[Any]] = []
    breaks: set[int] = set()
    records: list[dict[str, Any]] = []
    for item in items:
        start = ([wording.condition_label(item.get("condition"))] if several else []) + [
            wording.percent(item.get("ratio")),
            wording.method_label(item.get("method")),
        ]
        checks = item.get("checks") or []
        held = f"{sum(bool(check.get('passed')) for check in checks)} of {len(checks)}" if checks else "–"
        verdicts.append([*start, held, wording.plain(item.get("verdict"))])
        breaks.add(len(every))
        for check in checks:
            passed = check.get("passed")
            words = "–" if passed is None else "✓ passed" if passed else "✗ failed"
            every.append([*start, str(check.get("name", "–")), words, str(check.get("detail", ""))])
            start = [""] * len(start)
        records += [{**item, **{f"check_{key}": value for key, value in check.items()}} for check in checks or [{}]]
    heads = len(names)
    summary = tables.Table([*names, "Checks passed", "Verdict"], verdicts, "", heads=heads, numeric=False)
    header = [*names, "Check", "Outcome", "What was seen"]
    table = tables.Table(header, every, "", heads=heads, breaks=frozenset(breaks - {0}), numeric=False)
    fields = ("condition", "ratio", "method", "verdict", "check_name", "check_passed", "check_detail")
    folded = tag("details", tag("summary", f"Every check ({len(every)})"), table.html()) if every else None
    return markup.join(
        [part for part in (caption(captions.MASKING), summary.html(), folded) if part]
        + [book.csv("masking", records, fields)]
    )


def pairs(book: Book) -> Markup:
    """Attacked pairs as pictures."""
    examples = book.results.get("examples") or []
    if not examples:
        return nothing("This run has no attacked pairs to show.")
    shown = [pictures.pair(example, book.results.get("classes") or []) for example in examples]
    fields = ("id", "kind", "condition", "label", "norm", "loss_before", "loss_after", "report", "attacked_report")
    data = book.csv("attacked_examples", examples, fields)
    return markup.join([caption(captions.PAIRS), tag("div", shown, class_="pairs"), data])
