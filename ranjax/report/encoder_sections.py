"""Sections on the insides of models: gradient masking, confusions, confidence, features in a plane, spectra.

Each function yields the blocks of one section; a section that yields none shows the words for that instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from ranjax.methods.table import Style
from ranjax.report import entry_labels as labels
from ranjax.report import figures, wording
from ranjax.report import report_tables as tables
from ranjax.report import result_frame as frames
from ranjax.report.accuracy_sections import condition_heading, parts
from ranjax.report.blocks import Blocks, Details, Heading, Panels, legend
from ranjax.report.book import Book
from ranjax.report.report_tables import METHOD, Table

_CHECKED = "Checks of the attack that each model passed"


def masking(book: Book) -> Blocks:
    """Yield each check of the attack, passed or not, which tells whether attacked figures can be believed."""
    frame = book.frame("masking")
    heads = [*tables.condition_and_noise(frame), METHOD]
    verdicts: list[list[str]] = []
    lines: list[list[str]] = []
    breaks: set[int] = set()
    stored: list[dict[str, object]] = []
    for item in frame.to_dict("records"):
        names = [head.write(item) for head in heads]
        checks = item["checks"] or []
        passed = f"{sum(bool(check.get('passed')) for check in checks)} of {len(checks)}" if checks else "–"
        verdicts.append([*names, passed, wording.plain(item.get("verdict"))])
        breaks.add(len(lines))
        for number, check in enumerate(checks):
            outcome = {None: "–", True: "✓ passed", False: "✗ failed"}[check.get("passed")]
            # Of the checks of one model, the first line alone names it.
            shown = [str(check.get("name", "–")), outcome, str(check.get("detail", ""))]
            lines.append([*([""] * len(names) if number else names), *shown])
        stored += [{**item, **{f"check_{key}": value for key, value in check.items()}} for check in checks or [{}]]
    titles = [head.title for head in heads]
    if verdicts:
        yield Table([*titles, "Checks passed", "Verdict"], verdicts, heads=len(heads), numeric=False, caption=_CHECKED)
    if lines:
        header = [*titles, "Check", "Outcome", "What was seen"]
        table = Table(header, lines, heads=len(heads), breaks=frozenset(breaks - {0}), numeric=False)
        yield Details(f"Every check ({len(lines)})", [table])
    if stored:
        fields = ("condition", "ratio", "method", "verdict", "check_name", "check_passed", "check_detail")
        yield book.csv("masking", stored, fields)


def _extremes(frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield (key, title, rows) of the clean encoder and of every condition's highest ratio."""
    conditions = frames.conditions(frame)
    clean = [(condition, 0.0) for condition in frame[frame["ratio"] == 0]["condition"]][:1]
    highest = [(name, frames.where(frame, condition=name)["ratio"].max()) for name in conditions]
    for condition, ratio in dict.fromkeys(clean + highest):
        name = f", {wording.condition_label(condition)}" if len(conditions) > 1 and ratio else ""
        title = f"{wording.percent(ratio)} noise{name}"
        yield f"{condition}-{ratio}", title, frames.where(frame, condition=condition, ratio=ratio)


def reliability(book: Book) -> Blocks:
    """Yield confidence against accuracy on the clean test set, of the clean encoder and each condition's highest
    ratio.
    """
    frame = book.frame("calibration", split="test", attack="none")
    if frame.empty:
        return
    for part in parts(frame, "reliability"):
        yield from part.head
        plots = []
        for key, title, rows in _extremes(part.rows):
            key = f"reliability-{key}-{part.number}"
            plots.append(figures.reliability(rows.to_dict("records"), part.looks, title, key))
        yield Panels(plots)
    fields = ("condition", "ratio", "method", "split", "bin", "count", "answers", "confidence", "accuracy")
    stored = [
        {**item, "bin": number, "answers": total, **dict(zip(("count", "confidence", "accuracy"), line))}
        for item in book.results["calibration"]
        for total in [sum(line[0] for line in item["bins"] if wording.finite(line[0]))]
        for number, line in enumerate(item["bins"], 1)
    ]
    yield book.csv("calibration", stored, fields)


def confusions(book: Book) -> Blocks:
    """Yield the share of each class by answer: of the linear probe and RAN (or the last method), clean and attacked."""
    frame = book.frame("confusions", split="test")
    classes = [str(name) for name in book.results.get("classes") or []]
    frame = frame.loc[[len(counts or []) == len(classes) > 0 for counts in frame["counts"]]]
    names = [name for name in frames.values(frame, "method") if name != "zero_shot"]
    chosen = [name for name in ("lp", "ran") if name in names] or names[-1:]
    attacks = frames.values(frame, "attack")
    for attack in attacks:
        plots = []
        for key, title, rows in _extremes(frame):
            for method in chosen:
                for counts in frames.where(rows, attack=attack, method=method)["counts"].head(1):
                    words = f"{labels.method_label(method)}, {title}"
                    plots.append(figures.confusion(counts, classes, words, f"confusion-{key}-{method}-{attack}"))
        summary = f"{wording.capitalized(labels.attack_label(attack, attacks))} images"
        yield Details(summary, [Panels(plots)], attack == "none")
    fields = ("condition", "ratio", "method", "split", "attack", "truth", "answer", "count")
    stored = [
        {**item, "truth": classes[row], "answer": classes[column], "count": count}
        for item in frame.to_dict("records")
        for row, line in enumerate(item["counts"])
        for column, count in enumerate(line)
    ]
    if stored:
        yield book.csv("confusions", stored, fields)


def planes(book: Book) -> Blocks:
    """Yield features of test images in a plane, clean and attacked, before and after each method."""
    frame = book.frame("projections")
    plots = []
    for key, title, rows in _extremes(frame):
        for method in frames.values(rows, "method"):
            points = frames.where(rows, method=method).drop_duplicates("features").set_index("features")["points"]
            shown = {kind: points[kind] or [] for kind in figures.KINDS_OF_FEATURES if kind in points}
            if shown:
                words = f"{labels.method_label(method)}, {title}"
                plots.append(figures.plane(shown, words, f"plane-{key}-{method}"))
    stored = [
        {**item, "image": number, "x": point[0], "y": point[1], "label": label}
        for item in frame.to_dict("records")
        for number, (point, label) in enumerate(zip(item["points"] or [], item["labels"] or []), 1)
    ]
    if plots:
        yield legend(figures.KINDS_OF_FEATURES, "planes", str.capitalize)
        yield Panels(plots)
        yield book.csv("planes", stored, ("condition", "ratio", "method", "features", "image", "x", "y", "label"))


def spectra(book: Book) -> Blocks:
    """Yield singular values of the features, with their entropy and the weight of the largest."""
    frame = book.frame("spectra")
    if frame.empty:
        return
    drawable = frame.loc[[figures.is_spectrum(values) for values in frame["singular_values"]]]
    for condition in frames.conditions(frame):
        chosen = frames.of_condition(drawable, condition)
        words, key = condition_heading(frame, condition), f"spectra-{condition}"
        encoder = frames.where(chosen, method="encoder")
        if len(encoder):
            looks = figures.ratio_styles(encoder["ratio"])
            yield Heading(f"Encoder, by upstream noise{words}")
            yield legend(looks, f"{key}-ratios", lambda ratio: wording.percent(float(ratio)))
            yield _spectrum_panels(encoder, f"{key}-encoder", "ratio", looks)
        top = frames.where(chosen, ratio=chosen["ratio"].max())
        if len(frames.values(top, "method")) > 1:
            yield Heading(f"Encoder and heads at {wording.percent(top['ratio'].iloc[0])} noise{words}")
            for part in parts(top, f"{key}-methods", 4, ["encoder"]):
                yield from part.head
                yield _spectrum_panels(part.rows, f"{key}-heads-{part.number}", "method", part.looks)
    stored = [
        {**item, "index": index, "singular_value": value}
        for item in frame.to_dict("records")
        for index, value in enumerate(item["singular_values"] or [], 1)
    ]
    yield from (table for table in [tables.spectra_table(frame)] if table)
    fields = ("condition", "ratio", "method", "features", "index", "singular_value", "sve", "lsvr")
    yield book.csv("spectra", stored or frame, fields)


def _spectrum_panels(frame: pd.DataFrame, key: str, by: str, looks: Mapping[str, Style]) -> Panels:
    """Return a panel for clean and one for attacked features, a line a value of the field `by`."""
    plots = []
    for kind in frames.values(frame, "features"):
        rows = frames.where(frame, features=kind)
        lines = sorted(zip(rows[by].astype(str), rows["singular_values"]), key=lambda line: line[0])
        drawn = [(looks[name], values) for name, values in lines]
        plots.append(figures.spectra(drawn, f"{key}-{kind}", f"{kind.capitalize()} features"))
    return Panels(plots)
