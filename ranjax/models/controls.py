"""The table of control encoders: features that no upstream data shaped, to judge by them what pre-training is worth.

Importing this module imports no JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ranjax.core import lazy
from ranjax.core.registry import Table, check_entry


@dataclass(frozen=True)
class Control:
    """A control encoder: a condition without noise and without pre-training, on which every head is fitted and judged.

    Attributes:
      name: of the condition, in folders, keys and result rows.
      label: as a page has it.
      encoder: `(fresh, image_size, channels) -> (functions, params)`, functions with `image_features` and
        `config.embed_dim` as `DualEncoderFunctions` has them; `fresh()` gives the run's encoder with new weights.
      keys: groups of configuration keys that decide it, besides data and seed.
      reads_text: whether it has text features, which heads of a set of questions need.
    """

    name: str
    label: str
    encoder: Callable[..., Any]
    keys: tuple[str, ...] = ()
    reads_text: bool = False

    def __post_init__(self) -> None:
        check_entry(self, "encoder")


_pixels = lazy.function("ranjax.models.pixel_features", "pixels")

CONTROLS: Table[Control] = Table(
    "control",
    Control,
    (
        Control("pixels", "raw pixels", lambda fresh, image_size, channels: _pixels(image_size, channels)),
        Control(
            "random_init",
            "random encoder",
            lambda fresh, image_size, channels: fresh(),
            keys=("text", "model"),
            reads_text=True,
        ),
    ),
    key="adapt.controls",
)
