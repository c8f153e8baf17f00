"""How far each image is from being classified wrongly: the least L-infinity norm that any attack found, by method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, PyTree

from ranjax.attacks.attack_table import CLASSIFIER
from ranjax.attacks.fab import FAB, fab
from ranjax.core.keys import example_keys, stream
from ranjax.evaluation.white_box import Logits, MapRows, WhiteBox

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
TARGETS = 9


def least_norms(
    logits_fn: Logits,
    params: PyTree,
    images: Float[np.ndarray, "examples height width channels"],
    labels: np.ndarray,
    ids: Sequence[str],
    survived: Mapping[float, Bool[np.ndarray, " examples"]],
    *,
    steps: int,
    batch_size: int,
    seed: int = 0,
    map_rows: MapRows | None = None,
) -> Float[np.ndarray, " examples"]:
    """Return the least norm in pixels that breaks each image: 0 where it is wrong already, infinite where none does.

    FAB-T goes on to the nearest boundary it finds, towards the nearest classes (arXiv 1907.02044); a radius at which
    any other attack broke the image bounds it as well. Both are upper bounds.

    Args:
      logits_fn, params: the deployed model.
      images: f32 in [0, 1]; labels: i[N] or multi-hot [N, C]; ids: which decide each image's random numbers.
      survived: by radius in pixels, which images are right under all attacks.
      steps: of FAB towards each class.
      batch_size: images at a time.
      seed: of what is drawn.
      map_rows: as `WhiteBox` takes it.
    """
    settings = FAB(1.0, steps, targets=TARGETS, minimal=True)
    box = WhiteBox(logits_fn, settings, fab, CLASSIFIER, batch_size, map_rows=map_rows)
    keys = example_keys(stream(seed, "audit/minimal norm"), ids)
    found = box(params, images, labels, keys, keep_images=True)
    assert found.images is not None
    norm = np.abs(found.images - images).max(axis=(1, 2, 3)).astype(np.float64)
    least = np.where(found.correct, np.inf, norm)
    for radius, right in survived.items():
        least = np.where(right, least, np.minimum(least, radius))
    return np.where(found.clean_correct, least, 0.0)


def summary(least: Float[np.ndarray, " examples"]) -> dict[str, Any]:
    """Return the distribution in units of 1/255 for results.json; None stands for what no attack broke."""
    finite = [round(255 * float(value), 4) if np.isfinite(value) else None for value in least]
    right = np.sort(least[least > 0])
    # Of the images that are right: the least value that so large a share does not exceed.
    at = {f"{q:g}": right[max(0, int(np.ceil(q * len(right))) - 1)] if len(right) else np.nan for q in QUANTILES}
    return {
        "unit": "1/255",
        "values": finite,
        "wrong_already": int((least == 0).sum()),
        "unbroken": int(np.isinf(least).sum()),
        "quantiles": {q: round(255 * float(value), 4) if np.isfinite(value) else None for q, value in at.items()},
    }
