"""A folder with a CSV: columns, labels, reports, splits; bad rows are counted and listed, or stop the preparation."""

import numpy as np
import pytest
from PIL import Image
from small_data import folder_settings, folder_source, rows, write_folder

from ranjax.core.errors import ConfigError, DataError
from ranjax.data.folder import hash_split, read_rows
from ranjax.data.prepared import prepare
from ranjax.data.set_settings import FolderSettings, from_mapping


def test_a_missing_column_is_named_with_those_present_and_the_nearest(tmp_path):
    write_folder(tmp_path, rows())
    with pytest.raises(ConfigError, match=r"label_column = 'finding'.*columns of index.csv are file.*'findings'"):
        read_rows(folder_settings(tmp_path, label_column="finding"))
    with pytest.raises(ConfigError, match=r"report_template.*'veiw'"):
        read_rows(folder_settings(tmp_path, report_column=None, report_template="{veiw} film."))


def test_a_missing_or_empty_table_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_rows(folder_settings(tmp_path))
    write_folder(tmp_path, [])
    with pytest.raises(DataError, match="no rows"):
        read_rows(folder_settings(tmp_path))


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path):
    write_folder(tmp_path, rows())
    table = tmp_path / "index.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    usable, rejected = read_rows(folder_settings(tmp_path))
    assert (len(usable), len(rejected)) == (24, 0)


def test_a_table_in_another_encoding_is_refused_as_such(tmp_path):
    write_folder(tmp_path, rows())
    (tmp_path / "index.csv").write_bytes(
        "file,patient,findings,report,split\na.png,p,ill,Größe,train\n".encode("latin-1")
    )
    with pytest.raises(DataError, match="UTF-8"):
        read_rows(folder_settings(tmp_path))


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
        8: ({"patient": ""}, "no patient"),
        9: ({"split": ""}, "'split' is empty"),
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
    prepared = prepare(folder_settings(tmp_path), tmp_path / "out")
    listed = {item["id"]: item["reason"] for item in prepared.exclusions}
    assert len(prepared.exclusions) == 11
    assert sum(prepared.counts.values()) == 32 - 11
    for index, (_, reason) in bad.items():
        assert reason in listed.get(f"main/{table[index]['file']}", "")


def test_nothing_left_in_a_split_stops_and_leaves_nothing(tmp_path):
    table = [row | ({"findings": "odd"} if row["split"] == "test" else {}) for row in rows()]
    write_folder(tmp_path, table)
    with pytest.raises(
        DataError, match=r"Nothing is left in split 'test' \(6 rows excluded: main/003.png: label 'odd'"
    ):
        prepare(folder_settings(tmp_path), tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.array_record*"))
    assert not list((tmp_path / "out").rglob("prepared.json"))


def test_a_patient_in_two_splits_is_refused(tmp_path):
    table = rows()
    table[1]["patient"] = table[0]["patient"]
    write_folder(tmp_path, table)
    with pytest.raises(DataError, match=r"'main/p0' is in split 'train'.*and in split 'adapt'"):
        read_rows(folder_settings(tmp_path))


def test_an_unknown_split_value_names_the_nearest(tmp_path):
    write_folder(tmp_path, [row | {"split": "vaildation"} for row in rows()])
    with pytest.raises(DataError, match=r"'vaildation'.*'validation'"):
        read_rows(folder_settings(tmp_path))
    usable, _ = read_rows(folder_settings(tmp_path, split_map={"vaildation": "test"}))
    assert {row.split for row in usable} == {"test"}


def test_shares_split_whole_patients_and_stay_put_when_rows_are_added(tmp_path):
    table = [row | {"patient": f"p{i // 3}"} for i, row in enumerate(rows(240))]
    shares = {"train": 0.5, "validation": 0.25, "test": 0.25}
    changes = {"split_column": None, "shares": shares}
    few, _ = read_rows(folder_settings(write_folder(tmp_path / "few", table[:120]), **changes))
    many, _ = read_rows(folder_settings(write_folder(tmp_path / "many", table), **changes))
    assert {row.id: row.split for row in few}.items() <= {row.id: row.split for row in many}.items()
    patients = {row.patient: row.split for row in many}
    assert all(row.split == patients[row.patient] for row in many)
    assert set(patients.values()) == set(shares)


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
    usable, rejected = read_rows(folder_settings(tmp_path, label_map={"well": "healthy"}, unknown_labels="ignore"))
    by_id = {row.id: row for row in usable}
    assert by_id["main/000.png"].label == 0
    assert by_id["main/002.png"].label == 1
    assert by_id["main/003.png"].label == -1
    np.testing.assert_array_equal(by_id["main/003.png"].labels, [1, 1])
    assert [item.id for item in rejected] == ["main/004.png"]
    usable, rejected = read_rows(folder_settings(tmp_path, label_map={"well": "healthy"}))
    assert {item.id for item in rejected} == {"main/002.png", "main/004.png"}

    columns = ("file", "patient", "report", "split", "healthy", "ill")
    table = [row | {"healthy": "1", "ill": ("0", "1.0")[i % 2]} for i, row in enumerate(rows(8))]
    write_folder(tmp_path / "wide", table, columns)
    changes = {"label_column": None, "label_columns": ("healthy", "ill")}
    usable, _ = read_rows(folder_settings(tmp_path / "wide", **changes))
    assert [row.label for row in usable] == [0, -1] * 4


def test_reports_are_written_from_columns(tmp_path):
    columns = ("file", "patient", "findings", "split", "sex", "age")
    table = [row | {"sex": "FM"[i % 2], "age": str(30 + i)} for i, row in enumerate(rows(8))]
    table[2]["age"] = ""
    table[4]["findings"] = "ill|healthy"
    write_folder(tmp_path, table, columns)
    changes = {
        "report_column": None,
        "report_template": "Film of a {age}-year-old {sex} patient. {findings}.",
        "value_maps": {"sex": {"F": "female", "M": "male"}, "findings": {"healthy": "No finding"}},
    }
    usable, rejected = read_rows(folder_settings(tmp_path, **changes))
    reports = {row.id: row.report for row in usable}
    assert reports["main/000.png"] == "Film of a 30-year-old female patient. No finding."
    assert reports["main/004.png"] == "Film of a 34-year-old female patient. ill, No finding."
    assert rejected[0].id == "main/002.png"
    assert "column 'age'" in rejected[0].reason


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"report_template": "{file}"}, "report_column"),
        ({"label_column": None}, "label_column"),
        ({"shares": {"train": 1.0}}, "split"),
        ({"split_column": None, "shares": {"train": 0.5}}, "shares"),
        ({"split_column": None, "split": "trian"}, "'train'"),
        ({"unknown_labels": "guess"}, "unknown_labels"),
        ({"name": "a/b"}, "name"),
    ],
)
def test_contradicting_settings_are_refused(tmp_path, changes, key):
    with pytest.raises(ConfigError, match=key):
        folder_source(tmp_path, **changes)


def test_settings_from_plain_values_name_what_is_wrong():
    with pytest.raises(ConfigError, match=r"data\.kind = 'foldr'.*'folder'"):
        from_mapping("foldr", {})
    with pytest.raises(ConfigError, match=r"data\.image_sise.*'image_size'"):
        from_mapping("radiographs", {"image_sise": 64})
    with pytest.raises(ConfigError, match=r"data\.sources\.root"):
        from_mapping("folder", {"sources": [{"name": "a"}], "classes": ["a", "b"]})
    with pytest.raises(ConfigError, match=r"data\.counts\.tain.*'train'"):
        from_mapping("radiographs", {"counts": {"tain": 4}})


def test_two_sources_make_one_set(tmp_path):
    write_folder(tmp_path / "a", rows())
    write_folder(tmp_path / "b", [row | {"findings": "sick"} for row in rows(6)])
    other = folder_source(tmp_path / "b", name="other", split_column=None, split="ood_test", label_map={"sick": "ill"})
    settings = FolderSettings((folder_source(tmp_path / "a"), other), ("healthy", "ill"), image_size=16)
    prepared = prepare(settings, tmp_path / "out")
    assert dict(prepared.counts) == {"train": 6, "adapt": 6, "validation": 6, "test": 6, "ood_test": 6}
    assert {record["label"] for record in prepared.splits["ood_test"]} == {1}
    assert prepared.prompts == {"healthy": ("a chest X-ray with healthy.",), "ill": ("a chest X-ray with ill.",)}
    assert prepared.label_words == ("healthy", "ill")
