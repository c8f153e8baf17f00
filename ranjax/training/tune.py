"""Fine-tuning that reaches into the image tower: every method as one loop, told apart by scope, head and objective.

    found = tune(functions, params, TUNED["at_lora"], train, validation, task, seed=0, settings=Tune())
    encoder = encoder_of(TUNED["at_lora"], params, found.trained)

Images pass through the tower at every step, and attacked ones are made on the fly against the tower and the head as
they stand. What is trained is a small tree of its own: LoRA adapters, or the image tower with its projection.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ranjax.attacks import image as image_attacks
from ranjax.attacks import losses
from ranjax.errors import ConfigError, DataError
from ranjax.keys import stream
from ranjax.models import input_filter, lora
from ranjax.models.heads import HEADS, LinearHead, ResidualHead
from ranjax.models.trainable import combine, describe_adapters, describe_trainable, partition, select
from ranjax.objectives import classification, rectification, robust
from ranjax.objectives.rectification import Weights
from ranjax.training.methods import METHODS
from ranjax.training.optimizer import plain_promotion
from ranjax.training.pretrain import as_float

IMAGE_TOWER = (r"^vision/", r"^visual_projection/")
LORA_TARGETS = (r"^vision/.*blocks/.*/(attention|mlp)/[^/]+/kernel$",)


@dataclass(frozen=True)
class Tuned:
    """What a method trains, and for what.

    Attributes:
      scope: "head" (the encoder stays as it is), "lora" (adapters on attention and MLP of the image tower) or "full"
        (the image tower).
      head: "linear", "residual" (NMTune's), "narrow" (its light form), or "prompts": the classes' texts, which stay as
        they are.
      objective: "clean" (cross-entropy), "at" (on attacked images), "ran" (rectification and defence), "tecoa", "fare"
        or "pmg_aft".
      source: the paper.
      filtered: whether a fixed low-pass filter stands in front of the tower (:mod:`ranjax.models.input_filter`).
      without: a term of RAN that is left out.
    """

    scope: str
    head: str
    objective: str
    source: str
    filtered: bool = False
    without: str = ""

    @property
    def attacks(self) -> bool:
        """Whether it trains on attacked images."""
        return self.objective != "clean"


TUNED: dict[str, Tuned] = {
    "lora": Tuned("lora", "linear", "clean", "Hu et al. 2022, arXiv 2106.09685"),
    "fft": Tuned("full", "linear", "clean", "full fine-tuning"),
    "at_lora": Tuned("lora", "linear", "at", "Madry et al. 2018, arXiv 1706.06083, in LoRA's scope"),
    "ran_lora": Tuned("lora", "linear", "ran", "this project's reconstruction, in LoRA's scope", filtered=True),
    "ran_live": Tuned("head", "narrow", "ran", "RAN's head, its defence examples made on the fly against both", True),
    "tecoa": Tuned("full", "prompts", "tecoa", "Mao et al. 2023, arXiv 2212.07016"),
    "fare": Tuned("full", "prompts", "fare", "Schlarmann et al. 2024, arXiv 2402.12336"),
    "pmg_aft": Tuned("full", "prompts", "pmg_aft", "Wang et al. 2024, arXiv 2401.04350"),
}

FROZEN = Tuned("head", "linear", "clean", "")
"""The encoder as it is, or at most behind a filter."""


@dataclass(frozen=True)
class Tune:
    """Settings of `tune`.

    Attributes:
      epochs, batch_size: each epoch shuffles anew and drops its last N mod batch_size images; the batch is cut at N.
      learning_rate: AdamW's for the whole tower, lora_rate: for adapters, head_rate: for heads; a cosine takes them to
        0.
      weight_decay: AdamW's.
      rank: of LoRA.
      attack: of the images made on the fly.
      weights: of RAN's terms.
      pull: weight of PMG-AFT's two pulls.
      sigma: of the filter in front of the tower in pixels, for methods that are `filtered`; 0: none.
      top_k: singular values that count as dominant.
      trainable: regular expressions on the paths of what scope "full" trains.
      targets: regular expressions on the paths of the kernels that get an adapter in scope "lora".
    """

    epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 1e-4
    lora_rate: float = 1e-3
    head_rate: float = 1e-2
    weight_decay: float = 1e-4
    rank: int = 2
    attack: image_attacks.PGD = field(default_factory=lambda: image_attacks.PGD("4/255", "2/255", 2, keep="last"))
    weights: Weights = METHODS["ran"].weights
    top_k: int = 1
    trainable: tuple[str, ...] = IMAGE_TOWER
    targets: tuple[str, ...] = LORA_TARGETS
    pull: float = 1.0
    sigma: float = 1.5


class Images(NamedTuple):
    """A split: images u8[N, H, W, C]; labels i32[N]; original f32[N, D], their embeddings before any tuning."""

    images: np.ndarray
    labels: np.ndarray
    original: np.ndarray


class Task(NamedTuple):
    """The classes: prompts f32[C, D], text embeddings of each; scale f32[], the logit scale."""

    prompts: Any
    scale: Any


class Outcome(NamedTuple):
    """What `tune` found.

    Attributes:
      trained: {"encoder": adapters or arrays (none in scope "head"), "head": {"params", "stats"} (absent for prompts)},
        of the best epoch; the filter, which is fixed, stands in "encoder" where there is one.
      chosen: that epoch, from 0.
      history: validation accuracy by epoch: the mean of clean and attacked where the method trains on attacked images.
      losses: mean training loss by epoch.
      share: trained numbers, those of the head included, as a share of the encoder's.
    """

    trained: dict[str, Any]
    chosen: int
    history: list[float]
    losses: list[float]
    share: float


def head_of(method: Tuned, width: int, classes: int) -> LinearHead | ResidualHead | None:
    """The head that is trained, or None where prompts classify."""
    return HEADS[method.head](width, classes) if method.head in HEADS else None


def encoder_of(method: Tuned, params: Mapping[str, Any], trained: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder's parameters with what was trained in them and the filter in front; differentiable."""
    parts = dict(trained["encoder"])
    front = {input_filter.NAME: parts.pop(input_filter.NAME)} if input_filter.NAME in parts else {}
    if method.scope == "head":
        return {**params, **front}
    if method.scope == "lora":
        return {**lora.apply(params, parts), **front}
    return {**combine(params, parts), **front}


def describe_scope(method: Tuned, params: Mapping[str, Any], settings: Tune) -> str:
    """A table of what a method trains of the encoder (its head not counted): arrays, numbers, share, first names.

    Raises:
      ConfigError: patterns that meet nothing, or a rank that does not fit.
    """
    if method.scope == "lora":
        pattern = "|".join(settings.targets)
        shapes = jax.eval_shape(lambda p: lora.add(p, settings.rank, jax.random.key(0), pattern), dict(params))
        return describe_adapters(params, shapes)
    patterns = settings.trainable if method.scope == "full" else ()
    return describe_trainable(params, select(params, patterns, "adapt.tune_trainable"))


def tune(
    functions: Any,
    params: Mapping[str, Any],
    method: Tuned,
    train: Images,
    validation: Images,
    task: Task,
    *,
    seed: int,
    settings: Tune,
    check_stop: Callable[[str], None] = lambda where: None,
) -> Outcome:
    """Trains one method with one seed and keeps its best epoch by the validation split.

    Deterministic in its arguments. With several devices visible to ``jax.jit`` it uses the first; a tower that needs
    more is pre-trained, not tuned.

    Raises:
      DataError: a class without training images, a validation split with one class only, embeddings that are not
        finite, a training split of one image, or a loss that is no longer finite (names the epoch).
      ConfigError: a batch of fewer than two images.
    """
    classes = len(task.prompts)
    _check(train, validation, classes, settings)
    settings = replace(settings, batch_size=min(settings.batch_size, len(train.labels)))
    program = _program(functions, method, settings, classes, len(train.labels))
    key = stream(seed, "adapt/tune")
    trained, opt_state = program.start(params, key)
    best: tuple[float, float, int, Any] = (-np.inf, -np.inf, -1, None)
    history, means = [], []
    for epoch in range(settings.epochs):
        check_stop(f"tuning, epoch {epoch + 1} of {settings.epochs}")
        order = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(len(train.labels))
        summed = []
        for step, start in enumerate(range(0, len(order) - settings.batch_size + 1, settings.batch_size)):
            rows = order[start : start + settings.batch_size]
            batch = Images(*(x[rows] for x in train))
            drawn = jax.random.fold_in(jax.random.fold_in(key, epoch), step)
            trained, opt_state, loss = program.step(params, task, trained, opt_state, batch, drawn)
            summed.append(loss)
        means.append(float(np.mean(jax.device_get(summed))))
        if not np.isfinite(means[-1]):
            raise DataError(f"the loss is {means[-1]} in epoch {epoch + 1}: lower adapt.tune_learning_rate")
        accuracy, loss = _judged(program, params, task, trained, validation, jax.random.fold_in(key, 2**20), settings)
        history.append(accuracy)
        if (accuracy, -loss) > best[:2]:
            best = (accuracy, -loss, epoch, jax.device_get(trained))
    total = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(params))
    share = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(_moving(best[3]))) / total
    return Outcome(best[3], best[2], history, means, share)


def _judged(
    program: _Program, params: Any, task: Task, trained: Any, split: Images, key: jax.Array, settings: Tune
) -> tuple[float, float]:
    """Accuracy and loss on a split, in batches of one shape: memory does not grow with the split."""
    count = len(split.labels)
    keys = jax.random.split(key, count)
    right, loss, sides = 0, 0.0, 1
    for start in range(0, count, settings.batch_size):
        rows = np.arange(start, start + settings.batch_size)
        index = np.minimum(rows, count - 1)
        batch = Images(*(x[index] for x in split))
        found = jax.device_get(program.judge(params, task, trained, batch, keys[index], rows < count))
        right, loss, sides = right + int(found[0]), loss + float(found[1]), int(found[2])
    return right / (count * sides), loss / (count * sides)


def _check(train: Images, validation: Images, classes: int, settings: Tune) -> None:
    absent = np.flatnonzero(np.bincount(train.labels, minlength=classes) == 0)
    if absent.size:
        raise DataError(f"class {absent[0]} has no training examples")
    if len(set(validation.labels.tolist())) < 2:
        raise DataError(f"validation holds class {validation.labels[0]} only, at least two classes are needed")
    for name, split in (("train", train), ("validation", validation)):
        bad = np.flatnonzero(~np.isfinite(split.original).all(axis=1))
        if bad.size:
            raise DataError(f"{name} features hold a number that is not finite (row {bad[0]}; {bad.size} rows in all)")
    if len(train.labels) < 2:
        raise DataError("train has 1 example, at least 2 are needed")
    if settings.batch_size < 2:
        raise ConfigError("adapt.tune_batch_size", settings.batch_size, "at least 2")


class _Program(NamedTuple):
    start: Callable[..., Any]
    step: Callable[..., Any]
    judge: Callable[..., Any]


@functools.lru_cache(maxsize=32)
def _program(functions: Any, method: Tuned, settings: Tune, classes: int, examples: int) -> _Program:
    """Compiled once for all seeds and upstream arms of one shape."""
    head = head_of(method, functions.config.embed_dim, classes)
    optimizer = _optimizer(method, settings, examples)

    def start(params: Any, key: jax.Array) -> Any:
        encoder: dict[str, Any] = {}
        if method.scope == "lora":
            encoder = lora.add(params, settings.rank, jax.random.fold_in(key, 1), "|".join(settings.targets))
        elif method.scope == "full":
            encoder = partition(params, select(params, settings.trainable, "adapt.tune_trainable"))[0]
        if method.filtered and settings.sigma:
            encoder = {**encoder, input_filter.NAME: input_filter.gaussian(settings.sigma)}
        trained: dict[str, Any] = {"encoder": jax.tree.map(jnp.asarray, encoder)}
        if head is not None:
            first, stats = head.init(jax.random.fold_in(key, 2))
            trained["head"] = {"params": first, "stats": stats}
        return trained, optimizer.init(_moving(trained))

    def attacked(params: Any, task: Task, trained: Any, batch: Images, keys: jax.Array) -> jax.Array:
        """x', made against the tower and head as they stand, batch norm in evaluation mode; no gradient."""
        classify = logits_of(functions, method, head)
        encoder = encoder_of(method, params, trained)

        def loss(x: jax.Array) -> jax.Array:
            if method.objective == "fare":
                return losses.squared_distance(functions.image_features(encoder, x), batch.original)
            return losses.cross_entropy(classify(encoder, task, trained, x), batch.labels)

        found = image_attacks.pgd(loss, as_float(batch.images), keys, settings.attack)
        return jax.lax.stop_gradient(found.images)

    def loss_of(moving: Any, trained: Any, params: Any, task: Task, batch: Images, hurt: Any) -> Any:
        trained = _with(trained, moving)
        encoder = encoder_of(method, params, trained)
        stats = trained.get("head", {}).get("stats", {})
        features = functools.partial(functions.image_features, encoder)

        def applied(f: jax.Array, training: bool, stats: Any) -> Any:
            return head.apply(trained["head"]["params"], stats, f, training)  # type: ignore[union-attr]

        if method.objective == "fare":
            return robust.fare(features(hurt), batch.original), stats
        if method.objective == "tecoa":
            return robust.tecoa(features(hurt), task.prompts, batch.labels, task.scale), stats
        if method.objective == "pmg_aft":
            # The general pull compares both models on x', as the public code does.
            sides = (features(hurt), features(as_float(batch.images)), functions.image_features(params, hurt))
            bad, clean, original = (robust.class_logits(f, task.prompts, task.scale) for f in sides)
            return robust.pmg_aft(bad, clean, original, batch.labels, settings.pull, settings.pull), stats
        if method.objective == "at":
            _, logits, stats = applied(features(hurt), True, stats)
            return jnp.mean(classification.cross_entropy(logits, batch.labels)), stats
        weights = settings.weights
        if method.without:
            weights = weights._replace(**{method.without: 0.0})
        z, logits, stats = applied(features(as_float(batch.images)), True, stats)
        if method.objective == "clean":
            return jnp.mean(classification.cross_entropy(logits, batch.labels)), stats
        bad = applied(features(hurt), False, stats)[:2]
        total, _ = rectification.objective(
            weights, batch.original, z, logits, batch.labels, bad, top_k=settings.top_k, terms=used(weights)
        )
        return total, stats

    def step(params: Any, task: Task, trained: Any, opt_state: Any, batch: Images, key: jax.Array) -> Any:
        keys = jax.random.split(key, batch.labels.shape[0])
        hurt = attacked(params, task, trained, batch, keys) if method.attacks else None
        moving = _moving(trained)
        (loss, stats), grads = jax.value_and_grad(loss_of, has_aux=True)(moving, trained, params, task, batch, hurt)
        updates, opt_state = optimizer.update(grads, opt_state, moving)
        trained = _with(trained, optax.apply_updates(moving, updates))
        if head is not None:
            trained = {**trained, "head": {**trained["head"], "stats": stats}}
        return trained, opt_state, loss

    def judge(params: Any, task: Task, trained: Any, batch: Images, keys: jax.Array, valid: jax.Array) -> Any:
        encoder = encoder_of(method, params, trained)
        classify = logits_of(functions, method, head)
        sides = [as_float(batch.images)]
        if method.attacks:
            sides.append(attacked(params, task, trained, batch, keys))
        logits = [classify(encoder, task, trained, x) for x in sides]
        right = [jnp.sum((jnp.argmax(x, 1) == batch.labels) & valid, dtype=jnp.int32) for x in logits]
        loss = [jnp.sum(jnp.where(valid, losses.cross_entropy(x, batch.labels), 0.0)) for x in logits]
        return sum(right), sum(loss), len(logits)

    return _Program(jax.jit(start), jax.jit(step, donate_argnums=(2, 3)), jax.jit(judge))


def logits_of(functions: Any, method: Tuned, head: Any) -> Callable[..., jax.Array]:
    """``(encoder, task, trained, images f32[B, H, W, C]) -> logits f32[B, C]``, as deployed."""

    def classify(encoder: Any, task: Task, trained: Any, images: jax.Array) -> jax.Array:
        features = functions.image_features(encoder, images)
        if head is None:
            return robust.class_logits(features, task.prompts, task.scale)
        return head.apply(trained["head"]["params"], trained["head"]["stats"], features, False)[1]

    return classify


def used(weights: Weights) -> frozenset[str]:
    """The terms with a weight other than 0."""
    return frozenset(name for name, weight in weights._asdict().items() if weight)


def _moving(trained: Mapping[str, Any]) -> dict[str, Any]:
    """What the optimiser sees: without batch statistics and without the filter, which is fixed."""
    encoder = {name: part for name, part in trained["encoder"].items() if name != input_filter.NAME}
    return {"encoder": encoder, **({"head": trained["head"]["params"]} if "head" in trained else {})}


def _with(trained: Mapping[str, Any], moving: Mapping[str, Any]) -> dict[str, Any]:
    head = {"head": {**trained["head"], "params": moving["head"]}} if "head" in trained else {}
    return {"encoder": {**trained["encoder"], **moving["encoder"]}, **head}


def _optimizer(method: Tuned, settings: Tune, examples: int) -> optax.GradientTransformation:
    steps = max(1, examples // settings.batch_size * settings.epochs)

    def adamw(rate: float) -> optax.GradientTransformation:
        return optax.adamw(optax.cosine_decay_schedule(rate, steps), weight_decay=settings.weight_decay)

    rate = settings.lora_rate if method.scope == "lora" else settings.learning_rate
    groups = {"encoder": adamw(rate), "head": adamw(settings.head_rate)}

    def labels(tree: Mapping[str, Any]) -> dict[str, Any]:
        return {name: jax.tree.map(functools.partial(_constant, name), part) for name, part in tree.items()}

    return plain_promotion(optax.multi_transform(groups, labels))


def _constant(name: str, leaf: Any) -> str:
    del leaf
    return name
