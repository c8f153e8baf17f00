"""The precision of matrix products, for all of ranjax.

On a CPU float32 products are float32, whatever is asked for. Accelerators take float32 operands as TF32 (GPU) or
bfloat16 (TPU) unless told otherwise: an order faster, and good to 3 or 4 digits.

| what | products |
|---|---|
| features that are stored, compared or given to a head; answers that are counted as right or wrong; losses computed again by `ranjax verify`; similarities of retrieval and zero-shot | `exact`: float32 |
| gradients of attacks, pre-training, fitting of heads and towers | fast: as the device does them by default |

So gradients may differ between kinds of devices by their rounding, and what is reported of a given image and model
agrees to float32's rounding. Equal to the bit is what runs on one kind of device, with one version of jax.
"""  # noqa: E501

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")


def exact(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function whose matrix products, and those of what it calls, are traced in full float32."""

    @functools.wraps(function)
    def traced(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return traced
