"""Adapt: heads on the frozen encoder of one upstream arm, every method and seed, from cached features."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

from ranjax.attacks import image as image_attacks
from ranjax.pipeline import Context
from ranjax.stages import common
from ranjax.training.adapt import METHODS, Examples, Fit, Method, fit_heads
from ranjax.training.pretrain import as_float
from ranjax.training.progress import Progress

FILE = "heads.safetensors"


def run(context: Context) -> dict[str, Any]:
    """Leaves heads.safetensors (``method/path`` with a leading axis of seeds) and the choice of epochs."""
    config, data = context.config, common.data(context)
    functions, params = common.encoder(context, context.this.arm)
    methods = {name: method_of(config.adapt, name) for name in config.adapt.methods}
    with_attack = any(uses_attacked(m) for m in methods.values())
    train, validation = (
        _examples(context, functions, params, data.task_split(name), name, with_attack)
        for name in ("adapt", "validation")
    )
    settings = Fit(epochs=config.adapt.epochs, batch_size=config.adapt.batch_size)
    seeds = range(config.adapt.seeds)
    tensors: dict[str, np.ndarray] = {}
    summary = {}
    for names in _of_one_shape(methods):
        context.check_stop("before " + ", ".join(names))
        group = [methods[name] for name in names]
        fitted = fit_heads(group, train, validation, classes=len(data.classes), seeds=seeds, settings=settings)
        for number, name in enumerate(names):
            tensors |= _flat(fitted.select(number), name)
            best = fitted.history[number].max(axis=-1)
            context.say(
                f"  {name}: {'clean and attacked' if methods[name].attacked_share else 'clean'} validation accuracy "
                f"{best.mean():.3f} over {len(best)} seeds"
            )
            summary[name] = {
                "settings": dataclasses.asdict(methods[name]) | {"weights": methods[name].weights._asdict()},
                "chosen_epochs": fitted.chosen[number].tolist(),
                "validation": best.tolist(),
                "notes": list(fitted.notes),
            }
    save_file(tensors, context.folder / FILE)
    return {"methods": summary, "classes": list(data.classes), "width": int(train.features.shape[-1])}


def method_of(adapt: Any, name: str) -> Method:
    """A method of `METHODS` with the config's weights in the terms that the method has."""
    base = METHODS[name]
    own = {"mse": adapt.mse, "cov": adapt.cov, "svd": adapt.svd}
    own |= {term: adapt[term] for term in ("defence_ce", "defence_consistency", "defence_kl")}
    weights = base.weights._replace(**{term: v for term, v in own.items() if getattr(base.weights, term)})
    rate = adapt.lp_learning_rate if base.head == "linear" else adapt.learning_rate
    return dataclasses.replace(
        base, weights=weights, learning_rate=rate, weight_decay=adapt.weight_decay, top_k=adapt.top_k
    )


def uses_attacked(method: Method) -> bool:
    return method.attacked_share > 0 or any(
        getattr(method.weights, t) for t in method.weights._fields if "defence" in t
    )


def load_heads(folder: Path) -> dict[str, Any]:
    """{method: {"params", "stats"}} with a leading axis of seeds, as `run` left them."""
    found: dict[str, Any] = {}
    for path, value in load_file(folder / FILE).items():
        node = found
        *parts, last = path.split("/")
        for part in parts:
            node = node.setdefault(part, {})
        node[last] = jnp.asarray(value)
    for heads in found.values():
        heads.setdefault("stats", {})
    return found


def _examples(
    context: Context, functions: Any, params: Any, split: common.Split, name: str, with_attack: bool
) -> Examples:
    features = common.image_features(context, functions, params, split.images)
    if not with_attack:
        return Examples(features, split.labels)
    config = context.config.adapt
    settings = image_attacks.PGD(config.epsilon, config.step, config.attack_steps)

    def attacked_features(shared: Any, rows: Any) -> jax.Array:
        images, clean, keys = as_float(rows[0]), rows[1], rows[2]

        def away(x: jax.Array) -> jax.Array:
            return jnp.sum((functions.image_features(shared, x) - clean) ** 2, axis=-1)

        return functions.image_features(shared, image_attacks.pgd(away, images, keys, settings).images)

    run_rows = common.row_map(context, ("attacked_features", functions), attacked_features)
    keys = common.example_keys(context, "adapt/defence", split.ids)
    parts = []
    title = f"adapt {context.this.arm}: attacking {name}"
    with Progress(title, len(split.ids), unit="images") as progress:
        for done, part in run_rows.batches(params, (split.images, features, keys)):
            parts.append(part)
            progress.update(done)
            context.check_stop(f"attacking {name}")
    return Examples(features, split.labels, np.concatenate(parts))


def _of_one_shape(methods: dict[str, Method]) -> list[list[str]]:
    """Names of methods that one compiled program can train together: one head shape, one set of terms."""
    groups: dict[Any, list[str]] = {}
    for name, method in methods.items():
        terms = tuple(bool(w) for w in method.weights)
        groups.setdefault((method.head, method.top_k, terms), []).append(name)
    return list(groups.values())


def _flat(variables: Any, prefix: str) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return {"/".join([prefix, *(str(k.key) for k in path)]): np.ascontiguousarray(leaf) for path, leaf in leaves}
