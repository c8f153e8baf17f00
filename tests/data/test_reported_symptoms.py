"""Symptoms that users of such tools report in public: each small input with the value that is right."""

import csv
import gzip
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image
from publishers import film, noise_film, picture
from small_data import public

from ranjax.core.errors import DataError
from ranjax.data.images.loading import load
from ranjax.data.images.locations import FileRef
from ranjax.data.row_filters import select
from ranjax.data.text.deidentify import deidentify
from ranjax.data.text.labeller import label
from ranjax.run.stages.attack_files import read_pairs


def own(root, *options, **changes):
    return select(public("table", root, options=options, **changes))


def index(root, lines, header="file,report,finding,patient"):
    for i in range(8):
        picture(root / f"{i}.png", i)
    usual = [f"{i}.png,Small left effusion {chr(97 + i)}.,{['effusion', 'normal'][i % 2]},p{i}" for i in range(8)]
    (root / "index.csv").write_text("\n".join([header, *lines, *usual[len(lines) :]]) + "\n")
    return root


def test_a_comma_in_an_unquoted_report_shifts_no_cell(tmp_path):
    found = own(index(tmp_path, ["0.png,Heart size is normal, lungs are clear,normal,p0"]), "label=finding")
    assert "0.png" not in {row.id for row in found.rows}
    assert (len(found.rows), len(found.rejected)) == (7, 1)


def test_a_quote_that_is_never_closed_swallows_no_row(tmp_path):
    with pytest.raises(DataError, match="quote"):
        own(index(tmp_path, ['0.png,"Small effusion,effusion,p0']), "label=finding")
    (tmp_path / "r.csv").write_text('image,report\n0.png,"Small left effusion\n1.png,Heart normal\n2.png,No effusion\n')
    with pytest.raises(DataError, match="quote"):
        read_pairs(tmp_path, tmp_path / "r.csv", "image", "report")


def test_cells_of_pandas_without_a_value_are_empty(tmp_path):
    rows = ["0.png,nan,nan,nan", "1.png,None,nan,None", "2.png,N/A,nan,NaN"]
    found = own(index(tmp_path, rows), "label=finding")
    assert [row.report for row in found.rows if row.report.lower() in ("nan", "none", "n/a", "null")] == []
    assert "nan" not in found.classes


def test_a_patient_column_of_another_name_keeps_patients_in_one_split(tmp_path):
    text = "file,report,finding,PatientID\n"
    for i in range(24):
        picture(tmp_path / f"{i}.png", i)
        text += f"{i}.png,Report {chr(97 + i)} effusion.,{['effusion', 'normal'][i % 2]},p{i // 8}\n"
    (tmp_path / "index.csv").write_text(text)
    splits = {}
    for row in own(tmp_path, "label=finding").rows:
        splits.setdefault(int(row.id.split(".")[0]) // 8, set()).add(row.split)
    assert [len(found) for found in splits.values()] == [1, 1, 1]


@pytest.mark.parametrize(
    ("text", "right"),
    [
        *((text, text) for text in (
            "Fractures of ribs 5-6-7 on the left.", "Degenerative change at C4-5-6.", "Segments 4/5/6 are opacified.",
            "2-3-4 mm nodules.", "Dilution 1:10.",
        )),
        ("At 10:30 the tube was moved.", "At [TIME] the tube was moved."),
        ("Compared to 2014-05-03.", "Compared to [DATE]."),
    ],
)  # fmt: skip
def test_numbers_are_no_dates_and_a_time_keeps_its_blank(text, right):
    assert deidentify(text)[0] == right


@pytest.mark.parametrize(
    ("text", "name", "right"),
    [
        ("Heart is not enlarged.", "Cardiomegaly", 0.0),
        ("The cardiac silhouette is not enlarged.", "Cardiomegaly", 0.0),
        ("No change in the left pleural effusion.", "Effusion", 1.0),
        ("No significant change in moderate right effusion.", "Effusion", 1.0),
        ("Effusion has not resolved.", "Effusion", 1.0),
        ("Effusions are no longer seen.", "Effusion", 0.0),
        ("No effusion, possible pneumonia.", "Pneumonia", -1.0),
        ("No pneumothorax, left lower lobe pneumonia is present.", "Pneumonia", 1.0),
        ("There is no pneumothorax and there is a large pleural effusion.", "Effusion", 1.0),
        ("Interval removal of left chest tube, large pneumothorax.", "Pneumothorax", 1.0),
        ("This leads to atelectasis.", "Support Devices", None),
        ("No pneumothorax or effusion.", "Effusion", 0.0),
        ("Mild cardiomegaly without edema.", "Edema", 0.0),
        ("Low likelihood of pneumonia.", "Pneumonia", -1.0),
        ("History of pneumonia.", "Pneumonia", -1.0),
    ],
)
def test_a_negation_reaches_what_it_negates(text, name, right):
    assert label(text).get(name) == right


def test_samples_in_the_upper_bits_do_not_wrap_around(tmp_path):
    ramp = np.tile(np.linspace(0, 4095, 64).astype(np.uint16), (64, 1))
    plain = np.asarray(load(FileRef(str(film(tmp_path / "a.dcm", ramp)))).picture)
    upper = np.asarray(load(FileRef(str(film(tmp_path / "b.dcm", ramp << 4, HighBit=15)))).picture)
    np.testing.assert_array_equal(upper, plain)


def test_films_of_one_study_stay_together_without_patient_ids(tmp_path):
    for i in range(9):
        noise_film(tmp_path / f"f{i}.dcm", i, StudyInstanceUID=f"1.2.3.{i // 3 + 1}")
        (tmp_path / f"f{i}.txt").write_text(f"FINDINGS: Film {i // 3} {chr(97 + i)} shows a left effusion.")
    splits = {}
    for row in select(public("dicom", tmp_path)).rows:
        splits.setdefault(row.report.split()[1], set()).add(row.split)
    assert [len(found) for found in splits.values()] == [1, 1, 1]


def test_rows_of_a_table_beside_films_are_counted_where_two_name_one_or_one_names_none(tmp_path):
    for i in range(2):
        noise_film(tmp_path / f"f{i}.dcm", i, PatientID=f"p{i}")
    (tmp_path / "index.csv").write_text(
        "file,report\nf0.dcm,First report.\nf0.dcm,Second report.\nf1.dcm,Other report.\nf9.dcm,Absent film.\n"
    )
    found = select(public("dicom", tmp_path))
    assert ([row.report for row in found.rows], len(found.rejected)) == (["Other report."], 3)


@pytest.mark.parametrize(("turn", "first", "size"), [(3, 255, (60, 40)), (6, 0, (40, 60))])
def test_a_photographed_film_is_turned_as_its_exif_says(tmp_path, turn, first, size):
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(np.tile(np.linspace(0, 255, 60).astype(np.uint8), (40, 1))).save(tmp_path / "a.png", exif=exif)
    shown = load(FileRef(str(tmp_path / "a.png"))).picture
    assert (int(np.asarray(shown)[0, 0]), shown.size) == (first, size)


def test_minus_one_is_no_label_and_a_list_of_labels_keeps_its_names(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as parquet

    from ranjax.data.images.locations import read_table

    def write(labels, feature):
        cells = [{"bytes": picture(tmp_path / "x.png", i).read_bytes(), "path": None} for i in range(len(labels))]
        reports = [f"Report {chr(97 + i)} of heart." for i in range(len(labels))]
        stored = pa.table({"image": cells, "report": reports, "label": labels})
        stated = json.dumps({"info": {"features": {"label": feature}}}).encode()
        (tmp_path / "data").mkdir(exist_ok=True)
        parquet.write_table(
            stored.replace_schema_metadata({b"huggingface": stated}), tmp_path / "data" / "train-00000-of-00001.parquet"
        )
        read_table.cache_clear()
        return select(public("huggingface", tmp_path, options=("label=label",)))

    names = {"names": ["ill", "well"], "_type": "ClassLabel"}
    found = write([0, 0, 1, 1, -1], names)
    assert next(row.label for row in found.rows if row.id.endswith("/4")) == -1
    assert sorted(write([[0], [0, 1], [0], [1]], {"feature": names, "_type": "Sequence"}).classes) == ["ill", "well"]


def test_the_reason_of_an_unreadable_picture_holds_no_address(tmp_path):
    (tmp_path / "x.png").write_bytes(b"<html>404</html>")
    with pytest.raises(DataError) as error:
        load(FileRef(str(tmp_path / "x.png")))
    assert "0x" not in str(error.value)


def test_headings_of_organs_keep_their_text(tmp_path):
    from ranjax.data.text import reports

    text = "INDICATION: Cough.\nFINDINGS:\nLUNGS: Large left pneumothorax.\nHEART: Enlarged.\nIMPRESSION:\nAs above."
    for given in (text, text.split("IMPRESSION")[0]):
        assert "pneumothorax" in reports.select(given, ("findings", "impression"))
    head = "path_to_image,frontal_lateral,deid_patient_id,report,section_findings,section_impression,age,sex,race,split"
    path = "train/patient00001/study1/view1_frontal.jpg"
    row = [path, "Frontal", "patient00001", "r", "LUNGS: CLEAR.\nHEART: ENLARGED.", "STABLE.", 60, "M", "W", "train"]
    with (tmp_path / "df_chexpert_plus_240401.csv").open("w", newline="") as file:
        csv.writer(file).writerows([head.split(","), row])
    picture(tmp_path / "PNG" / path.replace(".jpg", ".png"), 0)
    assert "HEART: ENLARGED" in select(public("chexpert_plus", tmp_path)).rows[0].report


@pytest.mark.parametrize("policy", ["ignore", "zero"])
def test_doubt_is_no_finding_to_nobody(tmp_path, policy):
    cells = {1: ("1.0", "", ""), 2: ("", "1.0", ""), 3: ("", "-1.0", ""), 4: ("1.0", "-1.0", ""), 5: ("", "", "0.0")}
    head = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", "Edema", "Pleural Effusion"]
    path = "train/patient{:05d}/study1/view1_frontal.jpg"
    for i in cells:
        picture(tmp_path / path.format(i), i)
    with (tmp_path / "train.csv").open("w", newline="") as file:
        rows = [[f"CheXpert-v1.0-small/{path.format(i)}", "F", 60, "Frontal", "AP", *c] for i, c in cells.items()]
        csv.writer(file).writerows([head, *rows])
    found = select(public("chexpert", tmp_path, uncertain=policy))
    said = {int(row.id.split("patient")[1][:5]): row.report for row in found.rows}
    assert said[1] == "No finding."
    assert [i for i in (3, 4, 5) if said.get(i) == "No finding."] == []


def test_films_of_other_views_are_left_out_as_their_publishers_mark_them(tmp_path):
    views = ["PA", "AP", "LATERAL", "XTABLE LATERAL", "RL", "LAO", "SWIMMERS"]
    meta, split = (
        [["dicom_id", "subject_id", "study_id", "ViewPosition"]],
        [["dicom_id", "study_id", "subject_id", "split"]],
    )
    labels = [["subject_id", "study_id", "Edema"]]
    with zipfile.ZipFile(tmp_path / "mimic-cxr-reports.zip", "w") as archive:
        for i, view in enumerate(views):
            folder = f"files/p10/p1000000{i}/s5000000{i}"
            picture(tmp_path / folder / f"d{i}.jpg", i)
            meta.append([f"d{i}", f"1000000{i}", f"5000000{i}", view])
            split.append([f"d{i}", f"5000000{i}", f"1000000{i}", "train"])
            labels.append([f"1000000{i}", f"5000000{i}", "1.0"])
            archive.writestr(folder + ".txt", f"FINDINGS: Heart normal in case {chr(97 + i)}.")
    for name, rows in (("metadata", meta), ("split", split), ("chexpert", labels)):
        with gzip.open(tmp_path / f"mimic-cxr-2.0.0-{name}.csv.gz", "wt", newline="") as file:
            csv.writer(file).writerows(rows)
    assert sorted(row.group["view"] for row in select(public("mimic_cxr", tmp_path)).rows) == ["AP", "PA"]
    kinds = ["PA", "AP", "AP_horizontal", "L", "COSTAL", "EXCLUDE", "UNK"]
    head = "ImageID,ImageDir,StudyID,PatientID,Projection,PhotometricInterpretation_DICOM,Report,Labels"
    rows = [
        [f"{i}.png", 0, f"s{i}", f"p{i}", kind, "MONOCHROME2", f"sin hallazg {chr(97 + i)} .", "['normal']"]
        for i, kind in enumerate(kinds)
    ]
    with (tmp_path / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv").open("w", newline="") as file:
        csv.writer(file).writerows([head.split(","), *rows])
    for i in range(len(kinds)):
        picture(tmp_path / "0" / f"{i}.png", i)
    found = select(public("padchest", tmp_path))
    assert sorted(kinds[int(row.id.split(".")[0])] for row in found.rows) == ["AP", "AP_horizontal", "PA"]


TEXTS = (
    "Small left effusion, heart normal.",
    "No effusion. Large opacity in the right lobe.",
    "The lung doesn't show pneumonia and isn't collapsed.",
    "The lung doesn’t show edema and isn’t enlarged.",
    "Comparison ___ : heart normal cardiomegaly",
    "Left effusion (small)",
)


@pytest.mark.slow
def test_an_attack_keeps_negations_and_unknown_marks_and_its_films_come_back_as_they_were(tmp_path):
    from test_attack import console, models, nnx

    from ranjax.data.text.tokenizer import Tokenizer

    built = Tokenizer.build(TEXTS[:4], max_size=256)
    config = models.clip(
        vocab_size=built.vocab_size, eos_id=built.eos_id, image_size=32, channels=3, patch_size=16, vision_width=32,
        vision_layers=1, vision_heads=2, text_width=32, text_layers=1, text_heads=2, max_length=24, embed_dim=16,
    )  # fmt: skip
    models.save(tmp_path / "clip", *models.split(models.DualEncoder(config, nnx.Rngs(0))))
    built.save(tmp_path / "clip" / "tokenizer.json")
    (tmp_path / "films").mkdir()
    given = [np.random.default_rng(i).integers(60, 160, (32, 32)).astype(np.uint8) for i in range(len(TEXTS))]
    for i, grey in enumerate(given):
        Image.fromarray(grey).save(tmp_path / "films" / f"{i}.png")
    with (tmp_path / "r.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "report"), *((f"{i}.png", text) for i, text in enumerate(TEXTS))])
    usual = [f"--checkpoint={tmp_path / 'clip'}", f"--images={tmp_path / 'films'}", f"--reports={tmp_path / 'r.csv'}",
             "--cpu_devices=1", "--compile_cache=off"]  # fmt: skip
    assert console.call(["attack", *usual, f"--out={tmp_path / 'a'}", "--steps=1"]) == 0
    text = (tmp_path / "a" / "pairs.csv").read_text("utf-8")
    after = [row["attacked_report"] for row in csv.DictReader(io.StringIO(text, newline=""))]
    for said in after[2:4]:
        assert "doesn" in said.lower()
        assert "isn" in said.lower()
    for before, said in zip(TEXTS[4:], after[4:]):
        marks = [[c for c in one if not (c.isalnum() or c.isspace())] for one in (before, said)]
        assert marks[0] == marks[1]
    still = ["--epsilon=0", "--words=0", "--steps=0"]
    assert console.call(["attack", *usual, f"--out={tmp_path / 'b'}", *still]) == 0
    for i, grey in enumerate(given):
        back = np.asarray(load(FileRef(str(tmp_path / "b" / "images" / f"{i}.png"))).picture)
        np.testing.assert_array_equal(back, grey)
