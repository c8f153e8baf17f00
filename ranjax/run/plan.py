"""The plan of a config: its stage runs in order, the keys that decide each, and folders that another config made.

Nothing runs here; `ranjax.run.pipeline` carries a plan out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from ranjax.core import files, lazy
from ranjax.data.recipe_table import RECIPES
from ranjax.methods.table import selected
from ranjax.models.controls import CONTROLS, Control
from ranjax.run import config as configs
from ranjax.run.schema import TABLES, RunConfig
from ranjax.run.schema.entry_keys import Config

SCHEMA = 1
"""Raise it when a change of the code makes finished stages of older runs incomparable."""


@dataclass(frozen=True)
class StageRun:
    """One run of a stage.

    Attributes:
      stage: one of prepare, pretrain, craft, adapt, evaluate, report.
      condition: the upstream condition, e.g. "coattack_10"; empty where there is none.
      ratio: the share of noisy pairs of the condition.
      needs: ids of the stage runs that it reads.
      keys: config keys or groups that decide its outcome.
      run: takes a `context.Context`, carries it out, and returns what goes into the manifest.
      recipe: the recipe of the condition's noisy pairs; empty: `noise.recipe`.
    """

    stage: str
    condition: str
    ratio: float
    needs: tuple[str, ...]
    keys: tuple[str, ...]
    run: Callable[..., Mapping[str, object]]
    recipe: str = ""

    @property
    def id(self) -> str:
        # Not below craft/, the folder of the run that crafts noise.recipe: each folder belongs to one run.
        stage = "controls" if self.stage == "craft" and self.condition else self.stage
        return f"{stage}/{self.condition}" if self.condition else self.stage


def condition_name(recipe: str, ratio: float) -> str:
    """Return the condition of an upstream run: "clean" at ratio 0, else e.g. "coattack_10" (per cent;
    "coattack_2.5").
    """
    return "clean" if ratio == 0 else f"{recipe}_{100 * ratio:g}"


def _stage(name: str) -> Callable[..., Mapping[str, object]]:
    return lazy.function(f"ranjax.run.stages.{name}", "run")


def recipes(config: Config) -> tuple[str, ...]:
    """Return the names of `noise.recipe` and then of the recipes that get conditions of their own."""
    controls = RECIPES.names_of([name for name in config.noise.controls if name], "noise.controls")
    return RECIPES.resolve(config.noise.recipe).name, *controls


def controls(config: Config) -> tuple[Control, ...]:
    """Return the entries of `adapt.controls`; none where no method is a head, as others are not fitted on them."""
    heads = any(method.family == "head" for method in selected(config.adapt.methods).values())
    return tuple(CONTROLS.resolve(name) for name in config.adapt.controls) if heads else ()


def plan(config: Config) -> tuple[StageRun, ...]:
    """Return the stage runs of a config, each after those that it needs."""
    common = ("seed",)
    model = (*common, "data", "text", "model", "pretrain")
    prepare = (*common, "data", "text", "model.weights", "model.text_weights")
    runs = [
        StageRun("prepare", "", 0.0, (), prepare, _stage("prepare")),
        StageRun("pretrain", "clean", 0.0, ("prepare",), model, _stage("pretrain")),
    ]
    # Noisy pairs, one store a recipe, and the conditions that are trained on shares of them.
    noisy = [r for r in config.noise.ratios if r > 0]
    conditions = [("clean", 0.0, "")]
    for recipe in recipes(config) if noisy else ():
        own = "" if recipe == recipes(config)[0] else recipe
        needs = ("prepare", "pretrain/clean")
        runs.append(StageRun("craft", own, max(noisy), needs, (*common, "noise"), _stage("craft"), recipe))
        chosen = [r for r in config.noise.control_ratios if r > 0] if own else []
        conditions += [(condition_name(recipe, ratio), ratio, recipe) for ratio in chosen or noisy]
    crafted = {run.recipe: run.id for run in runs if run.stage == "craft"}
    for condition, ratio, recipe in conditions[1:]:
        needs = ("prepare", crafted[recipe])
        runs.append(StageRun("pretrain", condition, ratio, needs, model, _stage("pretrain"), recipe))
    # Every encoder is adapted and evaluated, noisy ones beside the clean one; the report reads all.
    for condition, ratio, recipe in conditions:
        needs = ("prepare", f"pretrain/{condition}")
        adapt = StageRun("adapt", condition, ratio, needs, ("seed", "adapt"), _stage("adapt"), recipe)
        needs = (*needs, adapt.id, *(("evaluate/clean",) if ratio else ()))
        runs += [adapt, StageRun("evaluate", condition, ratio, needs, ("seed", "evaluate"), _stage("evaluate"), recipe)]
    # Controls have no upstream run of their own; no other condition reads them.
    for control in controls(config):
        keys = ("seed", *control.keys)
        adapt = StageRun("adapt", control.name, 0.0, ("prepare",), (*keys, "adapt"), _stage("adapt"))
        needs = ("prepare", adapt.id)
        runs += [adapt, StageRun("evaluate", control.name, 0.0, needs, (*keys, "evaluate"), _stage("evaluate"))]
    needs = tuple(run.id for run in runs if run.stage in ("prepare", "evaluate", "craft"))
    runs.append(StageRun("report", "", 0.0, needs, ("report",), _stage("report")))
    return tuple(runs)


_PLACES = (
    "data.dir",
    "data.threads",
    "pretrain.accumulate",
    "pretrain.loss_chunk",
    "pretrain.keep",
    "pretrain.keep_best",
    "pretrain.checkpoint_every",
    "pretrain.log_every",
    "evaluate.batch_size",
    "model.attention",
)
"""Keys of places, intervals, parts and forms, which decide no result (parts and forms: up to rounding)."""


CONDITIONS = ("noise.ratios", "noise.controls", "noise.control_ratios", "adapt.controls")
"""Keys that say which conditions a run has; they decide no figure of any one of them."""


def decided_by(config: Config, run: StageRun) -> dict[str, object]:
    """Return the part of a config that decides the outcome of a stage run, flat, with its own ratio and recipe."""
    left_out = (*_PLACES, *CONDITIONS)
    flat = {}
    for name, value in configs.flatten(config).items():
        decides = any(name == key or name.startswith(f"{key}.") for key in run.keys) and name not in left_out
        parts = name.split(".")
        of_another_source = parts[0] == "data" and len(parts) == 3 and parts[1] != config.data.source
        if decides and not of_another_source:
            flat[name] = value
    if "noise.recipe" in flat and run.recipe:
        flat["noise.recipe"] = run.recipe
    for table in TABLES:
        if table.prefix in run.keys:
            flat.update((f"source of {table.prefix}.{name}", sha) for name, sha in table.from_outside(config).items())
    return {**json.loads(json.dumps(flat)), "ratio": run.ratio}


def fingerprints(config: Config, runs: tuple[StageRun, ...]) -> dict[str, str]:
    """Return a hash per stage run: of the keys that decide it, of its inputs' fingerprints and of `SCHEMA`."""
    found: dict[str, str] = {}
    for run in runs:
        content = {
            "schema": SCHEMA,
            "stage": run.stage,
            "config": decided_by(config, run),
            "inputs": [found[need] for need in run.needs],
        }
        found[run.id] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return found


class Conflict(NamedTuple):
    """A folder of the workdir that was made with another config."""

    run_id: str
    changed: tuple[str, ...]


def conflicts(config: Config, workdir: Path, runs: tuple[StageRun, ...]) -> list[Conflict]:
    """Return the stage folders of `workdir` that another config made, and the keys that differ."""
    expected = fingerprints(config, runs)
    found = []
    for run in runs:
        record = workdir / run.id / "stage.json"
        if not record.exists():
            continue
        then = files.read_json(record)
        if then["fingerprint"] != expected[run.id]:
            now = decided_by(config, run)
            names = sorted(k for k in {*now, *then["config"]} if now.get(k) != then["config"].get(k))
            changed = tuple(f"{k}: {then['config'].get(k)!r} then, {now.get(k)!r} now" for k in names)
            found.append(Conflict(run.id, changed or ("an earlier stage that it reads",)))
    return found


def config_of(config: RunConfig, run: StageRun) -> RunConfig:
    """Return the config as a stage run reads it: `noise.recipe` is the name of the recipe of its condition."""
    return replace(config, noise=replace(config.noise, recipe=run.recipe or recipes(config)[0]))
