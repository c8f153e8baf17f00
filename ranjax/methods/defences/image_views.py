"""Random views of images that keep their size, differentiable by the images, and what defences read of them."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ranjax.core.math import unit

Images = Float[Array, "batch height width channels"]
Views = Float[Array, "views batch height width channels"]


def crops(images: Images, keys: Key[Array, "batch"], count: int, smallest: float) -> Views:
    """Return the images themselves and `count` - 1 random square crops of each, enlarged to the image's size.

    A crop's area is uniform in [smallest, 1] of the image's, its place uniform; linear interpolation. There is no
    mirroring, which the public code of the papers has: in radiographs it exchanges the sides.
    """

    def crop(image: Float[Array, "height width channels"], key: Key[Array, ""]) -> Array:
        area, place = jax.random.split(key)
        side = jnp.sqrt(jax.random.uniform(area, (), image.dtype, minval=smallest, maxval=1))
        size = jnp.asarray(image.shape[:2], image.dtype)
        first = jax.random.uniform(place, (2,), image.dtype) * size * (1 - side)
        scale = jnp.stack([1 / side, 1 / side])
        return jax.image.scale_and_translate(
            image, image.shape, (0, 1), scale, -first / side, method="linear", antialias=False
        )

    drawn = _keys(keys, count - 1)
    return jnp.concatenate([images[None], jax.vmap(jax.vmap(crop), in_axes=(None, 0))(images, drawn)])


def noisy(views: Views, keys: Key[Array, "batch"], deviation: float) -> Views:
    """Return views with Gaussian noise on all but the first, clipped to [0, 1]."""
    own = _keys(jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys), views.shape[0] - 1)
    noise = jax.vmap(jax.vmap(lambda key: jax.random.normal(key, views.shape[2:], views.dtype)))(own)
    return jnp.concatenate([views[:1], jnp.clip(views[1:] + deviation * noise, 0, 1)])


def padded_within(images: Images, border: int) -> Images:
    """Return images shrunk into the middle of a black border of `border` pixels; the size stays."""
    height, width = images.shape[1:3]
    inner = (images.shape[0], height - 2 * border, width - 2 * border, images.shape[3])
    shrunk = jax.image.resize(images, inner, "linear", antialias=True)
    return jnp.pad(shrunk, ((0, 0), (border, border), (border, border), (0, 0)))


def border_of(images: Images, border: int) -> Float[Array, "1 height width 1"]:
    """Return 1 on the border and 0 inside."""
    height, width = images.shape[1:3]
    inside = jnp.zeros((height - 2 * border, width - 2 * border), images.dtype)
    return jnp.pad(inside, border, constant_values=1)[None, :, :, None]


def of_views(
    fn: Callable[[Array], Array], views: Float[Array, "views batch *rest"]
) -> Float[Array, "views batch *out"]:
    """Return a function of batches at every view, as one batch."""
    found = fn(views.reshape(-1, *views.shape[2:]))
    return found.reshape(*views.shape[:2], *found.shape[1:])


def entropy(logits: Float[Array, "*rows classes"]) -> Float[Array, "*rows"]:
    """Return the entropy of the softmax in nats."""
    chances = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(chances) * chances, axis=-1)


def most_confident(logits: Float[Array, "views batch classes"], share: float) -> Int[Array, "kept batch"]:
    """Return the numbers of the views of least entropy, max(1, floor(share * views)) of them, the least first."""
    kept = max(1, int(share * logits.shape[0] + 1e-9))
    return jax.lax.top_k(-entropy(logits).T, kept)[1].T


def pick(
    values: Float[Array, "views batch *rest"], chosen: Int[Array, "kept batch"]
) -> Float[Array, "kept batch *rest"]:
    """Return the values of the chosen views of each image."""
    return values[chosen, jnp.arange(values.shape[1])[None, :]]


def agreement(
    features: Float[Array, "views batch dim"], neighbours: int, temperature: float
) -> Float[Array, "views batch"]:
    """Return the weights of views, summing to 1 over them, by how near each one's feature is to those of others.

    ``softmax(s / temperature)``, s the mean cosine to the `neighbours` nearest other views (Sheng et al. 2025, arXiv
    2504.11195, and their public code).
    """
    rows = unit(features).swapaxes(0, 1)
    cosine = rows @ rows.swapaxes(1, 2)
    itself = jnp.eye(cosine.shape[-1], dtype=bool)[None]
    count = min(neighbours, cosine.shape[-1] - 1)
    nearest = jax.lax.top_k(jnp.where(itself, -jnp.inf, cosine), count)[0]
    return jax.nn.softmax(jnp.mean(nearest, axis=-1) / temperature, axis=-1).T


def _keys(keys: Key[Array, "batch"], count: int) -> Key[Array, "count batch"]:
    return jax.vmap(lambda key: jax.random.split(key, count), out_axes=1)(keys)
