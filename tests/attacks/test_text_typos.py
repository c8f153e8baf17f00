"""Misspelt words, and the greedy search over whole texts: guards, budgets, and the best single change."""

import numpy as np
import pytest

from ranjax.attacks.text import greedy, typos
from ranjax.attacks.text.constraints import protection
from ranjax.attacks.text.restore import word_spans
from ranjax.core.errors import ConfigError


def edits(one, other):
    """Damerau's distance, in which two swapped neighbours are one edit."""
    table = np.zeros((len(one) + 1, len(other) + 1), int)
    table[:, 0], table[0] = np.arange(len(one) + 1), np.arange(len(other) + 1)
    for i in range(1, len(one) + 1):
        for j in range(1, len(other) + 1):
            same = one[i - 1] != other[j - 1]
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + same)
            if i > 1 and j > 1 and one[i - 1] == other[j - 2] and one[i - 2] == other[j - 1]:
                table[i, j] = min(table[i, j], table[i - 2, j - 2] + 1)
    return table[-1, -1]


def test_a_typo_is_one_edit_inside_the_word():
    every = typos.typos("Pleural", 100)
    assert len(every) == len(set(every)) > 15
    assert all(edits("Pleural", form) == 1 and (form[0], form[-1]) == ("P", "l") for form in every)
    assert typos.typos("Pleural", 5) == typos.typos("Pleural", 100)[:5]
    assert typos.typos("Pleural", 5, "other") != typos.typos("Pleural", 5)
    assert typos.typos("the") == typos.typos("3cm2") == ()


TEXTS = ("There is a small left effusion in the hazy zone.", "No nodule is seen today.")


def of_letters(weights):
    """A score that is known by hand: the weights of a text's words."""

    def score(texts, owner):
        return np.asarray([sum(weights.get(word, 0) for word in text.strip(".").split()) for text in texts])

    return score


def test_the_most_important_word_is_changed_first_and_protected_ones_never():
    guard = protection(("effusion", "nodule"))
    weights = {"small": -3, "hazy": -2, "zone": -1, "seen": -1, "huge": 1, "clear": 1, "effusion": -9, "left": -9}
    forms = {"small": ("huge", "tiny"), "hazy": ("clear",), "zone": ("area",), "seen": ("found",)}
    seen = []

    def of_word(number, place, word):
        seen.append(word)
        return forms.get(word, ())

    found = greedy.attack(
        TEXTS, [word_spans(text) for text in TEXTS], lambda w: not guard(w), of_word, of_letters(weights), (1, 2, 4)
    )
    assert found[1] == ["There is a huge left effusion in the hazy zone.", "No nodule is found today."]
    assert found[2][0] == "There is a huge left effusion in the clear zone."
    assert found[4][0] == "There is a huge left effusion in the clear area."
    assert seen[0] == "small"
    assert not {"left", "effusion", "No", "nodule"} & set(seen)


def test_a_change_that_does_not_raise_the_score_is_not_taken():
    spans = [word_spans(text) for text in TEXTS]
    found = greedy.attack(TEXTS, spans, lambda w: True, lambda *_: ("x",), lambda t, o: np.zeros(len(t)), (1, 3))
    assert found == {1: list(TEXTS), 3: list(TEXTS)}
    with pytest.raises(ConfigError, match="budgets"):
        greedy.attack(TEXTS, spans, bool, lambda *_: (), lambda t, o: np.zeros(len(t)), (2, 1))
