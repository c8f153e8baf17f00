"""Keys of the data: where records come from and how they are cut into splits."""

from __future__ import annotations

from ranjax.core.buckets.object_store import is_url
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

_OPTION = "data.set.options with '{}'"
RENAMED = {
    **{f"data.{name}": f"data.set.{name}" for name in ("classes", "prompts", "label_words", "patient_key")},
    **{f"data.folder.{name}": f"data.set.{name}" for name in ("label_map", "unknown_labels", "resize")},
    **{
        f"data.folder.{name}_column": _OPTION.format(f"{name.replace('file', 'image')}=COLUMN")
        for name in ("file", "report", "label", "patient", "split")
    },
    **{f"data.tfds.{name}_key": _OPTION.format(f"{name}=FEATURE") for name in ("image", "report", "label")},
    "data.folder.csv": "data.set.name = 'table' with data.set.data_dir, its folder, and 'table=FILE' in "
    "data.set.options",
    "data.folder.images": _OPTION.format("images=FOLDER"),
    "data.folder.report_template": _OPTION.format("template=TEXT"),
    "data.folder.words": _OPTION.format("template={sex:M=male;F=female}"),
    "data.folder.label_separator": _OPTION.format("separator=TEXT"),
    "data.folder.shares": _OPTION.format("shares=0.6,0.1,0.1,0.2"),
    "data.folder.ood_csv": _OPTION.format("ood_table=FILE"),
    "data.folder.ood_images": _OPTION.format("ood_images=FOLDER"),
    "data.folder.ood_report_template": _OPTION.format("ood_template=TEXT"),
    "data.tfds.name": "data.set.name = 'tfds' with 'name=NAME' in data.set.options",
    "data.tfds.data_dir": "data.set.data_dir",
    "data.tfds.splits": _OPTION.format("splits=train=EXPRESSION;test=EXPRESSION"),
}


def check(config: Config) -> None:
    """Check that the keys of the data fit each other.

    Raises:
      ConfigError: a set or a folder that its source needs is not named or not local, or settings that do not fit.
    """
    if config.data.source == "prepared" and not config.data.prepared.dir:
        raise ConfigError("data.prepared.dir", "", "the folder of a prepared set where data.source = 'prepared'")
    if is_url(config.data.dir):
        expected = "a local folder, or '' for the workdir's data/, which lies in an object store where the workdir does"
        raise ConfigError("data.dir", config.data.dir, expected)
    if config.data.source != "set":
        return
    for name, expected in (("name", "a set of `ranjax prepare list`"), ("data_dir", "the folder of the set's files")):
        if not config.data.set[name]:
            raise ConfigError(f"data.set.{name}", "", f"{expected} where data.source = 'set'")
    read(SetSettings(), config.data.set)  # checks what its fields demand of each other
