"""Importance-ranked substitution on words of several tokens, against plain Python."""

import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from ranjax.attacks import text
from ranjax.attacks.text import importance
from ranjax.core.errors import ConfigError

import toy_text as toy  # isort: skip

PARAMS = toy.params()
TABLE = toy.lexicon().table
BATCH = 4
SETTINGS = text.Substitution(max_words=2)
BOUND = text.Substitution(max_words=None, share=1.0, max_queries=7)
TEXTS = st.lists(st.lists(st.sampled_from(toy.WORDS), max_size=6), min_size=BATCH, max_size=BATCH)
quick = hypothesis.settings(
    max_examples=15, deadline=None, derandomize=True, database=None, phases=[hypothesis.Phase.generate]
)


def run(texts, lists, settings=SETTINGS, seed=0, hide="unk"):
    rows = toy.encode(texts)
    target = toy.params(seed)["target"][:BATCH]
    return rows, target, toy.ranked(PARAMS, target, rows, jnp.asarray(lists), TABLE, settings, hide)


def random_lists(seed):
    rng = np.random.default_rng(seed)
    return rng.integers(-1, len(toy.WORDS), size=(BATCH, toy.LENGTH, 3)).astype(np.int32)


def slow(words, lists, target, budget, hide):
    """The same on lists of words; the query count with it."""
    flat = lambda listed: [toy.BOS, *(t for word in listed for t in word), toy.EOS]  # noqa: E731
    pieces = [toy.PIECES[word] for word in words]
    value = clean = toy.slow_loss(PARAMS, flat(pieces), target)
    free = [i for i, word in enumerate(words) if word not in toy.PROTECTED]
    hidden = [toy.UNK] if hide == "unk" else []
    rise = {i: toy.slow_loss(PARAMS, flat([*pieces[:i], hidden, *pieces[i + 1 :]]), target) - clean for i in free}
    queries, used, words = len(free), 0, list(words)
    for i in sorted(free, key=lambda i: -rise[i]):
        if used == budget:
            break
        best = None
        for entry in lists[i]:
            new = toy.WORDS[entry]
            if entry < 0 or new in toy.PROTECTED or new == words[i]:
                continue
            trial = [*words[:i], new, *words[i + 1 :]]
            tokens = flat([toy.PIECES[word] for word in trial])
            if len(tokens) > toy.LENGTH:
                continue
            queries += 1
            score = toy.slow_loss(PARAMS, tokens, target)
            if score > value and (best is None or score > best[0]):
                best = score, trial
        if best:
            value, words = best
            used += 1
    return words, value, queries


@pytest.mark.parametrize("hide", importance.HIDE)
@quick
@hypothesis.given(texts=TEXTS, seed=st.integers(0, 50))
def test_it_is_the_plain_loop(hide, texts, seed):
    lists = random_lists(seed)
    rows, target, found = run(texts, lists, seed=seed, hide=hide)
    for row in range(BATCH):
        fitting = texts[row][: rows[2][row].max() + 1]
        words, value, queries = slow(fitting, lists[row], target[row], 2, hide)
        assert toy.to_words(found, row) == words
        assert float(found.loss[row]) == pytest.approx(value, abs=1e-5)
        assert int(found.queries[row]) == queries
    assert (np.diff(found.trace, axis=0) >= 0).all()


def test_queries_are_bounded_and_shares_counted():
    texts = [["clear", "lungs", "rib", "heart", "large"]] * BATCH
    _, _, found = run(texts, random_lists(1), BOUND)
    assert (found.queries <= 7).all()
    assert (found.edits <= 5).all()
    np.testing.assert_array_equal(found.edits, found.changed.sum(1))


def test_no_budget_and_nothing_open_change_nothing():
    rows, _, found = run([["no", "left"], [], ["the"], ["no"]], random_lists(2))
    np.testing.assert_array_equal(found.tokens, rows[0])
    assert not found.queries.any()
    np.testing.assert_array_equal(found.loss, found.clean_loss)


def test_what_does_not_fit_is_refused():
    rows = tuple(map(jnp.asarray, toy.encode([["clear"]])))
    loss = toy.loss(PARAMS, PARAMS["target"][:1])
    allowed = toy.for_rows(TABLE, rows[0], rows[2])
    with pytest.raises(ValueError, match="lists per slot"):
        importance.ranked(loss, PARAMS["table"], *rows, allowed, SETTINGS, hide_id=toy.UNK)
    for hidden in (-1, len(PARAMS["table"])):
        with pytest.raises(ConfigError, match=f"hide_id = {hidden}: .* 0 to {len(PARAMS['table']) - 1}"):
            importance.ranked(
                loss, PARAMS["table"], *rows, allowed._replace(lists=jnp.zeros((1, rows[0].shape[1], 2), jnp.int32)),
                SETTINGS, hide_id=hidden,
            )  # fmt: skip
    with pytest.raises(ConfigError, match="hide"):
        importance.importance(loss, PARAMS["table"], *rows, allowed.open, hide_id=3, pad_id=0, hide="mask")
