"""Adapt: every method and seed on one upstream condition's encoder; heads on cached features, towers on images."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from ranjax.attacks import losses, pgd
from ranjax.core import files
from ranjax.core.errors import ConfigError, DataError
from ranjax.core.pixels import as_float
from ranjax.core.settings import DataclassInstance, read
from ranjax.core.types import Params
from ranjax.evaluation.questions import BOTH
from ranjax.methods import own_head, search
from ranjax.methods.head_inputs import Examples, check_classes
from ranjax.methods.head_training import class_weights_of, fit_heads
from ranjax.methods.method_settings import Fit, HeadTraining, TowerTraining
from ranjax.methods.table import METHODS, selected, settings_of
from ranjax.methods.tower_methods import Images, Task, describe_scope, tower_fit
from ranjax.methods.tower_training import Diverged, TowerOutcome, tune
from ranjax.models import DualEncoderFunctions, input_filter
from ranjax.run.context import Context
from ranjax.run.schema.adapt_keys import Adapt
from ranjax.run.stages import inputs as common
from ranjax.run.stages import labels
from ranjax.run.stages.adapt_outputs import FILE, flat
from ranjax.run.stages.condition_encoders import condition_encoder, methods_of
from ranjax.training import devices, hosts, metrics_log
from ranjax.training.progress import Progress


class Features(NamedTuple):
    """Which cached features a head is given: behind the filter or not, and of a set of questions, which of the two."""

    filtered: bool = False
    modality: str = BOTH


def features_for(adapt: Adapt, settings: object) -> Features:
    """Return the features that a method's settings ask for; without a width, `adapt.filter`, there is no filter."""
    filtered = getattr(settings, "filtered", False) and adapt.filter > 0
    return Features(filtered, getattr(settings, "modality", BOTH))


def _uses_attacked(name: str, settings: object) -> bool:
    return "attacked" in METHODS[name].needs or getattr(settings, "uses_attacked", False)


def run(context: Context) -> dict[str, object]:
    """Leave heads.safetensors and tuned/METHOD.safetensors (paths, with a leading axis of seeds), and the choices."""
    config, data = context.config, common.data(context)
    functions, params = condition_encoder(context, context.stage_run.condition)
    train, validation = data.task_split("adapt"), data.task_split("validation")
    if config.adapt.shots or config.adapt.share < 1:
        train = train.take(labels.chosen(config.adapt, config.seed, train.ids, train.labels, data.classes))
    splits = {"adapt": train, "validation": validation}
    methods = methods_of(context, context.stage_run.condition)
    if left_out := [name for name in selected(config.adapt.methods) if name not in methods]:
        context.say(f"  not fitted without an upstream encoder: {', '.join(left_out)}")
    settings = {name: settings_of(config.adapt, name) for name in methods}
    heads = {name: settings[name] for name, method in methods.items() if method.family == "head"}
    wanted = {name: features_for(config.adapt, given) for name, given in heads.items()}
    _check_questions(wanted, data)

    # Heads: features are cached once for all methods that take the same ones.
    summary: dict[str, dict[str, Any]] = {}
    tensors: dict[str, np.ndarray] = {}
    lines: list[str] = []
    examples: dict[Features, dict[str, Examples]] = {}
    for names in _of_one_program(heads, wanted):
        context.check_stop("before " + ", ".join(names))
        group, given = {name: heads[name] for name in names}, wanted[names[0]]
        if given not in examples:
            with_attack = any(_uses_attacked(name, heads[name]) for name in heads if wanted[name] == given)
            front = behind_filter(config.adapt, params) if given.filtered else params
            examples[given] = _examples(context, functions, front, splits, with_attack, given.modality)
        for name, variables, facts, curves in _fit(context, group, examples[given]):
            if given.filtered:
                taps = input_filter.gaussian(config.adapt.filter)
                stacked = jax.tree.map(lambda x: np.stack([x] * config.adapt.seeds), taps)
                variables = {**variables, "encoder": {input_filter.NAME: stacked}}
            tensors |= flat({name: variables})
            summary[name] = facts
            lines += [json.dumps({"method": name, "epoch": epoch, **row}) for epoch, row in enumerate(curves, start=1)]

    def write() -> None:
        files.write_text(context.folder / metrics_log.FILE, "".join(f"{line}\n" for line in lines))
        files.write_tensors(context.folder / FILE, tensors)

    hosts.first_does(write)

    # Towers: a tower is trained on images alone, so its methods do not see questions.
    towers = [name for name, method in methods.items() if method.family == "tower"]
    if towers and (data.has_questions or Features() not in examples):
        without = {name: split._replace(questions=None) for name, split in splits.items()}
        examples[Features()] = _examples(context, functions, params, without, False)
    for name in methods:
        if name in towers:
            summary[name] = _tune(context, name, settings[name], splits, examples[Features()])
        summary.setdefault(name, {"trained": 0})
    width = int(functions.config.embed_dim)
    chosen = {"examples": len(train.ids), "shots": config.adapt.shots, "share": config.adapt.share}
    # In the order of the config, which is that of every table.
    ordered = {name: summary[name] | {"data": chosen} for name in methods}
    return {"methods": ordered, "classes": list(data.classes), "width": width, "examples": len(train.ids)}


def behind_filter(adapt: Adapt, params: Params) -> Params:
    """Return an encoder's parameters with the config's filter in front."""
    return {**params, input_filter.NAME: input_filter.gaussian(adapt.filter)}


def fit_of(adapt: Adapt) -> Fit:
    """Return what all heads share, out of the config's group `adapt`."""
    return read(Fit(multi_label=adapt.task == "multi"), adapt)


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
    notes: Sequence[str],
    attacked: bool,
) -> tuple[int, dict[str, Any]]:
    """Return the point of the search grid that validates best, by its place, and the facts of its fits."""
    config = context.config.adapt
    points, means = search.grid(config.search_rates, config.search_strengths), scores.mean(axis=-1)
    taken, finite = int(means.argmax()), np.isfinite(means)
    sides = "clean and attacked" if attacked else "clean"
    context.say(f"  {name}: {sides} validation {config.metric} {means[taken]:.3f} over {scores.shape[1]} seeds")
    facts: dict[str, Any] = {
        "settings": dataclasses.asdict(search.varied(settings, points[taken])),
        "validation": scores[taken].tolist(),
        "notes": list(notes),
    }
    if not finite.all():
        rates = ", ".join(dict.fromkeys(f"{point.rate:g}" for point, good in zip(points, finite) if not good))
        facts["notes"] += [f"{name} diverged with {(~finite).sum()} of {len(points)} settings (rate x {rates})"]
        context.say(f"  {facts['notes'][-1]}")
    if len(points) > 1:
        shown = [mean if good else None for mean, good in zip(means.tolist(), finite)]
        tried = [{**point._asdict(), "validation": mean} for point, mean in zip(points, shown)]
        facts["search"] = {"chosen": points[taken]._asdict(), "tried": tried}
    return taken, facts


def _fit(
    context: Context, methods: Mapping[str, DataclassInstance], examples: Mapping[str, Examples]
) -> Iterator[tuple[str, Params, dict[str, Any], list[dict[str, float]]]]:
    """Yield (name, variables, facts, curves) of every method, at the point of the grid that validates best.

    Curves are by epoch: the validation figure and every term of the loss, as means over the seeds.
    """
    config, classes = context.config.adapt, len(common.data(context).classes)
    points = search.grid(config.search_rates, config.search_strengths)
    every = [(name, search.varied(settings, point)) for name, settings in methods.items() for point in points]
    splits, shared, seeds = (examples["adapt"], examples["validation"]), fit_of(config), range(config.seeds)

    # Heads of `HeadTraining` are fitted together as one program, others each by their own `fit`.
    together = [settings for _, settings in every if isinstance(settings, HeadTraining)]
    if together:
        mesh = devices.local_mesh(context.mesh)
        group = fit_heads(
            together, *splits, classes=classes, seeds=seeds, settings=shared, mesh=mesh, keep_diverged=True
        )
        fitted = [(group, index) for index in range(len(every))]
    else:
        fitted = [
            (own_head.fit(METHODS[name], settings, *splits, classes=classes, seeds=seeds, shared=shared), 0)
            for name, settings in every
        ]
    best = np.stack([one.history[index].max(axis=-1) for one, index in fitted])
    for number, (name, settings) in enumerate(methods.items()):
        first = number * len(points)
        scores = best[first : first + len(points)]
        if not np.isfinite(scores.mean(axis=-1)).any():
            factors = f" (times {config.search_rates})" if len(config.search_rates) > 1 else ""
            key, rate = f"{search.key_prefix(name)}.learning_rate", getattr(every[first][1], "learning_rate", None)
            raise ConfigError(key, rate, f"a value with which {name} stays finite{factors}")
        attacked, notes = getattr(settings, "attacked_share", 0) > 0, fitted[first][0].notes
        taken, facts = _choose(context, name, settings, scores, notes, attacked)
        one, index = fitted[first + taken]
        facts["chosen_epochs"] = one.chosen[index].tolist()
        curves = {"validation": one.history, **one.losses}
        means = {term: values[index].mean(axis=0).tolist() for term, values in curves.items()}
        yield name, one.select(index), facts, [dict(zip(means, row)) for row in zip(*means.values())]


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
    config, settings = context.config.adapt, tower_fit(context.config.adapt)
    functions, params = common.encoder(context, context.stage_run.condition)
    train, validation = (
        Images(split.images, split.labels, np.asarray(examples[part].features)) for part, split in splits.items()
    )
    # Before the weights, which a class without examples has none of.
    classes = len(common.data(context).classes)
    notes = check_classes(train.labels, validation.labels, classes, settings.multi_label)
    weights = class_weights_of(train.labels, classes, config.class_weights, settings.multi_label)
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
    taken, facts = _choose(context, name, method, np.asarray(figures), notes, method.uses_attacked)
    fits = outcomes[taken]
    facts |= {"chosen_epochs": [one.chosen for one in fits], "losses": [one.losses for one in fits]}
    facts["share"] = fits[0].share
    context.say(f"  {name}: {100 * fits[0].share:.2f} % of the encoder's parameters trained")
    tensors = jax.tree.map(lambda *leaves: np.stack(leaves), *[one.trained for one in fits])

    def write() -> None:
        files.write_tensors(place / f"{name}.safetensors", flat(tensors))
        files.write_json(place / f"{name}.json", facts)

    hosts.first_does(write)
    return facts


def task_of(context: Context, functions: DualEncoderFunctions, params: Params) -> Task:
    """Return the classes' prompt ensembles and the logit scale of an encoder."""
    return Task(common.class_embeddings(context, functions, params), functions.logit_scale(params))


def _examples(
    context: Context,
    functions: DualEncoderFunctions,
    params: Params,
    splits: Mapping[str, common.Split],
    with_attack: bool,
    modality: str = BOTH,
) -> dict[str, Examples]:
    features = {name: common.image_features(context, functions, params, split.images) for name, split in splits.items()}
    asked = {
        name: common.question_features(context, functions, params, split.questions) for name, split in splits.items()
    }
    clean = {
        name: Examples(np.asarray(common.head_input(features[name], asked[name], modality)), split.labels)
        for name, split in splits.items()
    }
    if not with_attack:
        return clean
    config = context.config.adapt
    settings = pgd.PGD(config.epsilon, config.step, config.attack_steps)
    probe = _probe(context, clean) if config.defence_source == "probe" else None

    def attacked_features(shared: PyTree, rows: PyTree) -> PyTree:
        params, head = shared
        raw, clean, labels, keys, questions = rows
        images = as_float(raw)

        def away(x: jax.Array) -> jax.Array:
            found = functions.image_features(params, x)
            if head is None:
                return jnp.sum((found - clean) ** 2, axis=-1)
            each = losses.binary_cross_entropy if config.task == "multi" else losses.cross_entropy
            return each(common.head_input(found, questions, modality) @ head["kernel"] + head["bias"][None], labels)

        attacked = pgd.pgd(away, images, keys, settings).images
        return common.head_input(functions.image_features(params, attacked), questions, modality)

    run_rows = common.row_map(context, ("attacked_features", functions, probe is None, modality), attacked_features)
    found = {}
    for name, split in splits.items():
        keys = common.example_keys(context, "adapt/defence", split.ids)
        parts = []
        title = f"adapt {context.stage_run.condition}: attacking {name}"
        with Progress(title, len(split.ids), unit="images") as progress:
            rows = (split.images, features[name], split.labels, keys, asked[name])
            for done, part in run_rows.batches((params, probe), rows):
                parts.append(part)
                progress.update(done)
                context.check_stop(f"attacking {name}")
        found[name] = clean[name]._replace(attacked=np.concatenate(parts))
    return found


def _probe(context: Context, examples: Mapping[str, Examples]) -> Params:
    """The linear probe that cached defence examples are made against."""
    config = context.config.adapt
    fitted = fit_heads(
        [settings_of(config, "lp")],
        *(examples[name] for name in ("adapt", "validation")),
        classes=len(common.data(context).classes),
        seeds=[0],
        settings=fit_of(config),
    )
    return fitted.select(0, 0)["params"]["classifier"]


def _of_one_program(heads: Mapping[str, object], wanted: Mapping[str, Features]) -> list[list[str]]:
    """Names of methods that one compiled program trains together: one head shape, RAN with its ablations and AT."""
    groups: dict[Hashable, list[str]] = {}
    for name, settings in heads.items():
        if isinstance(settings, HeadTraining):
            terms = "defence" if settings.uses_attacked else tuple(settings.terms)
            schedule = (settings.top_k, settings.svd_every, settings.epochs_share)
            groups.setdefault((settings.head, schedule, wanted[name], terms), []).append(name)
        else:
            groups[name] = [name]
    return list(groups.values())
