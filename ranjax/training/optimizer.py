"""AdamW with linear warm-up and cosine decay, the parameters that it leaves alone, and the state that it updates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ranjax.core.errors import ConfigError
from ranjax.core.types import Params

MAX_LOG_SCALE = math.log(100.0)
LOG_SCALE_NAMES = ("log_scale", "logit_scale")
Norm = Callable[[PyTree], Array]
"""The Euclidean norm of a gradient, f32[]."""


@dataclasses.dataclass(frozen=True)
class AdamWSettings:
    """The settings of AdamW.

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
            raise ConfigError("steps", self.steps, "a number of at least 1")
        if not 0 <= self.warmup_steps <= self.steps:
            raise ConfigError(
                "warmup_steps", self.warmup_steps, f"a number from 0 to {self.steps}, the number of steps"
            )
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(name, getattr(self, name), "a number of at least 0 and below 1")
        if not self.eps > 0:
            raise ConfigError("eps", self.eps, "a number above 0")
        if not self.weight_decay >= 0:
            raise ConfigError("weight_decay", self.weight_decay, "a number of at least 0")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ConfigError("clip_norm", self.clip_norm, "a number above 0, or None for no clipping")


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


def warmup_cosine(settings: AdamWSettings) -> Callable[[Int[Array, ""]], Array]:
    """Return the learning rate of update k (from 0): base (k+1)/W for k < W, then base (1 + cos(pi (k-W)/(T-W)))/2."""
    base, warmup, total = settings.learning_rate, settings.warmup_steps, settings.steps

    def schedule(count: Int[Array, ""]) -> Float[Array, ""]:
        k = jnp.asarray(count).astype(jnp.result_type(float))
        rise = base * (k + 1) / max(warmup, 1)
        share = jnp.clip((k - warmup) / max(total - warmup, 1), 0.0, 1.0)
        return jnp.where(k < warmup, rise, base * 0.5 * (1 + jnp.cos(math.pi * share)))

    return schedule


def adamw(settings: AdamWSettings, global_norm: Norm = optax.tree.norm) -> optax.GradientTransformation:
    """Return AdamW: ``p <- p (1 - lr wd) - lr m/(sqrt(v) + eps)``, with decay on `decay_mask` only.

    Args:
      settings: see there.
      global_norm: `fsdp.global_norm` for a gradient whose arrays are split over devices.
    """
    clip = [] if settings.clip_norm is None else [clip_by_norm(settings.clip_norm, global_norm)]
    inner = optax.chain(
        *clip,
        optax.scale_by_adam(settings.beta1, settings.beta2, settings.eps),
        optax.add_decayed_weights(settings.weight_decay, mask=decay_mask),
        optax.scale_by_learning_rate(warmup_cosine(settings)),
    )
    return plain_promotion(inner)


def only(inner: optax.GradientTransformation, trainable: PyTree) -> optax.GradientTransformation:
    """Return `inner` restricted to the True leaves of `trainable`; the others have no state and stay bit-equal."""
    labels = jax.tree.map(lambda on: "trained" if on else "frozen", trainable)
    return optax.partition({"trained": inner, "frozen": optax.set_to_zero()}, labels)


def clip_by_norm(largest: float, global_norm: Norm) -> optax.GradientTransformation:
    """Return `optax.clip_by_global_norm` with a norm of the caller's: it scales larger gradients down to `largest`."""

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        del params
        norm = global_norm(updates)
        return jax.tree.map(lambda g: jnp.where(norm < largest, g, (g / norm) * largest), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def plain_promotion(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return `inner` traced under JAX's standard promotion.

    optax's Adam raises a float to an integer power, which strict promotion refuses.
    """

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        with jax.numpy_dtype_promotion("standard"):
            return inner.update(updates, state, params)

    return optax.GradientTransformation(inner.init, update)


def decay_mask(params: Params) -> PyTree:
    """Return a pytree of bools, True for tensors that weight decay reaches: those of two or more axes.

    Biases, the parameters of norms, the class embedding and the logit scale do not decay.
    """
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) >= 2, params)


def tensor_paths(params: Params) -> list[str]:
    """Return the paths of the leaves, e.g. ``"vision/layers/0/fc1/kernel"``, in the order of `jax.tree.leaves`."""
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in flat]


def clip_log_scale(params: Params) -> Params:
    """Clip the logarithm of the logit scale to [0, ln 100], as after every step of CLIP."""

    def clip(path: tuple[jax.tree_util.KeyEntry, ...], leaf: Array) -> Array:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return jnp.clip(leaf, 0.0, MAX_LOG_SCALE) if name in LOG_SCALE_NAMES else leaf

    return jax.tree_util.tree_map_with_path(clip, params)
