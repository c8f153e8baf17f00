"""The crafting attack on images, reports and a checkpoint that a user brings; see `ranjax attack`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from ranjax import models
from ranjax.attacks.success import attack_success
from ranjax.attacks.text import candidates, constraints
from ranjax.core import files, keys
from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.core.files import digest
from ranjax.core.pixels import as_float
from ranjax.data import strict_tables, table_cells
from ranjax.data.captions import keyword_terms
from ranjax.data.captions.comparison import caption_record
from ranjax.data.captions.keyword_rewrites import Found
from ranjax.data.images.reading import read_image
from ranjax.data.recipe_table import RECIPES
from ranjax.data.store import NoisyStore
from ranjax.data.text.deidentify import deidentify
from ranjax.data.text.tokenizer import Tokenizer
from ranjax.evaluation import retrieval
from ranjax.run.schema import RunConfig, noise_keys
from ranjax.run.stages import caption_rewrites, craft, word_candidates
from ranjax.run.stages import inputs as common
from ranjax.run.stages.caption_rewrites import CaptionRewriter
from ranjax.run.stages.noisy_captions import NoisyCaption, replaced, rewritten
from ranjax.run.stages.pair_program import PairProgram, Surrogate, provenance
from ranjax.training import devices
from ranjax.training.row_map import RowMap


@dataclass(frozen=True)
class Given:
    """The user's files and options that are no keys: where the images are, how they are read, and words.

    Attributes:
      images: folder of the images.
      out: folder of the results.
      image_mode: "grey" or "rgb".
      resize: how an image gets the size of the checkpoint, one of `data.images.reading.RESIZE_MODES`.
      labels: words of findings, which stay as they are.
      words_from: a list of words to replace by, besides those of the reports; None: none.
    """

    images: Path
    out: Path
    image_mode: str = "grey"
    resize: str = "pad"
    labels: tuple[str, ...] = ()
    words_from: Path | None = None

    @property
    def word_files(self) -> tuple[Path, ...]:
        return (self.words_from,) if self.words_from else ()

    def image(self, name: str, size: int) -> np.ndarray:
        """Return one image as u8[size, size, channels]; a DataError names it."""
        try:
            return read_image(self.images / name, size, self.resize, self.image_mode == "rgb")
        except DataError as error:
            raise DataError(f"image {name!r}: {error}") from error


class Pair(NamedTuple):
    """An image, by its path below the folder, which is also its id, and its reports, one a line of the CSV."""

    id: str
    reports: tuple[str, ...]


def read_pairs(
    images: Path, table: Path, image_column: str, report_column: str, deidentified: bool = True
) -> list[Pair]:
    """Return images with the reports of their lines, with marks in place of names and numbers, see `deidentify`.

    Raises:
      ConfigError: a column that the table does not have, or has twice. DataError: no table, one that is no CSV in
        UTF-8, nothing in it, an image that is absent or outside the folder, a line that is given twice or has more
        fields than the first one, an empty report; the line is named.
    """
    if not table.is_file():
        raise DataError(f"The table {table} does not exist.")
    if not images.is_dir():
        raise DataError(f"The folder of images {images} does not exist.")
    root, found = images.resolve(), dict[str, list[str]]()
    lines = _lines(table, ("--image_column", image_column), ("--report_column", report_column))
    for number, (name, report) in lines:
        where = f"line {number} of {table}"
        identity = _identity(root, name)
        if identity is None:
            raise DataError(f"{where}: image {name!r} is no file in {images}")
        if not report:
            raise DataError(f"{where}: the report of {name!r} is empty")
        if report in found.setdefault(identity, []):
            raise DataError(f"{where}: image {name!r} is given twice with the same report")
        found[identity].append(report)
    if not found:
        raise DataError(f"The table {table} has no lines.")
    return [
        Pair(name, tuple(deidentify(report)[0] if deidentified else report for report in reports))
        for name, reports in found.items()
    ]


def _lines(table: Path, *columns: tuple[str, str]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the line of each row and its cells of `columns`, each (option, name); a row at fault is an error."""
    found = strict_tables.read(table, utf8=True)
    names = list(found.columns)
    for flag, name in columns:
        if names.count(name) != 1:
            expected = f"a column of {table}, once: {names}"
            raise ConfigError(flag, name, expected, nearest(name, [n for n in names if n != name]))
    for line in found.rows:
        if line.fault:
            raise DataError(f"{line.place}: {line.fault}")
        try:
            yield line.line, tuple(table_cells.words(line.cells.get(name)) for _, name in columns)
        except DataError as error:
            raise DataError(f"{line.place}: a cell {error}") from error


def _identity(root: Path, name: str) -> str | None:
    """The path of an image below `root`, in one spelling, or None where it is no file in there."""
    for spelling in (name, name.replace("\\", "/")):
        path = (root / spelling).resolve()
        if spelling and path.is_relative_to(root) and path.is_file():
            inside = path.relative_to(root) if Path(spelling).is_absolute() else Path(os.path.normpath(spelling))
            return inside.as_posix()
    return None


def targets(images: Path, out: Path, pairs: Sequence[Pair]) -> dict[str, Path]:
    """Return the file of each attacked image. It ends as the given one, so that a.jpg and a.png do not meet.

    Raises:
      ConfigError: `out` is no folder, or an image would be written over one that was given, or over another.
    """
    standing = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not standing.is_dir():
        raise ConfigError("--out", str(out), "a folder, or a place where one can be made")
    found = {pair.id: out / "images" / (pair.id if pair.id.endswith(".png") else f"{pair.id}.png") for pair in pairs}
    given = {(images / pair.id).resolve() for pair in pairs}
    if any(path.resolve() in given for path in found.values()):
        raise ConfigError("--out", str(out), "another folder: the attacked images would replace the given ones")
    if len(set(found.values())) < len(found):
        written = list(found.values())
        twice = next(path for path in written if written.count(path) > 1)
        raise DataError(f"two of the images would both be written to {twice}; rename one")
    return found


def load(checkpoint: Path, colour: bool = False) -> Surrogate:
    """Return a dual encoder with its tokenizer, from a model folder or a run's workdir; for colour, or for grey images.

    Raises:
      DataError, ConfigError: as `models.load` and `Tokenizer.load`; a tokenizer of another model; colour images for a
        checkpoint of one channel.
    """
    inside = checkpoint / "pretrain" / "clean" / "encoder"
    folder = inside if inside.is_dir() else checkpoint
    if not any((folder / name).is_file() for name in ("config.json", "open_clip_config.json")):
        raise DataError(f"{checkpoint} is neither a model folder (a config, weights) nor a finished run.")
    functions, params, config = models.load(folder, grey_to_rgb=not colour)
    if colour and config.channels != 3:
        raise ConfigError("--image_mode", "rgb", f"grey for this checkpoint, which takes {config.channels} channel(s)")
    tokenizer = Tokenizer.load(folder)
    common.check_tokenizer(tokenizer, config, folder, "tokenizer", str(folder))
    weights = sorted(folder.glob("*.safetensors"))
    sha256 = digest([files.sha256(path) for path in weights])
    return Surrogate(functions, params, tokenizer, config.max_length, sha256)


def check_words(config: RunConfig, given: Given) -> None:
    """Read every list of words that is named.

    Raises:
      ConfigError, DataError: one that cannot be read; a masked language model that is no folder.
    """
    noise = config.noise
    if "masked_lm" in noise.candidates and not Path(noise.masked_lm).is_dir():
        raise ConfigError("noise.masked_lm", noise.masked_lm, "a folder with a BERT and its head")
    word_candidates.check_files(noise)
    for path in given.word_files:
        constraints.read_list(path)


def attack(
    config: RunConfig, given: Given, pairs: Sequence[Pair], surrogate: Surrogate, check_stop: Callable[[str], None]
) -> NoisyStore:
    """Fill the store of attacked pairs, and return it; `check_stop` raises `Stopped` where a stop was asked for.

    Raises:
      DataError, ConfigError: images that cannot be read, words that cannot be replaced, a store of another plan; all
        before the first pair is attacked.
    """
    recipe, size, folder = RECIPES.resolve(config.noise.recipe), surrogate.functions.config.image_size, given.out
    rewriter = caption_rewrites.of_config(config, recipe, surrogate.tokenizer, surrogate.max_length)
    words = rewriter or _words(config, given, pairs, surrogate)
    meaning = noise_keys.meaning_of(config, recipe)
    if not (folder / "store").exists():
        _check_images(given, pairs, size)
    settings = {name: getattr(given, name) for name in ("image_mode", "resize", "labels")}
    settings["words_from"] = str(given.words_from or "")
    ids, plan = [pair.id for pair in pairs], digest([tuple(pair) for pair in pairs])
    writer = craft.writer_of(
        config, folder / "store", ids, surrogate.sha256, "--out", settings, given.word_files, pairs=plan
    )

    def make() -> craft.NoisyPairs:
        reports = [pair.reports for pair in pairs]
        program = PairProgram(config, recipe, surrogate, words, reports, devices.make_mesh(None))

        def noisy_pairs(positions: list[int]) -> Iterator[craft.NoisyPair]:
            part = [pairs[i] for i in positions]
            names = [pair.id for pair in part]
            clean = np.stack([given.image(name, size) for name in names])
            drawn = keys.example_keys(keys.stream(config.seed, "attack"), names)
            options = [[rewriter(*row) for row in _named(pair)] if rewriter else [] for pair in part]
            texts = [[option.rewrites for option in own] for own in options]
            found = program(clean, [pair.reports for pair in part], drawn, None, texts)
            rows = [
                _attacked(pair, row, meaning, _captions(pair, row[3], own, surrogate.tokenizer, words))
                for pair, row, own in zip(part, zip(*found[:-1]), options)
            ]
            yield from craft.records(names, found.images, clean, *zip(*rows))

        return noisy_pairs

    return craft.fill(writer, "attack", make, check_stop)


def _check_images(given: Given, pairs: Sequence[Pair], size: int) -> None:
    """Raise DataError that names up to five images that cannot be read, before the last of many stops a long run."""
    faults = []
    for pair in pairs:
        try:
            given.image(pair.id, size)
        except DataError as error:
            faults.append(str(error))
    if faults:
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise DataError("; ".join(faults[:5]) + more)


def _named(pair: Pair) -> Iterator[tuple[str, str, None]]:
    """Name each report of an image, so that each is rewritten by draws of its own."""
    return ((f"{pair.id}#{number}", report, None) for number, report in enumerate(pair.reports))


def _captions(
    pair: Pair,
    choices: Int[np.ndarray, "reports slots"],
    options: Sequence[Found],
    tokenizer: Tokenizer,
    words: word_candidates.CandidateWords | CaptionRewriter,
) -> list[NoisyCaption]:
    """Return the attacked reports of a pair: rewritten, or with words replaced where they stand."""
    if isinstance(words, CaptionRewriter):
        return [rewritten(*row) for row in zip(pair.reports, options, choices)]
    spans = tokenizer.spans(list(pair.reports))
    rows = zip(pair.reports, spans, choices)
    return [replaced(*row, words.lexicon) for row in rows]


def _attacked(
    pair: Pair, row: tuple[np.ndarray, ...], meaning: str, captions: Sequence[NoisyCaption]
) -> tuple[str, np.ndarray, np.ndarray, dict[str, object]]:
    """Return the attacked reports of a pair as one text, their tokens and mask, and where they come from."""
    tokens, mask, _, before, after, queries = (x[: len(pair.reports)] for x in row[1:])
    losses, words = (float(before.mean()), float(after.mean())), [caption.words for caption in captions]
    said = [
        caption_record(meaning, report, caption.text, caption.changes, None, caption.left)
        for report, caption in zip(pair.reports, captions)
    ]
    origin: dict[str, object] = {
        "reports": [caption.text for caption in captions],
        "losses_before": before.tolist(),
        "losses_after": after.tolist(),
        "words": words,
        "meaning": meaning,
        **{name: [one[name] for one in said] for name in ("exchanges", "labels_changed", "left")},
        **provenance(*losses, [caption.slots for caption in captions], sum(words), int(queries.sum())),
    }
    # One after another, each of the model's whole length.
    return "\n".join(caption.text for caption in captions), tokens.reshape(-1), mask.reshape(-1), origin


def regime(config: RunConfig, given: Given) -> str:
    """Return in words what attacked reports may say, and what keeps them from saying something else."""
    recipe = RECIPES.resolve(config.noise.recipe)
    if noise_keys.meaning_of(config, recipe) == "contradict":
        return "regime 'contradict': attacked reports are made false (noise.meaning)"
    if not noise_keys.text_of(config, recipe):
        return "reports stay as they are"
    head = "regime 'keep': attacked reports are to say what they said (noise.meaning)"
    if not config.noise.protect:
        return f"{head}. WARNING: noise.protect is off, so that findings, sides and negations may be replaced"
    if not config.noise.protect_labels:
        return f"{head}. WARNING: noise.protect_labels is off, so that findings may be replaced"
    if given.labels:
        return f"{head}; the words of --labels stay"
    return f"{head}. WARNING: without --labels only the bundled words of findings stay; name those of your task"


def notes(pairs: Sequence[Pair], surrogate: Surrogate) -> list[str]:
    """Return notes on parts of the reports that the checkpoint does not read: their ends, and unknown words."""
    tokenizer, length = surrogate.tokenizer, surrogate.max_length
    reports = [report for pair in pairs for report in pair.reports]
    read = tokenizer.encode(reports, length).words.max(axis=1) + 1
    cut = int(np.sum(read < [len(words) for words in tokenizer.split(reports)]))
    unknown = tokenizer.unknown_rate(reports)
    found = []
    if cut:
        found.append(
            f"{cut} of {len(reports)} reports are longer than the {length} tokens that the checkpoint reads; what lies "
            "beyond is neither read nor changed"
        )
    if unknown > 0.2:
        found.append(f"{100 * unknown:.0f} % of the words are unknown to the checkpoint's tokenizer")
    return found


def _words(
    config: RunConfig, given: Given, pairs: Sequence[Pair], surrogate: Surrogate
) -> word_candidates.CandidateWords:
    """The words of the reports, most frequent first, of `words_from` and of a thesaurus, restricted as `noise` says."""
    noise, tokenizer, functions = config.noise, surrogate.tokenizer, surrogate.functions
    reports = [report for pair in pairs for report in pair.reports]
    count = Counter(word.lower() for words in tokenizer.split(reports) for word in words if word[:1].isalnum())
    words = sorted(count, key=lambda word: (-count[word], word))
    for path in given.word_files:
        words += constraints.read_list(path)
    if "thesaurus" in noise.candidates:
        words += [word.lower() for group in constraints.read_groups(noise.thesaurus) for word in group]
    lexicon = candidates.build(
        dict.fromkeys(words),
        tokenizer.pieces,
        pad_id=tokenizer.pad_id,
        protected=word_candidates.protected(noise, given.labels or keyword_terms.finding_words()),
        vocab_size=functions.config.vocab_size,
        unk_id=tokenizer.unk_id,
    )
    token_table = np.asarray(functions.token_table(surrogate.params))
    return word_candidates.candidate_words(noise, lexicon, token_table, reports, noise.masked_lm)


def recalls(
    pairs: Sequence[Pair], store: NoisyStore, surrogate: Surrogate, batch_size: int
) -> dict[str, dict[str, float | None]]:
    """Return recall@1 both ways among these pairs, before and after, and attack success by both of its definitions."""
    functions, params, tokenizer, length, _ = surrogate
    mesh, noisy = devices.make_mesh(None), [store[pair.id] for pair in pairs]
    image_of = RowMap(lambda p, images: functions.image_features(p, as_float(images)), mesh, batch_size)
    text_of = RowMap(lambda p, rows: functions.text_features(p, *rows), mesh, batch_size)
    owners = np.repeat(np.arange(len(pairs)), [len(pair.reports) for pair in pairs])

    def ranks(image: str, ids: np.ndarray, mask: np.ndarray, written: Sequence[str]) -> retrieval.Ranks:
        images = retrieval.unit(image_of(params, np.stack([pair[image] for pair in noisy])))
        return retrieval.ranks(images, retrieval.unit(text_of(params, (ids, mask))), owners, texts_as_written=written)

    reports = [report for pair in pairs for report in pair.reports]
    clean = tokenizer.encode(reports, length)
    before = ranks("clean_image", clean.ids, clean.mask, reports)
    ids, mask = (np.concatenate([pair[name].reshape(-1, length) for pair in noisy]) for name in ("tokens", "mask"))
    after = ranks("image", ids, mask, [report for pair in noisy for report in pair["provenance"]["reports"]])
    found: dict[str, dict[str, float | None]] = {}
    for direction in ("image_to_text", "text_to_image"):
        hits = [np.asarray(getattr(ranks, direction)) < 1 for ranks in (before, after)]
        wrong = float(attack_success(*map(jnp.asarray, hits)).turned_wrong)
        found[direction] = {name: float(hit.mean()) for name, hit in zip(("before", "after"), hits)}
        found[direction]["turned_wrong"] = wrong if np.isfinite(wrong) else None
    return found
