"""Craft a noisy pair of every pair that the highest ratio takes: an attack on the model of ratio 0, or a control."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import operator
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Shaped

from ranjax.core import files
from ranjax.core.errors import ConfigError, DataError
from ranjax.core.pixels import to_float
from ranjax.data.captions.caption_file import FileCaptions
from ranjax.data.captions.comparison import caption_record
from ranjax.data.captions.keyword_rewrites import Found
from ranjax.data.noisy_pairs import select
from ranjax.data.recipe_table import RECIPES, Recipe
from ranjax.data.space import require_space
from ranjax.data.store import NoisyStore, StoreWriter, set_aside
from ranjax.data.text.tokenizer import Tokens
from ranjax.evaluation.retrieval import unit
from ranjax.run import config as configs
from ranjax.run import machine
from ranjax.run.context import Context, context_of
from ranjax.run.plan import plan
from ranjax.run.schema import RunConfig, noise_keys
from ranjax.run.stages import caption_rewrites, plausibility, shard_queue, target_features
from ranjax.run.stages import inputs as common
from ranjax.run.stages import word_candidates as candidates
from ranjax.run.stages.caption_rewrites import CaptionRewriter, facts_of
from ranjax.run.stages.noisy_captions import NoisyCaption, rewritten, substituted
from ranjax.run.stages.pair_program import AttackedPairs, PairProgram, Surrogate, provenance
from ranjax.training import devices, hosts
from ranjax.training.progress import Progress

NoisyPair = dict[str, Any]
NoisyPairs = Callable[[list[int]], Iterator[NoisyPair]]
"""A function from positions in the store to their noisy pairs, as `StoreWriter.write` takes them."""


def run(context: Context) -> dict[str, Any]:
    """Leave a noisy store; finished shards of an earlier, interrupted run stay as they are."""
    context, recipe, chosen, open_store, make = _work(context)
    title = f"craft {recipe.name}"

    def begin() -> None:
        writer = open_store()
        for fault in writer.damaged():
            context.say(f"  {fault.what} It is set aside and crafted again.")
            set_aside(writer.folder, fault.shard)
        if context.pool is not None:
            own = (context.workdir, context.stage_run.id, context.fingerprint, Path.cwd())

            def task_of(numbers: shard_queue.Numbers) -> Callable[[], None]:
                return functools.partial(craft_shards, *own, numbers)

            shard_queue.hand_out(context.pool, writer, task_of, title, context.stop, context.say)
            context.check_stop(f"{writer.done} of {len(writer.ids)} pairs crafted")

    hosts.first_does(begin)  # the plan is written, and lies there when the others read it
    store = fill(open_store(), title, make, context.check_stop, context.say)
    captions = plausibility.measure(context, store, dict(zip(chosen.ids, chosen.reports)))
    return _summary(context, recipe.name, store, [store.provenance(i) for i in chosen.ids], captions)


class _Work(NamedTuple):
    """What crafting takes: the context with this process's own devices, the pairs to attack, and how."""

    context: Context
    recipe: Recipe
    chosen: common.Split
    open_store: Callable[[], StoreWriter]
    make: Callable[[], NoisyPairs]


def _work(context: Context) -> _Work:
    # Processes share the shards out: each works through its own, on its own devices.
    context = dataclasses.replace(context, mesh=devices.local_mesh(context.mesh))
    config, data = context.config, common.data(context)
    recipe, folder = RECIPES.resolve(config.noise.recipe), context.folder / "store"
    train = data.split("train")
    chosen = train.take(np.flatnonzero(select(train.ids, max(config.noise.ratios), config.seed)))
    # One file, named as the encoder's layout names it.
    (weights,) = common.encoder_folder(context, common.clean_condition(context)).glob("*.safetensors")
    open_store = functools.partial(writer_of, config, folder, chosen.ids, files.sha256(weights), "noise")
    make = functools.partial(_control if recipe.kind == "control" else _attack, context, recipe, chosen)
    return _Work(context, recipe, chosen, open_store, make)


def craft_shards(workdir: Path, run_id: str, fingerprint: str, here: Path, numbers: Sequence[int]) -> None:
    """Write the shards `numbers` of a craft stage in `workdir`, as a task on any machine that sees it.

    Args:
      workdir: of a run whose process holds the lock and waits.
      run_id, fingerprint: of the stage run.
      here: the folder of that process, from which paths of the config count.
      numbers: of the shards; those that are there are not written again.

    Raises:
      ConfigError: this machine does not see the folders.
    """
    for folder in (here, workdir):
        if not folder.is_dir():
            raise ConfigError("--workdir", str(folder), f"a folder that {socket.gethostname()} sees, too")
    with contextlib.chdir(here):
        writer, noisy_pairs = _on_this_machine(workdir, run_id, fingerprint)
        missing = writer.missing()
        for number in numbers:
            if number in missing:
                writer.write(number, list(noisy_pairs(writer.positions(number))))


@functools.lru_cache(maxsize=1)
def _on_this_machine(workdir: Path, run_id: str, fingerprint: str) -> tuple[StoreWriter, NoisyPairs]:
    """Return what crafts in this process: the program is compiled for its first task."""
    config = configs.of_run(workdir)
    (run,) = (run for run in plan(configs.typed(config)) if run.id == run_id)
    context = context_of(config, workdir, run, machine.ready(config, alone=True), {})
    if context.fingerprint != fingerprint:
        raise ConfigError("--workdir", str(workdir), f"the run that gave this task; {run_id} there is another one")
    work = _work(context)
    return work.open_store(), work.make()


def writer_of(
    config: RunConfig,
    folder: Path,
    ids: Sequence[str],
    surrogate: str,
    key: str,
    settings: Mapping[str, object] = MappingProxyType({}),
    word_files: Sequence[Path] = (),
    **facts: object,
) -> StoreWriter:
    """Return the writer of a store that is made as the group `noise` says, against weights of SHA-256 `surrogate`.

    With further settings and files of words that noisy pairs depend on, and facts that another plan would differ in.
    """
    norm, epsilon = noise_keys.ball(config)
    shared = {
        "attack": RECIPES.resolve(config.noise.recipe).name,
        "settings": noise_keys.recorded(config) | dict(settings),
        "seed": config.seed,
        "surrogate": surrogate,
        **facts,
        "files": candidates.files_of(config.noise, *word_files, *caption_rewrites.files_of(config)),
    }
    return StoreWriter(folder, ids, config.noise.shard_size, epsilon, shared, norm, key)


def fill(
    writer: StoreWriter,
    title: str,
    make: Callable[[], NoisyPairs],
    check_stop: Callable[[str], None],
    say: Callable[[str], None] = lambda line: None,
) -> NoisyStore:
    """Write the shards that are missing, each process its own, and return the store.

    `make` is called where there is one; `check_stop` before each shard, as often in every process. What the rest costs
    is said after the first two shards, of which the first compiles the program.

    Raises:
      files.DiskFullError: the disk has no space for the shards that are left, as far as the first one tells.
    """
    own = writer.missing(jax.process_index(), jax.process_count())
    rounds = max(hosts.gather(len(own)))
    noisy_pairs = make() if rounds else None
    with Progress(title, len(writer.ids), writer.done, unit="pairs") as progress:
        for number in itertools.islice(itertools.chain(own, itertools.repeat(None)), rounds):
            check_stop(f"{writer.done} of {len(writer.ids)} pairs crafted")
            if noisy_pairs is None or number is None:
                continue
            begin = time.monotonic()
            writer.write(number, list(noisy_pairs(writer.positions(number))))
            progress.update(writer.done)
            if number in own[:2] and number != own[-1]:
                say(_rest(writer, number, time.monotonic() - begin, compiled=number == own[0]))
    hosts.barrier()
    return NoisyStore.open(writer.folder)


def _rest(writer: StoreWriter, number: int, seconds: float, compiled: bool) -> str:
    """Return what the shards that are left cost, from one that is written; DiskFullError where they do not fit."""
    made, left = len(writer.positions(number)), len(writer.ids) - writer.done
    each, rate = writer.bytes_of(number) / made, made / seconds
    require_space(writer.folder, int(each * left))
    hours = left / (rate * jax.process_count()) / 3600
    told = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
    slow = ", compilation included" if compiled else ""
    return f"  {rate:.3g} pairs/s{slow}: {left} pairs left take about {told} and {each * left / 1e6:.1f} MB"


def _summary(
    context: Context, recipe: str, store: NoisyStore, records: list[dict[str, Any]], captions: dict[str, Any]
) -> dict[str, Any]:
    rise = np.array([r["loss_after"] - r["loss_before"] for r in records])
    words = np.array([r["words_changed"] for r in records])
    success = float(np.mean([r["success"] for r in records]))
    context.say(
        f"  {len(records)} noisy pairs; cosine of the pair lowered by {rise.mean():.3f} on average, on "
        f"{100 * np.mean(rise > 0):.1f} % of the pairs; {words.mean():.2f} words changed a report"
    )
    reached = _reached(records)
    if reached:
        context.say(
            f"  cosine to the target {reached['mean_target_cosine_before']:.3f} -> "
            f"{reached['mean_target_cosine']:.3f}; {100 * success:.1f} % of the images are nearer to it than to their "
            f"own clean ones; median rank of the target {reached['median_target_rank']:g}, first of all for "
            f"{100 * reached['target_first']:.1f} %"
        )
    for line in plausibility.lines(captions):
        context.say(f"  {line}")
    return {
        "recipe": recipe,
        "pairs": len(records),
        "store": store.fingerprint,
        "surrogate": store.shared["surrogate"],
        "mean_loss_rise": float(rise.mean()),
        "success": success,
        "mean_words_changed": float(words.mean()),
        **reached,
        "captions": captions,
    }


def _reached(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return how near noisy pairs came to their targets; nothing where they have none."""
    if not records or "target" not in records[0]:
        return {}
    names = ("target_cosine_before", "target_cosine", "own_cosine")
    means = {f"mean_{name}": float(np.mean([r[name] for r in records])) for name in names}
    ranks = np.array([r["target_rank"] for r in records])
    return means | {"median_target_rank": float(np.median(ranks)), "target_first": float(np.mean(ranks == 1))}


def _attack(context: Context, recipe: Recipe, chosen: common.Split) -> NoisyPairs:
    """An attack on the clean encoder, compiled once for all shards of the chosen pairs."""
    config, data = context.config, common.data(context)
    functions, params = common.encoder(context, common.clean_condition(context))
    surrogate = Surrogate(functions, params, data.tokenizer, data.max_length)
    rewriter = caption_rewrites.of_run(context, recipe)
    if rewriter is not None:
        _refuse_unchangeable(context, rewriter, chosen)
    searching = noise_keys.text_of(config, recipe) == "words"
    words = rewriter or candidates.of_run(context, np.asarray(functions.token_table(params)), searching)
    reports = [[report] for report in chosen.reports]
    program = PairProgram(config, recipe, surrogate, words, reports, context.mesh, context.poll)
    targets = target_features.of_run(context, recipe, chosen) if recipe.needs_target else None
    source, meaning = data.prepared.splits["train"], noise_keys.meaning_of(config, recipe)

    def captions(split: common.Split, found: AttackedPairs, options: Sequence[Found]) -> list[NoisyCaption]:
        tokens, mask, choices = (x[:, 0] for x in (found.tokens, found.mask, found.choices))
        if isinstance(words, CaptionRewriter):
            return [rewritten(*row) for row in zip(split.reports, options, choices)]
        rows = zip(split.reports, tokens, mask, choices)
        return [substituted(*row, data.tokenizer, words.lexicon) for row in rows]

    def attack(positions: list[int]) -> Iterator[NoisyPair]:
        split = chosen.take(np.array(positions))
        keys, facts = common.example_keys(context, "craft", split.ids), facts_of(source, split.ids)
        options = [] if rewriter is None else [rewriter(*row) for row in zip(split.ids, split.reports, facts)]
        texts, written = [[option.rewrites] for option in options], [[report] for report in split.reports]
        found = program(split.images, written, keys, targets and targets.rows(positions), texts)
        made = captions(split, found, options)
        tokens, mask, _, *numbers = (x[:, 0] for x in found[1:-1])
        origins = []
        for caption, report, fact, *losses in zip(made, split.reports, facts, *(x.tolist() for x in numbers)):
            before, after, queries = losses
            origin = provenance(before, after, caption.slots, caption.words, queries)
            origins.append(origin | caption_record(meaning, report, caption.text, caption.changes, fact, caption.left))
        if targets:
            origins = list(map(operator.or_, origins, targets.reached(positions, found.features)))
        texts_after = [caption.text for caption in made]
        yield from records(split.ids, found.images, split.images, texts_after, tokens, mask, origins)

    return attack


def _refuse_unchangeable(context: Context, rewriter: CaptionRewriter, chosen: common.Split) -> None:
    """Raise DataError where captions that no exchange makes false are to be refused, and there are some."""
    _count_unknown(context, rewriter)
    if noise_keys.keyword_settings(context.config).without != "refuse":
        return
    facts = facts_of(common.data(context).prepared.splits["train"], chosen.ids)
    tried = {name: rewriter(name, report, fact) for name, report, fact in zip(chosen.ids, chosen.reports, facts)}
    lacking = {name: found.reason for name, found in tried.items() if not found.rewrites}
    if lacking:
        what = f"{len(lacking)} of {len(chosen.ids)} captions cannot be made false ({_counted(lacking.values())})"
        raise DataError(
            f"{what}, {next(iter(lacking))!r} first; noise.keywords.without = 'leave' leaves and counts them."
        )


def _count_unknown(context: Context, rewriter: CaptionRewriter) -> None:
    """Say how many captions of a user's file are of no training pair; DataError where all of them are."""
    if not isinstance(rewriter.write, FileCaptions):
        return
    path, count = noise_keys.caption_file(context.config), len(rewriter.write.captions)
    unknown = rewriter.write.unknown(common.data(context).split("train").ids)
    if len(unknown) == count:
        raise DataError(f"none of the {count} ids of {path} is a training pair's, e.g. {unknown[0]!r}.")
    if unknown:
        context.say(f"  {len(unknown)} of the {count} captions of {path} are of no training pair")


def _counted(reasons: Iterable[str]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in Counter(reasons).most_common())


def _control(context: Context, recipe: Recipe, chosen: common.Split) -> NoisyPairs:
    """Noisy pairs without an attack, e.g. the norm of one with random signs, or reports swapped among the chosen
    pairs.
    """
    config, data = context.config, common.data(context)
    source = data.prepared.splits["train"]
    options = noise_keys.RECIPE_KEYS.options_of(config, recipe)
    _, epsilon = noise_keys.ball(config)
    view = recipe.craft(source, chosen.ids, config.seed, epsilon, **options)
    place = {name: index for index, name in enumerate(source.ids)}

    def control(positions: list[int]) -> Iterator[NoisyPair]:
        split = chosen.take(np.array(positions))
        changed = [view[place[name]] for name in split.ids]
        images = np.stack([to_float(r["image"]) for r in changed])
        reports = [str(r["report"]) for r in changed]
        tokens = data.encode(reports)
        before = pair_losses(context, split.images, data.encode(split.reports)).tolist()
        after = pair_losses(context, images, tokens).tolist()
        meaning = noise_keys.meaning_of(config, recipe)
        origins = []
        for old, new, fact, *losses in zip(split.reports, reports, facts_of(source, split.ids), before, after):
            origins.append(provenance(losses[0], losses[1], [], 0, 0) | caption_record(meaning, old, new, [], fact))
        yield from records(split.ids, images, split.images, reports, tokens.ids, tokens.mask, origins)

    return control


def records(*columns: Iterable[object]) -> Iterator[NoisyPair]:
    """Yield noisy pairs, of columns of ids, noisy and clean images, reports, tokens, masks and provenance."""
    names = ("id", "image", "clean_image", "report", "tokens", "mask", "provenance")
    for row in zip(*columns, strict=True):
        yield dict(zip(names, row, strict=True))


def pair_losses(
    context: Context, images: Shaped[np.ndarray, "batch height width channels"], tokens: Tokens
) -> np.ndarray:
    """Return f[batch], minus the cosine of each image and its report under the surrogate: the loss that attacks
    raise.
    """
    functions, params = common.encoder(context, common.clean_condition(context))
    image = unit(common.image_features(context, functions, params, images))
    text = unit(common.text_features(context, functions, params, tokens))
    return -np.sum(np.asarray(image) * np.asarray(text), axis=-1)
