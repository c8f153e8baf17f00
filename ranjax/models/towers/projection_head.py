"""From a tower's width to the shared space: a linear map with or without bias, an MLP, or nothing."""

from __future__ import annotations

import dataclasses

import jax
from flax import nnx

from ranjax.models.config_checks import one_of
from ranjax.models.layers import Linear, activation_function

KINDS = ("linear", "mlp", "none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Projection:
    """Kind of a projection; hashable.

    Attributes:
      kind: "linear"; "mlp" (linear, exact GELU, linear); "none", where the tower's width is the shared space's.
      bias: the last linear map has a bias.
      hidden: width inside the MLP.
      hidden_bias: the MLP's first linear map has a bias.
    """

    kind: str = "linear"
    bias: bool = False
    hidden: int = 0
    hidden_bias: bool = False

    def __post_init__(self) -> None:
        one_of("model.projection", self.kind, KINDS)


LINEAR = Projection()


class MLPProjection(nnx.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, projection: Projection, inputs: int, outputs: int, rngs: nnx.Rngs):
        hidden = projection.hidden
        self.fc1 = Linear(inputs, hidden, inputs**-0.5, rngs, use_bias=projection.hidden_bias)
        self.fc2 = Linear(hidden, outputs, hidden**-0.5, rngs, use_bias=projection.bias)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(activation_function("gelu")(self.fc1(x)))


def build(projection: Projection, inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Module | None:
    """The module of a projection; None for "none"."""
    if projection.kind == "none":
        return None
    if projection.kind == "mlp":
        return MLPProjection(projection, inputs, outputs, rngs)
    return Linear(inputs, outputs, inputs**-0.5, rngs, use_bias=projection.bias)
