"""The inputs of several stages: prepared records as arrays, the tokenizer, the encoder of an upstream condition."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int32, Key, PyTree, Shaped

from ranjax.attacks import pairs
from ranjax.attacks.text.substitution import Substitution
from ranjax.core import keys, precision
from ranjax.core.errors import DataError
from ranjax.core.pixels import as_float
from ranjax.core.settings import read
from ranjax.core.types import Params
from ranjax.data.prepared import PreparedSet
from ranjax.data.text.tokenizer import Tokenizer, Tokens
from ranjax.data.text.tokenizer_checks import check_fits
from ranjax.data.text.tokenizer_files import recorded_id
from ranjax.evaluation import questions, zero_shot
from ranjax.methods.method_settings import Fit
from ranjax.models.dual_encoder import DualEncoderFunctions
from ranjax.models.encoder_config import DualEncoderConfig
from ranjax.run.context import Context
from ranjax.run.plan import condition_name
from ranjax.run.schema import RunConfig
from ranjax.run.schema.adapt_keys import Adapt
from ranjax.run.stages import labels
from ranjax.run.stages.prepare import open_data
from ranjax.training.row_map import RowFunction, RowMap

Features = Float[np.ndarray, "examples dim"]
"""Embeddings of images or texts, not normalised."""


class Split(NamedTuple):
    """One split in memory.

    Attributes:
      ids, reports: of the examples.
      images: u8.
      labels: i32[examples] (-1: not of the single-label task), or multi-hot f32[examples, classes].
      questions: of a set of questions, the question about each image; elsewhere None.
    """

    ids: list[str]
    images: Shaped[np.ndarray, "examples height width channels"]
    reports: list[str]
    labels: Shaped[np.ndarray, "examples *classes"]
    questions: list[str] | None = None

    def take(self, index: np.ndarray) -> Split:
        chosen = [int(i) for i in index]
        return Split(
            [self.ids[i] for i in chosen],
            self.images[index],
            [self.reports[i] for i in chosen],
            self.labels[index],
            None if self.questions is None else [self.questions[i] for i in chosen],
        )


@dataclass(frozen=True)
class Data:
    """The prepared set with its tokenizer; splits are read once and kept."""

    prepared: PreparedSet
    tokenizer: Tokenizer
    max_length: int
    multi_label: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.prepared.classes)

    @property
    def has_questions(self) -> bool:
        """Return True for a set of questions about images."""
        return self.split("adapt").questions is not None

    def split(self, name: str) -> Split:
        cache = self.__dict__.setdefault("_splits", {})
        if name not in cache:
            source = self.prepared.splits[name]
            records = [source[i] for i in range(len(source))]
            groups = [r["group"] for r in records]
            cache[name] = Split(
                [r["id"] for r in records],
                np.stack([r["image"] for r in records]),
                [r["report"] for r in records],
                np.array([r["label"] for r in records], np.int32),
                questions.given(groups).texts if any("question" in group for group in groups) else None,
            )
        return cache[name]

    def task_split(self, name: str) -> Split:
        """Return a split's examples of the task: those with one label, or all whose multi-hot labels are known.

        Raises:
          DataError: there are none.
        """
        split = self.split(name)
        if self.multi_label:
            split = split._replace(labels=self.targets(name)).take(np.flatnonzero(self.known(name)))
            if not len(split.labels):
                raise DataError(f"split {name!r} has no example of which every class is known.")
            return split
        split = split.take(np.flatnonzero(split.labels >= 0))
        if not len(split.labels):
            raise DataError(f"split {name!r} has no example with exactly one of the classes {self.classes}.")
        return split

    def targets(self, name: str) -> np.ndarray:
        """Return multi-hot labels f32[examples, classes] of all examples of a split."""
        cache = self.__dict__.setdefault("_targets", {})
        if name not in cache:
            cache[name] = np.stack(self.prepared.splits[name].column("labels")).astype(np.float32)
        return cache[name]

    def known(self, name: str) -> np.ndarray:
        """Return bool[examples], whether every class of an example of a split is known."""
        return labels.known(self.prepared.splits[name])

    def prompts(self) -> tuple[list[str], Int32[np.ndarray, "prompts"]]:
        """Return the prompts of all classes, and the class of each."""
        every = [self.prepared.prompts[name] for name in self.classes]
        owner = np.repeat(np.arange(len(every), dtype=np.int32), [len(texts) for texts in every])
        return [text for texts in every for text in texts], owner

    def encode(self, reports: Sequence[str]) -> Tokens:
        return self.tokenizer.encode(list(reports), self.max_length)


def data(context: Context) -> Data:
    """Return the prepared set of this run, opened once per process."""

    def make() -> Data:
        prepared = open_data(context)
        tokenizer = Tokenizer.load(context.folder_of("prepare") / "tokenizer.json")
        return Data(prepared, tokenizer, context.config.text.max_length, context.config.adapt.task == "multi")

    return context.memoize("data", make)


def encoder(context: Context, condition: str) -> tuple[DualEncoderFunctions, Params]:
    """Return functions and parameters of an upstream condition, as `pretrain` left them."""
    from ranjax.models import load

    folder, options = encoder_folder(context, condition), run_options(context.config)
    functions, params, _ = context.memoize(("encoder", condition), lambda: load(folder, **options))
    return functions, params


def run_options(config: RunConfig) -> dict[str, Any]:
    """Return the fields of an encoder's config that say how to run it; its files do not hold them."""
    model = config.model
    how = {name: model[name] for name in ("compute_dtype", "remat", "scan", "attention")}
    return {"grey_to_rgb": True, **how}


def check_tokenizer(tokenizer: Tokenizer, shape: DualEncoderConfig, folder: Path, key: str, value: str) -> None:
    """Refuse a tokenizer that is not that of the dual encoder of config `shape`, read from `folder`.

    Raises:
      ConfigError: as `tokenizer_checks.check_fits`.
    """
    text = shape.text
    check_fits(
        tokenizer,
        text.vocab_size,
        pools=text.end_pooling,
        eos_id=text.eos_id,
        pad_id=text.needs_pad,
        begins=text.needs_begin,
        recorded=recorded_id(folder),
        key=key,
        value=value,
    )


def encoder_folder(context: Context, condition: str) -> Path:
    return context.folder_of(f"pretrain/{condition}") / "encoder"


def clean_condition(context: Context) -> str:
    return condition_name(context.config.noise.recipe, 0.0)


def row_map(context: Context, key: Hashable, fn: RowFunction) -> RowMap:
    """Return `fn` over rows in batches of `evaluate.batch_size`, compiled once per process under `key`."""
    make = functools.partial(RowMap, fn, context.mesh, context.config.evaluate.batch_size, context.poll)
    return context.memoize((key, context.mesh), make)


def image_features(
    context: Context,
    functions: Any,
    params: Params,
    images: Shaped[np.ndarray, "examples height width channels"],
    kind: str = "embedding",
) -> Features:
    """Return what heads read of images, u8 or f32 in [0, 1]: embeddings, or another `kind` of features."""

    @precision.exact
    def image_features(params: PyTree, images: Array) -> Array:
        return functions.features(params, as_float(images), kind)

    return row_map(context, ("image_features", functions, kind), image_features)(params, images)


def text_features(context: Context, functions: DualEncoderFunctions, params: Params, tokens: Tokens) -> Features:
    """Return embeddings of token rows."""

    @precision.exact
    def text_features(params: PyTree, rows: PyTree) -> Array:
        return functions.text_features(params, *rows)

    return row_map(context, ("text_features", functions), text_features)(params, (tokens.ids, tokens.mask))


def class_embeddings(context: Context, functions: DualEncoderFunctions, params: Params) -> Float[Array, "classes dim"]:
    """Return the prompt ensemble of each class."""
    texts, owner = data(context).prompts()
    features = text_features(context, functions, params, data(context).encode(texts))
    return zero_shot.class_embeddings(features, owner, len(data(context).classes))


@functools.partial(jax.jit, static_argnums=0)
def logit_scale(functions: DualEncoderFunctions, params: Params) -> Float[Array, ""]:
    """Return the factor of the cosine logits of an encoder."""
    return functions.logit_scale(params)


def question_features(
    context: Context, functions: Any, params: Params, questions: Sequence[str] | None
) -> Features | None:
    """Return embeddings of the question about each image; None where there are no questions."""
    if questions is None:
        return None
    texts = sorted(set(questions))
    features = text_features(context, functions, params, data(context).encode(texts))
    index = {text: i for i, text in enumerate(texts)}
    return features[[index[text] for text in questions]]


def head_input(
    features: Array | np.ndarray, question_features: Array | np.ndarray | None, modality: str
) -> Array | np.ndarray:
    """Return the input of a head: image features, of a set of questions fused with those of the questions."""
    return features if question_features is None else questions.fuse(features, question_features, modality)


def fit_of(adapt: Adapt) -> Fit:
    """Return what all heads share, out of the config's group `adapt`."""
    return read(Fit(multi_label=adapt.task == "multi"), adapt)


def craft_pairs(
    functions: DualEncoderFunctions,
    params: Params,
    rows: Sequence[Array],
    image: PyTree,
    text: Substitution,
    allowed: pairs.Allowed,
    *,
    gradient_dtype: str = "float32",
    **options: Any,
) -> pairs.PairAttack:
    """Run `pairs.craft` on pairs against a dual encoder; traceable.

    Args:
      functions, params: of the dual encoder.
      rows: images u8[B, H, W, C] or f32 in [0, 1], tokens i32[B, L], mask bool[B, L], words i32[B, L], keys key[B].
      image, text: settings of the two searches.
      allowed: which tokens may stand for which.
      gradient_dtype: "bfloat16" follows gradients in it; every loss that decides is float32.
      options: of `pairs.craft`: recipe, image_attack, similarity, hide_id, target, and the recipe's own.
    """
    images, tokens, mask, words, drawn = rows
    followed = functions.computing_in("bfloat16") if gradient_dtype == "bfloat16" else None
    return pairs.craft(
        functools.partial(functions.image_features, params),
        lambda e, t, m: functions.text_features(params, t, m, embeddings=e),
        functions.token_table(params),
        as_float(images),
        tokens,
        mask,
        words,
        drawn,
        image,
        text,
        allowed,
        surrogate_fn=functools.partial(followed.image_features, params) if followed else None,
        **options,
    )


def example_keys(context: Context, name: str, ids: Sequence[str]) -> Key[Array, "examples"]:
    """Return one key per example from the stream `name` under the config's seed."""
    return keys.example_keys(keys.stream(context.config.seed, name), ids)
