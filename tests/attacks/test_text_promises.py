"""What a text attack promises of the words a person sees: sides, negations, numbers and classes never change."""

import functools
import itertools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from ranjax.attacks import text
from ranjax.attacks.text import candidates, constraints, restore, seen_words
from ranjax.data.images.augment import Augmentation
from ranjax.data.text.tokenizer import Tokenizer

LENGTH = 48
FREE = ["small", "large", "opacity", "lung", "heart", "clear", "seen", "dense", "wide", "film", "hazy", "mild"]
PROTECTED = [
    "no",
    "not",
    "without",
    "nil",
    "w/o",
    "doesn't",
    "doesn’t",
    "isn’t",
    "hasn't",
    "can't",
    "won’t",
    "left",
    "RIGHT",
    "Rt",
    "lt",
    "RLL",
    "LUL",
    "RML",
    "LLL",
    "R.L.L.",
    "L.",
    "b/l",
    "left-sided",
    "bilateral",
    "upper",
    "3",
    "2.5",
    "T12",
    "3-mm",
    "two",
    "mm",
    "izquierda",
    "derecho",
    "rechts",
    "keine",
    "sans",
    "aucun",
    "gauche",
    "Effusion",
    "effusions",
    "___",
    "XXXX",
]
MARKS = [".", ",", ";", "(", ")", "[", "]", ":", "§", "→", "½", "_"]
KNOWN = " ".join([*FREE, *PROTECTED[:20], "effusion", ". , ; ("])


def guard():
    return constraints.protection(["Effusion"])


@functools.cache
def attacked_by():
    """A tokenizer that knows some of the words, and the compiled attack on random embeddings."""
    tokenizer = Tokenizer.build([KNOWN])
    words = dict.fromkeys(word.lower() for word in tokenizer.split([KNOWN, " ".join(MARKS)])[0])
    lexicon = candidates.build(
        words, tokenizer.pieces, pad_id=tokenizer.pad_id, protected=guard(), unk_id=tokenizer.unk_id
    )
    table = jnp.asarray(np.random.default_rng(0).normal(size=(tokenizer.vocab_size, 8)).astype(np.float32))

    def loss(embeddings, tokens, mask):
        kept = jnp.where(mask[..., None], embeddings, 0)
        return jnp.sum(kept[..., 0] - kept[..., 1] ** 2, axis=1)

    settings = text.Substitution(max_words=4, top_k=8)
    options = {"xla_backend_optimization_level": 0}
    run = jax.jit(lambda *rows: text.substitute(loss, table, *rows, lexicon.table, settings), compiler_options=options)
    return tokenizer, lexicon, run


def substituted(report):
    tokenizer, lexicon, run = attacked_by()
    rows = tokenizer.encode([report], LENGTH)
    found = run(*(jnp.asarray(x) for x in (rows.ids, rows.mask, rows.words)))
    return restore.restore(report, tokenizer.spans([report])[0], np.asarray(found.choices)[0], lexicon)


WORDS = st.one_of(
    st.sampled_from(FREE), st.sampled_from(PROTECTED), st.sampled_from(["cardiomegaly", "Zebra’s", "naïve"])
)
REPORTS = st.lists(st.tuples(WORDS, st.sampled_from(["", "", "", *MARKS])), min_size=2, max_size=9).map(
    lambda parts: " ".join(word + mark for word, mark in parts)
)


@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(report=REPORTS)
def test_no_word_that_carries_the_statement_changes_and_no_mark_does(report):
    after = substituted(report)
    protected = guard()
    before_words, after_words = report.split(), after.split()
    assert len(before_words) == len(after_words)
    for old, new in zip(before_words, after_words):
        if protected(old):
            assert new == old
        if new != old:
            bare = new.strip("".join(MARKS)).lower()
            assert bare in FREE
            assert not protected(bare)
    assert [c for c in after if not (c.isalnum() or c.isspace())] == [
        c for c in report if not (c.isalnum() or c.isspace())
    ]
    assert constraints.names_side(after) == constraints.names_side(report)


def test_the_attack_does_change_what_is_free():
    assert substituted("small opacity seen, no effusion (left)") != "small opacity seen, no effusion (left)"


@pytest.mark.parametrize(
    "word", [*PROTECTED, *MARKS, "doesn", "isn", "t", "s", "DOESN`T", "n't", "ningún", "não", "R>L"]
)
def test_what_carries_the_statement_is_protected_in_any_spelling(word):
    assert guard()(word)


IN_LANGUAGES = {
    "negations": "isn′t isn＇t shan't mayn’t couldnt W.O. wo nonspecific unseen devoid non-displaced Ø "
    "jamás ningunas nadie nada niegan negativos descartada excluir libres faltan "
    "keinerlei nichts negativem fehlenden auszuschließen Ausschluß freier "
    "aucune n’est négatifs absentes exclue éliminé "
    "não ninguém negou excluída livres ausência "
    "mai nulla nemmeno neppure esclusa liberi priva assenti",
    "sides": "leftmost RLLs r.l.l. dextrocardia levoscoliosis left‐sided left‑sided left−sided LV RVH LIJ contralat "
    "ltd dcho. izqdo bilateralmente unilaterales LII linkem beidseitiger linksventrikulär Rechtsherz einseitig "
    "gche dte bilatérale controlatéral LSG esq. dir. bilaterais LSE bilaterali omolaterale sinistri destre",
    "places": "both upper superieurs supérieurs basales superiores Unterlappens Oberfeld mittlere beide "
    "inferiori ambos entrambi",
    "numbers": "tres zwei fünf trois três quattro segunda III iv twenty zwölf",
}


@pytest.mark.parametrize("kind", IN_LANGUAGES)
def test_inflected_and_shortened_words_of_every_language_are_protected(kind):
    words = IN_LANGUAGES[kind].split()
    assert [word for word in words if not guard()(word)] == []
    assert [word for word in words if not guard()(word.upper()) and word != "Ausschluß"] == []
    if kind == "sides":
        assert [word for word in words if not constraints.names_side(f"dense {word} lung")] == []


@pytest.mark.parametrize(
    ("report", "named"),
    [("lobe inférieur D", True), ("opacidade à E", True), ("心影左侧", True), ("le\u00adft lung", True),
     ("LA wide", True), ("L'épanchement d’aspect banal", False), ("5 g, as seen, la silueta", False),
     ("The vertebra is destroyed.", False)],
)  # fmt: skip
def test_letters_name_a_side_where_they_stand_for_one(report, named):
    assert constraints.names_side(report) is named


def test_a_language_model_never_proposes_words_that_it_does_not_know():
    _, lexicon, _ = attacked_by()
    other = Tokenizer.build(["small large"])
    table = candidates.in_tokens_of(lexicon, other.pieces, pad_id=other.pad_id, unk_id=other.unk_id)
    known = {word for word, count in zip(lexicon.words, np.asarray(table.lengths)) if count}
    assert known == {"small", "large"}


def test_every_word_that_names_a_side_is_protected():
    assert [word for word in constraints.read_list("sides") if not guard()(word)] == []
    assert all(
        constraints.names_side(f"Polmoni {word}.") for word in ("destro", "destra", "destri", "destre", "sinistri")
    )
    assert not constraints.names_side("The vertebra is destroyed.")


@pytest.mark.parametrize("word", FREE)
def test_what_carries_none_is_free(word):
    assert not guard()(word)


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (
            "It doesn't show w/o s/p, L.U.L. ___ end.",
            ["It", "doesn't", "show", "w/o", "s/p", ",", "L.U.L.", "___", "end", "."],
        ),
        ("isn’t (small)", ["isn’t", "(", "small", ")"]),
        ("left-sided 2.5", ["left", "-", "sided", "2", ".", "5"]),
    ],
)
def test_one_splitter_gives_the_words_that_a_person_sees(report, words):
    tokenizer, _, _ = attacked_by()
    assert tokenizer.split([report])[0] == words
    encoded = tokenizer.encode([report], LENGTH)
    assert encoded.words.max() + 1 == len(words)
    assert [report[slice(*span)] for span in restore.word_spans(report)] == words


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(report=st.text(max_size=60) | REPORTS)
def test_any_text_has_one_span_for_every_word(report):
    tokenizer, _, _ = attacked_by()
    (spans,), encoded = tokenizer.spans([report]), tokenizer.encode([report], 128)
    numbers = encoded.words[0][encoded.words[0] >= 0]
    assert len(spans) == numbers.max(initial=-1) + 1 or encoded.truncated
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


def test_words_are_joined_by_whole_words_and_numbered_without_gaps():
    assert seen_words.join("a b's c", [0, 1, 2, 3, 4], [(0, 1), (2, 3), (3, 4), (4, 5), (6, 7)]) == [0, 1, 1, 1, 2]
    assert seen_words.join("plain words", [0, 1], [(0, 5), (6, 11)]) == [0, 1]


@pytest.mark.parametrize(
    "report",
    ["Left effusion.", "RLL opacity", "a wide L base", "Rt. lung", "left-sided", "R.L.L. dense", "lingular",
     "b/l effusions",
     "Linksseitig", "hemitórax izquierdo", "dextroscoliosis", "poumon droit", "左肺", "LAO view"],
)  # fmt: skip
def test_a_report_that_names_a_side_is_never_mirrored(report):
    image = np.arange(64, dtype=np.float32).reshape(8, 8, 1) / 64
    always = Augmentation(flip=1.0)
    np.testing.assert_array_equal(always.image(image, report, np.random.default_rng(0)), image)
    mirrored = always.image(image, "Wide heart, clear lungs.", np.random.default_rng(0))
    np.testing.assert_array_equal(mirrored, image[:, ::-1])
