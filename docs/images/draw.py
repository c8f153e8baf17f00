"""Draw the pictures of the README: the chain, and the default job's result from its table in docs/results.md.

python docs/images/draw.py
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.sax.saxutils import escape

FOLDER = Path(__file__).resolve().parent
STYLE = """<style>
  text { font: 14px system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif; fill: #1a1a1a; }
  .name { font-weight: 600; } .small { font-size: 12px; fill: #595959; }
  .box { fill: #f6f7f8; stroke: #767676; } .attack { fill: #fdf5ef; stroke: #a34700; }
  .repair { fill: #eef6fb; stroke: #00527f; }
  .arrow { fill: none; stroke: #595959; stroke-width: 1.5; } .head { fill: #595959; }
  .grid { stroke: #d9d9d9; } .none { stroke: #767676; fill: #fff; } .noise { stroke: #a34700; fill: #a34700; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e8e8e6; } .small { fill: #a9adb2; }
    .box { fill: #1e2328; stroke: #a9adb2; } .attack { fill: #2b211a; stroke: #f0a070; }
    .repair { fill: #152836; stroke: #7cc0f0; }
    .arrow { stroke: #a9adb2; } .head { fill: #a9adb2; }
    .grid { stroke: #3b4046; } .none { stroke: #a9adb2; fill: #15181c; } .noise { stroke: #f0a070; fill: #f0a070; }
  }
</style>"""
STAGES = (
    ("box", "Images", "and their reports", ""),
    ("box", "Pre-train", "an encoder", "on clean pairs"),
    ("attack", "Craft", "noisy pairs: attack", "images and reports"),
    ("box", "Pre-train", "on pairs of which", "10 or 30 % are noisy"),
    ("repair", "Adapt", "the frozen encoder:", "RAN, LP, LoRA, ..."),
    ("box", "Evaluate", "clean, attacked,", "out of domain: a page"),
)
METHODS = ("LP", "LP (filter)", "MLP", "RAN")


def chain() -> str:
    """Return the chain of stages as an SVG document."""
    width, gap, top, height = 142, 22, 52, 92
    parts = []
    for index, (kind, name, *lines) in enumerate(STAGES):
        left = 8 + index * (width + gap)
        middle = left + width / 2
        parts.append(f'<rect class="{kind}" x="{left}" y="{top}" width="{width}" height="{height}" rx="8"/>')
        parts.append(f'<text class="name" x="{middle}" y="{top + 30}" text-anchor="middle">{name}</text>')
        parts += [
            f'<text class="small" x="{middle}" y="{top + 52 + 18 * row}" text-anchor="middle">{line}</text>'
            for row, line in enumerate(filter(None, lines))
        ]
        if index:
            parts.append(f'<path class="arrow" d="M{left - gap} {top + height / 2}h{gap - 6}"/>')
            parts.append(_head(left, top + height / 2))
    # The clean pairs that stay, and the clean encoder, which is adapted, too.
    parts += [_over(0, 3, top, width + gap, width), _over(1, 4, top, width + gap, width)]
    total = 16 + len(STAGES) * width + (len(STAGES) - 1) * gap
    label = "Images and reports, pre-train, craft noisy pairs, pre-train on them, adapt the frozen encoder, evaluate"
    return _document(total, top + height + 10, label, parts)


def _head(x: float, y: float, down: bool = False) -> str:
    shape = f"M{x} {y}l-4 -8h8z" if down else f"M{x} {y}l-8 -4v8z"
    return f'<path class="head" d="{shape}"/>'


def _over(first: int, second: int, top: int, step: int, width: int) -> str:
    start, end, height = 8 + first * step + width / 2, 8 + second * step + width / 2, 18 + 14 * first
    path = f"M{start} {top}V{top - height}H{end}V{top - 6}"
    return f'<path class="arrow" d="{path}"/>{_head(end, top, down=True)}'


def rows_of(page: str) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Return (value, low, high) of clean test accuracy by (noise, method), from the table of the default job."""
    table = page.partition("### The default job\n")[2].partition("\n### ")[0]
    found = re.findall(r"^\| (\d+ %) \| ([^|]+?) \| ([\d.]+) \[([\d.]+), ([\d.]+)\]", table, re.MULTILINE)
    return {(noise, method): (float(value), float(low), float(high)) for noise, method, value, low, high in found}


def result(rows: dict[tuple[str, str], tuple[float, float, float]]) -> str:
    """Return clean accuracy of each method without noise and at 30 %, with 95 % intervals, as an SVG document."""
    left, right, top, step, low, high = 150, 860, 44, 46, 30, 55

    def at(value: float) -> float:
        return round(left + (right - left) * (value - low) / (high - low), 1)

    bottom = top + step * len(METHODS)
    parts = []
    for tick in range(low, high + 1, 5):
        parts.append(f'<line class="grid" x1="{at(tick)}" x2="{at(tick)}" y1="{top - 12}" y2="{bottom - 8}"/>')
        parts.append(f'<text class="small" x="{at(tick)}" y="{bottom + 12}" text-anchor="middle">{tick} %</text>')
    for index, method in enumerate(METHODS):
        y = top + step * index + 10
        parts.append(f'<text class="name" x="{left - 18}" y="{y + 5}" text-anchor="end">{escape(method)}</text>')
        for noise, kind, shift in (("0 %", "none", -8), ("30 %", "noise", 8)):
            value, least, most = rows[noise, method]
            place, look = y + shift, f'class="{kind}" stroke-width="2.5"'
            parts.append(f'<line {look} x1="{at(least)}" x2="{at(most)}" y1="{place}" y2="{place}"/>')
            parts.append(f'<circle {look} cx="{at(value)}" cy="{place}" r="5.5"/>')
    for place, kind, words in ((left, "none", "no upstream noise"), (left + 190, "noise", "30 % upstream noise")):
        parts.append(f'<circle class="{kind}" stroke-width="2.5" cx="{place + 6}" cy="14" r="5.5"/>')
        parts.append(f'<text class="small" x="{place + 18}" y="18">{words}</text>')
    parts.append(
        f'<text class="small" x="{right}" y="18" text-anchor="end">accuracy on clean test images, 95 % interval</text>'
    )
    said = "; ".join(f"{method} {rows['0 %', method][0]} and {rows['30 %', method][0]} %" for method in METHODS)
    return _document(right + 40, bottom + 22, f"Clean accuracy without and with 30 % noise: {said}", parts)


def _document(width: float, height: float, label: str, parts: list[str]) -> str:
    box = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}"'
    head = f'<svg {box} role="img" aria-label="{escape(label)}">'
    return "\n".join([head, STYLE, *parts, "</svg>", ""])


def pictures() -> dict[str, str]:
    """Return the pictures by their file names."""
    return {"chain.svg": chain(), "result.svg": result(rows_of((FOLDER.parent / "results.md").read_text()))}


if __name__ == "__main__":
    for name, picture in pictures().items():
        (FOLDER / name).write_text(picture)
