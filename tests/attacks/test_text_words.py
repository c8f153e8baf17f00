"""Words in rows of tokens, tables of candidates, and their first-order gains, each against plain Python."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from ranjax.attacks import text
from ranjax.attacks.text import candidates, gains
from ranjax.attacks.text import words as words_lib
from ranjax.core.errors import ConfigError, DataError

import toy_text as toy  # isort: skip

quick = hypothesis.settings(
    max_examples=40, deadline=None, derandomize=True, database=None, phases=[hypothesis.Phase.generate]
)
TEXT = st.lists(st.sampled_from(toy.WORDS), min_size=1, max_size=6)
TABLE = toy.lexicon().table


@toy.quick_jit
def replace(row, slot, entry):
    slots = words_lib.find_slots(row.words)
    return words_lib.replace_word(row, slot, slots, TABLE.pieces[entry], TABLE.lengths[entry], TABLE.pad_id)


@quick
@hypothesis.given(text=TEXT, new=st.sampled_from(toy.WORDS), data=st.data())
def test_replacing_a_word_is_encoding_the_other_text(text, new, data):
    row = words_lib.Row(*(jnp.asarray(x[0]) for x in toy.encode([text], 24)))
    slot = data.draw(st.integers(0, len(text) - 1))
    found = replace(row, jnp.int32(slot), jnp.int32(toy.WORDS.index(new)))
    wanted = toy.encode([[*text[:slot], new, *text[slot + 1 :]]], 24)
    for got, want in zip(found, wanted):
        np.testing.assert_array_equal(got, want[0])


@quick
@hypothesis.given(text=TEXT)
def test_slots_and_lookup_find_every_word(text):
    tokens, mask, words = (jnp.asarray(x) for x in toy.encode([text], 24))
    slots, length, present = look(tokens, mask, words)
    sizes = [len(toy.PIECES[word]) for word in text]
    np.testing.assert_array_equal(slots.length[: len(text)], sizes)
    np.testing.assert_array_equal(slots.start[: len(text)], 1 + np.cumsum([0, *sizes[:-1]]))
    assert not slots.length[len(text) :].any()
    assert int(length) == 2 + sum(sizes)
    np.testing.assert_array_equal(present[0, : len(text)], [toy.WORDS.index(word) for word in text])
    assert (np.asarray(present)[0, len(text) :] == -1).all()


@toy.quick_jit
def look(tokens, mask, words):
    return words_lib.find_slots(words[0]), words_lib.real_length(mask[0]), candidates.lookup(TABLE, tokens, words)


def test_words_that_are_not_in_the_table_are_not_found():
    tokens, _, words = (np.array(x) for x in toy.encode([["effusion", "clear"]], 24))
    tokens[0, 2] = 30  # the second piece of "effusion"
    present = toy.lookup(TABLE, jnp.asarray(tokens), jnp.asarray(words))
    assert present[0, :2].tolist() == [-1, toy.WORDS.index("clear")]
    words[0, 3] = 0  # three pieces, of which the table knows no such word
    assert int(toy.lookup(TABLE, jnp.asarray(tokens), jnp.asarray(words))[0, 0]) == -1


def test_tables_drop_what_has_no_entry_of_its_own():
    pieces = {"a": [5], "A": [5], "long": list(range(6, 16)), "none": [], "b": [6, 7]}
    made = candidates.build(pieces, pieces.__getitem__, pad_id=0, protected=("A",))
    assert made.words == ("a", "b")
    assert made.indices() == {"a": 0, "b": 1}
    assert made.table.insertable.tolist() == [False, True]  # "A" is written with the same token, and protected
    assert made.table.replaceable.tolist() == [False, True]
    assert made.table.pieces.tolist() == [[5, 0], [6, 7]]
    with pytest.raises(DataError, match="no candidate word is left"):
        candidates.build(["none"], pieces.__getitem__, pad_id=0)


def test_protected_words_are_closed_in_rows():
    tokens, _, words = map(jnp.asarray, toy.encode([["no", "clear", "left", "rib"]]))
    found = toy.for_rows(TABLE, tokens, words)
    assert found.open[0, :5].tolist() == [False, True, False, True, False]
    assert found.lists is None


def test_lists_of_rows_and_of_the_table_intersect():
    lists = np.full((len(toy.WORDS), 3), -1, np.int32)
    lists[toy.WORDS.index("clear")] = [8, 9, 10]
    tokens, _, words = map(jnp.asarray, toy.encode([["clear", "rib"]]))
    own = jnp.full((1, toy.LENGTH, 2), -1, jnp.int32).at[0, 0].set(jnp.array([10, 4])).at[0, 1].set(3)
    found = toy.for_rows(toy.lexicon(jnp.asarray(lists)).table, tokens, words, own)
    assert found.lists[0, 0].tolist() == [10, -1]
    assert found.lists[0, 1].tolist() == [-1, -1]
    assert candidates.intersect(jnp.array([3, 1, 2]), jnp.array([2, 3]), jnp.array([3])).tolist() == [3, -1, -1]


def slow_gain(embedding, gradient, start, old, new):
    """The approximation as its module states it."""
    own, other = embedding[old], embedding[new]
    both, total = min(len(old), len(new)), 0.0
    for j in range(both):
        total += (other[j] - own[j]) @ gradient[start + j]
    for j in range(both, len(new)):
        total += (other[j] - own.mean(0)) @ gradient[start + len(old) - 1]
    for j in range(both, len(old)):
        total += (other.mean(0) - own[j]) @ gradient[start + j]
    return total


@pytest.mark.parametrize("listed", [False, True])
def test_gains_are_those_stated(listed, float64):
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(toy.VOCAB, toy.WIDTH))
    gradient = rng.normal(size=(24, toy.WIDTH))
    text = ["cardiomegaly", "rib", "effusion", "clear", "opacity"]
    tokens, _, words = (jnp.asarray(x[0]) for x in toy.encode([text], 24))
    lists = np.tile(np.array([3, 10, 7, 0], np.int32), (24, 1)) if listed else None
    table = jnp.asarray(embedding)
    slots = words_lib.find_slots(words)

    @toy.quick_jit
    def score(table, gradient):
        features = gains.candidate_features(table, TABLE)
        return gains.word_gains(table, features, TABLE, tokens, gradient, slots, None if lists is None else lists)

    found = score(table, jnp.asarray(gradient))
    for slot, old in enumerate(text):
        for column, entry in enumerate(lists[slot] if listed else range(len(toy.WORDS))):
            pieces = toy.PIECES[old], toy.PIECES[toy.WORDS[entry]]
            wanted = slow_gain(embedding, gradient, int(slots.start[slot]), *pieces)
            assert float(found[slot, column]) == pytest.approx(wanted, abs=1e-12)
            if toy.WORDS[entry] == old:
                assert abs(float(found[slot, column])) < 1e-12


def test_lists_can_only_lower_the_best_gain():
    p = toy.params()
    tokens, _, words = (jnp.asarray(x[0]) for x in toy.encode([["clear", "effusion", "rib"]]))
    gradient = jnp.asarray(np.random.default_rng(1).normal(size=(toy.LENGTH, toy.WIDTH)), jnp.float32)
    lists = jnp.asarray(np.random.default_rng(2).integers(0, len(toy.WORDS), size=(toy.LENGTH, 4)), jnp.int32)

    @toy.quick_jit
    def score(table):
        slots = words_lib.find_slots(words)
        features = gains.candidate_features(table, TABLE)
        form = functools.partial(gains.word_gains, table, features, TABLE, tokens, gradient, slots)
        return form(None), form(lists)

    whole, listed = score(jnp.asarray(p["table"]))
    np.testing.assert_allclose(listed, jnp.take_along_axis(whole, lists, axis=1), atol=1e-5)
    assert (listed[:3].max(1) <= whole[:3].max(1) + 1e-5).all()


def test_gain_of_one_piece_is_the_derivative_and_exact_where_the_encoder_is_linear(float64):
    p = {name: jnp.asarray(x) for name, x in toy.params(dtype=np.float64).items()}
    tokens, mask, words = map(jnp.asarray, toy.encode([["clear", "lungs", "rib"]]))
    smooth = functools.partial(toy.loss(p, p["target"][:1]), t=tokens, m=mask)
    linear = lambda e: jnp.sum(jnp.where(mask[..., None], e, 0) @ p["mix"] @ p["target"][0], 1)  # noqa: E731
    slots = words_lib.find_slots(words[0])
    features = toy.quick_jit(gains.candidate_features)(p["table"], TABLE)
    single = [i for i, word in enumerate(toy.WORDS) if len(toy.PIECES[word]) == 1]
    embedded = p["table"][tokens]

    @functools.partial(toy.quick_jit, static_argnums=0)
    def judge(loss, e):
        gradient = jax.grad(lambda e: loss(e)[0])(e)[0]
        return loss(e), gains.word_gains(p["table"], features, TABLE, tokens[0], gradient, slots, None)

    for loss, exact in ((smooth, False), (linear, True)):
        score = judge(loss, embedded)[1]
        value = lambda e, loss=loss: judge(loss, e)[0]  # noqa: E731
        for slot, entry in ((0, single[3]), (2, single[5])):
            step = p["table"][toy.PIECES[toy.WORDS[entry]][0]] - embedded[0, slot + 1]
            moved = lambda h, slot=slot, step=step: embedded.at[0, slot + 1].add(h * step)  # noqa: E731
            if exact:
                rise = value(moved(1.0)) - value(embedded)
            else:
                rise = (value(moved(1e-5)) - value(moved(-1e-5))) / 2e-5
            assert float(rise[0]) == pytest.approx(float(score[slot, entry]), rel=1e-6)


def test_a_tokenizer_of_another_model_is_found_out():
    pieces = {"clear": [4], "edema": [5, 40]}
    with pytest.raises(ConfigError, match=r"tokens of 'edema'.*0 to 39.*another model"):
        candidates.build(pieces, pieces.__getitem__, pad_id=0, vocab_size=40)
    table, lexicon = jnp.zeros((40, 2)), candidates.build(pieces, pieces.__getitem__, pad_id=0)
    row, mask = jnp.asarray([[4, 0]], jnp.int32), jnp.asarray([[True, False]])
    words = jnp.asarray([[0, -1]], jnp.int32)
    loss = lambda e, t, m: jnp.sum(e, axis=(1, 2))  # noqa: E731
    with pytest.raises(ValueError, match=r"the tokens of the candidates must be 0 to 39.* got 0 to 40"):
        text.substitute(loss, table, row, mask, words, lexicon.table, text.Substitution())
    with pytest.raises(ValueError, match="tokens must be 0 to 3"):
        text.substitute(loss, table[:4], row, mask, words, lexicon.table, text.Substitution())
