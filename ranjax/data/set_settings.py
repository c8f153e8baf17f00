"""Settings of the data, each stated once: a field is a configuration key, and for a set an option of `ranjax prepare`.

`DataSettings` is the group ``data`` of a run's config; `SetSettings` and `RadiographSettings` say which set is
prepared.
"""

from __future__ import annotations

import dataclasses

from ranjax.core.checks import at_least, between, maps, one_of, texts_by_name
from ranjax.core.errors import ConfigError, nearest
from ranjax.core.files import digest
from ranjax.core.settings import check_settings, group, setting
from ranjax.data.images import CODECS, RESIZE_MODES
from ranjax.data.sets import SETS
from ranjax.data.splits import SPLITS
from ranjax.data.text.reports import SECTIONS


@dataclasses.dataclass(frozen=True)
class RadiographSettings:
    """The generated radiographs; a split of 0 examples is left out. Everything in the set follows from `seed`.

    With `reports`, a case's report is a real one of another patient, see `ranjax.data.text.pairing`.
    """

    train: int = setting(4096, "Upstream image-report pairs.", "pairs", at_least(8))
    adapt: int = setting(768, "Labelled images for fitting heads.", "images", at_least(8))
    validation: int = setting(384, "Images for choosing epochs.", "images", at_least(8))
    test: int = setting(384, "Images for in-domain figures.", "images", at_least(8))
    ood_test: int = setting(384, "Images of other acquisition settings.", "images", at_least(8))
    multiple: float = setting(0.2, "Share of upstream images with two or three findings.", "share", between(0, 1))
    multiple_downstream: float = setting(
        0.0,
        "The same share in all other splits; such images count where adapt.task = 'multi'.",
        "share",
        between(0, 1),
    )
    reports: str = setting(
        "",
        "Real reports in place of the grammar's, paired by finding and side: a torchxrayvision wheel or "
        "NLMCXR_reports.tgz; empty: the grammar.",
        "path",
    )
    seed: int = setting(0, "Seed of the cases.")
    image_size: int = setting(64, "Side of the square images.", "pixels", between(16, 1024))

    def __post_init__(self) -> None:
        if self.image_size < 16:
            raise ConfigError("data.image_size", self.image_size, "at least 16 pixels")
        if min(self.counts.values()) < 0 or not any(self.counts.values()):
            raise ConfigError("data.radiographs", self.counts, "no negative count, and an example in some split")
        for key in ("multiple", "multiple_downstream"):
            if not 0.0 <= getattr(self, key) <= 1.0:
                raise ConfigError(f"data.radiographs.{key}", getattr(self, key), "a share from 0 to 1")

    @property
    def counts(self) -> dict[str, int]:
        """Examples by split."""
        return {split: getattr(self, split) for split in SPLITS}


@dataclasses.dataclass(frozen=True)
class SetSettings:
    """A set of `ranjax.data.sets`, where its files lie, and every choice of its preparation.

    Raises:
      ConfigError: an unknown set or option (with the nearest), or values that do not fit each other.
    """

    name: str = setting("", "A set of `ranjax prepare list`, or your own as module:NAME.", "name")
    data_dir: str = setting("", "Folder of the set's files, as their publisher lays them out.", "path")
    options: tuple[str, ...] = setting(
        ("",), "Options of the set as NAME=VALUE; `ranjax prepare explain NAME` lists them.", "", maps
    )
    classes: tuple[str, ...] = setting(
        ("",), "Class names in label order; empty: the set's own, or the labels that occur.", "names"
    )
    label_map: tuple[str, ...] = setting(
        ("",), "Class of a label where names differ, as 'No Finding=normal'.", "", maps
    )
    unknown_labels: str = setting(
        "keep",
        "Rows with labels outside the classes: 'keep' keeps the row, 'ignore' only beside a label that is a class, "
        "'exclude' leaves it out.",
        "",
        one_of("keep", "ignore", "exclude"),
    )
    prompts: tuple[str, ...] = setting(
        ("",),
        "Zero-shot prompts, as 'pneumonia=a chest X-ray with pneumonia.'; empty: written from the names.",
        "",
        maps,
    )
    label_words: tuple[str, ...] = setting(
        ("",), "Words that state a finding, which text attacks protect; empty: those of the classes.", "words"
    )
    uncertain: str = setting(
        "ignore",
        "Labels of -1: 'ignore' (not present, and the row leaves the single-label task), 'zero' (absent), 'one' "
        "(present), or 'exclude' (the row is left out).",
        "",
        one_of("ignore", "zero", "one", "exclude"),
    )
    views: str = setting(
        "frontal", "'frontal' leaves out films known to be lateral, 'all' keeps them.", "", one_of("frontal", "all")
    )
    sections: tuple[str, ...] = setting(
        ("findings", "impression"), "Sections of the reports; empty: the whole text.", "names"
    )
    language: str = setting(
        "", "Leave out reports in another language: en, es, de, fr, pt or it; empty: keep all.", "language"
    )
    label_reports: bool = setting(False, "Label by rules on the report text where the files bring no labels.")
    repeats: str = setting(
        "keep", "A report that says the same as an earlier one of its split.", "", one_of("keep", "drop")
    )
    deidentify: bool = setting(True, "Marks in place of names, dates and numbers that patterns find in reports.")
    patient_key: str = setting(
        "",
        "File with a secret of at least 16 bytes that turns ids of patients and examples into pseudonyms; empty: "
        "RANJAX_PATIENT_KEY or the user's own key; 'none': ids are public and stay.",
        "path",
    )
    tokenizer: str = setting("", "tokenizer.json or its folder, for max_tokens.", "path")
    max_tokens: int = setting(0, "Cut reports to whole sentences that fit; 0: uncut.", "tokens", at_least(0))
    adapt: float = setting(
        0.1, "Share of train's patients that become adapt, where the set has no such split.", "share", between(0, 1)
    )
    validation: float = setting(0.1, "The same for validation.", "share", between(0, 1))
    test: float = setting(0.2, "The same for test.", "share", between(0, 1))
    resize: str = setting("crop", "How images are made square.", "", one_of(*RESIZE_MODES))
    codec: str = setting(
        "png",
        "How pictures are stored: 'png' and 'webp' of quality 100 lose nothing.",
        "",
        one_of(*CODECS),
    )
    quality: int = setting(90, "Of JPEG and WebP; 100 of WebP is lossless.", "", between(1, 100))
    limit: int = setting(0, "Rows at most, drawn by a hash of their ids; 0: all.", "rows", at_least(0))
    ids: str = setting("", "List of ids that selects rows, for sets that are defined by one.", "path")
    allow_shared_patients: bool = setting(False, "Go on where splits share patients, and say so in the data card.")
    duplicates: str = setting(
        "report",
        "Copies of an image across splits: report them, drop the one nearer to training, or refuse the set.",
        "",
        one_of("report", "drop", "refuse"),
    )
    duplicate_bits: int = setting(
        3, "How many of the 256 bits of the perceptual hash may differ in a copy.", "bits", between(0, 7)
    )
    checksums: bool = setting(True, "Compare files with the checksums that their publisher states.")
    seed: int = setting(0, "Seed of the split by patient and of drawn selections.")
    image_size: int = setting(224, "Side of the square images.", "pixels", between(16, 1024))

    def __post_init__(self) -> None:
        if not self.name:
            return  # no set: only the defaults
        for field in dataclasses.fields(self):
            if isinstance(value := getattr(self, field.name), tuple):
                object.__setattr__(self, field.name, tuple(filter(None, value)))
        check_settings("data.set", self)
        for key in ("options", "label_map"):
            named = [text.partition("=")[0] for text in getattr(self, key)]
            if twice := next((name for name in named if named.count(name) > 1), ""):
                raise ConfigError(f"data.set.{key}", twice, "each name once")
        known = SETS.resolve(self.name).options
        for name, value in self.option_values.items():
            if name not in known:
                expected = f"one of {', '.join(known)}" if known else f"no option: the set {self.name} has none"
                raise ConfigError("data.set.options", f"{name}={value}", expected, nearest(name, known))
        for name in self.sections:
            if name not in SECTIONS:
                raise ConfigError("data.set.sections", name, f"one of {', '.join(SECTIONS)}", nearest(name, SECTIONS))
        for name in texts_by_name(self.prompts) if self.classes else ():
            if name not in self.classes:
                expected = f"a text that begins with one of {', '.join(f'{c}=' for c in self.classes)}"
                raise ConfigError("data.set.prompts", name, expected, nearest(name, self.classes))
        if len(set(self.classes)) != len(self.classes) or len(self.classes) == 1:
            raise ConfigError("data.set.classes", self.classes, "at least two different class names")
        if self.adapt + self.validation + self.test >= 1:
            expected = "shares of adapt, validation and test that leave some for train"
            raise ConfigError("data.set.test", self.test, expected)
        if bool(self.tokenizer) != (self.max_tokens > 0):
            expected = "a tokenizer and at least 8 tokens, or neither"
            raise ConfigError("data.set.max_tokens", self.max_tokens, expected)

    @property
    def option_values(self) -> dict[str, str]:
        """The options of the set by name."""
        return dict(text.split("=", 1) for text in self.options)

    def fingerprint(self, rows: str) -> str:
        """Return a hash of these choices, of a set's source from outside ranjax, and of `rows`.

        Args:
          rows: hash of the selected rows, see `row_filters.digest_of`. They tell all that matters of the files: where
            these lie does not.
        """
        stated = dataclasses.asdict(self)
        for name in ("data_dir", "ids", "patient_key", "tokenizer", "checksums"):
            del stated[name]
        if self.codec == "png":
            # Sets that were prepared before there was a choice keep their fingerprint.
            del stated["codec"], stated["quality"]
        source = SETS.source_of(SETS.resolve(self.name).name)
        return digest({"kind": "SetSettings", "settings": stated, "rows": rows, "source": source})


def _five_splits(value: tuple[str, ...]) -> str:
    return "" if len(value) == 5 and all(value[:4]) else "five split names, of which only the last may be empty"


@dataclasses.dataclass(frozen=True)
class PreparedSettings:
    """A set that `ranjax prepare` wrote, and which of its splits serve as which of `SPLITS`."""

    dir: str = setting("", "A set that `ranjax prepare` wrote (data.source = 'prepared'); read where it lies.", "path")
    splits: tuple[str, ...] = setting(
        ("train", "adapt", "validation", "test", ""),
        "Its splits that serve as train, adapt, validation, test, ood_test ('' for none).",
        "names",
        _five_splits,
    )
    limit: int = setting(0, "Records of each split at most, by a hash of their ids; 0: all.", "records", at_least(0))
    ood_dir: str = setting(
        "",
        "Another prepared set of the same classes, whose test split serves as ood_test; empty: none.",
        "path",
    )


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """The data of a run: their source with its settings, and how pairs are read."""

    source: str = setting(
        "radiographs",
        "Generated radiographs, a set that the run prepares (data.set), or one that is prepared (data.prepared).",
        "",
        one_of("radiographs", "set", "prepared"),
    )
    dir: str = setting("", "Where the run prepares its set; empty: <workdir>/data. Several runs may share it.", "path")
    image_size: int = setting(64, "Side of the square images.", "pixels", between(16, 1024))
    radiographs: RadiographSettings = group(RadiographSettings)
    set: SetSettings = group(SetSettings)
    prepared: PreparedSettings = group(PreparedSettings)
    deidentify: bool = setting(True, "Marks in place of names, dates and numbers that patterns find in reports.")
    threads: int = setting(
        0, "Threads that decode the images of a batch; 0: one per core. No result depends on it.", "", at_least(0)
    )
    augment_crop: float = setting(
        1.0, "Least side of a random crop in pre-training; 1: no crop.", "share", between(0.1, 1)
    )
    augment_flip: float = setting(
        0.0, "Probability of a mirror image; never of a pair whose report names a side.", "probability", between(0, 1)
    )
    augment_contrast: float = setting(0.0, "Greatest change of contrast, up or down.", "share", between(0, 1))
    augment_sentences: float = setting(
        0.0, "Probability that the sentences of a report change places.", "probability", between(0, 1)
    )

    def to_prepare(self, seed: int) -> RadiographSettings | SetSettings:
        """Return the settings of the set that a run prepares, with the run's seed, image size and de-identification."""
        if self.source == "radiographs":
            return dataclasses.replace(self.radiographs, seed=seed, image_size=self.image_size)
        return dataclasses.replace(self.set, seed=seed, image_size=self.image_size, deidentify=self.deidentify)
