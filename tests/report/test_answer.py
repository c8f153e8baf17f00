"""The page answers first: a verdict, each claim as a sentence with its mark and figure, and every abbreviation told."""

import re

import pytest

from ranjax.report import answer, blocks, claim_table, page, worded_findings
from ranjax.report.abbreviations import ABBREVIATIONS, spelled_out
from ranjax.report.report_tables import Table

from . import fake
from .reader import Reader
from .test_paper_claims import GOOD_BED, contrast, results


def test_every_claim_that_was_tested_is_one_line_with_its_mark_figure_and_interval():
    run = results(contrast("repairs", 0.047, 0.03), contrast("defends", 0.016, 0.032, p=0.4), contrast("ood", -0.1))
    found = answer.answer([run])
    assert found.headline == "This experiment can tell whether RAN repairs the noise."
    lines = {line.claim: line for line in found.claims.lines}
    assert {name: (line.sign, line.kind) for name, line in lines.items()} == {
        "RAN defends against attacks: not shown.": ("○", "none"),
        "RAN is better out of domain: the opposite holds.": ("✗", "opposite"),
        "RAN repairs the noise: shown.": ("✓", "shown"),
    }
    assert lines["RAN repairs the noise: shown."].value == "4.7 [1.7, 7.7] points"
    assert "More noise hurts" in found.untested
    assert len(found.claims.lines) + len(found.untested) == len(claim_table.CLAIMS)


@pytest.mark.parametrize(
    ("repair", "expected"),
    [
        (
            contrast("repairs", 0.047, 0.03, share={"value": 0.63}),
            "It does: the noise costs RAN 63 % less accuracy than MLP.",
        ),
        (contrast("repairs", 0.09, 0.03, share={"value": 1.2}), "It does: the noise costs RAN nothing."),
        (contrast("repairs", 0.047, 0.03), "It does."),
        (contrast("repairs", 0.0, 0.01), "It does not."),
        (contrast("repairs", 0.01, 0.05), "The figures leave it open."),
        (contrast("ood", 0.01), ""),
    ],
)
def test_the_headlines_question_is_answered_beside_it(repair, expected):
    assert answer.answer([results(repair)]).reply == expected


def test_a_weak_experiment_says_why_and_names_what_it_needed():
    weak = [contrast("damage", 0.01, 0.02) if one["endpoint"] == "damage" else one for one in GOOD_BED]
    found = answer.answer([results(bed=weak)])
    assert found.kind == "unknown"
    assert "too weak for a firm answer on whether RAN repairs the noise" in found.headline
    assert found.reply.startswith("The noise costs too little")
    harm = next(line for line in found.grounds.lines if "harm" in line.claim)
    assert harm.claim.endswith("Not enough.")
    assert "at least 5" in harm.measured


def test_results_without_contrasts_have_no_answer_and_their_first_section_is_open():
    assert answer.answer([{"rows": [fake.row()]}]) is None
    html, _ = page.build({"schema": 1, "rows": [fake.row()]}, {})
    assert 'id="answer"' not in html
    assert len(re.findall(r"<details class=\"section\" open>", html)) == 1


@pytest.mark.parametrize(("low", "value", "high"), [(-0.02, 0.0, 0.02), (0.01, 0.05, 0.1), (-0.3, -0.2, -0.1)])
def test_a_small_figure_places_value_ends_and_zero_on_one_scale(low, value, high):
    plot = answer.interval_plot({"difference": value, "low": low, "high": high}, 30, "shown", needed=0.05)

    def share(place: str) -> float:
        return (float(place) - 100) / 94 * 0.3

    (ends,) = re.findall(r'class="bar" x1="([\d.]+)" x2="([\d.]+)"', plot)
    (middle,) = re.findall(r'cx="([\d.]+)"', plot)
    (needed,) = re.findall(r'class="needed" x1="([\d.]+)"', plot)
    shown = [*map(share, (*ends, middle, needed))]
    assert shown == pytest.approx([low, high, value, 0.05], abs=3e-4)


def test_an_abbreviation_is_spelled_out_once_where_it_is_first_read():
    html = "<title>LP</title><p>An LP, LPs and APGD: R@1.</p><code>MLP</code><svg><text>PGD</text></svg><p>LP, PGD</p>"
    told = spelled_out(html)
    assert told.count("(linear probe)") == 1
    assert "<title>LP</title><p>An <abbr>LP</abbr> (linear probe), LPs" in told
    assert "<abbr>APGD</abbr> (automatic projected gradient descent)" in told
    assert "<abbr>R@1</abbr> (recall at 1" in told
    assert "<code>MLP</code><svg><text>PGD</text></svg>" in told
    assert told.endswith(f"<p>LP, <abbr>PGD</abbr> ({ABBREVIATIONS['PGD']})</p>")


def test_no_abbreviation_of_the_page_is_left_unspelled(written):
    """Capitals in the page's own words are spelled out; names of data, and words of a card, are their owner's."""
    text = re.sub(r"(?s)<(style|svg|code|pre)\b.*?</\1>", "", written.read_text())
    text = re.sub(r"(?s)<section id=\"(?:card|run|versions|config|pairs)\".*?</section>", "", text)
    words = set(re.findall(r"\b[A-Z]{2,}\b", re.sub(r"<[^>]+>", " ", text)))
    assert words - {"LIDC", "IDRI", "ID", "RUN"} <= set(ABBREVIATIONS)


def test_every_table_has_a_numbered_caption(written):
    html = written.read_text()
    captions = re.findall(r"<table[^>]*>\s*<caption>(Table (\d+)\. [^<]+)", html)
    assert len(captions) == html.count("<table") > 5
    assert [int(number) for _, number in captions] == [*range(1, len(captions) + 1)]


def test_a_caption_is_the_tables_own_or_the_words_above_it():
    table, own = Table(["a"], [["1.0 [0.5, 1.5]"]]), Table(["a"], [["1"]], caption="Its own")
    given = [table, blocks.Heading("Above"), own, blocks.Details("Opens", [table])]
    first, _, second, details = blocks.captioned(given, "The section", iter(range(4, 9)))
    assert first.caption == "Table 4. The section; in brackets the 95 % interval."
    assert second.caption == "Table 5. Its own."
    assert details.blocks[0].caption.startswith("Table 6. Opens;")


@pytest.mark.parametrize(("count", "expected"), [(6, "0.3"), (24, "1.2")])
def test_the_intervals_that_would_miss_zero_by_chance_are_counted_from_the_number_of_comparisons(count, expected):
    given = {**fake.results()["comparisons"][0], "metric": "accuracy"}
    found = worded_findings.headlines({"rows": [], "comparisons": [given] * count})
    assert f"If no two methods differed, {expected} of them would be expected to miss zero by chance" in found[-1].text


def test_a_section_without_content_is_named_at_the_end_alone(write):
    made = Reader(write({"schema": 1, "rows": [fake.row()]}))
    ids = [attributes.get("id") for _, attributes in made.elements]
    assert "spectra" not in ids
    assert "This run has no spectra." in made.text
