"""What training carries from step to step."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """A pytree of everything a resumed run needs.

    Attributes:
      step: i32[], updates done so far.
      params: parameter pytree, f32.
      opt_state: of the optimizer.
    """

    step: jax.Array
    params: Any
    opt_state: Any

    @classmethod
    def create(cls, params: Any, optimizer: optax.GradientTransformation) -> TrainState:
        """The state before the first update."""
        return cls(step=jnp.zeros((), jnp.int32), params=params, opt_state=optimizer.init(params))

    def updated(self, params: Any, opt_state: Any) -> TrainState:
        """The state after one more update."""
        return TrainState(step=self.step + 1, params=params, opt_state=opt_state)
