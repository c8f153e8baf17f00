"""Every set from a small tree in its publisher's layout: rows, labels, splits, reports, reasons, and the whole way."""

from collections import Counter

import numpy as np
import pytest
from publishers import ALL
from small_data import public

from ranjax.core.errors import ConfigError, DataError
from ranjax.data.images import loading as pixels
from ranjax.data.row_filters import select
from ranjax.data.set_writing import prepare_set
from ranjax.data.sets import SETS


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """Each tree is made once, when a test asks for it."""
    made = {}

    def tree(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            ALL[name](made[name])
        return made[name]

    return tree


def chosen(trees, name, **changes):
    # Shared patients and published sums are tested on their own; the trees' .npz files are not the publisher's.
    place = trees("chexpert" if name == "chexpert_5x200" else name)
    return public(name, place, **{"checksums": False, "image_size": 16, **changes})


EXPECTED = {
    # records by split (before images are opened), and what is left out for which reason
    "nih": ({"train": 30, "test": 10}, {"the image is in neither of the official lists": 1}),
    "chexpert": ({"train": 30, "validation": 5}, {"the view is lateral": 7}),
    "mimic_cxr": (
        {"train": 18, "validation": 5, "test": 5},
        {
            "the view is lateral": 30,
            "the report is empty": 1,
            "the report has neither findings nor impression": 1,
        },
    ),
    "iu_xray": ({"train": 44}, {"the report has no image": 1, "the report has neither findings nor impression": 2}),
    "roco": ({"train": 19, "validation": 3, "test": 3}, {"the report is empty": 3}),
    "medpix": (
        {"train": 12, "validation": 3, "test": 6},
        {
            "it is no scan: its plane is 'photograph'": 1,
            "the type 'US' with the place 'Head' is no class": 1,
            "it names no image or no case": 1,
            "the report is empty": 2,
            "the id is given twice": 1,
            "uid_list.json names its case in no split": 3,
        },
    ),
    "padchest": (
        {"train": 27},
        {"the labels \"['cardiomegaly'\" cannot be read": 1, "the report is empty": 1, "the view is lateral": 1},
    ),
    "chexpert_plus": ({"train": 19, "validation": 4}, {"the view is lateral": 1}),
    "rsna": ({"train": 30}, {}),
    "siim": ({"train": 30}, {}),
    "vindr": ({"train": 24, "test": 6}, {}),
    "covidx": ({"train": 24, "validation": 4, "test": 4}, {"the line has fewer than four fields": 3}),
    "kermany": ({"train": 24, "validation": 6, "test": 8}, {}),
    "pneumoniamnist": ({"train": 20, "validation": 4, "test": 4}, {}),
    "chestmnist": ({"train": 20, "validation": 4, "test": 4}, {}),
    "pneumoniamnist_c": ({"test": 40}, {}),
    "vqa_rad": ({"train": 17, "test": 6}, {"the answer is empty": 1}),
    "slake": ({"train": 12, "validation": 4, "test": 4}, {"the question's language is zh": 20}),
    "path_vqa": ({"train": 16, "validation": 4, "test": 4}, {}),
}


@pytest.mark.parametrize("name", ALL)
def test_rows_of_the_publishers_layout(trees, name):
    selection = select(chosen(trees, name, adapt=0.0, validation=0.0, test=0.0))
    print(name, dict(Counter(row.split for row in selection.rows)), Counter(item.reason for item in selection.rejected))
    counts, reasons = EXPECTED[name]
    assert dict(Counter(row.split for row in selection.rows)) == counts
    assert dict(Counter(item.reason for item in selection.rejected)) == reasons


def by_id(selection):
    return {row.id: row for row in selection.rows}


def present(selection, row):
    return {name for name, on in zip(selection.classes, row.labels) if on}


def test_nih_joins_several_labels_and_follows_the_official_lists(trees):
    selection = select(chosen(trees, "nih"))
    row = by_id(selection)["00000001_000.png"]
    assert present(selection, row) == {"Cardiomegaly", "Emphysema"}
    assert (row.label, row.patient, row.group["age"]) == (-1, "1", "58")
    assert row.report == "Findings: cardiomegaly, emphysema."
    assert by_id(selection)["00000003_000.png"].report == "No finding."
    # The official test list stays; adapt and validation, which the set lacks, are cut from the rest by patient.
    counts = Counter(row.split for row in selection.rows)
    assert counts["test"] == 10
    assert counts["train"] + counts["adapt"] + counts["validation"] == 30
    assert min(counts.values()) > 0


def test_medpix_joins_caption_and_findings_and_its_patient_is_the_case(trees):
    rows = by_id(select(chosen(trees, "medpix")))
    first = rows["MPX1000_synpic20000"]
    assert first.report == "Slice a of a case. A mass. No bone is broken."
    assert (first.patient, first.group["plane"], first.group["age"]) == ("MPX1000", "axial", "")
    assert rows["MPX1001_synpic20005"].report == "A mass. No bone is broken."  # without a caption
    assert "MPX1002_synpic20006" not in rows  # neither caption nor findings
    selection = select(chosen(trees, "medpix", options=("text=caption",)))
    assert by_id(selection)["MPX1000_synpic20000"].report == "Slice a of a case."
    # MR of the abdomen has too few cases to be a class; the row stays as a pair.
    assert present(selection, by_id(selection)["MPX1007_synpic20021"]) == set()
    assert selection.notes["labels outside the classes"] == 3
    assert {row.label for row in selection.rows} == {-1, 0, 1, 3, 4, 5, 6, 7}
    with pytest.raises(ConfigError, match="option text = 'title': expected caption, findings or both"):
        select(chosen(trees, "medpix", options=("text=title",)))


def test_medpix_without_its_list_is_split_by_case_and_a_list_that_shares_cases_is_refused(tmp_path):
    ALL["medpix"](tmp_path)
    lists = tmp_path / "MedPix-2-0" / "splitted_dataset" / "uid_list.json"
    lists.write_text('{"train": ["MPX1000"], "dev": [], "test": ["MPX1000"]}')
    settings = public("medpix", tmp_path, checksums=False, image_size=16)
    with pytest.raises(DataError, match="puts the case 'MPX1000' into train and into test"):
        select(settings)
    lists.unlink()
    rows = select(settings).rows
    assert len(rows) == 24
    for patient in {row.patient for row in rows}:
        assert len({row.split for row in rows if row.patient == patient}) == 1
    (tmp_path / "MedPix-2-0" / "Case_topic.json").write_text('{"U_id": "MPX1000"}')
    with pytest.raises(DataError, match=r"Case_topic\.json"):
        select(settings)


@pytest.mark.parametrize(
    ("policy", "labels", "kept"),
    [("ignore", set(), True), ("zero", set(), True), ("one", {"Cardiomegaly"}, True), ("exclude", None, False)],
)
def test_uncertain_labels_follow_the_policy_and_the_card_says_it(trees, policy, labels, kept):
    selection = select(chosen(trees, "chexpert", uncertain=policy, classes=("Cardiomegaly", "Edema")))
    rows = by_id(selection)
    assert ("train/patient00001/study1/view1_frontal.jpg" in rows) == kept
    if kept:
        row = rows["train/patient00001/study1/view1_frontal.jpg"]
        assert present(selection, row) == labels
        assert row.label == (0 if policy == "one" else -1)
        assert row.group["uncertain"] == "Cardiomegaly"
    # Uncertain cardiomegaly beside sure edema: a single label only where the doubt is settled.
    if kept:
        assert rows["train/patient00004/study1/view1_frontal.jpg"].label == {"ignore": -1, "zero": 1, "one": -1}[policy]


def test_mimic_reports_are_reduced_to_findings_and_impression(trees):
    rows = select(chosen(trees, "mimic_cxr")).rows
    texts = {row.group["study"]: row.report for row in rows}
    assert texts["50000000"] == (
        "There is no focal consolidation, pleural effusion or pneumothorax. The heart is normal in size. "
        "No acute cardiopulmonary process."
    )
    # The free form keeps its findings in a paragraph without a heading.
    assert texts["50000005"].startswith("As compared to the previous radiograph")
    assert texts["50000005"].endswith("Moderate cardiomegaly without pulmonary edema.")
    impressions = select(chosen(trees, "mimic_cxr", sections=("impression",))).rows
    assert impressions[0].report == "No acute cardiopulmonary process."


def test_a_report_reaches_both_films_of_a_study_when_all_views_are_kept(trees):
    rows = select(chosen(trees, "mimic_cxr", views="all")).rows
    assert len(rows) == 60 - 4
    assert max(Counter(row.group["study"] for row in rows).values()) == 2


def test_iu_findings_come_from_the_main_headings(trees):
    selection = select(chosen(trees, "iu_xray"))
    assert present(selection, by_id(selection)["CXR2_1_IM-0002-3001"]) == {"effusion"}
    assert present(selection, by_id(selection)["CXR4_1_IM-0004-3001"]) == {"normal"}
    assert by_id(selection)["CXR3_1_IM-0003-3001"].label == -1
    assert {row.patient for row in selection.rows if "CXR2_" in row.id} == {"CXR2"}


def test_padchest_reads_its_lists_and_turns_negatives(trees):
    selection = select(chosen(trees, "padchest"))
    assert present(selection, by_id(selection)["1.png"]) == {"pneumonia", "copd signs"}
    # Film 6 holds the values of film 5, and its header says that they are a negative.
    negative, positive = (np.asarray(pixels.load(by_id(selection)[f"{i}.png"].image).picture) for i in (6, 5))
    np.testing.assert_array_equal(negative, 255 - positive)


def test_vindr_takes_the_majority_of_the_readers(trees):
    selection = select(chosen(trees, "vindr"))
    row = by_id(selection)[f"train{1:030x}"]
    assert present(selection, row) == {"Cardiomegaly"}


def test_challenge_rows_are_joined_per_image(trees):
    rsna = select(chosen(trees, "rsna"))
    assert Counter(row.label for row in rsna.rows) == {1: 10, 0: 20}
    siim = select(chosen(trees, "siim"))
    assert Counter(row.label for row in siim.rows) == {1: 15, 0: 15}


def test_questions_keep_their_own_rule_for_open_and_closed(trees, tmp_path):
    rows = by_id(select(chosen(trees, "vqa_rad")))
    assert rows["0"].group["kind"] == "closed"
    assert rows["5"].group["answer"] == "3"
    assert rows["0"].report == "Is there a pneumothorax? Yes"
    (tmp_path / "key").write_bytes(b"sixteen bytes or more")
    hidden = select(chosen(trees, "vqa_rad", patient_key=str(tmp_path / "key"))).rows
    assert {row.group["question"] for row in hidden} == {"Is there a pneumothorax?", "Where is the mass?"}
    assert (rows["0"].label, rows["2"].label, rows["5"].label) == (1, 0, -1)
    assert select(chosen(trees, "path_vqa")).rows[0].group["rule"] == "yes or no"
    assert len(select(chosen(trees, "slake", options=("language=zh",))).rows) == 20
    with pytest.raises(ConfigError, match=r"langauge=en.*'language'"):
        chosen(trees, "slake", options=("langauge=en",))


def test_severities_of_medmnist_c_are_told_apart(trees):
    rows = by_id(select(chosen(trees, "pneumoniamnist_c", options=("corruption=jpeg_compression",))))
    assert len(rows) == 20
    row = rows["jpeg_compression/3/1"]
    assert (row.group["severity"], row.group["corruption"], row.label, row.patient) == (
        3,
        "jpeg_compression",
        1,
        "test/1",
    )
    assert row.image.index == 2 * 4 + 1
    assert len(select(chosen(trees, "pneumoniamnist_c", options=("severity=5",))).rows) == 8
    with pytest.raises(ConfigError, match="gaussian_noise, jpeg_compression"):
        select(chosen(trees, "pneumoniamnist_c", options=("corruption=fog",)))
    with pytest.raises(ConfigError, match="severity"):
        select(chosen(trees, "pneumoniamnist_c", options=("severity=6",)))


def test_five_by_two_hundred_takes_the_list_it_is_given(trees, tmp_path):
    listed = tmp_path / "list.csv"
    names = ["train/patient00003/study1/view1_frontal.jpg", "train/patient00004/study1/view1_frontal.jpg"]
    absent = "train/patient77777/study1/view1_frontal.jpg"
    listed.write_text("Path\n" + "\n".join(f"CheXpert-v1.0-small/{name}" for name in [*names, absent]))
    selection = select(chosen(trees, "chexpert_5x200", ids=str(listed)))
    assert [row.id for row in selection.rows] == names
    assert {row.split for row in selection.rows} == {"test"}
    assert [item.reason for item in selection.rejected] == ["the list names it, train.csv does not"]
    # Without a list, exclusively positive films are drawn: cardiomegaly alone and edema alone exist here.
    drawn = select(chosen(trees, "chexpert_5x200"))
    assert Counter(drawn.classes[row.label] for row in drawn.rows) == {"Cardiomegaly": 8, "Edema": 5}


def test_checksums_are_held_against_the_publishers(trees, tmp_path):
    with pytest.raises(DataError, match=r"pneumoniamnist.npz has the checksum .* its publisher states 28209eda"):
        prepare_set(chosen(trees, "pneumoniamnist", checksums=True), tmp_path)


@pytest.mark.parametrize("name", ["mimic_cxr", "rsna", "path_vqa", "chestmnist"])
def test_the_whole_way(trees, tmp_path, name):
    made = prepare_set(chosen(trees, name), tmp_path, workers=1)
    selection = select(chosen(trees, name))
    assert sum(made.counts.values()) == len(selection.rows)
    rows = by_id(selection)
    for split, source in made.splits.items():
        for record in source:
            row = rows[record["id"]]
            assert (split, record["report"], record["label"]) == (row.split, row.report, row.label)
            np.testing.assert_array_equal(record["labels"], row.labels)
            assert record["image"].shape == (16, 16, 1)
    assert made.card["licence"] == SETS[name].licence
    assert made.card["uncertain labels"] == "ignore"


def test_missing_files_are_named(trees, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        select(public("nih", tmp_path / "nowhere"))
    (tmp_path / "readme.txt").touch()
    for name in ALL:
        with pytest.raises(DataError, match=r"None of .* it holds readme.txt"):
            select(public(name, tmp_path))
    with pytest.raises(ConfigError, match="'mimic_cxr'"):
        public("mimic_cx", tmp_path)


def test_every_set_says_what_a_user_must_know():
    for spec in SETS.values():
        assert spec.licence
        assert spec.instructions
        assert spec.kind in ("image-text", "classification", "questions")
        assert len(set(spec.classes)) == len(spec.classes)
        assert spec.normal in ("", *spec.classes)
    assert all(spec.citation and spec.homepage.startswith("https://") for n, spec in SETS.items() if n in ALL)
