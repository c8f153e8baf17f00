"""Train a small masked language model on the reports at hand, where no published one is given."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from ranjax.core import keys
from ranjax.core.errors import DataError
from ranjax.core.types import Params
from ranjax.models.towers.bert import Bert, BertFunctions, split_bert
from ranjax.models.towers.tower_configs import BertConfig
from ranjax.training.optimizer import plain_promotion


@dataclass(frozen=True)
class MaskedLM:
    """Settings of the model and its training.

    Attributes:
      width, layers, heads: of the transformer.
      steps: updates.
      batch_size: texts a step.
      learning_rate: the highest one.
      share: of the words that are hidden.
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    steps: int = 400
    batch_size: int = 64
    learning_rate: float = 3e-3
    share: float = 0.15


class TrainedLM(NamedTuple):
    """Attributes: functions with a masked-LM head; params; losses: of every step."""

    functions: BertFunctions
    params: Params
    losses: list[float]


def train(
    tokens: Int[np.ndarray, "texts length"],
    mask: Bool[np.ndarray, "texts length"],
    words: Int[np.ndarray, "texts length"],
    *,
    vocab_size: int,
    mask_id: int,
    pad_id: int,
    seed: int,
    settings: MaskedLM = MaskedLM(),
    progress: Callable[[int], None] = lambda done: None,
) -> TrainedLM:
    """Train a BERT to restore whole hidden words (BERT, Devlin et al. 2019; whole-word masking, always [MASK]).

    The result depends on the arguments alone. A step is one compiled program; order and hidden words come from the seed
    and the step's number.

    Args:
      tokens, mask: of the texts.
      words: word of every token, -1 on special tokens and padding.
      vocab_size, mask_id, pad_id: of the tokenizer.
      seed: of weights, order and hidden words.
      settings: default `MaskedLM()`.
      progress: called with the number of steps done.

    Raises:
      DataError: no text has a word, or the loss is no longer finite.
    """
    with_words = np.flatnonzero(words.max(axis=1, initial=-1) >= 0)
    if not len(with_words):
        raise DataError("a masked language model needs texts with words; all of them are empty")

    # Model and optimizer.
    config = BertConfig(
        vocab_size=vocab_size,
        width=settings.width,
        layers=settings.layers,
        heads=settings.heads,
        mlp_width=4 * settings.width,
        max_length=tokens.shape[1],
        pad_id=pad_id,
        masked_lm=True,
    )
    key = keys.stream(seed, "masked_lm")
    functions, params = split_bert(Bert(config, nnx.Rngs(keys.fold_in(key, 0))))
    warm = max(1, settings.steps // 10)
    schedule = optax.warmup_cosine_decay_schedule(0.0, settings.learning_rate, warm, max(settings.steps, warm + 1))
    optimizer = plain_promotion(optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.01)))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(
        params: Params, opt_state: PyTree, batch: tuple[Array, Array, Array], key: Key[Array, ""]
    ) -> tuple[Params, PyTree, Float[Array, ""]]:
        tokens, mask, words = batch
        # One draw a word, so that all pieces of a word are hidden together.
        drawn = jax.random.uniform(key, words.shape, jnp.float32)
        hidden = (jnp.take_along_axis(drawn, jnp.maximum(words, 0), axis=1) < settings.share) & (words >= 0)
        shown = jnp.where(hidden, jnp.int32(mask_id), tokens)

        def loss_fn(params: Params) -> Float[Array, ""]:
            logits = functions.logits(params, shown, mask)
            each = optax.softmax_cross_entropy_with_integer_labels(logits, tokens)
            return jnp.sum(jnp.where(hidden, each, 0.0)) / jnp.maximum(jnp.sum(hidden, dtype=jnp.float32), 1.0)

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    # One compiled step at a time.
    opt_state, losses = jax.jit(optimizer.init)(params), []
    order = np.random.Generator(np.random.Philox(key=seed))
    for number in range(settings.steps):
        rows = with_words[order.integers(0, len(with_words), settings.batch_size)]
        batch = (tokens[rows], mask[rows], words[rows])
        params, opt_state, loss = step(params, opt_state, batch, keys.fold_in(key, number + 1))
        losses.append(float(loss))
        if not np.isfinite(losses[-1]):
            raise DataError(f"the masked language model's loss is {losses[-1]} at step {number + 1}")
        progress(number + 1)
    return TrainedLM(functions, jax.device_get(params), losses)
