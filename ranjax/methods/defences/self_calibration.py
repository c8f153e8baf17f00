"""SCC: a counterattack towards what the views of a pushed image say it is, and away from the nearest other class."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from ranjax.core.math import unit
from ranjax.core.pixels import pixel_units
from ranjax.methods import test_time
from ranjax.methods.defences.defence_table import ConsistencySettings
from ranjax.methods.defences.defended_model import Undefended
from ranjax.methods.defences.image_views import Images, crops, of_views
from ranjax.methods.method_settings import TTC

EVERY = 1e9
"""A threshold that pushes every image: no feature moves by that share."""


def self_calibrated(
    model: Undefended, images: Images, keys: Key[Array, "batch"], settings: ConsistencySettings
) -> Images:
    """Return images moved within a ball by signed steps that raise their consistency, differentiable by the images.

    SCC (Liu et al. 2025, arXiv 2510.22785), as its abstract and a public review describe it; no code was found. A
    counterattack as TTC's, on every image, gives x_w. The mean softmax over views of x_w, raised to 1 / temperature and
    normalised, is a soft answer q; y is the answer at x_w. The steps raise ``sum_k q_k l_k(x + d) - max_{k != y}
    l_k(x + d) + weight * mean_v cos(f(x + d), f(v(x + d)))`` with logits l, features f and random views v. Logits stand
    for the cosines to texts, as a head has no texts; the second term and all values are our reading. A sign has the
    stand-in slope of `ranjax.methods.test_time`.
    """
    epsilon, size = pixel_units(settings.epsilon), pixel_units(settings.step)
    push = TTC(epsilon=settings.epsilon, step=settings.step, steps=settings.steps, threshold=EVERY)
    pushed = test_time.counterattacked(model, images, keys, push)
    # The first view is the pushed image itself.
    answers = of_views(model.logits, crops(pushed, keys, settings.views, settings.smallest))
    soft = jax.nn.softmax(jnp.log(jnp.mean(jax.nn.softmax(answers), axis=0)) / settings.temperature)
    answer = jax.nn.one_hot(jnp.argmax(answers[0], axis=-1), answers.shape[-1], dtype=bool)

    def consistency(delta: Array) -> Array:
        features = of_views(model.features, crops(images + delta, keys, settings.views, settings.smallest))
        given = model.classify(features[0])
        margin = jnp.sum(soft * given, axis=-1) - jnp.max(jnp.where(answer, -jnp.inf, given), axis=-1)
        alike = jnp.mean(jnp.sum(unit(features[1:]) * unit(features[:1]), axis=-1), axis=0)
        return jnp.sum(margin + settings.weight * alike)

    delta = jnp.zeros_like(images)
    for _ in range(settings.steps):
        delta = test_time.within(images, delta + size * test_time.sign(jax.grad(consistency)(delta)), epsilon)
    return images + delta
