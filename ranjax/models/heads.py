"""Light-weight heads on frozen features, as plain functions of explicit parameters and batch statistics.

A head is a hashable value with ``init(key) -> (params, stats)`` and ``apply(params, stats, features, train) ->
(z, logits, new_stats)``; nothing is stored in it, so many seeds of one head are one `jax.vmap`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ranjax.core.errors import ConfigError
from ranjax.core.types import Params

INPUT = "input"
"""What `StandardisedHead` calls the statistics of its input."""


class Output(NamedTuple):
    """The output of a head.

    Attributes:
      z: the features that it adapted, or those given.
      logits: of the classes.
      stats: new batch statistics.
    """

    z: Float[Array, "batch features"]
    logits: Float[Array, "batch classes"]
    stats: Params


@dataclasses.dataclass(frozen=True)
class LinearHead:
    """A linear probe, z = f: D features -> C logits."""

    features: int
    classes: int

    def __post_init__(self) -> None:
        _check_sizes(self.features, self.classes)

    def init(self, key: jax.Array) -> tuple[Params, Params]:
        """Return float32 parameters (uniform within +-1/sqrt(D)) and empty statistics."""
        return {"classifier": _init_linear(key, self.features, self.classes)}, {}

    def apply(self, params: Params, stats: Params, features: Float[Array, "batch features"], train: bool) -> Output:
        """Return the features themselves, their logits, and the statistics."""
        return Output(features, _linear(params["classifier"], features), stats)


@dataclasses.dataclass(frozen=True)
class ResidualHead:
    """NMTune's head (Chen et al., ICLR 2024, arXiv 2309.17002): z = s * g(f) + f, then a linear map to C logits.

    g is Linear(D, 4D), batch norm, ReLU, Linear(4D, D); s is one learnable factor per channel, 1 at first.

    Attributes:
      features: D.
      classes: C.
      expansion: width of the hidden layer over D; 4 as published. Small ones make the head light.
      momentum: share of the new batch in the running moments (torch's convention).
      eps: added to the variance.
    """

    features: int
    classes: int
    expansion: float = 4.0
    momentum: float = 0.1
    eps: float = 1e-5

    def __post_init__(self) -> None:
        _check_sizes(self.features, self.classes)

    def init(self, key: jax.Array) -> tuple[Params, Params]:
        """Return float32 parameters (linear maps uniform within +-1/sqrt(fan-in)) and running moments (0 and 1)."""
        first, second, third = jax.random.split(key, 3)
        hidden = max(1, round(self.expansion * self.features))
        params = {
            "expand": _init_linear(first, self.features, hidden),
            "norm": {"scale": jnp.ones((hidden,), jnp.float32), "bias": jnp.zeros((hidden,), jnp.float32)},
            "contract": _init_linear(second, hidden, self.features),
            "residual_scale": jnp.ones((self.features,), jnp.float32),
            "classifier": _init_linear(third, self.features, self.classes),
        }
        return params, {"mean": jnp.zeros((hidden,), jnp.float32), "var": jnp.ones((hidden,), jnp.float32)}

    def apply(self, params: Params, stats: Params, features: Float[Array, "batch features"], train: bool) -> Output:
        """Return adapted features, their logits, and new statistics.

        With `train` the batch normalises itself and moves the running moments (their variance unbiased, as torch's);
        without, the running moments normalise it and come back unchanged. B must be 2 or more in training.
        """
        hidden = _linear(params["expand"], features)
        if train:
            if features.shape[0] < 2:
                raise ConfigError("batch", features.shape[0], "at least 2 rows, for batch norm in training")
            mean, var = jnp.mean(hidden, axis=0), jnp.var(hidden, axis=0)
            rows = features.shape[0]
            moments = {"mean": mean, "var": var * (rows / (rows - 1))}
            moments = jax.lax.stop_gradient(moments)
            stats = jax.tree.map(lambda old, new: (1 - self.momentum) * old + self.momentum * new, stats, moments)
        else:
            mean, var = stats["mean"], stats["var"]
        norm = params["norm"]
        hidden = (hidden - mean[None]) * (jax.lax.rsqrt(var + self.eps) * norm["scale"])[None] + norm["bias"][None]
        correction = _linear(params["contract"], jax.nn.relu(hidden))
        z = params["residual_scale"][None] * correction + features
        return Output(z, _linear(params["classifier"], z), stats)


@dataclasses.dataclass(frozen=True)
class StandardisedHead:
    """A head on features that are standardised first: less a mean, times an inverse deviation, both kept in `stats`.

    Attributes:
      inner: the head on standardised features.
    """

    inner: LinearHead | ResidualHead

    @property
    def features(self) -> int:
        """Return D."""
        return self.inner.features

    @property
    def classes(self) -> int:
        """Return C."""
        return self.inner.classes

    def init(self, key: jax.Array) -> tuple[Params, Params]:
        """Return float32 parameters and statistics, those of the input 0 and 1."""
        params, stats = self.inner.init(key)
        return params, with_input(stats, jnp.zeros((self.features,)), jnp.ones((self.features,)))

    def apply(self, params: Params, stats: Params, features: Float[Array, "batch features"], train: bool) -> Output:
        """Return adapted standardised features, their logits, and new statistics, those of the input as they were."""
        own = stats[INPUT]
        z = (features - own["mean"][None]) * own["inverse"][None]
        found = self.inner.apply(params, {name: part for name, part in stats.items() if name != INPUT}, z, train)
        return found._replace(stats={**found.stats, INPUT: own})


def with_input(stats: Params, mean: Array | np.ndarray, inverse: Array | np.ndarray) -> Params:
    """Return the statistics of a `StandardisedHead` out of those of its inner head, and its input's, [..., D]."""
    return {**stats, INPUT: {"mean": mean, "inverse": inverse}}


def _check_sizes(features: int, classes: int) -> None:
    if features < 1 or classes < 1:
        raise ConfigError("head", (features, classes), "at least one feature and one class")


def _init_linear(key: jax.Array, inputs: int, outputs: int) -> Params:
    bound = 1 / math.sqrt(inputs)
    # One draw for both: compiling the generator is what initialisation costs.
    drawn = jax.random.uniform(key, (inputs + 1, outputs), jnp.float32, -bound, bound)
    return {"kernel": drawn[:-1], "bias": drawn[-1]}


def _linear(params: Params, x: Float[Array, "batch inputs"]) -> Float[Array, "batch outputs"]:
    return jnp.matmul(x, params["kernel"]) + params["bias"][None]


HEADS: dict[str, functools.partial[LinearHead] | functools.partial[ResidualHead]] = {
    "linear": functools.partial(LinearHead),
    "residual": functools.partial(ResidualHead),
    "narrow": functools.partial(ResidualHead, expansion=0.125),
}
"""``HEADS[name](features, classes)``: a linear map, NMTune's head, and NMTune's with a hidden layer of D / 8."""
