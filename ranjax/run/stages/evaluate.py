"""Evaluate: one upstream condition, clean, under attack, out of domain, corrupted, by zero-shot, retrieval and questions.

`ranjax.run.stages.evaluation.evaluated_encoder` is what is evaluated, `result_record` what is found; each other module
finds one kind of figure. Expensive kinds are off or small by default: see the keys of `evaluate`.
"""

from __future__ import annotations

from typing import Any

from ranjax.run.context import Context
from ranjax.run.stages.evaluation import clean_accuracy as clean
from ranjax.run.stages.evaluation import clusters as belonging
from ranjax.run.stages.evaluation import pair_attacks as pairs
from ranjax.run.stages.evaluation import question_answering as answered
from ranjax.run.stages.evaluation import under_attack as attacked
from ranjax.run.stages.evaluation import under_corruption as corrupted
from ranjax.run.stages.evaluation.evaluated_encoder import EvaluatedEncoder
from ranjax.run.stages.evaluation.result_record import FILE, Record
from ranjax.training import hosts

__all__ = ["FILE", "run"]


def run(context: Context) -> dict[str, Any]:
    """Leaves evaluation.json (rows, comparisons, spectra, masking, ...) and answers.safetensors (who was right)."""
    config = context.config.evaluate
    # Rows name what made the noisy pairs; the ratio stands beside it.
    condition = context.config.noise.recipe if context.stage_run.ratio else context.stage_run.condition
    subject = EvaluatedEncoder(context, context.stage_run.condition, condition)
    record = Record(condition, context.stage_run.ratio, subject.classes, config.bootstrap, context.config.seed)
    splits = tuple(split for split in ("test", "ood_test") if subject.has(split))
    for split in splits:
        belonging.declare(subject, record, split)
    for split in splits:
        clean.classify(subject, record, split)
        clean.findings(subject, record, split)
    for split in splits:
        pairs.retrieve(subject, record, split)
    if config.attacked_seeds:
        for split in splits:
            if split in config.attacked_splits:
                attacked.attack(subject, record, split)
    attacked.check_masking(subject, record, "test")
    pairs.attack_prompts(subject, record, "test")
    pairs.attack_pairs(subject, record, "test")
    corrupted.corrupt(subject, record, "test")
    answered.answer(subject, record, splits)
    found = hosts.first_does(lambda: record.write(context.folder)) or {}
    context.clear_arrays()
    return found
