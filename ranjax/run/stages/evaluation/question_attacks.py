"""Attacks on questions about images, through fusion and head end to end: on the image, on the question, on both.

The question's words are substituted by their gradient, or changed by one of the searches of `word_attacks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree

from ranjax.attacks import losses
from ranjax.attacks.attack_table import ATTACKS
from ranjax.attacks.text import candidates
from ranjax.attacks.text.substitution import Substitution, substitute
from ranjax.core.pixels import as_float
from ranjax.core.types import Params
from ranjax.methods.head_training import Head
from ranjax.run.schema import evaluate_keys
from ranjax.run.stages import inputs
from ranjax.run.stages.evaluation import word_attacks
from ranjax.run.stages.evaluation.evaluated_encoder import EvaluatedEncoder
from ranjax.run.stages.evaluation.question_fusion import FusedQuestions, Reader, SplitQuestions

IMAGE, QUESTION, BOTH = "image", "question", "both"
SEARCHES = ("importance", "masked_lm", "typos")
"""Searches of `word_attacks` that need the answers alone, no gradient."""


class Answering(NamedTuple):
    """A fitted head behind a fusion.

    Attributes:
      reader: the fusion.
      shared: parameters of the encoder, and variables of the fusion or None.
      head: its shape; variables: {"params", "stats"} of one seed.
    """

    reader: Reader
    shared: tuple[Params, Params]
    head: Head
    variables: Params


class AttackedQuestions(NamedTuple):
    """Attributes:
    right: {"none", and each attack}: bool[questions], right before and under the attack.
    open: bool[questions], whether a word may be replaced at all.
    """

    right: dict[str, Bool[np.ndarray, " questions"]]
    open: Bool[np.ndarray, " questions"]


def attack(
    encoder: EvaluatedEncoder,
    fused: FusedQuestions,
    answering: Answering,
    split: SplitQuestions,
    wanted: Sequence[str],
) -> AttackedQuestions:
    """Attack questions whose answers training knows; white box, by the cross-entropy of the right answer.

    The image is attacked by `evaluate.image_attack` within `evaluate.epsilon`. Words of the question are substituted
    by their first-order gain, re-scored by true forward passes, within the guards of `noise.protect`. "both" takes the
    question first, against the clean image, then the image with the attacked question. `SEARCHES` raise the same loss
    by whole questions. A question that is wrong without an attack counts as wrong; an attack may leave its input as it
    is.
    """
    whole, config = fused.context.config, fused.config
    entry = ATTACKS.resolve(config.image_attack)
    settings = entry.at(evaluate_keys.IMAGE_ATTACKS.settings_of(whole, entry), config.epsilon)
    words = Substitution(max_words=config.question_words, top_k=whole.noise.top_k)
    functions, reader, head = fused.functions, answering.reader, answering.head

    def rows_of(given: PyTree, rows: PyTree) -> dict[str, Array]:
        shared, variables, lexicon = given
        raw, tokens, mask, slots, labels, keys = rows
        images = as_float(raw)

        def logits(images: Array, tokens: Array, mask: Array, embeddings: Array | None = None) -> Array:
            features = reader(shared, images, tokens, mask, embeddings)
            return head.apply(variables["params"], variables["stats"], features, False)[1]

        def loss(embeddings: Array, tokens: Array, mask: Array) -> Array:
            return losses.cross_entropy(logits(images, tokens, mask, embeddings), labels)

        def moved(tokens: Array, mask: Array) -> Array:
            loss_of = losses.of_classifier(lambda x: logits(x, tokens, mask), labels, "cross_entropy")
            return entry.run(loss_of, images, keys, settings).images

        def right(images: Array, tokens: Array, mask: Array) -> Array:
            return ~losses.is_wrong(logits(images, tokens, mask), labels)

        clean = right(images, tokens, mask)
        allowed = candidates.for_rows(lexicon, tokens, slots)
        found = {"none": clean, "open": jnp.any(allowed.open, axis=1)}
        changed = (tokens, mask)
        if QUESTION in wanted or BOTH in wanted:
            table = functions.token_table(shared[0])
            result = substitute(loss, table, tokens, mask, slots, allowed, words)
            changed = (result.tokens, result.mask)
        if QUESTION in wanted:
            found[QUESTION] = clean & right(images, *changed)
        if IMAGE in wanted:
            found[IMAGE] = clean & right(moved(tokens, mask), tokens, mask)
        if BOTH in wanted:
            found[BOTH] = clean & right(images, *changed) & right(moved(*changed), *changed)
        return found

    key = ("question attack", reader, head, entry.name, tuple(wanted), words)
    run = inputs.row_map(fused.context, key, rows_of)
    rows = (
        split.images[split.asked.example],
        *fused.texts(split),
        fused.words[split.wording],
        split.labels,
        fused.keys(split),
    )
    found = run((answering.shared, answering.variables, fused.lexicon), rows)
    right = {name: found[name] for name in found if name != "open"}
    for kind in SEARCHES:
        if kind in wanted:
            encoder.context.check_stop(f"changing words of questions: {kind}")
            right[kind] = right["none"] & ~_searched(encoder, fused, answering, split, kind)
    return AttackedQuestions(right, found["open"])


def _searched(
    encoder: EvaluatedEncoder, fused: FusedQuestions, answering: Answering, split: SplitQuestions, kind: str
) -> Bool[np.ndarray, " questions"]:
    """Return where the answer to the question of the highest loss that a search finds is wrong."""
    reader, head = answering.reader, answering.head

    def rows_of(given: PyTree, rows: PyTree) -> tuple[Array, Array]:
        shared, variables = given
        raw, tokens, mask, labels = rows
        features = reader(shared, as_float(raw), tokens, mask)
        logits = head.apply(variables["params"], variables["stats"], features, False)[1]
        return losses.cross_entropy(logits, labels), losses.is_wrong(logits, labels)

    run = inputs.row_map(fused.context, ("answers to questions", reader, head), rows_of)
    texts, every = split.asked.texts, np.arange(len(split.asked.texts))

    def answers(changed: Sequence[str], owner: Int[np.ndarray, " texts"]) -> tuple[np.ndarray, np.ndarray]:
        # The fusion has places for so many tokens; a text of more is cut before its end mark.
        tokens = encoder.data.tokenizer.encode(list(changed), fused.tokens.shape[1])
        images = split.images[split.asked.example[owner]]
        return run((answering.shared, answering.variables), (images, tokens.ids, tokens.mask, split.labels[owner]))

    ids = [f"{split.ids[row]}/{text}" for row, text in zip(split.asked.example, texts)]
    words = (fused.config.question_words,)
    held = word_attacks.search(encoder, kind, texts, ids, lambda *given: np.asarray(answers(*given)[0]), words)
    return np.asarray(answers(held[words[0]], every)[1])
