"""What an audit recommends, in words with its uncertainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ranjax.evaluation import statistics

Repairs = Sequence[Mapping[str, Any]]


def advise(
    repairs: Repairs, baseline: str, controls: Mapping[str, Mapping[str, Any]], form: str = "full"
) -> dict[str, Any]:
    """Return {"method", "shown", "words"}: the repair that stands best over all radii, if it is shown to.

    A repair is recommended where its gain over the baseline is clear of 0 after Holm's correction over all repairs; its
    interval is Bonferroni's, as the best is looked at. One with masked gradients is never recommended.

    Args:
      repairs: items with "method", "label", "clean", "score", "masked" and, of all but the baseline, "gain" and
        "clean_change".
      baseline: its name.
      controls: accuracy of the baseline on encoders without pre-training, by label.
      form: of the audit.
    """
    by_name = {item["method"]: item for item in repairs}
    words: list[str] = []
    base = by_name.get(baseline)
    if base is None:
        return {"method": None, "shown": False, "words": ["No head was attacked, so nothing is recommended."]}
    clean, score = base["clean"], base["score"]
    if base["masked"]:
        words.append(f"{base['label']} is right on {_share(clean)} of clean images; under attack it is masked.")
    else:
        words.append(
            f"Fragility: {base['label']} on this checkpoint is right on {_share(clean)} of clean images and, "
            f"on average over the radii, on {_share(score)} of attacked ones."
        )
    words += _of_controls(base, controls)
    candidates = [item for item in repairs if "gain" in item]
    masked = [item["label"] for item in candidates if item["masked"]]
    if masked:
        words.append(f"Masked, so withheld: {', '.join(masked)}. Their attacked figures are no robustness.")
    open_ones = [item for item in candidates if not item["masked"]]
    if base["masked"] or not open_ones:
        return {"method": None, "shown": False, "words": [*words, "No repair can be recommended."]}
    corrected = statistics.holm(np.asarray([item["gain"]["p"] for item in open_ones]))
    ranked = sorted(zip(open_ones, corrected), key=lambda pair: -pair[0]["score"]["value"])
    best, p = ranked[0]
    gain, change = best["gain"], best["clean_change"]
    shown = bool(p < 0.05 and gain["low"] > 0)
    figures = f"{_points(gain)} points over the radii (p {p:.2g}, Holm), clean accuracy {_points(change)} points"
    if not shown:
        words.append(f"No repair is shown to be better than {base['label']}. The best is {best['label']}: {figures}.")
        words.append(f"Recommendation: keep {base['label']}, or measure more images ({gain['n']} were attacked).")
        return {"method": baseline, "shown": False, "words": words}
    words.append(f"Recommendation: {best['label']}. It gains {figures} against {base['label']}.")
    if change["high"] < 0:
        words.append("It costs clean accuracy: weigh the two.")
    if best["masked"] is None:
        words.append(f"Gradients of {best['label']} were not checked for masking.")
    if best["score"]["value"] < 0.5 * best["clean"]["value"]:
        words.append("It is a repair in part: most attacks of these radii still succeed.")
    if form == "quick":
        words.append("The quick form: few images and small budgets. Confirm with the full one before use.")
    return {"method": best["method"], "shown": True, "words": words}


def _of_controls(base: Mapping[str, Any], controls: Mapping[str, Mapping[str, Any]]) -> list[str]:
    near = [label for label, figure in controls.items() if figure["value"] >= base["clean"]["low"]]
    if not near:
        return []
    return [
        f"Beware: {base['label']} on {' and on '.join(near)} is about as accurate: the checkpoint's features are "
        "not shown to be worth anything on these data."
    ]


def _share(figure: Mapping[str, Any]) -> str:
    return f"{100 * figure['value']:.1f} % [{100 * figure['low']:.1f} to {100 * figure['high']:.1f}]"


def _points(figure: Mapping[str, Any]) -> str:
    return f"{100 * figure['value']:+.1f} [{100 * figure['low']:+.1f} to {100 * figure['high']:+.1f}]"
