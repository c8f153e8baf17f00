"""Which column of a table of the user's own is what: named by an option, or recognised by the names of the field."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.data.sets.spec import Said

NOBODY = "none"
"""The value of the options `patient` and `split` that says: no column is read as such."""
_PATIENT = """
patient patientid patientnumber patientno patientnr patientkey patientcode patientidentifier patientuid patienthash
anonpatientid deidpatientid anonymizedpatientid pseudonym pid ptid patid subject subjectid subjectno subjectnumber
subjectkey participant participantid person personid mrn medicalrecordnumber empi empianon anonmrn paciente pacienteid
idpaciente patienten patientenid patientennummer paziente idpaziente pazienteid idpatient usubjid subjid anonid
patnr patno patnumber patientsid dicompatientid subj hospitalnumber nhsnumber mrnumber mrno 患者id 病人id 患者编号
"""
PATIENTS = frozenset(_PATIENT.split())
"""Names of columns that name the patient, in lower case without marks."""
STUDIES = frozenset(
    ("studyid", "studyuid", "studyinstanceuid", "accession", "accessionnumber", "accessionid", "examid")
)
"""Names of columns that name the study: films of one study are of one patient."""
SPLIT_NAMES: Mapping[str, str] = {
    "train": "train", "training": "train", "adapt": "adapt", "val": "validation", "valid": "validation",
    "validate": "validation", "validation": "validation", "dev": "validation", "test": "test", "testing": "test",
    "ood_test": "ood_test",
}  # fmt: skip
"""Names of splits as files and columns spell them, with this project's."""
DEFAULTS = {
    "report": ("report",),
    "split": ("split", "subset", "partition", "datasplit"),
    "view": ("view", "viewposition", "projection"),
}
"""Columns that are recognised where no option names them; any case, with or without marks."""
ROLES = ("report", "label", "patient", "split", "id", "view")


class Roles(NamedTuple):
    """The options of a table with every column that is known, and what the page says of it."""

    values: Mapping[str, str]
    said: tuple[Said, ...]


def plain(name: str) -> str:
    """Return a name in lower case without blanks and marks: "Patient_ID" -> "patientid"."""
    return re.sub(r"[\W_]+", "", name.casefold())


def roles(columns: Sequence[str], values: Mapping[str, str], image: str, table: str) -> Roles:
    """Return which column is what: those that the options name, and those that are recognised.

    Args:
      columns: of the table.
      values: options of the set.
      image: column of the image, "" where no column holds it.
      table: its name, for the page.

    Raises:
      ConfigError: a named column is absent, or several columns could be the patient.
    """
    chosen = {name: column for name, column in values.items() if name not in ("patient", "split") or column != NOBODY}
    listed = [name.strip() for name in chosen.get("labels", "").split(",") if name.strip()]
    if listed:
        chosen["labels"] = ",".join(listed)
    written = list(columns_of(chosen["label"], "label")) if is_written(chosen.get("label", "")) else []
    named = [(role, chosen[role]) for role in ROLES if role in chosen and not (role == "label" and written)]
    for option, name in [*named, *(("label", name) for name in written), *(("labels", name) for name in listed)]:
        if name not in columns:
            expected = f"one of {', '.join(columns)}"
            raise ConfigError(f"option {option}", name, expected, nearest(name, columns))
    for role, names in DEFAULTS.items():
        fitting = [column for column in columns if plain(column) in map(plain, names)]
        if values.get(role) == NOBODY:
            continue
        if role not in chosen and len(fitting) > 1:
            _ambiguous(role, fitting)
        if role not in chosen and fitting:
            chosen[role] = fitting[0]
    said = list(_of_patients(columns, chosen, values, table))
    kinds = {role: chosen[role] for role in ROLES if role in chosen} | ({"image": image} if image else {})
    kinds |= {"labels": ", ".join(listed)} if listed else {}
    unread = [column for column in columns if column and column not in (*kinds.values(), *listed, *written)]
    read = "; ".join(f"{role} from {column!r}" for role, column in sorted(kinds.items()))
    wanted = ("report", "label", "split", "view")
    absent = [role for role in wanted if role not in kinds and not (role == "label" and listed)]
    lines = f"{table}: {read or 'no column is read'}"
    said.insert(0, Said("columns", lines + (f"; no column for {', '.join(absent)}" if absent else "")))
    # The names of columns that name a person tell what stood there, and are counted alone.
    from ranjax.data.text.deidentify import names_a_person  # its expressions take a while, and help needs none

    kept = [str(column) for column in unread if not names_a_person(str(column))]
    if kept:
        said.append(Said("columns", f"{table}: kept beside the example and not read: {', '.join(kept)}"))
    if hidden := len(unread) - len(kept):
        said.append(
            Said("columns", f"{table}: not read, and dropped where ids are hidden: {hidden} that name a person")
        )
    return Roles(chosen, tuple(said))


def is_written(label: str) -> bool:
    """Return whether the option `label` is a text with {column} places rather than a column."""
    return "{" in label


def columns_of(template: str, option: str) -> Iterator[str]:
    """Yield the columns of a template's places.

    Raises:
      ConfigError: a template that is malformed.
    """
    for _, column, _ in places_of(template, option):
        if column is not None:
            yield column


def places_of(template: str, option: str) -> list[tuple[str, str | None, str | None]]:
    """Return (text before, column, words for values) of each place of a template.

    Raises:
      ConfigError: a template that is malformed.
    """
    try:
        return [(before, column, replaced) for before, column, replaced, _ in string.Formatter().parse(template)]
    except ValueError as error:
        raise ConfigError(f"option {option}", template, f"text with {{column}} places ({error})") from error


def _of_patients(
    columns: Sequence[str], chosen: dict[str, str], values: Mapping[str, str], table: str
) -> Iterator[Said]:
    if "patient" in chosen:
        return
    if values.get("patient") == NOBODY:
        yield Said("patients", f"{table}: no patients, as option patient=none says", True)
        return
    known = [column for column in columns if plain(column) in PATIENTS]
    if len(known) > 1:
        _ambiguous("patient", known)
    if known:
        chosen["patient"] = known[0]
        return
    studies = [column for column in columns if plain(column) in STUDIES]
    if studies:
        chosen["patient"] = studies[0]
        yield Said(
            "patients", f"{table}: no column of patients; films of one {studies[0]!r} stay together", True, "study"
        )
        return
    hint = "name it by option patient=COLUMN, or say patient=none"
    yield Said("patients", f"{table}: no column of patients is recognised; {hint}", True)


def _ambiguous(role: str, columns: Sequence[str]) -> None:
    found = " and ".join(map(repr, columns))
    raise ConfigError(f"option {role}", "", f"a choice between the columns {found}: --option {role}={columns[0]}")


def split_of(words: Iterable[str]) -> str:
    """Return the split that the first of `words` names at its beginning, as "train-00000.parquet"; "" for none."""
    for word in words:
        for name, own in SPLIT_NAMES.items():
            if re.match(rf"{name}([-_.]|$)", word.lower()):
                return own
    return ""


def splits_of_files(root: Path, files: Sequence[Path]) -> tuple[dict[Path, str], Said]:
    """Return the split of each file by its name or that of a folder, "" for all where no file names one.

    Raises:
      DataError: some files name a split, and another names none that is known.
    """
    found = {file: split_of(reversed(file.relative_to(root).parts)) for file in files}
    nameless = [file for file, split in found.items() if not split]
    if nameless and len(nameless) < len(found):
        known = ", ".join(sorted(set(SPLIT_NAMES)))
        raise DataError(f"{nameless[0]} names no split, as other files do: expected a name that begins with {known}.")
    if nameless:
        return found, Said("splits", f"no file names a split: {len(files)} files are cut as one")
    used = dict.fromkeys(found.values())
    return found, Said("splits", f"{len(files)} files by their names: {', '.join(used)}")


def choose_tables(root: Path, name: str, endings: Sequence[str]) -> tuple[dict[Path, str], list[Path]]:
    """Return the tables of a folder with the split that each gives, and those that are not read.

    That is the one that is named, else index.csv, else one a split (train.csv, test.csv), else the only one.

    Raises:
      DataError: none lies there, or several of which none is told from the others.
    """
    if not root.is_dir():
        raise DataError(f"The folder {root} does not exist.")
    places = [root, *sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith((".", "__MACOSX")))]
    if name:
        chosen = next((place / name for place in places if (place / name).is_file()), None)
        if chosen is None:
            present = ", ".join(sorted(path.name for path in root.iterdir())[:12])
            raise DataError(f"None of {name} lies in {root}; it holds {present or 'nothing'}.")
        return {chosen: ""}, [path for path in _tables(chosen.parent, endings) if path != chosen]
    for place in places:
        tables = _tables(place, endings)
        index = [path for path in tables if path.name.lower().split(".")[0] == "index"]
        if len(index) == 1 or len(tables) == 1:
            chosen = (index or tables)[0]
            return {chosen: ""}, [path for path in tables if path != chosen]
        if tables:
            return _by_split(tables)
    return {}, []


def _by_split(tables: Sequence[Path]) -> tuple[dict[Path, str], list[Path]]:
    named = {path: split_of(re.split(r"[-_. ]+", path.name.lower())) for path in tables}
    found = {path: split for path, split in named.items() if split}
    names = ", ".join(path.name for path in tables)
    if len(set(found.values())) < len(found) or not found:
        raise DataError(f"{tables[0].parent} holds {len(tables)} tables ({names}): name one by --option table=NAME.")
    return found, [path for path in tables if path not in found]


def _tables(place: Path, endings: Sequence[str]) -> list[Path]:
    return sorted(
        path for path in place.iterdir()
        if path.is_file() and path.name.lower().endswith(tuple(endings)) and not path.name.startswith(".")
    )  # fmt: skip
