"""Adapt: every method and seed on one upstream condition's encoder; heads on cached features, towers on images."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from ranjax.core import files
from ranjax.core.errors import ConfigError, DataError
from ranjax.core.settings import DataclassInstance
from ranjax.core.types import Params
from ranjax.evaluation.questions import BOTH
from ranjax.methods import own_head, search
from ranjax.methods.epochs import unfinished
from ranjax.methods.head_inputs import Examples, check_classes
from ranjax.methods.head_training import FittedHeads, class_weights_of, fit_heads
from ranjax.methods.method_settings import Fit, HeadTraining, TowerTraining
from ranjax.methods.table import METHODS, selected, settings_of
from ranjax.methods.tower_methods import Images, Task, describe_scope, tower_fit
from ranjax.methods.tower_training import Diverged, TowerOutcome, tune
from ranjax.models import DualEncoderFunctions, input_filter
from ranjax.run.context import Context
from ranjax.run.stages import inputs as common
from ranjax.run.stages import labels as few_labels
from ranjax.run.stages.adapt_outputs import FILE, flat
from ranjax.run.stages.cached_features import CachedFeatures, Features, check_kinds, features_for, settings_given
from ranjax.run.stages.condition_encoders import condition_encoder, methods_of
from ranjax.training import devices, hosts, metrics_log

WIDE_HIDDEN = 256
"""Width of the hidden layer on features other than an encoder's embedding, where no key says another."""


def _uses_attacked(name: str, settings: object) -> bool:
    return "attacked" in METHODS[name].needs or getattr(settings, "uses_attacked", False)


def run(context: Context) -> dict[str, object]:
    """Leave heads.safetensors and tuned/METHOD.safetensors (paths, with a leading axis of seeds), and the choices."""
    config, data = context.config, common.data(context)
    functions, params = condition_encoder(context, context.stage_run.condition)
    train, validation = data.task_split("adapt"), data.task_split("validation")
    if config.adapt.shots or config.adapt.share < 1:
        train = train.take(few_labels.chosen(config.adapt, config.seed, train.ids, train.labels, data.classes))
    splits = {"adapt": train, "validation": validation}
    methods = methods_of(context, context.stage_run.condition)
    if left_out := [name for name in selected(config.adapt.methods) if name not in methods]:
        context.say(f"  not fitted without an upstream encoder: {', '.join(left_out)}")
    settings = {name: settings_given(config.adapt, name, data.has_questions) for name in methods}
    if moved := [name for name in methods if settings[name] != settings_of(config.adapt, name)]:
        context.say(f"  read the embedding fused with the question, no other features: {', '.join(moved)}")
    heads = {name: settings[name] for name, method in methods.items() if method.family == "head"}
    wanted = {name: features_for(config.adapt, given) for name, given in heads.items()}
    heads = {name: _sized(given, wanted[name], functions) for name, given in heads.items()}
    _check_questions(wanted, data)
    check_kinds(functions, wanted)

    # Heads: features are cached once for all methods that take the same ones.
    cached = CachedFeatures(context, functions, params, splits)
    summary: dict[str, dict[str, Any]] = {}
    tensors: dict[str, np.ndarray] = {}
    lines: list[str] = []
    for names in _of_one_program(heads, wanted):
        context.check_stop("before " + ", ".join(names))
        begun = time.monotonic()
        group, given = {name: heads[name] for name in names}, wanted[names[0]]
        with_attack = any(_uses_attacked(name, heads[name]) for name in names)
        examples = cached.attacked(given) if with_attack else cached.clean(given)
        shared = common.fit_of(config.adapt)
        if any("attack" in METHODS[name].needs for name in names):
            shared = dataclasses.replace(shared, attack=cached.handle(given))
        fitted = list(_fit(context, group, examples, shared))
        seconds = round((time.monotonic() - begun) / len(fitted), 2)
        for name, variables, facts, curves in fitted:
            if given.filtered:
                taps = input_filter.gaussian(config.adapt.filter)
                stacked = jax.tree.map(lambda x: np.stack([x] * config.adapt.seeds), taps)
                variables = {**variables, "encoder": {input_filter.NAME: stacked}}
            tensors |= flat({name: variables})
            # Of features that it was the first to ask for, too; methods of one program share alike.
            summary[name] = facts | {"seconds": seconds}
            lines += [json.dumps({"method": name, "epoch": epoch, **row}) for epoch, row in enumerate(curves, start=1)]

    def write() -> None:
        files.write_text(context.folder / metrics_log.FILE, "".join(f"{line}\n" for line in lines))
        files.write_tensors(context.folder / FILE, tensors)

    hosts.first_does(write)

    # Towers: a tower is trained on images alone, so its methods do not see questions.
    towers = [name for name, method in methods.items() if method.family == "tower"]
    if towers and data.has_questions:
        without = {name: split._replace(questions=None) for name, split in splits.items()}
        cached = CachedFeatures(context, functions, params, without)
    for name in methods:
        if name in towers:
            summary[name] = _tune(context, name, settings[name], splits, cached.clean(Features()))
        summary.setdefault(name, {"trained": 0})
    width = int(functions.config.embed_dim)
    chosen = {"examples": len(train.ids), "shots": config.adapt.shots, "share": config.adapt.share}
    # In the order of the config, which is that of every table.
    ordered = {name: summary[name] | {"data": chosen} for name in methods}
    return {"methods": ordered, "classes": list(data.classes), "width": width, "examples": len(train.ids)}


def _sized(settings: Any, given: Features, functions: object) -> Any:
    """Return a method's settings with a hidden layer that wide features leave affordable.

    Its published width is a multiple of an embedding's; of tokens or pixels it would hold more than the encoder does.
    """
    wide = given.kind != "embedding" or not isinstance(functions, DualEncoderFunctions)
    if not isinstance(settings, HeadTraining) or settings.most_hidden or not wide:
        return settings
    return dataclasses.replace(settings, most_hidden=WIDE_HIDDEN)


def _check_questions(methods: Mapping[str, Features], data: common.Data) -> None:
    one_sided = [name for name, given in methods.items() if given.modality != BOTH]
    if one_sided and not data.has_questions:
        raise ConfigError("adapt.methods", one_sided, "methods of an image alone: this is no set of questions")
    if data.has_questions and data.split("validation").questions is None:
        raise DataError("the labelled split asks questions about its images, the validation split does not")


def _choose(
    context: Context,
    name: str,
    settings: DataclassInstance,
    scores: Float[np.ndarray, "points seeds"],
    notes: Sequence[Sequence[str]],
    attacked: bool,
) -> tuple[int, dict[str, Any]]:
    """Return the point of the search grid that validates best, by its place, and the facts of its fits.

    `notes` are of every point. A grid that changes nothing of a method is no search.
    """
    config = context.config.adapt
    points, means = search.grid(config.search_rates, config.search_strengths), scores.mean(axis=-1)
    taken, finite = int(means.argmax()), np.isfinite(means)
    sides = "clean and attacked" if attacked else "clean"
    context.say(f"  {name}: {sides} validation {config.metric} {means[taken]:.3f} over {scores.shape[1]} seeds")
    facts: dict[str, Any] = {
        "settings": dataclasses.asdict(search.varied(settings, points[taken])),
        "validation": scores[taken].tolist(),
        "notes": list(notes[taken]),
    }
    if not finite.all():
        rates = ", ".join(dict.fromkeys(f"{point.rate:g}" for point, good in zip(points, finite) if not good))
        facts["notes"] += [f"{name} diverged with {(~finite).sum()} of {len(points)} settings (rate x {rates})"]
        context.say(f"  {facts['notes'][-1]}")
    if len({repr(search.varied(settings, point)) for point in points}) > 1:
        shown = [mean if good else None for mean, good in zip(means.tolist(), finite)]
        tried = [{**point._asdict(), "validation": mean} for point, mean in zip(points, shown)]
        facts["search"] = {"chosen": points[taken]._asdict(), "tried": tried}
    return taken, facts


def _fit(
    context: Context, methods: Mapping[str, DataclassInstance], examples: Mapping[str, Examples], shared: Fit
) -> Iterator[tuple[str, Params, dict[str, Any], list[dict[str, float]]]]:
    """Yield (name, variables, facts, curves) of every method, at the point of the grid that validates best.

    Curves are by epoch: the validation figure and every term of the loss, as means over the seeds.
    """
    config, classes = context.config.adapt, len(common.data(context).classes)
    points = search.grid(config.search_rates, config.search_strengths)
    every = [(name, search.varied(settings, point)) for name, settings in methods.items() for point in points]
    splits, seeds = (examples["adapt"], examples["validation"]), range(config.seeds)

    # Heads of `HeadTraining` are fitted together as one program, others each by their own `fit`.
    together = [settings for _, settings in every if isinstance(settings, HeadTraining)]
    fitted: list[tuple[FittedHeads, int]]
    if together:
        mesh = devices.local_mesh(context.mesh)
        group = fit_heads(
            together, *splits, classes=classes, seeds=seeds, settings=shared, mesh=mesh, keep_diverged=True
        )
        fitted = [(group, index) for index in range(len(every))]
    else:
        # A point of the grid that changes nothing of a method is no fit of its own.
        own = {
            text: own_head.fit(METHODS[name], settings, *splits, classes=classes, seeds=seeds, shared=shared)
            for text, (name, settings) in {repr(pair): pair for pair in every}.items()
        }
        fitted = [(own[repr(pair)], 0) for pair in every]
    best = np.stack([one.history[index].max(axis=-1) for one, index in fitted])
    for number, (name, settings) in enumerate(methods.items()):
        first = number * len(points)
        scores = best[first : first + len(points)]
        if not np.isfinite(scores.mean(axis=-1)).any():
            factors = f" (times {config.search_rates})" if len(config.search_rates) > 1 else ""
            key, rate = f"{search.key_prefix(name)}.learning_rate", getattr(every[first][1], "learning_rate", None)
            raise ConfigError(key, rate, f"a value with which {name} stays finite{factors}")
        attacked = getattr(settings, "attacked_share", 0) > 0 or bool({"attack", "attacked"} & {*METHODS[name].needs})
        notes = [group.notes for group, _ in fitted[first : first + len(points)]]
        taken, facts = _choose(context, name, settings, scores, notes, attacked)
        one, index = fitted[first + taken]
        if one.epochs is None:
            facts |= dict(one.facts)
        else:
            facts |= {"chosen_epochs": one.chosen[index].tolist(), "epochs": one.epochs[index].tolist()}
            facts["notes"] += _said(context, one.unfinished(name, index, getattr(settings, "patience", 0)))
        terms = settings.terms if isinstance(settings, HeadTraining) else one.losses
        yield name, one.select(index), facts, _curves(one, index, [*terms])


def _curves(group: FittedHeads, index: int, terms: Sequence[str]) -> list[dict[str, float]]:
    """Return means over the seeds, epoch by epoch, of those that were still trained.

    Of the terms of the loss those named: a program may have computed others, for other methods.
    """
    seeds, epochs = group.history[index].shape
    trained = np.full(seeds, epochs) if group.epochs is None else group.epochs[index]
    by_term = {"validation": group.history, **{term: group.losses[term] for term in terms if term in group.losses}}
    return [
        {term: float(values[index][trained > epoch, epoch].mean()) for term, values in by_term.items()}
        for epoch in range(int(trained.max()))
    ]


def _said(context: Context, notes: list[str]) -> list[str]:
    for note in notes:
        context.say(f"  {note}")
    return notes


def _tune(
    context: Context,
    name: str,
    method: TowerTraining,
    splits: Mapping[str, common.Split],
    examples: Mapping[str, Examples],
) -> dict[str, Any]:
    """Fit one method that tunes the tower; finished work of an interrupted run is kept."""
    place = context.folder / "tuned"
    if hosts.agree((place / f"{name}.json").exists()):
        return files.read_json(place / f"{name}.json")
    config, settings, begun = context.config.adapt, tower_fit(context.config.adapt), time.monotonic()
    functions, params = common.encoder(context, context.stage_run.condition)
    train, validation = (
        Images(split.images, split.labels, np.asarray(examples[part].features)) for part, split in splits.items()
    )
    images = len(train.labels)
    if method.objective == "fare":
        # As published: from images alone. Those of the upstream set, which are many, and no labelled one.
        upstream = common.data(context).split("train").images
        train = Images(upstream, None, common.image_features(context, functions, params, upstream))
        images = len(upstream)
    # Before the weights, which a class without examples has none of.
    classes = len(common.data(context).classes)
    labels = splits["adapt"].labels
    notes = check_classes(labels, validation.labels, classes, settings.multi_label)
    weights = class_weights_of(labels, classes, config.class_weights, settings.multi_label)
    task = task_of(context, functions, params)._replace(weights=weights)
    context.say(f"  {name}, of the encoder:")
    for line in describe_scope(method, params, search.key_prefix(name)).splitlines():
        context.say(f"    {line}")

    # Every point of the grid with every seed; a point that diverges does not end the search.
    mesh = devices.local_mesh(context.mesh)  # several processes all find the same, each by itself
    outcomes: list[list[TowerOutcome]] = []
    failures: list[Diverged] = []
    for point in search.grid(config.search_rates, config.search_strengths):
        try:
            fits = [
                tune(functions, params, search.varied(method, point), train, validation, task, seed=seed,
                     settings=settings, mesh=mesh, check_stop=lambda where: context.check_stop(f"{name}: {where}"))
                for seed in range(config.tower.seeds)
            ]  # fmt: skip
        except Diverged as error:
            failures.append(error)
            fits = []
        outcomes.append(fits)
    if len(failures) == len(outcomes):
        raise DataError(f"{name}: {failures[0]}") from failures[0]
    figures = [[max(one.history) for one in fits] or [-np.inf] * config.tower.seeds for fits in outcomes]
    every = [notes] * len(outcomes)
    taken, facts = _choose(context, name, method, np.asarray(figures), every, method.uses_attacked)
    fits = outcomes[taken]
    facts |= {"chosen_epochs": [one.chosen for one in fits], "losses": [one.losses for one in fits]}
    facts |= {"share": fits[0].share, "images": images, "seconds": round(time.monotonic() - begun, 2)}
    figures = np.array([one.history + [-np.inf] * (settings.epochs - len(one.history)) for one in fits])
    gradients = [one.gradient for one in fits]
    left = unfinished(name, facts["chosen_epochs"], settings.epochs, settings.patience, figures, gradients)
    facts["notes"] += _said(context, left)
    context.say(f"  {name}: {100 * fits[0].share:.2f} % of the encoder's parameters trained")
    tensors = jax.tree.map(lambda *leaves: np.stack(leaves), *[one.trained for one in fits])

    def write() -> None:
        files.write_tensors(place / f"{name}.safetensors", flat(tensors))
        files.write_json(place / f"{name}.json", facts)

    hosts.first_does(write)
    return facts


def task_of(context: Context, functions: DualEncoderFunctions, params: Params) -> Task:
    """Return the classes' prompt ensembles and the logit scale of an encoder."""
    return Task(common.class_embeddings(context, functions, params), common.logit_scale(functions, params))


def _of_one_program(heads: Mapping[str, object], wanted: Mapping[str, Features]) -> list[list[str]]:
    """Names of methods that one compiled program trains together: of one head shape, with or without attacked features.

    Their terms may differ: a program takes seconds to compile, and terms that a method does not weigh a fraction of one
    to run, as its heads are small.
    """
    groups: dict[Hashable, list[str]] = {}
    for name, settings in heads.items():
        if isinstance(settings, HeadTraining):
            schedule = (settings.top_k, settings.svd_every, settings.epochs_share)
            schedule += (settings.standardised, settings.patience, settings.most_hidden)
            groups.setdefault((settings.head, schedule, wanted[name], settings.uses_attacked), []).append(name)
        else:
            groups[name] = [name]
    return list(groups.values())
