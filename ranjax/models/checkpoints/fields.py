"""The words of other libraries' config files: their names of a tower's fields, and of nonlinearities."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ranjax.core.errors import ConfigError
from ranjax.models.checkpoints.naming import Content, Json

ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}
"""transformers' ``hidden_act`` -> ours."""


@dataclasses.dataclass(frozen=True)
class Fields:
    """How a config.json of transformers says the fields of a tower's config.

    Attributes:
      names: their name -> ours.
      defaults: transformers' own, which a config.json may leave out; their names.
      only: values that are implemented, of fields that are not read; their names.
    """

    names: Mapping[str, str]
    defaults: Mapping[str, object]
    only: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def read(self, content: Content) -> Json:
        """Return our fields.

        Raises:
          ConfigError: a value that is not implemented.
        """
        refuse_others(content, self.only, "config.json: ")
        given = {**self.defaults, **content}
        found = {ours: given[theirs] for theirs, ours in self.names.items()}
        if "activation" in found:
            if found["activation"] not in ACTIVATIONS:
                raise ConfigError("config.json: hidden_act", found["activation"], f"one of {', '.join(ACTIVATIONS)}")
            found["activation"] = ACTIVATIONS[found["activation"]]
        return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}

    def write(self, config: object) -> Json:
        """Return their fields of a config."""
        found = {theirs: getattr(config, ours) for theirs, ours in self.names.items()}
        if "hidden_act" in self.names:
            found["hidden_act"] = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}[found["hidden_act"]]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def refuse_others(content: Content, only: Mapping[str, object], prefix: str) -> None:
    """Raise ConfigError where a key has another value than the one that is implemented."""
    for key, wanted in only.items():
        if content.get(key, wanted) != wanted:
            raise ConfigError(prefix + key, content[key], repr(wanted))
