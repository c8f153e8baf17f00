"""Rectification of features (NMTune) and defence against attacked inputs (RAN): pure functions of one batch.

Notation: ``f`` [B, D] are the features of the frozen encoder, ``z`` [B, D] what the light-weight head makes of them,
``x'`` attacked inputs. NMTune's three terms (Chen et al. 2024, "Understanding and Mitigating the Label Noise in
Pre-training on Downstream Tasks", arXiv 2309.17002) are `consistency`, `covariance` and `singular`.
RAN, in this project's reconstruction, adds a cross-entropy on ``z(x')``, `consistency` of ``z(x')`` and `divergence` of
its class probabilities, the last two against the clean ones without gradient. `objective` is the weighted sum of all.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Num

from ranjax.core.math import unit
from ranjax.objectives import classification

Scalar = Float[Array, ""]


class Weights(NamedTuple):
    """The weight of each term; a term of weight 0 adds no value and no gradient, even if NaN."""

    ce: Scalar | float = 1.0
    mse: Scalar | float = 0.0
    cov: Scalar | float = 0.0
    svd: Scalar | float = 0.0
    defence_ce: Scalar | float = 0.0
    defence_consistency: Scalar | float = 0.0
    defence_kl: Scalar | float = 0.0


DEFENCE = ("defence_ce", "defence_consistency", "defence_kl")


def consistency(z: Float[Array, "batch dim"], f: Float[Array, "batch dim"]) -> Scalar:
    """Return L_MSE: the mean over all entries of ``(z/|z| - sg(f/|f|))^2``; no gradient reaches `f`.

    Raises:
      ValueError: the shapes differ.
    """
    if z.shape != f.shape or z.ndim != 2:
        raise ValueError(f"consistency needs two arrays of one shape [B, D], got {z.shape} and {f.shape}")
    return jnp.mean(jnp.square(unit(z) - lax.stop_gradient(unit(f))))


def covariance(z: Float[Array, "batch dim"]) -> Scalar:
    """Return L_COV: ``(1/D) sum_{i != j} C_ij^2`` with ``C = Zc^t Zc / (B - 1)``, Zc the columns less their means.

    For B <= D the sum over all i, j is taken from the smaller matrix ``Zc Zc^t``, whose squares have the same sum.

    Raises:
      ValueError: `z` is no matrix, or has one row: its covariance does not exist.
    """
    if z.ndim != 2 or z.shape[0] < 2:
        raise ValueError(f"covariance needs z of shape [B, D] with B >= 2, got {z.shape}")
    rows, width = z.shape
    centred = z - jnp.mean(z, axis=0, keepdims=True)
    if rows <= width:
        gram = centred @ centred.T
        off = jnp.sum(jnp.square(gram)) - jnp.sum(jnp.square(jnp.sum(jnp.square(centred), axis=0)))
    else:
        off = jnp.sum(jnp.square((centred.T @ centred) * (1 - jnp.eye(width, dtype=z.dtype))))
    return off / (width * (rows - 1) ** 2)


def singular(z: Float[Array, "batch dim"], top_k: int = 1, centred: bool = False) -> Scalar:
    """Return L_SVD: ``- sum_{k <= K} sigma_k / sum_j sigma_j`` over the singular values of `z`.

    The paper's form is ``top_k=1`` on z as it is; its public code takes the mean of the first five ratios, which is
    ``singular(z, 5) / 5``. Value and gradient come from the eigenvectors of the smaller Gram matrix: twice as fast as
    an SVD. The gradient is ``-(U_K V_K^t - s U V^t) / sum sigma``, s the negative of the value, over the singular
    values
    above rounding: where zero or repeated ones leave no derivative, a subgradient; finite always.

    Args:
      z: the features.
      top_k: K >= 1, cut at min(B, D).
      centred: subtract the column means first.

    Returns:
      A value in [-1, 0); 0 with zero gradient for a zero matrix.

    Raises:
      ValueError: `z` is no matrix, or `top_k` is below 1.
    """
    if z.ndim != 2:
        raise ValueError(f"singular needs z of shape [B, D], got {z.shape}")
    if top_k < 1:
        raise ValueError(f"singular needs top_k >= 1, got {top_k}")
    if centred:
        z = z - jnp.mean(z, axis=0, keepdims=True)
    if z.shape[0] > z.shape[1]:
        z = z.T
    # The ratio does not depend on the scale of z; dividing by the largest entry keeps the Gram matrix in range.
    largest = lax.stop_gradient(jnp.max(jnp.abs(z)))
    z = z / jnp.where(largest > 0, largest, jnp.ones_like(largest))
    # With u constant, the length of u_k^t z has the gradient u_k v_k^t, which is that of sigma_k.
    _, vectors = jnp.linalg.eigh(lax.stop_gradient(z @ z.T))
    square = jnp.sum(jnp.square(vectors.T @ z), axis=1)
    # Singular values below rounding are cut to 0, without gradient.
    real = square > jnp.square(max(z.shape) * jnp.finfo(z.dtype).eps) * jnp.max(square)
    sigma = jnp.where(real, jnp.sqrt(jnp.where(real, square, jnp.ones_like(square))), jnp.zeros_like(square))
    total = jnp.sum(sigma)
    return -jnp.sum(jnp.sort(sigma)[-top_k:]) / jnp.where(total > 0, total, jnp.ones_like(total))


def divergence(
    clean: Float[Array, "batch classes"], attacked: Float[Array, "batch classes"], multi_label: bool = False
) -> Scalar:
    """Return the mean over examples of KL(sg(p_clean) || p_attacked) of class probabilities, in nats.

    Args:
      clean, attacked: logits; no gradient reaches `clean`.
      multi_label: the mean over classes of C Bernoulli divergences (sigmoid) in place of one categorical (softmax).
    """
    clean = lax.stop_gradient(clean)
    if multi_label:
        p = jax.nn.sigmoid(clean)
        on = p * (jax.nn.log_sigmoid(clean) - jax.nn.log_sigmoid(attacked))
        off = (1 - p) * (jax.nn.log_sigmoid(-clean) - jax.nn.log_sigmoid(-attacked))
        return jnp.mean(on + off)
    return jnp.mean(classification.kl(clean, attacked))


def _every_few_steps(every: int, step: Num[Array, ""] | int, z: Float[Array, "batch dim"], top_k: int) -> Scalar:
    if every == 1:
        return singular(z, top_k)
    due = jnp.asarray(step) % every == 0
    return lax.cond(due, lambda z: every * singular(z, top_k), lambda z: jnp.zeros((), z.dtype), z)


def objective(
    weights: Weights,
    f: Float[Array, "batch dim"],
    z: Float[Array, "batch dim"],
    logits: Float[Array, "batch classes"],
    labels: classification.Labels,
    attacked: tuple[Float[Array, "batch dim"], Float[Array, "batch classes"]] | None = None,
    *,
    class_weights: Float[Array, "classes"] | None = None,
    multi_label: bool = False,
    top_k: int = 1,
    svd_every: int = 1,
    step: Num[Array, ""] | int = 0,
    terms: frozenset[str] = frozenset(Weights._fields),
) -> tuple[Scalar, dict[str, Array]]:
    """Return the weighted sum of all terms for one batch, and each term's own value.

    Args:
      weights: one scalar per term; may be traced (one program serves many methods).
      f: frozen clean features.
      z, logits: the head's output on them.
      labels: one class an example, or multi-hot where `multi_label`.
      attacked: (z', logits') of the attacked features, or None, which leaves the defence terms out.
      class_weights: see `ranjax.objectives.classification`.
      top_k: of `singular`.
      svd_every, step: `singular`, which costs more than the rest together, is taken where `step` is a multiple of
        `svd_every`, times `svd_every`, and is 0 without being computed elsewhere (lazy regularisation, Karras et al.
        2020, "Analyzing and Improving the Image Quality of StyleGAN", arXiv 1912.04958, section 3.1): the same on
        average over steps.
      terms: static; terms not named are not computed at all.

    Returns:
      The total, and the unweighted values f[] of the computed terms by their names.
    """

    def guarded(weight: Scalar | float, x: Array) -> Array:
        # A zero weight alone does not stop a NaN, as 0 * NaN = NaN; this select's transpose does.
        return jnp.where(jnp.asarray(weight) != 0, x, lax.stop_gradient(x))

    def classify(weight: Scalar | float, scores: Array) -> Scalar:
        return classification.loss(guarded(weight, scores), labels, class_weights, multi_label)

    # The terms, each by itself.
    values: dict[str, Array] = {}
    if "ce" in terms:
        values["ce"] = classify(weights.ce, logits)
    if "mse" in terms:
        values["mse"] = consistency(guarded(weights.mse, z), f)
    if "cov" in terms:
        values["cov"] = covariance(guarded(weights.cov, z))
    if "svd" in terms:
        values["svd"] = _every_few_steps(svd_every, step, guarded(weights.svd, z), top_k)
    if attacked is not None:
        bad_z, bad_logits = attacked
        if "defence_ce" in terms:
            values["defence_ce"] = classify(weights.defence_ce, bad_logits)
        if "defence_consistency" in terms:
            values["defence_consistency"] = consistency(guarded(weights.defence_consistency, bad_z), z)
        if "defence_kl" in terms:
            values["defence_kl"] = divergence(logits, guarded(weights.defence_kl, bad_logits), multi_label)

    # Their weighted sum.
    total = jnp.zeros((), z.dtype)
    for name, value in values.items():
        weight = jnp.asarray(getattr(weights, name), value.dtype)
        total = total + jnp.where(weight != 0, weight * value, jnp.zeros_like(value))
    return total, values
