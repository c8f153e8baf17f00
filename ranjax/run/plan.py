"""What a config asks for: the stage runs in their order, what decides each, and which folders another config made.

Nothing runs here; `ranjax.run.pipeline` carries a plan out.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_collections

from ranjax.core import files
from ranjax.data.recipe_table import RECIPES
from ranjax.run import config as configs
from ranjax.run.schema import TABLES

SCHEMA = 1
"""Raised when a change of the code makes finished stages of older runs no longer comparable."""


@dataclass(frozen=True)
class StageRun:
    """One run of a stage: `needs` are ids of the runs it reads, `keys` the config keys or groups that decide it."""

    stage: str
    condition: str
    ratio: float
    needs: tuple[str, ...]
    keys: tuple[str, ...]
    run: Callable[[Any], dict[str, Any]]
    """Takes a `context.Context`, and returns what goes into the manifest."""
    recipe: str = ""
    """What makes the noisy pairs of this condition, in place of `noise.recipe`; empty: that one."""

    @property
    def id(self) -> str:
        # Not below craft/, which the noisy pairs of noise.recipe own: each folder belongs to one run.
        stage = "controls" if self.stage == "craft" and self.condition else self.stage
        return f"{stage}/{self.condition}" if self.condition else self.stage


def condition_name(recipe: str, ratio: float) -> str:
    """The condition of an upstream run: "clean" at ratio 0, else e.g. "coattack_10" (per cent; "coattack_2.5")."""
    return "clean" if ratio == 0 else f"{recipe}_{100 * ratio:g}"


def _stage(name: str) -> Callable[[Any], dict[str, Any]]:
    """The stage's `run`, imported when it is called: a start waits only for what it needs first."""

    def run(context: Any) -> dict[str, Any]:
        return importlib.import_module(f"ranjax.run.stages.{name}").run(context)

    return run


def recipes(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Return the names of `noise.recipe` and then of the recipes that get conditions of their own."""
    controls = RECIPES.names_of([name for name in config.noise.controls if name], "noise.controls")
    return RECIPES.resolve(config.noise.recipe).name, *controls


def plan(config: ml_collections.ConfigDict) -> tuple[StageRun, ...]:
    """The stage runs that a config asks for, in an order in which each finds what it needs."""
    common = ("seed",)
    model = (*common, "data", "text", "model", "pretrain")
    runs = [
        StageRun(
            "prepare", "", 0.0, (), (*common, "data", "text", "model.weights", "model.text_weights"), _stage("prepare")
        )
    ]
    runs.append(StageRun("pretrain", "clean", 0.0, ("prepare",), model, _stage("pretrain")))
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
    for condition, ratio, recipe in conditions:
        runs += _downstream(condition, ratio, recipe)
    needs = tuple(run.id for run in runs if run.stage in ("prepare", "evaluate", "craft"))
    runs.append(StageRun("report", "", 0.0, needs, ("report",), _stage("report")))
    return tuple(runs)


def _downstream(condition: str, ratio: float, recipe: str) -> list[StageRun]:
    """Fine-tuning on one encoder, and its evaluation; noisy conditions are also held against the surrogate's adversaries."""
    adapt = StageRun(
        "adapt", condition, ratio, ("prepare", f"pretrain/{condition}"), ("seed", "adapt"), _stage("adapt"), recipe
    )
    needs = ("prepare", f"pretrain/{condition}", adapt.id, *(("evaluate/clean",) if ratio else ()))
    return [adapt, StageRun("evaluate", condition, ratio, needs, ("seed", "evaluate"), _stage("evaluate"), recipe)]


_PLACES = (
    "data.dir",
    "data.threads",
    "pretrain.accumulate",
    "pretrain.loss_chunk",
    "pretrain.keep",
    "pretrain.keep_best",
    "pretrain.checkpoint_every",
    "pretrain.log_every",
)
"""Keys that decide where, how often or in which parts something is done, never a result (parts: up to rounding)."""


def decided_by(config: ml_collections.ConfigDict, run: StageRun) -> dict[str, Any]:
    """The part of the config that decides a run's outcome, flat; ratio and recipe count as the run has them."""
    flat = {
        name: value
        for name, value in configs.flatten(config).items()
        if any(name == key or name.startswith(f"{key}.") for key in run.keys)
        and name not in (*_PLACES, "noise.ratios", "noise.controls", "noise.control_ratios")
        and not _of_another_source(config, name)
    }
    if "noise.recipe" in flat and run.recipe:
        flat["noise.recipe"] = run.recipe
    for table in TABLES:
        if table.prefix in run.keys:
            flat.update((f"source of {table.prefix}.{name}", sha) for name, sha in table.from_outside(config).items())
    return {**json.loads(json.dumps(flat)), "ratio": run.ratio}


def _of_another_source(config: ml_collections.ConfigDict, name: str) -> bool:
    parts = name.split(".")
    return parts[0] == "data" and len(parts) == 3 and parts[1] != config.data.source


def fingerprints(config: ml_collections.ConfigDict, runs: tuple[StageRun, ...]) -> dict[str, str]:
    """A hash per run of the config keys that decide it, of its inputs' fingerprints and of `SCHEMA`."""
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


@dataclass(frozen=True)
class Conflict:
    """A folder of the workdir that was made with another config."""

    run_id: str
    changed: tuple[str, ...]


def conflicts(config: ml_collections.ConfigDict, workdir: Path, runs: tuple[StageRun, ...]) -> list[Conflict]:
    """Stage folders of `workdir` that this config would not have made, and the keys that differ."""
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
            found.append(Conflict(run.id, changed or ("an earlier stage it stands on",)))
    return found


def config_of(config: ml_collections.ConfigDict, run: StageRun) -> ml_collections.ConfigDict:
    """Return the config as a stage run reads it: `noise.recipe` is the name of the recipe of its condition."""
    name = run.recipe or recipes(config)[0]
    if name == config.noise.recipe:
        return config
    own = config.copy_and_resolve_references()
    own.noise.recipe = name
    return own
