"""Words put in and left out beside replaced ones: the exhaustive greedy search, and back to text."""

import itertools

import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from ranjax.attacks import text
from ranjax.attacks.text import moves, restore
from ranjax.core.errors import ConfigError

import toy_text as toy  # isort: skip

NUMBER = len(toy.WORDS)
EVERY = text.Substitution(max_words=2, top_k=(2 * NUMBER + 1) * toy.LENGTH, moves=moves.MOVES)
TEXTS = st.lists(st.lists(st.sampled_from(toy.WORDS), min_size=1, max_size=4), min_size=2, max_size=2)


def run(texts, settings, seed=0):
    rows = toy.encode(texts)
    target = toy.params(seed)["target"][: len(texts)]
    return target, toy.attack(toy.params(), target, tuple(map(jnp.asarray, rows)), toy.lexicon().table, settings)


def tokens_of(slots):
    return [toy.BOS, *itertools.chain.from_iterable(toy.PIECES[word] for slot in slots for word in slot), toy.EOS]


def options(slots, used):
    """Every move on a list of slots, each a list of words: (slot, the slots after it)."""
    free = [word for word in toy.WORDS if word not in toy.PROTECTED]
    for place, held in enumerate(slots):
        if place in used or held[0] in toy.PROTECTED:
            continue
        forms = [[new] for new in free if new != held[0]] + [[held[0], new] for new in free if new != held[0]]
        forms += [[]] if sum(map(bool, slots)) > 1 else []
        for form in forms:
            yield place, [*slots[:place], form, *slots[place + 1 :]]


@hypothesis.settings(max_examples=6, deadline=None, derandomize=True, database=None, phases=[hypothesis.Phase.generate])
@hypothesis.given(texts=TEXTS, seed=st.integers(0, 99))
def test_with_every_move_scored_it_is_the_exhaustive_greedy_search(texts, seed):
    target, found = run(texts, EVERY, seed)
    for row, words in enumerate(texts):
        slots, used = [[word] for word in words], set()
        value = toy.slow_loss(toy.params(), tokens_of(slots), target[row])
        for _ in range(2):
            trials = [(place, form) for place, form in options(slots, used) if len(tokens_of(form)) <= toy.LENGTH]
            scored = [
                (toy.slow_loss(toy.params(), tokens_of(form), target[row]), place, form) for place, form in trials
            ]
            best = max(scored, key=lambda item: item[0], default=(-np.inf, 0, slots))
            if best[0] <= value:
                break
            value, place, slots = best
            used.add(place)
        real = np.asarray(found.tokens[row])[np.asarray(found.mask[row])].tolist()
        assert real == tokens_of(slots)
        assert float(found.loss[row]) == pytest.approx(value, abs=1e-5)
        assert int(found.edits[row]) == len(used)


def test_a_choice_is_read_as_its_move_and_written_back_into_the_text():
    lexicon = toy.lexicon()
    large, heart = (lexicon.indices()[word] for word in ("large", "heart"))
    assert moves.decode(large, NUMBER) == ("replace", large)
    assert moves.decode(NUMBER + large, NUMBER) == ("insert", large)
    assert moves.decode(2 * NUMBER, NUMBER) == ("delete", -1)
    report = "Clear lungs, no effusion."
    spans = [span for span in restore.word_spans(report) if report[span[0]] not in ",."]

    def after(*choices):
        return restore.restore(report, spans, np.array(choices, np.int32), lexicon)

    assert after(-1, heart, -1, -1) == "Clear heart, no effusion."
    assert after(NUMBER + large, -1, -1, -1) == "Clear large lungs, no effusion."
    assert after(-1, 2 * NUMBER, -1, large) == "Clear, no large."


def test_a_move_of_no_kind_is_refused():
    with pytest.raises(ConfigError, match=r"moves = .*expected some of replace, insert, delete"):
        text.Substitution(moves=("swap",))
