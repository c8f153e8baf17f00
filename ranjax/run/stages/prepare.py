"""Prepare: records from their source into one prepared set, and the tokenizer that reads their reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_collections

from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.data import set_settings as data_settings
from ranjax.models.checkpoints.weight_files import folder_of
from ranjax.run.context import Context
from ranjax.run.stages import labels

if TYPE_CHECKING:
    from ranjax.data.prepared import PreparedSet


def run(context: Context) -> dict[str, Any]:
    """Prepares the set (or finds it prepared) and leaves tokenizer.json; lists what was left out and why."""
    from ranjax.data.prepared import prepare
    from ranjax.data.text.tokenizer import Tokenizer

    config = context.config
    if config.data.source == "prepared":
        prepared = chosen_splits(config)
    else:
        prepared = prepare(settings_of(config), data_folder(context), progress=_progress(context))
    missing = [s for s in ("train", "adapt", "validation", "test") if s not in prepared.splits]
    if missing:
        raise DataError(f"data.source = {config.data.source!r} gives no split {', '.join(missing)}.")
    if len(prepared.splits["train"]) < config.pretrain.batch_size:
        size = len(prepared.splits["train"])
        raise ConfigError("pretrain.batch_size", config.pretrain.batch_size, f"at most the {size} training pairs")
    found = labels.refuse(config, prepared)
    reports = prepared.splits["train"].column("report")
    # A checkpoint's own tokenizer is the only one whose tokens mean to it what they should.
    if given := config.text.tokenizer or config.model.weights or config.model.text_weights:
        tokenizer = Tokenizer.load(folder_of(given), sample=reports[:50])
    else:
        tokenizer = Tokenizer.build([*reports, *corpus(config)], max_size=config.text.max_vocabulary)
    tokenizer.save(context.folder / "tokenizer.json")
    tokens = tokenizer.encode(reports, config.text.max_length)
    unknown = tokenizer.unknown_rate(reports)
    counts = ", ".join(f"{name} {count}" for name, count in prepared.counts.items())
    context.say(f"{counts}; {tokenizer.vocab_size} tokens, {100 * unknown:.1f} % of the words unknown")
    for exclusion in prepared.exclusions[:5]:
        context.say(f"left out {exclusion['id']}: {exclusion['reason']}")
    for note in labels.notes(found, prepared.classes, config.adapt.task == "multi"):
        context.say(f"note: {note}")
    if len(prepared.exclusions) > 5:
        context.say(f"left out {len(prepared.exclusions) - 5} more, listed in {context.folder / 'manifest.json'}")
    return {
        "data": prepared.fingerprint,
        "counts": dict(prepared.counts),
        "exclusions": list(prepared.exclusions),
        "tokenizer": tokenizer.fingerprint,
        "unknown_words": unknown,
        "truncated_reports": tokens.truncated,
    }


def corpus(config: ml_collections.ConfigDict) -> list[str]:
    """The texts of `text.corpus`, marked as reports are; none where it names none."""
    from ranjax.data.text.corpus import read_corpus
    from ranjax.data.text.deidentify import Privacy

    privacy = Privacy(text=config.data.deidentify)
    return [privacy.report(text) for text in read_corpus(Path(config.text.corpus))] if config.text.corpus else []


def _progress(context: Context) -> Callable[[int, int], None]:
    """A progress line whose total is known only when the preparation says it."""
    from ranjax.training.progress import Progress

    shown: list[Progress] = []

    def update(done: int, total: int) -> None:
        if not shown:
            shown.append(Progress("prepare", total, unit="records"))
        shown[0].update(done)
        if done >= total:
            shown[0].close()
        else:
            context.poll()

    return update


def data_folder(context: Context) -> Path:
    """Where the prepared set lives: `data.dir`, or ``data/`` in the workdir."""
    return Path(context.config.data.dir or context.workdir / "data").expanduser().absolute()


def open_data(context: Context) -> PreparedSet:
    """The prepared set that this run's prepare stage left or found.

    Raises:
      DataError: it is not there any more, or another one lies in its place.
    """
    from ranjax.data.prepared import open_prepared

    mark = context.manifest_of("prepare")["data"]
    if context.config.data.source != "prepared":
        return open_prepared(data_folder(context), mark)
    prepared = chosen_splits(context.config)
    if prepared.fingerprint != mark:
        raise DataError(
            f"data.prepared.dir = {context.config.data.prepared.dir!r} holds another set than when this run began "
            f"(fingerprint {prepared.fingerprint}, then {mark}). Put the set back, or take another --workdir."
        )
    return prepared


def chosen_splits(config: ml_collections.ConfigDict) -> PreparedSet:
    """The set of `data.prepared.dir` with its splits under the names that the stages know.

    Raises:
      ConfigError: a split that it does not have, a test split that serves twice, or another image size.
      DataError: no such set, or an out-of-domain set of other classes.
    """
    from ranjax.data.prepared import open_prepared

    names = config.data.prepared
    prepared = open_prepared(names.dir)
    own = {split: name for split, name in zip(data_settings.SPLITS, names.splits) if name}
    for split, name in own.items():
        if name not in prepared.splits:
            held = f"splits of {names.dir} for {split}: {', '.join(prepared.splits)}"
            raise ConfigError("data.prepared.splits", names.splits, held, nearest(name, list(prepared.splits)))
        if split in ("test", "validation") and names.splits.count(name) > 1:
            raise ConfigError("data.prepared.splits", names.splits, f"a split of its own for {split}")
    splits, parts = {split: prepared.splits[name] for split, name in own.items()}, [prepared.fingerprint, own]
    if names.ood_dir:
        other = open_prepared(names.ood_dir)
        if other.classes != prepared.classes or "test" not in other.splits:
            raise DataError(
                f"data.prepared.ood_dir = {names.ood_dir!r} must hold a split 'test' and the classes "
                f"{', '.join(prepared.classes)}; it holds {', '.join(other.splits)} and {', '.join(other.classes)}."
            )
        splits["ood_test"] = other.splits["test"]
        parts.append(other.fingerprint)
    for split, source in splits.items():
        if source.image_shape[0] != config.data.image_size:
            raise ConfigError(
                "data.image_size", config.data.image_size, f"{source.image_shape[0]}, the size of {split} as prepared"
            )
    counts = {split: len(source) for split, source in splits.items()}
    return dataclasses.replace(prepared, splits=splits, counts=counts, fingerprint=data_settings.digest(parts))


def settings_of(config: ml_collections.ConfigDict) -> data_settings.Settings:
    """The prepared set that a config asks for, as `ranjax.data.set_settings` describes sources.

    Raises:
      ConfigError: a value that the source cannot be read with.
    """
    data = config.data
    if data.source == "radiographs":
        counts = {name: data.radiographs[name] for name in data_settings.SPLITS}
        shares = (data.radiographs.multiple, data.radiographs.multiple_downstream)
        drawn = (config.seed, data.image_size, counts, *shares)
        if data.radiographs.reports:
            return data_settings.PairedSettings(*drawn, reports=data.radiographs.reports)
        return data_settings.RadiographSettings(*drawn)
    classes = tuple(c for c in data.classes if c)
    if not classes and data.source == "folder":
        raise ConfigError("data.classes", data.classes, "the class names in label order")
    common: dict[str, Any] = {
        "classes": classes,
        "prompts": _gather(data.prompts),
        "label_words": tuple(w for w in data.label_words if w),
        "image_size": data.image_size,
        "patient_key": data.patient_key,
        "deidentify": data.deidentify,
    }
    if data.source == "folder":
        return data_settings.FolderSettings(
            sources=_folder_sources(data.folder), seed=config.seed, resize=data.folder.resize, **common
        )
    tfds = data.tfds
    splits = {name: own for name, own in zip(data_settings.SPLITS, tfds.splits) if own}
    fields = {"image": tfds.image_key, "report": tfds.report_key, "label": tfds.label_key}
    return data_settings.ImportSettings(
        tfds.name, tfds.data_dir, splits, {field: key for field, key in fields.items() if key}, **common
    )


def _folder_sources(folder: ml_collections.ConfigDict) -> tuple[data_settings.FolderSource, ...]:
    columns: dict[str, Any] = {
        "file_column": folder.file_column,
        "label_column": folder.label_column,
        "label_separator": folder.label_separator,
        "label_map": dict(text.split("=", 1) for text in folder.label_map if text),
        "unknown_labels": folder.unknown_labels,
    }
    splits: dict[str, Any] = {"patient_column": folder.patient_column or None}
    if folder.split_column:
        splits["split_column"] = folder.split_column
    else:
        splits["shares"] = dict(zip(data_settings.SPLITS, folder.shares))
    sources = [_folder_source("main", folder.csv, folder.images, folder, folder.report_template, {**columns, **splits})]
    if folder.ood_csv:
        template = folder.ood_report_template or folder.report_template
        place = {**columns, "split": "ood_test"}
        sources.append(_folder_source("ood", folder.ood_csv, folder.ood_images, folder, template, place))
    return tuple(sources)


def _folder_source(
    name: str, csv: str, images: str, folder: ml_collections.ConfigDict, template: str, rest: Mapping[str, Any]
) -> data_settings.FolderSource:
    table = Path(csv).expanduser().absolute()
    return data_settings.FolderSource(
        name=name,
        root=str(table.parent),
        csv=table.name,
        images=str(Path(images).expanduser().absolute()) if images else "",
        report_column=folder.report_column or None,
        report_template=None if folder.report_column else template,
        value_maps=_value_maps(folder.words),
        **rest,
    )


def _value_maps(texts: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """("sex:M=male",) -> {"sex": {"M": "male"}}."""
    found: dict[str, dict[str, str]] = {}
    for text in filter(None, texts):
        place, _, words = text.partition("=")
        column, colon, value = place.partition(":")
        if not colon:
            raise ConfigError("data.folder.words", text, "texts of the form 'column:value=words'")
        found.setdefault(column, {})[value] = words
    return found


def _gather(texts: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """("a=x", "a=y") -> {"a": ("x", "y")}."""
    found: dict[str, tuple[str, ...]] = {}
    for name, text in (text.split("=", 1) for text in texts if text):
        found[name] = (*found.get(name, ()), text)
    return found
