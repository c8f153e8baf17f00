"""Questions about images as answer classification: heads on frozen image and question embeddings."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from ranjax.evaluation import questions, zero_shot
from ranjax.stages import common
from ranjax.stages.evaluation.record import QUESTIONS, Record
from ranjax.stages.evaluation.subject import Subject
from ranjax.training import devices
from ranjax.training.adapt import METHODS, Examples, Fit, fit_heads, predict

HEADS = ("lp", "mlp")
BEFORE, DURING = "adapt", "validation"


def answer(subject: Subject, record: Record, splits: tuple[str, ...]) -> None:
    """Accuracy of open and closed questions on each split, by a linear and a residual head.

    Rows have the tasks "questions_open" and "questions_closed"; chance is what the most frequent answer to the same
    question gives, which needs no image.
    """
    count = subject.config.question_seeds
    if not count:
        return
    made = {split: _ask(subject, split) for split in (BEFORE, DURING, *splits)}
    if any("question" in known for known in subject.records(BEFORE, task=False)):
        record.notes.append(
            "a set of questions: its classes, yes and no, are told from the picture without the question"
        )
    words = sorted(set(made[BEFORE].answers))
    train, validation = (_examples(subject, split, made[split], words) for split in (BEFORE, DURING))
    tests = {split: _examples(subject, split, made[split], words) for split in splits}
    # An answer that training never gave has no class: it cannot help to choose the epoch.
    known = np.flatnonzero(np.asarray(validation.labels) >= 0)
    validation = Examples(validation.features[known], validation.labels[known])
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
        fitted = fit_heads(
            [METHODS[name]], train, validation, classes=len(words), seeds=seeds, settings=settings, mesh=own
        )
        for split, examples in tests.items():
            logits = np.asarray(predict(fitted.head, fitted.select(0), examples.features)[1])
            hits = logits.argmax(-1) == examples.labels[None]
            guessed = questions.majority(made[BEFORE], made[split])
            for kind, level in guessed.items():
                rows = np.flatnonzero(np.array(made[split].kinds) == kind)
                record.share(name, f"{QUESTIONS}_{kind}", split, "none", "accuracy", hits[:, rows], range(count))
                record.chance[f"{QUESTIONS}_{kind}/{split}"] = level


def _ask(subject: Subject, split: str) -> questions.Questions:
    examples, records = subject.data.split(split), subject.records(split, task=False)
    if any("question" in record for record in records):
        return questions.given(records)
    return questions.ask(examples.ids, records, subject.classes, subject.context.config.seed)


def _examples(subject: Subject, split: str, asked: questions.Questions, words: list[str]) -> Examples:
    """Fused features, and the answer's place in `words`: -1, which is never right, where it is not among them."""
    images = subject.data.split(split).images
    context, functions, params = subject.context, subject.functions, subject.params
    pictures = np.asarray(zero_shot.unit(jnp.asarray(common.image_features(context, functions, params, images))))
    texts = sorted(set(asked.texts))
    features = common.text_features(context, functions, params, subject.data.encode(texts))
    place = {text: i for i, text in enumerate(texts)}
    questions_ = np.asarray(zero_shot.unit(jnp.asarray(features)))[[place[text] for text in asked.texts]]
    labels = np.array([words.index(a) if a in words else -1 for a in asked.answers], np.int32)
    return Examples(questions.fuse(pictures[asked.example], questions_), labels)
