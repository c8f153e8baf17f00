"""Tables of every program: a row is read as it was written, or named with its line; never cut, joined or shifted."""

import csv
import gzip
import io
import json
import math
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ranjax.core.errors import ConfigError, DataError
from ranjax.data import strict_tables, table_cells
from ranjax.data.table_cells import ABSENT, PRESENT, UNCERTAIN

YES = "1 1.0 1,0 1.000 1E+00 TRUE true T yes Y WAHR VRAI ja x Positive"
NO = "0 0.0 0,0 -0 FALSE f no N FALSCH nein negative"


def read(path, content, **more):
    path.write_text(content, encoding="utf-8", newline="")
    table = strict_tables.read(path, **more)
    return table, list(table.rows)


def test_cells_are_read_as_they_were_written(tmp_path):
    content = 'file;report\r\n1.png;"Heart, lungs; clear.\r\nNo ""mass""."\r\n\r\n2.png;5" nodule\r\n'
    table, rows = read(tmp_path / "t.csv", content)
    assert table.columns == ("file", "report")
    assert [row.cells["report"] for row in rows] == ['Heart, lungs; clear.\r\nNo "mass".', '5" nodule']
    assert [row.line for row in rows] == [2, 5]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("1.png,heart, lungs,p1", "line 3 of t.csv has more fields than the first line has names (4, not 3)"),
        ("1.png,heart", "line 3 of t.csv has fewer fields than the first line has names (2, not 3)"),
        (",,", strict_tables.EMPTY),
        ("1.png,heart,p1,,", ""),
    ],
)
def test_a_row_of_another_length_is_named_and_the_next_one_is_whole(tmp_path, row, fault):
    _, rows = read(tmp_path / "t.csv", f"file,report,patient\n0.png,a,p0\n{row}\n2.png,c,p2\n")
    assert rows[1].fault.startswith(fault)
    assert rows[1].place == "row 2 of t.csv"
    assert [rows[i].cells for i in (0, 2)] == [
        {"file": f"{i}.png", "report": t, "patient": f"p{i}"} for i, t in ((0, "a"), (2, "c"))
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('a,b\n1,"x\n2,y\n', "line 2 .*: a quote is opened and never closed"),
        ('a,b\n1,x\n2,"y\n3,"z"\n', "line 3 .*: a quote is not closed"),
        ('a,b\n1,"x"y\n', "line 2 .*: a quote is not closed, or stands inside"),
        # Well formed by chance: the cell that runs over rows is seen by these.
        ('file,report\n1.png,"x\n2.png,y"\n', "line 2 .*runs over what looks like a further row"),
        ('a,b,c\n1,"x,2\n3,y",4\n5,z,6\n', "line 2 .*runs over what looks like a further row"),
        ("a,b,a\n1,2,3\n", "names the column 'a' twice"),
        ("a,b\n1,\0\n", "NUL"),
    ],
)
def test_what_would_join_or_hide_rows_refuses_the_table(tmp_path, content, words):
    with pytest.raises(DataError, match=words):
        read(tmp_path / "t.csv", content)


def test_reports_of_several_lines_with_commas_are_no_further_rows(tmp_path):
    said = "Heart normal, lungs clear.\nNo mass, no effusion,\nno oedema."
    _, rows = read(tmp_path / "t.csv", f'file,report,finding\n1.png,"{said}",normal\n')
    assert rows[0].cells["report"] == said


def test_a_missing_column_and_an_absent_table_are_named(tmp_path):
    with pytest.raises(
        ConfigError, match=r"column of t.csv = 'reprot': expected one of file, report \(did you mean 'report'"
    ):
        read(tmp_path / "t.csv", "file,report\n", columns=("reprot",))
    with pytest.raises(DataError, match="does not exist"):
        strict_tables.read(tmp_path / "none.csv")


def test_json_has_one_value_a_key_and_the_union_of_the_keys(tmp_path):
    lines = [
        '{"file": "1.png", "age": NaN}',
        '{"file": "2.png", "file": "3.png"}',
        "[1]",
        "{broken",
        '{"x": "a\u2028b"}',
    ]
    table, rows = read(tmp_path / "t.jsonl", "\n".join(lines) + "\n")
    assert table.columns == ("file", "age", "x")
    assert [row.fault.split(" (")[0] for row in rows] == [
        "", "line 2 is not valid JSON", "the row is no JSON object", "line 4 is not valid JSON", "",
    ]  # fmt: skip
    assert "the key 'file' comes twice" in rows[1].fault
    assert math.isnan(rows[0].cells["age"])
    assert rows[4].cells["x"] == "a\u2028b"
    with pytest.raises(DataError, match="must hold a list of objects"):
        read(tmp_path / "t.json", '{"file": ["1.png"]}')
    (tmp_path / "o.json").write_text(json.dumps([{"answer": 1}, {"question": 2}]))
    with pytest.raises(DataError, match=r"row 2 of o\.json: the key 'answer' is absent"):
        strict_tables.objects(tmp_path / "o.json", ("answer",))


def test_old_and_foreign_spreadsheets(tmp_path):
    for content in ("a;b\r1;x, y\r2;z\r", "sep=;\r\na;b\r\n1;x, y\r\n2;z\r\n", "\n\na;b\n1;x, y\n2;z"):
        _, rows = read(tmp_path / "t.csv", content)
        assert [row.cells for row in rows] == [{"a": "1", "b": "x, y"}, {"a": "2", "b": "z"}]
    with pytest.raises(DataError, match="is empty"):
        read(tmp_path / "t.csv", "\n")
    with pytest.raises(DataError, match="is not valid JSON: it nests too deep"):
        read(tmp_path / "t.json", "[" * 100_000)


def test_a_key_of_a_publisher_s_table_stands_once_or_says_the_same(tmp_path):
    (tmp_path / "t.csv").write_text("id,split\n1,train\n2,test\n1,train\n")
    assert len(strict_tables.keyed(tmp_path / "t.csv", "id", ("split",))) == 2
    (tmp_path / "t.csv").write_text("id,split\n1,train\n2,test\n1,test\n")
    with pytest.raises(DataError, match=r"t.csv: id '1' stands twice, with split 'train' and 'test'"):
        strict_tables.keyed(tmp_path / "t.csv", "id", ("split",))


def test_packed_tables(tmp_path):
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    assert list(strict_tables.rows(tmp_path / "t.csv.gz")) == [{"a": "1", "b": "2"}]
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "w") as archive:
        archive.writestr("x/t.csv", "a\n1\n")
    assert list(strict_tables.rows(tmp_path / "t.csv.zip")) == [{"a": "1"}]
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "a") as archive:
        archive.writestr("x/u.csv", "a\n2\n")
    with pytest.raises(DataError, match="must hold one file; it holds 2"):
        list(strict_tables.rows(tmp_path / "t.csv.zip"))
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n" * 99)[:-30])
    with pytest.raises(DataError, match="cannot be read"):
        list(strict_tables.rows(tmp_path / "t.csv.gz"))


@pytest.mark.parametrize(
    "cell", ["", " ", "nan", "NaN", "None", "NULL", "N/A", "#N/A", "<NA>", r"\N", "NaT", None, float("nan")]
)
def test_missing_values_in_the_spellings_of_programs(cell):
    assert table_cells.words(cell) == ""
    assert table_cells.name(cell) == ""
    assert table_cells.mark(cell) is None


@pytest.mark.parametrize(
    ("value", "cells"),
    [
        (PRESENT, [*YES.split(), True, 1, 1.0]),
        (ABSENT, [*NO.split(), False, 0, 0.0]),
        (UNCERTAIN, ["-1", "-1.0", "-1,0", "u", "Uncertain", "?", -1, -1.0]),
    ],
)  # fmt: skip
def test_truth_values_as_spreadsheets_and_databases_write_them(value, cells):
    assert {repr(cell): table_cells.mark(cell) for cell in cells} == {repr(cell): value for cell in cells}


@pytest.mark.parametrize("cell", ["2", "0.7", "1,000", "10", "maybe", "-", "+", "1;0", 3, 0.5, [1], {}])
def test_what_is_no_mark_is_refused(cell):
    with pytest.raises(DataError):
        table_cells.mark(cell)


def test_numbers_as_names_and_names_that_a_spreadsheet_rounded():
    assert [table_cells.name(x) for x in (7, 7.0, "7", " p 1 ", b"p1", 2.5)] == ["7", "7", "7", "p 1", "p1", "2.5"]
    for cell in ("1.23457E+11", "1,2E+05"):
        with pytest.raises(DataError, match="a spreadsheet has rounded"):
            table_cells.name(cell)
    for cell in (True, ["a"], {"a": 1}):
        with pytest.raises(DataError, match="not a text"):
            table_cells.name(cell)


@pytest.mark.parametrize("other", ["7.0", "007", "7,0"])
def test_one_value_in_two_spellings_is_refused_with_both_places(other):
    with pytest.raises(DataError, match=rf"The patients '7' \(row 1\) and '{other}' \(row 2\) look like one"):
        table_cells.check_spellings([("7", "row 1"), (other, "row 2"), ("8", "row 3")], "patients")
    with pytest.raises(DataError, match="look like one"):
        table_cells.check_spellings([("1234", "a"), ("1,234", "b")], "patients")
    table_cells.check_spellings([("p7", "a"), ("p07", "b"), ("1.5", "c"), ("15", "d")], "patients")


CELLS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=12)


@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=6), st.sampled_from(",;\t"))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_a_spreadsheet_writes_is_read_back_or_refused(tmp_path, cells, delimiter):
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([["file", "report", "finding"], *cells])
    (tmp_path / "t.csv").write_bytes(buffer.getvalue().encode())
    try:
        rows = list(strict_tables.read(tmp_path / "t.csv").rows)
    except DataError as error:
        # Cells that look like rows of this table are refused, and nothing else.
        assert "runs over what looks like a further row" in str(error)  # noqa: PT017
        return
    assert len(rows) == len(cells)
    for row, stated in zip(rows, cells):
        expected = {} if row.fault else dict(zip(("file", "report", "finding"), map(str.strip, stated)))
        assert row.cells == expected
        assert row.fault in ("", strict_tables.EMPTY)


@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_end_in_anything_but_rows_or_one_clear_line(tmp_path, content):
    for name in ("t.csv", "t.jsonl", "t.json", "t.csv.gz", "t.csv.zip"):
        (tmp_path / name).write_bytes(content)
        try:
            for line in strict_tables.read(tmp_path / name).rows:
                assert line.fault or line.cells
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017


@given(st.text(st.sampled_from(["a", '"', ",", "\r", "\n", "\x0b", "\x85", "\u2028", "é"]), max_size=40))
def test_lines_are_those_of_a_file_that_is_opened_for_csv(content):
    assert list(strict_tables._lines_of(content)) == list(io.StringIO(content, newline=""))
