"""Images in folders, a class a folder, below folders of splits or without them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ranjax.core.errors import DataError
from ranjax.data.images.locations import FileRef
from ranjax.data.sets.column_roles import SPLIT_NAMES
from ranjax.data.sets.spec import PRESENT, Entry, Options, Rejected, Said, spec

ENDINGS = (".png", ".jpg", ".jpeg", ".jp2", ".tif", ".tiff", ".webp", ".bmp", ".dcm", ".dicom")


def _class_folders(root: Path, options: Options) -> Iterator[Entry | Rejected | Said]:
    """Read CLASS/image or SPLIT/CLASS/image; the name of its folder is an image's one label."""
    if not root.is_dir():
        raise DataError(f"The folder {root} does not exist.")
    inside = _folders(root)
    splits = {place: SPLIT_NAMES[place.name.lower()] for place in inside if place.name.lower() in SPLIT_NAMES}
    others = [place.name for place in inside if place not in splits]
    if splits and others:
        raise DataError(f"{root} holds folders of splits ({', '.join(p.name for p in splits)}) beside {others[0]}.")
    found = [(place, split) for top, split in (splits or {root: ""}).items() for place in _folders(top)]
    if not found:
        raise DataError(f"{root} holds no folder of a class: expected CLASS/image or SPLIT/CLASS/image.")
    count = 0
    for place, split in found:
        for path in sorted(place.rglob("*")):
            name = path.relative_to(root).as_posix()
            if not path.is_file() or path.name.startswith("."):
                continue
            if path.suffix.lower() not in ENDINGS:
                yield Rejected(name, split, f"{path.suffix or 'a file without an ending'} is no image")
                continue
            count += 1
            yield Entry(name, FileRef(str(path)), labels={place.name: PRESENT}, split=split)
    classes = len({place.name for place, _ in found})
    yield Said("labels", f"{classes} classes by the names of folders, {count} images")


def _folders(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX")))


SPECS = (spec("class_folders", _class_folders),)
