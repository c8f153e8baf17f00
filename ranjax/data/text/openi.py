"""Reports of the Indiana University chest X-ray collection (Open-i), read where they lie and never copied.

    reports = read_reports(Path("torchxrayvision-1.5.7-py3-none-any.whl"))

They come from NLMCXR_reports.tgz, its unpacked folder, or the archive inside a torchxrayvision wheel or installation.
Licence: CC BY-NC-ND 4.0 (Demner-Fushman et al., JAMIA 2016).
"""

from __future__ import annotations

import gzip
import io
import tarfile
import xml.etree.ElementTree as ElementTree
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ranjax.core.errors import DataError
from ranjax.data.text import reports

ARCHIVE = "torchxrayvision/data/NLMCXR_reports.tgz"
_MEMBER_LIMIT, _ARCHIVE_LIMIT = 1 << 20, 64 << 20

# Classes by the main MeSH headings that are read for them.
_HEADINGS: Mapping[str, str] = {
    "normal": "normal",
    "consolidation": "consolidation",
    "airspace disease": "consolidation",
    "pneumonia": "consolidation",
    "infiltrate": "consolidation",
    "mass": "mass",
    "nodule": "nodule",
    "pleural effusion": "effusion",
    "cardiomegaly": "cardiomegaly",
    "pneumothorax": "pneumothorax",
    "hydropneumothorax": "pneumothorax",
    "pulmonary edema": "oedema",
    "pulmonary congestion": "oedema",
    "pulmonary atelectasis": "atelectasis",
    "emphysema": "emphysema",
    "pulmonary emphysema": "emphysema",
    "fractures, bone": "fracture",
    "hernia, hiatal": "hernia",
}


class Finding(NamedTuple):
    """One MeSH heading as a finding: `kind`, a class of the set iu_xray, and side "left", "right",
    "bilateral" or "".
    """

    kind: str
    side: str


class Report(NamedTuple):
    """One report: its id ("CXR1"), sections by lower-case name, main MeSH headings, and the names of its images."""

    id: str
    sections: Mapping[str, str]
    mesh: tuple[str, ...]
    images: tuple[str, ...]

    def text(self) -> str:
        """Return the report with its headings, as the section parser reads it."""
        return "\n".join(f"{name.upper()}: {body}" for name, body in self.sections.items() if body)

    @property
    def placed(self) -> tuple[Finding, ...]:
        """Findings with their side."""
        found: dict[Finding, None] = {}
        for heading in self.mesh:
            parts = [part.strip().lower() for part in heading.split("/")]
            blunted = parts[0] == "costophrenic angle" and "blunted" in parts
            kind = "effusion" if blunted else _HEADINGS.get(parts[0])
            side = next((part for part in parts if part in ("left", "right", "bilateral")), "")
            if kind:
                found[Finding(kind, side)] = None
        return tuple(found)

    @property
    def findings(self) -> tuple[str, ...]:
        """Kinds of the findings, each once."""
        return tuple(dict.fromkeys(finding.kind for finding in self.placed))


def read_reports(path: Path) -> list[Report]:
    """Return all reports, by number.

    Args:
      path: a torchxrayvision wheel, the package's folder or one above it, NLMCXR_reports.tgz, or unpacked XML files.

    Raises:
      DataError: nothing of the kind lies there, or it cannot be read.
    """
    path = Path(path).expanduser()
    found = [_parse(name, data) for name, data in _files(path)]
    if not found:
        raise DataError(f"{path} holds no reports.")
    return sorted(found, key=lambda report: int("".join(c for c in report.id if c.isdigit()) or 0))


def read_corpus(path: Path) -> list[str]:
    """Read texts without images: findings and impressions of `read_reports`, or the lines of a .txt.

    Each text is one line whose sentences stand once; what holds no letter is left out.

    Raises:
      DataError: nothing of the kind lies there, it cannot be read, or no text is left.
    """
    path = Path(path).expanduser()
    if path.suffix == ".txt":
        from ranjax.data.publisher_tables import text

        found = text(path).splitlines()
    else:
        found = [reports.of_sections(report.sections, ("findings", "impression")) for report in read_reports(path)]
    texts = [reports.without_repeats(line) for line in found if any(c.isalpha() for c in line)]
    if not texts:
        raise DataError(f"{path} holds no text.")
    return texts


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        if path.is_dir():
            inside = next((p for p in (path / ARCHIVE, path / "data" / "NLMCXR_reports.tgz") if p.is_file()), None)
            if inside is None:
                for file in sorted(path.glob("*.xml")):
                    yield file.name, file.read_bytes()
                return
            path = inside
        if not path.is_file():
            raise DataError(f"{path} does not exist.")
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                if ARCHIVE not in wheel.namelist():
                    raise DataError(f"The wheel {path} holds no {ARCHIVE}.")
                if wheel.getinfo(ARCHIVE).file_size > _ARCHIVE_LIMIT:
                    raise DataError(f"{ARCHIVE} in {path} is over the limit of {_ARCHIVE_LIMIT >> 20} MiB.")
                data = wheel.read(ARCHIVE)
            yield from _members(io.BytesIO(data))
        else:
            with path.open("rb") as file:
                yield from _members(file)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read as an archive of reports: {error}") from error


def _members(file: io.BufferedIOBase | io.BytesIO) -> Iterator[tuple[str, bytes]]:
    # Read in memory and never unpacked: a member's path can lead nowhere.
    unpacked = 0
    # By the gzip module: tarfile takes a stream that was cut for one that ends.
    with gzip.GzipFile(fileobj=file) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            unpacked += member.size
            if member.size > _MEMBER_LIMIT or unpacked > _ARCHIVE_LIMIT:
                raise DataError(f"the archive unpacks beyond its limit at {member.name}")
            if member.isreg() and member.name.endswith(".xml"):
                opened = archive.extractfile(member)
                yield Path(member.name).name, opened.read() if opened else b""
        while stream.read(1 << 20):
            pass  # to the end, where the checksum stands


def _parse(name: str, data: bytes) -> Report:
    # An entity can grow to gigabytes; these files declare none.
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise DataError(f"{name} declares a document type, which a report has no need of.")
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise DataError(f"{name} is no valid XML: {error}") from error
    identity = root.find("uId")
    body = {
        (element.get("Label") or "").lower(): " ".join((element.text or "").split())
        for element in root.iter("AbstractText")
    }
    images = (element.get("id", "") for element in root.iter("parentImage"))
    return Report(
        (identity.get("id", "") if identity is not None else "") or Path(name).stem,
        body,
        tuple(" ".join((element.text or "").split()) for element in root.iter("major")),
        tuple(name for name in images if name),
    )
