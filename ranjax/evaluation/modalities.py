"""What made an image, and which corruptions such images suffer from; imports no JAX, for configs name them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

MODALITIES: dict[str, tuple[str, ...]] = {
    "general": ("noise", "blur", "contrast", "exposure", "jpeg"),
    "xray": ("noise", "shot", "blur", "contrast", "exposure", "pixelate", "jpeg"),
    "ct": ("noise", "shot", "rings", "blur", "contrast", "exposure", "jpeg"),
    "mr": ("rician", "bias_field", "ghosting", "blur", "contrast", "jpeg"),
    "ultrasound": ("speckle", "motion", "contrast", "brightness", "pixelate", "jpeg"),
    "histology": ("stain", "blur", "motion", "brightness", "pixelate", "jpeg"),
    "fundus": ("noise", "speckle", "blur", "motion", "contrast", "brightness", "jpeg"),
    "skin": ("noise", "impulse", "blur", "motion", "contrast", "brightness", "jpeg"),
}
"""What the images of each modality suffer from."""
_SAID = {
    "xray": r"x-?rays?|radiographs?|cxr|chest film|mammogra\w+",
    "ct": r"ct|cta|computed tomogra\w+",
    "mr": r"mri?|mra|flair|t1w?|t2w?|magnetic resonance",
    "ultrasound": r"ultraso\w+|sonogra\w+|echocardiogra\w+|doppler",
    "histology": r"histolog\w+|histopatholog\w+|h&e|haematoxylin|hematoxylin|biopsy slides?|microscop\w+",
    "fundus": r"fundus|retinal? (?:photo\w*|images?)|fundoscop\w+",
    "skin": r"dermat\w*scop\w+|dermoscop\w+|skin lesions?",
}
_PATTERNS = {name: re.compile(rf"(?<![\w-])(?:{words})(?![\w-])", re.IGNORECASE) for name, words in _SAID.items()}
LEAST = 0.2
"""Share of the texts that speak of any modality which one of several needs to count."""


def kinds_of(modalities: Sequence[str]) -> tuple[str, ...]:
    """Return the kinds of all these modalities, each once; of none those of "general"."""
    return tuple(dict.fromkeys(kind for name in modalities or ("general",) for kind in MODALITIES[name]))


def modalities_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the modalities that names of classes, reports or titles speak of, the most frequent first; () for none."""
    counts = dict.fromkeys(_PATTERNS, 0)
    for text in texts:
        for name, pattern in _PATTERNS.items():
            counts[name] += bool(pattern.search(text))
    total = sum(counts.values())
    kept = [name for name, count in counts.items() if count and count >= LEAST * total]
    return tuple(sorted(kept, key=lambda name: -counts[name]))
