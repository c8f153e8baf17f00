"""Plots as inline SVG, the same bytes each time: told apart by colour (Okabe-Ito), marker and line style."""

from __future__ import annotations

import hashlib
import io
import itertools
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ranjax.methods.table import METHODS, Style
from ranjax.report import labels_text as wording
from ranjax.report import row_queries as rows_
from ranjax.report.markup import Markup, tag
from ranjax.report.row_queries import Row

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


_STYLES = {name: method.style for name, method in METHODS.items() if method.style}
_STYLES["encoder"] = _STYLES["zero_shot"]
_OTHERS = [
    Style("#CC79A7", "v", (0, (1, 1.6))),
    Style("#E69F00", "H", "-"),
    Style("#56B4E9", "<", "-"),
    Style("#009E73", ">", (0, (4, 1.5))),
]


def styles(names: Iterable[str]) -> dict[str, Style]:
    """Returns a style for each method; known methods look the same on every page."""
    spare = 0
    chosen: dict[str, Style] = {}
    for name in names:
        if name in _STYLES:
            chosen[name] = _STYLES[name]
        else:
            chosen[name], spare = _OTHERS[spare % len(_OTHERS)], spare + 1
    return chosen


def render(
    draw: Callable[[Any], None], width: float, height: float, label: str, name: str, layout: str | None = "constrained"
) -> Markup:
    """Draws into a fresh matplotlib figure and returns it as an inline SVG element.

    Args:
      draw: receives a matplotlib Figure.
      width: inches.
      height: inches.
      label: what the plot shows, for those who do not see it.
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
    """Takes prolog, metadata and foreign fonts out of an SVG document and makes its ids its own."""
    body = document[document.index("<svg") :]
    opening, body = body.split(">", 1)
    box = re.search(r'viewBox="([^"]*)"', opening)
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    prefix = "f" + hashlib.sha256(name.encode()).hexdigest()[:8]
    body = re.sub(r'\bid="([^"]*)"', rf'id="{prefix}-\1"', body)
    body = re.sub(r'xlink:href="#', f'href="#{prefix}-', body)
    body = re.sub(r"url\(#", f"url(#{prefix}-", body)
    body = re.sub(r"(font: [^;\"]*?px) [^;\"]*", rf"\1 {_FONT}", body)
    for color, name_ in _OF_THE_PAGE.items():
        body = body.replace(color, f"var({name_})")
    body = body.rsplit("</svg>", 1)[0]
    named = {"role": "img", "aria_label": label} if label else {"aria_hidden": "true"}
    return tag("svg", Markup(body), viewBox=box.group(1) if box else None, **named)


def heading(figure: Any, title: str) -> None:
    """Writes a panel's title at the left edge, where it has the whole width."""
    figure.suptitle(wording.short(title, 48), x=0.01, ha="left", fontsize=9.5, fontweight="bold")


def swatch(style: Style, name: str) -> Markup:
    """Returns a short piece of line with its marker, for a legend."""

    def draw(figure: Any) -> None:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.plot([0, 1, 2], [0, 0, 0], color=style.color, linestyle=style.line, marker=style.marker, markevery=[1])
        axes.set_xlim(-0.1, 2.1)

    return render(draw, 0.5, 0.18, "", name, layout=None)


def legend(entries: Mapping[str, Style], name: str, label: Callable[[str], str] = wording.method_label) -> Markup:
    """Returns a legend that wraps with the page."""
    items = [tag("li", swatch(style, f"{name}-{key}"), label(key)) for key, style in entries.items()]
    return tag("ul", items, class_="legend", aria_label="Legend")


def _limits(rows: Sequence[Row], *levels: Any) -> tuple[float, float]:
    factor = wording.scale(str(rows[0]["metric"]))
    values = [row[key] * factor for row in rows for key in ("value", "low", "high") if wording.finite(row.get(key))]
    low, high = min(values), max(values)
    span = max(high - low, 0.02 * factor)
    near = [c * factor for c in levels if wording.finite(c) and low - 0.6 * span <= c * factor <= high + 0.6 * span]
    low, high = min([low, *near]), max([high, *near])
    return low - 0.06 * span, high + 0.06 * span


def side_by_side(places: Sequence[float], count: int, share: float) -> tuple[list[float], tuple[float, float]]:
    """Returns by how much each of `count` lines is moved, and the limits of the axis: no point outside or at another's.

    Args:
      places: where the points of all lines are.
      count: how many lines there are.
      share: of the whole span, how far one line's points stand from the next one's where there is room.
    """
    places = sorted(set(places))
    span = places[-1] - places[0] or 1.0
    gaps = [after - before for before, after in itertools.pairwise(places)] or [span]
    step = min(share * span, 0.75 * min(gaps) / count)
    shifts = [(index - (count - 1) / 2) * step for index in range(count)]
    room = max(0.08 * span, shifts[-1] + 0.03 * span)
    return shifts, (places[0] - room, places[-1] + room)


def curves(rows: Sequence[Row], metric: str, chance: Any, name: str) -> list[Markup]:
    """Returns one panel a split and attack: the metric against the noise ratio, a line a method, intervals as bars.

    Panels of one attack share the vertical axis, so that in domain and out of domain can be compared by eye.
    """
    rows = rows_.pick(rows, metric=metric)
    if not rows:
        return []
    looks, attacks = styles(rows_.methods(rows)), rows_.attacks(rows)
    panels = []
    for split, attack in sorted(rows_.columns(rows), key=lambda column: attacks.index(column[1])):
        shared = rows_.pick(rows, attack=attack)
        title = f"{wording.attack_label(attack, attacks)}, {wording.split_label(split)}"
        title = title[0].upper() + title[1:]
        chosen = rows_.pick(shared, split=split)
        panels.append(curve(chosen, shared, looks, chance, title, f"{name}-{metric}-{split}-{attack}"))
    return panels


def curve(
    rows: Sequence[Row],
    shared: Sequence[Row],
    looks: Mapping[str, Style],
    chance: Any,
    title: str,
    name: str,
    levels: Sequence[Any] = (),
) -> Markup:
    """Returns one panel of a metric against the noise ratio.

    Args:
      rows: what is drawn, of one metric, split and attack.
      shared: the rows by which the axes are set, so that several panels can have the same.
      looks: the style of each method, in the order in which the points of one ratio stand side by side.
      chance: what guessing gives, or None.
      title: the panel's title.
      name: makes the ids unique.
      levels: what guessing gives in the other panels of the same axes.
    """
    metric = str(shared[0]["metric"])
    draw = _curve_panel(rows, looks, metric, chance, _limits(shared, chance, *levels), rows_.ratios(shared), title)
    label = f"{wording.axis_label(metric)} against noise ratio, {title}. " + _spoken(rows)
    return render(draw, 3.6, 2.7, label, name)


def _spoken(rows: Sequence[Row]) -> str:
    parts = []
    for method in rows_.methods(rows):
        points = sorted(rows_.pick(rows, method=method), key=lambda row: row["ratio"])
        said = ", ".join(
            f"{wording.number(row['value'], str(row['metric']))} at {wording.percent(row['ratio'])}" for row in points
        )
        parts.append(f"{wording.method_label(method)}: {said}.")
    return " ".join(parts)


def _curve_panel(
    rows: Sequence[Row],
    looks: Mapping[str, Style],
    metric: str,
    chance: Any,
    limits: tuple[float, float],
    ratios: Sequence[float],
    title: str,
) -> Callable[[Any], None]:
    factor = wording.scale(metric)
    shifts, (left, right) = side_by_side([ratio * 100 for ratio in ratios], len(looks), 0.02)

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        if wording.finite(chance) and limits[0] <= chance * factor <= limits[1]:
            axes.axhline(chance * factor, color=FAINT, linewidth=1, linestyle=(0, (2, 2)))
            axes.annotate(
                "chance",
                (1.01, chance * factor),
                xycoords=("axes fraction", "data"),
                va="center",
                color=FAINT,
                fontsize=8,
                annotation_clip=False,
            )
        for index, (method, look) in enumerate(looks.items()):
            points = sorted(rows_.pick(rows, method=method), key=lambda row: row["ratio"])
            x = [row["ratio"] * 100 + shifts[index] for row in points]
            y = [row["value"] * factor for row in points]
            axes.plot(x, y, color=look.color, linestyle=look.line, marker=look.marker, zorder=3 + index)
            for at, row in zip(x, points):
                if wording.has_interval(row):
                    axes.plot(
                        [at, at], [row["low"] * factor, row["high"] * factor], color=look.color, linewidth=1.1, zorder=2
                    )
        axes.set_xticks([ratio * 100 for ratio in ratios], [f"{round(ratio * 100, 4):g}" for ratio in ratios])
        axes.set_xlim(left, right)
        axes.set_ylim(*limits)
        axes.grid(visible=False, axis="x")
        heading(figure, title)
        axes.set_xlabel("Noise ratio of the upstream pairs (%)")
        axes.set_ylabel(wording.axis_label(metric))

    return draw


def differences(items: Sequence[Mapping[str, Any]], name: str) -> list[Markup]:
    """Returns one panel a split and attack: each difference with its interval against the line of none."""
    attacks = rows_.attacks(items)
    looks = styles(rows_.methods([{"method": item["b"]} for item in items]))
    metric = str(items[0]["metric"])
    factor = wording.scale(metric)
    ends = [item[end] * factor for item in items for end in ("low", "high")] + [0.0]
    pad = 0.06 * max(max(ends) - min(ends), 0.01)
    panels = []
    for split, attack in sorted(rows_.columns(items), key=lambda column: attacks.index(column[1])):
        chosen = sorted(rows_.pick(items, split=split, attack=attack), key=lambda item: item["ratio"])
        title = f"{wording.attack_label(attack, attacks)}, {wording.split_label(split)}"
        title = title[0].upper() + title[1:]
        draw = _difference_panel(chosen, looks, metric, (min(ends) - pad, max(ends) + pad), title)
        spoken = "; ".join(_spoken_difference(item) for item in chosen)
        panels.append(render(draw, 3.6, 0.85 + 0.2 * len(chosen), f"{title}. {spoken}", f"{name}-{split}-{attack}"))
    return panels


def _spoken_difference(item: Mapping[str, Any]) -> str:
    names = f"{wording.method_label(item['a'])} minus {wording.method_label(item['b'])}"
    return f"{names} at {wording.percent(item['ratio'])}: {wording.estimate({**item, 'value': item['difference']})}"


def _difference_panel(
    items: Sequence[Mapping[str, Any]], looks: Mapping[str, Style], metric: str, limits: tuple[float, float], title: str
) -> Callable[[Any], None]:
    factor = wording.scale(metric)

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        axes.axvline(0, color=INK, linewidth=1)
        previous = None
        for line, item in enumerate(items):
            look = looks[item["b"]]
            axes.plot([item["low"] * factor, item["high"] * factor], [line, line], color=look.color, linewidth=1.6)
            axes.plot([item["difference"] * factor], [line], color=look.color, marker=look.marker, linestyle="none")
            if previous is not None and item["ratio"] != previous:
                axes.axhline(line - 0.5, color="#d0d0d0", linewidth=0.7)
            previous = item["ratio"]
        axes.set_yticks(
            range(len(items)),
            [
                f"{wording.percent(item['ratio'])}, {wording.short(wording.method_label(item['b']), 20)}"
                for item in items
            ],
        )
        axes.set_ylim(len(items) - 0.4, -0.6)
        axes.set_xlim(*limits)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        heading(figure, title)
        unit = (
            "points of " + wording.metric_label(metric) if wording.is_percent(metric) else wording.metric_label(metric)
        )
        axes.set_xlabel(f"Difference in {unit}")

    return draw
