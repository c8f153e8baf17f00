"""The config that the tests of this folder share, and parameters for it that cost no compilation."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ranjax.models import DualEncoder, clip, split

TINY = clip(
    **{"image_size": 16, "patch_size": 8, "vision_width": 16, "vision_layers": 2, "vision_heads": 2},
    **{"text_width": 12, "text_layers": 2, "text_heads": 3, "vocab_size": 40, "max_length": 8, "embed_dim": 10},
    eos_id=39,
)


def seeded(config, seed=0):
    """(functions, params) with every array drawn by numpy: N(0, 0.2^2), layer norms' scales around 1."""
    kept = {}

    def shapes():
        kept["functions"], params = split(DualEncoder(config, nnx.Rngs(0)))
        return params

    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1].key == "log_scale":
            return jnp.asarray(config.logit_scale_init, jnp.float32)
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(rng.normal(centre, 0.2, leaf.shape), jnp.float32)

    params = jax.tree_util.tree_map_with_path(draw, jax.eval_shape(shapes))
    return kept["functions"], params
