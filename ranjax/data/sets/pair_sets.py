"""Sets of images with reports or captions, as their publishers lay them out."""

from __future__ import annotations

import ast
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ranjax.core.errors import ConfigError, DataError
from ranjax.core.files import read_object
from ranjax.data.images.locations import FileRef
from ranjax.data.prepared_files import said
from ranjax.data.publisher_tables import decode, files_below, find, needed
from ranjax.data.sets.classification_sets import CHEXPERT_CLASSES
from ranjax.data.sets.spec import PRESENT, Entry, Options, Rejected, marks, spec
from ranjax.data.sets.views import view_of
from ranjax.data.strict_tables import keyed, objects, rows
from ranjax.data.table_cells import is_missing
from ranjax.data.text import openi

_MIMIC_SPLITS = {"train": "train", "validate": "validation", "test": "test"}


def _mimic(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    splits = keyed(_mimic_table(root, "split"), "dicom_id", ("split",))
    split_of = {name: row["split"] for name, row in splits.items()}
    stated = keyed(_mimic_table(root, "chexpert"), "study_id")
    labels = {study: _marks(row, study) for study, row in stated.items()}
    report_of = _mimic_reports(root)
    for row in rows(_mimic_table(root, "metadata"), ("dicom_id", "subject_id", "study_id", "ViewPosition")):
        name, patient, study = row["dicom_id"], row["subject_id"], row["study_id"]
        if name not in split_of:
            yield Rejected(name, "", "the split table does not name the image")
            continue
        folder = f"files/p{patient[:2]}/p{patient}/s{study}"
        if split_of[name] not in _MIMIC_SPLITS:
            yield Rejected(name, "", f"the split {split_of[name]!r} is none of {', '.join(_MIMIC_SPLITS)}")
            continue
        yield Entry(
            name,
            FileRef(str(root / folder / f"{name}.jpg")),
            report_of(folder),
            labels.get(study, {}),
            patient,
            _MIMIC_SPLITS[split_of[name]],
            view_of(row["ViewPosition"]),
            {"study": study, "view": row["ViewPosition"]},
            source=row,
        )


def _marks(row: Mapping[str, object], name: str) -> dict[str, float]:
    """Return CheXpert's labels of a row; `name` names it in the error of a cell that is no mark."""
    try:
        return marks(row, CHEXPERT_CLASSES)
    except DataError as error:
        raise DataError(f"{name}: {error}.") from error


def _mimic_table(root: Path, name: str) -> Path:
    return needed(root, f"mimic-cxr-2.*-{name}.csv.gz", f"mimic-cxr-2.*-{name}.csv")


_REPORT_LIMIT = 4 << 20
"""Bytes of one report at most: a compressed one may hold anything."""


def _mimic_reports(root: Path) -> Callable[[str], str]:
    """Return a function from a study's folder to its report: from the archive as it is published, or from unpacked
    files."""
    archived = find(root, "mimic-cxr-reports.zip")
    if archived is not None:
        try:
            archive = zipfile.ZipFile(archived)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise DataError(f"{archived} is no zip archive: {said(error)}.") from error
        names = set(archive.namelist())

        def from_archive(folder: str) -> str:
            if f"{folder}.txt" not in names:
                return ""
            try:
                with archive.open(f"{folder}.txt") as file:
                    data = file.read(_REPORT_LIMIT + 1)
            # zipfile and zlib raise errors of several kinds for bytes that are damaged.
            except Exception as error:
                raise DataError(f"{folder}.txt in {archived} cannot be read ({said(error)}).") from error
            if len(data) > _REPORT_LIMIT:
                raise DataError(f"{folder}.txt in {archived} has more than {_REPORT_LIMIT >> 20} MiB: no report has.")
            return decode(data)

        return from_archive
    base = root / "mimic-cxr-reports" if (root / "mimic-cxr-reports").is_dir() else root

    def from_files(folder: str) -> str:
        path = base / f"{folder}.txt"
        return decode(path.read_bytes()) if path.is_file() else ""

    return from_files


def _iu_xray(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    images = files_below(root, (".png", ".jpg"))
    for report in openi.read_reports(needed(root, "NLMCXR_reports.tgz", "ecgen-radiology")):
        if not report.images:
            yield Rejected(report.id, "", "the report has no image")
        for name in report.images:
            file = images.get(f"{name}.png", root / f"{name}.png")
            yield Entry(
                name, FileRef(str(file)), report.text(), dict.fromkeys(report.findings, PRESENT), report.id,
                "", "",
                {"mesh": "; ".join(report.mesh), "report": report.id}, report.sections,
            )  # fmt: skip


def _roco(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    for split, name in (("train", "train"), ("validation", "valid"), ("test", "test")):
        table = needed(root, f"{name}_captions.csv")
        concepts = find(root, f"{name}_concepts.csv")
        codes = {key: row.get("CUIs", "") for key, row in keyed(concepts, "ID").items()} if concepts else {}
        folders = (f"{name}_images/{name}", f"{name}_images", name)
        folder = next((p for f in folders if (p := table.parent / f).is_dir()), table.parent / name)
        for row in rows(table, ("ID", "Caption")):
            identity = row["ID"]
            group = {"concepts": codes.get(identity, "")}
            image = FileRef(str(folder / f"{identity}.jpg"))
            yield Entry(identity, image, row["Caption"], {}, "", split, "", group, source=row)


def _padchest(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    table = needed(
        root, "PADCHEST_chest_x_ray_images_labels_160K*.csv.gz", "PADCHEST_chest_x_ray_images_labels_160K*.csv"
    )
    images = files_below(root, (".png",))
    for row in rows(table, ("ImageID", "PatientID", "Labels", "Report", "Projection")):
        labels = _padchest_labels(row["Labels"])
        name = row["ImageID"]
        if labels is None:
            yield Rejected(name, "", f"the labels {row['Labels'][:40]!r} cannot be read")
            continue
        yield Entry(
            name,
            # Folders are numbered; a flat copy of the images is found as well. The PNGs hold the detector's values,
            # so MONOCHROME1 films are negatives.
            FileRef(
                str(images.get(name, root / row["ImageDir"] / name)),
                invert=row.get("PhotometricInterpretation_DICOM") == "MONOCHROME1",
            ),
            "" if is_missing(row["Report"]) else row["Report"],
            labels,
            row["PatientID"],
            "",
            view_of(row["Projection"]),
            {"study": row.get("StudyID", ""), "sex": row.get("PatientSex_DICOM", ""), "by": row.get("MethodLabel", "")},
            source=row,
        )


def _padchest_labels(cell: str) -> dict[str, float] | None:
    """Read "['loc basal', ' pneumonia ']" as labels; localisations dropped; None for a cell that is no such list."""
    if is_missing(cell):
        return {}
    try:
        names = ast.literal_eval(cell)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    if not isinstance(names, list):
        return None
    plain = {str(name).strip().lower() for name in names}
    return {name: PRESENT for name in sorted(plain) if name and not name.startswith("loc ") and name != "nan"}


def _chexpert_plus(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    table = needed(root, "df_chexpert_plus_240401.csv", "df_chexpert_plus_*.csv")
    labels = _chexpert_plus_labels(root)
    folders = [root / name for name in ("PNG", "png", "images", ".") if (root / name).is_dir()]
    splits = {"train": "train", "valid": "validation", "validation": "validation", "test": "test"}
    for row in rows(table, ("path_to_image", "deid_patient_id", "split", "report")):
        path = row["path_to_image"]
        if row["split"] not in splits:
            yield Rejected(path, "", f"the split {row['split']!r} is none of {', '.join(splits)}")
            continue
        names = [path, re.sub(r"\.jpg$", ".png", path)]
        files = [folder / name for folder in folders for name in names]
        sections = {name: row.get(f"section_{name}", "") for name in ("findings", "impression")}
        # The publisher's own sections where they are filled; the whole report otherwise.
        parsed = {name: body for name, body in sections.items() if not is_missing(body)}
        yield Entry(
            path,
            FileRef(str(next((file for file in files if file.is_file()), files[0]))),
            row["report"],
            labels.get(path, {}),
            row["deid_patient_id"],
            splits[row["split"]],
            view_of(row.get("frontal_lateral", "")),
            {"age": row.get("age", ""), "sex": row.get("sex", ""), "race": row.get("race", "")},
            parsed,
            row,
        )


def _chexpert_plus_labels(root: Path) -> dict[str, dict[str, float]]:
    """Read CheXbert's labels of the impressions or reports, one JSON object a line, where they were downloaded."""
    path = find(root, "impression_fixed.json", "report_fixed.json", "chexbert_labels/impression_fixed.json",
                "chexbert_labels/report_fixed.json")  # fmt: skip
    if path is None:
        return {}
    # One object a line, whatever the file's ending says.
    found: dict[str, dict[str, float]] = {}
    for row in objects(path, ("path_to_image",), lines=True):
        name = str(row["path_to_image"])
        marked = _marks(row, name)
        if found.setdefault(name, marked) != marked:
            raise DataError(f"{path.name}: {name} stands twice, with different labels.")
    return found


_NO_SCANS = ("photograph", "gross pathology", "drawing")


def _medpix(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    """Read MedPix 2.0: a scan each entry of Descriptions.json, with the findings of its case from Case_topic.json."""
    table = needed(root, "Descriptions.json")
    folder = table.parent
    case_of = {
        _words(case["U_id"]): _part(case, "Case") for case in objects(folder / "Case_topic.json", ("U_id", "Case"))
    }
    lists = folder / "splitted_dataset" / "uid_list.json"
    split_of = _medpix_splits(lists) if lists.is_file() else None
    texts = _medpix_texts(options.values.get("text", "both"))
    for number, row in enumerate(objects(table, ("Type", "U_id", "image", "Description")), start=1):
        about = _part(row, "Description")
        name, patient, modality, region = (_words(row.get(k)) for k in ("image", "U_id", "Type", "Location Category"))
        split = "" if split_of is None else split_of.get(patient, "")
        if not re.fullmatch(r"\w[\w.-]*", name) or not patient:
            yield Rejected(f"row {number} of {table.name}", split, "it names no image or no case")
        elif split_of is not None and not split:
            yield Rejected(name, "", "uid_list.json names its case in no split")
        elif modality not in ("CT", "MR") or not region:
            yield Rejected(name, split, f"the type {modality!r} with the place {region!r} is no class")
        elif (plane := _words(about.get("Plane")).lower()) in _NO_SCANS:
            yield Rejected(name, split, f"it is no scan: its plane is {plane!r}")
        else:
            case = case_of.get(patient, {})
            parts = {"caption": about.get("Caption"), "findings": case.get("Findings")}
            said = [words if words.endswith(".") else f"{words}." for k in texts if (words := _words(parts[k]))]
            stated = {"sex": about.get("Sex"), "age": about.get("Age"), "sequence": about.get("Modality")}
            group = {k: _words(v) for k, v in {**stated, "diagnosis": case.get("Title")}.items()} | {"plane": plane}
            yield Entry(
                name,
                FileRef(str(folder / "images" / f"{name}.png")),
                " ".join(said),
                {f"{modality} {region}": PRESENT},
                patient,
                split,
                "",
                group,
            )


def _part(row: Mapping[str, object], key: str) -> dict[str, object]:
    found = row.get(key)
    return found if isinstance(found, dict) else {}


def _words(value: object) -> str:
    """Return a cell of MedPix: without surrounding and repeated blanks; "N/A" as nothing."""
    words = " ".join(str(value).split()) if isinstance(value, str | int | float) else ""
    return "" if words.upper() in ("N/A", "NONE", ".") else words


def _medpix_splits(path: Path) -> dict[str, str]:
    """Return the split of every case. Raises DataError where two splits share one."""
    found, lists = dict[str, str](), read_object(path)
    for name, split in (("train", "train"), ("dev", "validation"), ("test", "test")):
        cases = lists.get(name)
        if not isinstance(cases, list):
            raise DataError(f"{path} has no list {name!r} of cases.")
        for case in map(str, cases):
            if found.setdefault(case, split) != split:
                raise DataError(f"{path} puts the case {case!r} into {found[case]} and into {split}.")
    return found


def _medpix_texts(stated: str) -> tuple[str, ...]:
    if stated not in ("caption", "findings", "both"):
        raise ConfigError("option text", stated, "caption, findings or both")
    return ("caption", "findings") if stated == "both" else (stated,)


READERS = {
    "mimic_cxr": _mimic, "iu_xray": _iu_xray, "roco": _roco, "padchest": _padchest, "chexpert_plus": _chexpert_plus,
    "medpix": _medpix,
}  # fmt: skip
SPECS = tuple(spec(name, reader) for name, reader in READERS.items())
