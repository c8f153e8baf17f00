"""Report: results.json (a function of config and seed alone), run.json (times, machine), and the page made of them."""

from __future__ import annotations

import base64
import importlib.metadata
import os
import platform
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ranjax.core import files
from ranjax.core.pixels import to_float, to_uint8
from ranjax.data.images.reading import encode_png
from ranjax.data.set_account import lines
from ranjax.methods.table import selected, settings_of
from ranjax.report import bed_verdict, entry_labels, old_configs, page
from ranjax.report.stored_results import SCHEMA, Results, Row
from ranjax.run import config as configs
from ranjax.run.context import Context
from ranjax.run.schema import RunConfig
from ranjax.run.stages import cards, labels
from ranjax.run.stages import inputs as common
from ranjax.run.stages.evaluation import claim_contrasts
from ranjax.run.stages.evaluation import noise_effects as across
from ranjax.run.stages.evaluation import result_record as record

MAGNIFICATION = 10
PACKAGES = ("ranjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets", "grain")
LISTS = ("comparisons", "spectra", "masking", "calibration", "confusions", "projections")


def run(context: Context) -> dict[str, object]:
    """Leave results.json and run.json in the workdir, and report/index.html."""
    data = common.data(context)
    evaluated = [other for other in context.plan if other.stage == "evaluate"]
    folders = [context.folder_of(other.id) for other in evaluated]
    parts = [files.read_json(folder / record.FILE) for folder in folders]
    conditions = [
        across.Condition(other.recipe or other.condition, other.ratio, *record.load(folder))
        for other, folder in zip(evaluated, folders)
    ]
    resamples, seed = context.config.evaluate.bootstrap, context.config.seed
    found = labels.of_splits(data.prepared, data.multi_label)
    rows = [row for part in parts for row in part["rows"]]
    rows += across.mean_corruption_errors(conditions, resamples, seed)
    chance = {name: level for part in reversed(parts) for name, level in part["chance"].items()}
    contrasts = claim_contrasts.contrasts(_roles(context, conditions), chance, resamples, seed)
    methods = _methods(context)
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "rows": rows,
        **{name: [item for part in parts for item in part[name]] for name in LISTS},
        "effects": across.effects(conditions, resamples, seed),
        "contrasts": contrasts,
        "chance": chance,
        "independent": {split: words for part in parts for split, words in part.get("independent", {}).items()},
        "notes": [
            *({"note": note} for note in labels.notes(found, data.classes, data.multi_label)),
            *(
                {"condition": condition.name, "ratio": condition.ratio, "note": note}
                for condition, part in zip(conditions, parts)
                for note in part["notes"]
            ),
            *(
                {"condition": fit["condition"], "ratio": fit["ratio"], "note": note}
                for fit in methods
                for note in fit.get("notes") or []
            ),
        ],
        "methods": methods,
        "classes": list(data.classes),
        "examples": _examples(context),
        "captions": _captions(context),
        "card": _card(context),
        "config": _nested(context.config),
        **_labels(rows),
    }
    verdict = bed_verdict.judge([results])
    results["verdict"] = None if verdict is None else verdict.document()
    path = context.workdir / "results.json"
    files.write_json(path, results)
    files.write_json(context.workdir / "run.json", _run_facts(context))
    for other in context.plan:
        if other.stage == "pretrain":
            cards.write_card(context, other.condition, results)
    page.write_report(path, context.workdir / "run.json", context.folder, configs.defaults())
    return {"rows": len(rows), "results": files.sha256(path)}


def _roles(context: Context, conditions: Sequence[across.Condition]) -> claim_contrasts.Roles:
    """Return which encoders and heads stand for the roles of the table of claims."""
    adapt, scores = context.config.adapt, {}
    for run in context.plan:
        if run.stage == "adapt":
            found = context.manifest_of(run.id).get("methods", {})
            means = {
                name: float(np.mean(facts["validation"])) for name, facts in found.items() if facts.get("validation")
            }
            scores[run.recipe or run.condition, run.ratio] = means
    settings = {name: settings_of(adapt, name) for name in selected(adapt.methods)}
    return claim_contrasts.Roles(conditions, settings, scores, adapt.filter > 0)


def _labels(rows: Sequence[Row]) -> dict[str, object]:
    """Return "labels" of the methods and attacks that are not built in, so that a page can be made without their
    module.
    """
    names = {field: dict.fromkeys(row[field] for row in rows) for field in ("method", "attack")}
    found = entry_labels.labels_document(names["method"], names["attack"])
    return {"labels": found} if any(found.values()) else {}


def _methods(context: Context) -> list[dict[str, Any]]:
    """Return what each adapt stage says of its methods (settings chosen, trained parameters, ...), without times."""
    return [
        {
            **{"condition": run.recipe or run.condition, "ratio": run.ratio, "method": name},
            **{key: value for key, value in facts.items() if "seconds" not in key},
        }
        for run in context.plan
        if run.stage == "adapt"
        for name, facts in context.manifest_of(run.id).get("methods", {}).items()
    ]


def _captions(context: Context) -> list[dict[str, object]]:
    """Return how plausible the captions of each recipe's noisy pairs are, as its craft stage measured it."""
    crafted = [run for run in context.plan if run.stage == "craft"]
    return [{"recipe": run.recipe, **context.manifest_of(run.id).get("captions", {})} for run in crafted]


def _examples(context: Context) -> list[dict[str, object]]:
    """Return the pairs that the attack changed least, typically and most, by the rise of the loss: a third of each."""
    count = context.config.report.examples
    crafted = [r for r in context.plan if r.stage == "craft" and r.recipe == context.config.noise.recipe]
    if not (crafted and count):
        return []
    from ranjax.data.store import NoisyStore

    store = NoisyStore.open(context.folder_of(crafted[0].id) / "store")
    train = common.data(context).prepared.splits["train"]
    place = {name: i for i, name in enumerate(train.ids)}
    origin = {name: store.provenance(name) for name in store.ids}
    ranked = sorted(store.ids, key=lambda name: (origin[name]["loss_before"] - origin[name]["loss_after"], name))
    return [
        {**_example(context, store[ranked[i]], train.meta(place[ranked[i]])), "kind": kind}
        for i, kind in _picks(len(ranked), count)
    ]


def _picks(size: int, count: int) -> list[tuple[int, str]]:
    """Return the ranks to show, of `size` that fall from the worst: the worst, those about the middle, the least
    changed.
    """
    count = min(size, count)
    worst, least = (count + 1) // 3, count // 3
    typical = count - worst - least
    start = min(max((size - typical) // 2, worst), size - least - typical)
    kinds = [(rank, "worst") for rank in range(worst)]
    kinds += [(rank, "typical") for rank in range(start, start + typical)]
    return kinds + [(rank, "least changed") for rank in range(size - least, size)]


def _example(context: Context, noisy_pair: Results, origin: Results) -> dict[str, object]:
    """Return one pair as the page shows it, with its pictures."""
    clean = to_float(noisy_pair["clean_image"])
    magnified = np.clip(0.5 + MAGNIFICATION * (noisy_pair["image"] - clean), 0, 1)
    provenance = noisy_pair["provenance"]
    return {
        "id": noisy_pair["id"],
        "condition": context.config.noise.recipe,
        "image": _png(clean),
        "attacked": _png(noisy_pair["image"]),
        "difference": _png(magnified),
        "magnification": MAGNIFICATION,
        "report": origin["report"],
        "attacked_report": noisy_pair["report"],
        **{name: provenance[name] for name in ("changed", "norm", "loss_before", "loss_after")},
        "label": origin["label"],
    }


def _png(image: np.ndarray) -> str:
    """Return a grey image f32[H, W, 1] in [0, 1] as base64 PNG."""
    return base64.b64encode(encode_png(to_uint8(np.clip(image, 0, 1)))).decode()


def _card(context: Context) -> dict[str, object]:
    """Return the data card with the numbers of records used and left out."""
    prepared, manifest = common.data(context).prepared, context.manifest_of("prepare")
    reasons = Counter(exclusion["reason"] for exclusion in manifest["exclusions"])
    records = {name: f"{count} records" for name, count in manifest["counts"].items()}
    left_out = {reason: f"{count} records" for reason, count in sorted(reasons.items())} or "nothing"
    summary = prepared.understood
    read = lines(dict(summary)) if summary else []
    understood = {"read as": read, "warnings": [line for line in read if line.startswith("! ")]} if read else {}
    return {
        **prepared.card,
        **understood,
        "records": records,
        "left out": left_out,
        "reports cut to the token limit": manifest["truncated_reports"],
        "fingerprint": prepared.fingerprint,
    }


def _nested(config: RunConfig) -> dict[str, object]:
    """Return the config as nested dictionaries, without the keys that say where a run works."""
    tree: dict[str, Any] = {}
    for name, value in configs.flatten(config).items():
        if name in old_configs.PLACES:
            continue
        node = tree
        *path, last = name.split(".")
        for part in path:
            node = node.setdefault(part, {})
        node[last] = list(value) if isinstance(value, tuple) else value
    return tree


def _run_facts(context: Context) -> dict[str, object]:
    """Return when, by which command, how long and on what the run was made."""
    first = (context.workdir / "config.json", context.folder_of("prepare") / "stage.json")
    begun = min(path.stat().st_mtime for path in first)
    stages = [
        {
            "name": other.stage,
            "condition": other.condition or None,
            "seconds": context.manifest_of(other.id)["seconds"],
            "skipped": other.id in context.shared.get("skipped", ()),
        }
        for other in context.plan
        if other.id != context.stage_run.id
    ]
    device = context.mesh.devices.flat[0]
    program = "python -m ranjax.main" if Path(sys.argv[0]).name == "main.py" else "ranjax"
    return {
        "started": datetime.fromtimestamp(begun, UTC).isoformat(timespec="seconds"),
        "command": " ".join([program, *sys.argv[1:]]),
        "stages": stages,
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
            "devices": [f"{device.platform}:{d.id}" for d in context.mesh.devices.flat],
            "device kind": device.device_kind,
        },
        "versions": {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in PACKAGES}},
    }
