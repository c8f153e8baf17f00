"""Types that several packages share: parameter trees, and the interfaces of encoders, losses and training steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar, runtime_checkable

from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, PyTree
from jaxtyping import PyTree as Params

__all__ = ["Encoder", "Loss", "Metrics", "Params", "State", "StateT", "Step"]

# `Params` are the parameters of a model: nested dicts of arrays.
Metrics = Mapping[str, ArrayLike]
"""Scalars that a training step reports, by name."""


@runtime_checkable
class Encoder(Protocol):
    """A dual encoder as pure functions of its parameters; `ranjax.models.DualEncoderFunctions` is one."""

    def image_features(self, params: Params, images: Float[Array, "batch height width channels"]) -> Array:
        """Return embeddings f32[batch, dim] of images in [0, 1], not normalised."""
        ...

    def text_features(
        self, params: Params, tokens: Int[Array, "batch length"], mask: Bool[Array, "batch length"]
    ) -> Array:
        """Return embeddings f32[batch, dim] of token ids, not normalised; the mask is True on real tokens."""
        ...

    def logit_scale(self, params: Params) -> Array:
        """Return the factor of the cosines, a scalar."""
        ...

    def logit_bias(self, params: Params) -> Array:
        """Return the number that the sigmoid loss adds to the scaled cosines, a scalar."""
        ...


@runtime_checkable
class State(Protocol):
    """The state of a training: updates done, a scalar i32 array, and parameters."""

    @property
    def step(self) -> Array: ...

    @property
    def params(self) -> Params: ...


StateT = TypeVar("StateT", bound=State)


@runtime_checkable
class Step(Protocol[StateT]):
    """A training step: returns the next state and metrics that are scalars."""

    def __call__(self, state: StateT, batch: PyTree, key: Key[Array, ""], /) -> tuple[StateT, Metrics]: ...


@runtime_checkable
class Loss(Protocol):
    """A contrastive objective of paired embeddings f32[batch, dim], averaged over the mesh axis where one is named.

    Returns the loss, a scalar, and further scalars by name.
    """

    def __call__(
        self,
        image: Float[Array, "batch dim"],
        text: Float[Array, "batch dim"],
        scale: Array,
        /,
        *,
        axis_name: str | tuple[str, ...] | None = None,
        chunk: int | None = None,
    ) -> tuple[Array, dict[str, Array]]: ...
