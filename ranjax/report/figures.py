"""Plots as inline SVG, the same bytes each time; methods differ by colour (Okabe-Ito), marker and line style."""

from __future__ import annotations

import hashlib
import io
import itertools
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

import pandas as pd
from markupsafe import Markup, escape

from ranjax.methods.table import Style
from ranjax.report import entry_labels as labels
from ranjax.report import result_frame as frames
from ranjax.report import wording
from ranjax.report.stored_results import Results, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT = "#1a1a1a", "#767676"
_OF_THE_PAGE = {INK: "--ink", "#000000": "--ink", FAINT: "--soft", "#e6e6e6": "--line"}
"""Colours that follow the page's own, which are others where the reader prefers a dark one."""
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "path.simplify": True,
}
DARK, GREY = "#1b1b1b", "#6f6f6f"
"""On fields that are light in both colour schemes of the page."""
_OTHERS = [
    Style("#CC79A7", "v", (0, (1, 1.6))),
    Style("#E69F00", "H", "-"),
    Style("#56B4E9", "<", "-"),
    Style("#009E73", ">", (0, (4, 1.5))),
]
_RATIOS = [
    Style("#000000", "x", (0, (1, 1.6))),
    Style("#0072B2", "s", "-"),
    Style("#D55E00", "o", (0, (4, 1.5))),
    Style("#009E73", "D", (0, (4, 1.5, 1, 1.5))),
    Style("#CC79A7", "v", "-"),
    Style("#E69F00", "P", (0, (4, 1.5))),
]
KINDS_OF_FEATURES = {"clean": Style("#0072B2", "o", "none"), "attacked": Style("#D55E00", "x", "none")}
SPECTRUM_FLOOR = 1e-5
"""Lower end of the axis of a spectrum, as a share of the panel's largest value."""
LARGEST_MARK = 220.0
"""Square points of a mark that stands for all answers: one of 1 % is of the width of a line."""


def styles(names: Iterable[str]) -> dict[str, Style]:
    """Return a style for each method; methods of the table look the same on every page."""
    spare = itertools.cycle(_OTHERS)
    return {name: labels.method(name).style or next(spare) for name in names}


def ratio_styles(ratios: Iterable[float]) -> dict[str, Style]:
    """Return a style for each noise ratio, by its text."""
    return {str(ratio): _RATIOS[index % len(_RATIOS)] for index, ratio in enumerate(sorted(set(ratios)))}


def series_styles(names: Iterable[str]) -> dict[str, Style]:
    """Return a style for each of names that are no methods, in their order."""
    return dict(zip(names, itertools.cycle([*_RATIOS[1:], _RATIOS[0]])))


def render(
    draw: Callable[[Figure], None],
    width: float,
    height: float,
    label: str,
    name: str,
    layout: Literal["constrained"] | None = "constrained",
) -> Markup:
    """Draw into a fresh matplotlib figure and return it as an inline SVG element.

    Args:
      draw: receives a matplotlib Figure.
      width, height: inches.
      label: the content of the plot in words, for screen readers.
      name: makes the element ids unique in the page, and nothing else.
      layout: matplotlib's layout engine; None where the drawing places its axes itself.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with warnings.catch_warnings(), matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        # Text is set by the browser's own fonts, so it does not matter whether matplotlib's font knows a sign.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(width, height), layout=layout)
        FigureCanvasSVG(figure)
        draw(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(out.getvalue(), label, name)


def _inline(document: str, label: str, name: str) -> Markup:
    """Take prolog, metadata and foreign fonts out of an SVG document and make its ids its own."""
    body = document[document.index("<svg") :]
    opening, body = body.split(">", 1)
    box = re.search(r'viewBox="([^"]*)"', opening)
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    prefix = "f" + hashlib.sha256(name.encode()).hexdigest()[:8]
    body = re.sub(r'\bid="([^"]*)"', rf'id="{prefix}-\1"', body)
    body = re.sub(r'xlink:href="#', f'href="#{prefix}-', body)
    body = re.sub(r"url\(#", f"url(#{prefix}-", body)
    body = re.sub(r"(font: [^;\"]*?px) [^;\"]*", rf"\1 {_FONT}", body)
    for color, variable in _OF_THE_PAGE.items():
        body = body.replace(color, f"var({variable})")
    named = f'role="img" aria-label="{escape(label)}"' if label else 'aria-hidden="true"'
    return Markup(f'<svg viewBox="{box.group(1) if box else ""}" {named}>{body}')


def _panel(
    draw: Callable[[Axes], None],
    title: str,
    axes_labels: tuple[str, str],
    height: float,
    label: str,
    name: str,
    width: float = 3.6,
) -> Markup:
    """Return one panel with a title at the left edge, where it has the whole width, and labels of both axes."""

    def panel(figure: Figure) -> None:
        axes = figure.add_subplot()
        draw(axes)
        figure.suptitle(wording.short(title, 48), x=0.01, ha="left", fontsize=9.5, fontweight="bold")
        axes.set_xlabel(axes_labels[0])
        axes.set_ylabel(axes_labels[1])

    return render(panel, width, height, label, name)


def swatch(style: Style, name: str) -> Markup:
    """Return a short piece of line with its marker, for a legend."""

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.plot([0, 1, 2], [0, 0, 0], color=style.color, linestyle=style.line, marker=style.marker, markevery=[1])
        axes.set_xlim(-0.1, 2.1)

    return render(draw, 0.5, 0.18, "", name, layout=None)


def side_by_side(places: Sequence[float], count: int, share: float) -> tuple[list[float], tuple[float, float]]:
    """Return the shift of each of `count` lines, and the limits of the axis: no point lies outside or on another.

    Args:
      places: where the points of all lines are.
      count: how many lines there are.
      share: distance of two lines' points, as a share of the whole span; less where points are close.
    """
    places = sorted(set(places))
    span = places[-1] - places[0] or 1.0
    gaps = [after - before for before, after in itertools.pairwise(places)] or [span]
    step = min(share * span, 0.75 * min(gaps) / count)
    shifts = [(index - (count - 1) / 2) * step for index in range(count)]
    margin = max(0.08 * span, shifts[-1] + 0.03 * span)
    return shifts, (places[0] - margin, places[-1] + margin)


def _draw_lines(
    axes: Axes,
    rows: Iterable[Row],
    looks: Mapping[str, Style],
    place: Callable[[Row], float],
    ticks: Mapping[float, str],
    share: float,
    factor: float,
    chance: object,
    named: str = "",
) -> None:
    """Draw the level of chance, where it is a number, under its name, and one line a method, with intervals as upright
    bars.
    """
    if wording.finite(chance):
        axes.axhline(chance * factor, color=FAINT, linewidth=1, linestyle=(0, (2, 2)))
    if wording.finite(chance) and named:
        at, units = (1.01, chance * factor), ("axes fraction", "data")
        axes.annotate(named, at, xycoords=units, va="center", color=FAINT, fontsize=8, annotation_clip=False)
    shifts, limits = side_by_side(list(ticks), len(looks), share)
    rows = sorted(rows, key=place)
    for index, (method, look) in enumerate(looks.items()):
        own = [row for row in rows if row["method"] == method]
        x = [place(row) + shifts[index] for row in own]
        y = [row["value"] * factor for row in own]
        axes.plot(x, y, color=look.color, linestyle=look.line, marker=look.marker, zorder=3 + index)
        for across, row in zip(x, own):
            if wording.has_interval(row):
                ends = [row["low"] * factor, row["high"] * factor]
                axes.plot([across, across], ends, color=look.color, linewidth=1.1, zorder=2)
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_xlim(*limits)
    axes.grid(visible=False, axis="x")


def _in_words(rows: Iterable[Row], at: Callable[[Row], str], order: Callable[[Row], float]) -> str:
    """Return every method's values in words."""
    points: dict[str, list[str]] = {}
    for row in sorted(rows, key=order):
        words = f"{wording.number(row['value'], row['metric'])} at {at(row)}"
        points.setdefault(row["method"], []).append(words)
    return _of_methods({method: points[method] for method in labels.in_usual_order(points)})


def _of_methods(points: Mapping[str, Sequence[str]]) -> str:
    return " ".join(f"{labels.method_label(method)}: {', '.join(words)}." for method, words in points.items())


def _limits(frame: pd.DataFrame, *levels: object) -> tuple[float, float]:
    factor = wording.scale(frame["metric"].iloc[0])
    numbers = frame[["value", "low", "high"]].to_numpy().ravel()
    values = [value * factor for value in numbers if wording.finite(value)]
    low, high = min(values), max(values)
    span = max(high - low, 0.02 * factor)
    near = [c * factor for c in levels if wording.finite(c) and low - 0.6 * span <= c * factor <= high + 0.6 * span]
    low, high = min([low, *near]), max([high, *near])
    return low - 0.06 * span, high + 0.06 * span


def panel_title(split: str, attack: str, attacks: Sequence[str]) -> str:
    """Return the title of a panel of one kind of images."""
    return wording.capitalized(f"{labels.attack_label(attack, attacks)}, {wording.split_label(split)}")


def curves(frame: pd.DataFrame, metric: str, chance: object, name: str) -> list[Markup]:
    """Return one panel a split and attack: the metric against the noise ratio, a line a method, intervals as bars.

    Panels of one attack share the vertical axis, so that in domain and out of domain can be compared by eye.
    """
    frame = frames.where(frame, metric=metric)
    looks, attacks = styles(frames.values(frame, "method")), frames.values(frame, "attack")
    panels = []
    for (attack, split), chosen in frames.ordered(frame, ["attack", "split"]).groupby(["attack", "split"], sort=False):
        shared = frames.where(frame, attack=attack)
        title, key = panel_title(split, attack, attacks), f"{name}-{metric}-{split}-{attack}"
        panels.append(curve(chosen, shared, looks, chance, title, key))
    return panels


def curve(
    frame: pd.DataFrame,
    shared: pd.DataFrame,
    looks: Mapping[str, Style],
    chance: object,
    title: str,
    name: str,
    levels: Sequence[object] = (),
    axis: str = "",
    level: str = "chance",
) -> Markup:
    """Return one panel of a metric against the noise ratio.

    Args:
      frame: the rows that are drawn, of one metric, split and attack.
      shared: the rows by which the axes are set, so that several panels can have the same.
      looks: the style of each method, in the order in which the points of one ratio stand side by side.
      chance: the score of guessing, or None.
      title: the panel's title.
      name: makes the ids unique.
      levels: the scores of guessing in the other panels of the same axes.
      axis: the label of the vertical axis; empty: the metric's.
      level: what the score of guessing is called.
    """
    metric = shared["metric"].iloc[0]
    rows, factor = frames.records(frame), wording.scale(metric)
    limits = _limits(shared, chance, *levels)
    inside = chance if wording.finite(chance) and limits[0] <= chance * factor <= limits[1] else None
    ticks = {ratio * 100: f"{round(ratio * 100, 4):g}" for ratio in frames.values(shared, "ratio")}

    def draw(axes: Axes) -> None:
        _draw_lines(axes, rows, looks, lambda row: row["ratio"] * 100, ticks, 0.02, factor, inside, named=level)
        axes.set_ylim(*limits)

    words = _in_words(rows, lambda row: wording.percent(row["ratio"]), lambda row: row["ratio"])
    axis = axis or wording.axis_label(metric)
    label = f"{axis} against noise ratio, {title}. {words}"
    axes_labels = ("Noise ratio of the upstream pairs (%)", axis)
    return _panel(draw, title, axes_labels, 2.7, label, name)


def radius_curve(points: Sequence[Row], looks: Mapping[str, Style], chance: object, title: str, name: str) -> Markup:
    """Return one panel of accuracy against the radius, a line a method, intervals as bars.

    Args:
      points: rows, each with its "radius" in units of 1/255 (0: not attacked).
      looks: the style of each method.
      chance: accuracy of guessing, or None.
      title, name: the panel's title, and the text that makes its ids unique.
    """
    ticks = {radius: f"{round(radius, 3):g}" for radius in sorted({point["radius"] for point in points})}

    def draw(axes: Axes) -> None:
        _draw_lines(axes, points, looks, lambda point: point["radius"], ticks, 0.012, 100, chance)
        axes.set_ylim(bottom=0)

    words = _in_words(points, lambda point: f"{point['radius']:g}", lambda point: point["radius"])
    label = f"Accuracy against the radius of the attack, {title}. {words}"
    return _panel(draw, title, ("Radius of the attack (1/255)", "Accuracy (%)"), 2.7, label, name)


def differences(frame: pd.DataFrame, name: str) -> list[Markup]:
    """Return one panel a split and attack: each difference with its interval against the line of none.

    Args:
      frame: judged comparisons of one metric, task and first method.
      name: makes the ids unique.
    """
    attacks = frames.values(frame, "attack")
    looks = styles(labels.in_usual_order(frame["b"]))
    metric = frame["metric"].iloc[0]
    factor = wording.scale(metric)
    ends = [*(frame["low"] * factor), *(frame["high"] * factor), 0.0]
    pad = 0.06 * max(max(ends) - min(ends), 0.01)
    limits = min(ends) - pad, max(ends) + pad
    unit = ("points of " if wording.is_percent(metric) else "") + wording.metric_label(metric)
    panels = []
    ordered = frames.ordered(frame, ["attack", "split", "ratio"])
    for (attack, split), chosen in ordered.groupby(["attack", "split"], sort=False):
        title, items = panel_title(split, attack, attacks), frames.records(chosen)

        def draw(axes: Axes, items: Sequence[Row] = items) -> None:
            axes.axvline(0, color=INK, linewidth=1)
            for line, item in enumerate(items):
                look = looks[item["b"]]
                axes.plot([item["low"] * factor, item["high"] * factor], [line, line], color=look.color, linewidth=1.6)
                axes.plot([item["difference"] * factor], [line], color=look.color, marker=look.marker, linestyle="none")
                if line and item["ratio"] != items[line - 1]["ratio"]:
                    axes.axhline(line - 0.5, color="#d0d0d0", linewidth=0.7)
            methods = [wording.short(labels.method_label(item["b"]), 20) for item in items]
            names = [f"{wording.percent(item['ratio'])}, {name}" for item, name in zip(items, methods)]
            axes.set_yticks(range(len(items)), names)
            axes.set_ylim(len(items) - 0.4, -0.6)
            axes.set_xlim(*limits)
            axes.grid(visible=False, axis="y")
            axes.tick_params(axis="y", length=0)

        words = [
            f"{labels.method_label(item['a'])} minus {labels.method_label(item['b'])} at "
            f"{wording.percent(item['ratio'])}: "
            f"{wording.estimate({**item, 'value': item['difference']})}"
            for item in items
        ]
        axes_labels, height = (f"Difference in {unit}", ""), 0.85 + 0.2 * len(items)
        label = f"{title}. {'; '.join(words)}"
        panels.append(_panel(draw, title, axes_labels, height, label, f"{name}-{split}-{attack}"))
    return panels


def reliability(items: Sequence[Results], looks: Mapping[str, Style], title: str, name: str) -> Markup:
    """Return one panel of accuracy against mean confidence, a line a method; a mark's area is its bin's share.

    Bins of under 1 % of a method's answers are left out.

    Args:
      items: each with "method" and "bins", a list of (count, mean confidence, accuracy).
      looks, title, name: as in `radius_curve`.
    """
    lines = {item["method"]: filled_bins(item["bins"]) for item in items}

    def draw(axes: Axes) -> None:
        axes.plot([0, 100], [0, 100], color=FAINT, linewidth=1, linestyle=(0, (2, 2)))
        for index, (method, look) in enumerate(looks.items()):
            points = lines.get(method, [])
            x, y = ([100 * point[axis] for point in points] for axis in (0, 1))
            areas = [LARGEST_MARK * share for _, _, share in points]
            axes.plot(x, y, color=look.color, linestyle=look.line, linewidth=0.9, zorder=3 + index)
            axes.scatter(
                x, y, areas, color=look.color, marker=look.marker, alpha=0.75, linewidths=0.9, zorder=3 + index
            )
        axes.set_xlim(0, 102)
        axes.set_ylim(0, 102)

    words = {
        method: [
            f"{100 * accuracy:.0f} at confidence {100 * confidence:.0f} ({100 * share:.0f} % of answers)"
            for confidence, accuracy, share in points
        ]
        for method, points in lines.items()
    }
    label = f"Accuracy against confidence, {title}. {_of_methods(words)}"
    return _panel(draw, title, ("Confidence (%)", "Accuracy (%)"), 2.9, label, name)


def filled_bins(bins: Sequence[Sequence[Any]]) -> list[tuple[float, float, float]]:
    """Return (mean confidence, accuracy, share of the answers) of the bins that hold at least 1 % of them."""
    total = sum(line[0] for line in bins if wording.finite(line[0]))
    filled = [line for line in bins if all(map(wording.finite, line)) and line[0] >= 0.01 * total > 0]
    return [(confidence, accuracy, count / total) for count, confidence, accuracy in filled]


def plane(points: Mapping[str, Sequence[object]], title: str, name: str) -> Markup:
    """Return one panel of two principal directions: each image clean, attacked, and the way between.

    Args:
      points: (x, y) of the same images by the kind of features, "clean", "attacked" or both.
      title, name: as in `radius_curve`.
    """
    shown = {kind: [point for point in own if _is_point(point)] for kind, own in points.items()}

    def draw(axes: Axes) -> None:
        for before, after in zip(shown.get("clean", []), shown.get("attacked", [])):
            axes.plot([before[0], after[0]], [before[1], after[1]], color="#c4c4c4", linewidth=0.6, zorder=1)
        for kind, own in shown.items():
            look = KINDS_OF_FEATURES[kind]
            x, y = ([point[axis] for point in own] for axis in (0, 1))
            face = look.color if kind == "clean" else "none"
            lines = axes.plot(x, y, color=look.color, marker=look.marker, linestyle="none", markersize=3.6, zorder=3)
            lines[0].set_markerfacecolor(face)
        axes.set_xticks([])
        axes.set_yticks([])

    count = max((len(own) for own in shown.values()), default=0)
    label = f"{title}: {count} test images in the plane of two principal directions of the clean features, "
    label += " and ".join(shown) + "."
    return _panel(draw, title, ("First principal direction", "Second"), 2.9, label, name)


def _is_point(point: object) -> TypeGuard[list[float]]:
    return isinstance(point, list) and len(point) == 2 and all(wording.finite(value) for value in point)


def confusion(counts: Sequence[Sequence[int | float]], classes: Sequence[str], title: str, name: str) -> Markup:
    """Return one panel of shares in per cent, a row a true class, a column an answer; darker is more.

    Args:
      counts: [C, C].
      classes: C names.
      title, name: as in `radius_curve`.
    """
    totals = [sum(line) for line in counts]
    shares = [[100 * v / total if total else 0.0 for v in line] for line, total in zip(counts, totals)]
    names = [wording.short(one, 13) for one in classes]

    def draw(axes: Axes) -> None:
        from matplotlib.patches import Rectangle

        for row, column in itertools.product(range(len(classes)), repeat=2):
            share = shares[row][column]
            # One hue, light to dark; the number stands in each field, so that colour carries nothing alone.
            tone = 1 - 0.8 * share / 100
            face = (tone * 0.92, tone * 0.97, 1 - 0.45 * share / 100)
            axes.add_patch(Rectangle((column, row), 1, 1, linewidth=0.8, facecolor=face, edgecolor="white"))
            ink = "white" if share > 55 else DARK if share >= 0.5 else GREY
            weight = "bold" if row == column else "normal"
            place = (column + 0.5, row + 0.5)
            axes.text(*place, f"{share:.0f}", ha="center", va="center", fontsize=7.5, color=ink, fontweight=weight)
        axes.set_xlim(0, len(classes))
        axes.set_ylim(len(classes), 0)
        ticks = [index + 0.5 for index in range(len(classes))]
        axes.set_xticks(ticks, names, rotation=45, ha="right", fontsize=8)
        axes.set_yticks(ticks, names, fontsize=8)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        for side in axes.spines.values():
            side.set_visible(False)

    right = "; ".join(f"{classes[row]}: {line[row]:.0f} per cent right" for row, line in enumerate(shares))
    label = f"Share of each true class by answer, {title}. {right}"
    return _panel(draw, title, ("Answer", "Truth"), 3.6, label, name, width=3.9)


def is_spectrum(values: Sequence[object] | None) -> bool:
    """Return whether any of the singular values can be drawn."""
    return any(wording.finite(value) and value > 0 for value in values or [])


def spectra(lines: Sequence[tuple[Style, Sequence[object]]], name: str, title: str) -> Markup:
    """Return one panel of singular values, normalised to the sum 1, against their index.

    Args:
      lines: the style and the singular values of each line.
      name, title: as in `radius_curve`.
    """
    drawn: list[tuple[Style, list[float]]] = []
    for look, given in lines:
        values = [value for value in given if wording.finite(value) and value > 0]
        drawn.append((look, [value / sum(values) for value in values]))
    floor = SPECTRUM_FLOOR * max((max(shares) for _, shares in drawn if shares), default=1.0)

    def draw(axes: Axes) -> None:
        for look, shares in drawn:
            places, every = range(1, len(shares) + 1), max(1, len(shares) // 8)
            (line,) = axes.plot(
                places, shares, color=look.color, linestyle=look.line, marker=look.marker, markersize=4.5
            )
            line.set_markevery(every)
        axes.set_yscale("log")
        if any(shares and shares[-1] < floor for _, shares in drawn):
            axes.set_ylim(bottom=floor)
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.12f}".rstrip("0").rstrip("."))

    label = f"Singular values of the features, largest first: {title}. SVE and LSVR are in the table."
    return _panel(draw, title, ("Index of the singular value", "Share of the sum"), 2.7, label, name)
