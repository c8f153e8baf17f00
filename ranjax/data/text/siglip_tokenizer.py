"""SigLIP's tokenizers: texts as they were in its training, from the files that its checkpoints carry.

SigLIP (Zhai et al. 2023) was trained on texts in lower case without punctuation, SigLIP 2 (Tschannen et al. 2025) on
texts in lower case. Its tokenizer files mostly leave that to the code around them, and a text that is not cleaned gets
other tokens without a word; so here the cleaning becomes part of the tokenizer, and of the tokenizer.json written.
"""

from __future__ import annotations

import re
import string
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from ranjax.core import files
from ranjax.core.errors import DataError

SENTENCEPIECE = "spiece.model"
END = "</s>"
CANONICAL, LOWER = "canonicalize", "lower"
_CLASSES = {"SiglipTokenizer": CANONICAL, "SiglipTokenizerFast": CANONICAL, "Siglip2Tokenizer": LOWER}
_UNIGRAM = 1
# Texts by which it is told that words can be told apart without changing a token.
_PROBES = (
    "no pleural effusion or pneumothorax.",
    "a 3 mm nodule, in the left upper lobe; unchanged",
    "cardiomegaly",
    "2 views (pa/lateral) of the chest",
)


def cleaning_of(folder: Path) -> str:
    """Return what is done to a text before the tokenizer of `folder`: "canonicalize", "lower", or "" (not SigLIP's)."""
    settings, config, open_clip = (
        files.read_object(folder / name) for name in ("tokenizer_config.json", "config.json", "open_clip_config.json")
    )
    named = _CLASSES.get(settings.get("tokenizer_class", ""))
    if named:
        return named
    text = open_clip.get("model_cfg", open_clip).get("text_cfg", {})
    if "hf_model_name" not in text and (text.get("tokenizer_kwargs") or {}).get("clean") in (CANONICAL, LOWER):
        return text["tokenizer_kwargs"]["clean"]
    if config.get("model_type") in ("siglip", "siglip2"):
        gemma = settings.get("tokenizer_class", "").startswith("Gemma") or config["model_type"] == "siglip2"
        return LOWER if gemma else CANONICAL
    return ""


def cleaned(tokenizer: tokenizers.Tokenizer, how: str) -> tokenizers.Tokenizer:
    """Return the tokenizer with `cleaning_of` in front, and words told apart.

    Raises:
      DataError: one that cannot tell words apart without changing tokens.
    """
    inner = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
    tokenizer.normalizer = normalizers.Sequence([*_cleaning(how), *inner])
    return _telling_words_apart(tokenizer)


def from_sentencepiece(path: Path) -> tokenizers.Tokenizer:
    """Build SigLIP's tokenizer from its SentencePiece model: a text cleaned, a space before it, ``</s>`` behind it.

    As in its training (big_vision) the text is cleaned first and gets its space afterwards. transformers does it the
    other way round, which differs for a text that begins with punctuation and a space.

    Raises:
      DataError: no SentencePiece model, or not one of the unigram kind.
    """
    # Lazily: transformers takes seconds to import.
    from google.protobuf.message import DecodeError
    from transformers.convert_slow_tokenizer import import_protobuf

    proto = import_protobuf().ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise DataError(f"{path} is no SentencePiece model: {error}") from error
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    names = [name for name, _ in pieces]
    if proto.trainer_spec.model_type != _UNIGRAM or END not in names:
        raise DataError(f"{path} is no unigram model with </s>, as SigLIP's is")
    tokenizer = tokenizers.Tokenizer(
        models.Unigram(pieces, unk_id=proto.trainer_spec.unk_id, byte_fallback=proto.trainer_spec.byte_fallback)
    )
    charsmap = proto.normalizer_spec.precompiled_charsmap
    mapped = [normalizers.Precompiled(charsmap)] if charsmap else []
    tidied = [normalizers.Replace(tokenizers.Regex(" {2,}"), " "), normalizers.Strip()]
    tokenizer.normalizer = normalizers.Sequence([*_cleaning(CANONICAL), *mapped, *tidied])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, names.index(END))]
    )
    tokenizer.add_special_tokens([name for name in ("<pad>", END, "<unk>") if name in names])
    return tokenizer


def _cleaning(how: str) -> list[normalizers.Normalizer]:
    if how == LOWER:
        return [normalizers.Lowercase()]
    punctuation = tokenizers.Regex(f"[{re.escape(string.punctuation)}]")
    return [
        normalizers.Lowercase(),
        normalizers.Replace(punctuation, ""),
        normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
        normalizers.Strip(),
    ]


def _telling_words_apart(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Split words before Gemma's space marks, which gives the same tokens: its own tokenizer takes a text for one
    word."""
    if len(set(tokenizer.encode("no effusion", add_special_tokens=False).word_ids)) > 1:
        return tokenizer
    split = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    split.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex("▁+"), "merged_with_next")
    for text in _PROBES:
        own, other = (one.encode(text, add_special_tokens=False) for one in (tokenizer, split))
        if own.ids != other.ids or len(set(other.word_ids)) < len(text.split()):
            raise DataError(f"the tokenizer takes {text!r} for one word, and other tokens come of it where it is split")
    return split
