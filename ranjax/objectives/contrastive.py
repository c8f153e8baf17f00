"""Contrastive objectives of image-text pre-training: symmetric InfoNCE and the pairwise sigmoid loss.

Both compare the rows of the **global** batch. With `axis_name` the rows are those of one device and the columns are
gathered from all devices by a gather that gradients flow through, so loss and gradients equal those of the whole batch
on one device. (Stopping the gradient at the gathered columns, a common shortcut, gives another gradient.)

The returned loss is already averaged over the axis; `ranjax.training.devices` says how to differentiate it.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ranjax.core.math import unit
from ranjax.core.types import Loss

AxisName = str | tuple[str, ...]
RowLoss = Callable[[Float[Array, "columns"], Int[Array, ""]], tuple[Array, Array]]
"""``(similarities, index of the positive) -> (loss f32[], logits f32[columns])`` of one row."""


def info_nce(
    image: Float[Array, "batch dim"],
    text: Float[Array, "batch dim"],
    scale: Float[Array, ""],
    axis_name: AxisName | None = None,
    chunk: int | None = None,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Return the symmetric InfoNCE over the global batch (Radford et al. 2021, CLIP, figure 3).

    ``logits = scale * I T^t`` with L2-normalised rows; the loss is the mean of the cross-entropies of rows and columns
    against the diagonal. A batch of one pair gives exactly 0.

    Args:
      image, text: features, not normalised; row i of the one is paired with row i of the other.
      scale: the factor of the cosines (already exponentiated and clipped).
      axis_name: mesh axis (or axes, the first outermost) over which the batch is split; `image` and `text` are then one
        device's part.
      chunk: number of rows whose logits exist at one time. The result is exact; memory falls from B x B to
        chunk x B and logits are recomputed in the backward pass.

    Returns:
      The loss, and ``{"image_to_text_accuracy", "text_to_image_accuracy"}``: the share of rows whose own column is the
      only largest one (ties count against the model), f32[], without gradient.
    """
    images, texts = unit(image), unit(text)
    forward, forward_hits = _over_rows(_cross_entropy(scale), images, texts, axis_name, chunk)
    backward, backward_hits = _over_rows(_cross_entropy(scale), texts, images, axis_name, chunk)
    return (forward + backward) / 2, {"image_to_text_accuracy": forward_hits, "text_to_image_accuracy": backward_hits}


def sigmoid_loss(
    image: Float[Array, "batch dim"],
    text: Float[Array, "batch dim"],
    scale: Float[Array, ""],
    bias: Float[Array, ""] | float = -10.0,
    axis_name: AxisName | None = None,
    chunk: int | None = None,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Return the pairwise sigmoid loss over the global batch (Zhai et al. 2023, SigLIP, equation 1).

    ``-1/B sum_ij log sigmoid(z_ij (scale I_i . T_j + bias))`` with z = 1 on the diagonal and -1 elsewhere.

    Args:
      bias: -10 at SigLIP's start, where almost all pairs are negatives.
      image, text, scale, axis_name, chunk: as in `info_nce`.

    Returns:
      The loss, and ``{"image_to_text_accuracy"}`` as in `info_nce`.
    """

    def row_loss(similarities: Float[Array, "columns"], positive: Int[Array, ""]) -> tuple[Array, Array]:
        logits = scale * similarities + bias
        signs = jnp.where(jnp.arange(logits.shape[0], dtype=positive.dtype) == positive, 1, -1).astype(logits.dtype)
        return -jnp.sum(jax.nn.log_sigmoid(signs * logits)), logits

    loss, hits = _over_rows(row_loss, unit(image), unit(text), axis_name, chunk)
    return loss, {"image_to_text_accuracy": hits}


OBJECTIVES: dict[str, Loss] = {"info_nce": info_nce, "sigmoid": sigmoid_loss}
"""Contrastive losses by their name in a config."""


def _cross_entropy(scale: Float[Array, ""]) -> RowLoss:
    def row_loss(similarities: Float[Array, "columns"], positive: Int[Array, ""]) -> tuple[Array, Array]:
        logits = scale * similarities
        # logsumexp subtracts the largest logit first, so that large logits and shifts are safe.
        return jax.nn.logsumexp(logits) - logits[positive], logits

    return row_loss


def _over_rows(
    row_loss: RowLoss, rows: Array, columns: Array, axis_name: AxisName | None, chunk: int | None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the means of `row_loss` and of "the positive is the only largest" over the global batch."""
    if rows.ndim != 2 or rows.shape != columns.shape:
        raise ValueError(f"image and text features must both be [B, D], got {rows.shape} and {columns.shape}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk = {chunk!r}: expected a positive number of rows, or None for all at once")
    count = rows.shape[0]
    positives = jnp.arange(count, dtype=jnp.int32)
    if axis_name is not None:
        columns = jax.lax.all_gather(columns, axis_name, tiled=True)
        positives = positives + count * jax.lax.axis_index(axis_name)

    def one(row: Float[Array, "dim"], positive: Int[Array, ""]) -> tuple[Array, Array]:
        loss, logits = row_loss(columns @ row, positive)
        hit = jnp.sum(logits >= logits[positive]) == 1
        return loss, hit

    if chunk is None or chunk >= count:
        losses, hits = jax.vmap(one)(rows, positives)
    else:
        # The checkpoint drops a chunk's logits after use, or the backward pass would keep all of them.
        losses, hits = jax.lax.map(lambda pair: jax.checkpoint(one)(*pair), (rows, positives), batch_size=chunk)
    loss, accuracy = jnp.mean(losses), jnp.mean(hits.astype(jnp.float32))
    if axis_name is not None:
        loss, accuracy = jax.lax.pmean((loss, accuracy), axis_name)
    return loss, accuracy
