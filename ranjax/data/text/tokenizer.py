"""Texts to tokens: a word-level tokenizer built from the reports at hand, or any Hugging Face tokenizer from files.

tokenizer = Tokenizer.build(reports, max_size=2048)
tokens = tokenizer.encode(["No effusion."], length=16)
tokenizer.decode(tokens.ids[0], tokens.mask[0])        # "no effusion."
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from jaxtyping import Bool, Int32

from ranjax.attacks.text import seen_words
from ranjax.core.errors import ConfigError, DataError
from ranjax.data.text import tokenizer_files

PAD, UNK, MASK, BOS, EOS = SPECIALS = ("[PAD]", "[UNK]", "[MASK]", "[BOS]", "[EOS]")

_PAD_NAMES = ("[PAD]", "<pad>", "<|pad|>")
_UNK_NAMES = ("[UNK]", "<unk>", "<|unk|>")
_MASK_NAMES = ("[MASK]", "<mask>")


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Encoded texts.

    Attributes:
      ids: padded with the tokenizer's `pad_id`.
      mask: True on real tokens, begin and end included.
      words: index of the word that a token belongs to, -1 for begin, end and padding; a punctuation mark is a word of
        its own, and what a reader sees as one word ("doesn't", "w/o", "___") is one.
      truncated: texts that were cut; their end token is kept.
    """

    ids: Int32[np.ndarray, "batch length"]
    mask: Bool[np.ndarray, "batch length"]
    words: Int32[np.ndarray, "batch length"]
    truncated: int = 0


class Tokenizer:
    """A tokenizer of the `tokenizers` library with the ids of its special tokens.

    `mask_id` is None where there is no mask token. Texts are framed as the tokenizer itself frames them: its first and
    last special token are `bos_id` and `eos_id` ([CLS] and [SEP] for BERT); `bos_id` is None where a text is only ended
    (SigLIP).
    """

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        pad: str | None = None,
        unk: str | None = None,
        mask: str | None = None,
    ):
        pad = pad or (tokenizer.padding or {}).get("pad_token")  # as transformers does it
        tokenizer.no_truncation()
        tokenizer.no_padding()
        # A report that spells "[EOS]" or "[MASK]" holds those letters, not the token.
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        frame = tokenizer.encode("").ids
        if not frame:
            raise DataError(
                "The tokenizer frames a text with 0 special tokens; an end token at least is needed (its "
                "post-processor is missing)."
            )
        self._head, self._tail = frame[: len(frame) > 1], frame[len(frame) > 1 :]
        self.bos_id = int(frame[0]) if self._head else None
        self.eos_id = int(frame[-1])
        self.pad_id = self._first(pad, _PAD_NAMES, self.eos_id)
        self.unk_id = self._first(unk, _UNK_NAMES, self.pad_id)
        masked = self._first(mask, _MASK_NAMES, -1)
        self.mask_id = None if masked < 0 else masked

    @classmethod
    def build(cls, texts: Iterable[str], min_count: int = 1, max_size: int | None = None) -> Tokenizer:
        """Build a word-level tokenizer: lower case, split at spaces and punctuation, a fixed order of the vocabulary.

        PAD 0, UNK 1, MASK 2, BOS 3, EOS 4, then words by falling count and, among equals, by alphabet.

        Args:
          texts: the training reports.
          min_count: rarer words become UNK.
          max_size: vocabulary size, specials included.

        Raises:
          ConfigError: a limit that leaves no word.
          DataError: the texts hold no words.
        """
        if min_count < 1:
            raise ConfigError("text.min_count", min_count, "at least 1")
        if max_size is not None and max_size <= len(SPECIALS):
            raise ConfigError("text.max_vocabulary", max_size, f"more than the {len(SPECIALS)} special tokens")
        normalizer = tokenizers.normalizers.Sequence([tokenizers.normalizers.NFC(), tokenizers.normalizers.Lowercase()])
        splitter = tokenizers.pre_tokenizers.Sequence(
            [tokenizers.pre_tokenizers.WhitespaceSplit(), tokenizers.pre_tokenizers.Punctuation("isolated")]
        )
        counts: collections.Counter[str] = collections.Counter()
        for text in texts:
            counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
        kept = sorted((word for word in counts if counts[word] >= min_count), key=lambda w: (-counts[w], w))
        kept = [word for word in kept if word not in SPECIALS][: None if max_size is None else max_size - len(SPECIALS)]
        if not kept:
            raise DataError(f"The texts hold no word that occurs {min_count} times or more.")
        vocabulary = {word: index for index, word in enumerate([*SPECIALS, *kept])}
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=UNK))
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{BOS} $A {EOS}", special_tokens=[(BOS, vocabulary[BOS]), (EOS, vocabulary[EOS])]
        )
        tokenizer.add_special_tokens(list(SPECIALS))
        return cls(tokenizer)

    @classmethod
    def load(cls, path: str | os.PathLike[str], sample: Sequence[str] = (), max_unknown: float = 0.2) -> Tokenizer:
        """Load tokenizer.json, or a Hugging Face folder that holds one (or, failing that, vocabulary files).

        Args:
          path: the file or folder.
          sample: texts to try it on: a tokenizer that was assembled wrongly maps everything to UNK without a word.
          max_unknown: largest share of unknown words in `sample`.

        Raises:
          DataError: nothing to load, an unusable tokenizer, or too many unknown words in `sample`.
        """
        path = Path(path).expanduser()
        inner, settings = tokenizer_files.read_inner(path), tokenizer_files.read_settings(_folder(path))
        if settings.get("padding_side", "right") != "right":
            raise DataError(
                f"The tokenizer of {path} pads on the {settings['padding_side']}; here positions "
                "count from a text's first token, and its model would see others than it was trained with."
            )
        loaded = cls(inner, *(settings.get(f"{role}_token") for role in ("pad", "unk", "mask")))
        recorded = settings.get(tokenizer_files.ID, loaded.fingerprint)
        if recorded != loaded.fingerprint:
            raise DataError(
                f"tokenizer.json of {path} is not the one that its checkpoint was written with: its id is "
                f"{loaded.fingerprint}, tokenizer_config.json records {recorded}."
            )
        if sample and (rate := loaded.unknown_rate(sample)) > max_unknown:
            raise DataError(
                f"The tokenizer {path} knows too few of the words at hand: {100 * rate:.0f} % are unknown, at most "
                f"{100 * max_unknown:.0f} % are allowed."
            )
        return loaded

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write tokenizer.json, and beside it the tokenizer_config.json by which `transformers` loads the same."""
        names = {"eos_token": self.eos_id, "pad_token": self.pad_id}
        if self.bos_id is not None:
            names |= {"bos_token": self.bos_id, "cls_token": self.bos_id, "sep_token": self.eos_id}
        if self.unk_id != self.pad_id:
            names["unk_token"] = self.unk_id
        if self.mask_id is not None:
            names["mask_token"] = self.mask_id
        named = {name: self.token(index) for name, index in names.items()}
        tokenizer_files.write(path, self._json, self.fingerprint, named)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of tokenizer.json, 16 hexadecimal digits."""
        return hashlib.sha256(self._json.encode()).hexdigest()[:16]

    @functools.cached_property
    def _json(self) -> str:
        # Keys sorted: the library writes maps of special tokens in no fixed order.
        return json.dumps(json.loads(self._tokenizer.to_str()), sort_keys=True, ensure_ascii=False) + "\n"

    @property
    def vocab_size(self) -> int:
        """One more than the greatest token id."""
        return max(self._vocabulary.values()) + 1

    def token(self, index: int) -> str:
        """Return the token's text as the vocabulary spells it. Raises ValueError for an id outside it."""
        token = self._tokenizer.id_to_token(int(index))
        if token is None:
            raise ValueError(f"token id {index}; the vocabulary has {self.vocab_size} tokens")
        return token

    def encode(self, texts: Sequence[str], length: int) -> Tokens:
        """Encode texts to `length` tokens each: cut where longer (the end token is kept), padded where shorter."""
        return self._frame(list(texts), length)

    def _frame(self, texts: Sequence[Any], length: int, **options: Any) -> Tokens:
        if length < len(self._head) + len(self._tail) + 1:
            raise ConfigError("text.max_length", length, f"at least {len(self._head) + len(self._tail) + 1} tokens")
        ids = np.full((len(texts), length), self.pad_id, np.int32)
        mask = np.zeros((len(texts), length), bool)
        words = np.full((len(texts), length), -1, np.int32)
        truncated, first = 0, len(self._head)
        for row, encoding in enumerate(self._tokenizer.encode_batch(texts, add_special_tokens=False, **options)):
            content, places = encoding.ids, self._places(texts[row], encoding)
            space = length - len(self._head) - len(self._tail)
            truncated += len(content) > space
            content, places = content[:space], places[:space]
            whole = [*self._head, *content, *self._tail]
            ids[row, : len(whole)] = whole
            mask[row, : len(whole)] = True
            words[row, first : first + len(places)] = [-1 if place is None else place for place in places]
        return Tokens(ids, mask, words, truncated)

    def spans(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Return the begin and end of every word of each text: entry w is that of word w of `encode`."""
        found = []
        for text, encoding in zip(texts, self._tokenizer.encode_batch(list(texts), add_special_tokens=False)):
            spans: dict[int, tuple[int, int]] = {}
            for place, (start, end) in zip(self._places(text, encoding), encoding.offsets):
                if place is not None:
                    first, last = spans.get(place, (start, end))
                    spans[place] = (min(first, start), max(last, end))
            words = [spans.get(i, (0, 0)) for i in range(1 + max(spans, default=-1))]
            # Byte-level tokens begin with the space before a word.
            found.append([(end - len(text[start:end].lstrip()), end) for start, end in words])
        return found

    def _places(self, text: str | Sequence[str], encoding: tokenizers.Encoding) -> list[int | None]:
        """Return the word of every token: as the tokenizer cuts, joined where a reader sees one word."""
        places = encoding.word_ids
        return seen_words.join(text, places, encoding.offsets) if isinstance(text, str) else places

    def split(self, texts: Sequence[str]) -> list[list[str]]:
        """Return the words of each text as this tokenizer counts them: entry w is the text of word w of `encode`."""
        return [[text[slice(*span)].strip() for span in spans] for text, spans in zip(texts, self.spans(texts))]

    def encode_words(self, texts: Sequence[Sequence[str]], length: int) -> Tokens:
        """Encode texts that another tokenizer has `split`: `words` counts that one's words."""
        return self._frame([list(words) for words in texts], length, is_pretokenized=True)

    def decode(self, ids: np.ndarray, mask: np.ndarray) -> str:
        """Decode one row of tokens, i32[L] and bool[L]; special tokens other than UNK and MASK are left out."""
        ids, mask = np.asarray(ids), np.asarray(mask)
        if ids.ndim != 1 or ids.shape != mask.shape:
            raise ValueError(f"ids {ids.shape} and mask {mask.shape}; expected one row of each, of one length")
        kept = [int(i) for i in ids[mask] if int(i) not in self._frame_ids]
        if self._tokenizer.decoder is not None:
            return self._tokenizer.decode(kept, skip_special_tokens=False).strip()
        return _join(self.token(i) for i in kept)

    def pieces(self, word: str) -> list[int]:
        """Return the tokens of one word where it stands inside a text."""
        return self._pieces([word])[0]

    def words(self) -> tuple[str, ...]:
        """Return every word that is one token by itself, by token id: no specials, no punctuation, no parts of
        words."""
        named = sorted((index, _bare(token)) for token, index in self._vocabulary.items())
        named = [(index, word) for index, word in named if word and index not in self._special_ids]
        pieces = self._pieces([word for _, word in named])
        return tuple(dict.fromkeys(word for (index, word), own in zip(named, pieces) if own == [index]))

    @functools.cached_property
    def punctuation(self) -> tuple[int, ...]:
        """Ids of the tokens that hold neither letter nor digit."""
        ordinary = ((token, index) for token, index in self._vocabulary.items() if index not in self._special_ids)
        return tuple(sorted(index for token, index in ordinary if not re.search(r"[^\W_]", token.replace("</w>", ""))))

    def unknown_rate(self, texts: Sequence[str]) -> float:
        """Return the share of tokens of `texts` that are UNK."""
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        total = sum(len(item.ids) for item in encoded)
        return sum(item.ids.count(self.unk_id) for item in encoded) / max(total, 1)

    @functools.cached_property
    def _vocabulary(self) -> dict[str, int]:
        return self._tokenizer.get_vocab(with_added_tokens=True)

    @functools.cached_property
    def _special_ids(self) -> frozenset[int]:
        named = {i for i, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        own = (self.eos_id, self.pad_id, self.unk_id, self.bos_id, self.mask_id)
        return frozenset(named | {index for index in own if index is not None})

    @property
    def _frame_ids(self) -> frozenset[int]:
        return frozenset(i for i in (self.bos_id, self.eos_id, self.pad_id) if i is not None)

    def _pieces(self, words: Sequence[str]) -> list[list[int]]:
        # After another word: some tokenizers mark the space before a word in its token.
        encoded = self._tokenizer.encode_batch([f"a {word}" for word in words], add_special_tokens=False)
        return [[i for i, place in zip(item.ids, item.word_ids) if place != 0] for item in encoded]

    def _first(self, given: str | None, names: Sequence[str], otherwise: int) -> int:
        for name in [given, *names]:
            if name and (found := self._tokenizer.token_to_id(name)) is not None:
                return int(found)
        return otherwise


def _bare(token: str) -> str:
    """Return a vocabulary entry as a word, or "" for a part of a word or what has no letter or digit."""
    if token.startswith("##"):
        return ""
    word = token.removesuffix("</w>").lstrip("Ġ▁")
    return word if re.fullmatch(r"[^\W_]+", word) else ""


def _join(tokens: Iterable[str]) -> str:
    """Join words to a text: no space before closing punctuation or around hyphens and slashes."""
    text = " ".join(tokens)
    text = re.sub(r" ([.,;:!?%)\]])", r"\1", text)
    text = re.sub(r"([(\[]) ", r"\1", text)
    text = re.sub(r"(?<=\d)([.,]) (?=\d)", r"\1", text)
    return re.sub(r"(?<=\w) ([-/'’]) (?=\w)", r"\1", text)


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent
