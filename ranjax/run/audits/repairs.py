"""Repair an encoder on labelled images in one call, and load what an audit repaired.

model = rx.repair("clip/", images, labels, method="ran")
model.predict(images)
model = rx.load("audit/repaired")
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Shaped
from safetensors.numpy import load_file

from ranjax.core import files
from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.core.keys import example_keys, stream
from ranjax.core.pixels import as_float
from ranjax.core.types import Params
from ranjax.methods import linear_solution
from ranjax.methods.acquisition import vary
from ranjax.methods.attack_handle import encoder_attack
from ranjax.methods.head_inputs import Examples
from ranjax.methods.head_training import Head
from ranjax.methods.method_settings import Fit, HeadTraining, Variation
from ranjax.methods.own_head import OwnHead, fit_method
from ranjax.methods.table import METHODS, settings_of
from ranjax.models import DualEncoderFunctions, input_filter, resize_positions
from ranjax.models.checkpoints.naming import nest
from ranjax.models.heads import HEADS
from ranjax.models.towers.tower_configs import TextTransformerConfig
from ranjax.objectives.robust import class_logits
from ranjax.run.audits.audited_checkpoint import find_checkpoint, open_checkpoint
from ranjax.run.stages.encoder_export import HEAD, HEAD_FACTS
from ranjax.run.stages.evaluation.evaluated_encoder import head_of_variables
from ranjax.training.row_map import RowMap

Images = Shaped[np.ndarray, "examples height width channels"]
VALIDATION = 0.25
"""Share of the labelled images that choose, drawn by a hash of their place."""
FILTER = 1.5
"""Standard deviation in pixels of the filter in front of methods that have one, as `adapt.filter`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Repaired:
    """An encoder with a head, and a filter where it has one: a function of images to logits.

    Attributes:
      functions, params: of the encoder; the filter is among the parameters.
      head, variables: of the head.
      features: what it reads of the encoder.
      classes: names in label order.
      multi_label: whether each class has a sigmoid of its own.
      facts: how it was fitted.
    """

    functions: DualEncoderFunctions
    params: Params
    head: Head
    variables: Params
    features: str
    classes: tuple[str, ...]
    multi_label: bool = False
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    def logits(self, params: Params, images: Array) -> Float[Array, "batch classes"]:
        """Return logits of images, differentiable by images: a pure function of ``(encoder, head)`` parameters."""
        encoder, variables = params
        read = self.functions.features(encoder, as_float(images), self.features)
        return self.head.apply(variables["params"], variables["stats"], read, False)[1]

    @property
    def parameters(self) -> Params:
        """Return the parameters that `logits` takes."""
        return self.params, self.variables

    def __call__(self, images: Array | np.ndarray) -> Float[Array, "batch classes"]:
        """Return logits of images, u8 or f32 in [0, 1]."""
        return self.logits(self.parameters, jnp.asarray(images))

    def predict(self, images: Images, batch_size: int = 32) -> np.ndarray:
        """Return the label of each image, i[N], or of several labels bool[N, C]."""
        found = np.asarray(RowMap(self.logits, None, batch_size)(self.parameters, np.asarray(images)))
        return found > 0 if self.multi_label else found.argmax(1)


def load(folder: str | Path) -> Repaired:
    """Load a repaired checkpoint: ``audit/repaired``, or what ``ranjax export --method`` wrote.

    Raises:
      ConfigError: no such folder (a hub's name is told apart: nothing is downloaded), or one without a head.
      DataError: its files are damaged.
    """
    path = find_checkpoint(str(folder))
    if not (path / HEAD_FACTS).is_file():
        raise ConfigError("folder", str(folder), f"one with {HEAD_FACTS}: an encoder alone is loaded by models.load")
    said = files.read_json(path / HEAD_FACTS)
    tree = nest({tuple(name.split("/")): jnp.asarray(leaf) for name, leaf in load_file(path / HEAD).items()})
    front = tree.pop(input_filter.NAME, None)
    tree.setdefault("stats", {})
    functions, params = load_encoder(path)
    if front is not None:
        params = {**params, input_filter.NAME: front}
    classes, kind = tuple(said["classes"]), str(said["kind"])
    features = said.get("features", "embedding")
    width = functions.width_of(features)
    if kind == "linear":
        head: Head = OwnHead(linear_solution.predict, width, len(classes))
    elif kind == "prompts":
        head = OwnHead(by_prompts, width, len(classes))
    elif kind in HEADS:
        head = head_of_variables(HeadTraining(head=kind), tree, width, len(classes))
    else:
        raise ConfigError("head.json: kind", kind, f"linear, prompts, {', '.join(HEADS)}: others need their module")
    return Repaired(functions, params, head, tree, features, classes, bool(said.get("multi_label")), dict(said))


def by_prompts(variables: Params, features: Float[Array, "batch width"]) -> Float[Array, "batch classes"]:
    """Return the logits of features by the embeddings of the classes' prompts."""
    return class_logits(features, variables["prompts"], variables["scale"])


def load_encoder(path: Path, image_size: int = 0) -> tuple[DualEncoderFunctions, Params]:
    """Read an encoder of any layout, or an image tower alone; grey images are repeated for one of three channels.

    Args:
      path: of its folder or file.
      image_size: of the images it is to read; 0: its own.

    Raises:
      ConfigError, DataError: as `open_checkpoint`.
    """
    from ranjax.models import load as load_dual
    from ranjax.models.checkpoints.assemble import image_alone

    found = open_checkpoint(str(path))
    if found.texts:
        functions, params, _ = load_dual(path, grey_to_rgb=True)
    else:
        text = TextTransformerConfig(
            vocab_size=8, max_length=8, width=16, layers=1, heads=2, eos_id=2, bos_id=1, pad_id=0
        )
        functions, params, _ = image_alone(path, text=text, rngs=nnx.Rngs(0), grey_to_rgb=True)
    if image_size and image_size != functions.config.image_size:
        functions, params = resize_positions(functions, params, image_size, functions.config.max_length)
    return functions, params


def repair(
    checkpoint: str | Path,
    images: Images,
    labels: Shaped[np.ndarray, "examples *classes"] | Sequence[int],
    method: str = "ran",
    *,
    classes: Sequence[str] = (),
    seed: int = 0,
    batch_size: int = 32,
    settings: Any = None,
) -> Repaired:
    """Fit a head on a frozen encoder's features of labelled images: encode, attack, filter, fit, choose.

    Args:
      checkpoint: a folder or file that ranjax reads, a run's workdir, or package:NAME.
      images: u8[N, H, W, C] or f32 in [0, 1]; one channel is repeated for an encoder of three.
      labels: i[N] from 0, or multi-hot [N, C].
      method: a head of `METHODS`.
      classes: names in label order; by default "0", "1", ...
      seed: of what is drawn.
      batch_size: images at a time.
      settings: of the method; by default those of the table.

    Raises:
      ConfigError: an unknown method, or one that is no head, or needs what an encoder and images do not give.
      DataError: images and labels that do not fit, one class, or a class that is missing among those fitted.
    """
    entry = METHODS.resolve(method, "method")
    used = entry.settings if settings is None else settings
    if settings is None and entry.variant_of:
        used = settings_of({}, entry.name)
    attacked = getattr(used, "uses_attacked", False) or bool({"attacked", "questions"} & set(entry.needs))
    if entry.family != "head" or attacked:
        heads = [name for name, one in METHODS.items() if one.family == "head" and name != method]
        expected = "a head that needs no cached attacked features or questions, e.g. ran, robust_ridge, ridge, lp, mlp"
        raise ConfigError("method", method, expected, nearest(method, heads))
    images, labels, names = _checked(images, labels, classes)
    functions, params = load_encoder(find_checkpoint(str(checkpoint)), images.shape[1])
    if getattr(used, "filtered", False):
        params = {**params, input_filter.NAME: input_filter.gaussian(FILTER)}
    chosen = _validation(len(images), seed)
    train, validation = (images[~chosen], labels[~chosen]), (images[chosen], labels[chosen])
    train = _with_copies(*train, getattr(used, "copies", 0), seed, batch_size)
    kind = getattr(used, "features", "embedding")
    read = RowMap(lambda p, x: functions.features(p, as_float(x), kind), None, batch_size)
    examples = [Examples(np.asarray(read(params, part)), marks) for part, marks in (train, validation)]
    attack = None
    if "attack" in entry.needs:
        attack = encoder_attack(functions, params, train, validation, features=kind, seed=seed)
    shared = Fit(multi_label=labels.ndim == 2, attack=attack)
    fitted = fit_method(entry, used, *examples, classes=len(names), seeds=[seed], shared=shared)
    facts = {**fitted.facts, "method": entry.name, "validation": float(fitted.history.max())}
    return Repaired(
        functions,
        params,
        fitted.head,
        fitted.select(0, 0),
        kind,
        names,
        labels.ndim == 2,
        {**facts, "notes": fitted.notes},
    )


def _checked(
    images: Images, labels: Any, classes: Sequence[str]
) -> tuple[Images, Shaped[np.ndarray, "examples *classes"], tuple[str, ...]]:
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 4 or len(images) != len(labels):
        raise DataError(f"images {images.shape} and labels {labels.shape}: [N, H, W, C] and N labels are needed")
    if images.dtype.kind == "f" and (not np.isfinite(images).all() or images.min() < 0 or images.max() > 1):
        raise DataError(f"images hold {images.min():g} to {images.max():g}: f32 in [0, 1], or uint8, is needed")
    if labels.ndim == 1:
        labels = labels.astype(np.int32)
        if labels.min() < 0:
            raise DataError(f"labels hold {labels.min()}: leave out images without a label")
    count = labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1
    if count < 2 or (labels.ndim == 1 and len(np.unique(labels)) < 2):
        raise DataError("the labels hold one class: there is nothing to tell apart")
    names = tuple(classes) or tuple(str(i) for i in range(count))
    if len(names) < count:
        raise ConfigError("classes", names, f"at least {count} names, as labels hold {count} classes")
    return images, labels.astype(np.float32) if labels.ndim == 2 else labels, names


def _validation(count: int, seed: int) -> Shaped[np.ndarray, " examples"]:
    """Return which images choose: a share by a hash of their place, two at least."""
    drawn = [hashlib.blake2b(f"repair:{seed}:{i}".encode(), digest_size=8).digest() for i in range(count)]
    order: Int[np.ndarray, " examples"] = np.asarray(sorted(range(count), key=drawn.__getitem__), np.int64)
    found = np.zeros(count, bool)
    found[order[: max(2, round(VALIDATION * count))]] = True
    return found


def _with_copies(images: Images, labels: np.ndarray, copies: int, seed: int, batch_size: int) -> tuple[np.ndarray, Any]:
    parts = [images]
    run = RowMap(lambda _, rows: vary(as_float(rows[0]), rows[1], Variation()), None, batch_size)
    for number in range(1, copies + 1):
        keys: jax.Array = example_keys(stream(seed, "repair/copies"), [f"{i}/{number}" for i in range(len(images))])
        found = np.asarray(run((), (images, keys)))
        parts.append(found if images.dtype.kind == "f" else np.rint(255 * found).astype(np.uint8))
    return np.concatenate(parts), np.concatenate([labels] * (1 + copies))
