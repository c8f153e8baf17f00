"""`Fit.class_weights` as weights of the examples, for solvers that sum over these."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped

from ranjax.methods.head_training import class_weights_of
from ranjax.methods.method_settings import Fit


def example_weights(labels: Shaped[np.ndarray, "..."], classes: int, shared: Fit) -> Float[np.ndarray, "..."] | None:
    """Return f64[N], the weight of each label's class; of multi-hot labels f64[N, C], the weight of a class where it is
    present and 1 where it is absent; None: every example the same.
    """
    labels = np.asarray(labels)
    weights = class_weights_of(labels, classes, shared.class_weights, shared.multi_label)
    if weights is None:
        return None
    wide = np.asarray(weights, np.float64)
    return np.where(labels > 0.5, wide[None], 1.0) if shared.multi_label else wide[labels]
