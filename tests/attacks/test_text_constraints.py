"""What is protected, where candidates come from, and how chosen words become text again."""

import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from ranjax.attacks import text
from ranjax.attacks.text import candidate_sources, candidates, constraints, restore
from ranjax.core.errors import ConfigError, DataError

import toy_text as toy  # isort: skip


@pytest.mark.parametrize("name", [*constraints.KINDS, "radiology_synonyms", "word_classes"])
def test_bundled_lists_are_clean(name):
    entries = constraints.read_list(name)
    assert len(entries) == len(set(entries)) >= 8
    assert all(entry == entry.strip().lower() for entry in entries)


def test_kinds_do_not_overlap_but_where_meant():
    groups = {kind: set(constraints.read_list(kind)) for kind in constraints.KINDS}
    assert not groups["negation"] & groups["laterality"]
    for group in constraints.read_groups("radiology_synonyms"):
        assert len(group) >= 2
        protected = set(group) & (groups["negation"] | groups["laterality"] | groups["numbers"])
        assert not protected, f"{group} offers words that carry the statement"


@pytest.mark.parametrize(
    "word",
    ["no", "No", "WITHOUT", "left", "Left-sided", "the", "3", "2.5", "3-mm", "T12", "mm", "two", ",", ".", "___"],
)
def test_usual_protection_covers(word):
    assert constraints.protection()(word)


@pytest.mark.parametrize(
    "word", ["[CLS]", "<|endoftext|>", "XXXX", "right/left", "denies", "non-calcified", "effusions"]
)
def test_protection_covers_special_tokens_compounds_and_labels(word):
    assert constraints.protection(["Pleural Effusion", "No Finding of Note"])(word)


@pytest.mark.parametrize("word", ["clear", "heart", "mild", "follow-up", "note", "opacity", "lungs"])
def test_other_words_are_free(word):
    assert not constraints.protection(["Pleural Effusion"])(word)


def test_protection_can_be_switched_off_and_replaced(tmp_path):
    own = tmp_path / "sides.txt"
    own.write_text("# ours\nportside\n\nstarboard  # the other\n")
    chosen = constraints.protection(kinds=("laterality",), lists={"laterality": own}, extra=["Nodule"])
    assert [chosen(w) for w in ("portside", "starboard", "left", "no", "7", "the", "nodule")] == [
        True,
        True,
        False,
        False,
        False,
        False,
        True,
    ]
    assert constraints.read_list(own) == ("portside", "starboard")


def test_lists_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(DataError, match="did you mean 'negation'"):
        constraints.read_list("negations")
    with pytest.raises(DataError, match="did you mean 'units'"):
        constraints.protection(kinds=("unit",))
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(DataError, match="empty"):
        constraints.read_list(tmp_path / "empty.txt")


def test_groups_and_classes_become_lists():
    made = toy.lexicon()
    at = made.indices()
    lists = np.asarray(
        candidate_sources.from_groups(made, [("Clear", "large", "rib"), ("large", "heart"), ("absent", "lungs")])
    )
    assert lists[at["clear"]].tolist() == [at["large"], at["rib"], -1]
    assert lists[at["large"]].tolist() == [at["clear"], at["rib"], at["heart"]]
    assert (lists[at["lungs"]] == -1).all()
    kept = np.asarray(candidate_sources.same_class(made, jnp.asarray(lists), [("clear", "large"), ("rib", "heart")]))
    assert kept[at["large"]].tolist() == [at["clear"], -1, -1]
    assert kept[at["heart"], 0] == -1
    both = candidate_sources.restrict(made.table, jnp.asarray(lists), jnp.asarray(kept))
    np.testing.assert_array_equal(both.lists, kept)
    again = candidate_sources.restrict(both, jnp.full((len(toy.WORDS), 1), at["clear"], jnp.int32))
    assert np.asarray(again.lists)[at["large"]].tolist() == [at["clear"], -1, -1]


def test_neighbours_are_the_nearest_offered_words_above_the_threshold():
    table, embedding = toy.lexicon().table, toy.params()["table"]
    found = np.asarray(candidate_sources.neighbours(embedding, table, 4, min_similarity=0.1))
    mean = np.stack([embedding[toy.PIECES[word]].mean(0) for word in toy.WORDS])
    unit = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    for i, row in enumerate(unit @ unit.T):
        wanted = sorted(
            (j for j in range(len(row)) if j != i and toy.WORDS[j] not in toy.PROTECTED and row[j] >= 0.1),
            key=lambda j: -row[j],
        )[:4]
        assert found[i][found[i] >= 0].tolist() == wanted
    with pytest.raises(ConfigError, match="min_similarity"):
        candidate_sources.neighbours(embedding, table, 4, 2.0)
    with pytest.raises(ConfigError, match="k = 0"):
        candidate_sources.neighbours(embedding, table, 0)


def test_masked_lm_lists_read_the_word_s_own_positions_and_piece_count():
    _, _, words = map(jnp.asarray, toy.encode([["clear", "effusion", "rib"]]))
    table = toy.lexicon().table
    logits = np.random.default_rng(3).normal(size=(1, toy.LENGTH, toy.VOCAB)).astype(np.float32)
    lists = toy.quick_jit(lambda logits: candidate_sources.masked_lm_lists(logits, words, table, 3, slots=5))
    found = np.asarray(lists(jnp.asarray(logits)))
    assert found.shape == (1, 5, 3)
    for slot, positions in enumerate([[1], [2, 3], [4]]):
        same = [i for i, word in enumerate(toy.WORDS) if len(toy.PIECES[word]) == len(positions)]
        value = {i: np.mean([logits[0, p, t] for p, t in zip(positions, toy.PIECES[toy.WORDS[i]])]) for i in same}
        assert found[0, slot].tolist() == sorted(same, key=lambda i: -value[i])[:3]
    assert (found[0, 3:] == -1).all()


def test_masked_logits_hide_one_whole_word_at_a_time():
    tokens, mask, words = map(jnp.asarray, toy.encode([["clear", "effusion"], ["rib"]]))
    model = lambda t, m: jnp.cumsum(jnp.where(t == toy.UNK, 1.0, 0.0), 1)[..., None]  # noqa: E731
    found = toy.quick_jit(lambda: candidate_sources.masked_logits(model, tokens, mask, words, toy.UNK))()[..., 0]
    np.testing.assert_array_equal(found[0, :5], [0, 1, 1, 2, 0])
    np.testing.assert_array_equal(found[1, :4], [0, 1, 0, 0])


REPORT = "No Effusion; the HEART is  large,\nclear lungs."


def test_text_round_trip_and_case():
    spans = restore.word_spans(REPORT)
    made = candidates.Lexicon(("rib", "opacity"), toy.lexicon().table)
    assert restore.restore(REPORT, spans, np.full(12, -1), made) == REPORT
    choices = np.full(12, -1)
    choices[1], choices[4], choices[6] = 1, 0, 0
    assert restore.restore(REPORT, spans, choices, made) == "No Opacity; the RIB is  rib,\nclear lungs."
    with pytest.raises(ValueError, match="slot 9"):
        restore.restore(REPORT, spans[:9], np.array([-1] * 9 + [0]), made)


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True, database=None)
@hypothesis.given(text=st.text(max_size=40), data=st.data())
def test_replacing_one_word_leaves_all_else(text, data):
    spans = restore.word_spans(text)
    made = candidates.Lexicon(("rib",), toy.lexicon().table)
    assert restore.restore(text, spans, np.full(len(spans), -1), made) == text
    if spans:
        slot = data.draw(st.integers(0, len(spans) - 1))
        choices = np.where(np.arange(len(spans)) == slot, 0, -1)
        found = restore.restore(text, spans, choices, made)
        begin, end = spans[slot]
        assert found[:begin] == text[:begin]
        assert found[begin : begin + 3].lower() == "rib"
        assert found[begin + 3 :] == text[end:]


# a word in the place of a list of words is one word, not its letters
def test_one_label_is_one_label():
    for protected in (
        constraints.protection("Edema"),
        constraints.protection(extra="edema", lists={"laterality": "off"}),
    ):
        assert protected("edema")
    assert not constraints.protection(lists={"laterality": "off"})("left")
    assert constraints.protection(lists={"laterality": "off"})("without")


def test_words_of_no_common_class_do_not_replace_each_other_in_any_search():
    made = toy.lexicon()
    groups = [("large", "clear"), ("heart", "lungs", "rib"), ("clear", "rib")]
    bits = candidate_sources.class_bits(made, groups)
    word = dict(zip(made.words, np.asarray(bits).tolist()))
    assert (word["large"], word["clear"], word["rib"], word["effusion"]) == (1, 5, 6, 0)
    table = made.table._replace(classes=bits)
    tokens, mask, words = toy.encode([["large", "heart", "effusion"]] * 2)
    target = toy.params()["target"][:2]
    settings = text.Substitution(max_words=3, top_k=len(toy.WORDS) * toy.LENGTH)
    rows = tuple(map(jnp.asarray, (tokens, mask, words)))
    found = toy.attack(toy.params(), target, rows, table, settings)
    for row in np.asarray(found.choices):
        for old, choice in zip(("large", "heart", "effusion"), row[:3]):
            new = made.words[choice] if choice >= 0 else old
            assert new == old or not word[old] or not word[new] or word[old] & word[new]
    with pytest.raises(ConfigError, match="at most 32 classes"):
        candidate_sources.class_bits(made, [("large",)] * 33)


def test_words_of_doubt_are_bundled():
    assert {"possible", "likely", "indeterminate", "suggest"} <= set(constraints.read_list("doubts"))
