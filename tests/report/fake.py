"""Made-up results of a plausible run, the same each time, to try tables, plots and words on."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

METHODS = ("zero_shot", "lp", "mlp", "nmtune", "ran")
CLASSES = ["normal", "consolidation", "mass", "effusion", "cardiomegaly", "pneumothorax", "oedema", "atelectasis"]
CHANCE = {
    "accuracy": 0.125,
    "balanced_accuracy": 0.125,
    "auroc": 0.5,
    "recall@1": 0.005,
    "recall@5": 0.025,
    "recall@10": 0.05,
}
REPORT = (
    "Findings: there is a moderate consolidation in the right lower lobe . No pleural effusion . "
    "The heart is not enlarged . Impression: right lower lobe consolidation ."
)
_BASE = {"zero_shot": 0.52, "lp": 0.74, "mlp": 0.76, "nmtune": 0.765, "ran": 0.77}
_HELD = {"zero_shot": 0.05, "lp": 0.08, "mlp": 0.07, "nmtune": 0.11, "ran": 0.24}


def results(ratios: tuple[float, ...] = (0.0, 0.1, 0.3), conditions: tuple[str, ...] = ("joint",)) -> dict[str, Any]:
    """Returns the content of a results.json."""
    random = np.random.default_rng(7)
    cells = [("clean", 0.0), *((condition, ratio) for condition in conditions for ratio in ratios if ratio > 0)]
    rows: list[dict[str, Any]] = []
    for condition, ratio in cells:
        for method in METHODS:
            for split in ("test", "ood_test"):
                for attack in ("none", "pgd"):
                    rows += _classification(random, condition, ratio, method, split, attack)
        for direction in ("image_to_text", "text_to_image"):
            rows += _retrieval(random, condition, ratio, direction)
    return {
        "schema": 1,
        "rows": rows,
        "spectra": [item for condition, ratio in cells for item in _spectra(random, condition, ratio)],
        "examples": [_example(index) for index in range(6)],
        "comparisons": [item for condition, ratio in cells for item in _comparisons(rows, random, condition, ratio)],
        "card": {
            "name": "Radiographs projected from one CT",
            "notice": "One real patient (LIDC-IDRI-0001) with simulated lesions. No clinical claim can be made.",
            "attribution": "LIDC-IDRI, The Cancer Imaging Archive, CC BY 3.0",
            "splits": {"train": "4096 pairs", "test": "800 pairs", "ood_test": "800 pairs"},
            "limits": [
                "The anatomy of one person.",
                "Lesions are placed by a generator and were not read by a radiologist.",
            ],
        },
        "config": {
            "seed": 0,
            "data": {"image_size": 64},
            "pretrain": {"steps": 1500, "ratios": [0.0, 0.1, 0.3], "peak_rate": 1e-3},
        },
        "classes": CLASSES,
        "chance": CHANCE,
        "masking": [
            {
                "condition": condition,
                "ratio": ratio,
                "method": "ran",
                "verdict": "no sign of masking" if ratio < 0.3 else "suspicious",
                "checks": [
                    {"name": "loss rises with steps", "passed": True, "detail": "1.9, 3.4, 4.1 at 1, 5, 20 steps"},
                    {"name": "huge budget", "passed": True, "detail": "accuracy 0.0 at 64/255"},
                    {"name": "transfer is weaker", "passed": ratio < 0.3, "detail": "61.2 transferred, 24.0 direct"},
                ],
            }
            for condition, ratio in cells
        ],
    }


def run() -> dict[str, Any]:
    """Returns the content of a run.json."""
    return {
        "started": "2024-05-02T09:30:00+00:00",
        "command": "python -m ranjax.main --config configs/ran.py",
        "stages": [
            {"name": "prepare", "condition": None, "seconds": 12.1, "skipped": False},
            {"name": "pretrain", "condition": "clean", "seconds": 61.0, "skipped": False},
            {"name": "craft", "condition": "joint", "seconds": 33.7, "skipped": False},
            {"name": "evaluate", "condition": "joint-0.3", "seconds": 0.1, "skipped": True},
        ],
        "machine": {"system": "Linux x86_64", "cores": 2, "devices": ["cpu:0"], "memory_gib": 7.7},
        "versions": {"python": "3.11.9", "jax": "0.10.2", "flax": "0.12.8", "ranjax": "0.1.0"},
    }


def row(**fields: Any) -> dict[str, Any]:
    """Returns one row with usual fields, some replaced."""
    usual = {"condition": "clean", "ratio": 0.0, "method": "lp", "task": "finding", "split": "test", "attack": "none"}
    return {**usual, "seed": None, "metric": "accuracy", "value": 0.7, "low": 0.66, "high": 0.74, "n": 800, **fields}


def comparison(difference: float, low: float, high: float, **fields: Any) -> dict[str, Any]:
    """Returns one comparison of RAN with LP at 30 %, some fields replaced."""
    usual = {
        "a": "ran",
        "b": "lp",
        "condition": "joint",
        "ratio": 0.3,
        "task": "finding",
        "split": "test",
        "attack": "pgd",
    }
    measured = {
        "metric": "accuracy",
        "difference": difference,
        "low": low,
        "high": high,
        "p": 0.01,
        "n": 800,
        "seeds": 5,
    }
    return {**usual, **measured, **fields}


def png(seed: int, size: int = 64) -> str:
    """Returns a soft grey picture as base64 PNG."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    lungs = np.exp(-((np.abs(x) - 0.22) ** 2) / 0.012 - y**2 / 0.08)
    grey = 0.75 - 0.6 * lungs + 0.02 * random.standard_normal((size, size))
    out = io.BytesIO()
    Image.fromarray(np.uint8(np.clip(grey, 0, 1) * 255)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def _classification(random, condition, ratio, method, split, attack) -> list[dict[str, Any]]:
    level = _BASE[method] - 0.2 * ratio if attack == "none" else _HELD[method] + 0.1 * ratio
    level = max(0.01, level * (0.86 if split == "ood_test" else 1.0) + 0.01 * random.standard_normal())
    per_seed = [] if method == "zero_shot" else [0, 1, 2]
    made = []
    for metric, value in (
        ("accuracy", level),
        ("balanced_accuracy", level - 0.01),
        ("macro_auroc", 0.5 + 0.45 * level),
        ("auroc/mass", 0.5 + 0.40 * level),
        ("auroc/oedema", 0.5 + 0.48 * level),
        ("ece", 0.05 + 0.2 * (1 - level)),
    ):
        where = {
            "condition": condition,
            "ratio": ratio,
            "method": method,
            "split": split,
            "attack": attack,
            "metric": metric,
        }
        half = 1.96 * float(np.sqrt(max(value * (1 - value), 0.001) / 800))
        made.append(row(**where, value=float(value), low=float(value) - half, high=float(value) + half))
        made += [
            row(**where, seed=seed, value=float(value + 0.004 * (seed - 1)), low=None, high=None) for seed in per_seed
        ]
    return made


def _retrieval(random, condition, ratio, direction) -> list[dict[str, Any]]:
    made = []
    for k in (1, 5, 10):
        value = float((0.06 * k**0.6) * (1 - ratio) + 0.003 * random.standard_normal())
        where = {
            "condition": condition,
            "ratio": ratio,
            "method": direction,
            "task": "retrieval",
            "metric": f"recall@{k}",
        }
        made.append(row(**where, value=value, low=value - 0.015, high=value + 0.016))
    return made


def _spectra(random, condition, ratio) -> list[dict[str, Any]]:
    made = []
    for method in ("encoder", "nmtune", "ran"):
        for features in ("clean", "attacked"):
            steep = (
                {"encoder": 0.09, "nmtune": 0.075, "ran": 0.06}[method]
                * (1 + ratio)
                * (1.2 if features == "attacked" else 1)
            )
            values = np.exp(-steep * np.arange(64)) * (1 + 0.01 * random.random(64))
            shares = values / values.sum()
            entropy = float(-(shares * np.log(shares)).sum())
            made.append(
                {
                    "condition": condition,
                    "ratio": ratio,
                    "method": method,
                    "features": features,
                    "singular_values": sorted(values.tolist())[::-1],
                }
                | {"sve": entropy, "lsvr": float(-np.log(shares.max()))}
            )
    return made


def _comparisons(rows, random, condition, ratio) -> list[dict[str, Any]]:
    made = []
    for metric in ("accuracy", "macro_auroc"):
        for split in ("test", "ood_test"):
            for attack in ("none", "pgd"):
                where = {
                    "condition": condition,
                    "ratio": ratio,
                    "split": split,
                    "attack": attack,
                    "metric": metric,
                    "seed": None,
                }
                level = {
                    one["method"]: one["value"]
                    for one in rows
                    if all(one[key] == value for key, value in where.items())
                }
                for other in ("lp", "mlp", "nmtune"):
                    gap = level["ran"] - level[other]
                    p = float(min(1.0, np.exp(-abs(gap) / 0.008)))
                    where_ = {
                        "condition": condition,
                        "ratio": ratio,
                        "split": split,
                        "attack": attack,
                        "metric": metric,
                        "b": other,
                        "p": p,
                    }
                    made.append(comparison(gap, gap - 0.022, gap + 0.021, **where_))
    return made


def _example(index: int) -> dict[str, Any]:
    words = REPORT.split()
    attacked = list(words)
    attacked[4], attacked[8], attacked[-3] = "mild", "left", "middle"
    return {
        "id": f"train-{index:05d}",
        "condition": "joint",
        "image": png(index),
        "attacked": png(index + 100),
        "difference": png(index + 200),
        "magnification": 20,
        "report": REPORT,
        "attacked_report": " ".join(attacked),
        "changed": [4, 8, len(words) - 3],
        "norm": 8 / 255,
        "loss_before": 1.4 + 0.1 * index,
        "loss_after": 5.2,
        "label": index,
    }
