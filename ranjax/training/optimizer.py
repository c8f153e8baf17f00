"""AdamW with linear warm-up and cosine decay, and what it leaves alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax

from ranjax.core.errors import ConfigError

MAX_LOG_SCALE = math.log(100.0)
LOG_SCALE_NAMES = ("log_scale", "logit_scale")
Params = TypeVar("Params")


@dataclasses.dataclass(frozen=True)
class AdamWSettings:
    """Settings of the optimizer.

    Attributes:
      learning_rate: the highest one, reached at the end of the warm-up.
      steps: updates in the whole run; the learning rate goes to 0 over them.
      warmup_steps: updates of the linear warm-up.
      beta1, beta2, eps: of Adam (Kingma & Ba 2015); eps is added outside the root.
      weight_decay: decoupled (Loshchilov & Hutter 2019), times the learning rate, on tensors of two or more axes only.
      clip_norm: largest global norm of the gradient; None: no clipping.
    """

    learning_rate: float
    steps: int
    warmup_steps: int = 0
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    weight_decay: float = 0.2
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        if not (self.learning_rate >= 0 and math.isfinite(self.learning_rate)):
            raise ConfigError("learning_rate", self.learning_rate, "a finite number of at least 0")
        if self.steps < 1:
            raise ConfigError("steps", self.steps, "at least 1")
        if not 0 <= self.warmup_steps <= self.steps:
            raise ConfigError("warmup_steps", self.warmup_steps, f"0 to {self.steps}, the number of steps")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(name, getattr(self, name), "at least 0 and below 1")
        if not self.eps > 0:
            raise ConfigError("eps", self.eps, "above 0")
        if not self.weight_decay >= 0:
            raise ConfigError("weight_decay", self.weight_decay, "at least 0")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ConfigError("clip_norm", self.clip_norm, "above 0, or None for no clipping")


def warmup_cosine(settings: AdamWSettings) -> Callable[[jax.Array], jax.Array]:
    """The learning rate of update k (from 0): base (k+1)/W for k < W, then base (1 + cos(pi (k-W)/(T-W)))/2."""
    base, warmup, total = settings.learning_rate, settings.warmup_steps, settings.steps

    def schedule(count: jax.Array) -> jax.Array:
        k = jnp.asarray(count).astype(jnp.result_type(float))
        rise = base * (k + 1) / max(warmup, 1)
        share = jnp.clip((k - warmup) / max(total - warmup, 1), 0.0, 1.0)
        return jnp.where(k < warmup, rise, base * 0.5 * (1 + jnp.cos(math.pi * share)))

    return schedule


def adamw(
    settings: AdamWSettings, global_norm: Callable[[Any], jax.Array] = optax.tree.norm
) -> optax.GradientTransformation:
    """AdamW as `settings` say: ``p <- p (1 - lr wd) - lr m/(sqrt(v) + eps)``, decay on `decay_mask` only.

    Args:
      settings: see there.
      global_norm: of a gradient whose arrays are split over devices, `fsdp.global_norm`.
    """
    clip = [] if settings.clip_norm is None else [clip_by_norm(settings.clip_norm, global_norm)]
    inner = optax.chain(
        *clip,
        optax.scale_by_adam(settings.beta1, settings.beta2, settings.eps),
        optax.add_decayed_weights(settings.weight_decay, mask=decay_mask),
        optax.scale_by_learning_rate(warmup_cosine(settings)),
    )
    return plain_promotion(inner)


def only(inner: optax.GradientTransformation, trainable: Any) -> optax.GradientTransformation:
    """`inner` on what the tree of bools `trainable` says True of; the rest has no state and stays bit-equal."""
    labels = jax.tree.map(lambda on: "trained" if on else "frozen", trainable)
    return optax.partition({"trained": inner, "frozen": optax.set_to_zero()}, labels)


def clip_by_norm(largest: float, global_norm: Callable[[Any], jax.Array]) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm` with a norm of one's own: above `largest` the gradient is scaled down to it."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        norm = global_norm(updates)
        return jax.tree.map(lambda g: jnp.where(norm < largest, g, (g / norm) * largest), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def plain_promotion(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner`, traced under JAX's standard promotion: optax's Adam raises a float to an integer power, which the strict
    setting refuses."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):
            return inner.update(updates, state, params)

    return optax.GradientTransformation(inner.init, update)


def decay_mask(params: Any) -> Any:
    """Which tensors decay, a pytree of bools: those of two or more axes.

    So neither biases, nor the parameters of norms, nor the class embedding, nor the logit scale.
    """
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) >= 2, params)


def decayed(params: Any) -> dict[str, bool]:
    """Path of every tensor -> whether it decays."""
    return dict(zip(tensor_paths(params), jax.tree.leaves(decay_mask(params)), strict=True))


def describe_decay(params: Any) -> str:
    """A table of all tensors: path, shape, whether weight decay reaches it."""
    shapes = [str(jnp.shape(leaf)) for leaf in jax.tree.leaves(params)]
    table = decayed(params)
    wide, shape_wide = max(map(len, table)), max(map(len, shapes))
    return "\n".join(
        f"{path:{wide}}  {shape:{shape_wide}}  {'decayed' if on else 'not decayed'}"
        for (path, on), shape in zip(table.items(), shapes, strict=True)
    )


def tensor_paths(params: Any) -> list[str]:
    """Paths of the leaves, e.g. ``"vision/layers/0/fc1/kernel"``, in the order of `jax.tree.leaves`."""
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in flat]


def clip_log_scale(params: Params) -> Params:
    """Clips the logarithm of the logit scale to [0, ln 100], as after every step of CLIP."""

    def clip(path: Any, leaf: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return jnp.clip(leaf, 0.0, MAX_LOG_SCALE) if name in LOG_SCALE_NAMES else leaf

    return jax.tree_util.tree_map_with_path(clip, params)
