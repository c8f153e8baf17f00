"""Evaluate: one upstream arm, clean, under attack, out of domain, corrupted, by zero-shot, retrieval and questions.

What is evaluated is in `ranjax.stages.evaluation.subject`, what is found goes to `record`; each other module there
finds one kind of figure. Expensive kinds are off or small by default: see the keys of `evaluate`.
"""

from __future__ import annotations

from typing import Any

from ranjax.pipeline import Context
from ranjax.stages.evaluation import answered, attacked, belonging, clean, corrupted, pairs
from ranjax.stages.evaluation.record import FILE, Record
from ranjax.stages.evaluation.subject import Subject
from ranjax.training import hosts

__all__ = ["FILE", "run"]


def run(context: Context) -> dict[str, Any]:
    """Leaves evaluation.json (rows, comparisons, spectra, masking, ...) and answers.safetensors (who was right)."""
    config = context.config.evaluate
    # Rows name what made the twins; the ratio stands beside it.
    arm = context.config.noise.recipe if context.this.ratio else context.this.arm
    subject = Subject(context, context.this.arm, arm)
    record = Record(arm, context.this.ratio, subject.classes, config.bootstrap, context.config.seed)
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
    context.forget()
    return found
