"""Settings of a user's own attack at a radius, as one pytree."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ranjax.attacks import input_checks
from ranjax.attacks.input_checks import Length


@input_checks.traced_fields("epsilon")
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

    epsilon: Length
    values: object
    norm: str = "linf"
    restarts: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilon", input_checks.validate_length(self.epsilon, "epsilon", self.norm))

    def with_epsilon(self, epsilon: float) -> OwnAttack:
        """Return the same settings at another radius; a step of the attack's own is the attack's to scale."""
        return dataclasses.replace(self, epsilon=epsilon)
