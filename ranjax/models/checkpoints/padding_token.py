"""The padding token of a checkpoint whose text tower sees padding, SigLIP's: as its tokenizer has it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from ranjax.core.files import read_object

_GEMMA_ROWS = 256_000
"""Tokens of SigLIP 2's tokenizer (Gemma's), which pads with 0; SigLIP's own of 32,000 pads with its end token, 1."""


def padding_id(folder: Path, given: int | None, vocab_size: int) -> int:
    """Return the id that fills texts up.

    The tokenizer in the folder has the last word: configs of SigLIP 2 leave ``pad_token_id`` at SigLIP's 1, which is
    that tokenizer's end token, and open_clip's do not say it.

    Args:
      folder: of the checkpoint, with or without tokenizer files.
      given: by its config; None: not said.
      vocab_size: rows of the token table, which decides where nothing says it.
    """
    found = _of_tokenizer(folder)
    if found is None:
        return given if given is not None else 0 if vocab_size >= _GEMMA_ROWS else 1
    if given is not None and given != found:
        logging.getLogger("ranjax").warning(
            "%s: the config pads with %d, its tokenizer with %d, which is taken", folder, given, found
        )
    return found


def _of_tokenizer(folder: Path) -> int | None:
    settings = read_object(folder / "special_tokens_map.json") | read_object(folder / "tokenizer_config.json")
    name = settings.get("pad_token")
    name = name.get("content") if isinstance(name, Mapping) else name
    if not name:
        return None
    for index, token in (settings.get("added_tokens_decoder") or {}).items():
        if token.get("content") == name:
            return int(index)
    content = read_object(folder / "tokenizer.json")
    return next((token["id"] for token in content.get("added_tokens", ()) if token["content"] == name), None)
