"""Sets with labels and without reports, as their publishers lay them out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ranjax.data.images.locations import FileRef
from ranjax.data.publisher_tables import files_below, find, needed, rows, text
from ranjax.data.sets.spec import ABSENT, PRESENT, WRITTEN, Entry, Options, Rejected, Spec, uncertain_cell

PICTURES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")

CHEXPERT_CLASSES = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
    "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
    "Support Devices",
)  # fmt: skip
FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
NIH_CLASSES = (
    "No Finding", "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis",
    "Hernia", "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip
VINDR_CLASSES = (
    "No finding", "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture",
    "Consolidation", "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity",
    "Lung cyst", "Mediastinal shift", "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax",
    "Pulmonary fibrosis", "Rib fracture", "Other lesion", "COPD", "Lung tumor", "Pneumonia", "Tuberculosis",
    "Other disease",
)  # fmt: skip


def _nih(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    # The header's "OriginalImage[Width,Height]" is unquoted and so two columns; nothing here reads them.
    table = needed(root, "Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
    images = files_below(root, PICTURES)
    split: dict[str, str] = {}
    for name, file in (("train", "train_val_list.txt"), ("test", "test_list.txt")):
        split |= dict.fromkeys(text(needed(root, file)).split(), name)
    for row in rows(table, ("Image Index", "Finding Labels", "Patient ID")):
        name = row["Image Index"]
        if name not in split:
            yield Rejected(name, "", "the image is in neither of the official lists")
            continue
        file = images.get(name)
        yield Entry(
            name,
            FileRef(str(file or root / name)),
            labels=dict.fromkeys((part.strip() for part in row["Finding Labels"].split("|")), PRESENT),
            patient=row["Patient ID"],
            split=split[name],
            view="frontal",
            # The first release writes ages such as "058Y".
            group={
                "age": row.get("Patient Age", "").strip("Y").lstrip("0"),
                "sex": row.get("Patient Gender", ""),
                "view": row.get("View Position", ""),
            },
        )


def chexpert_image(root: Path, path: str) -> Path:
    """Return a path of CheXpert's tables, which begins with the release's folder, whatever that folder is called
    here."""
    parts = Path(path).parts
    relative = Path(*parts[1:]) if parts and parts[0].startswith("CheXpert") else Path(path)
    return root / relative if (root / relative).exists() or not (root / path).exists() else root / path


def _chexpert(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    found = [(split, find(root, file)) for split, file in _CHEXPERT_TABLES]
    needed(root, "train.csv")
    for split, table in found:
        if table is None:
            continue
        for row in rows(table, ("Path",)):
            yield _chexpert_entry(table.parent, row, split)


_CHEXPERT_TABLES = (("train", "train.csv"), ("validation", "valid.csv"), ("test", "test.csv"))


def _chexpert_entry(root: Path, row: dict[str, str], split: str) -> Entry:
    cells = {name: uncertain_cell(row.get(name, "")) for name in CHEXPERT_CLASSES}
    parts = Path(row["Path"]).parts
    view = row.get("Frontal/Lateral", "") or ("Lateral" if "lateral" in parts[-1] else "Frontal")
    return Entry(
        "/".join(parts[-4:]),
        FileRef(str(chexpert_image(root, row["Path"]))),
        labels={name: value for name, value in cells.items() if value is not None},
        patient=next((part for part in parts if part.startswith("patient")), ""),
        split=split,
        view=view.lower(),
        group={"age": row.get("Age", ""), "sex": row.get("Sex", ""), "projection": row.get("AP/PA", "")},
    )


def _chexpert_5x200(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    if options.ids:
        wanted = _listed(Path(options.ids).expanduser())
    else:
        published = find(root, "chexpert_5x200.csv")
        wanted = _listed(published) if published else None
    table = needed(root, "train.csv")
    entries = [_chexpert_entry(table.parent, row, "test") for row in rows(table, ("Path",))]
    chosen = {entry.id for entry in entries} & set(wanted or ()) if wanted else _sample(entries, options.seed)
    for name in sorted(set(wanted or ()) - chosen):
        yield Rejected(name, "test", "the list names it, train.csv does not")
    for entry in entries:
        if entry.id in chosen:
            five = [name for name in FIVE if entry.labels.get(name) == PRESENT]
            if len(five) == 1:
                yield entry._replace(labels={five[0]: PRESENT})
            else:
                yield Rejected(entry.id, "test", f"{len(five)} of the five classes are positive, not one")


def _listed(path: Path) -> list[str]:
    """Return the ids of a list: a CSV with the column Path, or one path a line; with or without the release's folder."""
    header = text(path).splitlines()[:1]
    lines = [row["Path"] for row in rows(path)] if header and "Path" in header[0].split(",") else text(path).split("\n")
    return ["/".join(Path(line.strip()).parts[-4:]) for line in lines if line.strip()]


def _sample(entries: list[Entry], seed: int, each: int = 200) -> set[str]:
    """Return `each` frontal films per class on which it is the only positive one of the five, by a seeded draw over
    ids."""
    chosen: set[str] = set()
    for place, name in enumerate(FIVE):
        fitting = sorted(
            entry.id
            for entry in entries
            if entry.view == "frontal" and [c for c in FIVE if entry.labels.get(c) == PRESENT] == [name]
        )
        order = np.random.default_rng([seed, place]).permutation(len(fitting))
        chosen |= {fitting[i] for i in order[:each]}
    return chosen


def _rsna(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    detail = find(root, "stage_2_detailed_class_info.csv")
    kinds = {row["patientId"]: row["class"] for row in rows(detail)} if detail else {}
    seen: dict[str, str] = {}
    # One row a box: an image with two opacities has two rows.
    for row in rows(needed(root, "stage_2_train_labels.csv"), ("patientId", "Target")):
        seen[row["patientId"]] = max(seen.get(row["patientId"], "0"), row["Target"])
    folder = needed(root, "stage_2_train_images")
    for name, target in seen.items():
        yield Entry(
            name,
            FileRef(str(folder / f"{name}.dcm")),
            labels={"Pneumonia" if target == "1" else "No Pneumonia": PRESENT},
            patient=name,
            view="frontal",
            group={"class": kinds.get(name, "")},
        )


def _siim(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    table = needed(root, "train-rle.csv", "stage_2_train.csv", "stage_1_train.csv")
    films = files_below(root, (".dcm",))
    masks: dict[str, bool] = {}
    # The header reads " EncodedPixels"; several masks of an image are several rows.
    for row in rows(table, ("ImageId", "EncodedPixels")):
        masks[row["ImageId"]] = masks.get(row["ImageId"], False) or row["EncodedPixels"] != "-1"
    for name, ill in masks.items():
        file = films.get(f"{name}.dcm", root / f"{name}.dcm")
        label = "Pneumothorax" if ill else "No Pneumothorax"
        yield Entry(name, FileRef(str(file)), labels={label: PRESENT}, view="frontal")


def _vindr(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    films = files_below(root, (".dicom", ".dcm"))
    for split in ("train", "test"):
        votes: dict[str, list[dict[str, str]]] = {}
        # In train three radiologists read each film, one row each; test holds their consensus.
        table = needed(root, f"image_labels_{split}.csv", f"annotations/image_labels_{split}.csv")
        for row in rows(table, ("image_id",)):
            votes.setdefault(row["image_id"], []).append(row)
        for name, readers in votes.items():
            labels = {}
            for column in readers[0]:
                counted = sum(row.get(column) in ("1", "1.0") for row in readers)
                if column not in ("image_id", "rad_id", "rad_ID"):
                    labels[_VINDR_NAMES.get(column, column)] = PRESENT if 2 * counted > len(readers) else ABSENT
            file = films.get(f"{name}.dicom") or films.get(f"{name}.dcm") or root / split / f"{name}.dicom"
            yield Entry(name, FileRef(str(file)), labels=labels, split=split, view="frontal")


_VINDR_NAMES = {"Other diseases": "Other disease", "No Finding": "No finding"}


def _covidx(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        table = (find if split == "validation" else needed)(root, f"{name}.txt", f"{name}_COVIDx*.txt")
        for line in text(table).splitlines() if table else ():
            # "patient file label source": patient and file may hold blanks in old releases, label and source do not.
            parts = line.split()
            if len(parts) < 4:
                if parts:
                    yield Rejected(line[:80], split, "the line has fewer than four fields")
                continue
            patient, file, label = parts[0], " ".join(parts[1:-2]), parts[-2]
            path = (table.parent if table else root) / name / file
            group = {"source": parts[-1]}
            yield Entry(f"{name}/{file}", FileRef(str(path)), "", {label: PRESENT}, patient, split, "frontal", group)


def _kermany(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    place = needed(root, "train/NORMAL", "chest_xray/train/NORMAL").parents[1]
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        for label in ("NORMAL", "PNEUMONIA"):
            for file in sorted((place / name / label).glob("*.jp*g")):
                stem = file.stem
                # "person1_bacteria_2" and "IM-0115-0001", "NORMAL2-IM-0333-0001": the last number counts the films.
                # person numbers start anew for each cause, so cause and number name the patient together.
                parts = stem.split("_")
                known = "_".join(parts[:2]) if label == "PNEUMONIA" else stem.rsplit("-", 1)[0]
                cause = parts[1] if label == "PNEUMONIA" and len(parts) > 1 else ""
                labels = {label.capitalize(): PRESENT}
                identity = f"{name}/{label}/{file.name}"
                yield Entry(identity, FileRef(str(file)), "", labels, known, split, "frontal", {"cause": cause})


SPECS = (
    Spec(
        "chexpert", "CheXpert", "classification", _chexpert, CHEXPERT_CLASSES, "No Finding", ("train", "validation"),
        WRITTEN, "Stanford University Dataset Research Use Agreement",
        "Irvin et al., CheXpert: a large chest radiograph dataset with uncertainty labels and expert comparison, "
        "AAAI 2019",
        "https://stanfordmlgroup.github.io/competitions/chexpert/",
        "Download CheXpert-v1.0 or CheXpert-v1.0-small; train.csv, valid.csv (and test.csv where you have it) lie "
        "beside the folders train/ and valid/.",
        ("Train labels come from a rule-based labeller; -1 is its 'uncertain', an empty cell 'not mentioned'.",
         "The train labels of 'No Finding' do not exclude support devices."),
    ),
    Spec(
        "chexpert_5x200", "CheXpert 5x200", "classification", _chexpert_5x200, FIVE, "", ("test",), WRITTEN,
        "Stanford University Dataset Research Use Agreement",
        "Huang et al., GLoRIA, ICCV 2021 (the idea of 200 films for each of five classes); Irvin et al., AAAI 2019",
        "https://stanfordmlgroup.github.io/competitions/chexpert/",
        "CheXpert's folder. With --ids=FILE (a CSV with the column Path, or one path a line), or chexpert_5x200.csv "
        "beside train.csv, exactly those films; otherwise 200 a class are drawn by --seed.",
        ("Published 5x200 figures use lists that differ from paper to paper: compare only with the same list. The list "
         "that was used is the ids of this set.",),
    ),
    Spec(
        "nih", "NIH ChestX-ray14", "classification", _nih, NIH_CLASSES, "No Finding", ("train", "test"), WRITTEN,
        "free use with attribution to the NIH Clinical Center",
        "Wang et al., ChestX-ray8: hospital-scale chest X-ray database and benchmarks, CVPR 2017",
        "https://nihcc.app.box.com/v/ChestXray-NIHCC",
        "Data_Entry_2017_v2020.csv (or Data_Entry_2017.csv), train_val_list.txt, test_list.txt, and the unpacked "
        "images (images/ or images_001/ to images_012/).",
        ("Labels were mined from reports by their publisher; the official split is by patient.",),
    ),
    Spec(
        "rsna", "RSNA Pneumonia Detection Challenge 2018", "classification", _rsna, ("No Pneumonia", "Pneumonia"),
        "No Pneumonia", (), WRITTEN, "RSNA's terms of the challenge: non-commercial and academic use",
        "Shih et al., Augmenting the NIH chest radiograph dataset with expert annotations of possible pneumonia, "
        "Radiology: Artificial Intelligence 2019",
        "https://www.rsna.org/rsnai/ai-image-challenge/rsna-pneumonia-detection-challenge-2018",
        "stage_2_train_labels.csv, stage_2_detailed_class_info.csv and stage_2_train_images/*.dcm.",
        ("The images are NIH ChestX-ray14's: no test of transfer from that set.",
         "'Pneumonia' is an opacity that readers boxed; the test labels were never published."),
    ),
    Spec(
        "siim", "SIIM-ACR Pneumothorax Segmentation 2019", "classification", _siim,
        ("No Pneumothorax", "Pneumothorax"), "No Pneumothorax", (), WRITTEN, "SIIM-ACR's terms of the challenge",
        "SIIM-ACR Pneumothorax Segmentation Challenge, 2019",
        "https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation",
        "train-rle.csv (or stage_2_train.csv) and the DICOM tree (dicom-images-train/ or stage_2_images/).",
        ("The images are NIH ChestX-ray14's, without patient ids: patients cannot be kept apart.",),
    ),
    Spec(
        "vindr", "VinDr-CXR", "classification", _vindr, VINDR_CLASSES, "No finding", ("train", "test"), WRITTEN,
        "PhysioNet Credentialed Health Data License 1.5.0",
        "Nguyen et al., VinDr-CXR: an open dataset of chest X-rays with radiologist's annotations, Scientific Data "
        "2022",
        "https://physionet.org/content/vindr-cxr/1.0.0/",
        "annotations/image_labels_train.csv and image_labels_test.csv, train/*.dicom and test/*.dicom.",
        ("Train labels are the majority of three readers, test labels a consensus of five; no patient ids.",),
    ),
    Spec(
        "covidx", "COVIDx CXR", "classification", _covidx, ("normal", "pneumonia", "COVID-19", "negative", "positive"),
        "", ("train", "validation", "test"), WRITTEN, "AGPL-3.0 for the lists; the images keep their sources' licences",
        "Wang, Lin and Wong, COVID-Net, Scientific Reports 2020", "https://github.com/lindawangg/COVID-Net",
        "train.txt, val.txt (newer releases) and test.txt with the folders train/, val/ and test/.",
        ("A collection of sets in which source and class go together: a network can tell classes by their source.",),
        classes_vary=True,
    ),
    Spec(
        "kermany", "Chest X-ray images (pneumonia), Kermany", "classification", _kermany, ("Normal", "Pneumonia"),
        "Normal", ("train", "validation", "test"), WRITTEN, "CC BY 4.0",
        "Kermany et al., Identifying medical diagnoses and treatable diseases by image-based deep learning, Cell 2018",
        "https://data.mendeley.com/datasets/rscbjbr9sj/2", "The folder chest_xray with train/, val/ and test/.",
        ("Children of one to five years from one hospital.", "Patients are read from file names."),
    ),
)  # fmt: skip
