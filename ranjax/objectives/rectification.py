"""Rectification of features (NMTune) and defence against attacked inputs (RAN): pure functions of one batch.

Notation: ``f`` [B, D] are the features of the frozen encoder, ``z`` [B, D] what the light-weight head makes of them,
``x'`` attacked inputs. NMTune's three terms (Chen et al. 2024, "Understanding and Mitigating the Label Noise in
Pre-training on Downstream Tasks", arXiv 2309.17002) are :func:`consistency`, :func:`covariance` and :func:`singular`.
RAN, in this project's reconstruction, adds a cross-entropy on ``z(x')``, :func:`consistency` of ``z(x')`` and
:func:`divergence` of its class probabilities, the last two against the clean ones without gradient.
:func:`objective` is the weighted sum of all.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ranjax.core.math import unit
from ranjax.objectives import classification


class Weights(NamedTuple):
    """Weight of each term, floats or scalar arrays; a term of weight 0 adds no value and no gradient, even if NaN."""

    ce: jax.Array | float = 1.0
    mse: jax.Array | float = 0.0
    cov: jax.Array | float = 0.0
    svd: jax.Array | float = 0.0
    defence_ce: jax.Array | float = 0.0
    defence_consistency: jax.Array | float = 0.0
    defence_kl: jax.Array | float = 0.0


DEFENCE = ("defence_ce", "defence_consistency", "defence_kl")


def consistency(z: jax.Array, f: jax.Array) -> jax.Array:
    """L_MSE: mean over all B * D entries of ``(z/|z| - sg(f/|f|))^2``; no gradient reaches `f`.

    Args:
      z: f[B, D].
      f: f[B, D], what `z` should stay close to.

    Returns:
      f[], at least 0.

    Raises:
      ValueError: the shapes differ.
    """
    if z.shape != f.shape or z.ndim != 2:
        raise ValueError(f"consistency needs two arrays of one shape [B, D], got {z.shape} and {f.shape}")
    return jnp.mean(jnp.square(unit(z) - lax.stop_gradient(unit(f))))


def covariance(z: jax.Array) -> jax.Array:
    """L_COV: ``(1/D) sum_{i != j} C_ij^2`` with ``C = Zc^t Zc / (B - 1)``, Zc the columns less their means.

    For B <= D the sum over all i, j is taken from the smaller matrix ``Zc Zc^t``, whose squares have the same sum.

    Args:
      z: f[B, D], B >= 2.

    Returns:
      f[], at least 0 within rounding.

    Raises:
      ValueError: `z` is no matrix or has one row, whose covariance does not exist.
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


def singular(z: jax.Array, top_k: int = 1, centred: bool = False) -> jax.Array:
    """L_SVD: ``- sum_{k <= K} sigma_k / sum_j sigma_j`` over the singular values of `z`.

    The paper's form is ``top_k=1`` on z as it is; its public code takes the mean of the first five ratios, which is
    ``singular(z, 5) / 5``. Value and gradient come from the eigenvectors of the smaller Gram matrix, which is faster
    than an SVD. The gradient is ``-(U_K V_K^t - s U V^t) / sum sigma``, s the negative of the value, over the singular
    values above rounding: where zero or repeated ones leave no derivative, a subgradient; finite always.

    Args:
      z: f[B, D].
      top_k: K >= 1, cut at min(B, D).
      centred: subtract the column means first.

    Returns:
      f[] in [-1, 0); 0 with zero gradient for a zero matrix.

    Raises:
      ValueError: `z` is no matrix, or `top_k` is below 1.
    """
    if z.ndim != 2:
        raise ValueError(f"singular needs z of shape [B, D], got {z.shape}")
    if top_k < 1:
        raise ValueError(f"singular needs top_k >= 1, got {top_k}")
    if centred:
        z = z - jnp.mean(z, axis=0, keepdims=True)
    return _singular(top_k, z)


def _thin_svd(z: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(u [B, r], sigma [r] descending, vt [r, D]), r = min(B, D); singular values below rounding are cut to 0.

    The square roots of the smaller Gram matrix' eigenvalues would lose half the digits. The lengths of the rows of
    ``u^t z`` do not: they are the singular values to within rounding of the largest where eigenvectors are distinct.
    """
    if z.shape[0] > z.shape[1]:
        v, sigma, ut = _thin_svd(z.T)
        return ut.T, sigma, v.T
    _, vectors = jnp.linalg.eigh(z @ z.T)
    rows = vectors.T @ z
    length = jnp.sqrt(jnp.sum(rows * rows, axis=1))
    order = jnp.argsort(-length)
    vectors, rows, length = vectors[:, order], rows[order], length[order]
    real = length > max(z.shape) * jnp.finfo(z.dtype).eps * length[0]
    sigma = jnp.where(real, length, jnp.zeros_like(length))
    vt = jnp.where(real[:, None], rows / jnp.where(real, length, jnp.ones_like(length))[:, None], jnp.zeros_like(rows))
    return vectors, sigma, vt


def _ratio_and_gradient(top_k: int, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    # The ratio does not depend on the scale of z; dividing by the largest entry keeps the Gram matrix in range.
    largest = jnp.max(jnp.abs(z))
    scale = jnp.where(largest > 0, largest, jnp.ones_like(largest))
    u, sigma, vt = _thin_svd(z / scale)
    total = jnp.sum(sigma)
    total = jnp.where(total > 0, total, jnp.ones_like(total))
    top = jnp.arange(sigma.shape[0]) < top_k
    ratio = jnp.sum(jnp.where(top, sigma, jnp.zeros_like(sigma))) / total
    coefficients = (ratio - top.astype(z.dtype)) / total
    gradient = (u * coefficients[None, :]) @ vt / scale
    return -ratio, gradient


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _singular(top_k: int, z: jax.Array) -> jax.Array:
    return _ratio_and_gradient(top_k, z)[0]


@_singular.defjvp
def _singular_jvp(top_k: int, primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    value, gradient = _ratio_and_gradient(top_k, primals[0])
    return value, jnp.vdot(gradient, tangents[0])


def divergence(clean: jax.Array, attacked: jax.Array, multi_label: bool = False) -> jax.Array:
    """Mean over examples of KL(sg(p_clean) || p_attacked) of class probabilities, in nats.

    Args:
      clean, attacked: logits f[B, C]; no gradient reaches `clean`.
      multi_label: the mean over classes of C Bernoulli divergences (sigmoid) in place of one categorical (softmax).

    Returns:
      f[], at least 0 within rounding.
    """
    clean = lax.stop_gradient(clean)
    if multi_label:
        p = jax.nn.sigmoid(clean)
        on = p * (jax.nn.log_sigmoid(clean) - jax.nn.log_sigmoid(attacked))
        off = (1 - p) * (jax.nn.log_sigmoid(-clean) - jax.nn.log_sigmoid(-attacked))
        return jnp.mean(on + off)
    return jnp.mean(classification.kl(clean, attacked))


def _now_and_then(every: int, step: jax.Array | int, z: jax.Array, top_k: int) -> jax.Array:
    if every == 1:
        return singular(z, top_k)
    due = jnp.asarray(step) % every == 0
    return lax.cond(due, lambda z: every * singular(z, top_k), lambda z: jnp.zeros((), z.dtype), z)


def objective(
    weights: Weights,
    f: jax.Array,
    z: jax.Array,
    logits: jax.Array,
    labels: jax.Array,
    attacked: tuple[jax.Array, jax.Array] | None = None,
    *,
    class_weights: jax.Array | None = None,
    multi_label: bool = False,
    top_k: int = 1,
    svd_every: int = 1,
    step: jax.Array | int = 0,
    terms: frozenset[str] = frozenset(Weights._fields),
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The weighted sum of all terms for one batch, and each term's own value.

    Args:
      weights: one scalar per term; may be traced (one program serves many methods).
      f: f[B, D] frozen clean features.  z, logits: f[B, D], f[B, C] the head's output on them.
      labels: i32[B], or f[B, C] multi-hot where `multi_label`.
      attacked: (z', logits') of the attacked features, or None, which leaves the defence terms out.
      class_weights: f[C], see :mod:`ranjax.objectives.classification`.
      top_k: of :func:`singular`.
      svd_every, step: :func:`singular`, which costs more than the rest together, is taken where `step` is a multiple of
        `svd_every`, times `svd_every`, and is 0 without being computed elsewhere (lazy regularisation, Karras et al.
        2020, "Analyzing and Improving the Image Quality of StyleGAN", arXiv 1912.04958, section 3.1): the same on
        average over steps.
      terms: static; terms not named are not computed at all.

    Returns:
      (f[] total, {term: f[]} unweighted values of the computed terms).
    """

    def guarded(weight: jax.Array | float, x: jax.Array) -> jax.Array:
        # A zero weight alone does not stop a NaN, as 0 * NaN = NaN; this select's transpose does.
        return jnp.where(jnp.asarray(weight) != 0, x, lax.stop_gradient(x))

    def classify(weight: jax.Array | float, scores: jax.Array) -> jax.Array:
        return classification.loss(guarded(weight, scores), labels, class_weights, multi_label)

    values: dict[str, jax.Array] = {}
    if "ce" in terms:
        values["ce"] = classify(weights.ce, logits)
    if "mse" in terms:
        values["mse"] = consistency(guarded(weights.mse, z), f)
    if "cov" in terms:
        values["cov"] = covariance(guarded(weights.cov, z))
    if "svd" in terms:
        values["svd"] = _now_and_then(svd_every, step, guarded(weights.svd, z), top_k)
    if attacked is not None:
        bad_z, bad_logits = attacked
        if "defence_ce" in terms:
            values["defence_ce"] = classify(weights.defence_ce, bad_logits)
        if "defence_consistency" in terms:
            values["defence_consistency"] = consistency(guarded(weights.defence_consistency, bad_z), z)
        if "defence_kl" in terms:
            values["defence_kl"] = divergence(logits, guarded(weights.defence_kl, bad_logits), multi_label)
    total = jnp.zeros((), z.dtype)
    for name, value in values.items():
        weight = jnp.asarray(getattr(weights, name), value.dtype)
        total = total + jnp.where(weight != 0, weight * value, jnp.zeros_like(value))
    return total, values
