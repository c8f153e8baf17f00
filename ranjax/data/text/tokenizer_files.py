"""The files of a tokenizer: tokenizer.json with tokenizer_config.json beside it, as `transformers` lays them out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import tokenizers

from ranjax.core import files
from ranjax.core.errors import DataError
from ranjax.data.text import siglip_tokenizer, tokenizer_keys
from ranjax.data.text.tokenizer_keys import CONFIG

TOKENIZER = "tokenizer.json"
ID = "ranjax_id"
"""Key of tokenizer_config.json that holds the fingerprint of the tokenizer.json it was written with."""


def read_inner(path: Path) -> tokenizers.Tokenizer:
    """Return the tokenizer of tokenizer.json, or of a folder that holds one (or, failing that, vocabulary files).

    SigLIP's come with the cleaning of texts that they were trained behind (`siglip_tokenizer`).

    Raises:
      DataError: nothing to load, or a file that is no tokenizer.
      ConfigError: a key of its files that is not known, or says what the tokenizer does not do (`tokenizer_keys`).
    """
    inner = _read_inner(path)
    tokenizer_keys.check(inner, path if path.is_dir() else path.parent)
    return inner


def _read_inner(path: Path) -> tokenizers.Tokenizer:
    file = path / TOKENIZER if path.is_dir() else path
    folder = file.parent
    # What this package wrote is whole.
    cleaning = siglip_tokenizer.cleaning_of(folder) if not read_settings(folder).get(ID) else ""
    pieces = folder / siglip_tokenizer.SENTENCEPIECE
    if path.is_dir() and cleaning == siglip_tokenizer.CANONICAL and pieces.is_file():
        return siglip_tokenizer.from_sentencepiece(pieces)
    if file.is_file():
        try:
            inner = tokenizers.Tokenizer.from_file(os.fspath(file))
        # The library raises bare Exception for a file it cannot parse.
        except Exception as error:
            raise DataError(f"{file} is no tokenizer of the tokenizers library: {error}") from error
        tokenizer_keys.check_whole(file, inner)
        return siglip_tokenizer.cleaned(inner, cleaning) if cleaning else inner
    if path.is_dir() and any((path / name).is_file() for name in ("vocab.txt", "vocab.json")):
        tokenizer_keys.check_vocabulary(path)
        return _assemble(path)
    if not path.exists():
        raise DataError(
            f"{path} is no file or folder of this machine, and nothing is fetched: put tokenizer.json (or "
            "vocab.txt, or vocab.json with merges.txt) there first, e.g. by `hf download NAME --local-dir FOLDER`."
        )
    if pieces.is_file():
        raise DataError(f"{pieces} is read for SigLIP alone, and no config beside it says that this is SigLIP's.")
    raise DataError(f"{path} holds neither tokenizer.json nor vocab.txt nor vocab.json with merges.txt.")


def read_settings(folder: Path) -> dict[str, str]:
    """Read the special tokens, ``padding_side`` and `ID` from the JSON files beside a tokenizer, where given; raises as
    `tokenizer_keys.read_settings`."""
    stated = tokenizer_keys.read_settings(folder)
    found = {key: str(stated[key]) for key in (*tokenizer_keys.SPECIALS, "padding_side", ID) if stated.get(key)}
    if not found.get("pad_token") and siglip_tokenizer.cleaning_of(folder) == siglip_tokenizer.CANONICAL:
        found["pad_token"] = siglip_tokenizer.END  # As SigLIP's class has it.
    return found


def recorded_id(folder: str | os.PathLike[str]) -> str:
    """Return the fingerprint of the tokenizer that a checkpoint was written with; empty where its folder holds no
    record."""
    return read_settings(Path(folder)).get(ID, "") if Path(folder).is_dir() else ""


def write(path: str | os.PathLike[str], content: str, fingerprint: str, names: Mapping[str, str]) -> None:
    """Write tokenizer.json and, beside it, the tokenizer_config.json by which `transformers` loads the same.

    Args:
      path: of tokenizer.json.
      content: of tokenizer.json.
      fingerprint: recorded as `ID`.
      names: ``pad_token``, ``eos_token`` and the like, as the vocabulary spells them.
    """
    settings: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        # CLIP's text tower takes no token types, and BERT's are all 0 for one segment.
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "right",
        "truncation_side": "right",
        **names,
        ID: fingerprint,
    }
    files.write_text(path, content)
    files.write_json(Path(path).parent / CONFIG, settings)


def _assemble(folder: Path) -> tokenizers.Tokenizer:
    """Return the fast tokenizer of a folder with vocabulary files alone, as transformers assembles it."""
    # Lazily: transformers takes seconds to import. `vocab_file=` arguments are not used: they silently give UNK only.
    from transformers import BertTokenizer, CLIPTokenizer

    kind = BertTokenizer if (folder / "vocab.txt").is_file() else CLIPTokenizer
    try:
        return kind.from_pretrained(os.fspath(folder), local_files_only=True).backend_tokenizer
    # The library raises anything for files that it cannot read.
    except Exception as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{folder}: transformers cannot assemble its vocabulary files: {words[:200]}") from error
