"""Report: results.json (a function of config and seed alone), run.json (times, machine), and the page made of them."""

from __future__ import annotations

import base64
import importlib.metadata
import os
import platform
import sys
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ranjax import config as configs
from ranjax import files
from ranjax.data.images import encode_png, to_float
from ranjax.pipeline import Context
from ranjax.reporting import page
from ranjax.stages import common, evaluate

SCHEMA = 1
MAGNIFICATION = 10
PACKAGES = ("ranjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets", "grain")


def run(context: Context) -> dict[str, Any]:
    """Leaves results.json and run.json in the workdir, and report/index.html."""
    data = common.data(context)
    parts = [files.read_json(context.folder_of(r.id) / evaluate.FILE) for r in context.plan if r.stage == "evaluate"]
    results = {
        "schema": SCHEMA,
        "rows": [row for part in parts for row in part["rows"]],
        "comparisons": [c for part in parts for c in part["comparisons"]],
        "spectra": [s for part in parts for s in part["spectra"]],
        "masking": [m for part in parts for m in part["masking"]],
        "chance": parts[0]["chance"],
        "classes": list(data.classes),
        "examples": _examples(context),
        "card": _card(context),
        "config": _nested(context.config),
    }
    path = context.workdir / "results.json"
    files.write_json(path, results)
    files.write_json(context.workdir / "run.json", _run_facts(context))
    page.write_report(path, context.workdir / "run.json", context.folder)
    return {"rows": len(results["rows"]), "results": files.sha256(path)}


def _examples(context: Context) -> list[dict[str, Any]]:
    """Attacked pairs at evenly spaced ranks of the loss's rise, from the least to the most changed."""
    count = context.config.report.examples
    crafted = [r for r in context.plan if r.stage == "craft"]
    if not (crafted and count):
        return []
    from ranjax.data.store import NoisyStore

    store = NoisyStore.open(context.folder_of("craft") / "store")
    train = common.data(context).prepared.splits["train"]
    place = {name: i for i, name in enumerate(train.ids)}
    origin = {name: store.provenance(name) for name in store.ids}
    ranked = sorted(store.ids, key=lambda name: (origin[name]["loss_after"] - origin[name]["loss_before"], name))
    picks = np.unique(np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int))
    return [_example(context, store[ranked[i]], train.meta(place[ranked[i]])) for i in picks]


def _example(context: Context, twin: dict[str, Any], origin: dict[str, Any]) -> dict[str, Any]:
    clean = to_float(twin["clean_image"])
    shown = np.clip(0.5 + MAGNIFICATION * (twin["image"] - clean), 0, 1)
    provenance = twin["provenance"]
    return {
        "id": twin["id"],
        "arm": context.config.noise.recipe,
        "image": _png(clean),
        "attacked": _png(twin["image"]),
        "difference": _png(shown),
        "magnification": MAGNIFICATION,
        "report": origin["report"],
        "attacked_report": twin["report"],
        "changed": provenance["changed"],
        "norm": provenance["norm"],
        "loss_before": provenance["loss_before"],
        "loss_after": provenance["loss_after"],
        "label": origin["label"],
    }


def _png(image: np.ndarray) -> str:
    """A grey image f32[H, W, 1] in [0, 1] as base64 PNG."""
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return base64.b64encode(encode_png(pixels)).decode()


def _card(context: Context) -> dict[str, Any]:
    prepared, manifest = common.data(context).prepared, context.manifest_of("prepare")
    reasons: dict[str, int] = {}
    for exclusion in manifest["exclusions"]:
        reasons[exclusion["reason"]] = reasons.get(exclusion["reason"], 0) + 1
    kept = {name: f"{count} records" for name, count in manifest["counts"].items()}
    left_out = {reason: f"{count} records" for reason, count in sorted(reasons.items())} or "nothing"
    return {
        **prepared.card,
        "records": kept,
        "left out": left_out,
        "reports cut to the token limit": manifest["truncated_reports"],
        "fingerprint": prepared.fingerprint,
    }


_PLACES = ("data.dir", "compile_cache", "quick_compile", "devices")
"""Keys that say where or on what a run works, not what it finds; they stay out of results.json."""


def _nested(config: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in configs.flatten(config).items():
        if name in _PLACES:
            continue
        node = tree
        *path, last = name.split(".")
        for part in path:
            node = node.setdefault(part, {})
        node[last] = list(value) if isinstance(value, tuple) else value
    return tree


def _run_facts(context: Context) -> dict[str, Any]:
    begun = (context.workdir / "config.json").stat().st_mtime
    first = context.folder_of("prepare") / "stage.json"
    begun = min(begun, first.stat().st_mtime)
    stages = []
    for other in context.plan:
        if other.id != context.this.id:
            seconds = context.manifest_of(other.id)["seconds"]
            done = other.id in context.shared.get("skipped", ())
            stages.append({"name": other.stage, "arm": other.arm or None, "seconds": seconds, "skipped": done})
    device = context.mesh.devices.flat[0]
    return {
        "started": datetime.fromtimestamp(begun, UTC).isoformat(timespec="seconds"),
        "command": "python -m ranjax.main " + " ".join(sys.argv[1:]),
        "stages": stages,
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
            "devices": [f"{device.platform}:{d.id}" for d in context.mesh.devices.flat],
            "device kind": device.device_kind,
        },
        "versions": {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in PACKAGES}},
    }
