"""An attack on images and reports that a user brings, with a checkpoint that a user brings; see `ranjax.attack`."""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ranjax import files, keys, models
from ranjax.attacks import candidates, constraints
from ranjax.attacks.image import PGD
from ranjax.attacks.restore import restore
from ranjax.attacks.success import attack_success
from ranjax.attacks.text import Substitution, needed_length
from ranjax.data.deidentify import deidentify
from ranjax.data.images import read_image
from ranjax.data.settings import digest
from ranjax.data.store import StoreWriter
from ranjax.data.tokenizer import Tokenizer
from ranjax.errors import ConfigError, DataError, nearest
from ranjax.evaluation import retrieval
from ranjax.stages import common
from ranjax.training import devices
from ranjax.training.progress import Progress
from ranjax.training.rows import RowMap

SHARD = 64
"""Pairs that are saved at a time, and so the most that a cut loses; not tied to the devices at hand."""


class Pair(NamedTuple):
    """A line of the CSV: the image's path below the folder, which is also its id, and its report."""

    id: str
    report: str


class Victim(NamedTuple):
    """A checkpoint: pure functions, parameters, its tokenizer, and the SHA-256 of its weights."""

    functions: Any
    params: Any
    tokenizer: Any
    sha256: str


def read_pairs(
    images: Path, table: Path, image_column: str, report_column: str, deidentified: bool = True
) -> list[Pair]:
    """The lines of the table, their reports with marks in place of what could name a person, see `deidentify`.

    Raises:
      ConfigError: a column that the table does not have. DataError: no table, nothing in it, an image that is absent
        or outside the folder, an image given twice, an empty report; the line is named.
    """
    if not table.is_file():
        raise DataError(f"The table {table} does not exist.")
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or [])
        for flag, name in (("--image_column", image_column), ("--report_column", report_column)):
            if name not in columns:
                raise ConfigError(flag, name, f"a column of {table}: {columns}", nearest(name, columns))
        rows = [((row[image_column] or "").strip(), (row[report_column] or "").strip()) for row in reader]
    root, seen = images.resolve(), set()
    for number, (name, report) in enumerate(rows, start=2):
        where = f"line {number} of {table}"
        path = (root / name).resolve()
        if not name or not path.is_relative_to(root) or not path.is_file():
            raise DataError(f"{where}: image {name!r} is no file in {images}")
        if name in seen:
            raise DataError(f"{where}: image {name!r} is given twice")
        if not report:
            raise DataError(f"{where}: the report of {name!r} is empty")
        seen.add(name)
    if not rows:
        raise DataError(f"The table {table} has no lines.")
    return [Pair(name, deidentify(report)[0] if deidentified else report) for name, report in rows]


def load(checkpoint: Path) -> Victim:
    """A dual encoder with its tokenizer, from a model folder or a run's workdir.

    Raises:
      DataError, ConfigError: as `models.load` and `Tokenizer.load`; a tokenizer of another model.
    """
    inside = checkpoint / "pretrain" / "clean" / "encoder"
    folder = inside if inside.is_dir() else checkpoint
    if not any((folder / name).is_file() for name in ("config.json", "open_clip_config.json")):
        raise DataError(f"{checkpoint} is neither a model folder (a config, weights) nor a finished run.")
    functions, params, config = models.load(folder, grey_to_rgb=True)
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
    """Fills the store; whether it is full, that is whether nobody asked to stop."""
    mesh = devices.make_mesh(None)
    settings = (
        "recipe", "epsilon", "step", "steps", "norm", "gradient_dtype", "words", "top_k", "similarity", "labels",
        "resize",
    )  # fmt: skip
    writer = StoreWriter(
        arguments.out / "store",
        ids=[pair.id for pair in pairs],
        shard_size=SHARD,
        epsilon=image.epsilon,
        provenance={
            "attack": arguments.recipe,
            "settings": {name: getattr(arguments, name) for name in settings},
            "seed": arguments.seed,
            "surrogate": victim.sha256,
            "pairs": digest([tuple(pair) for pair in pairs]),
        },
        norm=arguments.norm,
    )
    missing = writer.missing()
    program = _program(arguments, pairs, victim, image, text, mesh) if missing else None
    with Progress("attack", len(pairs), writer.done, unit="pairs") as progress:
        for number in missing:
            if stop():
                return False
            part = [pairs[i] for i in writer.positions(number)]
            writer.write(number, list(program(part)))  # type: ignore[misc]
            progress.update(writer.done)
    return True


def _program(
    arguments: argparse.Namespace, pairs: Sequence[Pair], victim: Victim, image: PGD, text: Substitution, mesh: Any
) -> Callable[[Sequence[Pair]], Iterator[dict[str, Any]]]:
    """A function from a part of the pairs to what the store takes of them, compiled once."""
    functions, params, tokenizer, _ = victim
    protected = constraints.protection(labels=[word for word in arguments.labels.split(",") if word.strip()])
    lexicon = vocabulary(tokenizer, [pair.report for pair in pairs], protected, functions.config.vocab_size)

    def attack(shared: Any, rows: Any) -> Any:
        params, table = shared
        result = common.craft_pairs(
            functions,
            params,
            rows,
            image,
            text,
            table,
            gradient_dtype=arguments.gradient_dtype,
            recipe=arguments.recipe,
            similarity=arguments.similarity if arguments.similarity > -1 else None,
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
    shared = run.share((params, lexicon.table))
    size, whole = functions.config.image_size, functions.config.max_length
    # Of all pairs, not of a part: a part that is done later must meet the same program.
    length = needed_length(tokenizer.encode([pair.report for pair in pairs], whole).mask, lexicon.table, text)

    def program(part: Sequence[Pair]) -> Iterator[dict[str, Any]]:
        clean = np.stack([_image(arguments.images, pair.id, size, arguments.resize) for pair in part])
        reports = [pair.report for pair in part]
        rows = tokenizer.encode(reports, whole)
        encoded = [x[:, :length] for x in (rows.ids, rows.mask, rows.words)]
        drawn = keys.example_keys(keys.stream(arguments.seed, "attack"), [pair.id for pair in part])
        results = run(shared, (clean, *encoded, drawn))
        for i, (images, tokens, mask, choices, before, after, queries) in enumerate(zip(*results)):
            spans = tokenizer.spans([reports[i]])[0]
            slots = np.flatnonzero(choices >= 0)
            yield {
                "id": part[i].id,
                "image": images,
                "clean_image": clean[i],
                "report": restore(reports[i], spans, choices, lexicon),
                "tokens": np.pad(tokens, (0, whole - length), constant_values=tokenizer.pad_id),
                "mask": np.pad(mask, (0, whole - length)),
                "provenance": {
                    "loss_before": float(before),
                    "loss_after": float(after),
                    "words_changed": len(slots),
                    "changed": slots.tolist(),
                    "queries": int(queries),
                    "success": bool(after > before),
                },
            }

    return program


def _image(folder: Path, name: str, size: int, mode: str) -> np.ndarray:
    try:
        return read_image(folder / name, size, mode)
    except DataError as error:
        raise DataError(f"image {name!r}: {error}") from error


def vocabulary(tokenizer: Any, reports: Sequence[str], protected: Any, vocab_size: int) -> Any:
    """The words of the reports, most frequent first, as candidates for each other."""
    count = Counter(word.lower() for words in tokenizer.split(reports) for word in words if word[:1].isalnum())
    ordered = sorted(count, key=lambda word: (-count[word], word))
    return candidates.build(
        ordered, tokenizer.pieces, pad_id=tokenizer.pad_id, protected=protected, vocab_size=vocab_size
    )


def recalls(pairs: Sequence[Pair], store: Any, victim: Victim) -> dict[str, Any]:
    """Recall@1 both ways among these pairs, before and after, and attack success by both of its definitions."""
    functions, params, tokenizer, _ = victim
    image_of, text_of = jax.jit(functions.image_features), jax.jit(functions.text_features)
    encoded = tokenizer.encode([pair.report for pair in pairs], functions.config.max_length)
    features: dict[str, list[np.ndarray]] = {name: [] for name in ("clean", "attacked", "report", "attacked_report")}
    for i, pair in enumerate(pairs):
        twin = store[pair.id]
        clean = twin["clean_image"].astype(np.float32) / np.float32(255)
        features["clean"].append(np.asarray(image_of(params, clean[None])[0]))
        features["attacked"].append(np.asarray(image_of(params, twin["image"][None])[0]))
        features["report"].append(np.asarray(text_of(params, encoded.ids[i : i + 1], encoded.mask[i : i + 1])[0]))
        features["attacked_report"].append(np.asarray(text_of(params, twin["tokens"][None], twin["mask"][None])[0]))
    unit = {name: retrieval.unit(np.stack(rows)) for name, rows in features.items()}
    owners = np.arange(len(pairs))
    before = retrieval.ranks(unit["clean"], unit["report"], owners, texts_as_written=[pair.report for pair in pairs])
    after = retrieval.ranks(
        unit["attacked"],
        unit["attacked_report"],
        owners,
        texts_as_written=[store[pair.id]["report"] for pair in pairs],
    )
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
