"""Sections, marks and labels of report text: written sentences by kind, reports laid out as in the field."""

import csv
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.data import text_rules
from ranjax.data.text import deidentify, labeller, reports

BODY = ("findings", "impression")


@pytest.mark.parametrize("which", ["held_out", pytest.param("development", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["deidentify", "labeller"])
def test_written_sentences_are_marked_and_labelled_as_documented(name, which):
    cases = getattr(text_rules, f"{name}_cases")(which)
    found = text_rules.by_kind(cases)
    assert len(cases) > 160
    assert found["all"].precision >= 0.95
    assert found["all"].recall >= 0.95
    for kind, count in found.items():
        assert count.precision >= 0.85, kind
        assert count.recall >= 0.85, kind


def test_the_documented_table_is_what_the_rules_reach():
    with (Path(text_rules.__file__).parents[2] / "docs" / "tables" / "text_rules_by_kind.csv").open(
        encoding="utf-8"
    ) as file:
        documented = [",".join(row) for row in csv.reader(file)][1:]
    found = []
    for name, which in (("deidentify", "held_out"), ("labeller", "held_out"), ("labeller", "held_out_inside")):
        cases = getattr(text_rules, f"{name}_cases")(which)
        title = {"deidentify": "De-identifier", "labeller": "Labeller"}[name]
        rows = re.findall(r"(?m)^\| (.+?) \| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", text_rules.table(cases))
        found += [f"{title}, {which.replace('_', ' ')}," + ",".join(row) for row in rows]
    assert found == documented


def test_negations_inside_a_mention_are_read_as_documented():
    count = text_rules.by_kind(text_rules.labeller_cases("held_out_inside"))["negation_inside"]
    assert len(text_rules.labeller_cases("held_out_inside")) >= 60
    assert count.precision >= 0.95
    assert count.recall >= 0.95


def test_a_mark_counts_at_its_place_alone_and_may_take_the_words_in_round_brackets_along():
    text, (name, date) = text_rules._read("Told {NAME:(Dr. )Lee(, MD)} on {DATE:3/4/2012}.")
    assert text == "Told Dr. Lee, MD on 3/4/2012."
    assert all(name.is_met_by("NAME", *place) for place in ((5, 16), (9, 12)))
    assert not any(name.is_met_by("NAME", *place) for place in ((9, 11), (9, 17)))
    assert [*text_rules._marked(text, "Told Dr. [NAME] on [DATE].")] == [[("NAME", 9, 16), ("DATE", 20, 28)]]
    assert len([*text_rules._marked("1, 2, 3", "[DATE], [TIME]")]) == 2
    assert date.is_met_by("DATE", 20, 28)
    assert not date.is_met_by("TIME", 20, 28)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "INDICATION: Cough.\nFINDINGS:\nLUNGS: Large left effusion.\nHEART: Wide.\nIMPRESSION:\nAs above.",
            "LUNGS: Large left effusion. HEART: Wide. As above.",
        ),
        ("INDICATION: Cough.\nFINDINGS:\nPLEURA: Fluid.\nBONES: Intact.", "PLEURA: Fluid. BONES: Intact."),
        ("FINDINGS: Lungs clear. IMPRESSION: Normal.", "Lungs clear. Normal."),
        ("Indication: pain. Findings: Mass. Impression: Mass again.", "Mass. Mass again."),
        ("HISTORY: Pain FINDINGS: Clear lungs IMPRESSION: Normal chest", "Clear lungs Normal chest"),
        ("history: pain findings: clear impression: normal", "clear normal"),
        ("Technique: PA and lateral. Lungs: Clear. Heart: Normal.", "Lungs: Clear. Heart: Normal."),
        ("INDICATION: pain\r\nFINDINGS\r\nClear.\r\nIMPRESSION\r\nNormal.\r\n", "Clear. Normal."),
        ("INDICATION: pain\n\nAP VIEW OF THE CHEST: Clear lungs.\n", "AP VIEW OF THE CHEST: Clear lungs."),
        ("INDICATION: pain\nCONCERNS OF THE WARD: a wide heart.", "CONCERNS OF THE WARD: a wide heart."),
        ("FINDINGS: Wide heart.\nOTHER WORDS: tube ok.\nIMPRESSION: Tube.", "Wide heart. OTHER WORDS: tube ok. Tube."),
        ("COMPARISON: None.\n\nThe lungs are clear.\n\nIMPRESSION: Normal.", "The lungs are clear. Normal."),
        ("The lungs are clear. IMPRESSION: Normal.", "The lungs are clear. Normal."),
        ("**Findings:** Clear.\n\n**Impression:** Normal.", "Clear. Normal."),
        ("## Findings\nClear.\n## Impression\nNormal", "Clear. Normal"),
        ("Befund: Lunge frei.\nBeurteilung: Normal.", "Lunge frei. Normal."),
        ("FINDINGS: No other finding: clear. Heart size: normal. Study: limited.",
         "No other finding: clear. Heart size: normal. Study: limited."),
    ],
)  # fmt: skip
def test_what_a_report_says_of_the_film_is_kept_however_its_sections_are_headed(text, expected):
    assert reports.select(text, BODY) == expected


def test_a_publishers_own_sections_are_taken_as_they_are():
    own = {"findings": "LUNGS: CLEAR.\nVIEWS: TWO.", "impression": "STABLE.", "indication": "PAIN."}
    assert reports.of_sections(own, BODY) == "LUNGS: CLEAR. VIEWS: TWO. STABLE."
    assert reports.of_sections(own, ()) == "LUNGS: CLEAR. VIEWS: TWO. STABLE. PAIN."


WORDS = st.sampled_from(["lungs", "clear", "heart", "wide", "no", "tube", "rib", "Mass", "left", "of", "the"])
SENTENCES = st.lists(WORDS, min_size=2, max_size=6).map(lambda words: " ".join(words).capitalize() + ".")
TEXTS = st.lists(SENTENCES, min_size=1, max_size=4).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(findings=TEXTS, impression=TEXTS, newline=st.sampled_from(["\n", "\r\n", " ", "\n\n"]), data=st.data())
def test_no_word_of_findings_and_impression_is_lost(findings, impression, newline, data):
    heads = data.draw(st.sampled_from([str.upper, str.lower, str.capitalize]))
    report = f"Indication: pain.{newline}{heads('findings')}: {findings}{newline}{heads('impression')}: {impression}"
    assert reports.select(report, BODY) == f"{findings} {impression}"


NUMBERS = st.integers(1, 12).flatmap(
    lambda first: st.sampled_from([f"{first}-{first + 1}-{first + 2}", f"{first}/12/20"])
)


@settings(max_examples=60, deadline=None)
@given(
    numbers=NUMBERS,
    frame=st.sampled_from(
        ["Fractures of ribs {}.", "Nodules of {} mm.", "Levels {} are fused.", "Segments {} are dense.",
         "The {} cm mass.", "Change at C{}.", "Images {} show it.", "In {} weeks."]
    ),
)  # fmt: skip
def test_numbers_that_count_or_measure_are_never_a_date(numbers, frame):
    text = frame.format(numbers)
    assert deidentify.deidentify(text) == (text, 0)


@settings(max_examples=60, deadline=None)
@given(
    moment=st.datetimes(),
    form=st.sampled_from(["%Y-%m-%d", "%m/%d/%Y", "%d.%m.%Y", "%B %d, %Y", "%d %b %Y", "%d-%b-%Y", "%Y/%m/%d"]),
)
def test_every_date_is_marked_and_its_blanks_stay(moment, form):
    moment = moment.replace(year=1900 + moment.year % 200)
    text = f"Film of  {moment.strftime(form)}  compared."
    assert deidentify.deidentify(text) == ("Film of  [DATE]  compared.", 1)


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=80))
def test_any_text_passes_through_all_rules(text):
    marked, count = deidentify.deidentify(text)
    assert count or marked == text
    assert set(labeller.label(text)) <= {*labeller.FINDINGS, "No Finding"}
    assert isinstance(reports.select(text, BODY), str)


@settings(max_examples=60, deadline=None)
@given(
    finding=st.sampled_from(["effusion", "pneumothorax", "consolidation", "edema"]),
    other=st.sampled_from(["mass", "fracture", "hernia", "nodule"]),
    frame=st.sampled_from(
        ["No {}, but a {} is seen.", "There is no {} and there is a large {}.", "No {}, a {} is present.",
         "The {} has resolved; there is a {}.", "No {}; however, a {} is new."]
    ),
)  # fmt: skip
def test_a_negation_ends_where_another_statement_begins(finding, other, frame):
    found = labeller.label(frame.format(finding, other))
    assert sorted(found.values()) == [labeller.ABSENT, labeller.PRESENT]
