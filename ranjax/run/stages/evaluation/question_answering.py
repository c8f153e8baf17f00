"""Questions about images as answer classification: heads on frozen image and question embeddings, and on either."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ranjax.evaluation import questions
from ranjax.methods.head_inputs import Examples
from ranjax.methods.head_training import fit_heads, predict
from ranjax.methods.method_settings import Fit
from ranjax.methods.table import METHODS
from ranjax.run.stages import inputs as common
from ranjax.run.stages.evaluation.clusters import owners
from ranjax.run.stages.evaluation.evaluated_encoder import EvaluatedEncoder
from ranjax.run.stages.evaluation.result_record import QUESTIONS, Record
from ranjax.training import devices

HEADS = ("lp", "mlp", "lp_image", "lp_question")
BEFORE, DURING = "adapt", "validation"


def answer(subject: EvaluatedEncoder, record: Record, splits: tuple[str, ...]) -> None:
    """Accuracy of open and closed questions on each split, by a linear and a residual head, and by one side alone.

    Rows have the tasks "questions_open" and "questions_closed"; chance is what the most frequent answer to the same
    question gives, which needs no image. A linear head on the question alone ("lp_question") and on the image alone
    ("lp_image") show what the other side is worth. Questions of one image are not independent: intervals and tests
    draw images with all their questions.
    """
    count = subject.config.question_seeds
    if not count:
        return
    made = {split: _ask(subject, split) for split in (BEFORE, DURING, *splits)}
    together = {split: owners(subject, split) for split in splits}
    words = sorted(set(made[BEFORE].answers))
    sides = {split: _sides(subject, split, asked, words) for split, asked in made.items()}
    # An answer that training never gave has no class: it cannot help to choose the epoch.
    known = np.flatnonzero(sides[DURING].labels >= 0)
    adapt = subject.context.config.adapt
    settings = Fit(epochs=adapt.epochs, batch_size=adapt.batch_size)
    unseen = 1 - len(known) / len(made[DURING].answers)
    if unseen:
        told = f"{100 * unseen:.0f} % of the validation questions have an answer that training never gave"
        record.notes.append(f"{told}: nobody can be right there")
    unknown = subject.data.tokenizer.unknown_rate(made[BEFORE].texts)
    record.notes.append(f"{100 * unknown:.0f} % of the words of the questions are not in the vocabulary")
    for name in HEADS:
        subject.context.check_stop(f"fitting {name} to questions")
        seeds, own = range(count), devices.local_mesh(subject.context.mesh)
        examples = {split: side.examples(METHODS[name].settings.modality) for split, side in sides.items()}
        train, validation = examples[BEFORE], Examples(*(x[known] for x in examples[DURING][:2]))
        fitted = fit_heads(
            [METHODS[name].settings], train, validation, classes=len(words), seeds=seeds, settings=settings, mesh=own
        )
        for split in splits:
            logits = np.asarray(predict(fitted.head, fitted.select(0), examples[split].features)[1])
            hits = logits.argmax(-1) == sides[split].labels[None]
            guessed = questions.majority(made[BEFORE], made[split])
            for kind, level in guessed.items():
                rows = np.flatnonzero(np.array(made[split].kinds) == kind)
                record.belong(f"{QUESTIONS}_{kind}", split, together[split][made[split].example[rows]])
                record.share(name, f"{QUESTIONS}_{kind}", split, "none", "accuracy", hits[:, rows], range(count))
                record.chance[f"{QUESTIONS}_{kind}/{split}"] = level


def _ask(subject: EvaluatedEncoder, split: str) -> questions.Questions:
    examples, records = subject.data.split(split), subject.records(split, task=False)
    if any("question" in record for record in records):
        return questions.given(records)
    return questions.ask(examples.ids, records, subject.classes, subject.context.config.seed)


class _Sides(NamedTuple):
    """Embeddings f32[Q, D] of image and question, and the answer's place among the words of training, or -1."""

    images: np.ndarray
    asked: np.ndarray
    labels: np.ndarray

    def examples(self, modality: str) -> Examples:
        return Examples(np.asarray(questions.fuse(self.images, self.asked, modality)), self.labels)


def _sides(subject: EvaluatedEncoder, split: str, asked: questions.Questions, words: list[str]) -> _Sides:
    context, functions, params = subject.context, subject.functions, subject.params
    pictures = common.image_features(context, functions, params, subject.data.split(split).images)
    texts = common.question_features(context, functions, params, asked.texts)
    # -1, which is never right: an answer that training never gave.
    labels = np.array([words.index(a) if a in words else -1 for a in asked.answers], np.int32)
    return _Sides(pictures[asked.example], np.asarray(texts), labels)
