"""Keys of the data: where records come from and how they are cut into splits."""

from ml_collections import ConfigDict

from ranjax.core.checks import Key, at_least, between, maps, one_of
from ranjax.core.errors import ConfigError

KEYS = (
    Key(
        "data.source",
        "radiographs",
        "Where records come from.",
        "",
        one_of("radiographs", "folder", "tfds", "prepared"),
    ),
    Key("data.dir", "", "Where the prepared set is kept; empty: <workdir>/data. May be shared by runs.", "path"),
    Key("data.image_size", 64, "Side of the square images.", "pixels", between(16, 1024)),
    Key("data.radiographs.train", 4096, "Upstream image-report pairs.", "pairs", at_least(8)),
    Key("data.radiographs.adapt", 768, "Labelled images for fitting heads.", "images", at_least(8)),
    Key("data.radiographs.validation", 384, "Images for choosing epochs.", "images", at_least(8)),
    Key("data.radiographs.test", 384, "Images for in-domain figures.", "images", at_least(8)),
    Key("data.radiographs.ood_test", 384, "Images of other acquisition settings.", "images", at_least(8)),
    Key(
        "data.radiographs.multiple",
        0.2,
        "Share of upstream images with two or three findings.",
        "share",
        between(0, 1),
    ),
    Key(
        "data.radiographs.multiple_downstream",
        0.0,
        "The same share in all other splits; such images count where adapt.task = 'multi'.",
        "share",
        between(0, 1),
    ),
    Key(
        "data.radiographs.reports",
        "",
        "Real reports in place of the grammar's, paired by finding and side: a torchxrayvision wheel or "
        "NLMCXR_reports.tgz; empty: the grammar.",
        "path",
    ),
    Key("data.folder.csv", "", "CSV with one row an image (data.source = 'folder').", "path"),
    Key("data.folder.images", "", "Folder that file names are relative to; empty: the CSV's folder.", "path"),
    Key("data.folder.file_column", "file", "Column that names the image file.", "column"),
    Key("data.folder.report_column", "", "Column with the report; empty: the template below is used.", "column"),
    Key("data.folder.report_template", "", "Report made from columns, as '{view} view. {findings}.'.", "text"),
    Key("data.folder.words", ("",), "Words for a column's values, as 'sex:M=male' (template only).", "", maps),
    Key("data.folder.label_column", "", "Column with the label or labels.", "column"),
    Key("data.folder.label_separator", "|", "What separates several labels in one cell.", "text"),
    Key("data.folder.label_map", ("",), "Class of a label where names differ, as 'No Finding=normal'.", "", maps),
    Key(
        "data.folder.unknown_labels",
        "exclude",
        "A label outside the classes excludes its row (counted, listed), or is ignored.",
        "",
        one_of("exclude", "ignore"),
    ),
    Key("data.folder.patient_column", "", "Column with the patient; splits never share one.", "column"),
    Key("data.folder.split_column", "", "Column with the split; empty: by patient, with the shares below.", "column"),
    Key(
        "data.folder.shares",
        (0.6, 0.1, 0.1, 0.2),
        "Shares of patients in train, adapt, validation and test, where no split column is named.",
        "shares",
        lambda v: "" if len(v) == 4 and min(v) > 0 and abs(sum(v) - 1) < 1e-6 else "four positive shares that sum to 1",
    ),
    Key("data.folder.ood_csv", "", "CSV of the out-of-domain test set, same columns; empty: none.", "path"),
    Key("data.folder.ood_images", "", "Folder that its file names are relative to; empty: its CSV's folder.", "path"),
    Key("data.folder.ood_report_template", "", "Report template of that set, where its columns differ.", "text"),
    Key("data.folder.resize", "crop", "How images are made square.", "", one_of("crop", "pad", "stretch")),
    Key(
        "data.patient_key",
        "",
        "File with the secret that turns the ids of patients and examples into pseudonyms (folder and tfds); empty: "
        "RANJAX_PATIENT_KEY or the user's own key; 'none': ids are public and stay.",
        "path",
    ),
    Key("data.deidentify", True, "Marks in place of names, dates and numbers that patterns find in reports."),
    Key(
        "data.threads",
        0,
        "Threads that decode the images of a batch; 0: one per core. No result depends on it.",
        "",
        at_least(0),
    ),
    Key("data.augment_crop", 1.0, "Least side of a random crop in pre-training; 1: no crop.", "share", between(0.1, 1)),
    Key(
        "data.augment_flip",
        0.0,
        "Probability of a mirror image; never of a pair whose report names a side.",
        "probability",
        between(0, 1),
    ),
    Key("data.augment_contrast", 0.0, "Greatest change of contrast, up or down.", "share", between(0, 1)),
    Key(
        "data.augment_sentences",
        0.0,
        "Probability that the sentences of a report change places.",
        "probability",
        between(0, 1),
    ),
    Key("data.classes", ("",), "Class names in label order (folder and tfds; radiographs bring their own).", "names"),
    Key("data.prompts", ("",), "Zero-shot prompts, as 'pneumonia=a chest X-ray with pneumonia.'.", "", maps),
    Key("data.label_words", ("",), "Words that state a finding, which text attacks protect.", "words"),
    Key(
        "data.prepared.dir",
        "",
        "A set that `python -m ranjax prepare` left (data.source = 'prepared'); read where it lies.",
        "path",
    ),
    Key(
        "data.prepared.splits",
        ("train", "adapt", "validation", "test", ""),
        "Its splits that serve as train, adapt, validation, test, ood_test ('' for none).",
        "names",
        lambda v: "" if len(v) == 5 and all(v[:4]) else "five split names, of which only the last may be empty",
    ),
    Key(
        "data.prepared.ood_dir",
        "",
        "Another prepared set of the same classes, whose test split serves as ood_test; empty: none.",
        "path",
    ),
    Key("data.tfds.name", "", "Name of a prepared TFDS set (data.source = tfds).", "name"),
    Key("data.tfds.data_dir", "", "Folder that TFDS prepared it into.", "path"),
    Key("data.tfds.image_key", "image", "Feature that holds the image.", "name"),
    Key("data.tfds.report_key", "report", "Feature that holds the report.", "name"),
    Key("data.tfds.label_key", "label", "Feature that holds the class index.", "name"),
    Key(
        "data.tfds.splits",
        ("train", "train", "validation", "test", ""),
        "The set's own splits that serve as train, adapt, validation, test, ood_test ('' for none).",
        "names",
        lambda v: "" if len(v) == 5 and all(v[:4]) else "five split names, of which only the last may be empty",
    ),
)


def check(config: ConfigDict) -> None:
    """Raises a ConfigError where keys do not fit each other."""
    if config.data.source == "folder":
        for name in ("csv", "label_column"):
            if not config.data.folder[name]:
                raise ConfigError(f"data.folder.{name}", "", "a non-empty text where data.source = 'folder'")
        if not (config.data.folder.report_column or config.data.folder.report_template):
            raise ConfigError("data.folder.report_column", "", "a column, or data.folder.report_template, must be set")
    if config.data.source == "prepared" and not config.data.prepared.dir:
        raise ConfigError("data.prepared.dir", "", "the folder of a prepared set where data.source = 'prepared'")
    if config.data.source == "tfds" and not config.data.tfds.name:
        raise ConfigError("data.tfds.name", "", "the name of a prepared set where data.source = 'tfds'")
