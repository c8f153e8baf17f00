"""Prepare: records from their source into one prepared set, and the tokenizer that reads their reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.core.files import digest
from ranjax.data.set_settings import RadiographSettings
from ranjax.data.splits import SPLITS
from ranjax.models.checkpoints.packaged import weights_path
from ranjax.models.checkpoints.weight_files import folder_of
from ranjax.run.context import Context
from ranjax.run.schema import RunConfig
from ranjax.run.stages import labels

if TYPE_CHECKING:
    from ranjax.data.prepared import PreparedSet


def run(context: Context) -> dict[str, Any]:
    """Prepare the set (or find it prepared) and leave tokenizer.json; list what was left out and why."""
    from ranjax.data.text.tokenizer import Tokenizer

    config = context.config
    prepared = chosen_splits(config) if config.data.source == "prepared" else prepare_set_of(context)
    missing = [s for s in ("train", "adapt", "validation", "test") if s not in prepared.splits]
    if missing:
        raise DataError(f"data.source = {config.data.source!r} gives no split {', '.join(missing)}.")
    if len(prepared.splits["train"]) < config.pretrain.batch_size and not config.pretrain.skip:
        size = len(prepared.splits["train"])
        raise ConfigError("pretrain.batch_size", config.pretrain.batch_size, f"at most the {size} training pairs")
    found = labels.refuse(config, prepared)
    reports = prepared.splits["train"].column("report")
    # A checkpoint's own tokenizer is the only one whose tokens mean to it what they should.
    if given := config.text.tokenizer or config.model.weights or config.model.text_weights:
        tokenizer = Tokenizer.load(folder_of(weights_path(given)), sample=reports[:50])
    else:
        tokenizer = Tokenizer.build([*reports, *corpus(config)], max_size=config.text.max_vocabulary)
    tokenizer.save(context.folder / "tokenizer.json")
    tokens = tokenizer.encode(reports, config.text.max_length)
    unknown = tokenizer.unknown_rate(reports)
    counts = ", ".join(f"{name} {count}" for name, count in prepared.counts.items())
    context.say(f"{counts}; {tokenizer.vocab_size} tokens, {100 * unknown:.1f} % of the words unknown")
    for exclusion in prepared.exclusions[:5]:
        context.say(f"left out {exclusion['id']}: {exclusion['reason']}")
    multi_label = config.adapt.task == "multi"
    unknown_labels = labels.left_out(prepared) if multi_label else []
    for note in [*labels.notes(found, prepared.classes, multi_label), *unknown_labels]:
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


def prepare_set_of(context: Context) -> PreparedSet:
    """Prepare the set of the config's source in `data_folder`, or open it if that is done."""
    from ranjax.data.radiograph_set import prepare_radiographs
    from ranjax.data.set_writing import prepare_set

    config = context.config
    settings = config.data.to_prepare(config.seed)
    if isinstance(settings, RadiographSettings):
        return prepare_radiographs(settings, data_folder(context), _progress(context))
    return prepare_set(settings, data_folder(context), progress=_progress(context), say=context.say)


def corpus(config: RunConfig) -> list[str]:
    """Return the texts of `text.corpus`, marked as reports are; none where it names none."""
    from ranjax.data.text.deidentify import Privacy
    from ranjax.data.text.openi import read_corpus

    privacy = Privacy(text=config.data.deidentify)
    return [privacy.report(text) for text in read_corpus(Path(config.text.corpus))] if config.text.corpus else []


def _progress(context: Context) -> Callable[[int, int], None]:
    """Return a progress line whose total is known only when the preparation says it."""
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
    """Return where the prepared set lies: `data.dir`, or ``data/`` in the workdir."""
    return Path(context.config.data.dir or context.workdir / "data").expanduser().absolute()


def open_data(context: Context) -> PreparedSet:
    """Open the prepared set that this run's prepare stage left or found.

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


def chosen_splits(config: RunConfig) -> PreparedSet:
    """Open the set of `data.prepared.dir` with its splits under the names that the stages know.

    Raises:
      ConfigError: a split that it does not have, a test split that serves twice, or another image size.
      DataError: no such set, or an out-of-domain set of other classes.
    """
    from ranjax.data.prepared import open_prepared
    from ranjax.data.sources import FirstRecords

    names = config.data.prepared
    prepared = open_prepared(names.dir)
    own = {split: name for split, name in zip(SPLITS, names.splits) if name}
    for split, name in own.items():
        if name not in prepared.splits:
            held = f"splits of {names.dir} for {split}: {', '.join(prepared.splits)}"
            raise ConfigError("data.prepared.splits", names.splits, held, nearest(name, list(prepared.splits)))
        if split in ("test", "validation") and names.splits.count(name) > 1:
            raise ConfigError("data.prepared.splits", names.splits, f"a split of its own for {split}")
    splits = {split: prepared.splits[name] for split, name in own.items()}
    parts: list[object] = [prepared.fingerprint, own]
    if names.limit:
        splits = {split: FirstRecords.of(source, names.limit) for split, source in splits.items()}
        parts.append(names.limit)
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
    return dataclasses.replace(prepared, splits=splits, counts=counts, fingerprint=digest(parts))
