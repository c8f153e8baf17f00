"""The crafting attack on images, reports and a checkpoint that a user brings; see `ranjax attack`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from ranjax import models
from ranjax.attacks.success import attack_success
from ranjax.attacks.text import candidates, constraints
from ranjax.attacks.text.restore import restore
from ranjax.core import files, keys
from ranjax.core.errors import ConfigError, DataError
from ranjax.core.files import digest
from ranjax.core.pixels import as_float
from ranjax.data.images.reading import read_image
from ranjax.data.recipe_table import RECIPES
from ranjax.data.store import NoisyStore
from ranjax.data.text.tokenizer import Tokenizer, Tokens
from ranjax.evaluation import retrieval
from ranjax.run.schema import RunConfig
from ranjax.run.stages import attack_file_pairs, craft, word_candidates
from ranjax.run.stages import inputs as common
from ranjax.run.stages.attack_file_pairs import Pair
from ranjax.run.stages.pair_program import AttackedPairs, PairProgram, Surrogate, provenance
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
      word_files: lists of words to replace by, besides those of the reports.
    """

    images: Path
    out: Path
    image_mode: str = "grey"
    resize: str = "pad"
    labels: tuple[str, ...] = ()
    word_files: tuple[Path, ...] = ()

    def image(self, name: str, size: int) -> np.ndarray:
        """Return one image as u8[size, size, channels]; a DataError names it."""
        try:
            return read_image(self.images / name, size, self.resize, self.image_mode == "rgb")
        except DataError as error:
            raise DataError(f"image {name!r}: {error}") from error


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
    words, size, folder = _words(config, given, pairs, surrogate), surrogate.functions.config.image_size, given.out
    if not (folder / "store").exists():
        attack_file_pairs.check_images(pairs, lambda name: given.image(name, size))
    settings = {name: getattr(given, name) for name in ("image_mode", "resize", "labels")}
    settings["words_from"] = "".join(map(str, given.word_files))
    ids, plan = [pair.id for pair in pairs], digest([tuple(pair) for pair in pairs])
    writer = craft.writer_of(
        config, folder / "store", ids, surrogate.sha256, "--out", settings, given.word_files, pairs=plan
    )

    def make() -> craft.NoisyPairs:
        recipe, reports = RECIPES.resolve(config.noise.recipe), [pair.reports for pair in pairs]
        program = PairProgram(config, recipe, surrogate, words, reports, devices.make_mesh(None))

        def noisy_pairs(positions: list[int]) -> Iterator[craft.NoisyPair]:
            part = [pairs[i] for i in positions]
            clean = np.stack([given.image(pair.id, size) for pair in part])
            drawn = keys.example_keys(keys.stream(config.seed, "attack"), [pair.id for pair in part])
            found = program(clean, [pair.reports for pair in part], drawn)
            for i, pair in enumerate(part):
                yield _noisy_pair(pair, clean[i], i, found, surrogate.tokenizer, words.lexicon)

        return noisy_pairs

    return craft.fill(writer, "attack", make, check_stop)


def _noisy_pair(
    pair: Pair, clean: np.ndarray, i: int, found: AttackedPairs, tokenizer: Tokenizer, lexicon: candidates.Lexicon
) -> craft.NoisyPair:
    """Return row `i` of what was found, as the store takes it."""
    count = len(pair.reports)
    choices, before, after = (x[i, :count] for x in (found.choices, found.loss_before, found.loss_after))
    changed = [np.flatnonzero(row >= 0).tolist() for row in choices]
    losses = float(before.mean()), float(after.mean())
    spans = tokenizer.spans(list(pair.reports))
    attacked = [restore(*of_report, lexicon) for of_report in zip(pair.reports, spans, choices)]
    return {
        "id": pair.id,
        "image": found.images[i],
        "clean_image": clean,
        "report": "\n".join(attacked),
        # One after another, each of the model's whole length.
        "tokens": found.tokens[i, :count].reshape(-1),
        "mask": found.mask[i, :count].reshape(-1),
        "provenance": {
            "reports": attacked,
            "losses_before": before.tolist(),
            "losses_after": after.tolist(),
            **provenance(*losses, changed, sum(map(len, changed)), int(found.queries[i, :count].sum())),
        },
    }


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
        protected=word_candidates.protected(noise, given.labels),
        vocab_size=functions.config.vocab_size,
    )
    token_table = np.asarray(functions.token_table(surrogate.params))
    return word_candidates.candidate_words(noise, lexicon, token_table, reports, noise.masked_lm)


def recalls(
    pairs: Sequence[Pair], store: NoisyStore, surrogate: Surrogate, batch_size: int
) -> dict[str, dict[str, float | None]]:
    """Return recall@1 both ways among these pairs, before and after, and attack success by both of its definitions."""
    functions, params, tokenizer, length, _ = surrogate
    mesh = devices.make_mesh(None)
    image_of = RowMap(lambda p, images: functions.image_features(p, as_float(images)), mesh, batch_size)
    text_of = RowMap(lambda p, rows: functions.text_features(p, *rows), mesh, batch_size)
    owners = np.repeat(np.arange(len(pairs)), [len(pair.reports) for pair in pairs])
    noisy = [store[pair.id] for pair in pairs]

    def ranks(images: np.ndarray, tokens: Sequence[np.ndarray], written: Sequence[str]) -> retrieval.Ranks:
        image, text = (retrieval.unit(found) for found in (image_of(params, images), text_of(params, tuple(tokens))))
        return retrieval.ranks(image, text, owners, texts_as_written=written)

    reports = [report for pair in pairs for report in pair.reports]
    clean: Tokens = tokenizer.encode(reports, length)
    before = ranks(np.stack([pair["clean_image"] for pair in noisy]), (clean.ids, clean.mask), reports)
    attacked = [np.concatenate([pair[name].reshape(-1, length) for pair in noisy]) for name in ("tokens", "mask")]
    written = [report for pair in pairs for report in store.provenance(pair.id)["reports"]]
    after = ranks(np.stack([pair["image"] for pair in noisy]), attacked, written)
    found: dict[str, dict[str, float | None]] = {}
    for direction in ("image_to_text", "text_to_image"):
        hits = [np.asarray(getattr(ranks, direction)) < 1 for ranks in (before, after)]
        wrong = float(attack_success(*map(jnp.asarray, hits)).turned_wrong)
        found[direction] = {name: float(hit.mean()) for name, hit in zip(("before", "after"), hits)}
        found[direction]["turned_wrong"] = wrong if np.isfinite(wrong) else None
    return found
