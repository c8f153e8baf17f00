"""Keys of the data: where records come from and how they are cut into splits."""

from __future__ import annotations

from ranjax.core.errors import ConfigError
from ranjax.core.settings import keys_of, read
from ranjax.data.set_settings import DataSettings, SetSettings
from ranjax.data.sets import SETS
from ranjax.run.schema.entry_keys import Config, EntryKeys

_OF_THE_RUN = tuple(
    f"data.{group}.{name}" for group in ("radiographs", "set") for name in ("seed", "image_size", "deidentify")
)
"""Settings of a set that a run has keys of its own for: seed, data.image_size, data.deidentify."""

TABLES = (EntryKeys(SETS, ("data.set.name",), "data"),)
KEYS = tuple(key for key in keys_of("data", DataSettings()) if key.name not in _OF_THE_RUN)

_COLUMN = "data.set.options with '{}=COLUMN'"
RENAMED = {
    "data.classes": "data.set.classes",
    "data.prompts": "data.set.prompts",
    "data.label_words": "data.set.label_words",
    "data.patient_key": "data.set.patient_key",
    "data.folder.csv": "data.set.name = 'table' with data.set.data_dir, its folder, and 'table=FILE' in data.set.options",
    "data.folder.images": "data.set.options with 'images=FOLDER'",
    "data.folder.file_column": _COLUMN.format("image"),
    "data.folder.report_column": _COLUMN.format("report"),
    "data.folder.report_template": "data.set.options with 'template=TEXT'",
    "data.folder.words": "data.set.options with 'template={sex:M=male;F=female}'",
    "data.folder.label_column": _COLUMN.format("label"),
    "data.folder.label_separator": "data.set.options with 'separator=TEXT'",
    "data.folder.label_map": "data.set.label_map",
    "data.folder.unknown_labels": "data.set.unknown_labels",
    "data.folder.patient_column": _COLUMN.format("patient"),
    "data.folder.split_column": _COLUMN.format("split"),
    "data.folder.shares": "data.set.options with 'shares=0.6,0.1,0.1,0.2'",
    "data.folder.ood_csv": "data.set.options with 'ood_table=FILE'",
    "data.folder.ood_images": "data.set.options with 'ood_images=FOLDER'",
    "data.folder.ood_report_template": "data.set.options with 'ood_template=TEXT'",
    "data.folder.resize": "data.set.resize",
    "data.tfds.name": "data.set.name = 'tfds' with 'name=NAME' in data.set.options",
    "data.tfds.data_dir": "data.set.data_dir",
    "data.tfds.image_key": "data.set.options with 'image=FEATURE'",
    "data.tfds.report_key": "data.set.options with 'report=FEATURE'",
    "data.tfds.label_key": "data.set.options with 'label=FEATURE'",
    "data.tfds.splits": "data.set.options with 'splits=train=EXPRESSION;test=EXPRESSION'",
}


def check(config: Config) -> None:
    """Check that the keys of the data fit each other.

    Raises:
      ConfigError: a set or a folder that its source needs is not named, or settings of a set that do not fit.
    """
    if config.data.source == "prepared" and not config.data.prepared.dir:
        raise ConfigError("data.prepared.dir", "", "the folder of a prepared set where data.source = 'prepared'")
    if config.data.source != "set":
        return
    for name, expected in (("name", "a set of `ranjax prepare list`"), ("data_dir", "the folder of the set's files")):
        if not config.data.set[name]:
            raise ConfigError(f"data.set.{name}", "", f"{expected} where data.source = 'set'")
    read(SetSettings(), config.data.set)  # checks what its fields demand of each other
