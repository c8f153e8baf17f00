"""Measure robust accuracy: white box through encoder and head, at several radii, by transfer; check for masking."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, PyTree
from safetensors.numpy import load_file

from ranjax.attacks import masking
from ranjax.attacks.attack_table import ATTACKS, CLASSIFIER, AtRadius, Attack
from ranjax.core import files
from ranjax.core.pixels import pixel_units, to_float
from ranjax.evaluation.white_box import Robustness, WhiteBox, survivors
from ranjax.methods.table import METHODS
from ranjax.run.schema.evaluate_keys import IMAGE_ATTACKS
from ranjax.run.stages import inputs as common
from ranjax.run.stages.evaluation import feature_views
from ranjax.run.stages.evaluation.evaluated_encoder import EvaluatedEncoder
from ranjax.run.stages.evaluation.result_record import REFERENCE, TASK, TRANSFER, Record
from ranjax.training import hosts
from ranjax.training.progress import Progress

ADVERSARIES = "adversaries.safetensors"
WORST = "worst"


class Attacked(NamedTuple):
    """The examples that are attacked: images, labels, a key each, and inputs of the model that are left as they are."""

    images: Float[np.ndarray, "examples height width channels"]
    labels: np.ndarray
    keys: jax.Array
    side_inputs: np.ndarray | None = None


def attack(subject: EvaluatedEncoder, record: Record, split: str) -> None:
    """Attack every method's first heads, and zero-shot: by the reference attack, and the worst of all, at every
    radius.
    """
    config, reference = subject.config, _reference_attack(subject)
    examples = subject.some(split, config.attacked_examples)
    keys = common.example_keys(subject.context, "evaluate/attack", examples.ids)
    attacked = Attacked(to_float(examples.images), examples.labels, keys)
    clean = subject.image_features(examples.images)
    questions = subject.question_features(split, examples)
    heads = [(name, range(min(config.attacked_seeds, m.seeds))) for name, m in subject.methods.items()]
    # Zero-shot has no head, so it is there once; its prompts compete for one label.
    subjects = heads + ([("zero_shot", range(1))] if subject.prompted else [])
    single = subject.single_labels(examples.labels)
    if split == "test":
        feature_views.view_clean(subject, record, clean, single)
    hits: dict[str, dict[str, np.ndarray]] = {}
    title, done = f"evaluate {subject.folder}: attacking {split}", itertools.count(1)
    with Progress(title, sum(len(seeds) for _, seeds in subjects), unit="heads", shown=()) as progress:
        for method, seeds in subjects:
            logits, by_radius = [], []
            for seed in seeds:
                subject.context.check_stop(f"attacking {method}")
                own = attacked._replace(side_inputs=subject.extra_input(method, questions))
                result, curve = _one_head(subject, split, method, seed, own)
                # What was wrong before counts as wrong, even where the attacked image is right.
                logits.append(_wrong_stays_wrong(subject, result, examples.labels))
                by_radius.append(curve)
                if split == "test" and seed == 0 and method != "zero_shot":
                    sides = (clean, examples.images, result.images)
                    feature_views.view_attacked(subject, record, method, *sides, single, questions)
                if _is_surrogate(subject, method) and seed == 0:
                    _save_adversaries(subject, split, result.images)
                progress.update(next(done))
            named = [] if method == "zero_shot" else list(seeds)
            found = record.classified(method, split, reference, np.stack(logits), examples.labels, named)
            hits.setdefault(reference, {})[method] = found
            for name in by_radius[0]:
                rows = np.stack([one[name] for one in by_radius])
                record.share(method, TASK, split, name, "accuracy", rows, named)
                hits.setdefault(name, {})[method] = rows
        _transferred(subject, record, split, examples, subjects)
    for name, found in hits.items():
        if "@" not in name:
            record.compare(TASK, split, name, {m: rows for m, rows in found.items() if m != "zero_shot"})


def _one_head(
    subject: EvaluatedEncoder, split: str, method: str, seed: int, examples: Attacked
) -> tuple[Robustness, dict[str, np.ndarray]]:
    """The reference attack's result on one head, and which images are right at the other radii.

    Both are checkpointed, as they are most of what evaluation costs.
    """
    reference = _reference_attack(subject)

    def attacked() -> dict[str, np.ndarray]:
        params, box = subject.parameters(method, seed), _box(subject, method, reference)
        result = box(params, *examples[:3], side_inputs=examples.side_inputs, keep_images=True)
        fields = {f"result {name}": np.asarray(value) for name, value in result._asdict().items() if value is not None}
        curve = _curve(subject, method, params, examples, result)
        return fields | {f"curve {name}": np.asarray(value) for name, value in curve.items()}

    found = subject.context.checkpointed_arrays(f"{split} {method} {seed}", attacked)

    def part(head: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(head): value for name, value in found.items() if name.startswith(head)}

    curve = part("curve ")
    # In the order of the config, which a file does not keep.
    order = [WORST, *(f"{kind}@{text}" for kind in (WORST, reference) for text in ("0", *subject.config.radii))]
    return Robustness(**part("result ")), {name: curve[name] for name in order if name in curve}


def check_masking(subject: EvaluatedEncoder, record: Record, split: str) -> None:
    """Check the attacked figures for masked gradients, on the reference and on the most robust method.

    On their first heads, with the surrogate's images where there are any. The checks compare answers on one image, so
    a method that answers by a draw is named and not checked.
    """
    config = subject.config
    if not (config.masking_examples and config.attacked_seeds):
        return
    examples = subject.some(split, config.masking_examples)
    questions = subject.question_features(split, examples)
    attack, *others = (ATTACKS[name] for name in _attack_names(subject))
    for method in _suspects(subject, record, split):
        subject.context.check_stop("before the masking checks")
        where = {"condition": record.condition, "ratio": record.ratio, "method": method}
        if subject.methods[method].random:
            verdict = f"not checked, as it answers by a draw; the attack goes through {config.draws} draws a step"
            record.lists["masking"].append({**where, "verdict": verdict, "checks": []})
            continue
        side_inputs, params = subject.extra_input(method, questions), subject.parameters(method)
        found = masking.check(
            _compiled(subject, method),
            params if side_inputs is None else (params, side_inputs),
            to_float(examples.images),
            examples.labels,
            common.example_keys(subject.context, "evaluate/masking", examples.ids),
            _configured(subject, attack),
            attack=attack.run,
            transferred=None if _is_surrogate(subject, method) else _adversaries(subject, split, len(examples.ids)),
            queries=config.masking_queries,
            loss=CLASSIFIER if attack.loss == CLASSIFIER else "",
            other_losses=any(one.loss != attack.loss for one in others),
        )
        checks = [{"name": f.name, "passed": f.passed, "detail": f.seen} for f in found.findings]
        record.lists["masking"].append({**where, "verdict": found.verdict, "checks": checks})
        subject.context.say(f"  {method}: {found.verdict}")


def _compiled(subject: EvaluatedEncoder, method: str) -> Callable[..., jax.Array]:
    """Return `deployed` as one program: these methods are functions of their arguments alone."""
    logits = subject.deployed(method)
    return subject.context.memoize(("compiled", logits), lambda: jax.jit(logits))


def _suspects(subject: EvaluatedEncoder, record: Record, split: str) -> list[str]:
    """Return the reference method, the one most accurate under attack, those that answer by a draw or are a user's."""
    whole = [name for name in subject.methods if not METHODS[name].leaves_out]
    standing = {
        row["method"]: row["value"]
        for attack in (_reference_attack(subject), WORST)  # the second, where it is there, has the last word
        for row in record.rows
        if (row["task"], row["split"], row["attack"], row["metric"]) == (TASK, split, attack, "accuracy")
        and row["seed"] is None
        and row["value"] is not None
    }
    best = max((name for name in whole if name in standing), key=lambda name: standing[name], default="")
    asked = METHODS.names_of([name for name in subject.config.masking_methods if name], "evaluate.masking_methods")
    others = [name for name in whole if subject.methods[name].random or METHODS.source_of(name) or name in asked]
    chosen = [REFERENCE] * (REFERENCE in whole) + [best] * bool(best) + others
    return list(dict.fromkeys(chosen or whole[-1:]))


def _attack_names(subject: EvaluatedEncoder) -> tuple[str, ...]:
    """Return the names of the attacks of `evaluate.attacks`."""
    return ATTACKS.names_of([name for name in subject.config.attacks if name], "evaluate.attacks")


def _reference_attack(subject: EvaluatedEncoder) -> str:
    """Return the name of the first of `evaluate.attacks`, which rows and masking checks show by itself."""
    return _attack_names(subject)[0]


def _configured(subject: EvaluatedEncoder, attack: Attack) -> AtRadius:
    """The attack's settings at the main radius."""
    settings = IMAGE_ATTACKS.settings_of(subject.context.config, attack)
    return attack.at(settings, subject.config.epsilon, restarts=subject.config.restarts)


def _box(subject: EvaluatedEncoder, method: str, name: str) -> WhiteBox:
    """One compiled attack for all conditions, seeds and radii of one head shape."""
    logits, config = subject.deployed(method), subject.config

    def make() -> WhiteBox:
        attack = ATTACKS[name]
        settings, loss = _configured(subject, attack), attack.loss_for(len(subject.classes), subject.multi_label)
        draws = config.draws if method != "zero_shot" and subject.methods[method].random else 0
        return WhiteBox(logits, settings, attack.run, loss, config.batch_size, draws, map_rows=subject.map_rows)

    return subject.context.memoize(("white box", logits, name), make)


def _curve(
    subject: EvaluatedEncoder, method: str, params: PyTree, examples: Attacked, first: Robustness
) -> dict[str, Bool[np.ndarray, " examples"]]:
    """The worst case at the main radius (where there are several attacks), at the others, and at 0.

    Radius 0 is these images and this head unattacked: where a curve over the radii begins.
    """
    config, reference = subject.config, _reference_attack(subject)
    boxes = {name: _box(subject, method, name) for name in _attack_names(subject)}
    main, worst = pixel_units(config.epsilon), WORST if len(boxes) > 1 else reference
    radii = {pixel_units(text): text for text in config.radii if text}
    below = [radius for radius in radii if radius < main]
    above = [radius for radius in radii if radius > main]

    def alive_at(attacks: Iterable[WhiteBox], radii: Sequence[float], alive: np.ndarray) -> dict[float, np.ndarray]:
        return survivors(list(attacks), params, *examples[:3], radii, alive, side_inputs=examples.side_inputs)

    found = alive_at(boxes.values(), below, first.clean_correct)
    alive = found[max(below)] if below else first.clean_correct
    at_main = alive & first.correct
    others = [box for name, box in boxes.items() if name != reference]
    if others and main > 0:
        at_main = alive_at(others, [main], at_main)[main]
    found |= alive_at(boxes.values(), above, at_main)
    named = {f"{worst}@0": first.clean_correct}
    named |= {f"{worst}@{text}": found[radius] for radius, text in radii.items() if radius in found}
    return named if worst == reference else {WORST: at_main, **named}


def _is_surrogate(subject: EvaluatedEncoder, method: str) -> bool:
    return subject.folder == "clean" and method == next(iter(subject.methods))


def _save_adversaries(subject: EvaluatedEncoder, split: str, images: np.ndarray | None) -> None:
    """Save the surrogate's adversarial images: the encoder of ratio 0 with the first method's first head."""
    place = subject.context.folder / ADVERSARIES
    # What an interrupted run left is made anew, so that only splits of this config lie there.
    others = load_file(place) if place.exists() and split != "test" else {}
    if images is not None and hosts.first():
        files.write_tensors(place, {**others, split: np.ascontiguousarray(images)})


def _adversaries(subject: EvaluatedEncoder, split: str, count: int) -> np.ndarray | None:
    """The surrogate's adversarial images of the first `count` examples; None where there are fewer."""
    place = subject.context.folder_of("evaluate/clean") / ADVERSARIES
    images = load_file(place).get(split) if place.exists() else None
    return None if images is None or len(images) < count else images[:count]


def _transferred(
    subject: EvaluatedEncoder,
    record: Record,
    split: str,
    examples: common.Split,
    subjects: Sequence[tuple[str, Sequence[int]]],
) -> None:
    """Record accuracy on the surrogate's adversarial images, for which no gradient of the attacked model is used."""
    images = _adversaries(subject, split, len(examples.ids))
    if images is None:
        return
    questions = subject.question_features(split, examples)
    sides = [(shown, subject.image_features(shown)) for shown in (examples.images, images)]

    def is_right(method: str, seed: int, images: np.ndarray, features: np.ndarray) -> np.ndarray:
        if method == "zero_shot":
            return subject.right(subject.zero_shot_logits(features), examples.labels)
        return subject.right(subject.outputs(method, images, features, seed, questions)[1], examples.labels)

    for method, seeds in subjects:
        if not _is_surrogate(subject, method):
            rows = [np.all([is_right(method, seed, *side) for side in sides], axis=0) for seed in seeds]
            record.share(method, TASK, split, TRANSFER, "accuracy", np.stack(rows))


def _wrong_stays_wrong(subject: EvaluatedEncoder, result: Robustness, labels: np.ndarray) -> np.ndarray:
    """Logits under attack, or the clean ones where the clean image was wrong already: the attacker may leave it."""
    lucky = subject.right(result.logits, labels) & ~result.correct
    return np.where(lucky[:, None], result.clean_logits, result.logits)
