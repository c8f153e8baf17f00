"""Checks that a tokenizer is that of a text tower; a wrong one would otherwise give wrong embeddings in silence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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

    def refuse(expected: str) -> None:
        raise ConfigError(key, value or f"a tokenizer of {tokenizer.vocab_size} tokens", expected)

    # The same tokenizer, or at least one of the same size.
    if recorded and recorded != tokenizer.fingerprint:
        refuse(
            f"the tokenizer that the checkpoint was written with (id {recorded}; this one's is {tokenizer.fingerprint})"
        )
    if tokenizer.vocab_size > rows:
        refuse(
            f"the tokenizer of the checkpoint: it has at most the {rows} rows of the token table, this one has "
            f"{tokenizer.vocab_size} tokens"
        )
    if rows - tokenizer.vocab_size >= PADDED_ROWS:
        refuse(
            f"the tokenizer of the checkpoint: its token table has {rows} rows, this one {tokenizer.vocab_size} tokens"
        )
    # Where the tower begins a text, and where it reads one.
    if begins and tokenizer.bos_id is None:
        refuse("the tokenizer of the checkpoint: this one begins a text with no token of its own")
    if pools:
        if tokenizer.eos_id == tokenizer.bos_id:
            refuse(
                "a tokenizer whose end token is not its begin token: the tower would read every text at its beginning"
            )
        if pools == "eos" and tokenizer.eos_id != eos_id:
            refuse(f"the tokenizer of the checkpoint (its end token is {eos_id}, this one's {tokenizer.eos_id})")
        if pools == "highest_id" and tokenizer.eos_id != tokenizer.vocab_size - 1:
            refuse(
                "a tokenizer whose end token has the largest id, at which the tower pools; here it is "
                f"{tokenizer.eos_id} of 0 to {tokenizer.vocab_size - 1}"
            )
        _check_frame(tokenizer, refuse)
    # How texts are filled up.
    if pad_id is not None and tokenizer.pad_id != pad_id:
        confused = " (it is its end token: name pad_token in tokenizer_config.json)"
        what = confused if tokenizer.pad_id == tokenizer.eos_id else ""
        refuse(f"a tokenizer that pads with {pad_id}, as the checkpoint's; this one pads with {tokenizer.pad_id}{what}")


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


def _check_frame(tokenizer: Tokenizer, refuse: Callable[[str], None]) -> None:
    """Check that the first end token of a text is its last token, for a short text and for one that is cut."""
    for text in ("a", "a " * 64):
        row = tokenizer.encode([text], 8)
        length = int(row.mask[0].sum())
        if int(np.argmax(row.ids[0] == tokenizer.eos_id)) != length - 1:
            shown = row.ids[0, :length].tolist()
            refuse(
                f"a tokenizer that puts its end token {tokenizer.eos_id} at the end of a text alone; it gives {shown}"
            )
