"""Size and SHA-256 of a downloaded file, wherever something beside it says what they should be."""

from __future__ import annotations

import re
from pathlib import Path

from ranjax.core import files
from ranjax.core.errors import DataError

_SHA256 = re.compile(r"[0-9a-f]{64}")
SUMS = "SHA256SUMS"


def known_sha256(path: Path) -> tuple[str, str] | None:
    """Return (the SHA-256 that a file should have, where that is said), or None where nothing says it.

    Three things do: a ``SHA256SUMS`` beside it, a ``NAME.sha256``, and what the Hugging Face client leaves: a cache
    that keeps large files under their hash, a ``.cache/huggingface/download`` with their hash in it.
    """
    for source in (path.with_name(SUMS), path.with_name(f"{path.name}.sha256")):
        if source.is_file():
            for line in source.read_text().splitlines():
                digest, _, name = line.strip().partition(" ")
                if name.strip().lstrip("*") in (path.name, "") and _SHA256.fullmatch(digest.lower()):
                    return digest.lower(), str(source)
    target = path.resolve()
    if target.parent.name == "blobs" and _SHA256.fullmatch(target.name):
        return target.name, f"its name in the cache, {target.parent}"
    note = path.parent / ".cache" / "huggingface" / "download" / f"{path.name}.metadata"
    if note.is_file():
        lines = note.read_text().splitlines()
        if len(lines) > 1 and _SHA256.fullmatch(lines[1].strip().strip('"')):
            return lines[1].strip().strip('"'), str(note)
    return None


def verify(path: Path) -> None:
    """Raise DataError where a file's SHA-256 is known and is another."""
    known = known_sha256(path)
    if known is None:
        return
    wanted, source = known
    found = files.sha256(path)
    if found != wanted:
        raise DataError(
            f"{path} ({path.stat().st_size} bytes) has SHA-256 {found}, not {wanted}, which {source} says: damaged or "
            "exchanged; fetch it again"
        )
