"""What a prepared set is made of: one frozen dataclass per kind of source, each with a fingerprint."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ranjax.core.errors import ConfigError, nearest
from ranjax.data.images.reading import RESIZE_MODES
from ranjax.data.text.deidentify import PUBLIC

SPLITS = ("train", "adapt", "validation", "test", "ood_test")
"""Upstream pairs, labelled downstream training data, model selection, test, and the test under other acquisition."""

UNKNOWN_LABELS = ("exclude", "ignore")


def digest(value: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _positive(key: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(key, value, "a whole number of at least 1")


@dataclasses.dataclass(frozen=True)
class RadiographSettings:
    """The generated radiographs.

    Args:
      seed: everything in the set follows from it.
      image_size: height and width in pixels.
      counts: examples per split; a split with 0 examples is left out.
      multiple: share of cases with several findings in the upstream split "train".
      multiple_downstream: the same share in all other splits (a case with several findings has label -1).
    """

    seed: int = 0
    image_size: int = 64
    counts: Mapping[str, int] = dataclasses.field(
        default_factory=lambda: {"train": 4096, "adapt": 1024, "validation": 512, "test": 512, "ood_test": 512}
    )
    multiple: float = 0.2
    multiple_downstream: float = 0.0

    def __post_init__(self):
        _positive("data.image_size", self.image_size)
        if self.image_size < 16:
            raise ConfigError("data.image_size", self.image_size, "at least 16 pixels")
        for split, count in self.counts.items():
            if split not in SPLITS:
                raise ConfigError(f"data.counts.{split}", count, f"splits are {SPLITS}", nearest(split, SPLITS))
            if not isinstance(count, int) or count < 0:
                raise ConfigError(f"data.counts.{split}", count, "a whole number of at least 0")
        if not any(self.counts.values()):
            raise ConfigError("data.counts", dict(self.counts), "at least one example in one split")
        for key in ("multiple", "multiple_downstream"):
            if not 0.0 <= getattr(self, key) <= 1.0:
                raise ConfigError(f"data.{key}", getattr(self, key), "a share from 0 to 1")


@dataclasses.dataclass(frozen=True)
class PairedSettings(RadiographSettings):
    """Generated radiographs with real reports of other patients, paired by finding and side.

    Args:
      reports: a torchxrayvision wheel, NLMCXR_reports.tgz or its unpacked folder; see `ranjax.data.text.openi`.
    """

    reports: str = ""

    def __post_init__(self):
        super().__post_init__()
        if not self.reports:
            raise ConfigError("data.radiographs.reports", "", "a path")


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """One folder of images with its CSV.

    Args:
      name: short name; ids are "name/file".
      root: folder that holds the CSV and the images.
      csv: the table's path below `root`.
      images: the folder below `root` that the file column is relative to.
      file_column, id_column, report_column, label_column, patient_column, split_column: column names. Without an id
        column the file's path is the id; without a patient column every image counts as a patient of its own.
      label_columns: one column per class with 1 for present, instead of `label_column`; other values mean absent.
      label_separator: what joins several labels in one cell.
      label_map: from a cell's label to a class name, for names that differ.
      unknown_labels: "exclude" drops a row with a label outside the classes (counted and listed), "ignore" only drops
        that label and keeps the row if another one is a class.
      report_template: writes the report from columns, e.g. "{view} view of a {age}-year-old {sex} patient. {findings}."
      value_maps: per column, from a cell's value to the words that stand in the report.
      split: puts the whole source into this split, e.g. "ood_test".
      split_map: from values of the split column to split names.
      shares: share of patients per split, by a hash of the patient keyed with the seed.
    """

    name: str
    root: str
    csv: str = "index.csv"
    images: str = "images"
    file_column: str = "file"
    id_column: str | None = None
    report_column: str | None = None
    label_column: str | None = None
    label_columns: tuple[str, ...] = ()
    patient_column: str | None = None
    split_column: str | None = None
    label_separator: str = "|"
    label_map: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unknown_labels: str = "exclude"
    report_template: str | None = None
    value_maps: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    split: str | None = None
    split_map: Mapping[str, str] = dataclasses.field(default_factory=dict)
    shares: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        key = f"data.sources.{self.name}"
        if not self.name or "/" in self.name:
            raise ConfigError("data.sources.name", self.name, "a short name without '/'")
        if (self.report_column is None) == (self.report_template is None):
            given = {"report_column": self.report_column, "report_template": self.report_template}
            raise ConfigError(f"{key}.report_column", given, "exactly one of report_column and report_template")
        if (self.label_column is None) == (not self.label_columns):
            given = {"label_column": self.label_column, "label_columns": self.label_columns}
            raise ConfigError(f"{key}.label_column", given, "exactly one of label_column and label_columns")
        ways = [bool(self.split), bool(self.split_column), bool(self.shares)]
        if sum(ways) != 1:
            given = {"split": self.split, "split_column": self.split_column, "shares": dict(self.shares)}
            raise ConfigError(f"{key}.split", given, "exactly one of split, split_column and shares")
        for split in [*self.shares, *self.split_map.values(), *([self.split] if self.split else [])]:
            if split not in SPLITS:
                raise ConfigError(f"{key}.split", split, f"one of {', '.join(SPLITS)}", nearest(split, SPLITS))
        if self.shares and (min(self.shares.values()) <= 0 or abs(sum(self.shares.values()) - 1.0) > 1e-6):
            raise ConfigError(f"{key}.shares", dict(self.shares), "positive shares that sum to 1")
        if self.unknown_labels not in UNKNOWN_LABELS:
            raise ConfigError(f"{key}.unknown_labels", self.unknown_labels, f"one of {', '.join(UNKNOWN_LABELS)}")


@dataclasses.dataclass(frozen=True)
class FolderSettings:
    """Folders of images with tables: several sources make one prepared set, e.g. a second one as "ood_test".

    Args:
      sources: the folders.
      classes: class names in label order.
      prompts: zero-shot prompts per class; absent classes get "a chest X-ray with <class>.".
      label_words: words that state a finding, which text attacks leave alone; by default the words of the classes.
      image_size: height and width in pixels.
      resize: "pad", "crop" or "stretch" to the square.
      seed: keys the split by patient.
      card: free text fields for the data card (licence, citation, origin).
      patient_key, deidentify: what becomes of patients' and examples' ids, and of reports, before they are written; see
        `deidentify.key_of` and `deidentify.Privacy`. Splits are by patient and do not depend on the key.
    """

    sources: tuple[FolderSource, ...]
    classes: tuple[str, ...]
    prompts: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    label_words: tuple[str, ...] = ()
    image_size: int = 64
    resize: str = "pad"
    seed: int = 0
    card: Mapping[str, str] = dataclasses.field(default_factory=dict)
    patient_key: str = PUBLIC
    deidentify: bool = False

    def __post_init__(self):
        _check_classes(self.classes, self.prompts)
        _positive("data.image_size", self.image_size)
        if self.resize not in RESIZE_MODES:
            raise ConfigError("data.resize", self.resize, f"one of {', '.join(RESIZE_MODES)}")
        names = [source.name for source in self.sources]
        if not names or len(set(names)) != len(names):
            raise ConfigError("data.sources", names, "at least one source, each with a name of its own")


@dataclasses.dataclass(frozen=True)
class ImportSettings:
    """A tensorflow-datasets set that is already prepared in the array_record format.

    Args:
      name: name of the set, with config and version where it has them ("name/config:1.0.0").
      data_dir: the TFDS data folder.
      splits: from split names of this project to TFDS split expressions, e.g. {"train": "train[:80%]"}.
      fields: from record fields (id, image, report, label, labels, patient) to feature names of the set.
      classes: class names in label order; empty takes the names stored with the label feature.
      prompts, label_words, image_size, resize, card, patient_key, deidentify: as in `FolderSettings`.
    """

    name: str
    data_dir: str
    splits: Mapping[str, str]
    fields: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"image": "image", "report": "report"})
    classes: tuple[str, ...] = ()
    prompts: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    label_words: tuple[str, ...] = ()
    image_size: int = 64
    resize: str = "pad"
    card: Mapping[str, str] = dataclasses.field(default_factory=dict)
    patient_key: str = PUBLIC
    deidentify: bool = False

    def __post_init__(self):
        if self.classes:
            _check_classes(self.classes, self.prompts)
        _positive("data.image_size", self.image_size)
        if self.resize not in RESIZE_MODES:
            raise ConfigError("data.resize", self.resize, f"one of {', '.join(RESIZE_MODES)}")
        for split in self.splits:
            if split not in SPLITS:
                raise ConfigError(f"data.splits.{split}", self.splits[split], f"splits are {SPLITS}")
        if not self.splits:
            raise ConfigError("data.splits", {}, "at least one split")


Settings = RadiographSettings | FolderSettings | ImportSettings

KINDS = {"radiographs": RadiographSettings, "folder": FolderSettings, "tfds": ImportSettings}


def _check_classes(classes: tuple[str, ...], prompts: Mapping[str, tuple[str, ...]]) -> None:
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise ConfigError("data.classes", classes, "at least two different class names")
    for name in prompts:
        if name not in classes:
            raise ConfigError(f"data.prompts.{name}", prompts[name], f"one of {classes}", nearest(name, classes))


def from_mapping(kind: str, values: Mapping[str, Any]) -> Settings:
    """Builds the settings of `kind` from plain values, as a config holds them.

    Raises:
      ConfigError: an unknown kind or key (with the nearest name), or a value that is refused.
    """
    if kind not in KINDS:
        raise ConfigError("data.kind", kind, f"one of {', '.join(KINDS)}", nearest(kind, KINDS))
    values = dict(values)
    if kind == "folder":
        values["sources"] = tuple(
            source if isinstance(source, FolderSource) else _build(FolderSource, source, "data.sources")
            for source in values.get("sources", ())
        )
    return _build(KINDS[kind], values, "data")


def _build(cls: Any, values: Mapping[str, Any], prefix: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(f"{prefix}.{key}", value, f"keys are {', '.join(fields)}", nearest(key, fields))
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise ConfigError(f"{prefix}.{name}", None, "this key has no default and must be given")
    return cls(**{key: _plain(value) for key, value in values.items()})


def _plain(value: Any) -> Any:
    """Nested config containers as plain dicts and tuples."""
    if isinstance(value, Mapping) or hasattr(value, "items"):
        return {key: _plain(item) for key, item in value.items()}
    return tuple(_plain(item) for item in value) if isinstance(value, list | tuple) else value
