"""A tree of DICOM radiographs, with a table or a text file a film for reports and labels."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ranjax.core.errors import DataError
from ranjax.data import strict_tables, table_cells
from ranjax.data.images.locations import FileRef
from ranjax.data.publisher_tables import text
from ranjax.data.sets.column_roles import NOBODY, choose_tables, roles
from ranjax.data.sets.row_entries import Spellings, check_options, from_row
from ranjax.data.sets.spec import Entry, Options, Rejected, Said, spec
from ranjax.data.sets.table_sets import ENDINGS, one_spelling
from ranjax.data.sets.views import view_of


def _dicom(root: Path, options: Options) -> Iterator[Entry | Rejected | Said]:
    """Read DICOM files below the folder; report and labels from a table (by path, file name or SOPInstanceUID), or from
    a text file beside the film (film.txt), else none."""
    values = dict(options.values)
    tables, unread = choose_tables(root, values.pop("table", ""), ENDINGS)
    if unread:
        yield Said("tables", f"not read: {', '.join(path.name for path in unread)}", True)
    films: list[_Film] = []
    for path in _dicom_files(root):
        film = _film(path, root)
        if isinstance(film, Rejected):
            yield film
        else:
            films.append(film)
    if tables:
        entries = yield from _films_of_tables(films, tables, values)
    else:
        known = [from_row({}, {}, FileRef(str(film.path)), film.identity) for film in films]
        entries = [(film, entry) for film, entry in zip(films, known) if isinstance(entry, Entry)]
    patients = _patients(entries, values.get("patient") == NOBODY)
    yield from patients.said
    for (film, entry), patient in zip(entries, patients.names):
        report = film.path.with_suffix(".txt")
        if not entry.report and report.is_file():
            entry = entry._replace(report=text(report))
        header = film.header
        group = {"view": header["ViewPosition"], "sex": header["PatientSex"], "age": header["PatientAge"]}
        yield entry._replace(
            patient=patient,
            view=entry.view or view_of(header["ViewPosition"]),
            group={**group, **entry.group},
            source={**header, **entry.source},
        )


class _Film(NamedTuple):
    """A DICOM file: where it lies, its path below the folder, its id, and its header's fields."""

    path: Path
    relative: str
    identity: str
    header: dict[str, str]

    @property
    def keys(self) -> tuple[str, ...]:
        """What a table may call it."""
        return tuple(dict.fromkeys((self.relative, self.path.name, self.path.stem, self.identity)))


def _film(path: Path, root: Path) -> _Film | Rejected:
    from ranjax.data.images import dicom

    relative = path.relative_to(root).as_posix()
    try:
        header = dicom.read_header(path)
    except DataError as error:
        return Rejected(relative, "", str(error))
    if header["Modality"] and header["Modality"] not in ("CR", "DX", "RG", "DR", "XR", "OT"):
        return Rejected(relative, "", f"the modality is {header['Modality']}, not a radiograph")
    return _Film(path, relative, header["SOPInstanceUID"] or relative, header)


def _films_of_tables(
    films: Sequence[_Film], tables: Mapping[Path, str], values: Mapping[str, str]
) -> Generator[Entry | Rejected | Said, None, list[tuple[_Film, Entry]]]:
    """Yield what is left out of films and rows, and return the films that exactly one row names, with its entry."""
    column, spellings = values.get("image", "file"), Spellings()
    named: dict[str, list[_Film]] = {}
    for film in films:
        for key in film.keys:
            named.setdefault(key, []).append(film)
    rows: dict[str, list[tuple[Entry | Rejected, str]]] = {}
    for path, split in tables.items():
        table = strict_tables.read(path, (column,))
        check_options(values, table.columns)
        known = roles(table.columns, values, column, path.name)
        # Where the table names no patients, those of the headers count, and come before its studies.
        yield from (line for line in known.said if line.topic != "patients")
        guessed = any(line.unit for line in known.said)
        chosen = {name: role for name, role in known.values.items() if not (guessed and name == "patient")}
        for line in table.rows:
            try:
                name = "" if line.fault else one_spelling(table_cells.name(line.cells.get(column)))
            except DataError as error:
                line = line._replace(fault=f"column {column!r} {error}")
            fitting = named.get(name, []) if not line.fault else []
            if len(fitting) == 1:
                film = fitting[0]
                entry = from_row(line.cells, chosen, FileRef(str(film.path)), film.identity, split)
                spellings.add(entry, chosen, line.place)
                rows.setdefault(film.relative, []).append((entry, line.place))
                continue
            absent = "no film has the name" if name else f"column {column!r} is empty"
            several = f"its name fits {len(fitting)} films" if fitting else absent
            yield Rejected(line.place, "", line.fault or several)
    spellings.check()
    found = []
    names = ", ".join(path.name for path in tables)
    for film in films:
        given = rows.get(film.relative, [])
        if len(given) > 1:
            for _, place in given:
                yield Rejected(place, "", f"{len(given)} rows name its film")
        elif not given:
            yield Rejected(film.identity, "", f"the table {names} does not name the film")
        elif isinstance(given[0][0], Rejected):
            yield given[0][0]
        else:
            found.append((film, given[0][0]))
    return found


class _Patients(NamedTuple):
    """The patient of each film, or what stands in for one, and what the page says of it."""

    names: list[str]
    said: list[Said]


def _patients(entries: Sequence[tuple[_Film, Entry]], nobody: bool) -> _Patients:
    """Return patients by the table, else by PatientID, else by that of another film of the study, else the study."""
    if nobody:
        return _Patients([""] * len(entries), [Said("patients", "no patients, as option patient=none says", True)])
    own = [entry.patient or _identified(film.header["PatientID"]) for film, entry in entries]
    studies = [film.header["StudyInstanceUID"] for film, _ in entries]
    of_study: dict[str, str] = {}
    for patient, study in zip(own, studies):
        if patient and study:
            of_study.setdefault(study, patient)
    found = [patient or of_study.get(study, "") for patient, study in zip(own, studies)]
    lost = sum(not patient for patient in found)
    if not lost:
        return _Patients(found, [Said("patients", "PatientID of the headers, or the column of the table")])
    names = [patient or (f"study {study}" if study else "") for patient, study in zip(found, studies)]
    if not any(names):
        return _Patients(names, [Said("patients", "neither PatientID nor StudyInstanceUID is in the headers", True)])
    words = f"{lost} of {len(found)} films have no PatientID: films of one study stay together"
    return _Patients(names, [Said("patients", words, True, "study")])


def _identified(patient: str) -> str:
    """Return a PatientID, or "" for one that hides the patient, as exports write it for everybody."""
    hidden = re.fullmatch(
        r"(anon(ymous|ymized|ymised|ym|ymisiert)?|unknown|removed|deleted|x+|0+|-+)", patient, re.IGNORECASE
    )
    return "" if hidden or table_cells.is_missing(patient) else patient


def _dicom_files(root: Path) -> Iterator[Path]:
    """Yield files that end as DICOM files do, and files without an ending that begin as they do (exports have none)."""
    if not root.is_dir():
        raise DataError(f"The folder {root} does not exist.")
    for path in sorted(root.rglob("*")):
        if not path.is_file() or path.name.startswith(".") or path.name == "DICOMDIR":
            continue
        if path.suffix.lower() in (".dcm", ".dicom"):
            yield path
        elif not path.suffix or re.fullmatch(r"\.\d+", path.suffix):
            with path.open("rb") as file:
                if file.read(132)[128:] == b"DICM":
                    yield path


SPECS = (spec("dicom", _dicom),)
