"""Plots of what a model makes of its input: features in a plane, spectra, and which class is taken for which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ranjax.report import figures
from ranjax.report import labels_text as wording
from ranjax.report.figures import Style
from ranjax.report.markup import Markup

DARK, GREY = "#1b1b1b", "#6f6f6f"
"""On fields that are light whatever the page is."""
_RATIOS = [
    Style("#000000", "x", (0, (1, 1.6))),
    Style("#0072B2", "s", "-"),
    Style("#D55E00", "o", (0, (4, 1.5))),
    Style("#009E73", "D", (0, (4, 1.5, 1, 1.5))),
    Style("#CC79A7", "v", "-"),
    Style("#E69F00", "P", (0, (4, 1.5))),
]
LOOKS = {"clean": Style("#0072B2", "o", "none"), "attacked": Style("#D55E00", "x", "none")}


def plane(clean: Mapping[str, Any] | None, attacked: Mapping[str, Any] | None, title: str, name: str) -> Markup:
    """Returns one panel of two principal directions: each image clean, attacked, and the way between.

    Args:
      clean, attacked: items of results["projections"] of the same images, either of them None where absent.
      title, name: the panel's title, and what makes its ids unique.
    """
    given = {kind: item for kind, item in (("clean", clean), ("attacked", attacked)) if item is not None}
    points = {kind: [p for p in item.get("points") or [] if _is_point(p)] for kind, item in given.items()}

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        pairs = list(zip(points.get("clean", []), points.get("attacked", [])))
        for before, after in pairs:
            axes.plot([before[0], after[0]], [before[1], after[1]], color="#c4c4c4", linewidth=0.6, zorder=1)
        for kind, own in points.items():
            look = LOOKS[kind]
            axes.plot(
                [p[0] for p in own], [p[1] for p in own], color=look.color, marker=look.marker, linestyle="none",
                markersize=3.6, zorder=3, markerfacecolor=look.color if kind == "clean" else "none",
            )  # fmt: skip
        axes.set_xticks([])
        axes.set_yticks([])
        figures.heading(figure, title)
        axes.set_xlabel("First principal direction")
        axes.set_ylabel("Second")

    count = max((len(own) for own in points.values()), default=0)
    said = f"{title}: {count} test images in the plane of two principal directions of the clean features, "
    return figures.render(draw, 3.6, 2.9, said + " and ".join(points) + ".", name)


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(wording.finite(value) for value in point)


def confusion(counts: Sequence[Sequence[float]], classes: Sequence[str], title: str, name: str) -> Markup:
    """Returns one panel of shares in per cent, a row a true class, a column an answer; darker is more.

    Args:
      counts: [C, C].
      classes: C names.
      title, name: as in `plane`.
    """
    totals = [sum(line) for line in counts]
    shares = [[100 * v / total if total else 0.0 for v in line] for line, total in zip(counts, totals)]
    size = len(classes)
    labels = [wording.short(str(one), 13) for one in classes]

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for row, line in enumerate(shares):
            for column, share in enumerate(line):
                # One hue, light to dark; the number stands in each field, so that colour carries nothing alone.
                tone = 1 - 0.8 * share / 100
                box = {"facecolor": (tone * 0.92, tone * 0.97, 1 - 0.45 * share / 100), "edgecolor": "white"}
                axes.add_patch(_rectangle(column, row, box))
                ink = "white" if share > 55 else DARK if share >= 0.5 else GREY
                weight = "bold" if row == column else "normal"
                axes.text(
                    column + 0.5, row + 0.5, f"{share:.0f}", ha="center", va="center", fontsize=7.5, color=ink,
                    fontweight=weight,
                )  # fmt: skip
        axes.set_xlim(0, size)
        axes.set_ylim(size, 0)
        axes.set_xticks([i + 0.5 for i in range(size)], labels, rotation=45, ha="right", fontsize=8)
        axes.set_yticks([i + 0.5 for i in range(size)], labels, fontsize=8)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        for side in axes.spines.values():
            side.set_visible(False)
        figures.heading(figure, title)
        axes.set_xlabel("Answer")
        axes.set_ylabel("Truth")

    said = "; ".join(f"{classes[row]}: {line[row]:.0f} per cent right" for row, line in enumerate(shares))
    return figures.render(draw, 3.9, 3.6, f"Share of each true class by answer, {title}. {said}", name)


def _rectangle(x: float, y: float, look: Mapping[str, Any]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), 1, 1, linewidth=0.8, **look)


SPECTRUM_FLOOR = 1e-5
"""Where the axis of a spectrum ends, as a share of the panel's largest value."""


def spectra(items: Sequence[Mapping[str, Any]], name: str, by: str, title: str) -> Markup:
    """Returns one panel of normalised singular values against their index, a line a value of the field `by`.

    Args:
      items: spectra that differ in `by` alone.
      name: makes the ids unique.
      by: "ratio" or "method".
      title: the panel's title.
    """
    looks = spectra_styles([item[by] for item in items], by)
    lines = []
    for item in items:
        values = [value for value in item["singular_values"] if wording.finite(value) and value > 0]
        lines.append((looks[str(item[by])], [value / sum(values) for value in values]))
    floor = SPECTRUM_FLOOR * max((max(shares) for _, shares in lines if shares), default=1.0)

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for look, shares in lines:
            every = max(1, len(shares) // 8)
            axes.plot(
                range(1, len(shares) + 1),
                shares,
                color=look.color,
                linestyle=look.line,
                marker=look.marker,
                markevery=every,
                markersize=4.5,
            )
        axes.set_yscale("log")
        if any(shares and shares[-1] < floor for _, shares in lines):
            axes.set_ylim(bottom=floor)
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.12f}".rstrip("0").rstrip("."))
        figures.heading(figure, title)
        axes.set_xlabel("Index of the singular value")
        axes.set_ylabel("Share of the sum")

    return figures.render(
        draw, 3.6, 2.7, f"Singular values of the features, largest first: {title}. SVE and LSVR are in the table.", name
    )


def spectra_styles(values: Sequence[Any], by: str) -> dict[str, Style]:
    """Returns the styles that `spectra` uses, by the text of each value."""
    if by == "method":
        return figures.styles(str(value) for value in values)
    return {str(value): _RATIOS[index % len(_RATIOS)] for index, value in enumerate(sorted(set(values)))}
