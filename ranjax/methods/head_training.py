"""Frozen-feature training: encoders x methods x seeds of one head shape as one compiled program.

    methods = [METHODS["mlp"].settings, METHODS["nmtune"].settings]
    fitted = fit_heads(methods, train, validation, classes=5, seeds=range(5))
    z, logits = predict(fitted.head, fitted.select(1, 0), features)

Each run is AdamW on shuffled batches of cached features, with a cosine schedule, and keeps the parameters of its best
epoch by the validation split. Everything that may differ between runs (loss weights, learning rate, decay, seed,
encoder) is an array, so a change of it compiles nothing anew; terms that no method of a call uses are left out.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Traced
from jaxtyping import Array, ArrayLike, Float, Int, Key, PyTree

from ranjax.core import precision
from ranjax.core.errors import ConfigError, ConvergenceWarning, DataError
from ranjax.core.keys import streams, take
from ranjax.core.types import Params
from ranjax.methods import head_inputs, selection
from ranjax.methods.epochs import ADVICE, adamw, unfinished, until_worse
from ranjax.methods.head_inputs import Examples
from ranjax.methods.method_settings import Fit, HeadTraining
from ranjax.methods.standardisation import standard_of
from ranjax.models.heads import HEADS, LinearHead, ResidualHead, StandardisedHead, with_input
from ranjax.objectives import classification, rectification
from ranjax.objectives.rectification import Weights
from ranjax.training import cpu, devices

_Outcome = tuple[Params, dict[str, Any]]


@runtime_checkable
class Head(Protocol):
    """A head's shape, e.g. one of `ranjax.models.heads`; hashable."""

    @property
    def features(self) -> int: ...

    @property
    def classes(self) -> int: ...

    def apply(self, params: Params, stats: Params, features: Array, train: bool) -> tuple[Array, Array, Params]: ...


@dataclass(frozen=True)
class FittedHeads:
    """Heads of the best epoch of each run. Leading axes: [R,] M, S (R only where the features had it).

    Of an epoch that was not trained any more (`HeadTraining.patience`), histories are -inf and losses NaN.

    Attributes:
      head: the shape all of them share; a hashable value with `init` and `apply`.
      variables: {"params", "stats"}, trees with the leading axes.
      history: f32[..., epochs], the validation metric that chose.
      clean_history, attacked_history: its two parts; the latter None without attacked validation features.
      chosen: i32[...], the epoch kept, from 0; -1 for a run that diverged, where those are kept.
      losses: {term: f32[..., epochs]}, the mean of each unweighted term over the epoch.
      notes: what a reader should know, e.g. a class without validation examples.
      facts: of a method that brings its own `fit`, what it chose.
      epochs: i32[...], how many epochs were trained; None for a method that brings its own `fit`.
      gradient: f32[...], the norm of the training loss's gradient after the last epoch or the one kept, whichever is
        smaller, as a share of that of the first weights; None for a method that brings its own `fit`.
    """

    head: Head
    variables: Params
    history: np.ndarray
    clean_history: np.ndarray
    attacked_history: np.ndarray | None
    chosen: np.ndarray
    losses: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)
    epochs: np.ndarray | None = None
    gradient: np.ndarray | None = None

    def select(self, *index: int) -> Params:
        """Return the variables of one run, or a slice: ``select(method, seed)`` or ``select(encoder, method, seed)``.

        Raises:
          ConfigError: more places than leading axes, or one outside of its axis, which JAX would move inside.
        """
        axes = self.chosen.shape
        if len(index) > len(axes) or not all(-size <= place < size for place, size in zip(index, axes)):
            raise ConfigError("select", index, f"at most {len(axes)} places within the axes {axes}")
        return jax.tree.map(lambda x: x[index], self.variables)

    def unfinished(self, name: str, method: int, patience: int) -> list[str]:
        """Return notes on fits of one method that were not at their end, see `epochs.unfinished`."""
        if self.epochs is None:
            return []
        chosen = self.chosen[..., method, :].ravel().tolist()
        figures = self.history[..., method, :, :].reshape(len(chosen), -1)
        left = None if self.gradient is None else self.gradient[..., method, :].ravel().tolist()
        return unfinished(name, chosen, figures.shape[1], patience, figures, left)


class _Plan(NamedTuple):
    """What a program is compiled for."""

    head: LinearHead | ResidualHead
    settings: Fit
    batch: int
    terms: frozenset[str]
    top_k: int
    svd_every: int
    patience: int
    use_attacked: bool
    parallel: int
    mesh: Mesh | None


class _Runs(NamedTuple):
    """What tells runs apart; every leaf has the axis of the runs first."""

    encoder: Int[Array, "*runs"]
    weights: Weights
    learning_rate: Float[Array, "*runs"]
    weight_decay: Float[Array, "*runs"]
    attacked_share: Float[Array, "*runs"]
    init_key: Key[Array, "*runs"]
    shuffle_key: Key[Array, "*runs"]


@cpu.one_lapack_thread()
def fit_heads(
    methods: Sequence[HeadTraining],
    train: Examples | tuple[Any, ...],
    validation: Examples | tuple[Any, ...],
    *,
    classes: int,
    seeds: Sequence[int],
    settings: Fit | None = None,
    mesh: Mesh | None = None,
    keep_diverged: bool = False,
) -> FittedHeads:
    """Train every method with every seed on the features of every encoder, as one compiled program.

    Runs with one seed share their first weights and their batches, whatever the method, so methods compare in pairs. A
    run does not depend on which others are trained with it. Attacked features pass through the batch norm with the
    running statistics, as they will when the head is used, so they never move these statistics.

    Every run pays for the terms that any method of the call uses; on a CPU, methods of different cost are cheaper in
    calls of their own.

    Args:
      methods: M methods of one head shape, and of one `top_k`, `svd_every`, `epochs_share`, `standardised`, `patience`
        and `most_hidden`.
      train, validation: see `Examples`, of which a plain tuple will do; `train.attacked` is needed by defence terms,
        `validation.attacked` by methods with an `attacked_share`.
      classes: C.
      seeds: S different integers.
      settings: see `Fit`.
      mesh: devices of this process that share the runs out between them (`devices.make_mesh`); None: the default
        device alone. Runs never talk to each other, so a run is the same, up to rounding, wherever it
        is trained.
      keep_diverged: give runs back whose outputs were finite in no epoch, with `chosen` -1 and a history of -inf, as a
        search over learning rates wants them; by default they are an error.

    Raises:
      ConfigError: a setting, by its name; a learning rate with which a run diverged in its first epoch.
      DataError: NaN features, shapes that do not fit, a label outside the classes, a class without training examples,
        a validation split with one class only.

    Warns:
      ConvergenceWarning: see `epochs.unfinished` (not with `keep_diverged`: a search says so of what it chose).
    """
    settings = settings or Fit()
    head_inputs.check_settings(methods, seeds, settings, classes)
    seeds = [int(seed) for seed in seeds]
    train = head_inputs.as_named("train", Examples, train)
    validation = head_inputs.as_named("validation", Examples, validation)
    one_encoder = np.ndim(train.features) == 2
    train, validation, notes = head_inputs.prepare(methods, train, validation, classes, settings.multi_label)
    shape = (train.features.shape[0], len(methods), len(seeds))
    plan = _plan(methods, train, classes, settings, int(np.prod(shape)), mesh)
    train, validation = _needed(plan, methods, train, validation)
    weights = class_weights_of(train.labels, classes, settings.class_weights, settings.multi_label)
    runs, head = _make_runs(methods, seeds, shape), plan.head
    moments = None
    if methods[0].standardised:
        # Once an encoder, before training; the heads are given them again, to be used on features as they are.
        standard = standard_of(np.asarray(train.features))
        moments = (np.asarray(standard.mean, np.float32), np.asarray(standard.inverse, np.float32))
        train, validation = (_standardised(split, moments) for split in (train, validation))
        head = StandardisedHead(plan.head)
    # On the host, where runs are picked and renamed without a program for each shape.
    variables, facts = jax.device_get(_shared_out(plan, runs, train, validation, weights))
    if moments is not None:
        variables = {**variables, "stats": with_input(variables["stats"], *(x[runs.encoder] for x in moments))}
    variables, facts = jax.tree.map(lambda x: x.reshape(shape[one_encoder:] + x.shape[1:]), (variables, facts))
    fitted = FittedHeads(head, variables, **facts, notes=notes)
    if not keep_diverged and (fitted.chosen < 0).any():
        method = int(np.argwhere(fitted.chosen < 0)[0][-2])
        raise ConfigError(
            f"methods[{method}].learning_rate",
            methods[method].learning_rate,
            "a value with which the outputs stay finite in at least one epoch",
        )
    if not keep_diverged:
        for index, method in enumerate(methods):
            for note in fitted.unfinished(f"methods[{index}]", index, method.patience):
                warnings.warn(f"{note}; {ADVICE}", ConvergenceWarning, stacklevel=2)
    return fitted


def _plan(
    methods: Sequence[HeadTraining], train: Examples, classes: int, settings: Fit, count: int, mesh: Mesh | None
) -> _Plan:
    """What the program of `count` runs is compiled for."""
    _, examples, width = train.features.shape
    terms = frozenset(term for term in Weights._fields if any(getattr(method, term) for method in methods))
    return _Plan(
        head=head_of_training(methods[0], width, classes),
        settings=replace(settings, attack=None, epochs=max(1, round(methods[0].epochs_share * settings.epochs))),
        batch=min(settings.batch_size, examples),
        terms=terms,
        top_k=methods[0].top_k,
        svd_every=methods[0].svd_every,
        patience=methods[0].patience,
        use_attacked=any(term in terms for term in rectification.DEFENCE),
        parallel=min(count, settings.parallel or (1 if jax.default_backend() == "cpu" else count)),
        mesh=None if mesh is None or mesh.size == 1 else mesh,
    )


def _needed(
    plan: _Plan, methods: Sequence[HeadTraining], train: Examples, validation: Examples
) -> tuple[Examples, Examples]:
    """Both splits without the attacked features that no method of the call reads."""
    if not plan.use_attacked:
        train = train._replace(attacked=None)
    if not any(method.attacked_share for method in methods):
        validation = validation._replace(attacked=None)
    return train, validation


def trace_fit(
    method: HeadTraining,
    train: Examples,
    validation: Examples,
    *,
    classes: int,
    seeds: Sequence[int],
    settings: Fit,
    place: Callable[[PyTree], PyTree],
) -> Traced:
    """Trace the program of `fit_heads` for shapes of examples, to be lowered and measured.

    Args:
      method, classes, seeds, settings: as `fit_heads`.
      train, validation: shapes, f32[1, N, D] and labels.
      place: turns arrays and shapes into shapes with their sharding.
    """
    plan = _plan([method], train, classes, settings, len(seeds), None)
    train, validation = _needed(plan, [method], train, validation)
    runs = _make_runs([method], seeds, (1, 1, len(seeds)))
    return _fit.trace(plan, place(runs), place(train), place(validation), None)


def head_of_training(method: HeadTraining, width: int, classes: int) -> LinearHead | ResidualHead:
    """Return the head that a method trains on features of that width, less its standardisation."""
    head = HEADS[method.head](width, classes)
    if isinstance(head, ResidualHead) and method.most_hidden:
        head = replace(head, expansion=min(head.expansion, method.most_hidden / width))
    return head


def _standardised(split: Examples, moments: tuple[np.ndarray, np.ndarray]) -> Examples:
    mean, inverse = (x[:, None] for x in moments)
    attacked = None if split.attacked is None else (split.attacked - mean) * inverse
    return split._replace(features=(split.features - mean) * inverse, attacked=attacked)


def predict(
    head: Head, variables: Params, features: ArrayLike, leading: int | None = None
) -> tuple[Float[Array, "*axes batch width"], Float[Array, "*axes batch classes"]]:
    """Apply a head, or each of many, with its running statistics.

    Args:
      head: of `FittedHeads`.
      variables: {"params", "stats"}, with any leading axes.
      features: f32[N, D].
      leading: how many leading axes the variables have; None: seen from those of a head of `HEADS`.

    Returns:
      (z f32[..., N, D], logits f32[..., N, C]).

    Raises:
      DataError: the width of the features is not the head's.
    """
    features = jnp.asarray(features, jnp.float32)
    if features.ndim != 2 or features.shape[1] != head.features:
        raise DataError(f"features have shape {features.shape}, the head takes [N, {head.features}]")
    axes = variables["params"]["classifier"]["bias"].ndim - 1 if leading is None else leading
    return _predict(head, axes, variables, features)


@functools.partial(jax.jit, static_argnums=(0, 1))
@precision.exact
def _predict(head: Head, leading: int, variables: Params, features: Array) -> tuple[Array, Array]:
    def apply(variables: Params) -> tuple[Array, Array]:
        return head.apply(variables["params"], variables["stats"], features, False)[:2]

    for _ in range(leading):
        apply = functools.partial(lax.map, apply)
    return apply(variables)


def _shared_out(plan: _Plan, runs: _Runs, *data: PyTree) -> _Outcome:
    """`_fit` on the default device, or with an even part of the runs on every device of the plan's mesh."""
    if plan.mesh is None:
        return _fit(plan, runs, *data)
    count = runs.encoder.shape[0]
    places = np.arange(-(-count // plan.mesh.size) * plan.mesh.size) % count
    split = NamedSharding(plan.mesh, PartitionSpec(devices.batch_axes(plan.mesh)))
    runs = jax.device_put(runs._replace(**{name: _taken(x, places) for name, x in runs._asdict().items()}), split)
    outcome = _fit(plan, runs, *jax.device_put(data, NamedSharding(plan.mesh, PartitionSpec())))
    # Off the mesh again, so that the heads can be used together with arrays of any device.
    return jax.tree.map(lambda x: x[:count], jax.device_get(outcome))


def _taken(part: PyTree, places: np.ndarray) -> PyTree:
    is_keys = isinstance(part, Array) and jax.dtypes.issubdtype(part.dtype, jax.dtypes.prng_key)
    return take(part, places) if is_keys else jax.tree.map(lambda x: x[places], part)


@functools.partial(jax.jit, static_argnums=0)
def _fit(plan: _Plan, runs: _Runs, train: Examples, validation: Examples, class_weights: Array | None) -> _Outcome:
    def fit(runs: _Runs, *data: PyTree) -> _Outcome:
        def one(run: _Runs) -> _Outcome:
            return _fit_one(plan, run, *data)

        batch = min(plan.parallel, runs.encoder.shape[0])
        return lax.map(one, runs) if batch == 1 else lax.map(one, runs, batch_size=batch)

    if plan.mesh is not None:
        split, everywhere = PartitionSpec(devices.batch_axes(plan.mesh)), PartitionSpec()
        specs = (split, everywhere, everywhere, everywhere)
        fit = jax.shard_map(fit, mesh=plan.mesh, in_specs=specs, out_specs=split, check_vma=False)
    return fit(runs, train, validation, class_weights)


def _fit_one(plan: _Plan, run: _Runs, train: Examples, validation: Examples, class_weights: Array | None) -> _Outcome:
    """Return the variables of the best epoch of one run, and the fields of `FittedHeads` that are arrays."""
    head, settings = plan.head, plan.settings
    examples = train.features.shape[1]
    per_epoch = examples // plan.batch
    total = per_epoch * settings.epochs

    def loss_fn(params: Params, stats: Params, rows: Array, count: Array) -> tuple[Array, PyTree]:
        f = train.features[run.encoder, rows]
        z, logits, stats = head.apply(params, stats, f, True)
        attacked = None
        if plan.use_attacked:
            attacked = head.apply(params, stats, train.attacked[run.encoder, rows], False)[:2]
        loss, values = rectification.objective(
            run.weights,
            f,
            z,
            logits,
            train.labels[rows],
            attacked,
            class_weights=class_weights,
            multi_label=settings.multi_label,
            top_k=plan.top_k,
            svd_every=plan.svd_every,
            step=count,
            terms=plan.terms,
        )
        return loss, (stats, values)

    def step(carry: PyTree, rows: Array) -> tuple[PyTree, dict[str, Array]]:
        params, stats, moments, count = carry
        (_, (stats, values)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params, stats, rows, count)
        rate = run.learning_rate * 0.5 * (1 + jnp.cos(jnp.pi * count / total))
        params, moments = adamw(params, gradients, moments, count + 1, rate, run.weight_decay)
        return (params, stats, moments, count + 1), values

    def judge(variables: Params, features: Array) -> tuple[Array, Array]:
        logits = _chunked_logits(head, variables, features[run.encoder])
        metric = selection.score(settings.metric, logits, validation.labels, settings.multi_label)
        return metric, classification.loss(logits, validation.labels, None, settings.multi_label)

    def epoch(carry: PyTree, index: Array) -> tuple[PyTree, PyTree]:
        state, best = carry
        order = jax.random.permutation(jax.random.fold_in(run.shuffle_key, index), examples)
        state, values = lax.scan(step, state, order[: per_epoch * plan.batch].reshape(per_epoch, plan.batch))
        variables = {"params": state[0], "stats": state[1]}
        clean, loss = judge(variables, validation.features)
        attacked, metric = None, clean
        if validation.attacked is not None:
            attacked, attacked_loss = judge(variables, validation.attacked)
            share = run.attacked_share
            # A plain sum would let the -inf of a side that does not count into the other: 0 * inf is NaN.
            metric = _mix(share, clean, attacked)
            loss = _mix(share, loss, attacked_loss)
        better = (metric > best["metric"]) | ((metric == best["metric"]) & (loss < best["loss"]))
        better &= jnp.isfinite(metric)
        found = {"variables": variables, "metric": metric, "loss": loss, "epoch": index}
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), found, best)
        by_epoch = {"history": metric, "clean_history": clean, "attacked_history": attacked}
        return (state, best), {**by_epoch, "losses": jax.tree.map(jnp.mean, values)}

    def steepness(point: tuple[Params, Params]) -> Array:
        """The norm of the gradient of the whole training loss, the mean over batches in a fixed order."""

        def add(sums: Params, batch: tuple[Array, Array]) -> tuple[Params, None]:
            gradients = jax.grad(loss_fn, has_aux=True)(*point, *batch)[0]
            return jax.tree.map(jnp.add, sums, gradients), None

        counts = jnp.arange(per_epoch, dtype=jnp.float32)
        rows = jnp.arange(per_epoch * plan.batch, dtype=jnp.int32).reshape(per_epoch, plan.batch)
        sums, _ = lax.scan(add, jax.tree.map(jnp.zeros_like, point[0]), (rows, counts))
        return jnp.sqrt(sum(jnp.sum(part * part) for part in jax.tree.leaves(sums)))

    params, stats = head.init(run.init_key)
    best = {
        "variables": {"params": params, "stats": stats},
        "metric": jnp.float32(-jnp.inf),
        "loss": jnp.float32(jnp.inf),
        "epoch": jnp.int32(-1),
    }
    zeros = jax.tree.map(jnp.zeros_like, params)
    state = (params, stats, (zeros, zeros), jnp.float32(0))
    start, trained = (state, best), jnp.int32(settings.epochs)
    if plan.patience:
        (last, best), facts, trained = until_worse(epoch, start, settings.epochs, plan.patience)
    else:
        (last, best), facts = lax.scan(epoch, start, jnp.arange(settings.epochs, dtype=jnp.int32))
    kept = best["variables"]
    points = jax.tree.map(lambda *three: jnp.stack(three), state[:2], last[:2], (kept["params"], kept["stats"]))
    begun, after_last, after_kept = lax.map(steepness, points)
    left = jnp.minimum(after_last, after_kept) / jnp.maximum(begun, jnp.finfo(jnp.float32).tiny)
    return kept, {**facts, "chosen": best["epoch"], "epochs": trained, "gradient": left}


def _mix(share: Array, clean: Array, attacked: Array) -> Array:
    mixed = (1 - share) * clean + share * attacked
    return jnp.where(share == 0, clean, jnp.where(share == 1, attacked, mixed))


def _chunked_logits(head: Head, variables: Params, features: Array, chunk: int = 1024) -> Array:
    """Logits [V, C] in evaluation mode; a bounded number of rows at a time, as the hidden layer is 4 D wide."""

    def apply(rows: Array) -> Array:
        return head.apply(variables["params"], variables["stats"], rows, False)[1]

    count = features.shape[0]
    if count <= chunk:
        return apply(features)
    padded = jnp.pad(features, ((0, -count % chunk), (0, 0))).reshape(-1, chunk, features.shape[1])
    return lax.map(apply, padded).reshape(-1, head.classes)[:count]


def _make_runs(methods: Sequence[HeadTraining], seeds: Sequence[int], shape: tuple[int, int, int]) -> _Runs:
    encoder, method, seed = (index.ravel() for index in np.indices(shape))

    def of_method(values: Sequence[float]) -> Any:
        return np.asarray(values, np.float32)[method]

    def keys(name: str) -> Array:
        return take(streams(seeds, name), seed)

    return _Runs(
        encoder=encoder.astype(np.int32),
        weights=Weights(*(of_method([getattr(m, term) for m in methods]) for term in Weights._fields)),
        learning_rate=of_method([m.learning_rate for m in methods]),
        weight_decay=of_method([m.weight_decay for m in methods]),
        attacked_share=of_method([m.attacked_share for m in methods]),
        init_key=keys("adapt/init"),
        shuffle_key=keys("adapt/shuffle"),
    )


def class_weights_of(
    labels: ArrayLike, classes: int, chosen: str | Sequence[float], multi_label: bool
) -> Float[Array, " classes"] | None:
    """Return f32[C] that `Fit.class_weights` asks for on labels i[N] or multi-hot [N, C]; None: every class
    the same.
    """
    if chosen == "none":
        return None
    if chosen != "balanced":
        return jax.device_put(np.asarray(chosen, np.float32))
    labels = np.asarray(labels)
    if multi_label:
        present = labels.sum(0)
        return jax.device_put(((len(labels) - present) / present).astype(np.float32))
    shares = len(labels) / (classes * np.bincount(labels, minlength=classes))
    return jax.device_put(shares.astype(np.float32))
