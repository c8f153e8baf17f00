"""The state that training carries from step to step."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from ranjax.core.types import Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """A pytree of everything that a resumed run needs; trees of its shapes or shardings have this class too.

    Attributes:
      step: i32[], updates done so far.
      params: parameters, f32.
      opt_state: of the optimizer.
    """

    step: PyTree
    params: Params
    opt_state: PyTree

    @classmethod
    def create(cls, params: Params, optimizer: optax.GradientTransformation) -> TrainState:
        """Return the state before the first update."""
        return cls(step=jnp.zeros((), jnp.int32), params=params, opt_state=optimizer.init(params))

    def updated(self, params: Params, opt_state: PyTree) -> TrainState:
        """Return the state after one more update."""
        return TrainState(step=self.step + 1, params=params, opt_state=opt_state)
