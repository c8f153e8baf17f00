"""What could name a person in a report is replaced by a mark, and patient ids by keyed hashes.

A pass of patterns for text that its publisher has de-identified before, as a second look: it finds titles with names,
dates, telephone and record numbers, addresses of mail and web, ages over 89. It does not find a bare name in running
text, nor what is burned into pixels; identified reports need a tool made and validated for that.

The secret of the hashes lies outside of everything that a run or a preparation writes: in a file that the user names,
in the environment variable RANJAX_PATIENT_KEY, or else in ``~/.config/ranjax/patient.key``, made once, readable by its
owner alone. Without it, nobody can tell whose pseudonym is whose; with a shared one, pseudonyms agree.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from ranjax.core.errors import ConfigError
from ranjax.data.text import identifying

KEY_BYTES = 16
PUBLIC = "none"
"""In place of a key's file: ids are those of a published set and stay as they are."""
VARIABLE = "RANJAX_PATIENT_KEY"
_IDENTIFYING = re.compile(
    r"name|mrn|birth|dob|address|phone|mail|accession|ssn|physician|doctor|insurance|zip|postal|patient|record|uid|date"
    r"|(?:^|[_ .-])id(?:$|[_ .-])",
    re.IGNORECASE,
)


def deidentify(text: str) -> tuple[str, int]:
    """Return the text with marks such as [DATE] in place of what `identifying.PATTERNS` find, and how many were set."""
    return identifying.mark(text)


def read_key(path: str) -> bytes:
    """Return the secret for `pseudonym`, from a file that stays outside of the prepared set.

    Raises:
      ConfigError: no such file, or fewer than 16 bytes, which could be guessed.
    """
    file = Path(path).expanduser()
    key = file.read_bytes().strip() if file.is_file() else b""
    if len(key) < KEY_BYTES:
        raise ConfigError("data.set.patient_key", path, f"a file with at least {KEY_BYTES} secret bytes")
    return hashlib.blake2b(key).digest()


def key_of(choice: str) -> bytes:
    """Return the secret that a choice stands for.

    Args:
      choice: a file (see `read_key`); "none": no secret, ids stay as they are; "": that of the environment variable
        RANJAX_PATIENT_KEY, or the user's own, which is made where there is none yet.

    Raises:
      ConfigError: the file or the variable holds too few bytes, or the user's own cannot be made.
    """
    if choice == PUBLIC:
        return b""
    if choice:
        return read_key(choice)
    if given := os.environ.get(VARIABLE, ""):
        if len(given.encode()) < KEY_BYTES:
            raise ConfigError(VARIABLE, "(not shown)", f"at least {KEY_BYTES} secret bytes")
        return hashlib.blake2b(given.encode()).digest()
    return read_key(str(_own_key()))


def _own_key() -> Path:
    path = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "ranjax" / "patient.key"
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
        # Not by rename: of two processes that come at once the first one's key counts.
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    except OSError as error:
        hint = f"Name a file with a secret, set {VARIABLE}, or say {PUBLIC!r} where the ids of the set are public."
        expected = f"a folder for the user's own key that can be written ({path.parent}: {error.strerror})"
        raise ConfigError("data.set.patient_key", "", expected, hint) from error
    return path


@dataclasses.dataclass(frozen=True)
class Privacy:
    """What is done to records before they are written.

    Args:
      key: of `pseudonym`; empty: ids stay as they are.
      text: whether reports go through `deidentify`.
    """

    key: bytes = b""
    text: bool = True

    def patient(self, patient: str) -> str:
        return pseudonym(patient, self.key) if self.key else patient

    def identity(self, identity: str) -> str:
        """Hide the id of an example: file names often hold the patient's number."""
        return pseudonym(f"id:{identity}", self.key) if self.key else identity

    def report(self, report: str) -> str:
        return deidentify(report)[0] if self.text else report

    def group(self, group: Mapping[str, str]) -> dict[str, str]:
        """Drop columns that are named after what identifies a person; mark ages over 89 and other text."""
        if not self.key:
            return dict(group)
        kept = {name: self.report(value) for name, value in group.items() if not names_a_person(name)}
        return {name: "[AGE]" if "age" in name.lower() and _is_old(value) else value for name, value in kept.items()}


def names_a_person(column: str) -> bool:
    """Return whether a column is named after what identifies a person; `Privacy.group` drops such a column."""
    return bool(_IDENTIFYING.search(column))


def _is_old(value: str) -> bool:
    digits = "".join(c for c in value if c.isdigit())
    return bool(digits) and 89 < int(digits) < 200


def pseudonym(identity: str, key: bytes) -> str:
    """Return 32 hexadecimal digits that only the holder of `key` can compute: keyed BLAKE2b, the same in every run."""
    return hashlib.blake2b(identity.encode(), key=key, digest_size=16).hexdigest()
