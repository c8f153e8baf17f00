"""Questions with their images as the features of heads: by both embeddings and their product, or by co-attention."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32, PyTree, Shaped

from ranjax.attacks import pgd
from ranjax.attacks.text.substitution import Substitution, needed_length
from ranjax.core.pixels import as_float
from ranjax.core.types import Params
from ranjax.evaluation import questions
from ranjax.evaluation.questions import BOTH, Questions
from ranjax.methods.attack_handle import EncoderAttack, Target
from ranjax.methods.fusion_training import Asked, FittedFusion, fit_fusion
from ranjax.methods.head_inputs import Examples
from ranjax.models.coattention import CoAttention
from ranjax.models.dual_encoder import DualEncoderFunctions
from ranjax.run.context import Context
from ranjax.run.stages import inputs
from ranjax.run.stages.cached_features import SPLITS, behind_filter
from ranjax.run.stages.evaluation.evaluated_encoder import EvaluatedEncoder
from ranjax.run.stages.word_candidates import vocabulary
from ranjax.training.row_map import RowFunction


@dataclass(frozen=True)
class Reader:
    """What makes features of images and questions, end to end and differentiable; hashable.

    Attributes:
      functions: of the dual encoder.
      modality: that the product fusion keeps, `questions.BOTH`, `IMAGE` or `QUESTION`.
      fusion: co-attention, whose vector stands before the product of embeddings; None: that product alone.
    """

    functions: DualEncoderFunctions
    modality: str = BOTH
    fusion: CoAttention | None = None

    def __call__(
        self,
        shared: tuple[Params, Params],
        images: Float[Array, "batch height width channels"],
        tokens: Int[Array, "batch length"],
        mask: Bool[Array, "batch length"],
        embeddings: Float[Array, "batch length states"] | None = None,
    ) -> Float[Array, "batch features"]:
        """Return the features of questions about images.

        Args:
          shared: the encoder's parameters, with a filter where there is one, and the variables of the fusion, or None.
          images: in [0, 1].
          tokens, mask: of the questions.
          embeddings: rows of the token table that stand in for the tokens', for gradients by them.
        """
        encoder, variables = shared
        image = self.functions.image_features(encoder, images)
        text = self.functions.text_features(encoder, tokens, mask, embeddings)
        product = questions.fuse(image, text, self.modality)
        if self.fusion is None:
            return product
        places = self.functions.image_tokens(encoder, images)
        states = self.functions.text_tokens(encoder, tokens, mask, embeddings)
        fused = self.fusion.apply(variables["params"], variables["stats"], places, states, mask)
        return jnp.concatenate([fused, product], axis=1)


class SplitQuestions(NamedTuple):
    """The questions of a split.

    Attributes:
      asked: about images by row.
      labels: index of each answer among those of training; -1, which is never right: one that training never gave.
      images: u8 of the split, one for several questions.
      ids: of the images.
      wording: row of each question in the tokens that all splits share.
    """

    asked: Questions
    labels: Int32[np.ndarray, "questions"]
    images: Shaped[np.ndarray, "images height width channels"]
    ids: list[str]
    wording: Int32[np.ndarray, "questions"]

    def take(self, rows: Int[np.ndarray, " rows"]) -> SplitQuestions:
        """Return some of the questions, about the same images."""
        asked = Questions(
            self.asked.example[rows],
            *([part[int(i)] for i in rows] for part in (self.asked.texts, self.asked.answers, self.asked.kinds)),
        )
        return self._replace(asked=asked, labels=self.labels[rows], wording=self.wording[rows])


class FusedQuestions:
    """The questions of all splits of one encoder, and features of them, each kind made once.

    Args:
      encoder: the condition.
      asked: the questions by split, "adapt" and "validation" among them.
      classes: the answers that training gives.
    """

    def __init__(self, encoder: EvaluatedEncoder, asked: Mapping[str, Questions], classes: list[str]) -> None:
        self.context: Context = encoder.context
        self.functions, self.config, self.classes = encoder.functions, encoder.config, classes
        self._params = encoder.params
        data, noise = encoder.data, encoder.context.config.noise
        wordings = {text: i for i, text in enumerate(dict.fromkeys(t for one in asked.values() for t in one.texts))}
        tokens = data.encode(list(wordings))
        # Room for what a replaced word may add: an attacked question passes through the same fusion.
        lexicon = self.context.memoize("lexicon", lambda: vocabulary(data, noise).table)
        length = needed_length(tokens.mask, lexicon, Substitution(max_words=self.config.question_words))
        self.tokens, self.mask, self.words = (x[:, :length] for x in (tokens.ids, tokens.mask, tokens.words))
        self.lexicon = lexicon
        self.splits: dict[str, SplitQuestions] = {}
        for name, one in asked.items():
            labels = np.array([classes.index(a) if a in classes else -1 for a in one.answers], np.int32)
            wording = np.array([wordings[text] for text in one.texts], np.int32)
            split = data.split(name)
            self.splits[name] = SplitQuestions(one, labels, split.images, split.ids, wording)
        self._states: dict[bool, dict[str, Asked]] = {}

    def front(self, filtered: bool) -> Params:
        """Return the encoder's parameters, behind the filter or not."""
        return behind_filter(self.context.config.adapt, self._params) if filtered else self._params

    def known(self, split: str) -> Int[np.ndarray, " rows"]:
        """Return the questions whose answer training gave: no other can help to choose anything."""
        return np.flatnonzero(self.splits[split].labels >= 0)

    def products(self, filtered: bool, modality: str) -> tuple[Reader, dict[str, Examples]]:
        """Return the product fusion and its features by split."""
        front, reader = self.front(filtered), Reader(self.functions, modality)
        texts = inputs.row_map(self.context, ("text_features", self.functions), self._text_features)
        of_wordings = np.asarray(texts(front, (self.tokens, self.mask)))
        found = {}
        for name, split in self.splits.items():
            images = inputs.image_features(self.context, self.functions, front, split.images)
            fused = questions.fuse(images[split.asked.example], of_wordings[split.wording], modality)
            found[name] = Examples(np.asarray(fused), split.labels)
        return reader, found

    def coattended(self, filtered: bool, seed: int) -> tuple[Reader, Params, dict[str, Examples]]:
        """Return co-attention trained with a seed, its variables, and its features by split."""
        states = self._asked(filtered)
        fitted: FittedFusion = fit_fusion(
            states["adapt"], self._known(states["validation"]), len(self.classes), self.config.coattention, seed
        )
        accuracy = fitted.history[fitted.chosen]
        self.context.say(f"  co-attention, seed {seed}: validation accuracy {accuracy:.3f}, epoch {fitted.chosen + 1}")
        products = self.products(filtered, BOTH)[1]
        found = {
            name: Examples(np.concatenate([fitted.features(asked), products[name].features], axis=1), asked.labels)
            for name, asked in states.items()
        }
        return Reader(self.functions, fusion=fitted.fusion), fitted.variables, found

    def handle(self, reader: Reader, shared: tuple[Params, Params]) -> EncoderAttack:
        """Return what attacks the labelled images through the fusion and a head, for `Fit.attack`."""
        config, targets = self.context.config.adapt, {}
        for name, part in SPLITS.items():
            split = self.splits[name].take(self.known(name))
            # One array a question, whose rows can be taken as those of images are.
            texts = np.stack(self.texts(split), axis=1, dtype=np.int32)
            targets[part] = Target(split.images[split.asked.example], split.labels, self.keys(split), texts)

        def encode(shared: tuple[Params, Params], images: Array, texts: Array) -> Array:
            return reader(shared, images, texts[:, 0], texts[:, 1] != 0)

        def rows(key: Hashable, fn: RowFunction) -> RowFunction:
            return inputs.row_map(self.context, ("questions", key), fn)

        settings = pgd.PGD(config.epsilon, config.step, config.attack_steps)
        return EncoderAttack(encode, shared, targets, settings, rows, reader)

    def attacked(
        self, reader: Reader, shared: tuple[Params, Params], clean: Mapping[str, Examples]
    ) -> dict[str, Examples]:
        """Return the examples of adaptation with features of attacked images, driven away from the clean ones."""
        config = self.context.config.adapt
        settings = pgd.PGD(config.epsilon, config.step, config.attack_steps)

        def away(shared: PyTree, rows: PyTree) -> Array:
            raw, clean, keys, (tokens, mask) = rows

            def distance(images: Array) -> Array:
                return jnp.sum((reader(shared, images, tokens, mask) - clean) ** 2, axis=-1)

            return reader(shared, pgd.pgd(distance, as_float(raw), keys, settings).images, tokens, mask)

        run = inputs.row_map(self.context, ("attacked questions", reader), away)
        found = {}
        for name in SPLITS:
            split = self.splits[name]
            rows = (split.images[split.asked.example], clean[name].features, self.keys(split), self.texts(split))
            self.context.check_stop(f"attacking the questions of {name}")
            found[name] = clean[name]._replace(attacked=run(shared, rows))
        return found

    def texts(self, split: SplitQuestions) -> tuple[np.ndarray, np.ndarray]:
        """Return tokens and mask of each question."""
        return self.tokens[split.wording], self.mask[split.wording]

    def keys(self, split: SplitQuestions) -> Array:
        """Return a random key a question, named by its image and its wording."""
        names = [f"{split.ids[row]}/{text}" for row, text in zip(split.asked.example, split.asked.texts)]
        return inputs.example_keys(self.context, "evaluate/questions", names)

    def _known(self, asked: Asked) -> Asked:
        rows = np.flatnonzero(np.asarray(asked.labels) >= 0)
        return asked._replace(image=asked.image[rows], wording=asked.wording[rows], labels=asked.labels[rows])

    def _asked(self, filtered: bool) -> dict[str, Asked]:
        """Return the towers' states of all images and wordings."""
        if filtered not in self._states:
            front, functions = self.front(filtered), self.functions
            images = inputs.row_map(
                self.context, ("image_tokens", functions), lambda p, x: functions.image_tokens(p, as_float(x))
            )
            texts = inputs.row_map(
                self.context, ("text_tokens", functions), lambda p, rows: functions.text_tokens(p, *rows)
            )
            states = texts(front, (self.tokens, self.mask))
            self._states[filtered] = {
                name: Asked(
                    images(front, split.images),
                    states,
                    self.mask,
                    split.asked.example.astype(np.int32),
                    split.wording,
                    split.labels,
                )
                for name, split in self.splits.items()
            }
        return self._states[filtered]

    def _text_features(self, params: Params, rows: tuple[Array, Array]) -> jax.Array:
        return self.functions.text_features(params, *rows)
