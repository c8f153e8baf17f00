"""Tune an encoder of your own by RAN in LoRA's scope, and attack it through its filter."""

import dataclasses
import types

import jax.numpy as jnp
import numpy as np

from ranjax.evaluation.robust_accuracy import robust_accuracy
from ranjax.methods import Images, Task, Variant, encoder_of, head_of, settings_of, tower_fit, tune, varied
from ranjax.models import input_filter
from ranjax.run.config import default_config

rng = np.random.default_rng(0)


class Encoder:  # stands for yours
    config = types.SimpleNamespace(embed_dim=16)

    def image_features(self, params, images):  # f32[B, H, W, C] in [0, 1] -> f32[B, D]
        if input_filter.NAME in params:  # RAN's filter, for the methods that have it
            images = input_filter.apply(params[input_filter.NAME], images)
        hidden = jnp.tanh(images.reshape(images.shape[0], -1) @ params["tower"]["first"])
        return hidden @ params["tower"]["last"]


def draw(*shape):
    return jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[0]), jnp.float32)


encoder, params = Encoder(), {"tower": {"first": draw(64, 32), "last": draw(32, 16)}}
labels = np.arange(96) % 3
images = (rng.uniform(0, 0.4, (96, 8, 8, 1)) + 0.6 * np.eye(8)[labels * 3][:, None, :, None]).astype(np.float32)
whole = Images(images, labels, original=np.asarray(encoder.image_features(params, images)))
train, validation = (Images(*(part[rows] for part in whole)) for rows in (slice(0, 64), slice(64, 96)))

adapt = default_config().adapt  # the command line's keys
method = varied(settings_of(adapt, "ran_lora"), Variant(rate=3.0, strength=1.0))  # a point of the search's grid
method = dataclasses.replace(method, targets=("^tower/",))
settings = dataclasses.replace(tower_fit(adapt), epochs=3, batch_size=16, sigma=0.5)
# Methods with a head of their own ask of the prompts only how many classes there are.
found = tune(encoder, params, method, train, validation, Task(np.zeros((3, 16)), 1.0), seed=0, settings=settings)
print(found.history, found.chosen, f"{found.share:.1%} trained")

head = head_of(method, 16, 3)


def classify(weights, images):
    tower, own = weights
    return head.apply(own["params"], own["stats"], encoder.image_features(tower, images), False)[1]


weights = encoder_of(method, params, found.trained), found.trained["head"]
robust = robust_accuracy(classify, weights, validation.images, validation.labels, epsilons=("1/255", "4/255"))
print(robust)
