"""Which words may replace which in an attack on reports that a user brings; see `ranjax.attack`."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ranjax.attacks.text import candidates, constraints
from ranjax.core.errors import ConfigError, nearest
from ranjax.run.stages import word_candidates as candidate_words
from ranjax.run.stages.word_candidates import Allowed, narrowed, read_proposer, refuse_nothing_left

SOURCES = ("neighbours", "thesaurus")
"""What narrows the candidates down, beside a masked language model; several are intersected."""


def chosen_sources(named: str) -> tuple[str, ...]:
    """The names in `--candidates`, with commas between them. Raises ConfigError for one that is not in `SOURCES`."""
    found = tuple(name.strip() for name in named.split(",") if name.strip())
    for name in found:
        if name not in SOURCES:
            raise ConfigError("--candidates", name, f"some of {', '.join(SOURCES)}", nearest(name, SOURCES))
    return found


def protected(arguments: argparse.Namespace) -> constraints.Protection:
    """The words that stay as they are, by `--labels` and `--lists`.

    Raises:
      ConfigError: `--lists` that is no KIND=FILE. DataError: an unknown kind, or a list that cannot be read.
    """
    for item in arguments.lists or ():
        if not all(item.partition("=")):
            raise ConfigError("--lists", item, "KIND=FILE, or KIND=off")
    lists = {kind: path for kind, _, path in (item.partition("=") for item in arguments.lists or ())}
    labels = [word for word in arguments.labels.split(",") if word.strip()]
    return constraints.protection(labels=labels, lists=lists)


def check_files(arguments: argparse.Namespace) -> None:
    """Reads every list of words that is named, so that one that cannot be read is refused first."""
    protected(arguments)
    if arguments.words_from:
        constraints.read_list(arguments.words_from)
    if "thesaurus" in chosen_sources(arguments.candidates):
        constraints.read_groups(arguments.thesaurus)


def allowed(
    arguments: argparse.Namespace,
    tokenizer: Any,
    reports: Sequence[str],
    vocab_size: int,
    token_table: np.ndarray,
) -> Allowed:
    """The words of the reports, most frequent first, of `--words_from` and of a thesaurus, restricted as asked for.

    Args:
      arguments: of `ranjax.attack`.
      tokenizer: of the victim.
      reports: all that will be attacked.
      vocab_size: rows of the victim's token table.
      token_table: f[V, W], for `neighbours`.

    Raises:
      ConfigError: sources that leave nothing to replace; a masked language model without a mask token.
      DataError: `--words_from` or `--thesaurus` cannot be read.
    """
    named, words = chosen_sources(arguments.candidates), _words_of(tokenizer, reports)
    if arguments.words_from:
        words += constraints.read_list(arguments.words_from)
    groups = constraints.read_groups(arguments.thesaurus) if "thesaurus" in named else None
    words += [word.lower() for group in groups or () for word in group]
    lexicon = candidates.build(
        dict.fromkeys(words),
        tokenizer.pieces,
        pad_id=tokenizer.pad_id,
        protected=protected(arguments),
        vocab_size=vocab_size,
    )
    near = (arguments.neighbours, arguments.neighbour_cosine) if "neighbours" in named else None
    lexicon = lexicon._replace(table=narrowed(lexicon, token_table, near, groups))
    refuse_nothing_left(lexicon.table, "--candidates", arguments.candidates)
    return Allowed(lexicon, read_proposer(arguments.masked_lm, lexicon, reports) if arguments.masked_lm else None)


def hashes(arguments: argparse.Namespace) -> dict[str, str]:
    """SHA-256 of every file that decides about words."""
    named = [arguments.words_from, arguments.thesaurus, *(item.partition("=")[2] for item in arguments.lists or ())]
    return candidate_words.hashes(named, arguments.masked_lm or "")


def _words_of(tokenizer: Any, reports: Sequence[str]) -> list[str]:
    count = Counter(word.lower() for words in tokenizer.split(reports) for word in words if word[:1].isalnum())
    return sorted(count, key=lambda word: (-count[word], word))
