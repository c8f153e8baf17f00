"""Attack by parts of your own, through a random defence, by a bfloat16 gradient, and on every core of a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ranjax.attacks import KeyedLoss, ascend, jitted, losses, pgd, projections, starts, steps, transforms
from ranjax.training import devices
from ranjax.training import row_map as rows

draw = np.random.default_rng(0)
params = {"w": jnp.asarray(draw.normal(size=(64, 10)), jnp.float32)}
images = draw.uniform(size=(16, 8, 8, 1)).astype(np.float32)
keys = jax.random.split(jax.random.key(0), 16)
settings = pgd.PGD(epsilon="8/255", step_size="2/255", steps=10)


def logits_fn(params, images):
    return jnp.tanh(images.reshape(images.shape[0], -1) - 0.5) @ params["w"]


def loss(params, images, labels):
    return losses.of_classifier(lambda x: logits_fn(params, x), labels)(images)


labels = jnp.argmax(logits_fn(params, jnp.asarray(images)), axis=-1)

# An attack of your own: a start, a step rule, a projection and a loss.
radius = jnp.full((1, 1, 1, 1), 8 / 255, jnp.float32)
own = ascend(
    lambda x: loss(params, x, labels),
    images,
    keys,
    rule=optax.chain(steps.l1_momentum(0.9), steps.sign(2 / 255)),
    projection=projections.linf(radius),
    start=starts.uniform_linf(radius),
    measure=projections.linf_norm,
    steps=5,
)


# Towards the embedding of another image.
def cosine_to(params, images, goal):
    return 1 - losses.cosine(logits_fn(params, images), goal)


goal = logits_fn(params, jnp.roll(jnp.asarray(images), 1, axis=0))
nearer = jitted(cosine_to, settings)(params, images, keys, goal)
assert (nearer.loss > nearer.clean_loss).all()


# A random defence: its loss takes keys, and the attack follows the mean over draws.
def noisy_loss(params, images, keys, labels):
    noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)
    return losses.cross_entropy(logits_fn(params, images + 0.05 * noise), labels)


averaged = jitted(KeyedLoss(noisy_loss), settings, transform=lambda inner: transforms.expectation(inner, samples=8))(
    params, images, keys, labels
)


# A bfloat16 gradient, a float32 score.
@jax.jit
def fast(params, images, keys, labels):
    low = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)

    def surrogate(x):
        return loss(low, x.astype(jnp.bfloat16), labels)[0].astype(jnp.float32)

    return pgd.pgd(lambda x: loss(params, x, labels), images, keys, settings, surrogate=surrogate)


print("bfloat16 gradient:", float(fast(params, images, keys, labels).loss.mean()))


# Every core of a CPU: rows are shared among the devices.
def attack_rows(params, row):
    images, keys, labels = row
    return pgd.pgd(lambda x: loss(params, x, labels), images, keys, settings).images


everywhere = rows.RowMap(attack_rows, devices.make_mesh(), batch_size=8)
moved = everywhere(everywhere.share(params), (images, keys, np.asarray(labels)))
assert moved.shape == images.shape
