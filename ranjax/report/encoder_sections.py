"""Sections on the insides of models: gradient masking, confusions, confidence, features in a plane, spectra.

Each function takes a `Book` and returns the data of the template of the same section; an empty first list says that
the run has nothing to show there.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from ranjax.report import entry_labels as labels
from ranjax.report import figures, wording
from ranjax.report import report_tables as tables
from ranjax.report import result_frame as frames
from ranjax.report.accuracy_sections import Family, Panels, condition_heading
from ranjax.report.book import Book
from ranjax.report.report_tables import METHOD, Table


def masking(book: Book) -> dict[str, object]:
    """Return each check of the attack, passed or not, which tells whether attacked figures can be believed."""
    frame = book.frame("masking")
    heads = [*tables.condition_and_noise(frame), METHOD]
    verdicts: list[list[str]] = []
    every: list[list[str]] = []
    breaks: set[int] = set()
    stored: list[dict[str, object]] = []
    for item in frame.to_dict("records"):
        names = [head.write(item) for head in heads]
        checks = item.get("checks") or []
        passed = f"{sum(bool(check.get('passed')) for check in checks)} of {len(checks)}" if checks else "–"
        verdicts.append([*names, passed, wording.plain(item.get("verdict"))])
        breaks.add(len(every))
        for number, check in enumerate(checks):
            # Of the checks of one model, the first line alone names it.
            every.append([*([""] * len(names) if number else names), *_check(check)])
        stored += [{**item, **{f"check_{key}": value for key, value in check.items()}} for check in checks or [{}]]
    titles = [head.title for head in heads]
    summary = Table([*titles, "Checks passed", "Verdict"], verdicts, heads=len(heads), numeric=False)
    header = [*titles, "Check", "Outcome", "What was seen"]
    checks = Table(header, every, heads=len(heads), breaks=frozenset(breaks - {0}), numeric=False)
    fields = ("condition", "ratio", "method", "verdict", "check_name", "check_passed", "check_detail")
    file = book.csv("masking", stored, fields) if stored else ""
    return {"summary": summary if verdicts else None, "checks": checks if every else None, "file": file}


def _check(check: Mapping[str, object]) -> list[str]:
    outcome = "–" if check.get("passed") is None else "✓ passed" if check["passed"] else "✗ failed"
    return [str(check.get("name", "–")), outcome, str(check.get("detail", ""))]


def _extremes(frame: pd.DataFrame) -> list[tuple[str, float]]:
    """Return (condition, ratio) of the clean encoder and of every condition's highest ratio."""
    clean = [(condition, 0.0) for condition in frame[frame["ratio"] == 0]["condition"]][:1]
    highest = [(name, frames.where(frame, condition=name)["ratio"].max()) for name in frames.conditions(frame)]
    return list(dict.fromkeys(clean + highest))


def _encoder_title(condition: str, ratio: float, frame: pd.DataFrame) -> str:
    several = len(frames.conditions(frame)) > 1
    name = f", {wording.condition_label(condition)}" if several and ratio else ""
    return f"{wording.percent(ratio)} noise{name}"


def reliability(book: Book) -> dict[str, object]:
    """Return confidence against accuracy on the clean test set, of the clean encoder and each condition's highest ratio."""
    frame = book.frame("calibration", split="test", attack="none")
    families = []
    for number, (family, members) in enumerate(frames.families(frames.methods(frame))):
        looks = figures.styles(members)
        plots = []
        for condition, ratio in _extremes(frame):
            own = frames.where(frame, condition=condition, ratio=ratio)
            own = own[own["method"].isin(members)]
            title, name = _encoder_title(condition, ratio, frame), f"reliability-{condition}-{ratio}-{number}"
            plots.append(figures.reliability(own.to_dict("records"), looks, title, name))
        families.append(Family(family, figures.legend(looks, f"reliability-{number}"), [Panels("", plots)]))
    fields = ("condition", "ratio", "method", "split", "bin", "count", "answers", "confidence", "accuracy")
    stored = [
        {**item, "bin": number, "answers": total, **dict(zip(("count", "confidence", "accuracy"), line))}
        for item in book.results.get("calibration") or []
        for total in [sum(line[0] for line in item["bins"] if wording.finite(line[0]))]
        for number, line in enumerate(item["bins"], 1)
    ]
    found = bool(len(frame))
    return {"families": families if found else [], "file": book.csv("calibration", stored, fields) if found else ""}


def confusions(book: Book) -> dict[str, object]:
    """Return the share of each class by answer: of the linear probe and RAN (or the last method), clean and attacked."""
    frame = book.frame("confusions", split="test")
    classes = [str(name) for name in book.results.get("classes") or []]
    if len(frame):
        frame = frame.loc[[len(counts or []) == len(classes) > 0 for counts in frame["counts"]]]
    names = [name for name in frames.methods(frame) if name != "zero_shot"]
    chosen = [name for name in ("lp", "ran") if name in names] or names[-1:]
    attacks = frames.attacks(frame)
    shown = []
    for attack in attacks:
        plots = []
        for condition, ratio in _extremes(frame):
            own = frames.where(frame, condition=condition, ratio=ratio, attack=attack)
            for method in chosen:
                for item in frames.where(own, method=method).head(1).to_dict("records"):
                    title = f"{labels.method_label(method)}, {_encoder_title(condition, ratio, frame)}"
                    name = f"confusion-{condition}-{ratio}-{method}-{attack}"
                    plots.append(figures.confusion(item["counts"], classes, title, name))
        summary = f"{wording.capitalized(labels.attack_label(attack, attacks))} images"
        shown.append((summary, plots, attack == "none"))
    fields = ("condition", "ratio", "method", "split", "attack", "truth", "answer", "count")
    stored = [
        {**item, "truth": classes[row], "answer": classes[column], "count": count}
        for item in frame.to_dict("records")
        for row, line in enumerate(item["counts"])
        for column, count in enumerate(line)
    ]
    return {"attacks": shown, "file": book.csv("confusions", stored, fields) if len(frame) else ""}


def planes(book: Book) -> dict[str, object]:
    """Return features of test images, clean and attacked, before and after each method."""
    frame = book.frame("projections")
    plots = []
    for condition, ratio in _extremes(frame):
        own = frames.where(frame, condition=condition, ratio=ratio)
        for method in frames.methods(own):
            of_method = frames.where(own, method=method).drop_duplicates("features")
            points = {
                kind: frames.where(of_method, features=kind)["points"].iloc[0] or []
                for kind in figures.KINDS_OF_FEATURES
                if kind in set(of_method["features"])
            }
            title = f"{labels.method_label(method)}, {_encoder_title(condition, ratio, frame)}"
            if points:
                plots.append(figures.plane(points, title, f"plane-{condition}-{ratio}-{method}"))
    fields = ("condition", "ratio", "method", "features", "image", "x", "y", "label")
    stored = [
        {**item, "image": number, "x": point[0], "y": point[1], "label": label}
        for item in frame.to_dict("records")
        for number, (point, label) in enumerate(zip(item["points"] or [], item["labels"] or []), 1)
    ]
    legend = figures.legend(figures.KINDS_OF_FEATURES, "planes", str.capitalize) if plots else []
    return {"plots": plots, "legend": legend, "file": book.csv("planes", stored, fields) if plots else ""}


def spectra(book: Book) -> dict[str, object]:
    """Return singular values of the features, with their entropy and the weight of the largest."""
    frame = book.frame("spectra")
    if frame.empty:
        return {"table": None}
    drawable = frame.loc[
        [any(wording.finite(value) and value > 0 for value in values or []) for values in frame["singular_values"]]
    ]
    shown: list[tuple[str, list[Family]]] = []
    for condition in frames.conditions(frame):
        chosen = frames.of_condition(drawable, condition)
        words = condition_heading(frame, condition)
        encoder = frames.where(chosen, method="encoder")
        if len(encoder):
            looks = figures.ratio_styles(encoder["ratio"])
            legend = figures.legend(looks, f"spectra-{condition}-ratios", lambda ratio: wording.percent(float(ratio)))
            rows = _spectrum_panels(encoder, f"spectra-{condition}-encoder", "ratio", looks)
            shown.append((f"Encoder, by upstream noise{words}", [Family("", legend, rows)]))
        top = frames.where(chosen, ratio=chosen["ratio"].max())
        if len(frames.methods(top)) > 1:
            families = []
            for number, (family, members) in enumerate(
                frames.families([name for name in frames.methods(top) if name != "encoder"])
            ):
                drawn = top[top["method"].isin(["encoder", *members])]
                looks = figures.styles(frames.methods(drawn))
                legend = figures.legend(looks, f"spectra-{condition}-methods-{number}")
                rows = _spectrum_panels(drawn, f"spectra-{condition}-heads-{number}", "method", looks)
                families.append(Family(family, legend, rows))
            heading = f"Encoder and heads at {wording.percent(top['ratio'].iloc[0])} noise{words}"
            shown.append((heading, families))
    stored = [
        {**item, "index": index, "singular_value": value}
        for item in frame.to_dict("records")
        for index, value in enumerate(item["singular_values"] or [], 1)
    ]
    fields = ("condition", "ratio", "method", "features", "index", "singular_value", "sve", "lsvr")
    file = book.csv("spectra", stored or frame, fields)
    return {"plots": shown, "table": tables.spectra_table(frame), "file": file}


def _spectrum_panels(frame: pd.DataFrame, name: str, by: str, looks: Mapping[str, figures.Style]) -> list[Panels]:
    """Return a panel for clean and one for attacked features, a line a value of the field `by`."""
    plots = []
    for kind in frames.features(frame):
        lines = frames.where(frame, features=kind)
        lines = lines.assign(text=lines[by].astype(str)).sort_values("text", kind="stable")
        drawn = [(looks[text], values) for text, values in zip(lines["text"], lines["singular_values"])]
        plots.append(figures.spectra(drawn, f"{name}-{kind}", f"{kind.capitalize()} features"))
    return [Panels("", plots)]
