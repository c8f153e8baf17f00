"""What an attack of one's own is given: its settings at a radius, as one pytree."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax

from ranjax.attacks import input_checks as checks


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class OwnAttack:
    """Settings of an attack at one radius; `epsilon` is its only leaf, so a new radius compiles nothing anew.

    Attributes:
      epsilon: radius in pixels from 0 to 1; inside a compiled attack a traced number.
      values: of the attack's own settings, as the config has them.
      norm: "linf" or "l2".
      restarts: random starts, the worst of which is to be kept.

    Raises:
      ConfigError: a radius that is refused.
    """

    epsilon: Any
    values: Any
    norm: str = "linf"
    restarts: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilon", checks.validate_length(self.epsilon, "epsilon", self.norm))

    def with_epsilon(self, epsilon: float) -> OwnAttack:
        """Return the same settings at another radius; a step of the attack's own is the attack's to scale."""
        return dataclasses.replace(self, epsilon=epsilon)

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return checks.flatten_settings(self, ("epsilon",))

    @classmethod
    def tree_unflatten(cls, rest: tuple[Any, ...], leaves: tuple[Any, ...]) -> OwnAttack:
        return checks.unflatten_settings(cls, rest, leaves)
