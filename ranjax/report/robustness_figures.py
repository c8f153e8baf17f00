"""Plots of robust accuracy against the radius of the attack, and of confidence against accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ranjax.report import figures
from ranjax.report import labels_text as wording
from ranjax.report.figures import FAINT, Style
from ranjax.report.markup import Markup

Point = Mapping[str, Any]


def radius_curve(points: Sequence[Point], looks: Mapping[str, Style], chance: Any, title: str, name: str) -> Markup:
    """Returns one panel of accuracy against the radius, a line a method, intervals as bars.

    Args:
      points: rows, each with its "radius" in units of 1/255 (0: not attacked).
      looks: the style of each method.
      chance: accuracy of guessing, or None.
      title, name: the panel's title, and what makes its ids unique.
    """
    radii = sorted({point["radius"] for point in points})
    shifts, (left, right) = figures.side_by_side(radii, len(looks), 0.012)

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        if wording.finite(chance):
            axes.axhline(100 * chance, color=FAINT, linewidth=1, linestyle=(0, (2, 2)))
        for index, (method, look) in enumerate(looks.items()):
            own = sorted((p for p in points if p["method"] == method), key=lambda point: point["radius"])
            x = [point["radius"] + shifts[index] for point in own]
            axes.plot(
                x, [100 * p["value"] for p in own], color=look.color, linestyle=look.line, marker=look.marker,
                zorder=3 + index,
            )  # fmt: skip
            for at, point in zip(x, own):
                if wording.has_interval(point):
                    ends = [100 * point["low"], 100 * point["high"]]
                    axes.plot([at, at], ends, color=look.color, linewidth=1.1, zorder=2)
        axes.set_xticks(radii, [f"{round(radius, 3):g}" for radius in radii])
        axes.set_xlim(left, right)
        axes.set_ylim(bottom=0)
        axes.grid(visible=False, axis="x")
        figures.heading(figure, title)
        axes.set_xlabel("Radius of the attack (1/255)")
        axes.set_ylabel("Accuracy (%)")

    return figures.render(draw, 3.6, 2.7, f"Accuracy against the radius of the attack, {title}. {_said(points)}", name)


def _said(points: Sequence[Point]) -> str:
    said = []
    for method in dict.fromkeys(point["method"] for point in points):
        own = sorted((p for p in points if p["method"] == method), key=lambda point: point["radius"])
        figures_ = ", ".join(f"{wording.number(p['value'], 'accuracy')} at {p['radius']:g}" for p in own)
        said.append(f"{wording.method_label(method)}: {figures_}.")
    return " ".join(said)


def reliability(items: Sequence[Mapping[str, Any]], looks: Mapping[str, Style], title: str, name: str) -> Markup:
    """Returns one panel of accuracy against mean confidence, a line a method; a mark's area is its bin's share.

    Bins of under 1 % of a method's answers are left out.

    Args:
      items: each with "method" and "bins", a list of (count, mean confidence, accuracy).
      looks, title, name: as in `radius_curve`.
    """
    lines = {item["method"]: filled_bins(item["bins"]) for item in items}

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        axes.plot([0, 100], [0, 100], color=FAINT, linewidth=1, linestyle=(0, (2, 2)))
        for index, (method, look) in enumerate(looks.items()):
            points = lines.get(method, [])
            x, y = ([100 * point[axis] for point in points] for axis in (0, 1))
            areas = [mark_area(share) for _, _, share in points]
            axes.plot(x, y, color=look.color, linestyle=look.line, linewidth=0.9, zorder=3 + index)
            axes.scatter(
                x, y, areas, color=look.color, marker=look.marker, alpha=0.75, linewidths=0.9, zorder=3 + index
            )
        axes.set_xlim(0, 102)
        axes.set_ylim(0, 102)
        figures.heading(figure, title)
        axes.set_xlabel("Confidence (%)")
        axes.set_ylabel("Accuracy (%)")

    said = " ".join(
        f"{wording.method_label(method)}: "
        + ", ".join(
            f"{100 * hit:.0f} at confidence {100 * confidence:.0f} ({100 * share:.0f} % of answers)"
            for confidence, hit, share in points
        )
        + "."
        for method, points in lines.items()
    )
    return figures.render(draw, 3.6, 2.9, f"Accuracy against confidence, {title}. {said}", name)


LARGEST_MARK = 220.0
"""Square points of a mark that stands for all answers: one of 1 % is of the width of a line."""


def mark_area(share: float) -> float:
    """Returns the area of a mark, in square points, of a bin that holds this share of the answers."""
    return LARGEST_MARK * share


def filled_bins(bins: Sequence[Sequence[Any]]) -> list[tuple[float, float, float]]:
    """Returns (mean confidence, accuracy, share of the answers) of the bins that hold at least 1 % of them."""
    total = sum(line[0] for line in bins if wording.finite(line[0]))
    kept = [line for line in bins if all(wording.finite(value) for value in line) and line[0] >= 0.01 * total > 0]
    return [(line[1], line[2], line[0] / total) for line in kept]
