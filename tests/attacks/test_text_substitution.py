"""What must hold of every substitution, on rows of words of one to three tokens."""

import dataclasses
import itertools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from ranjax.attacks import text
from ranjax.attacks.text import candidates, substitution
from ranjax.core.errors import ConfigError

import toy_text as toy  # isort: skip

PARAMS = toy.params()
TABLE = toy.lexicon().table
NUMBER, BATCH = len(toy.WORDS), 4
ONE = text.Substitution(max_words=2, top_k=6)
ALL = text.Substitution(max_words=3, top_k=NUMBER * toy.LENGTH)
BEAM = text.Substitution(max_words=3, top_k=6, beam=3)
SHARE = text.Substitution(max_words=None, share=0.5, top_k=6, max_queries=9)

TEXTS = st.lists(st.lists(st.sampled_from(toy.WORDS), max_size=8), min_size=BATCH, max_size=BATCH)
quick = hypothesis.settings(
    max_examples=15, deadline=None, derandomize=True, database=None, phases=[hypothesis.Phase.generate]
)


def run(texts, settings=ONE, seed=0, length=toy.LENGTH, table=TABLE, target=None):
    rows = toy.encode(texts, length)
    target = toy.params(seed)["target"][: len(texts)] if target is None else target
    return rows, target, toy.attack(PARAMS, target, tuple(map(jnp.asarray, rows)), table, settings)


def slow_substitute(words, target, max_words, length=toy.LENGTH):
    """Greedy by true loss over everything allowed, on lists of words."""
    tokens = lambda listed: [toy.BOS, *itertools.chain(*map(toy.PIECES.get, listed)), toy.EOS]  # noqa: E731
    value, used, words = toy.slow_loss(PARAMS, tokens(words), target), set(), list(words)
    free = [word for word in toy.WORDS if word not in toy.PROTECTED]
    for _ in range(max_words):
        best = None
        for slot, new in itertools.product(range(len(words)), free):
            if slot in used or words[slot] in toy.PROTECTED or words[slot] == new:
                continue
            trial = [*words[:slot], new, *words[slot + 1 :]]
            if len(tokens(trial)) <= length:
                score = toy.slow_loss(PARAMS, tokens(trial), target)
                if score > value and (best is None or score > best[0]):
                    best = score, trial, slot
        if best is None:
            break
        value, words = best[:2]
        used.add(best[2])
    return words, value


@quick
@hypothesis.given(texts=TEXTS, seed=st.integers(0, 99))
def test_with_every_candidate_scored_it_is_the_exhaustive_greedy_search(texts, seed):
    rows, target, found = run(texts, ALL, seed)
    for row in range(BATCH):
        slots = rows[2][row]
        fitting = texts[row][: slots.max() + 1]
        words, value = slow_substitute(fitting, target[row], 3)
        assert toy.to_words(found, row) == words
        assert float(found.loss[row]) == pytest.approx(value, abs=1e-5)
        tokens = toy.encode([words])[0][0]
        np.testing.assert_array_equal(found.tokens[row], tokens)
        np.testing.assert_array_equal(found.mask[row], tokens != toy.PAD)


@quick
@hypothesis.given(texts=TEXTS, seed=st.integers(0, 99), settings=st.sampled_from([ONE, BEAM, SHARE]))
def test_invariants(texts, seed, settings):
    rows, target, found = run(texts, settings, seed)
    tokens, mask, words = rows
    count = words.max(1) + 1
    assert (found.edits <= settings.budgets(toy.LENGTH)[count]).all()
    np.testing.assert_array_equal(found.changed.sum(1), found.edits)
    np.testing.assert_array_equal(found.changed, found.choices >= 0)
    assert (np.diff(found.trace, axis=0) >= 0).all()
    np.testing.assert_array_equal(found.trace[-1], found.loss)
    np.testing.assert_array_equal(found.trace[0], found.clean_loss)
    np.testing.assert_array_equal(found.loss > found.clean_loss, found.edits > 0)
    if settings.max_queries is not None:
        assert (found.queries <= settings.max_queries).all()
    for row in range(BATCH):
        before = texts[row][: count[row]]
        after = toy.to_words(found, row)
        assert len(after) == len(before)
        for slot, (old, new) in enumerate(zip(before, after)):
            if bool(found.changed[row, slot]):
                assert old not in toy.PROTECTED
                assert new not in toy.PROTECTED
                assert new != old
                assert toy.WORDS[int(found.choices[row, slot])] == new
            else:
                assert new == old
        real = np.asarray(found.tokens[row])[np.asarray(found.mask[row])]
        assert real[0] == toy.BOS
        assert real[-1] == toy.EOS
        assert (real[1:-1] >= 4).all()
        assert (np.asarray(found.tokens[row])[~np.asarray(found.mask[row])] == toy.PAD).all()


@quick
@hypothesis.given(texts=TEXTS, order=st.permutations(range(BATCH)))
def test_row_order_never_matters(texts, order):
    _, target, first = run(texts)
    _, _, second = run([texts[i] for i in order], target=target[np.array(order)])
    np.testing.assert_array_equal(np.asarray(first.tokens)[list(order)], second.tokens)
    np.testing.assert_array_equal(np.asarray(first.loss)[list(order)], second.loss)


def test_padding_and_batch_mates_never_matter():
    texts = [["clear", "lungs", "rib"], ["heart", "large"], ["rib"], ["effusion", "clear", "heart"]]
    _, target, short = run(texts)
    _, _, long = run(texts, length=20)
    np.testing.assert_array_equal(short.words, np.asarray(long.words)[:, : toy.LENGTH])
    np.testing.assert_array_equal(short.tokens, np.asarray(long.tokens)[:, : toy.LENGTH])
    np.testing.assert_allclose(short.loss, long.loss, atol=1e-6)
    for row in range(BATCH):
        _, _, alone = run([texts[row]] * BATCH, target=np.repeat(target[row : row + 1], BATCH, 0))
        np.testing.assert_array_equal(alone.tokens[0], short.tokens[row])
        np.testing.assert_allclose(alone.loss[0], short.loss[row], atol=1e-6)


def test_no_budget_changes_nothing():
    for settings in (text.Substitution(max_words=0), text.Substitution(max_words=None, share=0.0)):
        rows, _, found = run([["clear", "lungs"]] * BATCH, settings)
        np.testing.assert_array_equal(found.tokens, rows[0])
        np.testing.assert_array_equal(found.loss, found.clean_loss)
        assert not found.queries.any()
        assert found.trace.shape == (1, BATCH)


def test_budgets_round_shares_up_exactly():
    assert text.Substitution(max_words=None, share=0.4).budgets(15)[[0, 1, 5, 10, 11, 15]].tolist() == [
        0,
        1,
        2,
        4,
        5,
        6,
    ]
    assert text.Substitution(max_words=None, share=0.1).budgets(30)[30] == 3
    assert text.Substitution(max_words=2, share=0.5).budgets(9).tolist() == [0, 1, 1, 2, 2, 2, 2, 2, 2, 2]


def test_texts_that_leave_nothing_to_do_come_back():
    full = ["cardiomegaly", "pneumothorax", "atelectasis", "clear"]  # fills the row: only as short or shorter words fit
    rows, _, found = run([[], ["no", "left", "the"], full, ["no"]])
    for row in (0, 1, 3):
        np.testing.assert_array_equal(found.tokens[row], rows[0][row])
        assert not found.queries[row]
    assert int(found.mask[2].sum()) <= toy.LENGTH
    assert toy.EOS in np.asarray(found.tokens[2])


def test_a_row_at_its_best_is_left_alone_and_reported_so():
    rows = toy.encode([["clear", "lungs"]] * BATCH)
    constant = lambda e, t, m: jnp.zeros(e.shape[0])  # noqa: E731
    found = toy.quick_jit(lambda: text.substitute(constant, PARAMS["table"], *rows, TABLE, ONE))()
    np.testing.assert_array_equal(found.tokens, rows[0])
    assert not found.changed.any()
    assert (found.queries == ONE.top_k).all()  # tried once, not again


def test_queries_are_the_forward_passes_on_replaced_texts():
    rows = tuple(map(jnp.asarray, toy.encode([["clear", "lungs", "rib", "heart"]])))
    seen = []

    def loss(e, t, m):
        jax.debug.callback(lambda t: seen.append(np.asarray(t)), t)
        return toy.loss(PARAMS, PARAMS["target"][:1])(e, t, m)

    settings = text.Substitution(max_words=1, top_k=6)
    found = toy.quick_jit(lambda: text.substitute(loss, PARAMS["table"], *rows, TABLE, settings))()
    jax.effects_barrier()
    replaced = [t for t in seen if not np.array_equal(t, rows[0])]
    assert int(found.queries[0]) == len(replaced) == 6


def test_lists_restrict_what_may_replace_what():
    lists = np.full((NUMBER, 2), -1, np.int32)
    lists[toy.WORDS.index("clear"), 0] = toy.WORDS.index("oedema")
    lists[toy.WORDS.index("heart")] = [toy.WORDS.index("rib"), toy.WORDS.index("no")]
    texts = [["clear", "lungs", "heart", "rib"]] * BATCH
    _, _, found = run(texts, table=toy.lexicon(jnp.asarray(lists)).table)
    for row in range(BATCH):
        for slot, new in enumerate(toy.to_words(found, row)):
            assert new == texts[row][slot] or (texts[row][slot], new) in {("clear", "oedema"), ("heart", "rib")}
    assert found.edits.any()


def test_beam_keeps_distinct_texts_and_beats_greedy_where_the_first_step_misleads():
    targets, texts = toy.params(7)["target"][:BATCH], [["clear", "lungs", "rib", "heart", "large"]] * BATCH
    wide = text.Substitution(max_words=3, top_k=NUMBER * toy.LENGTH, beam=3)
    _, _, greedy = run(texts, ALL, target=targets)
    _, _, beam = run(texts, wide, target=targets)
    assert (beam.loss >= greedy.loss - 1e-6).all()


def test_accept_function_bounds_the_distance_to_the_original():
    rows = tuple(map(jnp.asarray, toy.encode([["clear", "lungs", "rib", "heart"]] * BATCH)))
    target = PARAMS["target"][:BATCH]
    feature = lambda e, t, m: toy.features(PARAMS, e, t, m)  # noqa: E731
    original = feature(jnp.asarray(PARAMS["table"])[rows[0]], rows[0], rows[1])

    @toy.quick_jit
    def attack(threshold):
        accept = lambda e, t, m: _cosine(feature(e, t, m), original) >= threshold  # noqa: E731
        return text.substitute(toy.loss(PARAMS, target), PARAMS["table"], *rows, TABLE, ALL, accept)

    def similarity(found):
        return _cosine(feature(jnp.asarray(PARAMS["table"])[found.tokens], found.tokens, found.mask), original)

    free, bound = attack(-1.0), attack(0.8)
    assert float(similarity(free).min()) < 0.8
    assert float(similarity(bound).min()) >= 0.8 - 1e-6
    assert (bound.loss <= free.loss + 1e-6).all()
    own = text.similar_to(feature, original, 0.8)
    np.testing.assert_array_equal(
        own(jnp.asarray(PARAMS["table"])[free.tokens], free.tokens, free.mask), similarity(free) >= 0.8
    )
    with pytest.raises(ConfigError, match="threshold"):
        text.similar_to(feature, original, 1.5)


def _cosine(a, b):
    return jnp.sum(a * b, -1) / (jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1))


def test_chunked_forward_passes_change_nothing():
    texts = [["clear", "lungs", "rib", "heart"]] * BATCH
    _, _, whole = run(texts)
    _, _, small = run(texts, text.Substitution(max_words=2, top_k=6, forward_rows=2 * BATCH))
    np.testing.assert_array_equal(whole.tokens, small.tokens)
    np.testing.assert_allclose(whole.loss, small.loss, atol=1e-6)


def test_a_row_of_nan_comes_back_and_spares_the_others():
    texts = [["clear", "lungs"], ["rib", "heart"], ["large", "rib"], ["heart", "clear"]]
    rows, target, whole = run(texts)
    broken = target.copy()
    broken[1] = np.nan
    _, _, found = run(texts, target=broken)
    np.testing.assert_array_equal(found.tokens[1], rows[0][1])
    others = [0, 2, 3]
    np.testing.assert_array_equal(np.asarray(found.tokens)[others], np.asarray(whole.tokens)[others])


def test_second_call_does_not_compile_and_jit_equals_eager():
    texts = [["clear", "lungs"], ["rib", "heart"], ["large", "rib"], ["heart", "clear"]]
    rows, target, first = run(texts)
    compiled = toy.attack._cache_size()
    _, _, second = run([["heart", "effusion"]] * BATCH, seed=3)
    _, _, again = run(texts)
    assert toy.attack._cache_size() == compiled
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a, b)
    eager = text.substitute(toy.loss(PARAMS, target), PARAMS["table"], *map(jnp.asarray, rows), TABLE, ONE)
    np.testing.assert_array_equal(eager.tokens, first.tokens)
    np.testing.assert_allclose(eager.loss, first.loss, atol=1e-6)
    np.testing.assert_array_equal(toy.encode(texts)[0], rows[0])  # inputs untouched


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_words": -1}, "max_words"),
        ({"max_words": None}, "max_words"),
        ({"share": 1.5}, "share"),
        ({"top_k": 0}, "top_k"),
        ({"beam": 0}, "beam"),
        ({"forward_rows": 0}, "forward_rows"),
        ({"max_queries": -2}, "max_queries"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        text.Substitution(**change)


def test_rows_that_do_not_fit_are_refused():
    tokens, mask, words = map(jnp.asarray, toy.encode([["clear"]]))
    loss = toy.loss(PARAMS, PARAMS["target"][:1])
    table = PARAMS["table"]
    with pytest.raises(ValueError, match="mask must be bool"):
        text.substitute(loss, table, tokens, mask.astype(jnp.int32), words, TABLE, ONE)
    with pytest.raises(ValueError, match=r"\[B, L\]"):
        text.substitute(loss, table, tokens, mask, words[:, :-1], TABLE, ONE)
    with pytest.raises(ValueError, match=r"\[V, W\]"):
        text.substitute(loss, table[0], tokens, mask, words, TABLE, ONE)
    for slot in (-2, words.shape[1]):
        with pytest.raises(ValueError, match=rf"slots from 0 to {words.shape[1] - 1} .* got .*{slot}"):
            text.substitute(loss, table, tokens, mask, words.at[0, 1].set(slot), TABLE, ONE)
    with pytest.raises(ValueError, match="int32"):
        text.substitute(loss, table, tokens.astype(jnp.float32), mask, words, TABLE, ONE)


def test_rows_are_cut_to_what_replacements_can_come_to_need():
    table = candidates.build(["one", "three"], {"one": [4], "three": [5, 6, 7]}.__getitem__, pad_id=0).table
    mask = np.arange(40)[None] < np.array([[7], [13]])
    assert text.needed_length(mask, table, text.Substitution(max_words=0)) == 16
    assert text.needed_length(mask, table, text.Substitution(max_words=2)) == 20  # 13 + 2 words of 2 more pieces
    assert text.needed_length(mask[:, :18], table, text.Substitution(max_words=2)) == 18
    assert text.needed_length(mask[:0], table, text.Substitution(max_words=0)) == 0


@pytest.mark.parametrize(
    "more",
    [{"max_words": "3"}, {"max_words": 1.5}, {"share": "0.4"}, {"share": True}, {"top_k": 2.5}, {"max_queries": -1}],
)
@pytest.mark.usefixtures("unchecked")
def test_settings_that_are_no_numbers_are_refused(more):
    with pytest.raises(ValueError, match=next(iter(more))):
        text.Substitution(**more)


def test_passes_of_few_rows_give_the_attack_of_passes_of_many(monkeypatch):
    texts = [["clear", "lungs", "rib", "heart"], ["effusion", "heart"], ["large"], ["oedema", "opacity", "lungs"]]
    lists = np.tile(np.arange(NUMBER, dtype=np.int32), (NUMBER, 1))
    table = toy.lexicon(jnp.asarray(lists)).table
    wide = text.Substitution(max_words=2, top_k=4, beam=4, forward_rows=256)
    _, _, many = run(texts, wide, table=table)
    monkeypatch.setattr(substitution, "GAINS_AT_ONCE", 1)
    _, _, few = run(texts, dataclasses.replace(wide, forward_rows=BATCH), table=table)
    for name in ("tokens", "words", "choices", "queries"):
        np.testing.assert_array_equal(getattr(few, name), getattr(many, name), name)
    np.testing.assert_allclose(few.loss, many.loss, atol=1e-6)
    assert many.edits.max() > 1


def test_the_memory_of_a_wide_beam_is_that_of_a_narrow_one():
    rows = tuple(map(jnp.asarray, toy.encode([["clear", "lungs", "rib", "heart"]] * BATCH)))
    wide_layer = jnp.ones((toy.WIDTH, 4096))

    def loss(embeddings, tokens, mask):
        return jnp.sum(jnp.tanh(embeddings @ wide_layer), axis=(1, 2))

    def bytes_of(beam):
        settings = text.Substitution(max_words=2, top_k=2, beam=beam, forward_rows=4 * BATCH)
        attack = jax.jit(lambda: text.substitute(loss, PARAMS["table"], *rows, TABLE, settings))
        return attack.lower().compile().memory_analysis().temp_size_in_bytes

    activations = 4 * BATCH * toy.LENGTH * 4096 * 4
    narrow, wide = bytes_of(4), bytes_of(32)
    assert narrow > activations  # it is the passes that cost
    assert wide < 1.25 * narrow
