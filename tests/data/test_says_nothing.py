"""Cells that say nothing, or less than they seem to: labels in doubt, words for no report, ids made dates."""

import pytest
from test_own_tables import HEAD, accounted, films, own, said, write

from ranjax.core.errors import DataError
from ranjax.data.table_cells import name, names_none
from ranjax.data.text.deidentify import deidentify
from ranjax.data.text.reports import is_absent


def rows(labels, reports=None, patients=None):
    """Lines of file, report, finding, patient; one film a patient."""
    reports = reports or [f"Film {chr(97 + i)} of the heart." for i in range(len(labels))]
    patients = patients or [f"p{i}" for i in range(len(labels))]
    return [f'{i}.png,"{reports[i]}","{labels[i]}",{patients[i]}' for i in range(len(labels))]


USUAL = ["effusion", "normal"] * 4


@pytest.mark.parametrize(
    "label",
    ["effusion?", "possible effusion", "?effusion", "effusion (possible)", "r/o effusion", "Probable effusion.",
     "V.a. Erguss", "/", "0.93"],
)  # fmt: skip
def test_a_label_in_doubt_is_no_class_and_no_negative_of_the_others(tmp_path, label):
    films(tmp_path, 8)
    found = own(write(tmp_path, HEAD, rows([label, *USUAL[1:]])), "label=finding")
    assert set(found.classes) == {"effusion", "normal"}
    reason = f"the label {label!r} names no class, unless --classes names it"
    assert accounted(found, 8) == {reason: 1}


@pytest.mark.parametrize("label", ["effusion", "no effusion", "mass", "Support Devices", "likelihood", "1", "1.0"])
def test_a_label_of_certain_words_is_a_class(label):
    assert not names_none(label)


def test_a_number_among_names_is_no_class_and_numbers_alone_are(tmp_path):
    films(tmp_path, 8)
    found = own(write(tmp_path, HEAD, rows(["99", *USUAL[1:]])), "label=finding")
    assert accounted(found, 8) == {"the label '99' names no class, unless --classes names it": 1}
    found = own(write(tmp_path, HEAD, rows(["x", *"1212121"])), "label=finding")
    assert accounted(found, 8) == {"the label 'x' names no class, unless --classes names it": 1}
    found = own(write(tmp_path, HEAD, rows(["9", "1", "2", "1", "2", "1", "2", "1"])), "label=finding")
    assert set(found.classes) == {"1", "2"}
    assert accounted(found, 8) == {}


def test_a_column_whose_name_is_in_doubt_leaves_out_the_films_that_it_marks_alone(tmp_path):
    films(tmp_path, 8)
    lines = [f"{i}.png,Film {i} of the heart.,{i % 2},{1 - i % 2},{int(i == 3)},p{i}" for i in range(8)]
    root = write(tmp_path, "file,report,edema,mass,possible mass,patient", lines)
    found = own(root, "labels=edema,mass,possible mass")
    assert accounted(found, 8) == {"the label 'possible mass' names no class, unless --classes names it": 1}


def test_a_column_of_probabilities_is_no_column_of_labels(tmp_path):
    films(tmp_path, 8)
    with pytest.raises(DataError, match="names no class"):
        own(write(tmp_path, HEAD, rows([f"0.{i}" for i in range(1, 9)])), "label=finding")


def test_a_single_cell_of_several_labels_is_said(tmp_path):
    films(tmp_path, 8)
    found = own(write(tmp_path, HEAD, rows(["effusion,normal", *USUAL[1:]])), "label=finding")
    assert any("the label 'effusion,normal' looks like 2 labels" in text for text in said(found, "labels"))


@pytest.mark.parametrize(
    "text",
    ["N.A", "unknown", "No report available.", "Report not available", "not available", "see previous report", "x",
     "Pending", "Befund nicht verfügbar", "none given"],
)  # fmt: skip
def test_words_that_there_is_no_report_are_no_report(tmp_path, text):
    films(tmp_path, 8)
    lines = rows(USUAL, [text, *(f"Film {i} of the heart." for i in range(1, 8))])
    (reason,) = accounted(own(write(tmp_path, HEAD, lines), "label=finding"), 8)
    assert "empty" in reason or "says that there is none" in reason


@pytest.mark.parametrize(
    "text",
    ["No change.", "Unknown mass.", "No findings.", "Normal.", "No acute findings.", "Unchanged.", "Non-diagnostic.",
     "No pending results are seen.", "See prior study for comparison: stable."],
)  # fmt: skip
def test_short_reports_are_reports(text):
    assert not is_absent(text)


@pytest.mark.parametrize("cell", ["05-Mar", "Mar-05", "12-Mar-21", "2024-03-05 00:00:00"])
def test_ids_of_which_a_spreadsheet_made_dates_are_left_out(tmp_path, cell):
    films(tmp_path, 8)
    found = own(write(tmp_path, HEAD, rows(USUAL, patients=[cell, *(f"p{i}" for i in range(1, 8))])), "label=finding")
    reason = f"column 'patient' holds {cell!r}, a date that a spreadsheet may have made of a number"
    assert accounted(found, 8) == {reason: 1}


def test_dates_as_people_write_them_are_names():
    assert [name(text) for text in ("2024-03-05", "MAR-05")] == ["2024-03-05", "MAR-05"]


@pytest.mark.parametrize("column", ["Pat. Nr.", "Patient's ID", "DICOM PatientID", "subj"])
def test_more_names_of_the_column_of_patients(tmp_path, column):
    films(tmp_path, 8)
    found = own(write(tmp_path, f"file,report,finding,{column}", rows(USUAL)), "label=finding")
    assert {row.patient for row in found.rows} == {f"p{i}" for i in range(8)}


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("Compared to Mar-05-21.", "Compared to [DATE]."),
        ("Film of 10 01 2020.", "Film of [DATE]."),
        ("Levels 1 2 2019", "Levels 1 2 2019"),
        ("10 12 2000 mm", "10 12 2000 mm"),
    ],
)
def test_dates_with_the_month_first_or_with_blanks_are_marked(text, right):
    assert deidentify(text)[0] == right
