"""Verification: whether the files of a finished run are those that it wrote, and are as its config says."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ranjax.core import files
from ranjax.core.errors import DataError
from ranjax.core.math import unit_numpy
from ranjax.data import noisy_pairs
from ranjax.data import store as stores
from ranjax.data.recipe_table import RECIPES, Recipe
from ranjax.data.text.tokenizer import Tokens
from ranjax.run import plan as planning
from ranjax.run.context import Context, Mesh, context_of
from ranjax.run.stages import craft, inputs, target_features
from ranjax.run.stages.caption_checks import CaptionChecks

LOSS_TOLERANCE = 1e-3
"""Allowed between a recorded loss (a cosine) and that of the stored pair, whose pixels are rounded to 1/65535."""


@dataclass
class Verdict:
    """The findings about one stage run.

    Attributes:
      run: its id.
      checked: what was checked, e.g. "12 files".
      faults: sentences; empty: sound.
      damaged: files to make again, relative to the run's folder; a shard is named by its data file.
    """

    run: str
    checked: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def verify(config: ConfigDict, workdir: Path, mesh: Mesh, sample: int) -> Iterator[Verdict]:
    """Yield a verdict on every finished stage run of a workdir, in the order of the plan.

    Of `sample` noisy pairs of every store the loss is computed again, on the devices of `mesh`.
    """
    shared: dict[Hashable, Any] = {}
    for run in planning.plan(config):
        folder = workdir / run.id
        if not (folder / "manifest.json").is_file():
            continue
        verdict = Verdict(run.id)
        manifest = files.read_json(folder / "manifest.json")
        _files(folder, manifest.get("files", {}), verdict)
        if run.stage == "pretrain" and (folder / "checkpoints").is_dir():
            _checkpoints(folder, verdict)
        if run.stage == "craft":
            _store(context_of(config, workdir, run, mesh, shared), manifest, sample, verdict)
        yield verdict


def set_aside(workdir: Path, verdict: Verdict) -> None:
    """Move damaged files into ``damaged/`` of their stage run, and remove its manifest.

    The command of the run then makes these files again, to the same bits, and leaves the others as they are.
    """
    folder = workdir / verdict.run
    (folder / "manifest.json").unlink(missing_ok=True)
    for name in verdict.damaged:
        path = folder / name
        if path.suffix == ".array_record":
            stores.set_aside(path.parent, int(path.stem.removeprefix("shard-")))
        elif path.exists():
            aside = folder / "damaged" / name
            aside.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, aside)


def _files(folder: Path, listed: Mapping[str, str], verdict: Verdict) -> None:
    for name, digest in listed.items():
        path = folder / name
        if path.is_file() and files.sha256(path) == digest:
            continue
        changed = "does not match its SHA-256: it was changed or damaged after it was written."
        verdict.faults.append(f"{path} {changed if path.is_file() else 'is missing'}")
        verdict.damaged.append(name)
    verdict.checked.append(f"{len(listed)} files")


def _checkpoints(folder: Path, verdict: Verdict) -> None:
    from ranjax.training.checkpoints import Checkpoints

    with Checkpoints(folder / "checkpoints") as checkpoints:
        verdict.faults += checkpoints.faults()
        verdict.checked.append(f"{len(checkpoints.steps())} checkpoints")


def _store(context: Context, manifest: Mapping[str, Any], sample: int, verdict: Verdict) -> None:
    # The store as files, and as the one that was made from this surrogate and config.
    folder = context.folder / "store"
    try:
        found = stores.faults(folder)
        store = stores.NoisyStore.open(folder)
    except (DataError, ValueError) as error:
        verdict.faults.append(str(error))
        return
    verdict.faults += [fault.what for fault in found]
    bad = sorted({fault.shard for fault in found})
    verdict.damaged += [f"store/shard-{number:05d}.array_record" for number in bad]
    if store.fingerprint != manifest["store"]:
        verdict.faults.append(f"{folder} is another store than the one that this run finished")
    (surrogate,) = inputs.encoder_folder(context, inputs.clean_condition(context)).glob("*.safetensors")
    if files.sha256(surrogate) != store.shared["surrogate"]:
        verdict.faults.append(f"{surrogate} is another encoder than the one that was attacked")
    train = inputs.data(context).split("train")
    taken = noisy_pairs.select(train.ids, max(context.config.noise.ratios), context.config.seed)
    chosen = {train.ids[i] for i in np.flatnonzero(taken)}
    if set(store.ids) != chosen:
        what = f"{len(set(store.ids) - chosen)} noisy pairs too many, {len(chosen - set(store.ids))} missing"
        verdict.faults.append(f"{folder} does not hold the pairs that the highest ratio takes: {what}")
    # Every pair of an undamaged shard.
    place = {name: i for i, name in enumerate(train.ids)}
    of_shards = (names for number, names in store.by_shard().items() if number not in bad)
    sound = [name for names in of_shards for name in names if name in place]
    largest, captions = 0.0, CaptionChecks(context)
    for name in sound:
        noisy_pair = store[name]
        largest = max(largest, store.norm_of(noisy_pair))
        if not np.array_equal(noisy_pair["clean_image"], train.images[place[name]]):
            verdict.faults.append(f"the clean image beside noisy pair {name!r} is not that of the source")
        if what := captions.fault(noisy_pair, train.reports[place[name]]):
            verdict.faults.append(f"noisy pair {name!r}: {what}")
    radius = f"largest norm {largest:.6f} of {store.epsilon:.6f}"
    verdict.checked.append(f"{len(store)} noisy pairs in {len(store.by_shard())} shards, {radius}")
    # The targets of all, and the losses and target cosines of a sample.
    recipe = RECIPES.resolve(context.config.noise.recipe)
    step = max(1, -(-len(sound) // max(1, sample)))
    sampled = [store[name] for name in sound[::step]] if sample else []
    if sampled:
        _losses(context, sampled, verdict)
    if recipe.needs_target:
        stored = [store.provenance(name).get("target") for name in sound]
        verdict.faults += filter(None, [target_features.fault(context, recipe, sound, stored)])
        verdict.checked.append(f"{len(sound)} targets")
    if recipe.needs_target and sampled:
        _reached(context, recipe, sampled, verdict)


def _losses(context: Context, pairs: Sequence[Mapping[str, Any]], verdict: Verdict) -> None:
    images, tokens, mask = (np.stack([pair[name] for pair in pairs]) for name in ("image", "tokens", "mask"))
    found = craft.pair_losses(context, images, Tokens(tokens, mask, np.zeros_like(tokens), 0))
    written = np.array([pair["provenance"]["loss_after"] for pair in pairs])
    apart = np.abs(found - written)
    for i in np.flatnonzero(~(apart <= LOSS_TOLERANCE)):
        name = pairs[int(i)]["id"]
        verdict.faults.append(f"noisy pair {name!r} has loss {found[i]:.5f}, {written[i]:.5f} was written down")
    verdict.checked.append(f"{len(pairs)} losses computed again, largest difference {apart.max():.1e}")


def _reached(context: Context, recipe: Recipe, pairs: Sequence[Mapping[str, Any]], verdict: Verdict) -> None:
    """Compute the cosines to target and own clean image again, and compare the success that follows from them."""
    train = inputs.data(context).split("train")
    place = {name: i for i, name in enumerate(train.ids)}
    sampled = train.take(np.array([place[pair["id"]] for pair in pairs]))
    targets = target_features.of_run(context, recipe, sampled)
    functions, params = inputs.encoder(context, inputs.clean_condition(context))
    images = np.stack([pair["image"] for pair in pairs])
    attacked = unit_numpy(inputs.image_features(context, functions, params, images))
    apart = 0.0
    for pair, found in zip(pairs, targets.reached(range(len(pairs)), attacked), strict=True):
        written, margin = pair["provenance"], found["target_cosine"] - found["own_cosine"]
        names = ("target_cosine", "own_cosine", "target_cosine_before")
        apart = max([apart, *(abs(found[name] - written.get(name, np.inf)) for name in names)])
        wrong = [n for n in names if not abs(found[n] - written.get(n, np.inf)) <= LOSS_TOLERANCE]
        if abs(margin) > 2 * LOSS_TOLERANCE and found["success"] != written["success"]:
            wrong.append("success")
        verdict.faults += [
            f"noisy pair {pair['id']!r} has {name} {found[name]}, {written.get(name)} was written down"
            for name in wrong
        ]
    verdict.checked.append(f"{len(pairs)} target cosines computed again, largest difference {apart:.1e}")
