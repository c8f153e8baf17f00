"""Report text: sections, sentences, language, length, copies; labels by rules; what could name a person."""

import pytest

from ranjax.core.errors import ConfigError
from ranjax.data.text import deidentify, labeller, reports
from ranjax.data.text.tokenizer import Tokenizer


def test_sections_by_heading_and_words_unknown_under_their_own():
    text = (
        "EXAM: CHEST\nFINDINGS:\nLungs: clear.\n  No mass.\nWET READ:\nLine ok.\nFOLLOW UP:\nlater\n"
        "IMPRESSION\n1. Normal."
    )
    found = reports.sections(text)
    assert found == {
        "technique": "CHEST",
        "findings": "Lungs: clear. No mass.",
        "notification": "Line ok.",
        "follow up": "FOLLOW UP: later",
        "impression": "1. Normal.",
    }
    assert reports.select(text, ("impression", "findings")) == ("1. Normal. Lungs: clear. No mass. FOLLOW UP: later")
    assert reports.select("Normal chest film.", ("findings",)) == "Normal chest film."
    assert reports.select("INDICATION: cough", ("findings",)) == ""


def test_the_free_form_keeps_its_longest_paragraph_without_a_heading():
    text = " FINAL REPORT\n CHEST FILM\n\n INDICATION: cough\n\n COMPARISON: none\n\n The lungs are clear of disease.\n"
    assert reports.select(text, ("findings", "impression")) == "The lungs are clear of disease."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No mass. Heart normal.", ["No mass.", "Heart normal."]),
        ("1. No effusion. 2. Stable. 3) Old.", ["No effusion.", "Stable.", "Old."]),
        ("A 2.5 cm nodule. Seen by Dr. Lee. Done.", ["A 2.5 cm nodule.", "Seen by Dr. Lee.", "Done."]),
        ("pneumonia vs. edema. Next", ["pneumonia vs. edema.", "Next"]),
        ("", []),
    ],
)
def test_sentences(text, expected):
    assert reports.sentences(text) == expected


def test_what_is_said_twice_stays_once():
    assert reports.without_repeats("No mass. Clear lungs. NO MASS. Clear lungs!") == "No mass. Clear lungs."
    assert [reports.normalized_words(text) for text in ("No mass.", "no  mass", "Mass")] == [
        "no mass",
        "no mass",
        "mass",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("There is no evidence of pleural effusion in the left lung.", "en"),
        ("No se observa derrame pleural en el lado derecho, sin cambios.", "es"),
        ("Kein Pneumothorax, das Herz ist nicht vergrößert und die Lunge frei.", "de"),
        ("Pas de pneumothorax, le coeur est normal et les poumons sans anomalie.", "fr"),
        ("肺部未见异常", "zh"),
        ("Atelectasis.", ""),
    ],
)
def test_language(text, expected):
    assert reports.language(text) == expected


def test_long_reports_are_cut_at_a_sentence_and_keep_the_end_token():
    text = "No mass. The heart is normal. No effusion at all."
    tokenizer = Tokenizer.build([text])
    for length in range(5, 20):
        cut = reports.cut(text, lambda part, length=length: not tokenizer.encode([part], length).truncated)
        tokens = tokenizer.encode([cut], length)
        assert text.startswith(cut)
        assert cut.endswith(".")
        assert tokens.ids[0][tokens.mask[0]][-1] == tokenizer.eos_id
        longer = reports.sentences(text)[: len(reports.sentences(cut)) + 1]
        assert not tokens.truncated
        assert cut == text or tokenizer.encode([" ".join(longer)], length).truncated
    assert reports.cut("one two three four five six seven eight nine.", lambda part: False).endswith("nine.")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No pneumothorax, but small left pleural effusion.", {"Pneumothorax": 0.0, "Effusion": 1.0}),
        ("No focal consolidation, pleural effusion or edema.", {"Consolidation": 0.0, "Effusion": 0.0, "Edema": 0.0}),
        ("Pneumonia cannot be excluded.", {"Pneumonia": -1.0}),
        ("Opacity may represent atelectasis.", {"Lung Opacity": 1.0, "Atelectasis": -1.0}),
        ("The effusion has resolved.", {"Effusion": 0.0}),
        ("Pneumothorax is not seen.", {"Pneumothorax": 0.0}),
        ("The heart is mildly enlarged.", {"Cardiomegaly": 1.0}),
        ("No acute cardiopulmonary abnormality.", {"No Finding": 1.0}),
        ("Normal chest with a pacemaker.", {"Support Devices": 1.0, "No Finding": 1.0}),
        ("Possible effusion. Small left effusion.", {"Effusion": 1.0}),
        ("No mass. Mass in the left apex.", {"Mass": 1.0}),
        ("Unremarkable heart. New consolidation.", {"Consolidation": 1.0}),
        ("Hello.", {}),
    ],
)
def test_labels_by_rules(text, expected):
    assert labeller.label(text) == expected


def test_rules_can_be_asked_for_some_findings_only():
    assert labeller.label("Mass and effusion.", ("Effusion",)) == {"Effusion": 1.0}
    with pytest.raises(ValueError, match="no rule for 'Cold'"):
        labeller.label("", ("Cold",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Seen by Dr. John Smith on 12/03/2011 at 10:30.", "Seen by [NAME] on [DATE] at [TIME]."),
        ("Call 555-123-4567 or a.b@c.org.", "Call [PHONE] or [MAIL]."),
        ("MRN: A1234567, film of March 3, 2014.", "[ID], film of [DATE]."),
        ("A 94-year-old man.", "A [AGE]-year-old man."),
        ("A 64-year-old with a 2.5 x 3.1 cm mass in T12.", "A 64-year-old with a 2.5 x 3.1 cm mass in T12."),
        ("Electronically signed by Jane Doe, MD", "Electronically [NAME]"),
        # What follows a name is the finding, and its negation.
        ("Seen by Dr. Kowalski. No effusion.", "Seen by [NAME]. No effusion."),
        ("Reviewed by J. R. Smith, MD. No pneumothorax.", "[NAME]. No pneumothorax."),
        ("Read by Dr Smith No acute disease", "Read by [NAME] No acute disease"),
        ("Signed by Smith Lungs are clear. Heart normal.", "[NAME] Lungs are clear. Heart normal."),
        ("A nodule of 2.5-3.5 cm, unchanged since 2012-04-05.", "A nodule of 2.5-3.5 cm, unchanged since [DATE]."),
    ],
)
def test_marks_stand_in_place_of_what_names_a_person(text, expected):
    assert deidentify.deidentify(text)[0] == expected


def test_pseudonyms_need_the_key(tmp_path):
    (tmp_path / "key").write_bytes(b"0123456789abcdef")
    (tmp_path / "other").write_bytes(b"0123456789abcdeg")
    (tmp_path / "short").write_bytes(b"0123")
    key, other = deidentify.read_key(str(tmp_path / "key")), deidentify.read_key(str(tmp_path / "other"))
    names = {deidentify.pseudonym(f"p{i}", key) for i in range(100)}
    assert len(names) == 100
    assert all(len(name) == 32 for name in names)
    assert deidentify.pseudonym("p1", key) in names
    assert deidentify.pseudonym("p1", other) not in names
    with pytest.raises(ConfigError, match="at least 16 secret bytes"):
        deidentify.read_key(str(tmp_path / "short"))
