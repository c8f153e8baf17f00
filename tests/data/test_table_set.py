"""The set `table`: columns, labels, reports, splits; bad rows are counted and listed, or stop the preparation."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image
from small_data import folder_settings, rows, write_folder

from ranjax.core.errors import ConfigError, DataError
from ranjax.data.row_filters import select
from ranjax.data.set_writing import prepare_set
from ranjax.data.splits import hash_split


def test_a_missing_column_is_named_with_those_present_and_the_nearest(tmp_path):
    write_folder(tmp_path, rows())
    with pytest.raises(ConfigError, match=r"option label = 'finding': expected one of file,.*'findings'"):
        select(folder_settings(tmp_path, ["label=finding"]))
    with pytest.raises(ConfigError, match=r"option template = 'reprot'.*'report'"):
        select(folder_settings(tmp_path, ["template={reprot} film."]))
    with pytest.raises(ConfigError, match=r"option template = '\{report film\.'"):
        select(folder_settings(tmp_path, ["template={report film."]))


def test_a_label_is_written_from_columns_and_a_split_column_can_be_left_unread(tmp_path):
    table = rows(24)
    for i, row in enumerate(table):
        row["split"] = "" if i == 0 else ("old", "young")[i % 2]
    write_folder(tmp_path, table)
    options = ["label={split} {findings}", "split=none", "shares=0.4,0.2,0.2,0.2"]
    selection = select(folder_settings(tmp_path, options, classes=()))
    assert {name.split()[0] for name in selection.classes} == {"old", "young"}
    assert [item.reason for item in selection.rejected] == ["column 'split', from which a text is written, is empty"]
    shares = {"train": 0.4, "adapt": 0.2, "validation": 0.2, "test": 0.2}
    assert all(row.split == hash_split(row.patient, shares, 0) for row in selection.rows)
    with pytest.raises(ConfigError, match="option label = 'age'"):
        select(folder_settings(tmp_path, ["label={age} {findings}"]))


def test_a_missing_or_empty_table_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"None of index\.csv"):
        select(folder_settings(tmp_path))
    write_folder(tmp_path, [])
    with pytest.raises(DataError, match="No usable row is left"):
        select(folder_settings(tmp_path))


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path):
    write_folder(tmp_path, rows())
    table = tmp_path / "index.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    selection = select(folder_settings(tmp_path))
    assert (len(selection.rows), len(selection.rejected)) == (24, 0)


def test_every_bad_row_is_listed_with_its_reason_and_the_rest_is_kept(tmp_path):
    table = rows(32)
    bad = {
        0: ({"file": "absent.png"}, "does not exist"),
        1: ({"file": "empty.png"}, "empty (0 bytes)"),
        2: ({"file": "broken.png"}, "unreadable"),
        3: ({"file": "black.png"}, "all black"),
        4: ({"report": ""}, "report is empty"),
        5: ({"report": "123 ..."}, "no words"),
        6: ({"findings": "cloudy"}, "'cloudy' is outside the classes"),
        7: ({"findings": ""}, "no label"),
        8: ({"patient": ""}, "'patient' is empty"),
        9: ({"split": ""}, "the split is empty, and other rows name one"),
        10: ({"file": "011.png", "patient": "p11", "split": "test"}, ""),
        11: ({}, "given twice"),
    }
    for index, (change, _) in bad.items():
        table[index] |= change
    table[11]["split"] = "test"
    (tmp_path / "images").mkdir(parents=True)
    (tmp_path / "images" / "empty.png").touch()
    (tmp_path / "images" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 50)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "images" / "black.png")
    write_folder(tmp_path, table)
    prepared = prepare_set(folder_settings(tmp_path), tmp_path / "out", workers=1)
    listed = {item["id"]: item["reason"] for item in prepared.exclusions}
    assert len(prepared.exclusions) == 11
    assert sum(prepared.counts.values()) == 32 - 11
    for index, (_, reason) in bad.items():
        assert reason in listed.get(table[index]["file"], "")


def test_nothing_left_stops_and_leaves_nothing(tmp_path):
    write_folder(tmp_path, [row | {"findings": "odd"} for row in rows()])
    with pytest.raises(DataError, match=r"No usable row is left \(24 left out: 000\.png: label 'odd' is outside"):
        prepare_set(folder_settings(tmp_path), tmp_path / "out", workers=1)
    assert not list((tmp_path / "out").rglob("*.array_record*"))
    assert not list((tmp_path / "out").rglob("prepared.json"))


def test_no_image_left_in_a_split_stops_and_leaves_no_set(tmp_path):
    write_folder(
        tmp_path, [row | ({"file": f"absent{row['file']}"} if row["split"] == "test" else {}) for row in rows()]
    )
    with pytest.raises(DataError, match=r"Nothing is left in split 'test' \(6 rows excluded: absent003.png: the image"):
        prepare_set(folder_settings(tmp_path), tmp_path / "out", workers=1)
    assert not list((tmp_path / "out").rglob("prepared.json"))


def test_a_patient_in_two_splits_is_refused(tmp_path):
    table = rows()
    table[1]["patient"] = table[0]["patient"]
    write_folder(tmp_path, table)
    with pytest.raises(DataError, match=r"the first is 'p0' in adapt, train"):
        select(folder_settings(tmp_path))


def test_an_unknown_split_value_leaves_its_row_out(tmp_path):
    write_folder(tmp_path, [row | {"split": row["split"].replace("test", "tset")} for row in rows()])
    selection = select(folder_settings(tmp_path))
    expected = "the split 'tset' is none of train, adapt, validation, test, ood_test"
    assert Counter(item.reason for item in selection.rejected) == {expected: 6}


def test_shares_split_whole_patients_and_stay_put_when_rows_are_added(tmp_path):
    table = [row | {"patient": f"p{i // 3}", "split": ""} for i, row in enumerate(rows(240))]
    options = ["split=none", "shares=0.5,0.1,0.15,0.25"]
    few = select(folder_settings(write_folder(tmp_path / "few", table[:120]), options)).rows
    many = select(folder_settings(write_folder(tmp_path / "many", table), options)).rows
    assert {row.id: row.split for row in few}.items() <= {row.id: row.split for row in many}.items()
    patients = {row.patient: row.split for row in many}
    assert all(row.split == patients[row.patient] for row in many)
    assert set(patients.values()) == {"train", "adapt", "validation", "test"}
    for wrong in ("0.5,0.5", "0.5,0.5,0.5,0.5", "1,0,0,0", "most"):
        with pytest.raises(ConfigError, match=f"option shares = '{wrong}': expected four positive shares"):
            select(folder_settings(tmp_path / "few", ["split=", f"shares={wrong}"]))


def test_hash_split_meets_its_shares_and_depends_on_the_seed():
    shares = {"train": 0.7, "test": 0.3}
    splits = [[hash_split(f"p{i}", shares, seed) for i in range(4000)] for seed in (0, 1)]
    # Three standard errors of a share of 0.7 in 4000 draws.
    assert abs(splits[0].count("train") / 4000 - 0.7) < 0.022
    assert splits[0] != splits[1]


def test_labels_come_from_maps_separators_and_columns(tmp_path):
    table = rows(8)
    for row, findings in zip(table, ["well", "ill", "ill|odd", "well|ill", "odd", "ill", "well", "ill"]):
        row["findings"] = findings
    write_folder(tmp_path, table)
    renamed = ("well=healthy",)
    selection = select(folder_settings(tmp_path, label_map=renamed, unknown_labels="ignore"))
    by_id = {row.id: row for row in selection.rows}
    assert by_id["000.png"].label == 0
    assert by_id["002.png"].label == 1
    assert by_id["003.png"].label == -1
    np.testing.assert_array_equal(by_id["003.png"].labels, [1, 1])
    assert [item.id for item in selection.rejected] == ["004.png"]
    selection = select(folder_settings(tmp_path, label_map=renamed))
    assert {item.id for item in selection.rejected} == {"002.png", "004.png"}
    selection = select(folder_settings(tmp_path, label_map=renamed, unknown_labels="keep"))
    assert {row.id: row.label for row in selection.rows}["004.png"] == -1

    columns = ("file", "patient", "report", "split", "healthy", "ill")
    table = [row | {"healthy": "1", "ill": ("0", "1.0")[i % 2]} for i, row in enumerate(rows(8))]
    write_folder(tmp_path / "wide", table, columns)
    selection = select(folder_settings(tmp_path / "wide", ["label=", "labels=healthy,ill"]))
    assert {row.id: row.label for row in selection.rows} == {f"{i:03d}.png": (0, -1)[i % 2] for i in range(8)}


def test_reports_are_written_from_columns(tmp_path):
    columns = ("file", "patient", "findings", "split", "sex", "age")
    table = [row | {"sex": "FM"[i % 2], "age": str(30 + i)} for i, row in enumerate(rows(8))]
    table[2]["age"] = ""
    table[4]["findings"] = "ill|healthy"
    write_folder(tmp_path, table, columns)
    template = "Film of a {age}-year-old {sex:F=female;M=male} patient. {findings:healthy=No finding}."
    selection = select(folder_settings(tmp_path, [f"template={template}"]))
    reports = {row.id: row.report for row in selection.rows}
    assert reports["000.png"] == "Film of a 30-year-old female patient. No finding."
    assert reports["004.png"] == "Film of a 34-year-old female patient. ill, No finding."
    assert selection.rejected[0].id == "002.png"
    assert "column 'age'" in selection.rejected[0].reason


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"unknown_labels": "guess"}, "unknown_labels"),
        ({"adapt": 0.5, "test": 0.5}, "test"),
        ({"classes": ("ill", "ill")}, "classes"),
        ({"prompts": ("il=a film of an ill lung.",)}, "prompts"),
        ({"image_size": 8}, "image_size"),
    ],
)
def test_contradicting_settings_are_refused(tmp_path, changes, key):
    with pytest.raises(ConfigError) as error:
        folder_settings(tmp_path, **changes)
    assert error.value.key == f"data.set.{key}"


def test_two_tables_make_one_set(tmp_path):
    write_folder(tmp_path / "a", rows())
    write_folder(tmp_path / "b", [row | {"findings": "sick"} for row in rows(6)], ("file", "findings", "report"))
    options = ["table=a/index.csv", "images=a/images", "ood_table=b/index.csv", "ood_images=b/images"]
    settings = folder_settings(tmp_path, options, label_map=("sick=ill",), prompts=("ill=an ill lung.",))
    prepared = prepare_set(settings, tmp_path / "out", workers=1)
    assert dict(prepared.counts) == {"train": 6, "adapt": 6, "validation": 6, "test": 6, "ood_test": 6}
    assert {record["label"] for record in prepared.splits["ood_test"]} == {1}
    assert {name.split("/")[0] for name in prepared.splits["ood_test"].column("patient")} == {"ood"}
    assert set(prepared.splits["train"].column("patient")) <= {f"main/p{i}" for i in range(24)}
    assert prepared.prompts == {"healthy": ("a chest X-ray with healthy.",), "ill": ("an ill lung.",)}
    assert prepared.label_words == ("healthy", "ill")
    with pytest.raises(ConfigError, match="option ood_table"):
        select(folder_settings(tmp_path, options[:2] + options[3:]))


def test_nih_and_covid_films_end_to_end(nih_folder, covid_folder, tmp_path):
    options = [
        "split=", "patient=patient_id", "table=nih_cxr/index.csv", "images=nih_cxr/images",
        "template=Chest X-ray, {view} view, of a {age}-year-old {sex:M=male;F=female} patient. "
        "{findings:No Finding=No finding}.",
        "shares=0.4,0.3,0.1,0.2", "ood_table=covid_cxr/index.csv", "ood_images=covid_cxr/images",
        "ood_template=Chest X-ray. {findings}.",
    ]  # fmt: skip
    renamed = ("No Finding=normal", "Pneumonia=pneumonia", "COVID-19=pneumonia")
    settings = folder_settings(
        nih_folder.parent, options, label_map=renamed, classes=("normal", "pneumonia"), unknown_labels="ignore",
        image_size=32,
    )  # fmt: skip
    made = prepare_set(settings, tmp_path, workers=1)
    assert sum(made.counts.values()) + len(made.exclusions) == 801 + 60
    assert made.exclusions == ()
    patients = [set(source.column("patient")) for source in made.splits.values()]
    assert len(set.union(*patients)) == sum(map(len, patients))
    labels = np.concatenate([made.splits[split].column("label") for split in ("train", "adapt", "validation", "test")])
    np.testing.assert_array_equal(np.bincount(labels), [408, 393])
    reports = made.splits["train"].column("report")
    assert any(report.endswith("patient. No finding.") for report in reports)
    assert made.splits["ood_test"][0]["report"] == "Chest X-ray. COVID-19."
