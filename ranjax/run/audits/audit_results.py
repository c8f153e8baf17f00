"""The results.json of an audit: a fixed schema with protocol, hashes, rows, repairs with their cost, and the advice."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float64
from ml_collections import ConfigDict
from safetensors.numpy import load_file

import ranjax
from ranjax.core import files
from ranjax.core.pixels import pixel_units, to_float, to_uint8
from ranjax.data.images.reading import encode_png
from ranjax.data.prepared import PreparedSet
from ranjax.evaluation import statistics
from ranjax.methods.table import METHODS, settings_of
from ranjax.models.controls import CONTROLS
from ranjax.run import config as configs
from ranjax.run.audits import advice, audit_config, audit_data, audited_defences, latency, minimal_norms
from ranjax.run.audits.audited_checkpoint import AuditedCheckpoint
from ranjax.run.context import Context, Mesh, context_of
from ranjax.run.plan import plan
from ranjax.run.stages import inputs
from ranjax.run.stages.adapt_outputs import load_heads, load_tower
from ranjax.run.stages.evaluation import result_record as record
from ranjax.run.stages.evaluation.evaluated_encoder import EvaluatedEncoder
from ranjax.run.stages.evaluation.under_attack import ADVERSARIES, WORST

SCHEMA = "ranjax audit 1"
EXAMPLES = 10
MAGNIFICATION = 10
KEPT = (
    *("rows", "comparisons", "masking", "calibration", "confusions", "chance", "independent", "classes", "card"),
    *("verdict", "methods"),
)
"""What is taken over from the run's results.json, as it stands there."""


@dataclasses.dataclass(frozen=True)
class Audit:
    """A finished run of an audit.

    Attributes:
      config: of the run, and `workdir`, its folder.
      mesh: devices.
      checkpoint, prepared: what was audited on what; `data` is how the user named the latter.
      form: how much was measured.
      stop, say: of the audit.
    """

    config: ConfigDict
    workdir: Path
    mesh: Mesh
    checkpoint: AuditedCheckpoint
    prepared: PreparedSet
    data: str
    form: audit_config.Form
    stop: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = lambda line: None

    def context(self) -> Context:
        """Return the context of the evaluation of the checkpoint."""
        run = next(run for run in plan(configs.typed(self.config)) if run.id == "evaluate/clean")
        found = context_of(self.config, self.workdir, run, self.mesh, {})
        return dataclasses.replace(found, stop=self.stop, say=self.say)

    def results(self, notes: list[str]) -> dict[str, Any]:
        """Return the content of results.json; `notes` are what was left out and why."""
        run = files.read_json(self.workdir / "results.json")
        context = self.context()
        multi = self.config.adapt.task == "multi"
        kept = {name: run[name] for name in KEPT if name in run}
        masked = masked_methods(run["masking"])
        repairs = self.repairs(context, masked)
        advised = advice.advise(repairs, audit_config.BASELINE, self._controls(run["rows"]), self.form.name)
        defences = self.defences(context)
        masked |= {item["method"] for item in defences if item["masked"]}
        return {
            "schema": SCHEMA,
            "ranjax": ranjax.__version__,
            "protocol": {
                "name": audit_config.protocol(self.form, multi),
                "version": audit_config.VERSION,
                "form": self.form.name,
                "attacks": list(self.config.evaluate.attacks),
                "radii": self.radii(),
                "main_radius": self.config.evaluate.epsilon,
                "modalities": [name for name in self.config.evaluate.modalities if name],
                "images": min(self.form.attacked, len(context_images(context, self.form.attacked).ids)),
                "seed": self.config.seed,
            },
            "model": {
                "name": self.checkpoint.name,
                "layout": self.checkpoint.layout or "image tower",
                "texts": self.checkpoint.texts,
                "image_size": self.checkpoint.image_size,
                "parameters": files.read_json(self.workdir / "pretrain/clean/manifest.json")["parameters"],
                "hash": self.checkpoint.fingerprint,
            },
            "data": audit_data.described(self.prepared, self.data),
            **kept,
            "withheld": sorted(masked),
            "repairs": [*repairs, *defences],
            "minimal_norms": self.minimal_norms(context, advised["method"]),
            "recommendation": advised,
            "examples": self.examples(context),
            "notes": [*({"note": note} for note in notes), *run["notes"]],
        }

    def radii(self) -> list[str]:
        """Return all radii of the curve, rising."""
        every = {*self.config.evaluate.radii, self.config.evaluate.epsilon}
        return sorted(every, key=lambda text: float(text.partition("/")[0]))

    def repairs(self, context: Context, masked: frozenset[str]) -> list[dict[str, Any]]:
        """Return each head with its figures and costs, and zero-shot, whose row has no cost of fitting."""
        folder = self.workdir / "evaluate/clean"
        answers, clusters = record.load(folder)
        heads = self._trained()
        fitted = files.read_json(self.workdir / "adapt/clean/manifest.json")["methods"]
        checked = {item["method"] for item in files.read_json(folder / record.FILE)["masking"] if item["checks"]}
        times = latency.milliseconds(context, [*heads])
        base = self._survival(answers, audit_config.BASELINE)
        clean_base = answers[record.TASK, "test", "none", audit_config.BASELINE].mean(0, keepdims=True)
        resamples, seed = self.form.bootstrap, self.config.seed
        found = []
        for name in dict.fromkeys((*heads, "zero_shot")):
            survival = self._survival(answers, name)
            if survival is None or base is None:
                continue
            score, base_score = survival.mean(0)[None], base.mean(0)[None]
            units = record.clusters_of(clusters, record.TASK, "test", score.shape[1], name)
            clean = answers[record.TASK, "test", "none", name].mean(0, keepdims=True)
            all_units = record.clusters_of(clusters, record.TASK, "test", clean.shape[1], name)
            interval = statistics.bootstrap(score, resamples, seed, clusters=units)
            item: dict[str, Any] = {
                "method": name,
                "label": METHODS[name].label,
                "clean": _interval(statistics.bootstrap(clean, resamples, seed, clusters=all_units)),
                "robust": {radius: float(row.mean()) for radius, row in zip(self.radii(), survival)},
                "score": _interval(interval),
                "masked": name in masked if name in checked else None,
            }
            if name in heads:
                if name != audit_config.BASELINE:
                    level = 1 - 0.05 / max(1, len(heads) - 1)
                    # The best of several is looked at: each interval is as wide as Bonferroni asks.
                    gain = statistics.paired_difference(score, base_score, resamples, seed, level, units)
                    loss = statistics.paired_difference(clean, clean_base, resamples, seed, clusters=all_units)
                    item |= {"gain": _difference(gain), "clean_change": _difference(loss)}
                settings = settings_of(configs.typed(self.config).adapt, name)
                tuned = METHODS[name].family == "tower"
                item["reads"] = "images" if tuned else getattr(settings, "features", "embedding")
                item["filtered"] = bool(getattr(settings, "filtered", False))
                item["parameters"] = _parameters(heads[name])
                item["seconds"] = fitted[name].get("seconds")
                item["milliseconds"] = times.get(name)
            found.append(item)
        return found

    def _trained(self) -> dict[str, Any]:
        """Return what each repair trained, with a leading axis of seeds, in the order of the config."""
        folder = self.workdir / "adapt/clean"
        heads = load_heads(folder)
        every = [name for name in self.config.adapt.methods if METHODS[name].family in ("head", "tower")]
        return {name: load_tower(folder, name) if METHODS[name].family == "tower" else heads[name] for name in every}

    def minimal_norms(self, context: Context, recommended: str | None) -> dict[str, dict[str, Any]]:
        """Return the distribution of least norms of the baseline and of what is recommended; each is a program."""
        subject, found = EvaluatedEncoder(context, "clean", "clean"), {}
        answers, _ = record.load(self.workdir / "evaluate/clean")
        split = context_images(context, self.form.attacked)
        for name in dict.fromkeys((audit_config.BASELINE, recommended or audit_config.BASELINE)):
            survival = self._survival(answers, name)
            if survival is None or subject.methods[name].random:
                continue
            least = minimal_norms.least_norms(
                subject.deployed(name),
                subject.parameters(name),
                to_float(split.images),
                split.labels,
                split.ids,
                dict(zip(map(pixel_units, self.radii()), survival > 0.5)),
                steps=self.form.steps,
                batch_size=self.config.evaluate.batch_size,
                seed=self.config.seed,
                map_rows=subject.map_rows,
            )
            found[name] = {"label": METHODS[name].label, **minimal_norms.summary(least)}
        return found

    def defences(self, context: Context) -> list[dict[str, Any]]:
        """Return each defence at test time in front of the baseline's head, as an item of repairs without a gain."""
        if not self.form.defences:
            return []
        return audited_defences.DefenceAudit(
            subject=EvaluatedEncoder(context, "clean", "clean"),
            baseline=audit_config.BASELINE,
            radii=self.radii(),
            folder=self.workdir / "defences",
            steps=self.form.steps,
            queries=self.form.queries,
            images=self.form.attacked,
            batch=self.config.evaluate.batch_size,
            bootstrap=self.form.bootstrap,
        ).rows(self.form.defences)

    def _survival(self, answers: record.Answers, method: str) -> Float64[np.ndarray, "radii examples"] | None:
        """Return, by radius, which images one head has right under all attacks; None: it was not attacked."""
        rows, attacks = [], self.config.evaluate.attacks
        worst = WORST if len(attacks) > 1 else attacks[0]
        for radius in self.radii():
            name = worst if radius == self.config.evaluate.epsilon else f"{worst}@{radius}"
            found = answers.get((record.TASK, "test", name, method))
            if found is None:
                return None
            rows.append(found[0].astype(np.float64))
        return np.stack(rows)

    def _controls(self, rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return the clean accuracy of the baseline's head on each control encoder, by its label."""
        return {
            CONTROLS[row["condition"]].label: {key: row[key] for key in ("value", "low", "high")}
            for row in rows
            if row["condition"] in CONTROLS
            and (row["method"], row["split"], row["attack"], row["metric"], row["seed"])
            == (audit_config.BASELINE, "test", "none", "accuracy", None)
        }

    def examples(self, context: Context) -> list[dict[str, object]]:
        """Return pictures of the first attacked test images, as the baseline's head was attacked."""
        place = self.workdir / "evaluate/clean" / ADVERSARIES
        attacked = load_file(place).get("test") if place.exists() else None
        if attacked is None:
            return []
        split = context_images(context, len(attacked))
        clean = to_float(split.images)
        found = []
        for index in range(min(EXAMPLES, len(attacked))):
            change = attacked[index] - clean[index]
            labels = split.labels[index]
            found.append(
                {
                    "id": split.ids[index],
                    "image": _png(clean[index]),
                    "attacked": _png(attacked[index]),
                    "difference": _png(0.5 + MAGNIFICATION * change),
                    "magnification": MAGNIFICATION,
                    "norm": float(np.abs(change).max()),
                    "report": "",
                    "label": int(labels) if np.ndim(labels) == 0 else -1,
                }
            )
        return found


def context_images(context: Context, count: int) -> inputs.Split:
    """Return the first test images of the task, as the evaluation attacks them."""
    split = inputs.data(context).task_split("test")
    return split.take(np.arange(min(count, len(split.ids))))


def masked_methods(masking: list[dict[str, Any]]) -> frozenset[str]:
    """Return the methods of which a check for masked gradients failed: their attacked figures are withheld."""
    return frozenset(
        item["method"] for item in masking if any(check["passed"] is False for check in item["checks"] or ())
    )


def _parameters(head: Any) -> int:
    """Return the numbers in one seed's head, its filter's taps and statistics included."""
    return int(sum(np.size(leaf) // max(1, np.shape(leaf)[0]) for leaf in jax.tree.leaves(head)))


def _interval(found: statistics.Interval) -> dict[str, float | int]:
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n}


def _difference(found: statistics.Difference) -> dict[str, float | int]:
    return {"value": found.value, "low": found.low, "high": found.high, "p": found.p, "n": found.n}


def _png(image: np.ndarray) -> str:
    return base64.b64encode(encode_png(to_uint8(np.clip(image, 0, 1)))).decode()
