"""Adapt: every method and seed on one upstream condition's encoder; heads from cached features, tuned ones from images."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ranjax.attacks import losses
from ranjax.attacks import pgd as image_attacks
from ranjax.core import files
from ranjax.core.errors import ConfigError, DataError
from ranjax.core.pixels import as_float
from ranjax.evaluation import zero_shot
from ranjax.evaluation.questions import BOTH
from ranjax.methods.head_inputs import check_classes
from ranjax.methods.head_training import METHODS, Examples, Fit, Method, class_weights_of, fit_heads
from ranjax.methods.tower_methods import Images, Task, Tuned, describe_scope
from ranjax.methods.tower_training import Diverged, Outcome, tune
from ranjax.models import input_filter
from ranjax.run.context import Context
from ranjax.run.schema.adapt_keys import TEST_TIME
from ranjax.run.stages import inputs as common
from ranjax.run.stages import labels
from ranjax.run.stages import search_grid as adapt_search
from ranjax.run.stages.adapted_encoder import FILE, behind_filter, method_of, rate_key, tuned_of, uses_attacked
from ranjax.training import devices, hosts, metrics_log
from ranjax.training.progress import Progress


def run(context: Context) -> dict[str, Any]:
    """Leaves heads.safetensors and tuned/METHOD.safetensors (paths, with a leading axis of seeds), and the choices."""
    config, data = context.config, common.data(context)
    functions, params = common.encoder(context, context.stage_run.condition)
    train, validation = data.task_split("adapt"), data.task_split("validation")
    if config.adapt.shots or config.adapt.share < 1:
        train = train.take(labels.chosen(config.adapt, config.seed, train.ids, train.labels, data.classes))
    splits = {"adapt": train, "validation": validation}
    tuned = {name: found for name in config.adapt.methods if (found := tuned_of(config.adapt, name)) is not None}
    cached = {
        name: method_of(config.adapt, name) for name in config.adapt.methods if name in METHODS and name not in tuned
    }
    _check_sees(cached, data)
    summary: dict[str, Any] = {}
    tensors: dict[str, np.ndarray] = {}
    lines: list[str] = []
    examples: dict[tuple[bool, str], dict[str, Examples]] = {}
    for names in _of_one_program(cached):
        context.check_stop("before " + ", ".join(names))
        group = {name: cached[name] for name in names}
        filtered, sees = given = group[names[0]].filtered, group[names[0]].sees
        if given not in examples:
            with_attack = any(uses_attacked(m) for m in cached.values() if (m.filtered, m.sees) == given)
            front = behind_filter(config.adapt, params) if filtered else params
            examples[given] = _examples(context, functions, front, splits, with_attack, sees)
        for name, heads, facts, curves in _fit(context, group, examples[given]):
            if filtered:
                taps = input_filter.gaussian(config.adapt.filter)
                heads["encoder"] = {input_filter.NAME: jax.tree.map(lambda x: np.stack([x] * config.adapt.seeds), taps)}
            tensors |= _flat(heads, name)
            summary[name] = facts
            lines += [json.dumps({"method": name, "epoch": epoch, **row}) for epoch, row in enumerate(curves, start=1)]

    def write() -> None:
        files.write_text(context.folder / metrics_log.FILE, "".join(f"{line}\n" for line in lines))
        files.write_tensors(context.folder / FILE, tensors)

    hosts.first_does(write)
    own = (False, BOTH)
    # A tower is trained on images alone: its methods are blind to questions.
    if tuned and (data.asks or own not in examples):
        blind = {name: split._replace(asked=None) for name, split in splits.items()}
        examples[own] = _examples(context, functions, params, blind, False)
    for name in config.adapt.methods:
        if name in tuned:
            summary[name] = _tuned(context, name, tuned[name], train, validation, examples[own])
        elif name in TEST_TIME:
            summary[name] = {"trained": 0}
    width = int(functions.config.embed_dim)
    # In the order of the config, which is that of every table.
    chosen = {"examples": len(train.ids), "shots": config.adapt.shots, "share": config.adapt.share}
    ordered = {name: summary[name] | {"data": chosen} for name in config.adapt.methods}
    return {"methods": ordered, "classes": list(data.classes), "width": width, "examples": len(train.ids)}


def _check_sees(methods: Mapping[str, Method], data: common.Data) -> None:
    one_sided = [name for name, method in methods.items() if method.sees != BOTH]
    if one_sided and not data.asks:
        raise ConfigError("adapt.methods", one_sided, "methods of an image alone: this is no set of questions")
    if data.asks and data.split("validation").asked is None:
        raise DataError("the labelled split asks questions about its images, the validation split does not")


def _fit(context: Context, methods: Mapping[str, Method], examples: Mapping[str, Examples]) -> Any:
    """(name, heads, facts, curves) of every method, each at the point of the grid that validates best over its seeds.

    Curves are by epoch: the validation figure and every term of the loss, as means over the seeds.
    """
    config, classes = context.config.adapt, len(common.data(context).classes)
    points, seeds = adapt_search.grid(config), range(config.seeds)
    multi_label = config.task == "multi"
    settings = Fit(config.epochs, config.batch_size, config.metric, multi_label, config.class_weights)
    every = [adapt_search.varied(method, point) for method in methods.values() for point in points]
    train, validation = examples["adapt"], examples["validation"]
    own = devices.local_mesh(context.mesh)
    fitted = fit_heads(
        every, train, validation, classes=classes, seeds=seeds, settings=settings, mesh=own, keep_diverged=True
    )
    best = fitted.history.max(axis=-1).reshape(len(methods), len(points), len(seeds))
    for number, name in enumerate(methods):
        scores = best[number].mean(axis=-1)
        if not np.isfinite(scores).any():
            first = methods[name]
            factors = f" (times {config.search_rates})" if len(config.search_rates) > 1 else ""
            raise ConfigError(
                f"adapt.{rate_key(first)}", first.learning_rate, f"a value with which {name} stays finite{factors}"
            )
        taken = int(scores.argmax())
        index = number * len(points) + taken
        method, found = every[index], best[number, taken]
        context.say(
            f"  {name}: {'clean and attacked' if method.attacked_share else 'clean'} validation {config.metric} "
            f"{found.mean():.3f} over {len(found)} seeds"
        )
        facts = {
            "settings": dataclasses.asdict(method) | {"weights": method.weights._asdict()},
            "chosen_epochs": fitted.chosen[index].tolist(),
            "validation": found.tolist(),
            "notes": list(fitted.notes),
        }
        if len(points) > 1:
            facts["search"] = adapt_search.searched(points, scores, taken)
            for note in adapt_search.diverged(name, points, scores):
                context.say(f"  {note}")
                facts["notes"].append(note)
        terms = {"validation": fitted.history, **fitted.losses}
        means = {term: values[index].mean(axis=0).tolist() for term, values in terms.items()}
        curves = [dict(zip(means, row)) for row in zip(*means.values())]
        yield name, fitted.select(index), facts, curves


def _tuned(
    context: Context,
    name: str,
    method: Tuned,
    train: common.Split,
    validation: common.Split,
    examples: Mapping[str, Examples],
) -> dict[str, Any]:
    """Fits one method that reaches into the encoder; what an interrupted run finished is kept."""
    place = context.folder / "tuned"
    if hosts.agree((place / f"{name}.json").exists()):
        return files.read_json(place / f"{name}.json")
    config, points = context.config.adapt, adapt_search.grid(context.config.adapt)
    functions, params = common.encoder(context, context.stage_run.condition)
    held = [
        Images(split.images, split.labels, np.asarray(examples[part].features))
        for part, split in (("adapt", train), ("validation", validation))
    ]
    multi_label, classes = config.task == "multi", len(common.data(context).classes)
    # Before the weights, which a class without examples has none of.
    notes = list(check_classes(train.labels, validation.labels, classes, multi_label))
    weights = class_weights_of(train.labels, classes, config.class_weights, multi_label)
    task = task_of(context, functions, params)._replace(weights=weights)
    context.say(f"  {name}, of the encoder:")
    for line in describe_scope(method, params, adapt_search.tune_settings(config, method, points[0])).splitlines():
        context.say(f"    {line}")
    mesh = devices.local_mesh(context.mesh)  # several processes all find the same, each by itself
    outcomes: list[list[Outcome]] = []
    scores: list[float] = []
    failures: list[Diverged] = []
    for point in points:
        settings = adapt_search.tune_settings(config, method, point)
        try:
            fits = [
                tune(functions, params, method, *held, task, seed=seed, settings=settings, mesh=mesh,
                     check_stop=lambda where: context.check_stop(f"{name}: {where}"))
                for seed in range(config.tuned_seeds)
            ]  # fmt: skip
        except Diverged as error:
            failures.append(error)
            fits = []
        outcomes.append(fits)
        scores.append(float(np.mean([max(one.history) for one in fits])) if fits else -np.inf)
    if len(failures) == len(points):
        raise DataError(f"{name}: {failures[0]}") from failures[0]
    for note in adapt_search.diverged(name, points, scores):
        context.say(f"  {note}")
        notes.append(note)
    taken = int(np.argmax(scores))
    fits = outcomes[taken]
    tensors = jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *[one.trained for one in fits])
    context.say(
        f"  {name}: {'clean and attacked' if method.attacks else 'clean'} validation {config.metric} "
        f"{scores[taken]:.3f} "
        f"over {len(fits)} seeds; {100 * fits[0].share:.2f} % of the encoder's parameters trained"
    )
    facts = {
        "settings": dataclasses.asdict(method),
        "chosen_epochs": [one.chosen for one in fits],
        "validation": [max(one.history) for one in fits],
        "losses": [one.losses for one in fits],
        "share": fits[0].share,
        "notes": notes,
    }
    if len(points) > 1:
        facts["search"] = adapt_search.searched(points, scores, taken)

    def write() -> None:
        files.write_tensors(place / f"{name}.safetensors", _flat(tensors, ""))
        files.write_json(place / f"{name}.json", facts)

    hosts.first_does(write)
    return facts


def task_of(context: Context, functions: Any, params: Any) -> Task:
    """The classes' prompt ensembles and the logit scale of an encoder."""
    data = common.data(context)
    pairs = [(text, c) for c, name in enumerate(data.classes) for text in data.prepared.prompts[name]]
    texts = common.text_features(context, functions, params, data.encode([text for text, _ in pairs]))
    owner = jnp.asarray([c for _, c in pairs], jnp.int32)
    embedded = zero_shot.class_embeddings(jnp.asarray(texts), owner, len(data.classes))
    return Task(embedded, functions.logit_scale(params))


def _examples(
    context: Context,
    functions: Any,
    params: Any,
    splits: Mapping[str, common.Split],
    with_attack: bool,
    sees: str = BOTH,
) -> dict[str, Examples]:
    features = {name: common.image_features(context, functions, params, split.images) for name, split in splits.items()}
    asked = {n: common.question_features(context, functions, params, split.asked) for n, split in splits.items()}
    clean = {
        name: Examples(np.asarray(common.seen(features[name], asked[name], sees)), split.labels)
        for name, split in splits.items()
    }
    if not with_attack:
        return clean
    config = context.config.adapt
    settings = image_attacks.PGD(config.epsilon, config.step, config.attack_steps)
    probe = _probe(context, clean) if config.defence_source == "probe" else None

    def attacked_features(shared: Any, rows: Any) -> jax.Array:
        params, head = shared
        raw, clean, labels, keys, asked = rows
        images = as_float(raw)

        def away(x: jax.Array) -> jax.Array:
            found = functions.image_features(params, x)
            if head is None:
                return jnp.sum((found - clean) ** 2, axis=-1)
            each = losses.binary_cross_entropy if config.task == "multi" else losses.cross_entropy
            return each(common.seen(found, asked, sees) @ head["kernel"] + head["bias"][None], labels)

        moved = image_attacks.pgd(away, images, keys, settings).images
        return common.seen(functions.image_features(params, moved), asked, sees)

    run_rows = common.row_map(context, ("attacked_features", functions, probe is None, sees), attacked_features)
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


def _probe(context: Context, examples: Mapping[str, Examples]) -> Any:
    """The linear probe that cached defence examples are made against."""
    config = context.config.adapt
    fitted = fit_heads(
        [method_of(config, "lp")],
        *(examples[name] for name in ("adapt", "validation")),
        classes=len(common.data(context).classes),
        seeds=[0],
        settings=Fit(config.epochs, config.batch_size, config.metric, config.task == "multi", config.class_weights),
    )
    return fitted.select(0, 0)["params"]["classifier"]


def _of_one_program(methods: Mapping[str, Method]) -> list[list[str]]:
    """Names of methods that one compiled program trains together: one head shape, RAN with its ablations and AT."""
    groups: dict[Any, list[str]] = {}
    for name, method in methods.items():
        terms = "defence" if uses_attacked(method) else tuple(bool(w) for w in method.weights)
        schedule = (method.top_k, method.svd_every, method.epochs_share)
        groups.setdefault((method.head, schedule, method.filtered, method.sees, terms), []).append(name)
    return list(groups.values())


def _flat(variables: Any, prefix: str) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    start = [prefix] if prefix else []
    return {"/".join([*start, *(str(k.key) for k in path)]): np.ascontiguousarray(leaf) for path, leaf in leaves}
