"""An attack on images and reports that a user brings, with a checkpoint that a user brings; see `ranjax.attack`."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ranjax import models
from ranjax.attacks import pairs as joint
from ranjax.attacks.pgd import PGD
from ranjax.attacks.success import attack_success
from ranjax.attacks.text import candidates
from ranjax.attacks.text.restore import restore
from ranjax.attacks.text.substitution import Substitution, needed_length
from ranjax.core import files, keys
from ranjax.core.errors import ConfigError, DataError
from ranjax.core.files import digest
from ranjax.core.pixels import to_float
from ranjax.data.store import StoreWriter
from ranjax.data.text.tokenizer import Tokenizer
from ranjax.evaluation import retrieval
from ranjax.run.stages import attack_file_pairs as attack_pairs
from ranjax.run.stages import attack_file_words as attack_words
from ranjax.run.stages import inputs as common
from ranjax.run.stages.attack_file_pairs import Pair
from ranjax.run.stages.word_candidates import Allowed, proposer_of
from ranjax.run.stages.word_candidates import lm_rows as lm_rows_of
from ranjax.training import devices
from ranjax.training.progress import Progress
from ranjax.training.row_map import RowMap

SHARD = 64
"""Pairs that are saved at a time, and so the most that a cut loses; not tied to the devices at hand."""


class Victim(NamedTuple):
    """A checkpoint: pure functions, parameters, its tokenizer, and the SHA-256 of its weights."""

    functions: Any
    params: Any
    tokenizer: Any
    sha256: str


def load(checkpoint: Path, colour: bool = False) -> Victim:
    """A dual encoder with its tokenizer, from a model folder or a run's workdir; for colour, or for grey images.

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
    return Victim(functions, params, tokenizer, digest([files.sha256(path) for path in weights]))


def attack(
    arguments: argparse.Namespace,
    pairs: Sequence[Pair],
    victim: Victim,
    image: PGD,
    text: Substitution,
    stop: Callable[[], bool],
) -> bool:
    """Fills the store; whether it is full, that is whether nobody asked to stop.

    Raises:
      DataError, ConfigError: images that cannot be read, words that cannot be replaced, a store of another plan; all
        before the first pair is attacked.
    """
    mesh = devices.make_mesh(None)
    reports = [report for pair in pairs for report in pair.reports]
    table = np.asarray(victim.functions.token_table(victim.params))
    words = attack_words.allowed(arguments, victim.tokenizer, reports, victim.functions.config.vocab_size, table)
    if not (arguments.out / "store").exists():
        attack_pairs.check_images(arguments.images, pairs, victim.functions.config.image_size, arguments)
    settings = (
        "recipe", "epsilon", "step", "steps", "norm", "gradient_dtype", "words", "top_k", "similarity", "labels",
        "lists", "words_from", "candidates", "thesaurus", "neighbours", "neighbour_cosine", "masked_lm", "masked_lm_k",
        "resize", "image_mode", "restarts", "share", "beam", "max_queries", "text_search",
    )  # fmt: skip
    writer = StoreWriter(
        arguments.out / "store",
        ids=[pair.id for pair in pairs],
        shard_size=SHARD,
        epsilon=image.epsilon,
        provenance={
            "attack": arguments.recipe,
            "settings": {name: _plain(getattr(arguments, name)) for name in settings},
            "seed": arguments.seed,
            "surrogate": victim.sha256,
            "pairs": digest([tuple(pair) for pair in pairs]),
            "files": attack_words.hashes(arguments),
        },
        norm=arguments.norm,
        key="--out",
    )
    missing = writer.missing()
    program = _program(arguments, pairs, victim, words, image, text, mesh) if missing else None
    with Progress("attack", len(pairs), writer.done, unit="pairs") as progress:
        for number in missing:
            if stop():
                return False
            part = [pairs[i] for i in writer.positions(number)]
            writer.write(number, list(program(part)))  # type: ignore[misc]
            progress.update(writer.done)
    return True


def notes(pairs: Sequence[Pair], victim: Victim) -> list[str]:
    """What of the reports the checkpoint does not see, in words: their ends, and words that it does not know."""
    reports = [report for pair in pairs for report in pair.reports]
    read = victim.tokenizer.encode(reports, victim.functions.config.max_length).words.max(axis=1) + 1
    cut = int(np.sum(read < [len(words) for words in victim.tokenizer.split(reports)]))
    unknown = victim.tokenizer.unknown_rate(reports)
    found = []
    if cut:
        length = victim.functions.config.max_length
        found.append(
            f"{cut} of {len(reports)} reports are longer than the {length} tokens that the checkpoint reads; what lies "
            "beyond is neither read nor changed"
        )
    if unknown > 0.2:
        found.append(f"{100 * unknown:.0f} % of the words are unknown to the checkpoint's tokenizer")
    return found


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _program(
    arguments: argparse.Namespace,
    pairs: Sequence[Pair],
    victim: Victim,
    words: Allowed,
    image: PGD,
    text: Substitution,
    mesh: Any,
) -> Callable[[Sequence[Pair]], Iterator[dict[str, Any]]]:
    """A function from a part of the pairs to what the store takes of them, compiled once."""
    functions, params, tokenizer, _ = victim
    reports = [report for pair in pairs for report in pair.reports]
    lexicon, proposer = words
    propose = proposer_of(proposer, arguments.masked_lm_k) if proposer else None

    def attack(shared: Any, rows: Any) -> Any:
        params, table, lm_shared = shared
        images, tokens, mask, words, drawn, lm_rows = rows
        offered: joint.Allowed = table
        if propose:
            flat_tokens, flat_words, *flat_lm = (x.reshape(-1, x.shape[-1]) for x in (tokens, words, *lm_rows))
            lists = propose(lm_shared, tuple(flat_lm), tokens.shape[-1])
            offered = candidates.for_rows(table, flat_tokens, flat_words, lists)
        result = common.craft_pairs(
            functions,
            params,
            (images, tokens, mask, words, drawn),
            image,
            text,
            offered,
            gradient_dtype=arguments.gradient_dtype,
            recipe=arguments.recipe,
            similarity=arguments.similarity if arguments.similarity > -1 else None,
            hide_id=tokenizer.unk_id if arguments.text_search == "importance" else None,
        )
        found = result.text
        return (
            result.image.images,
            found.tokens,
            found.mask,
            found.choices,
            result.clean_loss,
            result.loss,
            found.queries,
        )

    run = RowMap(attack, mesh, arguments.batch_size)
    shared = run.share((params, lexicon.table, (proposer.params, proposer.table) if proposer else ()))
    size, whole = functions.config.image_size, functions.config.max_length
    # Of all pairs, not of a part: a part that is done later must meet the same program.
    length = needed_length(tokenizer.encode(reports, whole).mask, lexicon.table, text)
    most = max(len(pair.reports) for pair in pairs)

    def program(part: Sequence[Pair]) -> Iterator[dict[str, Any]]:
        colour = arguments.image_mode == "rgb"
        clean = np.stack(
            [attack_pairs.image(arguments.images, pair.id, size, arguments.resize, colour) for pair in part]
        )
        encoded = _by_image(tokenizer.encode([report for pair in part for report in pair.reports], whole), part, most)
        lm_rows: tuple[np.ndarray, ...] = ()
        if proposer:
            # An image with fewer reports than others has its first one in the place of those that it lacks; they are
            # masked out for the encoder, and what is proposed there is not used.
            filled = [[*pair.reports, *[pair.reports[0]] * (most - len(pair.reports))] for pair in part]
            flat = lm_rows_of(proposer, tokenizer, [report for reports in filled for report in reports], length)
            lm_rows = tuple(x.reshape(len(part), most, -1) for x in flat)
        drawn = keys.example_keys(keys.stream(arguments.seed, "attack"), [pair.id for pair in part])
        results = run(shared, (clean, *(x[..., :length] for x in encoded), drawn, lm_rows))
        for i, (images, tokens, mask, choices, before, after, queries) in enumerate(zip(*results)):
            own = part[i].reports
            count = len(own)
            spans = tokenizer.spans(list(own))
            changed = [np.flatnonzero(row >= 0).tolist() for row in choices[:count]]
            attacked = [restore(*of, lexicon) for of in zip(own, spans, choices[:count])]
            padding = ((0, 0), (0, whole - length))
            yield {
                "id": part[i].id,
                "image": images,
                "clean_image": clean[i],
                "report": "\n".join(attacked),
                # One after another, each of the model's whole length.
                "tokens": np.pad(tokens[:count], padding, constant_values=tokenizer.pad_id).reshape(-1),
                "mask": np.pad(mask[:count], padding).reshape(-1),
                "provenance": {
                    "reports": attacked,
                    "losses_before": before[:count].tolist(),
                    "losses_after": after[:count].tolist(),
                    "loss_before": float(before[:count].mean()),
                    "loss_after": float(after[:count].mean()),
                    "words_changed": sum(map(len, changed)),
                    "changed": changed,
                    "queries": int(queries[:count].sum()),
                    "success": bool(after[:count].mean() > before[:count].mean()),
                },
            }

    return program


def _by_image(tokens: Any, part: Sequence[Pair], most: int) -> list[np.ndarray]:
    """Ids, mask and words of the reports as [images, most, L]; reports that an image lacks are empty."""
    starts = np.cumsum([0, *(len(pair.reports) for pair in part)])
    found = []
    for rows, empty in ((tokens.ids, 0), (tokens.mask, False), (tokens.words, -1)):
        filled = np.full((len(part), most, rows.shape[1]), empty, rows.dtype)
        for i, (start, end) in enumerate(itertools.pairwise(starts)):
            filled[i, : end - start] = rows[start:end]
        found.append(filled)
    return found


def recalls(pairs: Sequence[Pair], store: Any, victim: Victim) -> dict[str, Any]:
    """Recall@1 both ways among these pairs, before and after, and attack success by both of its definitions."""
    functions, params, tokenizer, _ = victim
    image_of, text_of = jax.jit(functions.image_features), jax.jit(functions.text_features)
    features: dict[str, list[np.ndarray]] = {name: [] for name in ("clean", "attacked", "report", "attacked_report")}
    whole = functions.config.max_length
    for pair in pairs:
        noisy_pair = store[pair.id]
        clean = to_float(noisy_pair["clean_image"])
        features["clean"].append(np.asarray(image_of(params, clean[None])[0]))
        features["attacked"].append(np.asarray(image_of(params, noisy_pair["image"][None])[0]))
        encoded = tokenizer.encode(list(pair.reports), whole)
        attacked = zip(noisy_pair["tokens"].reshape(-1, whole), noisy_pair["mask"].reshape(-1, whole))
        for name, rows in (("report", zip(encoded.ids, encoded.mask)), ("attacked_report", attacked)):
            features[name] += [np.asarray(text_of(params, ids[None], mask[None])[0]) for ids, mask in rows]
    unit = {name: retrieval.unit(np.stack(rows)) for name, rows in features.items()}
    owners = np.repeat(np.arange(len(pairs)), [len(pair.reports) for pair in pairs])
    written = [report for pair in pairs for report in pair.reports]
    before = retrieval.ranks(unit["clean"], unit["report"], owners, texts_as_written=written)
    written = [report for pair in pairs for report in store.provenance(pair.id)["reports"]]
    after = retrieval.ranks(unit["attacked"], unit["attacked_report"], owners, texts_as_written=written)
    found: dict[str, Any] = {}
    for way in ("image_to_text", "text_to_image"):
        hits = [np.asarray(getattr(ranks, way)) < 1 for ranks in (before, after)]
        success = attack_success(*map(jnp.asarray, hits))
        turned = float(success.turned_wrong)
        found[way] = {
            "before": float(hits[0].mean()),
            "after": float(hits[1].mean()),
            "turned_wrong": turned if np.isfinite(turned) else None,
        }
    return found
