"""Names and numbers as text, the same on the page, in plots, in findings and in the terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TypeGuard, TypeVar

from ranjax.core.pixels import pixel_units

RECONSTRUCTION = (
    "This is the project's own reconstruction of the study, from the lines of work that it continues. No number "
    "on this page is the paper's."
)
SPLITS = {"test": "in domain", "ood_test": "out of domain"}
_SPLIT_PHRASES = {"test": "on the test set", "ood_test": "on the out-of-domain test set"}
METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC",
    "macro_auroc": "macro AUROC",
    "label_accuracy": "accuracy of single findings",
    "map": "mean average precision",
    "ece": "calibration error (ECE)",
    "mce": "mean corruption error (mCE)",
    "recall_drop@1": "R@1 lost",
    "turned_wrong@1": "right queries turned wrong",
    "sve": "SVE",
    "lsvr": "LSVR",
}
PLOTTED = ("accuracy", "auroc", "macro_auroc")
PER_CLASS = "auroc/"
_PERCENT = ("accuracy", "label_accuracy", "balanced_accuracy", "recall", "worst_group", "turned_wrong", "mce")
LOWER_IS_BETTER = frozenset({"ece", "mce"})
_MINUS = re.compile(r"(?<![\w.\-])-(?=\d)")

_Text = TypeVar("_Text", bound=str)


def typeset(text: _Text) -> _Text:
    """Return text or markup with true minus signs before digits, and per cent signs that stay with their number."""
    return type(text)(_MINUS.sub("−", text).replace(" %", "\N{NO-BREAK SPACE}%"))


def finite(value: object) -> TypeGuard[float]:
    """Return whether `value` is a number that can be shown (not None, NaN, infinite or a truth value)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_percent(metric: str) -> bool:
    """Return whether the metric is a share that is shown in per cent."""
    return metric.startswith(_PERCENT)


def scale(metric: str) -> float:
    """Return the factor between a stored value and the shown one: 100 for shares, 1 for the rest."""
    return 100.0 if is_percent(metric) else 1.0


def digits(metric: str) -> int:
    """Return the decimals that a value of `metric` is shown with."""
    return 1 if is_percent(metric) else {"sve": 2, "lsvr": 2}.get(metric, 3)


def number(value: object, metric: str) -> str:
    """Return a stored value as it is shown, e.g. ``0.6213`` of accuracy as ``"62.1"``; a dash for none."""
    if not finite(value):
        return "–"
    shown = f"{value * scale(metric):.{digits(metric)}f}"
    return shown[1:] if shown.startswith("-") and not shown.strip("-0.") else shown


def estimate(row: Mapping[str, object] | None) -> str:
    """Return a row's value with its interval, ``"62.1 [58.9, 65.0]"``; a dash where there is no row."""
    if row is None or not finite(row.get("value")):
        return "–"
    metric = str(row.get("metric", ""))
    value = number(row["value"], metric)
    if not has_interval(row):
        return value
    return f"{value} [{number(row['low'], metric)}, {number(row['high'], metric)}]"


def has_interval(row: Mapping[str, object]) -> bool:
    """Return whether both ends of the row's interval are numbers."""
    return finite(row.get("low")) and finite(row.get("high"))


def metric_label(name: str) -> str:
    """Return the written name of a metric; ``recall@5`` becomes ``R@5``."""
    if name.startswith("recall@"):
        return "R@" + name.removeprefix("recall@")
    if name.startswith(PER_CLASS):
        return "AUROC of " + name.removeprefix(PER_CLASS)
    return METRICS.get(name, name.replace("_", " "))


def chance_level(chance: Mapping[str, object], metric: str) -> object:
    """Return what guessing gives in `metric`, or None; every kind of AUROC has the one level of "auroc"."""
    level = chance.get(metric)
    return chance.get("auroc") if level is None and "auroc" in metric else level


def axis_label(metric: str) -> str:
    """Return the label of an axis that shows `metric`, with its unit."""
    label = capitalized(metric_label(metric))
    return f"{label} (%)" if is_percent(metric) else label


def split_label(name: object) -> str:
    """Return the written name of a test split."""
    return SPLITS.get(str(name), str(name).replace("_", " "))


def split_phrase(name: object) -> str:
    """Return the split as part of a sentence, e.g. ``"on the test set"``."""
    return _SPLIT_PHRASES.get(str(name), f"on {split_label(name)}")


def radius(attack: object) -> float | None:
    """Return the radius in a curve's attack, ``"worst@2/255"``, in units of 1/255; None where it names none."""
    return radius_of(str(attack).partition("@")[2])


def radius_of(text: object) -> float | None:
    """Return "2/255" or 0.0078 in units of 1/255; None where it is no number."""
    try:
        return 255 * pixel_units(text)
    except ValueError:
        return None


def percent(ratio: object) -> str:
    """Return a noise ratio in per cent with no more digits than it has: 0.1 is ``"10 %"``."""
    return f"{round(float(ratio) * 100, 4):g} %" if finite(ratio) else "–"


def condition_label(name: object) -> str:
    """Return the written name of a condition of upstream noise."""
    return str(name).replace("_", " ")


def capitalized(text: str) -> str:
    """Return the text with a capital as its first letter."""
    return text[:1].upper() + text[1:]


def short(text: str, length: int = 24) -> str:
    """Return the text, cut with an ellipsis where it is longer than `length`, for places that cannot grow."""
    return text if len(text) <= length else text[: length - 1] + "…"


def duration(seconds: object) -> str:
    """Return seconds in words: ``"8.4 s"``, ``"3 min 20 s"``, ``"2 h 5 min"``."""
    if not finite(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def plain(value: object) -> str:
    """Return a plain value of a config or a card as text: lists by commas, none as "none"."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    return str(value)
