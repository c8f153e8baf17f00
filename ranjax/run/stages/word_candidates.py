"""Which words may replace which in the reports of a run, as its config says."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree, Shaped

from ranjax.attacks.text import candidate_sources, candidates, constraints
from ranjax.core import files
from ranjax.core.errors import ConfigError, DataError
from ranjax.data.captions import keyword_terms
from ranjax.data.captions.parts_of_speech import part_of_speech
from ranjax.data.text.tokenizer import Tokenizer
from ranjax.run.context import Context
from ranjax.run.schema.noise_keys import Noise
from ranjax.run.stages import inputs as common
from ranjax.run.stages import prepare


class MaskedLM(NamedTuple):
    """A masked language model with its tokenizer."""

    functions: Any
    params: Any
    tokenizer: Tokenizer
    mask_id: int


class Proposer(NamedTuple):
    """A masked language model, and the candidate words in its tokens."""

    functions: Any
    params: Any
    tokenizer: Tokenizer
    table: candidates.Table
    mask_id: int


class CandidateWords(NamedTuple):
    """The candidate words, and the masked language model that narrows them down slot by slot, if there is one."""

    lexicon: candidates.Lexicon
    proposer: Proposer | None


def of_run(
    context: Context, token_table: Float[np.ndarray, "vocabulary width"], searching: bool = True
) -> CandidateWords:
    """Return the words of the run's tokenizer, protected and restricted as `noise` says, see `candidate_words`.

    Where no word is searched for, as by an attack on images alone, they are the vocabulary without restrictions.
    """
    data, noise = common.data(context), context.config.noise
    if not searching:
        return CandidateWords(vocabulary(data, noise), None)
    folder = masked_lm_folder(context) if "masked_lm" in noise.candidates else noise.masked_lm
    return candidate_words(noise, vocabulary(data, noise), token_table, data.split("train").reports, folder)


def masked_lm(context: Context) -> MaskedLM:
    """Return the masked language model of a run: that of `noise.masked_lm`, or one that is trained here on reports."""
    return _loaded(masked_lm_folder(context), common.data(context).split("train").reports)


def masked_lm_folder(context: Context) -> str | Path:
    """Return the folder of the masked language model that `noise.masked_lm` names, trained here where it says so."""
    given = context.config.noise.masked_lm
    return _trained_here(context) if given in ("corpus", "") else given


def _loaded(folder: str | Path, reports: Sequence[str]) -> MaskedLM:
    from ranjax.models import load_bert_mlm

    functions, params, _ = load_bert_mlm(folder)
    tokenizer = Tokenizer.load(folder, sample=list(reports[:50]))
    return MaskedLM(functions, params, tokenizer, _mask_id(tokenizer))


def candidate_words(
    noise: Noise,
    lexicon: candidates.Lexicon,
    token_table: Float[np.ndarray, "vocabulary width"],
    reports: Sequence[str],
    masked_lm: str | Path,
) -> CandidateWords:
    """Return the words of a lexicon with what all sources of `noise.candidates` allow.

    Args:
      noise: the group of the config.
      lexicon: all words.
      token_table: of the surrogate's text tower, for neighbours.
      reports: some that the masked language model will meet, and `masked_lm`: its folder.

    Raises:
      ConfigError: nothing is left to replace; a masked language model without a mask token.
    """
    table = lexicon.table
    if "neighbours" in noise.candidates:
        near = candidate_sources.neighbours(token_table, table, noise.neighbours, noise.neighbour_cosine)
        table = candidate_sources.restrict(table, near)
    if "thesaurus" in noise.candidates:
        groups = constraints.read_groups(noise.thesaurus)
        table = candidate_sources.restrict(table, candidate_sources.from_groups(lexicon, groups))
    if noise.same_class:
        table = table._replace(classes=candidate_sources.class_bits(lexicon, _classes(lexicon.words)))
    if table.lists is not None and not bool(jnp.any(table.lists >= 0)):
        raise ConfigError("noise.candidates", noise.candidates, "sources that leave at least one replacement")
    lexicon = lexicon._replace(table=table)
    if "masked_lm" not in noise.candidates:
        return CandidateWords(lexicon, None)
    functions, params, tokenizer, mask_id = _loaded(masked_lm, reports)
    own_table = candidates.in_tokens_of(lexicon, tokenizer.pieces, pad_id=tokenizer.pad_id, unk_id=tokenizer.unk_id)
    return CandidateWords(lexicon, Proposer(functions, params, tokenizer, own_table, mask_id))


def vocabulary(data: common.Data, noise: Noise) -> candidates.Lexicon:
    """Return the tokenizer's own words; with `noise.protect`, those that carry the medical statement stay as they
    are.
    """
    tokenizer, words = data.tokenizer, protected(noise, data.prepared.classes, data.prepared.label_words)
    return candidates.build(
        tokenizer.words(), tokenizer.pieces, pad_id=tokenizer.pad_id, protected=words, unk_id=tokenizer.unk_id
    )


def protected(noise: Noise, labels: Sequence[str] = (), label_words: Sequence[str] = ()) -> constraints.Protection:
    """Return the words that are neither replaced nor inserted: with `noise.protect`, all that carry the medical
    statement.

    Names of classes (`labels`) and further words that state them (`label_words`) count with `noise.protect_labels`.
    """
    given = (item.partition("=") for item in noise.lists if item)
    lists: dict[str, str | Path] = {kind: path for kind, _, path in given}
    if noise.protect:
        # How sure a finding is, and what devices there are, is part of the statement, too.
        doubts = constraints.read_list("doubts")
        named = (*label_words, *keyword_terms.device_words()) if noise.protect_labels else ()
        stated = {"labels": labels} if noise.protect_labels else {}
        return constraints.protection(**stated, extra=(*doubts, *named), lists=lists)
    return constraints.protection(kinds=("stop_words",), lists={k: v for k, v in lists.items() if k == "stop_words"})


def proposals(proposer: Proposer, k: int) -> Callable[[PyTree, PyTree, int], Int[Array, "batch slots k"]]:
    """Return a function (shared, rows, slots) that proposes k words for every word; for inside jit.

    `shared` is (parameters, table of the candidate words) of the model, `rows` are tokens, mask and words in its own
    tokens. Each word is hidden in turn.
    """

    def propose(shared: PyTree, rows: PyTree, slots: int) -> jax.Array:
        params, table = shared
        tokens, mask, words = rows
        logits = candidate_sources.masked_logits(
            lambda t, m: proposer.functions.logits(params, t, m), tokens, mask, words, proposer.mask_id
        )
        return candidate_sources.masked_lm_lists(logits, words, table, k, slots)

    return propose


def masked_lm_rows(
    proposer: Proposer | MaskedLM, own: Tokenizer, reports: list[str], length: int
) -> tuple[Shaped[np.ndarray, "reports length"], ...]:
    """Return ids, mask and words of the reports in the model's tokens, with the words counted as `own` counts them."""
    limit = min(2 * length, proposer.functions.config.max_length)
    tokens = proposer.tokenizer.encode_words(own.split(reports), limit)
    return tokens.ids, tokens.mask, tokens.words


def _classes(words: Sequence[str]) -> list[list[str]]:
    """The bundled classes of words of reports, and the parts of speech of the words in none of these."""
    classes = [list(group) for group in constraints.read_groups("word_classes")]
    listed = {word for group in classes for word in group}
    speech: dict[str, list[str]] = {}
    for word in words:
        if word.lower() not in listed and (kind := part_of_speech(word)):
            speech.setdefault(kind, []).append(word)
    return [*classes, *speech.values()]


def _mask_id(tokenizer: Tokenizer) -> int:
    if tokenizer.mask_id is None:
        raise ConfigError("noise.masked_lm", "its tokenizer", "a tokenizer with a mask token")
    return tokenizer.mask_id


def files_of(noise: Noise, *more: Path) -> dict[str, str]:
    """Return the SHA-256 of the user's own files that `noise` names and uses, and of `more`.

    A run that goes on must meet the same words.
    """
    found = [path for path in (*more, *(Path(source) for _, _, source in _lists(noise))) if path.is_file()]
    if "masked_lm" in noise.candidates and noise.masked_lm != "corpus":
        found += sorted(Path(noise.masked_lm).glob("*.safetensors"))
    return {str(path): files.sha256(path) for path in found}


def _lists(noise: Noise) -> list[tuple[str, str, str]]:
    """The lists that `noise` names and uses: key, value, and the name or path in it."""
    named = [("noise.lists", item, item.partition("=")[2]) for item in noise.lists if item]
    thesaurus = ("noise.thesaurus", noise.thesaurus, noise.thesaurus)
    return [*named, thesaurus] if "thesaurus" in noise.candidates else named


def check_files(noise: Noise) -> None:
    """Read the lists that `noise` names and look for its model, so that a run is not refused hours later.

    Raises:
      ConfigError: a file that is not there, or is no list of words.
    """
    for key, value, source in _lists(noise):
        if source == constraints.OFF:
            continue
        try:
            constraints.read_list(source)
        except DataError as error:
            raise ConfigError(key, value, f"a list that can be read: {error}") from error
    given = noise.masked_lm
    if "masked_lm" in noise.candidates and given != "corpus" and not (Path(given) / "config.json").is_file():
        raise ConfigError("noise.masked_lm", given, "'corpus', or a folder of a BERT with its head and a config.json")


def _trained_here(context: Context) -> Path:
    """The folder of a small masked language model of the run's reports, trained where it is not there yet."""
    from ranjax.models import save_bert
    from ranjax.training import hosts, masked_lm
    from ranjax.training.progress import Progress

    config, data = context.config, common.data(context)
    folder = context.folder / "masked_lm"

    def train_here() -> None:
        if (folder / "config.json").exists():
            return
        # One model for all recipes of a run: it depends on no key that they differ in.
        others = (context.folder_of(run.id) / "masked_lm" for run in context.plan if run.stage == "craft")
        if (other := next((path for path in others if (path / "config.json").exists()), None)) is not None:
            beside = folder.with_name(".masked_lm.tmp")
            shutil.rmtree(beside, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(other, beside)
            beside.rename(folder)
            return
        texts = [*data.split("train").reports, *prepare.corpus(config)]
        # A tokenizer without a mask token, as CLIP's, cannot hide a word: the model then has one of its own.
        own = data.tokenizer
        if own.mask_id is None:
            own = Tokenizer.build(texts, max_size=config.text.max_vocabulary)
        tokens = own.encode(texts, data.max_length)
        steps = config.noise.masked_lm_steps
        with Progress("masked language model", steps, unit="steps") as progress:

            def update(done: int) -> None:
                progress.update(done)
                context.poll()

            functions, params, losses = masked_lm.train(
                tokens.ids,
                tokens.mask,
                tokens.words,
                vocab_size=own.vocab_size,
                mask_id=_mask_id(own),
                pad_id=own.pad_id,
                seed=config.seed,
                settings=masked_lm.MaskedLM(steps=steps),
                progress=update,
            )
        context.say(f"  masked language model of the reports: loss {losses[0]:.2f} to {np.mean(losses[-20:]):.2f}")
        own.save(folder / "tokenizer.json")
        save_bert(folder, functions, params)

    hosts.first_does(train_here)
    return folder
