"""How names and figures are written, once for the page, the plots, the findings and the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ranjax.core.pixels import pixel_units
from ranjax.methods import table

METHODS = {
    "encoder": "Encoder",
    **{name: method.label for name, method in table.METHODS.items()},
    "image_to_text": "Image to report",
    "text_to_image": "Report to image",
}
TERMS = table.PARTS
SPLITS = {"test": "in domain", "ood_test": "out of domain"}
SPLIT_PHRASES = {"test": "on the test set", "ood_test": "on the out-of-domain test set"}
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
ATTACKS = {
    "pgd": "PGD",
    "worst": "worst of all",
    "transfer": "transferred",
    "words": "prompts",
    "image_only": "image",
    "text_only": "report",
    "sep": "both apart",
    "sequential": "one after the other",
    "coattack": "Co-Attack",
    "sga": "SGA",
}


def finite(value: Any) -> bool:
    """Returns whether `value` is a number that can be shown (not None, NaN, infinite or a truth value)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_percent(metric: str) -> bool:
    """Returns whether the metric is a share that is shown in per cent."""
    return metric.startswith(_PERCENT)


def scale(metric: str) -> float:
    """Returns the factor between a stored value and the shown one: 100 for shares, 1 for the rest."""
    return 100.0 if is_percent(metric) else 1.0


def digits(metric: str) -> int:
    """Returns the decimals that a value of `metric` is shown with."""
    return 1 if is_percent(metric) else {"sve": 2, "lsvr": 2}.get(metric, 3)


def number(value: Any, metric: str) -> str:
    """Returns a stored value as it is shown, e.g. ``0.6213`` of accuracy as ``"62.1"``; a dash for none."""
    if not finite(value):
        return "–"
    shown = f"{value * scale(metric):.{digits(metric)}f}"
    return shown[1:] if shown.startswith("-") and not shown.strip("-0.") else shown


def estimate(row: Mapping[str, Any] | None) -> str:
    """Returns a row's value with its interval, ``"62.1 [58.9, 65.0]"``; a dash where there is no row."""
    if row is None or not finite(row.get("value")):
        return "–"
    metric = str(row.get("metric", ""))
    value = number(row["value"], metric)
    if not has_interval(row):
        return value
    return f"{value} [{number(row['low'], metric)}, {number(row['high'], metric)}]"


def has_interval(row: Mapping[str, Any]) -> bool:
    """Returns whether both ends of the row's interval are numbers."""
    return finite(row.get("low")) and finite(row.get("high"))


def method_label(name: Any) -> str:
    """Returns the written name of a method, or the name itself where none is known."""
    return METHODS.get(str(name), str(name))


def term_label(name: str) -> str:
    """Returns the written name of a term of RAN."""
    return TERMS.get(name, name)


def metric_label(name: str) -> str:
    """Returns the written name of a metric; ``recall@5`` becomes ``R@5``."""
    if name.startswith("recall@"):
        return "R@" + name.removeprefix("recall@")
    if name.startswith(PER_CLASS):
        return "AUROC of " + name.removeprefix(PER_CLASS)
    return METRICS.get(name, name.replace("_", " "))


def chance_level(chance: Mapping[str, Any], metric: str) -> Any:
    """Returns what guessing gives in `metric`, or None; every kind of AUROC has the one level of "auroc"."""
    level = chance.get(metric)
    return chance.get("auroc") if level is None and "auroc" in metric else level


def axis_label(metric: str) -> str:
    """Returns the label of an axis that shows `metric`, with its unit."""
    label = metric_label(metric)
    label = label[:1].upper() + label[1:]
    return f"{label} (%)" if is_percent(metric) else label


def split_label(name: Any) -> str:
    """Returns the written name of a test split."""
    return SPLITS.get(str(name), str(name).replace("_", " "))


def split_phrase(name: Any) -> str:
    """Returns the split as part of a sentence, e.g. ``"on the test set"``."""
    return SPLIT_PHRASES.get(str(name), f"on {split_label(name)}")


def attack_label(name: Any, among: Iterable[Any] = ()) -> str:
    """Returns "clean" or "attacked", with the attack's name where several attacks are `among` the rows."""
    if name in (None, "none"):
        return "clean"
    several = len({other for other in among if other not in (None, "none")} | {name}) > 1
    return f"attacked ({attack_name(name)})" if several else "attacked"


def attack_name(name: Any) -> str:
    """Returns the written name of an attack; one that is not known in capitals."""
    return ATTACKS.get(str(name), str(name).upper())


def attack_phrase(name: Any) -> str:
    """Returns the attack as the subject of a sentence."""
    return {"worst": "the worst of all attacks", "transfer": "the attack transferred from the surrogate"}.get(
        str(name), f"the attack {attack_name(name)}"
    )


def radius(attack: Any) -> float | None:
    """Returns the radius in a curve's attack, ``"worst@2/255"``, in units of 1/255; None where it names none."""
    _, at, text = str(attack).partition("@")
    if not at:
        return None
    return radius_of(text)


def radius_of(text: Any) -> float | None:
    """Returns "2/255" or 0.0078 in units of 1/255; None where it is no number."""
    try:
        return 255 * pixel_units(text)
    except ValueError:
        return None


def percent(ratio: Any) -> str:
    """Returns a noise ratio in per cent with no more digits than it has: 0.1 is ``"10 %"``."""
    return f"{round(float(ratio) * 100, 4):g} %" if finite(ratio) else "–"


def condition_label(name: Any) -> str:
    """Returns the written name of a condition of upstream noise."""
    return str(name).replace("_", " ")


def short(text: str, length: int = 24) -> str:
    """Returns the text, cut with an ellipsis where it is longer than `length`, for places that cannot grow."""
    return text if len(text) <= length else text[: length - 1] + "…"


def duration(seconds: Any) -> str:
    """Returns seconds as a person says them: ``"8.4 s"``, ``"3 min 20 s"``, ``"2 h 5 min"``."""
    if not finite(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def plain(value: Any) -> str:
    """Returns a plain value of a config or a card as text: lists by commas, none as "none"."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    return str(value)
