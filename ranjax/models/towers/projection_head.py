"""From a tower's width to the shared space: a linear map with or without bias, an MLP, or nothing."""

from __future__ import annotations

import dataclasses

from flax import nnx
from jaxtyping import Array, Float

from ranjax.core.errors import ConfigError
from ranjax.models.layers import ACTIVATION_FUNCTIONS, Linear

KINDS = ("linear", "mlp", "none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Projection:
    """The kind of a projection; hashable.

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
        if self.kind not in KINDS:
            raise ConfigError("model.projection", self.kind, f"one of {', '.join(KINDS)}")
        if self.hidden < (self.kind == "mlp"):
            raise ConfigError("model.projection.hidden", self.hidden, "the width inside an MLP, of at least 1")


LINEAR = Projection()


class MLPProjection(nnx.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, projection: Projection, inputs: int, outputs: int, rngs: nnx.Rngs):
        hidden = projection.hidden
        self.fc1 = Linear(inputs, hidden, inputs**-0.5, rngs, use_bias=projection.hidden_bias)
        self.fc2 = Linear(hidden, outputs, hidden**-0.5, rngs, use_bias=projection.bias)

    def __call__(self, x: Float[Array, "batch inputs"]) -> Float[Array, "batch outputs"]:
        return self.fc2(ACTIVATION_FUNCTIONS["gelu"](self.fc1(x)))


def build(projection: Projection, inputs: int, outputs: int, rngs: nnx.Rngs) -> Linear | MLPProjection | None:
    """Return the module of a projection; None for "none"."""
    if projection.kind == "none":
        return None
    if projection.kind == "mlp":
        return MLPProjection(projection, inputs, outputs, rngs)
    return Linear(inputs, outputs, inputs**-0.5, rngs, use_bias=projection.bias)
