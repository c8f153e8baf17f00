"""The encoder of one upstream condition, and each method as it would be deployed, to be evaluated."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, PyTree, Shaped

from ranjax.core import precision
from ranjax.core.errors import DataError
from ranjax.core.keys import stream
from ranjax.core.pixels import as_float
from ranjax.core.types import Params
from ranjax.evaluation import zero_shot
from ranjax.evaluation.questions import BOTH, fused_width
from ranjax.methods import linear_solution
from ranjax.methods.head_training import Head, head_of_training, predict
from ranjax.methods.method_settings import TTC, HeadTraining, TowerTraining
from ranjax.methods.own_head import OwnHead, check_predict
from ranjax.methods.table import METHODS
from ranjax.methods.test_time import counterattack
from ranjax.methods.tower_methods import FROZEN, encoder_of, head_of
from ranjax.models.heads import INPUT, StandardisedHead
from ranjax.run.context import Context
from ranjax.run.stages import inputs
from ranjax.run.stages.adapt_outputs import load_heads, load_tower
from ranjax.run.stages.cached_features import settings_given
from ranjax.run.stages.condition_encoders import condition_encoder, methods_of
from ranjax.run.stages.inputs import Features
from ranjax.training.row_map import RowFunction, RowMap

_KEPT = 6
"""Arrays of features that are kept."""
Images = Shaped[np.ndarray, "examples height width channels"]
"""u8, or f32 in [0, 1]."""
DeployedFunction = Callable[..., Array]
"""``((encoder, head), images) -> logits``; see `EvaluatedEncoder.deployed`."""


@dataclass(frozen=True, eq=False)
class Deployed:
    """The deployed form of one method: heads on the frozen encoder, an encoder of its own with or without a head, or
    neither.

    Attributes:
      settings: of the method, as the config has them.
      head: with `apply`, or None where the classes' prompts classify.
      variables: {"params", "stats"} of the head with a leading axis of seeds; None without a head.
      encoders: what was trained of the encoder, with a leading axis of seeds; None: the frozen encoder.
      modality: of a set of questions, what it is given (`questions.BOTH`, ...); "": the image alone, as elsewhere.
      features: what the head reads of an image, `DualEncoderFunctions.features`.
    """

    settings: Any
    head: Head | None = None
    variables: Params = None
    encoders: Params = None
    modality: str = ""
    features: str = "embedding"

    @property
    def tunes(self) -> bool:
        """Return True if each of its fits has an image tower of its own, not the frozen one, at most filtered."""
        return self.encoders is not None and isinstance(self.settings, TowerTraining)

    @property
    def random(self) -> bool:
        """Return True if it answers by a draw, so that an attack has to go through several."""
        return isinstance(self.settings, TTC)

    @property
    def seeds(self) -> int:
        """Return the number of its fits."""
        return 1 if self.random else int(jax.tree.leaves((self.variables, self.encoders))[0].shape[0])

    def one(self, seed: int) -> Params:
        """Return the head's variables of one seed."""
        return jax.tree.map(lambda x: np.asarray(x)[seed], self.variables)

    def encoder(self, params: Params, seed: int) -> Params:
        """Return the encoder's parameters of one seed."""
        if self.encoders is None:
            return params
        scope = self.settings if isinstance(self.settings, TowerTraining) else FROZEN
        return encoder_of(scope, params, {"encoder": jax.tree.map(lambda x: np.asarray(x)[seed], self.encoders)})


def _deploy_head(
    name: str,
    settings: Any,
    variables: dict[str, PyTree],
    functions: Any,
    classes: int,
    questions: bool,
) -> Deployed:
    """Return a head on frozen features.

    Raises:
      DataError: it takes other features, or gives other classes, than the encoder and the task.
    """
    filters, modality = variables.pop("encoder", None), getattr(settings, "modality", BOTH) if questions else ""
    kind = getattr(settings, "features", "embedding")
    width, own_functions = functions.width_of(kind), METHODS[name].functions
    width = fused_width(width, modality) if modality else width
    if own_functions is None or own_functions[1] is linear_solution.predict:
        own = variables["params"]["classifier"]
        found = (own["kernel" if "kernel" in own else "down"].shape[-2], own["bias"].shape[-1])
        if found != (width, classes):
            raise DataError(
                f"the head of {name!r} takes {found[0]} features and gives {found[1]} classes; the encoder gives "
                f"{width}, and the task has {classes}: the adapt stage is of another encoder, run it again"
            )
    head: Head
    if own_functions is None:
        head = head_of_variables(settings, variables, width, classes)
    else:
        head = brought = OwnHead(own_functions[1], width, classes)
        check_predict(name, brought, jax.tree.map(lambda leaf: np.asarray(leaf)[0], variables["params"]))
    return Deployed(settings, head, variables, filters, modality, kind)


def head_of_variables(settings: HeadTraining, variables: Params, width: int, classes: int) -> Head:
    """Return the head that such variables are of: as wide as it was trained, standardised where it was."""
    params = variables["params"]
    hidden = int(params["expand"]["kernel"].shape[-1]) if "expand" in params else 0
    head = head_of_training(dataclasses.replace(settings, most_hidden=hidden), width, classes)
    return StandardisedHead(head) if INPUT in variables["stats"] else head


class EvaluatedEncoder:
    """One upstream condition: its encoder, its methods, and figures that several parts need, each found once."""

    def __init__(self, context: Context, folder: str, condition: str):
        self.context, self.folder, self.condition = context, folder, condition
        self.config = context.config.evaluate
        self.data = inputs.data(context)
        # Whether any number of classes may be right, each by the sign of its logit.
        self.classes, self.multi_label = self.data.classes, self.data.multi_label
        self.functions, self.params = condition_encoder(context, folder)
        width = self.functions.config.embed_dim
        place = context.folder_of(f"adapt/{folder}")
        heads, classes = load_heads(place), len(self.classes)
        self.methods: dict[str, Deployed] = {}
        for name, method in methods_of(context, folder).items():
            asks = self.data.has_questions
            settings = settings_given(context.config.adapt, name, asks)
            self.methods[name] = Deployed(settings)
            if method.family == "head":
                self.methods[name] = _deploy_head(name, settings, heads[name], self.functions, classes, asks)
            elif method.family == "tower":
                found = load_tower(place, name)
                head, encoders = head_of(settings, width, classes), found["encoder"] or None
                self.methods[name] = Deployed(settings, head, found.get("head"), encoders)
        self._features: dict[str, np.ndarray] = {}
        self._read: dict[tuple[int, str, bool], tuple[Images, Features]] = {}

    @property
    def prompted(self) -> bool:
        """Return whether the classes' prompts classify, too: they compete for one label, and need the text tower."""
        return self.config.texts and not self.multi_label

    def right(
        self, logits: Float[np.ndarray, "*heads examples classes"], labels: np.ndarray
    ) -> Bool[np.ndarray, "*heads examples"]:
        """Return True where the top class is the label, or every class is on its side of 0."""
        if self.multi_label:
            return ((logits > 0) == (labels > 0.5)).all(-1)
        return logits.argmax(-1) == labels

    def single_labels(self, labels: np.ndarray) -> Int32[np.ndarray, "examples"]:
        """Return the label of each example of the task; -1 where it has none or several."""
        if not self.multi_label:
            return labels
        return np.where(labels.sum(1) == 1, labels.argmax(1), -1).astype(np.int32)

    def read(self, method: str, images: Images) -> Features:
        """Return what a method's head reads of images: of the frozen encoder, behind its filter where it has one.

        Kept for the few arrays of images that were asked for last, as methods that read the same follow each other.
        """
        chosen = self.methods[method]
        key = (id(images), chosen.features, chosen.encoders is not None)
        if key not in self._read:
            params = chosen.encoder(self.params, 0)
            found = inputs.image_features(self.context, self.functions, params, images, chosen.features)
            for oldest in list(self._read)[: max(0, len(self._read) - _KEPT + 1)]:
                del self._read[oldest]
            # With the images themselves, as another array may get the name of one that is gone.
            self._read[key] = images, found
        return self._read[key][1]

    def image_features(self, images: Images) -> Features:
        """Return embeddings of images by the frozen encoder."""
        return inputs.image_features(self.context, self.functions, self.params, images)

    def task_features(self, split: str) -> Features:
        """Return embeddings of the split's examples of the task."""
        if split not in self._features:
            images = self.data.task_split(split).images
            self._features[split] = self.image_features(images)
        return self._features[split]

    def records(self, split: str, task: bool = True) -> list[Mapping[str, Any]]:
        """Return the known facts of each example (`group` of the prepared records), of the task's examples or
        of all.
        """
        source = self.data.prepared.splits[split]
        found = self.context.memoize(("groups", split), lambda: source.column("group"))
        return [record for record, kept in zip(found, self.of_task(split)) if kept or not task]

    def of_task(self, split: str) -> Bool[np.ndarray, "examples"]:
        """Return True for examples of the task: with one label, or of a multi-label task with every class known."""
        return self.data.known(split) if self.multi_label else self.data.split(split).labels >= 0

    def question_features(self, split: str, examples: inputs.Split) -> Features | None:
        """Return the embedding of the question about each image of a split; None: no set of questions.

        Raises:
          DataError: the heads were trained with questions, and this split has none.
        """
        if not self.data.has_questions:
            return None
        if examples.questions is None:
            raise DataError(f"split {split!r} asks no questions about its images, which the adapted heads were given")
        return inputs.question_features(self.context, self.functions, self.params, examples.questions)

    def extra_input(self, method: str, questions: Features | None) -> Features | None:
        """Return the further input of `deployed(method)` besides images: the questions, if it is given them."""
        chosen = self.methods.get(method)
        return questions if chosen is not None and chosen.modality else None

    @functools.cached_property
    def class_embeddings(self) -> Float[Array, "classes dim"]:
        """Return the prompt ensemble of each class."""
        return inputs.class_embeddings(self.context, self.functions, self.params)

    def zero_shot_logits(
        self, features: Features, classes: Float[Array, "classes dim"] | None = None
    ) -> Float[np.ndarray, "examples classes"]:
        """Return the logits of image features by the class embeddings, or by `classes`."""
        chosen = self.class_embeddings if classes is None else classes
        scale = inputs.logit_scale(self.functions, self.params)
        return np.asarray(precision.exact(zero_shot.logits)(features, chosen, scale))

    def some(self, split: str, count: int) -> inputs.Split:
        """Return the first `count` examples of the task (0: all)."""
        examples = self.data.task_split(split)
        return examples.take(np.arange(min(count or len(examples.ids), len(examples.ids))))

    def outputs(
        self,
        method: str,
        images: Images,
        features: Features | None = None,
        seed: int | None = None,
        questions: Features | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (z, logits) of images, [S, N, ...] of all seeds or [N, ...] of one.

        Args:
          method: its name.
          images: u8 or f32 in [0, 1].
          features: embeddings by the frozen encoder, where they are known.
          seed: None: all.
          questions: their embeddings, of a set of questions.
        """
        chosen = self.methods[method]
        questions = self.extra_input(method, questions)
        if seed is None and (chosen.head is None or chosen.tunes):
            found = [self.outputs(method, images, features, one, questions) for one in range(chosen.seeds)]
            return np.stack([z for z, _ in found]), np.stack([logits for _, logits in found])
        if chosen.random:
            functions, deployed = self.functions, self.deployed(method)

            def both(params: Params, images: Array, keys: Array) -> tuple[Array, Array]:
                return functions.image_features(params[0], images), deployed(params, images, keys)

            z, logits = self._drawn("drawn", method, images, both)
            return z, logits
        if chosen.tunes:
            assert seed is not None
            features = inputs.image_features(self.context, self.functions, chosen.encoder(self.params, seed), images)
        elif features is None or chosen.encoders is not None or chosen.features != "embedding":
            features = self.read(method, images)
        if chosen.head is None:
            return features, self.zero_shot_logits(features)
        variables, leading = (chosen.variables, 1) if seed is None else (chosen.one(seed), 0)
        given = inputs.head_input(features, questions, chosen.modality)
        z, logits = predict(chosen.head, variables, given, leading=leading)
        return np.asarray(z), np.asarray(logits)

    def pushed(self, method: str, images: Images) -> Bool[np.ndarray, "examples"]:
        """Return True where the counterattack of a random method moves an image, in the draw that `outputs` takes."""
        functions, settings = self.functions, self.methods[method].settings

        def moved(params: Params, images: Array, keys: Array) -> Array:
            features = functools.partial(functions.image_features, params[0])
            return counterattack(features, images, keys, settings).pushed

        return np.asarray(self._drawn("pushed", method, images, moved))

    def _drawn(self, name: str, method: str, images: Images, fn: Callable[[Params, Array, Array], PyTree]) -> PyTree:
        """Return ``fn(parameters, images, keys)`` of one draw of a random method; that of a row depends on its place
        alone.
        """

        def rows_of(params: Params, rows: tuple[Array, Array]) -> PyTree:
            images, keys = rows
            return fn(params, as_float(images), keys)

        keys = jax.random.split(stream(self.context.config.seed, f"evaluate/{method}"), len(images))
        run = inputs.row_map(self.context, (name, self.functions, method), rows_of)
        return run(self.parameters(method), (images, keys))

    def deployed(self, method: str) -> DeployedFunction:
        """Return the method as ``((encoder, head), images) -> logits``: one object a head shape, so it compiles once.

        A random method takes keys key[B] as well; one that is given questions, ``((encoder, head), questions)`` as
        parameters.
        """
        functions, chosen = self.functions, None if method == "zero_shot" else self.methods[method]
        if chosen is None or chosen.head is None:
            settings = chosen.settings if chosen is not None and chosen.random else None

            def by_text(params: Params, images: Array, *keys: Array) -> Array:
                encoder, classes = params
                features = functools.partial(functions.image_features, encoder)
                if settings is not None:
                    images = counterattack(features, images, keys[0], settings).images
                return zero_shot.logits(features(images), classes, functions.logit_scale(encoder))

            name = "zero_shot" if settings is None else method
            return self.context.memoize(("deployed", functions, name), lambda: by_text)
        head, modality, kind = chosen.head, chosen.modality, chosen.features

        def by_head(params: Params, images: Array) -> Array:
            (encoder, own), questions = params if modality else (params, None)
            given = inputs.head_input(functions.features(encoder, images, kind), questions, modality)
            return head.apply(own["params"], own["stats"], jnp.asarray(given), False)[1]

        return self.context.memoize(("deployed", functions, head, modality, kind), lambda: by_head)

    def parameters(self, method: str, seed: int = 0) -> Params:
        """Return the parameters that `deployed(method)` takes."""
        if method == "zero_shot":
            return self.params, self.class_embeddings
        chosen = self.methods[method]
        encoder = chosen.encoder(self.params, seed)
        return encoder, self.class_embeddings if chosen.head is None else chosen.one(seed)

    def map_rows(self, fn: RowFunction, batch_size: int) -> RowMap:
        """Return `fn` over rows, on all devices of the mesh."""
        return RowMap(fn, self.context.mesh, batch_size, self.context.poll)
