"""Tables of a user's own: columns, patients, splits and labels are what they say, refused, or counted with a reason."""

import csv
import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from publishers import noise_film, picture, table
from small_data import public
from test_generic_sets import shard

from ranjax.core.errors import ConfigError, DataError
from ranjax.data import label_rules
from ranjax.data.row_filters import select


def films(root, count):
    for i in range(count):
        picture(root / f"{i}.png", i)


def own(root, *options, **changes):
    return select(public("table", root, options=options, **changes))


def write(root, header, lines, name="index.csv"):
    (root / name).write_text("\n".join([header, *lines]) + "\n")
    return root


def plain(count=8, start=0):
    """Lines of file, report, finding, patient; two films a patient."""
    kinds = ("effusion", "normal")
    return [f"{i}.png,Film {i} of the heart.,{kinds[i % 2]},p{i // 2}" for i in range(start, start + count)]


HEAD = "file,report,finding,patient"


def accounted(selection, read):
    """The accounting identity: every row that was read is kept, or left out with a reason."""
    assert selection.read == read
    assert len(selection.rows) + len(selection.rejected) + selection.undrawn == read
    assert all(item.reason for item in selection.rejected)
    return Counter(item.reason for item in selection.rejected)


def said(selection, topic):
    return [line.text for line in selection.said if line.topic == topic]


def warned(selection):
    return [line.text for line in selection.said if line.topic == "patients" and line.warning]


@pytest.mark.parametrize("word", ["uncertain", "Equivocal", "not sure", "unknown", "Indeterminate."])
def test_a_doubt_in_the_column_of_a_label_is_no_class_unless_it_is_chosen(tmp_path, word):
    films(tmp_path, 12)
    lines = [*plain(8), *(f"{i}.png,Film {i} of the heart.,{word},p{i // 2}" for i in range(8, 12))]
    found = own(write(tmp_path, HEAD, lines), "label=finding")
    assert set(found.classes) == {"effusion", "normal"}
    assert accounted(found, 12) == {f"the label {word!r} names no class, unless --classes names it": 4}
    chosen = own(tmp_path, "label=finding", classes=("effusion", "normal", word))
    assert accounted(chosen, 12) == {}
    assert sum(row.label == 2 for row in chosen.rows) == 4


def test_a_row_of_another_length_is_left_out_with_its_line(tmp_path):
    lines = ["0.png,Heart size is normal, lungs are clear,normal,p0", "1.png,Short.", *plain(6, 2)]
    selection = own(write(tmp_path, HEAD, lines), "label=finding")
    reasons = accounted(selection, 8)
    assert {row.id for row in selection.rows} == {f"{i}.png" for i in range(2, 8)}
    assert sum("line 2 of index.csv has more fields" in reason for reason in reasons) == 1
    assert sum("line 3 of index.csv has fewer fields" in reason for reason in reasons) == 1


def test_an_open_quote_refuses_the_table(tmp_path):
    with pytest.raises(DataError, match=r"line 2 .* a quote is opened and never closed"):
        own(write(tmp_path, HEAD, ['0.png,"Small effusion,effusion,p0', *plain(7, 1)]), "label=finding")


def test_empty_cells_are_no_report_no_label_and_no_patient(tmp_path):
    lines = ["0.png,nan,nan,p9", "1.png,Clear lungs.,None,p8", "2.png,Clear lungs.,normal,N/A", *plain(6, 4)]
    selection = own(write(tmp_path, HEAD, lines), "label=finding")
    assert accounted(selection, 9) == {"the report is empty": 1, "column 'patient' is empty": 1}
    assert selection.classes == ("effusion", "normal")
    row = next(row for row in selection.rows if row.id == "1.png")
    assert (row.label, row.group["unknown"]) == (-1, label_rules.EVERY)


@pytest.mark.parametrize("name", ["PatientID", "patient_id", "Subject ID", "subject_id", "MRN", "pid", "Patienten-ID"])
def test_usual_names_of_the_patient_are_recognised(tmp_path, name):
    lines = [line.replace(f"p{i // 2}", f"p{i // 8}") for i, line in enumerate(plain(24))]
    selection = own(write(tmp_path, HEAD.replace("patient", name), lines), "label=finding")
    splits = {}
    for row in selection.rows:
        splits.setdefault(row.patient, set()).add(row.split)
    assert set(splits) == {"p0", "p1", "p2"}
    assert all(len(found) == 1 for found in splits.values())
    assert (selection.unit, warned(selection)) == ("patient", [])


def test_without_patients_nothing_is_claimed_of_them(tmp_path):
    write(tmp_path, "file,report,finding,who", plain())
    selection = own(tmp_path, "label=finding")
    assert selection.unit == ""
    assert warned(selection) == [
        "index.csv: no column of patients is recognised; name it by option patient=COLUMN, or say patient=none"
    ]
    assert own(tmp_path, "label=finding", "patient=who").unit == "patient"
    assert warned(own(tmp_path, "patient=none")) == ["index.csv: no patients, as option patient=none says"]
    # A known column is not read where the user says that it names nobody.
    write(tmp_path, HEAD, plain())
    assert own(tmp_path, "patient=none").unit == ""
    # Films of one study stay together, and this is no split by patient.
    studies = [line.replace(f"p{i // 2}", f"s{i // 6}") for i, line in enumerate(plain(24))]
    selection = own(write(tmp_path, HEAD.replace("patient", "StudyInstanceUID"), studies))
    assert selection.unit == "study"
    assert len({(row.patient, row.split) for row in selection.rows}) == 4
    with pytest.raises(ConfigError, match="a choice between the columns 'patient_id' and 'MRN'"):
        own(write(tmp_path, "file,report,patient_id,MRN", plain()))


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (("7", "7.0"), "The patients '7' .* and '7.0' .* look like one in two spellings"),
        (("1234", '"1,234"'), "The patients '1234' .* and '1,234' "),
        (("007", "7"), "The patients '007' .* and '7' "),
    ],
)
def test_one_patient_in_two_spellings_is_refused(tmp_path, cells, words):
    lines = [f"{i}.png,Film {i}.,x,{cells[i % 2]}" for i in range(6)]
    with pytest.raises(DataError, match=words):
        own(write(tmp_path, HEAD, lines))


def test_ids_that_a_spreadsheet_rounded_are_left_out(tmp_path):
    selection = own(write(tmp_path, HEAD, [*plain(6), "6.png,Film 6.,effusion,1.23457E+11"]))
    assert accounted(selection, 7) == {
        "column 'patient' holds '1.23457E+11', a number that a spreadsheet has rounded": 1
    }


def test_all_tables_of_the_splits_are_read_and_the_others_named(tmp_path):
    write(tmp_path, HEAD, plain(4), "train.csv")
    write(tmp_path, HEAD, plain(2, 4), "val.csv")
    write(tmp_path, HEAD, plain(2, 6), "test.csv")
    write(tmp_path, "a,b", [], "notes.csv")
    selection = own(tmp_path, "label=finding", adapt=0.0)
    assert Counter(row.split for row in selection.rows) == {"train": 4, "validation": 2, "test": 2}
    assert said(selection, "tables") == ["not read: notes.csv"]
    assert said(own(tmp_path, "table=train.csv"), "tables") == ["not read: notes.csv, test.csv, val.csv"]
    (tmp_path / "val.csv").rename(tmp_path / "test_2.csv")
    with pytest.raises(DataError, match=r"holds 4 tables .*name one by --option table=NAME"):
        own(tmp_path)
    write(tmp_path, HEAD, plain(4), "index.csv")
    assert len(own(tmp_path).rows) == 4


def test_rows_without_a_split_among_others_are_counted_and_its_column_is_found(tmp_path):
    lines = [f"{line},{('train', 'test', '')[i // 4]}" for i, line in enumerate(plain(12))]
    selection = own(write(tmp_path, HEAD + ",Split", lines), adapt=0.0, validation=0.0)
    assert Counter(row.split for row in selection.rows) == {"train": 4, "test": 4}
    assert accounted(selection, 12) == {"the split is empty, and other rows name one": 4}


def test_a_column_of_views_is_found(tmp_path):
    lines = [f"{line},{('PA', 'LATERAL', '')[i % 3]}" for i, line in enumerate(plain(9))]
    selection = own(write(tmp_path, HEAD + ",ViewPosition", lines))
    assert accounted(selection, 9) == {"the view is lateral": 3}
    assert Counter(row.group.get("view") for row in selection.rows) == {"frontal": 3, None: 3}
    assert len(own(tmp_path, views="all").rows) == 9


def test_a_file_of_an_unknown_split_is_refused(tmp_path):
    cell = {"bytes": picture(tmp_path / "x.png", 0).read_bytes(), "path": None}
    for name in ("train", "holdout"):
        parquet.write_table(pa.table({"image": [cell], "report": ["A film."]}), tmp_path / f"{name}-0.parquet")
        shard(tmp_path / f"{name}-0.tar", [])
    for kind in ("huggingface", "webdataset"):
        with pytest.raises(DataError, match=r"holdout-0\.\w+ names no split, as other files do"):
            select(public(kind, tmp_path))


def test_marks_of_classes_in_every_spelling_and_what_is_none_is_counted(tmp_path):
    marks = [
        ("TRUE", "FALSCH"),
        ("1,0", "0"),
        ("x", "no"),
        ("u", "yes"),
        ("maybe", "1"),
        ("0.7", "0"),
        ("", "1"),
        ("0", "0"),
    ]
    lines = [f'{i}.png,Film {i}.,"{a}",{b},p{i}' for i, (a, b) in enumerate(marks)]
    write(tmp_path, "file,report,mass,edema,patient", lines)
    selection = own(tmp_path, "labels=mass, edema", classes=("mass", "edema"))
    found = {row.id: (row.label, row.labels.tolist(), row.group.get("unknown")) for row in selection.rows}
    assert [found[f"{i}.png"] for i in range(4)] == [(0, [1, 0], None)] * 3 + [(-1, [0, 1], "mass")]
    # An empty cell says nothing: the row is not of the class edema alone.
    assert found["6.png"] == (-1, [0, 1], "mass")
    reasons = accounted(selection, 8)
    assert sum("column 'mass' holds 'maybe'" in reason for reason in reasons) == 1
    assert sum("column 'mass' holds '0.7'" in reason for reason in reasons) == 1
    chosen = own(tmp_path, "labels=mass,edema", "blank=absent", classes=("mass", "edema"))
    assert {row.id: row.label for row in chosen.rows}["6.png"] == 1
    with pytest.raises(ConfigError, match="option blank"):
        own(tmp_path, "labels=mass,edema", "blank=zero")


def test_reports_of_labels_say_no_more_than_they_do(tmp_path):
    marks = ["1,0,0", "0,1,0", "0,-1,0", "1,-1,0", "0,,0", ",,", "0,1,-1", "0,0,0"]
    lines = [f"{i}.png,p{i},{line}" for i, line in enumerate(marks)]
    write(tmp_path, "file,patient,No Finding,edema,mass", lines)
    columns = "labels=No Finding,edema,mass"
    selection = own(tmp_path, columns)
    reports = {int(row.id[0]): row.report for row in selection.rows}
    assert reports == {
        0: "No finding.", 1: "Findings: edema.", 2: "Possible edema.", 3: "Possible edema.", 4: "No mass.",
        6: "Findings: edema. Possible mass.", 7: "No edema or mass.",
    }  # fmt: skip
    assert accounted(selection, 8) == {"the row has no label": 1}
    zero = {int(row.id[0]): row.report for row in own(tmp_path, columns, uncertain="zero").rows}
    assert zero == reports
    assert {row.id: row.report for row in own(tmp_path, columns, uncertain="one").rows}["2.png"] == "Findings: edema."


def test_labels_of_one_kind_and_one_spelling(tmp_path):
    def lines(*labels):
        rows = [{"file": f"{i}.png", "report": f"Film {i}.", "label": x, "patient": i} for i, x in enumerate(labels)]
        (tmp_path / "index.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return own(tmp_path, "label=label")

    with pytest.raises(
        DataError, match=r"row 3 of index.jsonl: column 'label' holds a number, that of row 1 .* a text"
    ):
        lines("a", None, 1)
    with pytest.raises(DataError, match=r"The labels '1' .* and '1.0' .* look like one"):
        lines("1", "1.0")
    assert lines(1, 1.0, -1, float("nan"), 1, 0, 0).classes == ("1", "0")
    reasons = accounted(lines(["a"], ["b", "a"], ["b"], {"a": 1}), 4)
    assert reasons == {"column 'label' holds a mapping, not a text": 1}
    with pytest.raises(DataError, match="a list of 0 and 1, which may be marks or numbers"):
        lines([0, 1], [1, 0])


def hugging_face(root, labels, feature, **columns):
    cells = [{"bytes": picture(root / "x.png", i).read_bytes(), "path": None} for i in range(len(labels))]
    texts = [f"Report {chr(97 + i)} of heart." for i in range(len(labels))]
    stored = pa.table({"image": cells, "report": texts, "label": labels, **columns})
    info = json.dumps({"info": {"features": {"label": feature}}}).encode()
    parquet.write_table(stored.replace_schema_metadata({b"huggingface": info}), root / "train-0.parquet")
    from ranjax.data.images.locations import read_table

    read_table.cache_clear()
    return select(public("huggingface", root, options=("label=label",)))


NAMES = {"names": ["ill", "well"], "_type": "ClassLabel"}


@pytest.mark.parametrize(
    "wrapped", [{"feature": NAMES, "_type": "Sequence"}, {"feature": NAMES, "_type": "List"}, [NAMES]]
)
def test_class_labels_keep_their_names_and_minus_one_is_no_label(tmp_path, wrapped):
    found = hugging_face(tmp_path, [0, 0, 1, 1, -1], NAMES, subject_id=[1, 1, 2, 3, 4])
    assert next(row.label for row in found.rows if row.id.endswith("/4")) == -1
    assert found.unit == "patient"
    assert accounted(found, 5) == {}
    assert sorted(hugging_face(tmp_path, [[0], [0, 1], [0], [1], [-1], None], wrapped).classes) == ["ill", "well"]
    with pytest.raises(DataError, match=r"row 2 of train-0.parquet: label 2 is none of the 2 classes"):
        hugging_face(tmp_path, [0, 2], NAMES)


def test_studies_stand_in_for_patients_that_headers_do_not_name(tmp_path):
    for i in range(12):
        film = noise_film(tmp_path / f"f{i}.dcm", i, StudyInstanceUID=f"1.2.{i // 3}", Modality="DX")
        film.with_suffix(".txt").write_text(f"FINDINGS: Film {i} shows an effusion.")
    selection = select(public("dicom", tmp_path))
    assert (selection.unit, len({row.patient for row in selection.rows})) == ("study", 4)
    assert warned(selection) == ["12 of 12 films have no PatientID: films of one study stay together"]
    # Where another film of the study names the patient, all films of the study are that patient's.
    noise_film(tmp_path / "f0.dcm", 0, StudyInstanceUID="1.2.0", Modality="DX", PatientID="p0")
    noise_film(tmp_path / "f3.dcm", 3, StudyInstanceUID="1.2.1", Modality="DX", PatientID="p0")
    for i in (6, 9):
        noise_film(tmp_path / f"f{i}.dcm", i, StudyInstanceUID=f"1.2.{i // 3}", Modality="DX", PatientID="ANONYMOUS")
    selection = select(public("dicom", tmp_path))
    assert Counter(row.patient for row in selection.rows) == {"p0": 6, "study 1.2.2": 3, "study 1.2.3": 3}
    assert selection.unit == "study"


def test_every_row_and_every_film_of_a_table_beside_dicom_is_accounted_for(tmp_path):
    for i in range(3):
        noise_film(tmp_path / f"f{i}.dcm", i, PatientID=f"p{i}")
    noise_film(tmp_path / "a" / "same.dcm", 7, PatientID="p7")
    noise_film(tmp_path / "b" / "same.dcm", 8, PatientID="p8")
    lines = ["f0.dcm,First.", "f0,Second.", "f1.dcm,Other.", "f9.dcm,Absent.", "same,Which?", ",Nobody."]
    write(tmp_path, "file,report", lines)
    selection = select(public("dicom", tmp_path))
    assert [row.report for row in selection.rows] == ["Other."]
    # Six rows, and three films that none of them names.
    assert accounted(selection, 9) == {
        "2 rows name its film": 2,
        "no film has the name": 1,
        "its name fits 2 films": 1,
        "column 'file' is empty": 1,
        "the table index.csv does not name the film": 3,
    }


def test_samples_of_a_tar_that_say_two_things_are_left_out(tmp_path):
    data = picture(tmp_path / "x.png", 1).read_bytes()
    shard(tmp_path / "s.tar", [
        ("0.png", data), ("0.txt", b"Film."), ("0.json", b'{"patient_id": 1}'),
        ("1.png", data), ("1.txt", b"Film."), ("1.json", b'{"report": "Other."}'),
        ("2.png", data), ("2.jpg", data), ("2.txt", b"Film."),
        ("3.png", data), ("3.json", b'{"a": 1, "a": 2}'),
        ("4.png", data), ("4.json", b"[1]"),
    ])  # fmt: skip
    selection = select(public("webdataset", tmp_path))
    assert [row.patient for row in selection.rows] == ["1"]
    assert accounted(selection, 5) == {
        "the sample's .txt and its JSON state two of 'report'": 1,
        "the sample has two images": 1,
        "the sample's JSON is not valid (the key 'a' comes twice)": 1,
        "the sample's JSON is not valid (it is no JSON object)": 1,
    }


def test_options_that_come_twice_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data.set.options = 'label': expected each name once"):
        public("table", tmp_path, options=("label=a", "label=b"))


def test_a_limit_counts_the_rows_that_it_does_not_draw(tmp_path):
    selection = own(write(tmp_path, HEAD, [*plain(8), "9.png,,normal,p9"]), limit=5)
    accounted(selection, 9)
    assert selection.undrawn == 4


def test_publishers_cells_that_are_no_marks_are_left_out_or_refused(tmp_path):
    header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", "Edema"]
    name = "CheXpert-v1.0-small/train/patient0000{}/study1/view1_frontal.jpg"
    lines = [[name.format(i), "F", 60, "Frontal", "AP", a, b] for i, (a, b) in enumerate((("1.0", ""), ("", "yse")))]
    table(tmp_path / "train.csv", header, lines)
    selection = select(public("chexpert", tmp_path))
    reasons = accounted(selection, 2)
    assert sum("column 'Edema' holds 'yse'" in reason for reason in reasons) == 1
    assert [row.report for row in selection.rows] == ["No finding."]
    np.testing.assert_array_equal(selection.rows[0].labels, np.eye(14)[0])


def test_labels_that_are_not_known_are_no_negatives():
    classes = ("edema", "mass")
    for marks, uncertain, expected in (
        ({"edema": 1.0}, "ignore", ([1, 0], 0, ())),
        ({"edema": 1.0, "mass": -1.0}, "ignore", ([1, 0], -1, ("mass",))),
        ({"edema": 1.0, "mass": -1.0}, "zero", ([1, 0], 0, ())),
        ({"edema": 1.0, "mass": -1.0}, "one", ([1, 1], -1, ())),
        ({"edema": 1.0, "mass": -2.0}, "zero", ([1, 0], -1, ("mass",))),
        ({"edema": 0.0}, "ignore", ([0, 0], -1, ())),
        ({}, "ignore", ([0, 0], -1, (label_rules.EVERY,))),
        ({"mass": -2.0}, "one", ([0, 0], -1, (label_rules.EVERY,))),
    ):
        found = label_rules.read(marks, classes, uncertain)
        assert (found.hot.tolist(), found.single, found.unknown) == expected


def test_names_of_labels_that_no_row_has_are_said(tmp_path):
    write(
        tmp_path, HEAD, [*plain(6), "6.png,Film 6.,Effusion,p6", "7.png,Film 7.,Effusion,p7", "8.png,Film 8.,rare,p8"]
    )
    selection = own(tmp_path, "label=finding", label_map=("nromal=well",))
    warned = [line.text for line in selection.said if line.topic == "labels" and line.warning]
    assert warned == [
        "label_map names 'nromal', which no row has",
        "the classes 'effusion' and 'Effusion' differ by case alone",
    ]
    assert said(selection, "labels")[0] == "no class: rare 1"
    chosen = own(tmp_path, "label=finding", classes=("effusion", "Normal"))
    assert "no row has the class 'Normal'" in said(chosen, "labels")


def test_one_file_in_two_spellings_of_its_path_is_one_row(tmp_path):
    films(tmp_path, 2)
    lines = ["./0.png,One.,a,p0", "0.png,Two.,a,p1", "x\\..\\1.png,Three.,a,p2", "1.png,Four.,a,p3"]
    selection = own(write(tmp_path, HEAD, lines))
    assert {row.report for row in selection.rows} == {"One.", "Four."}
    assert accounted(selection, 4) == {
        "the id is given twice": 1, "the path 'x/../1.png' leaves the folder of the set": 1,
    }  # fmt: skip


def test_a_list_that_names_a_class_twice_is_refused(tmp_path):
    with pytest.raises(DataError, match="names a class twice: are they marks of 0 and 1"):
        hugging_face(tmp_path, [[0, 1, 0]], {"feature": NAMES, "_type": "Sequence"})


def with_cells(root, column, cells):
    """A table of films whose lines differ from the usual ones in one column."""
    films(root, len(cells))
    with (root / "index.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEAD.split(","))
        for i, cell in enumerate(cells):
            usual = dict(zip(HEAD.split(","), plain(1, i)[0].split(",")))
            writer.writerow((usual | {column: cell}).values())
    return own(root, "label=finding")


@pytest.mark.parametrize("cell", ["unknown", "Anonymous", "-999", "-1", "??", "withheld", "no name", "N/A."])
def test_who_is_not_named_is_not_one_patient(tmp_path, cell):
    selection = with_cells(tmp_path, "patient", [*"abcdef", cell, cell])
    reasons = accounted(selection, 8)
    assert len(selection.rows) == 6
    assert all("names nobody" in reason or "is empty" in reason for reason in reasons)


def test_patients_that_differ_by_case_alone_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"patients 'P1' \(row 1 .*\) and 'p1' \(row 3"):
        with_cells(tmp_path, "patient", ["P1", "P2", "p1", "P3"])


def test_ids_that_json_stored_as_floats_beyond_their_digits_are_left_out(tmp_path):
    films(tmp_path, 6)
    rows = [{"file": f"{i}.png", "report": f"Film {i} of the heart.", "patient": 10**17 + i} for i in range(6)]
    rows = [row | {"patient": float(row["patient"])} if i > 3 else row for i, row in enumerate(rows)]
    (tmp_path / "index.jsonl").write_text("\n".join(map(json.dumps, rows)))
    selection = own(tmp_path)
    assert {row.patient for row in selection.rows} == {str(10**17 + i) for i in range(4)}
    assert all("rounded" in reason for reason in accounted(selection, 6))


def test_lists_of_labels_that_a_data_frame_wrote_are_lists(tmp_path):
    cells = ["['effusion', 'mass']", '["mass"]', "['effusion']", "[]", "['mass' 'effusion']", "['mass', 3]"]
    selection = with_cells(tmp_path, "finding", cells)
    assert sorted(selection.classes) == ["effusion", "mass"]
    hot = {row.id: row.labels.tolist() for row in selection.rows}
    assert hot["0.png"] == [1, 1]
    assert sorted(hot) == [f"{i}.png" for i in range(4)]
    assert all("a list that cannot be read" in reason for reason in accounted(selection, 6))


def test_classes_that_look_like_several_labels_are_said(tmp_path):
    selection = with_cells(tmp_path, "finding", ["mass;edema", "mass", "edema", "mass;edema", "mass", "edema"])
    assert said(selection, "labels") == [
        "the label 'mass;edema' looks like 2 labels: option separator says what stands between them"
    ]


def test_formulas_and_errors_of_spreadsheets_are_no_reports(tmp_path):
    cells = ["=CONCAT(A1)", "#SPILL!", "#WERT!", "#NV", "N/A.", "Heart normal._x000D_\nNo edema.", "=stable heart."]
    selection = with_cells(tmp_path, "report", cells)
    assert {row.id: row.report for row in selection.rows} == {
        "5.png": "Heart normal. No edema.", "6.png": "=stable heart."
    }  # fmt: skip
    assert sum("a formula and not its value" in reason for reason in accounted(selection, 7).elements()) == 1


def test_reports_with_html_or_a_wrong_encoding_are_said(tmp_path):
    cells = [
        "Heart<br>normal.",
        "&Eacute;panchement.",
        "Heart < 15 cm & lungs > 3.",
        "Ã‰panchement.",
        "d’œdème",
        "a�b c",
    ]
    assert said(with_cells(tmp_path, "report", cells), "reports") == [
        "2 reports hold marks of HTML: they are kept", "2 reports hold letters of a wrong encoding: they are kept"
    ]  # fmt: skip
