"""Images and reports together: retrieval both ways, by whole reports or sentences, attacked on either side or both."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, PyTree, Shaped

from ranjax.attacks import text
from ranjax.attacks.attack_table import ATTACKS
from ranjax.attacks.text.candidates import Table
from ranjax.core import math
from ranjax.data.recipe_table import Recipe
from ranjax.data.text.tokenizer import Tokens
from ranjax.evaluation import retrieval, statistics, zero_shot
from ranjax.evaluation.result_rows import interval_row, row
from ranjax.evaluation.retrieval import unit
from ranjax.run.schema import evaluate_keys
from ranjax.run.stages import inputs as common
from ranjax.run.stages.evaluation.evaluated_encoder import EvaluatedEncoder
from ranjax.run.stages.evaluation.result_record import ATTACKED_PAIRS, CAPTIONS, RETRIEVAL, TASK, Record
from ranjax.run.stages.word_candidates import vocabulary
from ranjax.training.row_map import RowMap

RECALLS = (1, 5, 10)


def retrieve(subject: EvaluatedEncoder, record: Record, split: str) -> None:
    """Measure recall both ways over a whole split: every report with its own image, and by sentences where configured.

    A report worded like an image's own is right for it, too: nobody could tell the two apart.
    """
    examples = subject.data.split(split)
    tokens = subject.data.encode(examples.reports)
    _recalls(record, RETRIEVAL, split, "none", _ranks(subject, examples.images, tokens, examples.reports))
    if subject.config.captions > 1:
        found = retrieval.captions_of(examples.reports, subject.config.captions)
        tokens = subject.data.encode(found.texts)
        ranks = _ranks(subject, examples.images, tokens, found.texts, found.image_of_text)
        clusters = record.clusters(CAPTIONS, split, len(examples.images))
        alike = np.unique(np.asarray(found.texts, dtype=str), return_inverse=True)[1]
        of_texts = found.image_of_text if clusters is None else clusters[found.image_of_text]
        _recalls(record, CAPTIONS, split, "none", ranks, (of_texts, alike))


def attack_pairs(subject: EvaluatedEncoder, record: Record, split: str) -> None:
    """Try retrieval among the first pairs before and after each attack, with its success by both definitions."""
    config = subject.config
    recipes = evaluate_keys.PAIR_ATTACKS.named(subject.context.config)
    if not recipes:
        return
    whole = subject.data.split(split)
    examples = whole.take(np.arange(min(config.pairs, len(whole.ids))))
    tokens = subject.data.encode(examples.reports)
    clean = _ranks(subject, examples.images, tokens, examples.reports)
    _recalls(record, ATTACKED_PAIRS, split, "none", clean)
    keys = common.example_keys(subject.context, "evaluate/pairs", examples.ids)
    for name, recipe in recipes.items():
        subject.context.check_stop(f"attacking pairs by {name}")
        rows = (examples.images, tokens.ids, tokens.mask, tokens.words, keys)
        attacked, ids, mask = _pair_attack(subject, recipe)((subject.params, _lexicon(subject)), rows)
        # Right is what was right before: by the reports as they were written.
        found = _ranks(subject, attacked, Tokens(ids, mask, tokens.words), examples.reports)
        _recalls(record, ATTACKED_PAIRS, split, name, found)
        for direction in ("image_to_text", "text_to_image"):
            before, after = (getattr(ranks, direction) < 1 for ranks in (clean, found))
            _success(subject, record, (direction, ATTACKED_PAIRS, split, name), before, after)


def _success(
    subject: EvaluatedEncoder,
    record: Record,
    cell: tuple[str, str, str, str],
    before: Bool[np.ndarray, " queries"],
    after: Bool[np.ndarray, " queries"],
) -> None:
    """Rows of an attack's success: Co-Attack's is the mean of the difference, SGA's is over the queries that were
    right.
    """
    direction, task, split, name = cell
    clusters = record.clusters(task, split, len(before), direction)
    fall = statistics.paired_difference(before, after, record.resamples, record.seed, clusters=clusters)
    record.rows.append(row(record.cell(*cell), "recall_drop@1", fall.value, fall.low, fall.high, fall.n))
    if not before.any():
        record.notes.append(f"{name}, {direction}: no query was right before, so none can turn wrong")
        return
    clusters = None if clusters is None else clusters[before]
    record.share(*cell, "turned_wrong@1", ~after[before], clusters=clusters)
    subject.context.say(
        f"  {name}, {direction.replace('_', ' ')}: recall@1 falls by {fall.value:.3f}, "
        f"{1 - after[before].mean():.3f} of the right ones turn wrong"
    )


def attack_prompts(subject: EvaluatedEncoder, record: Record, split: str) -> None:
    """Classify by zero-shot with words of the prompts replaced, each prompt driven away from the images of its class.

    The mean image of each class in the adapt split guides it, against that of the others; `noise.protect` decides which
    words stay. Nothing of the test images is used before they are judged.
    """
    most = subject.config.prompt_words
    if not most:
        return
    texts, owner = subject.data.prompts()
    tokens = subject.data.encode(texts)
    guide = prompt_guide(subject)
    table = _lexicon(subject)
    settings = text.Substitution(max_words=most, top_k=subject.context.config.noise.top_k)
    functions = subject.functions

    def rows_of(shared: PyTree, rows: PyTree) -> tuple[jax.Array, ...]:
        params, table = shared
        ids, mask, words, target = rows

        def away(embeddings: jax.Array, tokens: jax.Array, mask: jax.Array) -> jax.Array:
            found = math.unit(functions.text_features(params, tokens, mask, embeddings=embeddings))
            return -jnp.sum(found * target, axis=-1)

        result = text.substitute(away, functions.token_table(params), ids, mask, words, table, settings)
        return result.tokens, result.mask, result.edits

    run = common.row_map(subject.context, ("attacked prompts", functions, settings), rows_of)
    ids, mask, edits = run((subject.params, table), (tokens.ids, tokens.mask, tokens.words, guide))
    attacked = Tokens(ids, mask, tokens.words)
    features = common.text_features(subject.context, functions, subject.params, attacked)
    classes = zero_shot.class_embeddings(features, owner, len(subject.classes))
    labels = subject.data.task_split(split).labels
    logits = subject.zero_shot_logits(subject.task_features(split), classes)
    record.share("zero_shot", TASK, split, "words", "accuracy", logits.argmax(-1) == labels)
    subject.context.say(f"  prompts: {float(np.mean(edits)):.2f} words changed each")


def prompt_guide(subject: EvaluatedEncoder) -> Float[np.ndarray, "prompts dim"]:
    """Return, by prompt, the mean image of its class in the adapt split less that of the others."""
    examples = subject.data.task_split("adapt")
    features = unit(subject.task_features("adapt"))
    means = np.stack([features[examples.labels == c].mean(0) for c in range(len(subject.classes))])
    others = (means.sum(0, keepdims=True) - means) / max(len(means) - 1, 1)
    guide: np.ndarray = (means - others)[subject.data.prompts()[1]].astype(np.float32)
    return guide


def _pair_attack(subject: EvaluatedEncoder, recipe: Recipe) -> RowMap:
    config, functions, whole = subject.config, subject.functions, subject.context.config
    attack = ATTACKS.resolve(config.image_attack)
    image = attack.at(evaluate_keys.IMAGE_ATTACKS.settings_of(whole, attack), config.epsilon)
    substitution = text.Substitution(max_words=config.pair_words, top_k=whole.noise.top_k)
    options = evaluate_keys.PAIR_ATTACKS.options_of(whole, recipe)

    def rows_of(shared: PyTree, rows: PyTree) -> tuple[jax.Array, ...]:
        params, table = shared
        result = common.craft_pairs(
            functions, params, rows, image, substitution, table, recipe=recipe.craft, image_attack=attack.run, **options
        )
        return result.image.images, result.text.tokens, result.text.mask

    return common.row_map(subject.context, ("attacked pairs", functions, recipe.name), rows_of)


def _lexicon(subject: EvaluatedEncoder) -> Table:
    noise = subject.context.config.noise
    return subject.context.memoize("lexicon", lambda: vocabulary(subject.data, noise).table)


def _ranks(
    subject: EvaluatedEncoder,
    images: Shaped[np.ndarray, "images height width channels"],
    tokens: Tokens,
    written: Sequence[str],
    image_of_text: Int[np.ndarray, " texts"] | None = None,
) -> retrieval.Ranks:
    """Ranks both ways of images and texts, by default one text an image."""
    text = unit(common.text_features(subject.context, subject.functions, subject.params, tokens))
    image = unit(subject.image_features(images))
    own = np.arange(len(image)) if image_of_text is None else image_of_text
    return retrieval.ranks(image, text, own, texts_as_written=written)


def _recalls(
    record: Record,
    task: str,
    split: str,
    attack: str,
    ranks: retrieval.Ranks,
    partitions: Sequence[np.ndarray] = (),
) -> None:
    """Record rows of recall both ways, and the level of chance, which the page shows.

    With `partitions` i[T] of several texts an image, by their image and by their wording, what texts find has the wider
    one of the intervals over either: texts of one image are no independent examples, nor are texts of one wording,
    which is also why they are not paired between conditions.
    """
    directions = {
        "image_to_text": (ranks.image_to_text, ranks.right_texts, len(ranks.text_to_image)),
        "text_to_image": (ranks.text_to_image, ranks.right_images, len(ranks.image_to_text)),
    }
    for direction, (of_queries, right, items) in directions.items():
        for k in RECALLS:
            hits = of_queries < k
            if not partitions or direction == "image_to_text":
                record.share(direction, task, split, attack, f"recall@{k}", hits)
            else:
                each = [statistics.bootstrap(hits, record.resamples, record.seed, clusters=of) for of in partitions]
                low, high = min(one.low for one in each), max(one.high for one in each)
                interval = each[0]._replace(low=low, high=high, n=min(one.n for one in each))
                cell = record.cell(direction, task, split, attack)
                record.rows.append(interval_row(cell, f"recall@{k}", interval))
            level = f"recall@{k}" if task == RETRIEVAL else f"{task}/{direction}/recall@{k}"
            # Of the test split, where there is one: the page holds in-domain figures against it.
            if split == "test" or level not in record.chance:
                record.chance[level] = retrieval.chance(right, items, k)
            if split != "test":
                record.chance[f"{split}/{level}"] = retrieval.chance(right, items, k)
