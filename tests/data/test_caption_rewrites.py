"""False captions: each reads as its grammar does, contradicts the exact findings, and says what was exchanged."""

import dataclasses
import itertools
import random
import re

import pytest

from ranjax.data.captions import comparison, keyword_terms, term_exchange
from ranjax.data.captions import radiograph_reading as reading
from ranjax.data.captions import radiograph_rewrites as radiographs
from ranjax.data.captions.agreement import article, in_case_of, mend_articles
from ranjax.data.captions.keyword_rewrites import Keywords
from ranjax.data.captions.parts_of_speech import part_of_speech, same_parts_of_speech
from ranjax.data.captions.rewrite import CATEGORIES, Change, Rewrite, varied
from ranjax.data.radiographs import sample_cases, write_report
from ranjax.data.radiographs.phrases import NEGATIONS, TERMS
from ranjax.data.text import labeller


def facts_of(case):
    return [dataclasses.asdict(finding) for finding in case.findings]


@pytest.fixture(scope="module")
def cases():
    return [(case, write_report(case), facts_of(case)) for case in sample_cases(11, "train", 120, multiple=0.4)]


@pytest.fixture(scope="module")
def rewritten(cases):
    """(case, report, findings, rewrite) of every rewrite of the cases."""
    return [
        (case, report, facts, rewrite)
        for number, (case, report, facts) in enumerate(cases)
        for rewrite in radiographs.rewrites(report, facts, random.Random(number), 3, 16)
    ]


def test_every_report_of_the_generator_reads_and_is_true_in_any_wording(cases):
    for case, report, facts in cases:
        read = reading.read(report)
        assert read.text() == report
        assert reading.false_sentences(read, facts) == []
        # Another id draws other words for the same findings.
        other = write_report(dataclasses.replace(case, id=f"{case.id}-again"))
        assert reading.false_sentences(reading.read(other), facts) == [], other


def test_a_report_of_other_findings_is_false(cases):
    wrong = 0
    for (_, _, facts), (_, report, others) in itertools.pairwise(cases):
        same = [(f["kind"], f["side"], f["lobe"], f["severity"]) for f in facts] == [
            (f["kind"], f["side"], f["lobe"], f["severity"]) for f in others
        ]
        wrong += same or bool(reading.false_sentences(reading.read(report), facts))
    assert wrong >= len(cases) - 4  # sizes and words that fit two severities may hold for both


def test_no_phrase_of_another_tongue_is_read():
    assert reading.read("The heart is fine.") is None
    assert reading.read("Findings: The lungs are green. Impression: Normal chest.") is None


def test_every_rewrite_is_a_report_of_the_grammar_and_false_by_the_exact_findings(rewritten):
    assert len(rewritten) > 1500
    for _, report, facts, rewrite in rewritten:
        read = reading.read(rewrite.text)
        assert read is not None, rewrite.text
        assert reading.false_sentences(read, facts), (report, rewrite.text)
        assert not re.search(r"\ba (?=[aeiou])(?!one\b)|\ban (?=[^aeiou])", rewrite.text, re.IGNORECASE), rewrite.text
        assert 1 <= len(rewrite.changes) <= 3


def sentences(report):
    return [re.findall(r"[a-z]+", part.lower()) for part in re.split(r"[.:]", report)]


def stated(report):
    """Kinds that a report names without a negation, found by their words alone."""
    affirmed = [s for s in sentences(report) if not set(NEGATIONS) & set(s)]
    return {kind for kind, terms in TERMS.items() for s in affirmed if set(terms) & set(s)}


def denied(report):
    negative = [s for s in sentences(report) if set(NEGATIONS) & set(s)]
    return {kind for kind, terms in TERMS.items() for s in negative if set(terms) & set(s)}


def test_a_rewrite_names_the_conditions_that_its_exchanges_say_and_never_denies_what_it_states(rewritten):
    for case, _, _, rewrite in rewritten:
        kinds = {finding.kind for finding in case.findings}
        for change in rewrite.changes:
            if change.what == "condition":
                kinds = (kinds - {change.before}) | {change.after}
            elif change.what == "presence":
                kinds = (kinds - {change.before}) | ({change.after} if change.before == "normal" else set())
        assert stated(rewrite.text) == kinds, rewrite
        assert not denied(rewrite.text) & kinds, rewrite


def test_words_of_side_and_severity_are_exchanged_in_findings_and_impression_alike(rewritten):
    seen = set()
    for _, report, _, rewrite in rewritten:
        if [change.what for change in rewrite.changes] in (["side"], ["severity"], ["place"]):
            (change,) = rewrite.changes
            seen.add(change.what)
            pairs = list(zip(change.before.split(", "), change.after.split(", ")))
            assert all(old != new for old, new in pairs)
            runs = comparison.exchanged_words(report, rewrite.text)
            # Nothing else than these words differs.
            allowed = {word for pair in pairs for text in pair for word in text.split()} | {"a", "an", "left", "right"}
            assert {w for run in runs for text in run[1:] for w in text.split()} <= allowed, (report, rewrite)
    assert seen == {"side", "severity", "place"}


def test_rewrites_are_of_every_kind_bounded_different_and_the_same_for_the_same_pair(cases):
    write = Keywords(seed=3, changes=2, count=12)
    kinds = set()
    for case, report, facts in cases[:60]:
        found = write(case.id, report, facts).rewrites
        assert 0 < len(found) <= 12
        texts = [rewrite.text for rewrite in found]
        assert len(set(texts)) == len(texts)
        assert report not in texts
        assert found == Keywords(3, 2, 12)(case.id, report, facts).rewrites
        kinds |= {change.what for rewrite in found for change in rewrite.changes}
    assert kinds == {"condition", "presence", "side", "place", "severity"}
    case, report, facts = cases[0]
    assert write("another id", report, facts) != write(case.id, report, facts)
    assert all(len(rewrite.changes) == 1 for rewrite in Keywords(3, 1, 12)(case.id, report, facts).rewrites)


def test_without_a_record_the_report_itself_tells_the_findings(cases):
    for number, (_, report, facts) in enumerate(cases[:80]):
        for rewrite in radiographs.rewrites(report, None, random.Random(number), 1, 16):
            assert reading.false_sentences(reading.read(rewrite.text), facts), (report, rewrite.text)


REPORTS = (
    "Clear lungs.",
    "No pneumothorax.",
    "The heart is normal in size. The lungs are clear. No pleural effusion or pneumothorax.",
    "There is a small left pleural effusion. No pneumothorax. The heart size is normal.",
    "Stable cardiomegaly with mild pulmonary edema.",
    "A 2 cm mass in the right upper lobe, suspicious for malignancy. No effusion.",
    "Axial CT shows a cyst in the left kidney. No hydronephrosis.",
    "T2 MRI: hyperintense lesion in the frontal lobe.",
    "Moderate left pneumothorax is seen. Endotracheal tube in place.",
    "There is an opacity in the left lower lobe, which may represent pneumonia.",
    "No acute cardiopulmonary disease.",
    "There are nodules in the right lung. There is no pneumothorax.",
)


@pytest.mark.parametrize("report", REPORTS)
def test_any_report_is_made_false_by_a_term_that_excludes_the_old_one(report):
    found, why = term_exchange.rewrites(report, None, random.Random(0), 2, 12)
    assert found, why
    for rewrite in found:
        assert 1 <= len(rewrite.changes) <= 2
        assert {change.what for change in rewrite.changes} <= set(CATEGORIES)
        assert rewrite.text != report
        assert not re.search(r"\ba (?=[aeio])|\ban (?=[^aeiou])", rewrite.text), rewrite.text
        assert rewrite.text[0].isupper()
        old, new = labeller.label(report), labeller.label(rewrite.text)
        physical = {"side", "place", "severity", "device", "observation"}
        assert term_exchange.contradicting(old, new) or {c.what for c in rewrite.changes} <= physical, rewrite


def test_an_exchange_keeps_the_number_and_a_plural_has_no_article():
    plural, _ = term_exchange.rewrites("There are small nodules.", None, random.Random(0), 1, 20)
    singular, _ = term_exchange.rewrites("There is a small nodule.", None, random.Random(0), 1, 20)
    for listed, form in ((plural, 1), (singular, 0)):
        for rewrite in listed:
            for change in rewrite.changes:
                if change.what == "condition":
                    forms = [e for e in keyword_terms.exchanges()[change.before] if e.what == "condition"]
                    assert any(change.after in e.others for e in forms)
                    assert (change.after.endswith(("s", "ces", "e")) and form == 1) or form == 0
    assert "There is a large nodule." in [rewrite.text for rewrite in singular]
    assert "There is an opacity." in [
        r.text for r in term_exchange.rewrites("There is a fracture.", None, random.Random(0), 1, 20)[0]
    ]


def test_a_denial_of_what_was_not_there_is_no_false_caption():
    for rewrite in term_exchange.rewrites("No effusion. Normal heart size.", None, random.Random(0), 1, 20)[0]:
        assert "No " not in rewrite.text or "enlarged" in rewrite.text.lower(), rewrite


def test_words_that_the_corpus_lacks_are_not_brought_in():
    corpus = term_exchange.Corpus(["a small left effusion.", "a large right effusion."])
    found, _ = term_exchange.rewrites("A small left effusion.", corpus, random.Random(0), 2, 20)
    assert found
    for rewrite in found:
        assert {*re.findall(r"\w+", rewrite.text.lower())} <= corpus.words
    found, why = term_exchange.rewrites("Mild emphysema.", corpus, random.Random(0), 1, 20)
    assert found == []
    assert why == "every exchange brings words that the corpus lacks"


def test_a_caption_without_a_term_has_a_reason():
    assert Keywords(0, 2, 8)("id", "Follow up as planned.", None) == ([], "no exchangeable term")


def test_terms_of_overlapping_families_are_not_exchanged():
    for term in ("opacity", "nodule"):
        others = [o for e in keyword_terms.exchanges()[term] if e.what == "condition" for o in e.others]
        assert others
        assert not {"opacity", "nodule", "pulmonary nodule", "granuloma"} & set(others)
    assert all(term == term.lower() for term in keyword_terms.exchanges())


def test_articles_are_those_of_speech():
    words = {"hour": "an", "unit": "a", "opacity": "an", "one": "a", "uniform": "a", "effusion": "an", "mass": "a"}
    words |= {"unilateral": "a", "unremarkable": "an", "upper": "an", "ultrasound": "an", "European": "a", "MRI": "an"}
    assert {word: article(word) for word in words} == words
    assert mend_articles("A opacity and an mass in a area.") == "An opacity and a mass in an area."
    assert in_case_of("left", "RIGHT") == "LEFT"
    assert in_case_of("left", "Right") == "Left"


def test_parts_of_speech_tell_words_of_one_sort_from_others():
    assert [part_of_speech(word) for word in ("No", "left", "effusion", "slightly", "seven")] == [
        *("negation", "adjective", "noun", "adverb", "number")
    ]
    assert same_parts_of_speech("Small left effusion.", "Large right effusion.")
    assert not same_parts_of_speech("Small left effusion.", "Field left effusion.")
    assert not same_parts_of_speech("Small left effusion.", "Small effusion.")


def test_varied_takes_every_kind_in_turn_and_each_text_once():
    rewrites = [Rewrite(f"{what} {n}", (Change(what, "a", "b"),)) for what in ("side", "condition") for n in range(5)]
    found = varied([*rewrites, *rewrites], 4, random.Random(0))
    assert [rewrite.changes[0].what for rewrite in found] == ["condition", "side", "condition", "side"]
    assert len({rewrite.text for rewrite in varied([*rewrites, *rewrites], 50, random.Random(0))}) == 10


def test_the_record_of_a_caption_tells_the_labels_that_changed(cases):
    case, report, facts = next(row for row in cases if [f.kind for f in row[0].findings] == ["effusion"])
    other = write_report(dataclasses.replace(case, findings=()))
    told = comparison.caption_record(
        "contradict", report, other, [Change("presence", "effusion", "no effusion")], facts
    )
    assert told["labels_changed"] is True
    assert told["labels"]["Effusion"][0] == labeller.PRESENT
    assert told["false"] is True
    same = comparison.caption_record("keep", report, report, [], facts)
    assert (same["labels_changed"], same["labels"], same["false"]) == (False, {}, False)
    assert comparison.caption_record("keep", report, "Clear lungs.", [], facts)["false"] is None
    assert comparison.exchanged_words("A small left effusion.", "A large left effusion!") == [
        Change("words", "small", "large")
    ]
