"""How a set was understood is said before it is written, kept with it, and shown beside the rows it came from."""

import json

import numpy as np
import pytest
from PIL import Image
from small_data import public
from test_own_tables import HEAD, films, plain, write

from ranjax.cli import console
from ranjax.data import set_account, set_html
from ranjax.data.prepared import open_prepared
from ranjax.data.row_filters import select
from ranjax.data.set_writing import DRY_PAGE, PAGE, dry_run, prepare_set
from ranjax.report.record_sections import notices


@pytest.fixture
def root(tmp_path):
    films(tmp_path / "in", 24)
    lines = [line.replace(f"p{i // 2}", f"p{i}") for i, line in enumerate(plain(24))]
    lines[5] = '5.png,"Seen by Dr. Miller <b>today</b>. Heart normal.",normal,p5'
    write(tmp_path / "in", HEAD, [*lines, "24.png,too,many,cells,here", "x.png,,normal,p90"])
    return tmp_path / "in"


def settings(root, *options, **changes):
    return public("table", root, options=("label=finding", *options), image_size=16, **changes)


def test_the_account_counts_what_was_read_kept_and_left_out(root):
    selection = select(settings(root))
    told = set_account.account(settings(root), selection)
    assert told["rows"] == {"read": 26, "kept": 24, "left out": 2, "not drawn by --limit": 0}
    assert told["warnings"] == []
    assert sum(told["splits"].values()) == sum(told["units"].values()) == 24
    assert [item["id"] for item in told["first left out"]] == ["row 25 of index.csv", "x.png"]
    assert told["reasons"] == {
        "the line has more fields than the first line has names; a text with separators stands in quotes": 1,
        "the report is empty": 1,
    }
    text = set_account.lines(told)
    mapped = "image from 'file'; label from 'finding'; patient from 'patient'; report from 'report'"
    assert f"columns: index.csv: {mapped}; no column for split, view" in text
    assert len(told["examples"]) == set_account.EXAMPLES
    for example in told["examples"]:
        number = int(example["id"].split(".")[0])
        assert example["labels"] == ("effusion", "normal")[number % 2]
        assert example["source"]["patient"] == example["patient"] == f"p{number}"


def test_all_is_said_before_anything_is_written_and_kept_with_the_set(root, tmp_path):
    said = []

    def say(line):
        said.append((line, bool(list(tmp_path.rglob("*.array_record*")) + list(tmp_path.rglob("part-*")))))

    made = prepare_set(settings(root, "patient=none"), tmp_path / "out", 1, say=say)
    warned = [written for line, written in said if line == f"! {set_account.NOT_BY_PATIENT}"]
    assert warned == [False]
    assert made.understood["warnings"][0] == set_account.NOT_BY_PATIENT
    assert made.understood["rows"]["kept"] == sum(made.counts.values())
    assert "split by patient" not in made.card
    assert made.card["not split by patient"] == "index.csv: no patients, as option patient=none says."
    page = (made.folder / PAGE).read_text()
    assert f'<p class="warning">{set_account.NOT_BY_PATIENT}</p>' in page
    assert page.count("<img") == set_account.EXAMPLES
    assert "<b>today" not in page
    assert "<script" not in page
    assert json.loads((made.folder / "prepared.json").read_text())["understood"] == made.understood
    assert "split by patient" in prepare_set(settings(root), tmp_path / "out", 1).card


def test_near_copies_across_splits_are_warned_of(root, tmp_path):
    lines = [f"{line},{('train', 'adapt', 'validation', 'test')[i % 4]}" for i, line in enumerate(plain(24))]
    write(root, HEAD.replace("patient", "no patient") + ",split", lines)
    (root / "7.png").write_bytes((root / "0.png").read_bytes())
    made = prepare_set(settings(root), tmp_path / "out", 1)
    assert "2 films are near copies of each other across splits (1 groups)" in made.understood["warnings"]
    assert "near copies across splits: 1 groups" in set_account.lines(made.understood)
    assert "near copies across splits: not looked for yet" in set_account.lines(
        set_account.account(settings(root), select(settings(root)))
    )


def test_images_that_cannot_be_read_join_the_account_of_the_set(root, tmp_path):
    (root / "3.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(root / "4.png")
    made = prepare_set(settings(root), tmp_path / "out", 1)
    rows = made.understood["rows"]
    assert (rows["read"], rows["kept"], rows["left out"]) == (26, 22, 4)
    assert rows["kept"] == sum(made.counts.values())
    assert rows["left out"] == len(made.exclusions)


def test_a_dry_run_leaves_its_page_alone(root, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["table", f"--data_dir={root}", f"--out={out}", "--option", "label=finding", "--patient_key=none"]
    assert console.call(["prepare", *command, "--dry_run"]) == 0
    assert [path.name for path in out.rglob("*")] == [DRY_PAGE]
    assert "24 left out" not in capsys.readouterr().out
    assert (out / DRY_PAGE).read_text().count("<img") == set_account.EXAMPLES
    assert dry_run(settings(root), out) == out / DRY_PAGE


def test_a_key_hides_people_on_the_page_too(root, tmp_path):
    (tmp_path / "key").write_bytes(b"sixteen bytes or more")
    hidden = settings(root, patient_key=str(tmp_path / "key")).__class__(
        "table", str(root), options=("label=finding",), image_size=16, patient_key=str(tmp_path / "key")
    )
    made = prepare_set(hidden, tmp_path / "out", 1)
    page = (made.folder / PAGE).read_text()
    for name in ("Miller", "5.png", "p5<", "p17<"):
        assert name not in page
        assert name.strip("<") not in json.dumps(made.understood["examples"])
    assert page.count(set_account.HIDDEN) >= set_account.EXAMPLES
    assert open_prepared(made.folder).understood == made.understood


def test_a_run_s_page_shows_the_warnings_first():
    card = {"title": "x", "warnings": [f"! {set_account.NOT_BY_PATIENT}"], "notice": "Another notice."}
    assert notices(card) == [f"! {set_account.NOT_BY_PATIENT}", "Another notice."]


def test_cells_are_text_on_the_page():
    told = {
        "title": "<i>", "warnings": ["<x>"], "rows": {"read": 1}, "said": [], "splits": {}, "units": {}, "labels": [],
        "views": {}, "missing": {}, "notes": {}, "reasons": {},
        "copies across splits": "0 groups", "first left out": [{"id": "<a>", "reason": "&"}],
        "examples": [], "split by": "image",
    }  # fmt: skip
    page = set_html.page(told, {}, ["<pre>"])
    assert "<i>" not in page
    assert "<x>" not in page
    assert "&lt;a&gt;" in page
