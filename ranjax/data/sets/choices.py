"""What the user chooses about a set, and its fingerprint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ranjax.core.errors import ConfigError, nearest
from ranjax.data.images.reading import RESIZE_MODES
from ranjax.data.set_settings import digest
from ranjax.data.text.deidentify import PUBLIC
from ranjax.data.text.reports import SECTIONS

UNCERTAIN = ("ignore", "zero", "one", "exclude")
VIEWS = ("frontal", "all")
DUPLICATES = ("report", "drop", "refuse")


@dataclasses.dataclass(frozen=True)
class SetSettings:
    """A set of `ranjax.data.sets` and how it is prepared.

    Args:
      name: a key of `sets.SPECS`.
      data_dir: where its files lie, as the publisher lays them out.
      classes: class names in label order; empty takes the set's own.
      uncertain: what becomes of labels of -1: "ignore" (not counted as present; the row is not part of the single-label
        task), "zero" (absent), "one" (present), "exclude" (the row is left out).
      views: "frontal" leaves lateral films out; films whose view is unknown stay. "all" keeps every film.
      sections: of the reports; none takes the whole text.
      language: reports in another language are left out ("en", "es", ...); "" keeps all.
      label_reports: labels by the rules of `ranjax.data.text.labeller` for rows whose files bring none.
      repeats: "keep" or "drop" a later report of one split that says the same as an earlier one.
      deidentify: marks in place of what `ranjax.data.text.deidentify` finds in reports.
      patient_key: what turns patient ids, and the ids made of them, into pseudonyms, see `deidentify.key_of`; "none":
        they stay as they are.
      tokenizer, max_tokens: cuts reports to whole sentences that fit; 0: uncut.
      adapt, validation, test: share of the patients of "train" that go there, where the set has no such split.
      seed: keys that cut, and drawn selections.
      image_size, resize: see `ranjax.data.images.reading.resize`.
      limit: rows at most, drawn by a hash of their ids; 0: all.
      ids: a list that selects rows, for sets that are defined by one.
      options: of generic layouts.
      allow_shared_patients: go on, and say so, where splits share patients.
      duplicates: copies of an image in different splits are reported, or their copy on the training side is dropped, or
        the set is refused.
      duplicate_bits: greatest distance of the perceptual hashes of a copy, 0 to 7 of 256 bits.
      checksums: hold files against the sums their publisher states.
    """

    name: str
    data_dir: str
    classes: tuple[str, ...] = ()
    uncertain: str = "ignore"
    views: str = "frontal"
    sections: tuple[str, ...] = ("findings", "impression")
    language: str = ""
    label_reports: bool = False
    repeats: str = "keep"
    deidentify: bool = False
    patient_key: str = PUBLIC
    tokenizer: str = ""
    max_tokens: int = 0
    adapt: float = 0.1
    validation: float = 0.1
    test: float = 0.2
    seed: int = 0
    image_size: int = 224
    resize: str = "crop"
    limit: int = 0
    ids: str = ""
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    allow_shared_patients: bool = False
    duplicates: str = "report"
    duplicate_bits: int = 3
    checksums: bool = True

    def __post_init__(self):
        from ranjax.data.sets import spec_of

        spec = spec_of(self.name)
        for key, allowed in (
            ("uncertain", UNCERTAIN), ("views", VIEWS), ("resize", RESIZE_MODES), ("duplicates", DUPLICATES),
            ("repeats", ("keep", "drop")),
        ):  # fmt: skip
            value = getattr(self, key)
            if value not in allowed:
                raise ConfigError(key, value, f"one of {', '.join(allowed)}", nearest(value, allowed))
        for name in self.sections:
            if name not in SECTIONS:
                raise ConfigError("sections", name, f"of {', '.join(SECTIONS)}", nearest(name, SECTIONS))
        for name, value in self.options.items():
            if name not in spec.options:
                known = ", ".join(spec.options) or f"none for {self.name}"
                raise ConfigError("option", f"{name}={value}", f"one of {known}", nearest(name, spec.options))
        shares = (self.adapt, self.validation, self.test)
        if min(shares) < 0 or sum(shares) >= 1:
            raise ConfigError("shares of adapt, validation and test", shares, "shares that leave some for train")
        if not 16 <= self.image_size <= 1024:
            raise ConfigError("image_size", self.image_size, "from 16 to 1024 pixels")
        if self.limit < 0 or not 0 <= self.duplicate_bits <= 7:
            raise ConfigError("limit", (self.limit, self.duplicate_bits), "0 or more rows, 0 to 7 bits")
        if bool(self.tokenizer) != (self.max_tokens > 0):
            given = {"tokenizer": self.tokenizer, "max_tokens": self.max_tokens}
            raise ConfigError("max_tokens", given, "a tokenizer and at least 8 tokens, or neither")

    def fingerprint(self, rows: str) -> str:
        """Of these choices and of `rows` (see `rows.digest_of`); where the files lie does not matter."""
        stated = dataclasses.asdict(self)
        # Of what lies in files, the rows tell all that matters: which they are, and what their reports say.
        for name in ("data_dir", "ids", "patient_key", "tokenizer", "checksums"):
            del stated[name]
        return digest({"kind": "SetSettings", "settings": stated, "rows": rows})
