"""Language of pages, keys, errors and help texts: short sentences and no forbidden word."""

import statistics
from pathlib import Path

import pytest
from plain_language import forbidden, messages, prose, sentences

from ranjax.run import config

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SENTENCE_WORDS, LONGEST, MEAN = 25, 40, 15
PLAIN = [
    *("README.md", "CONTRIBUTING.md", "SECURITY.md"),
    *(str(page.relative_to(ROOT)) for page in PAGES if (ROOT / "docs") in page.parents),
]
"""All but the changelog; that one is held to the average."""


def long(text: str, words: int = SENTENCE_WORDS) -> list[str]:
    return [one for one in sentences(text) if len(one.split()) > words]


@pytest.mark.parametrize("name", PLAIN)
def test_a_page_has_short_sentences(name):
    assert long((ROOT / name).read_text()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_uses_words_that_the_style_forbids_and_none_is_hard_to_read(page):
    text = page.read_text()
    if page.name != "style.md":
        assert forbidden(prose(text)) == []
    assert long(text, LONGEST) == []
    lengths = [len(one.split()) for one in sentences(text)]
    if len(lengths) > 20:
        assert statistics.mean(lengths) <= MEAN


def test_the_meaning_of_every_key_is_said_in_short_sentences_without_forbidden_words():
    assert [key.name for key in config.KEYS if long(key.meaning) or forbidden(key.meaning)] == []


def test_every_error_and_help_text_is_said_in_short_sentences_without_forbidden_words():
    texts = {(file, text) for file in (ROOT / "ranjax").rglob("*.py") for text in messages(file)}
    assert len(texts) > 1000
    found = [(str(file.relative_to(ROOT)), text) for file, text in texts if long(text) or forbidden(text)]
    assert sorted(found) == []
