"""Sets with labels and without reports, as their publishers lay them out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ranjax.core.errors import DataError
from ranjax.data.images.locations import FileRef
from ranjax.data.publisher_tables import files_below, find, needed, text
from ranjax.data.sets.spec import ABSENT, PRESENT, Entry, Options, Rejected, Said, facts, marks, spec
from ranjax.data.sets.views import view_of
from ranjax.data.strict_tables import keyed, rows
from ranjax.data.table_cells import is_missing, mark

PICTURES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")

CHEXPERT_CLASSES: tuple[str, ...] = facts("chexpert")["classes"]
FIVE: tuple[str, ...] = facts("chexpert_5x200")["classes"]


def _nih(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    # The header's "OriginalImage[Width,Height]" is unquoted and so two columns; nothing here reads them.
    table = needed(root, "Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
    images = files_below(root, PICTURES)
    split: dict[str, str] = {}
    for name, file in (("train", "train_val_list.txt"), ("test", "test_list.txt")):
        listed = text(needed(root, file)).split()
        if twice := next((image for image in listed if split.get(image, name) != name), ""):
            raise DataError(f"{twice} is in both of the official lists.")
        split |= dict.fromkeys(listed, name)
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
            source=row,
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
    for split, name in (("train", "train.csv"), ("validation", "valid.csv"), ("test", "test.csv")):
        if table := (needed if split == "train" else find)(root, name):
            for row in rows(table, ("Path",)):
                yield _chexpert_entry(table.parent, row, split)


def _chexpert_entry(root: Path, row: dict[str, str], split: str) -> Entry | Rejected:
    parts = Path(row["Path"]).parts
    identity = "/".join(parts[-4:])
    if not parts:
        return Rejected(f"a row of the split {split}", split, "column 'Path' is empty")
    try:
        labels = marks(row, CHEXPERT_CLASSES)
    except DataError as error:
        return Rejected(identity, split, str(error))
    view = row.get("Frontal/Lateral", "") or ("Lateral" if "lateral" in parts[-1] else "Frontal")
    return Entry(
        identity,
        FileRef(str(chexpert_image(root, row["Path"]))),
        labels=labels,
        source=row,
        patient=next((part for part in parts if part.startswith("patient")), ""),
        split=split,
        view=view_of(view),
        group={"age": row.get("Age", ""), "sex": row.get("Sex", ""), "projection": row.get("AP/PA", "")},
    )


def _chexpert_5x200(root: Path, options: Options) -> Iterator[Entry | Rejected | Said]:
    published = Path(options.ids).expanduser() if options.ids else find(root, "chexpert_5x200.csv")
    wanted = _listed(published) if published else None
    table = needed(root, "train.csv")
    found = [_chexpert_entry(table.parent, row, "test") for row in rows(table, ("Path",))]
    yield from (entry for entry in found if isinstance(entry, Rejected))
    entries = [entry for entry in found if isinstance(entry, Entry)]
    chosen = {entry.id for entry in entries} & set(wanted or ()) if wanted else _sample(entries, options.seed)
    yield Said("selection", f"{len(entries) - len(chosen)} films of {table.name} are not drawn")
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
    """Return the ids of a list: a CSV with the column Path, or one path a line; with or without the release's
    folder.
    """
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
    kinds = {k: row["class"] for k, row in keyed(detail, "patientId", ("class",)).items()} if detail else {}
    seen: dict[str, str] = {}
    # One row a box: an image with two opacities has two rows.
    for row in rows(needed(root, "stage_2_train_labels.csv"), ("patientId", "Target")):
        if row["Target"] not in ("0", "1"):
            raise DataError(f"{row['patientId']}: the column Target holds {row['Target']!r}, expected 0 or 1.")
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
        if is_missing(row["EncodedPixels"]):
            raise DataError(f"{row['ImageId']}: the column EncodedPixels is empty, expected a mask, or -1 for none.")
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
                if column not in ("image_id", "rad_id", "rad_ID"):
                    counted = sum(_vote(row, column) == PRESENT for row in readers)
                    labels[_VINDR_NAMES.get(column, column)] = PRESENT if 2 * counted > len(readers) else ABSENT
            file = films.get(f"{name}.dicom") or films.get(f"{name}.dcm") or root / split / f"{name}.dicom"
            yield Entry(name, FileRef(str(file)), labels=labels, split=split, view="frontal")


def _vote(row: dict[str, str], column: str) -> float:
    try:
        found = mark(row[column])
    except DataError as error:
        raise DataError(f"{row['image_id']}: column {column!r} {error}.") from error
    if found not in (PRESENT, ABSENT):
        raise DataError(f"{row['image_id']}: column {column!r} holds {row[column]!r}, expected 0 or 1.")
    return found


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


READERS = {
    "chexpert": _chexpert, "chexpert_5x200": _chexpert_5x200, "nih": _nih, "rsna": _rsna, "siim": _siim,
    "vindr": _vindr, "covidx": _covidx, "kermany": _kermany,
}  # fmt: skip
SPECS = tuple(spec(name, reader) for name, reader in READERS.items())
