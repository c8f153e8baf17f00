"""Views of chest films in the codes of their publishers: MIMIC-CXR, CheXpert, NIH, PadChest, and DICOM's ViewPosition.

A code that is not listed is none that is known to be frontal: the film is left out of frontal sets, and the reason
names the code. Only where nothing is stated may a film be of any view.
"""

from __future__ import annotations

FRONTAL = frozenset(
    {"pa", "ap", "frontal", "front", "ap_horizontal", "ap horizontal", "ap supine", "ap erect", "ap portable",
     "pa erect", "postero-anterior", "posteroanterior", "antero-posterior", "anteroposterior"}
)  # fmt: skip
LATERAL = frozenset(
    {"lateral", "l", "ll", "rl", "lat", "left lateral", "right lateral", "xtable lateral", "cross-table lateral",
     "lateral left", "lateral right"}
)  # fmt: skip
_NOT_STATED = frozenset({"", "nan", "none", "null", "na", "n/a", "<na>"})


def view_of(code: str) -> str:
    """Return "frontal", "lateral", "" where nothing is stated, or the code itself, which is known to be neither."""
    plain = " ".join(code.strip().lower().split())
    if plain in _NOT_STATED:
        return ""
    return "frontal" if plain in FRONTAL else "lateral" if plain in LATERAL else code.strip()
