"""Words of reports and prompts changed: retrieval both ways and zero-shot by how many words, and whether labels stay.

All kinds are a greedy search over whole texts (`attacks.text.greedy`) by forward passes of the text tower; they differ
in which words come first and what may stand in their place. Words that carry the medical statement stay
(`noise.protect`). Whether a report still says the same is judged by the rule labeller, which no search looks at.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ranjax.attacks.text import candidates, greedy
from ranjax.attacks.text.typos import typos
from ranjax.core import math
from ranjax.data.text.labeller import label
from ranjax.data.text.tokenizer import Tokens
from ranjax.evaluation import retrieval, zero_shot
from ranjax.evaluation.retrieval import unit
from ranjax.run.stages import inputs as common
from ranjax.run.stages import word_candidates
from ranjax.run.stages.evaluation import pair_attacks
from ranjax.run.stages.evaluation.evaluated_encoder import EvaluatedEncoder
from ranjax.run.stages.evaluation.result_record import Record

REPORTS, PROMPTS = "retrieval_words", "zero_shot_words"
"""Tasks of the rows; attacks are named KIND-WORDS, as "typos-2"."""
SHOWN = 8
"""Forms of a word that are scored."""
Guides = Float[np.ndarray, "texts dim"]


class _Search(NamedTuple):
    """What a search may put in the place of a word, and, where it has one, its own order of words."""

    forms: greedy.Forms
    order: greedy.Order | None = None


def attack_words(subject: EvaluatedEncoder, record: Record, split: str) -> None:
    """Attack the reports of the first pairs, and the prompts, by each kind of `evaluate.text_attacks`."""
    kinds = [kind for kind in subject.config.text_attacks if kind]
    if not kinds:
        return
    whole = subject.data.split(split)
    examples = whole.take(np.arange(min(subject.config.pairs, len(whole.ids))))
    images = unit(subject.image_features(examples.images))
    before = [label(report) for report in examples.reports]
    if not any(before):
        record.notes.append("no report has a word that the rule labeller knows: no share of labels kept is given")
    for kind in kinds:
        subject.context.check_stop(f"changing words of reports: {kind}")
        found = _attacked(subject, kind, examples.reports, examples.ids, -images)
        for words, texts in found.items():
            name = f"{kind}-{words}"
            text = unit(_features(subject, texts))
            ranks = retrieval.ranks(images, text, np.arange(len(images)), texts_as_written=examples.reports)
            for direction in ("image_to_text", "text_to_image"):
                for k in pair_attacks.RECALLS:
                    hits = getattr(ranks, direction) < k
                    record.share(direction, REPORTS, split, name, f"recall@{k}", hits)
            changed = [one != other for one, other in zip(texts, examples.reports)]
            record.share("reports", REPORTS, split, name, "changed", np.asarray(changed))
            if any(before):
                labelled = np.flatnonzero([bool(labels) for labels in before])
                kept = np.asarray([label(texts[i]) == before[i] for i in labelled])
                record.share("reports", REPORTS, split, name, "label_kept", kept, clusters=np.arange(len(labelled)))
    if subject.prompted:
        _attack_prompts(subject, record, split, kinds)


def _attack_prompts(subject: EvaluatedEncoder, record: Record, split: str, kinds: Sequence[str]) -> None:
    guide = pair_attacks.prompt_guide(subject)
    texts, owner = subject.data.prompts()
    labels = subject.data.task_split(split).labels
    for kind in kinds:
        subject.context.check_stop(f"changing words of prompts: {kind}")
        for words, changed in _attacked(subject, kind, texts, [str(i) for i in range(len(texts))], -guide).items():
            classes = zero_shot.class_embeddings(_features(subject, changed), owner, len(subject.classes))
            logits = subject.zero_shot_logits(subject.task_features(split), classes)
            hits = logits.argmax(-1) == labels
            record.share("zero_shot", PROMPTS, split, f"{kind}-{words}", "accuracy", hits)


def _features(subject: EvaluatedEncoder, texts: Sequence[str]) -> np.ndarray:
    tokens = subject.data.encode(texts)
    return np.asarray(common.text_features(subject.context, subject.functions, subject.params, tokens))


def _attacked(
    subject: EvaluatedEncoder, kind: str, texts: Sequence[str], ids: Sequence[str], guide: Guides
) -> dict[int, list[str]]:
    """Return texts whose embedding is driven along `guide`, by how many words may be changed."""

    def score(changed: Sequence[str], owner: Int[np.ndarray, " texts"]) -> np.ndarray:
        return np.sum(unit(_features(subject, changed)) * guide[owner], axis=-1)

    return search(subject, kind, texts, ids, score, sorted(subject.config.text_words), guide)


def search(
    subject: EvaluatedEncoder,
    kind: str,
    texts: Sequence[str],
    ids: Sequence[str],
    score: greedy.Score,
    words: Sequence[int],
    guide: Guides | None = None,
) -> dict[int, list[str]]:
    """Return texts of the highest `score` that a kind of search finds, by how many words may be changed.

    Args:
      subject: whose tokenizer, guards and lists of words are used.
      kind: of `evaluate.text_attacks`; "gradient" follows that of the embedding's cosine to `guide`, and needs it.
      texts, ids: a search's choice among forms depends on a text's id.
      score: of whole texts, to be raised.
      words: rising numbers.
      guide: f[texts, D].
    """
    noise = subject.context.config.noise
    guard = word_candidates.protected(noise, subject.data.prepared.classes, subject.data.prepared.label_words)
    spans = subject.data.tokenizer.spans(list(texts))
    tokens = subject.data.encode(texts)
    # Of a report that was cut the tower reads the first words alone.
    seen = tokens.words.max(1, initial=-1) + 1
    spans = [own[: int(count)] for own, count in zip(spans, seen)]
    found = _SEARCHES[kind](subject, texts, ids, guide, tokens)

    def forms(number: int, place: int, word: str) -> Sequence[str]:
        # A slip of the pen may be a word that carries the statement.
        return [form for form in found.forms(number, place, word) if not guard(form)]

    held = greedy.attack(texts, spans, lambda word: not guard(word), forms, score, words, order=found.order, visits=2)
    return dict(held)


def _typos(
    subject: EvaluatedEncoder, texts: Sequence[str], ids: Sequence[str], guide: Guides | None, tokens: Tokens
) -> _Search:
    return _Search(lambda number, place, word: typos(word, SHOWN, ids[number]))


def _lexicon(subject: EvaluatedEncoder, source: str) -> word_candidates.CandidateWords:
    def find() -> word_candidates.CandidateWords:
        noise = dataclasses.replace(subject.context.config.noise, candidates=(source,))
        data, table = subject.data, subject.functions.token_table(subject.params)
        folder = word_candidates.masked_lm_folder(subject.context) if source == "masked_lm" else ""
        reports = data.split("train").reports
        words = word_candidates.vocabulary(data, noise)
        return word_candidates.candidate_words(noise, words, np.asarray(table), reports, folder)

    return subject.context.memoize(("words", source), find)


def _listed(lexicon: candidates.Lexicon, tokens: Tokens, lists: np.ndarray) -> _Search:
    """Return the search over entries of the lexicon, i[texts, slots, K], of which those that may stand there count."""
    found = candidates.for_rows(lexicon.table, tokens.ids, tokens.words)
    present, open_ = np.asarray(found.present), np.asarray(found.open)
    insertable = np.asarray(lexicon.table.insertable)
    classes = None if lexicon.table.classes is None else np.asarray(lexicon.table.classes)

    def forms(number: int, place: int, word: str) -> Sequence[str]:
        if place >= open_.shape[1] or not open_[number, place]:
            return ()
        own = int(present[number, place])
        kept = []
        for entry in lists[number, place].tolist():
            alike = classes is None or not classes[own] or not classes[entry] or classes[own] & classes[entry]
            if entry >= 0 and entry != own and insertable[entry] and alike:
                text = lexicon.words[entry]
                kept.append(text[:1].upper() + text[1:] if word[:1].isupper() else text)
        return kept[:SHOWN]

    return _Search(forms)


def _importance(
    subject: EvaluatedEncoder, texts: Sequence[str], ids: Sequence[str], guide: Guides | None, tokens: Tokens
) -> _Search:
    """Words that are near in the token embedding, after the order of importance."""
    lexicon = _lexicon(subject, "neighbours").lexicon
    present = np.asarray(candidates.for_rows(lexicon.table, tokens.ids, tokens.words).present)
    assert lexicon.table.lists is not None
    near = np.asarray(lexicon.table.lists)[:, : 3 * SHOWN]
    return _listed(lexicon, tokens, np.where(present[..., None] >= 0, near[np.maximum(present, 0)], -1))


def _masked_lm(
    subject: EvaluatedEncoder, texts: Sequence[str], ids: Sequence[str], guide: Guides | None, tokens: Tokens
) -> _Search:
    """BERT-Attack: what a masked language model would write there, after the order of importance."""
    words = _lexicon(subject, "masked_lm")
    proposer, lexicon = words.proposer, words.lexicon
    assert proposer is not None
    slots = tokens.ids.shape[1]
    rows = word_candidates.masked_lm_rows(proposer, subject.data.tokenizer, list(texts), slots)
    propose = word_candidates.proposals(proposer, 3 * SHOWN)

    def rows_of(shared: PyTree, rows: PyTree) -> jax.Array:
        return propose(shared, rows, slots)

    run = common.row_map(subject.context, ("proposed words", proposer.functions), rows_of)
    return _listed(lexicon, tokens, np.asarray(run((proposer.params, proposer.table), rows)))


def _gradient(
    subject: EvaluatedEncoder, texts: Sequence[str], ids: Sequence[str], guide: Guides, tokens: Tokens
) -> _Search:
    """Words of one token in the order of their first-order gain, and those of most gain in their place (HotFlip)."""
    lexicon = _lexicon(subject, "vocabulary").lexicon
    functions = subject.functions

    def rows_of(params: PyTree, rows: PyTree) -> jax.Array:
        ids, mask, guide = rows
        table = functions.token_table(params)

        def total(embeddings: Array) -> Array:
            found = math.unit(functions.text_features(params, ids, mask, embeddings=embeddings))
            return jnp.sum(found * guide)

        gradient = jax.grad(total)(table[ids])
        return jnp.einsum("blw,vw->blv", gradient, table) - jnp.sum(gradient * table[ids], axis=-1, keepdims=True)

    run = common.row_map(subject.context, ("first-order gains", functions), rows_of)
    gains = np.asarray(run(subject.params, (tokens.ids, tokens.mask, guide.astype(np.float32))))
    table = lexicon.table
    single = np.flatnonzero((np.asarray(table.lengths) == 1) & np.asarray(table.insertable))
    pieces = np.asarray(table.pieces)[single, 0]
    lists = np.full((len(texts), tokens.ids.shape[1], 3 * SHOWN), -1)
    best = np.full(lists.shape[:2], -np.inf)
    for number, own in enumerate(tokens.words):
        for place in range(int(own.max(initial=-1)) + 1):
            at = np.flatnonzero(own == place)
            if len(at) == 1:
                gain = gains[number, at[0], pieces]
                top = np.argsort(-gain, kind="stable")[: lists.shape[2]]
                lists[number, place, : len(top)], best[number, place] = single[top], gain[top[0]]
    search = _listed(lexicon, tokens, lists)
    return search._replace(order=lambda number: np.argsort(-best[number], kind="stable").tolist())


_SEARCHES: dict[str, Callable[..., _Search]] = {
    "gradient": _gradient,
    "importance": _importance,
    "masked_lm": _masked_lm,
    "typos": _typos,
}
