"""Features of a condition's labelled images, each kind made once: clean, under attack, and through an attack handle."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ranjax.attacks import losses, pgd
from ranjax.core import precision
from ranjax.core.errors import ConfigError
from ranjax.core.pixels import as_float
from ranjax.core.types import Params
from ranjax.evaluation.questions import BOTH
from ranjax.methods.acquisition import vary
from ranjax.methods.attack_handle import EncoderAttack, Target
from ranjax.methods.head_inputs import Examples
from ranjax.methods.own_head import fit_method
from ranjax.methods.search import key_prefix
from ranjax.methods.table import METHODS, settings_of
from ranjax.models import input_filter
from ranjax.run.context import Context
from ranjax.run.schema.adapt_keys import Adapt
from ranjax.run.stages import inputs as common
from ranjax.training.progress import Progress

SPLITS = {"adapt": "train", "validation": "validation"}
"""The splits that heads are fitted on, as an attack handle calls them."""


class Features(NamedTuple):
    """What a head is given: behind the filter or not; of a set of questions, which of the two; what of the image; and
    how many copies of each labelled image besides.
    """

    filtered: bool = False
    modality: str = BOTH
    kind: str = "embedding"
    copies: int = 0


def features_for(adapt: Adapt, settings: object) -> Features:
    """Return the features that a method's settings ask for; without a width, `adapt.filter`, there is no filter."""
    filtered = getattr(settings, "filtered", False) and adapt.filter > 0
    kind, copies = getattr(settings, "features", "embedding"), getattr(settings, "copies", 0)
    return Features(filtered, getattr(settings, "modality", BOTH), kind, copies)


def behind_filter(adapt: Adapt, params: Params) -> Params:
    """Return an encoder's parameters with the config's filter in front."""
    return {**params, input_filter.NAME: input_filter.gaussian(adapt.filter)}


def settings_given(adapt: Adapt, name: str, questions: bool) -> Any:
    """Return the settings of a method on this set: where it asks questions, a head reads embeddings alone.

    A question is fused with the embedding of its image; with tokens there is nothing to fuse it with.

    Args:
      adapt: the group of keys.
      name: of an entry of `METHODS`.
      questions: whether the set asks questions about its images.
    """
    settings = settings_of(adapt, name)
    if questions and getattr(settings, "features", "embedding") != "embedding":
        return dataclasses.replace(settings, features="embedding")
    return settings


def check_kinds(functions: Any, wanted: Mapping[str, Features]) -> None:
    """Refuse features that the image tower does not show.

    Args:
      functions: of the encoder.
      wanted: by the name of a method.

    Raises:
      ConfigError: names the method's key.
    """
    for name, given in wanted.items():
        if given.kind == "embedding":
            continue
        key = f"{key_prefix(name)}.features"
        try:
            functions.width_of(given.kind)
        except ConfigError as error:
            raise ConfigError(key, given.kind, error.expected) from error


class CachedFeatures:
    """The features of one encoder's labelled images, by `Features`."""

    def __init__(
        self,
        context: Context,
        functions: Any,
        params: Params,
        splits: Mapping[str, common.Split],
    ) -> None:
        self.context, self.functions, self.params, self.splits = context, functions, params, splits
        self._clean: dict[Features, dict[str, Examples]] = {}
        self._attacked: dict[Features, dict[str, Examples]] = {}
        self._handles: dict[Features, EncoderAttack] = {}
        self._with_copies: dict[int, common.Split] = {}

    def clean(self, given: Features) -> dict[str, Examples]:
        """Return {split: examples} without attacked features."""
        if given not in self._clean:
            self._clean[given] = {
                name: Examples(np.asarray(self._read(given, split)), split.labels)
                for name, split in self._splits(given).items()
            }
        return self._clean[given]

    def attacked(self, given: Features) -> dict[str, Examples]:
        """Return {split: examples} with features of images attacked as `adapt.defence_source` says."""
        if given not in self._attacked:
            self._attacked[given] = self._attack(given)
        return self._attacked[given]

    def handle(self, given: Features) -> EncoderAttack:
        """Return what attacks these images through filter, encoder and a head, for `Fit.attack`."""
        if given not in self._handles:
            config, functions = self.context.config.adapt, self.functions
            targets = {}
            for name, split in self._splits(given).items():
                keys = common.example_keys(self.context, "adapt/attack", split.ids)
                targets[SPLITS[name]] = Target(split.images, split.labels, keys, self._asked(split))

            def encode(params: Params, images: Array, asked: PyTree) -> Array:
                return _head_features(functions, params, images, given, asked)

            rows = functools.partial(common.row_map, self.context)
            settings = pgd.PGD(config.epsilon, config.step, config.attack_steps)
            key = (functions, given.kind, given.modality)
            self._handles[given] = EncoderAttack(encode, self._front(given), targets, settings, rows, key)
        return self._handles[given]

    def _splits(self, given: Features) -> dict[str, common.Split]:
        """Return the splits, the labelled one with its copies behind it."""
        if not given.copies:
            return dict(self.splits)
        if given.copies not in self._with_copies:
            self._with_copies[given.copies] = self._copied(self.splits["adapt"], given.copies)
        return {**self.splits, "adapt": self._with_copies[given.copies]}

    def _copied(self, split: common.Split, copies: int) -> common.Split:
        variation = self.context.config.adapt.variation

        def varied(_: PyTree, rows: PyTree) -> Array:
            images, keys = rows
            return vary(as_float(images), keys, variation)

        run = common.row_map(self.context, ("varied", variation), varied)
        parts, names = [split.images], list(split.ids)
        for number in range(1, copies + 1):
            ids = [f"{name}/{number}" for name in split.ids]
            found = np.asarray(run((), (split.images, common.example_keys(self.context, "adapt/copies", ids))))
            # As the images themselves are stored: what a head is fitted on is then of one kind.
            parts.append(found if split.images.dtype.kind == "f" else np.rint(255 * found).astype(np.uint8))
            names += ids
        every = 1 + copies
        questions = None if split.questions is None else split.questions * every
        labels = np.concatenate([split.labels] * every)
        return common.Split(names, np.concatenate(parts), split.reports * every, labels, questions)

    def _front(self, given: Features) -> Params:
        return behind_filter(self.context.config.adapt, self.params) if given.filtered else self.params

    def _asked(self, split: common.Split) -> common.Features | None:
        return common.question_features(self.context, self.functions, self.params, split.questions)

    def _read(self, given: Features, split: common.Split) -> Array | np.ndarray:
        found = common.image_features(self.context, self.functions, self._front(given), split.images, given.kind)
        return common.head_input(found, self._asked(split), given.modality)

    def _attack(self, given: Features) -> dict[str, Examples]:
        context, functions, config = self.context, self.functions, self.context.config.adapt
        clean, params = self.clean(given), self._front(given)
        settings = pgd.PGD(config.epsilon, config.step, config.attack_steps)
        probe = self._probe(clean) if config.defence_source == "probe" else None

        def attacked_features(shared: PyTree, rows: PyTree) -> PyTree:
            params, probe = shared
            raw, clean, labels, keys, questions = rows
            images = as_float(raw)

            def away(x: jax.Array) -> jax.Array:
                if probe is None:
                    return jnp.sum((functions.features(params, x, given.kind) - clean) ** 2, axis=-1)
                each = losses.binary_cross_entropy if config.task == "multi" else losses.cross_entropy
                found = _head_features(functions, params, x, given, questions)
                return each(found @ probe["kernel"] + probe["bias"][None], labels)

            attacked = pgd.pgd(away, images, keys, settings).images
            return precision.exact(_head_features)(functions, params, attacked, given, questions)

        key = ("attacked_features", functions, probe is None, given.modality, given.kind)
        run_rows = common.row_map(context, key, attacked_features)
        found = {}
        for name, split in self._splits(given).items():
            keys = common.example_keys(context, "adapt/defence", split.ids)
            asked = self._asked(split)
            plain = clean[name].features
            if asked is not None:  # the attack moves the image's own features, before a question is fused with them
                plain = common.image_features(context, functions, params, split.images)
            parts = []
            title = f"adapt {context.stage_run.condition}: attacking {name}"
            with Progress(title, len(split.ids), unit="images") as progress:
                rows = (split.images, plain, split.labels, keys, asked)
                for done, part in run_rows.batches((params, probe), rows):
                    parts.append(part)
                    progress.update(done)
                    context.check_stop(f"attacking {name}")
            found[name] = clean[name]._replace(attacked=np.concatenate(parts))
        return found

    def _probe(self, examples: Mapping[str, Examples]) -> Params:
        """The linear probe that cached defence examples are made against."""
        context = self.context
        fitted = fit_method(
            METHODS["lp"],
            settings_of(context.config.adapt, "lp"),
            *(examples[name] for name in SPLITS),
            classes=len(common.data(context).classes),
            seeds=[0],
            shared=common.fit_of(context.config.adapt),
        )
        return fitted.select(0, 0)["params"]["classifier"]


def _head_features(functions: Any, params: Params, images: Array, given: Features, asked: PyTree) -> Array:
    found = functions.features(params, images, given.kind)
    return jnp.asarray(common.head_input(found, asked, given.modality))
