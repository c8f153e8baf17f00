"""Audit any classifier in one call: a function of images to logits, a module with parameters, or a checkpoint.

import ranjax as rx

report = rx.audit(model, images, labels)        # model(images f32[N, H, W, C] in [0, 1]) -> logits f32[N, K]
print(report)                                   # accuracy by radius, masking checks, corruptions, the headline
report.write("audit.json")                      # for `ranjax compare`
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PyTree, Shaped

import ranjax
from ranjax.attacks import any_model, masking
from ranjax.attacks.attack_table import ATTACKS, CLASSIFIER
from ranjax.core import files
from ranjax.core.errors import ConfigError, DataError
from ranjax.core.keys import example_keys, stream
from ranjax.core.pixels import pixel_units, to_float
from ranjax.evaluation import corruptions, statistics
from ranjax.evaluation.modalities import MODALITIES, kinds_of
from ranjax.evaluation.robust_accuracy import RobustAccuracy, robust_accuracy
from ranjax.evaluation.white_box import Logits
from ranjax.run.audits import audit_config, minimal_norms
from ranjax.run.audits.audited_checkpoint import find_checkpoint
from ranjax.run.audits.repairs import Repaired, load, repair
from ranjax.run.stages import memory
from ranjax.run.stages.encoder_export import HEAD_FACTS
from ranjax.training.row_map import RowMap

EPSILONS = (*audit_config.RADII[:-1], audit_config.MAIN, audit_config.RADII[-1])
STEPS = 20
"""Of FAB towards each class, for the least norms."""
CHECKED = 24
"""Images of the masking checks."""
HELD_OUT = 0.4
"""Share of the images that repairs of a checkpoint are judged by; the others fit them."""
Images = Shaped[np.ndarray, "examples height width channels"]


@dataclasses.dataclass(frozen=True)
class AuditReport:
    """What an audit of one classifier found.

    Attributes:
      name: of the model.
      robust: which image withstood which attack at which radius.
      masking: the checks of the attack; where one failed, robust figures are withheld from the headline.
      corrupted: mean accuracy over five severities, by kind; empty where it was left out.
      attacks: of the suite.
      parameters, fingerprint: number and hash of the model's parameters.
      content: hash of images and labels.
      notes: what was done otherwise, and why.
      repairs: reports of repaired models by method, of a checkpoint without a head.
      least_norms: by image, the least L-infinity norm in pixels that was found to break it: 0 where it is wrong
        already, infinite where none was found.
    """

    name: str
    robust: RobustAccuracy
    masking: masking.MaskingReport
    corrupted: Mapping[str, float]
    attacks: tuple[str, ...]
    parameters: int
    fingerprint: str
    content: str
    notes: tuple[str, ...] = ()
    repairs: Mapping[str, AuditReport] = dataclasses.field(default_factory=dict)
    least_norms: Float[np.ndarray, " examples"] | None = None

    @property
    def masked(self) -> bool:
        """Return whether a check of the attack failed, so that no robust figure may be believed."""
        return self.masking.masked

    @property
    def score(self) -> statistics.Interval:
        """Return the mean accuracy over the radii with its interval."""
        return statistics.bootstrap(self.robust.worst.mean(0))

    @property
    def headline(self) -> str:
        """Return one sentence: clean accuracy, and the mean over the radii unless gradients are masked."""
        clean = statistics.bootstrap(self.robust.clean)
        words = f"{self.name}: {_percent(clean)} clean"
        if self.masked:
            return f"{words}; under attack: withheld, as the model is masked ({self.masking.verdict})"
        return f"{words}, {_percent(self.score)} on average over radii {', '.join(map(str, self.robust.epsilons))}"

    def document(self) -> dict[str, Any]:
        """Return the report in the schema of ``ranjax audit``."""
        radii = [str(radius) for radius in self.robust.epsilons]
        reports = {"model": self} | dict(self.repairs)
        return {
            "schema": "ranjax audit 1",
            "ranjax": ranjax.__version__,
            "protocol": {
                "name": f"{audit_config.VERSION} function, {' '.join(self.attacks)}",
                "version": audit_config.VERSION,
                "form": "function",
                "attacks": list(self.attacks),
                "radii": radii,
                "main_radius": audit_config.MAIN,
                "images": len(self.robust.ids),
                "seed": 0,
            },
            "model": {
                **{"name": self.name, "layout": "function", "texts": False},
                **{"parameters": self.parameters, "hash": self.fingerprint},
            },
            "data": {"name": "images", "fingerprint": self.content, "content": self.content},
            "rows": [],
            "repairs": [_item(name, one, radii) for name, one in reports.items()],
            "minimal_norms": {
                name: {"label": one.name, **minimal_norms.summary(one.least_norms)}
                for name, one in reports.items()
                if one.least_norms is not None
            },
            "withheld": [name for name, one in reports.items() if one.masked],
            "recommendation": {"method": None, "shown": False, "words": [self.headline]},
            "masking": [dataclasses.asdict(finding) for finding in self.masking.findings],
            "corrupted": dict(self.corrupted),
            "notes": [{"note": note} for note in self.notes],
        }

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write `document` as JSON, whole or not at all."""
        files.write_json(path, self.document())

    def __str__(self) -> str:
        table = "attacked figures are withheld" if self.masked else str(self.robust)
        lines = [self.headline, table, str(self.masking)]
        if self.least_norms is not None and not self.masked:
            half = minimal_norms.summary(self.least_norms)["quantiles"]["0.5"]
            lines.append(f"least norm found, median: {'none' if half is None else f'{half:.2f}/255'}")
        lines += [f"corrupted by {kind}: {100 * value:.1f} %" for kind, value in self.corrupted.items()]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, *(f"\n{one}" for one in self.repairs.values())])


def _item(method: str, report: AuditReport, radii: Sequence[str]) -> dict[str, Any]:
    clean, score = statistics.bootstrap(report.robust.clean), report.score
    return {
        "method": method,
        "label": report.name,
        "clean": clean._asdict(),
        "robust": {radius: float(value) for radius, value in zip(radii, report.robust.accuracy)},
        "score": score._asdict(),
        "masked": report.masked,
    }


def _percent(found: statistics.Interval) -> str:
    return f"{100 * found.value:.1f} % [{100 * found.low:.1f} to {100 * found.high:.1f}]"


def audit(
    model: Any,
    images: Images,
    labels: Shaped[np.ndarray, " examples"] | Sequence[int],
    *,
    params: PyTree = None,
    name: str = "",
    epsilons: Sequence[str | float] = EPSILONS,
    attacks: Sequence[str] = (),
    corrupted: bool = True,
    modalities: Sequence[str] = (),
    methods: Sequence[str] = ("lp", "ran"),
    seed: int = 0,
    batch_size: int = 32,
    queries: int = 200,
) -> AuditReport:
    """Attack a classifier at several radii, check the attack for masking, and corrupt its images.

    Args:
      model: a function of images f32[N, H, W, C] in [0, 1] to logits f32[N, K] that JAX can trace; an nnx module; a
        linen module with `params`; a pair ``(function of (params, images), params)``; a torch module; a `Repaired`; or
        the path of a checkpoint: with a head (``audit/repaired``) as it is, without one `methods` are fitted on part of
        the images, and judged by the rest.
      images: f32[N, H, W, C] in [0, 1], or uint8.
      labels: i[N] from 0.
      params: variables of a linen module.
      name: of the model, for the report.
      epsilons: rising radii, L-infinity, in pixel units.
      attacks: of the table, by name; by default the suite of ``ranjax audit``.
      corrupted: whether common corruptions are tried.
      modalities: what made the images, e.g. ("ct",), which decides how they are corrupted; (): the general kinds.
      methods: repairs of a checkpoint without a head; the first one's report is returned, the others are its `repairs`.
      seed: of what is drawn.
      batch_size: images at a time; halved where memory runs out, which is noted.
      queries: forward passes of the random search of the masking checks.

    Raises:
      ConfigError: a model of another kind, or an unknown attack.
      DataError: images or labels that do not fit the model.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 4 or not images.size:
        hint = " A single image needs images[None]." if images.ndim == 3 else ""
        raise DataError(f"images have shape {images.shape}, expected [N, H, W, C] with one at least.{hint}")
    pixels = to_float(images) if images.dtype.kind in "ui" else images
    options: dict[str, Any] = {"epsilons": epsilons, "attacks": attacks, "corrupted": corrupted, "seed": seed}
    options |= {"modalities": _known_modalities(modalities), "batch_size": batch_size, "queries": queries}
    if isinstance(model, (str, Path)):
        path = find_checkpoint(str(model))
        if (path / HEAD_FACTS).is_file():
            return audit(load(path), pixels, labels, name=name or path.name, **options)
        return _of_checkpoint(path, pixels, labels, methods, name or path.name, options)
    logits_fn, variables, own = _function_of(model, params, pixels)
    notes: list[str] = []
    while True:
        try:
            return _audit(logits_fn, variables, pixels, labels, name or own, notes, **options)
        except (MemoryError, RuntimeError) as error:
            size = options["batch_size"]
            if not memory.is_exhausted(error) or size == 1:
                raise
            options["batch_size"] = size // 2
            notes.append(f"out of memory with batches of {size} images; {size // 2} were taken")


def _of_checkpoint(
    path: Path, images: Images, labels: np.ndarray, methods: Sequence[str], name: str, options: dict[str, Any]
) -> AuditReport:
    order = sorted(range(len(images)), key=lambda i: hashlib.blake2b(f"audit:{options['seed']}:{i}".encode()).digest())
    held = np.zeros(len(images), bool)
    held[order[: max(1, round(HELD_OUT * len(images)))]] = True
    found = {}
    for method in methods:
        model = repair(path, images[~held], labels[~held], method, seed=options["seed"])
        found[method] = audit(model, images[held], labels[held], name=f"{name}, {method}", **options)
    first, *others = methods
    return dataclasses.replace(found[first], repairs={method: found[method] for method in others})


def _function_of(model: Any, params: PyTree, images: Images) -> tuple[Logits, PyTree, str]:
    """Return ``(params, images) -> logits``, its parameters, and a name."""
    if isinstance(model, Repaired):
        return model.logits, model.parameters, str(model.facts.get("method", "repaired"))
    named = model[0] if isinstance(model, tuple) and model else model
    own = getattr(named, "__name__", type(named).__name__)
    torch = sys.modules.get("torch")  # a module of it cannot be here unless it was imported
    if isinstance(model, tuple) or (torch is not None and isinstance(model, torch.nn.Module)):
        return (*any_model.as_logits(model, images), own)
    if isinstance(model, nnx.Module):
        graph, state = nnx.split(model)

        def of_module(state: PyTree, images: Array) -> Array:
            merged = nnx.merge(graph, state)
            merged.eval()
            return merged(images)

        return of_module, state, own
    if params is not None and callable(getattr(model, "apply", None)):
        apply: Callable[..., Array] = model.apply
        return (lambda variables, images: apply(variables, images)), params, own
    if callable(model) and not hasattr(model, "apply"):
        return (lambda _, images: model(images)), {}, own
    if callable(getattr(model, "apply", None)):
        raise ConfigError("params", None, "the variables of a module with `apply`: audit(model, ..., params=variables)")
    raise ConfigError("model", own, "a function of images to logits, a module, a Repaired, or a checkpoint's path")


def _audit(
    logits_fn: Logits,
    params: PyTree,
    images: Float[np.ndarray, "examples height width channels"],
    labels: np.ndarray,
    name: str,
    notes: list[str],
    *,
    epsilons: Sequence[str | float],
    attacks: Sequence[str],
    corrupted: bool,
    modalities: tuple[str, ...],
    seed: int,
    batch_size: int,
    queries: int,
) -> AuditReport:
    said = list(notes)
    outputs = np.asarray(RowMap(lambda p, x: logits_fn(p, x), None, batch_size)(params, images))
    if outputs.ndim == 2 and outputs.min() >= 0 and np.all(np.abs(outputs.sum(-1) - 1) < 1e-3):
        said.append(
            "the model gives probabilities: their logarithm is attacked, whose gradient does not vanish as soon"
        )
        logits_fn = _of_probabilities(logits_fn)
    if labels.ndim != 1 or len(np.unique(labels)) < 2:
        raise DataError("labels must be i[N] with two classes at least: of one class there is nothing to tell apart")
    if len(images) < statistics.FEW:
        said.append(f"{len(images)} images are few: intervals over them are wide, and somewhat too narrow still")
    names = tuple(attacks) or audit_config.suite(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what it warns of stands in the notes
        found = robust_accuracy(
            logits_fn, params, images, labels, epsilons=epsilons, attacks=names, seed=seed, batch_size=batch_size
        )
    said += found.notes
    lead, *others = (ATTACKS.resolve(one, "attacks") for one in ATTACKS.expand(names))
    rows = np.arange(min(CHECKED, len(images)))
    checked = masking.check(
        logits_fn,
        params,
        images[rows],
        labels[rows],
        example_keys(stream(seed, "audit/masking"), [str(i) for i in rows]),
        lead.at(lead.settings, audit_config.MAIN),
        attack=lead.run,
        queries=queries,
        loss=CLASSIFIER if lead.loss == CLASSIFIER else "",
        other_losses=any(one.loss != lead.loss for one in others),
    )
    least = minimal_norms.least_norms(
        logits_fn,
        params,
        images,
        labels,
        found.ids,
        dict(zip(map(pixel_units, epsilons), found.worst)),
        steps=STEPS,
        batch_size=batch_size,
        seed=seed,
    )
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    return AuditReport(
        name,
        found,
        checked,
        _corrupted(logits_fn, params, images, labels, kinds_of(modalities), seed, batch_size) if corrupted else {},
        names,
        int(sum(leaf.size for leaf in leaves)),
        files.digest([hashlib.sha256(leaf.tobytes()).hexdigest() for leaf in leaves] or name),
        files.digest([hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest() for part in (images, labels)]),
        tuple(said),
        least_norms=least,
    )


def _of_probabilities(fn: Logits) -> Logits:
    return lambda params, images: jnp.log(jnp.maximum(fn(params, images), 1e-30))


def _known_modalities(names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str) or not set(names) <= set(MODALITIES):
        raise ConfigError("modalities", names, f"a list of some of {', '.join(MODALITIES)}")
    return tuple(names)


def _corrupted(
    logits_fn: Logits,
    params: PyTree,
    images: np.ndarray,
    labels: np.ndarray,
    kinds: Sequence[str],
    seed: int,
    batch_size: int,
) -> dict[str, float]:
    keys = example_keys(stream(seed, "audit/corruptions"), [str(i) for i in range(len(images))])
    answer = RowMap(lambda p, x: logits_fn(p, x), None, batch_size)
    found = {}
    for kind in kinds:
        shares = []
        for severity in range(1, 6):
            changed = np.asarray(corruptions.corrupt(kind, severity, images, keys))
            shares.append(float((answer(params, changed).argmax(1) == labels).mean()))
        found[kind] = float(np.mean(shares))
    return found
