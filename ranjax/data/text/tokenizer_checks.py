"""Checks that a tokenizer is that of a text tower; a wrong one would otherwise give wrong embeddings in silence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from ranjax.core.errors import ConfigError, DataError
from ranjax.data.text.tokenizer import Tokenizer

PADDED_ROWS = 1024
"""Token tables are rounded up to a multiple of at most this; one with more rows to spare is another tokenizer's."""


def check_fits(
    tokenizer: Tokenizer,
    rows: int,
    *,
    pools: str = "",
    eos_id: int | None = None,
    pad_id: int | None = None,
    begins: bool = True,
    recorded: str = "",
    key: str = "text.tokenizer",
    value: str = "",
) -> None:
    """Refuse a tokenizer whose tokens mean something else to a text tower.

    Args:
      tokenizer: the candidate.
      rows: of the tower's token table.
      pools: at which token the tower reads a text: "eos" (the first `eos_id`), "highest_id" (the first occurrence of
        the largest id), or empty where it takes none of these (a BERT).
      eos_id: of the tower, for "eos".
      pad_id: what the tower's config pads with, where the tower was trained with that id (a BERT, SigLIP's); None: any.
      begins: the tower was trained on texts that begin with a token of their own (all but SigLIP's).
      recorded: fingerprint of the tokenizer that the checkpoint was written with; empty: not known.
      key, value: of the config, for messages.

    Raises:
      ConfigError: more tokens than rows, many fewer, another tokenizer than the recorded one, an end token that the
        tower does not pool at, one that is the begin token as well, or a padding token of another model.
    """

    size, eos, pad, theirs = tokenizer.vocab_size, tokenizer.eos_id, tokenizer.pad_id, "the tokenizer of the checkpoint"
    misplaced = _misplaced_end(tokenizer) if pools else []
    confused = " (it is its end token: name pad_token in tokenizer_config.json)" if pad == eos else ""
    faults = (
        # The same tokenizer, or at least one of the same size.
        (
            recorded not in ("", tokenizer.fingerprint),
            f"the tokenizer that the checkpoint was written with (id {recorded}; this one's is "
            f"{tokenizer.fingerprint})",
        ),
        (size > rows, f"{theirs}: it has at most the {rows} rows of the token table, this one has {size} tokens"),
        (rows - size >= PADDED_ROWS, f"{theirs}: its token table has {rows} rows, this one {size} tokens"),
        # Where the tower begins a text, and where it reads one.
        (begins and tokenizer.bos_id is None, f"{theirs}: this one begins a text with no token of its own"),
        (
            pools and eos == tokenizer.bos_id,
            "a tokenizer whose end token is not its begin token: the tower would read every text at its beginning",
        ),
        (pools == "eos" and eos != eos_id, f"{theirs} (its end token is {eos_id}, this one's {eos})"),
        (
            pools == "highest_id" and eos != size - 1,
            f"a tokenizer whose end token has the largest id, at which the tower pools; here it is {eos} of 0 "
            f"to {size - 1}",
        ),
        (misplaced, f"a tokenizer that puts its end token {eos} at the end of a text alone; it gives {misplaced}"),
        # How texts are filled up.
        (
            pad_id not in (None, pad),
            f"a tokenizer that pads with {pad_id}, as the checkpoint's; this one pads with {pad}{confused}",
        ),
    )
    for wrong, expected in faults:
        if wrong:
            raise ConfigError(key, value or f"a tokenizer of {size} tokens", expected)


def check_ends(
    tokens: Int[np.ndarray, "batch length"],
    mask: Bool[np.ndarray, "batch length"],
    eos_id: int,
    ids: Sequence[str] = (),
) -> None:
    """Refuse rows of tokens that were cut without keeping their end token, or whose mask hides it.

    Args:
      tokens, mask: of texts, with True on real tokens.
      eos_id: the end token.
      ids: names of the rows, for the message.

    Raises:
      DataError: names the rows whose last real token is not `eos_id`.
    """
    tokens, mask = np.asarray(tokens), np.asarray(mask)
    last = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)
    bad = np.flatnonzero((tokens[np.arange(len(tokens)), last] != eos_id) | ~mask.any(axis=1))
    if bad.size:
        named = ", ".join(ids[int(i)] if len(ids) else f"row {i}" for i in bad[:3])
        raise DataError(
            f"{bad.size} of {len(tokens)} texts do not end with the end token {eos_id} ({named}): they were cut "
            "without keeping it, or it was taken for padding. Encode with Tokenizer.encode, which keeps it."
        )


def _misplaced_end(tokenizer: Tokenizer) -> list[int]:
    """Return the tokens of a short text, or of one that is cut, whose first end token is not its last token."""
    for text in ("a", "a " * 64):
        row = tokenizer.encode([text], 8)
        length = int(row.mask[0].sum())
        if int(np.argmax(row.ids[0] == tokenizer.eos_id)) != length - 1:
            return row.ids[0, :length].tolist()
    return []
