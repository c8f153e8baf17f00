"""Documentation: links lead somewhere, the README is short and runs, pictures are true, language is plain."""

import importlib.util
import re
import statistics
from pathlib import Path

import pytest

from ranjax.report.abbreviations import ABBREVIATIONS
from ranjax.run import config

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README_WORDS, SENTENCE_WORDS = 600, 25
ARCHAIC = ("lest", "save that", "belie", "whatever", "whoever", "thereof", "wherein", "heretofore", "aforesaid")


def prose(text: str) -> str:
    """The running text of a Markdown page: no code, tables, headings, pictures, front matter or addresses of links."""
    text = re.sub(r"(?ms)^```.*?^```", "", text)
    text = re.sub(r"(?m)^(\||#|!\[|<).*$", "", text)
    text = re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\s\[[-−\d.]+,\s[-−\d.]+\]", "", text)  # a value with its interval is one word
    return re.sub(r"`[^`]*`", "CODE", text)


def sentences(text: str) -> list[str]:
    """The sentences of a page; an item of a list, and what stands on both sides of a semicolon, are sentences too."""
    blocks = re.split(r"\n\s*\n|\n\s*(?:[*-]|\d+\.) ", prose(text))
    parts = [part for block in blocks for part in re.split(r"(?<=[.!?;:])[*_]*\s+", " ".join(block.split()))]
    return [part for part in parts if re.search(r"[a-z]", part)]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    found = re.findall(r"(?m)^#+ (.+)$", re.sub(r"(?ms)^```.*?^```", "", page.read_text()))
    plain = (re.sub(r"[`*]|\[([^]]+)\]\([^)]*\)", r"\1", one).lower() for one in found)
    return {re.sub(r"[^\w\- ]", "", one).strip().replace(" ", "-") for one in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page):
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text())
    for address in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", address):
            continue
        path, _, anchor = address.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), address
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), address


def test_the_readme_is_one_screen_and_holds_the_two_commands():
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= README_WORDS
    install = "python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt -e"
    assert f"{install} '.[all]' && .venv/bin/python -m ranjax.main --config configs/ran.py\n" in text
    assert f"{install} '.[all,test]' && .venv/bin/python -m pytest\n" in text


def test_the_readmes_example_runs(capsys):
    (block,) = re.findall(r"(?ms)^```python\n(.*?)^```", (ROOT / "README.md").read_text())
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out.startswith("epsilon ")


def test_the_readmes_figures_are_those_of_the_results():
    results = " ".join((ROOT / "docs" / "results.md").read_text().split())
    part = (ROOT / "README.md").read_text().partition("## What the default job finds")[2].partition("## ")[0]
    figures = re.findall(r"[\d.]+ \[[\d., ]+\]", part)
    assert len(figures) >= 5
    assert [figure for figure in figures if figure not in results] == []


def test_the_pictures_are_drawn_from_the_table_of_the_results():
    spec = importlib.util.spec_from_file_location("draw", ROOT / "docs" / "images" / "draw.py")
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    for name, picture in draw.pictures().items():
        assert (ROOT / "docs" / "images" / name).read_text() == picture, name


def test_the_glossary_holds_every_abbreviation_of_the_report_page():
    page = (ROOT / "docs" / "glossary.md").read_text()
    assert [short for short, words in ABBREVIATIONS.items() if f"| {short} | {words} |" not in page] == []


PLAIN = [
    *("README.md", "CONTRIBUTING.md", "SECURITY.md"),
    *(
        f"docs/{name}.md"
        for name in ("architecture", "checkpoints", "experiments", "glossary", "methods", "reliability", "style")
    ),
    *(str(page.relative_to(ROOT)) for page in PAGES if page.parent.name == "guides"),
]
"""Pages whose every sentence is short; all others are on average."""


@pytest.mark.parametrize("name", PLAIN)
def test_a_page_has_short_sentences(name):
    long = [one for one in sentences((ROOT / name).read_text()) if len(one.split()) > SENTENCE_WORDS]
    assert long == []


def test_the_meaning_of_every_key_is_said_in_short_sentences():
    long = [key.name for key in config.KEYS for one in sentences(key.meaning) if len(one.split()) > SENTENCE_WORDS]
    assert long == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_uses_words_that_the_style_forbids_and_none_is_hard_to_read(page):
    text = prose(page.read_text())
    if page.name != "style.md":
        assert [word for word in ARCHAIC if re.search(rf"\b{word}\b", text, re.IGNORECASE)] == []
    lengths = [len(one.split()) for one in sentences(page.read_text())]
    if len(lengths) > 20:
        assert statistics.mean(lengths) <= SENTENCE_WORDS
