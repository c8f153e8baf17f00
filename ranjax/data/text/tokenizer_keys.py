"""Keys of the files of a tokenizer: used, known to change no token, or refused; and what two files say of one thing.

Behind tokenizer.json lie tokenizer_config.json, special_tokens_map.json and added_tokens.json, of which transformers
takes some keys and passes the others over. A key that would give other tokens there than here is refused.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers

from ranjax.core import files
from ranjax.core.errors import ConfigError, DataError
from ranjax.models.checkpoints.config_keys import is_nothing, refuse_type, refuse_unknown

CONFIG, SPECIALS_MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
SPECIALS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_SEVERAL = ("additional_special_tokens", "extra_special_tokens")
# How long texts are is the model's config's to say, and ranjax pads and cuts by itself.
_OF_LENGTHS = (
    "model_max_length max_len max_length stride truncation_strategy truncation padding pad_to_multiple_of "
    "pad_token_type_id return_token_type_ids model_input_names"
)
_OF_DECODING = (
    "clean_up_tokenization_spaces clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output errors "
    "spaces_between_special_tokens decode_with_prefix_space trim_offsets"
)
_OF_FILES = (
    "tokenizer_class tokenizer_file tokenizer_type vocab_file merges_file special_tokens_map_file name_or_path "
    "processor_class auto_map use_fast from_slow legacy backend is_local local_files_only files_loaded init_inputs "
    "transformers_version ranjax_id device verbose tokenizer_object"
)
_OF_CHATS = (
    "chat_template response_template response_schema chat_control_tokens use_default_system_prompt "
    "split_special_tokens"  # a report that spells a special token holds letters here, too
)
HARMLESS = frozenset(f"{_OF_LENGTHS} {_OF_DECODING} {_OF_FILES} {_OF_CHATS}".split())
"""Keys of tokenizer_config.json that change no token of a report."""
_CHECKED = (
    *SPECIALS, *_SEVERAL, "added_tokens_decoder", "padding_side", "truncation_side", "do_lower_case", "strip_accents",
    "tokenize_chinese_chars", "add_prefix_space", "add_bos_token", "add_eos_token", "do_basic_tokenize",
    "wordpieces_prefix",
)  # fmt: skip
# Switches at which texts are cut as the tokenizers library cuts them.
_ONLY: Mapping[str, object] = {"do_basic_tokenize": True, "wordpieces_prefix": "##", "truncation_side": "right"}
# What a text becomes before it is cut: by the switch, a letter and what it is where the switch is on.
_SEEN_BY = {"do_lower_case": ("A", "a"), "strip_accents": ("é", "e"), "tokenize_chinese_chars": ("中", " 中 ")}
# Of older files, which the library writes under other names.
_FORMER = ("str_rep", "add_prefix_space")
_LISTS = ("vocab", "merges", "scores")


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the keys of special_tokens_map.json and tokenizer_config.json, special tokens by their text.

    Raises:
      ConfigError: an unknown key, a value that is not implemented, or two tokens for one role.
      DataError: a file that holds no JSON object.
    """
    found: dict[str, Any] = {}
    for name in (SPECIALS_MAP, CONFIG):
        content, prefix = files.read_object(folder / name), f"{name}: "
        refuse_unknown(content, _CHECKED, prefix, HARMLESS)
        for key, wanted in _ONLY.items():
            if content.get(key) not in (None, wanted):
                raise ConfigError(prefix + key, content[key], repr(wanted))
        for key, value in content.items():
            value = _text(prefix + key, value) if key in SPECIALS else value
            if key in SPECIALS and value and found.get(key, value) != value:
                raise ConfigError(prefix + key, value, f"{found[key]!r}, as {SPECIALS_MAP} has it")
            if value is not None:
                found[key] = value
        for key in (*_SEEN_BY, "add_prefix_space", "add_bos_token", "add_eos_token"):
            if content.get(key) is not None:
                refuse_type(key, content[key], True, prefix)
    return found


def _text(key: str, value: object) -> str:
    """Return the text of a special token, which stands as such or in an object; "" for none."""
    text = value.get("content") if isinstance(value, Mapping) else value
    if text is not None and not isinstance(text, str):
        raise ConfigError(key, value, "the text of a token")
    return text or ""


def check(tokenizer: tokenizers.Tokenizer, folder: Path) -> None:
    """Refuse a tokenizer that does something else than the files beside it say.

    Raises:
      ConfigError: names the key.
    """
    settings, prefix = read_settings(folder), f"{CONFIG}: "
    normalizer = tokenizer.normalizer
    for key, (given, seen) in _SEEN_BY.items():
        if isinstance(settings.get(key), bool):
            done = (normalizer.normalize_str(given) if normalizer else given) == seen
            if done != settings[key]:
                raise ConfigError(prefix + key, settings[key], f"{str(done).lower()}, as tokenizer.json does it")
    inner = json.loads(tokenizer.to_str())
    spaced = {value for key, value in _leaves(inner.get("pre_tokenizer")) if key == "add_prefix_space"}
    if isinstance(settings.get("add_prefix_space"), bool) and spaced and spaced != {settings["add_prefix_space"]}:
        expected = f"{str(not settings['add_prefix_space']).lower()}, as tokenizer.json does it"
        raise ConfigError(f"{prefix}add_prefix_space", settings["add_prefix_space"], expected)
    if inner["model"].get("dropout"):
        expected = "none: it draws other tokens of a text each time"
        raise ConfigError("tokenizer.json: model.dropout", inner["model"]["dropout"], expected)
    if isinstance(unknown := inner["model"].get("unk_token"), str) and tokenizer.token_to_id(unknown) is None:
        raise ConfigError("tokenizer.json: model.unk_token", unknown, "a token of the vocabulary")
    ids = Counter(tokenizer.get_vocab(with_added_tokens=True).values())
    if twice := [index for index, count in ids.items() if count > 1]:
        raise DataError(f"{folder}: two tokens of its tokenizer have the id {twice[0]}.")
    _check_tokens(tokenizer, folder, settings)
    _check_frame(tokenizer, settings)
    _check_words(tokenizer, settings)


def _check_tokens(tokenizer: tokenizers.Tokenizer, folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuse tokens that transformers would add to the vocabulary, or that stand there under another id."""
    named = {f"{CONFIG}: {key}": settings[key] for key in SPECIALS if settings.get(key)}
    for several in _SEVERAL:
        given = settings.get(several) or []
        tokens = given.values() if isinstance(given, Mapping) else given if isinstance(given, list) else [given]
        named |= {f"{CONFIG}: {several}[{i}]": _text(several, token) for i, token in enumerate(tokens)}
    for key, token in named.items():
        if token and tokenizer.token_to_id(token) is None:
            raise ConfigError(key, token, "a token of the vocabulary")
    places: list[tuple[str, object, object]] = []
    for index, token in _mapping(f"{CONFIG}: added_tokens_decoder", settings.get("added_tokens_decoder")).items():
        places.append((f"{CONFIG}: added_tokens_decoder", index, token))
    for text, index in files.read_object(folder / ADDED).items():
        places.append((f"{ADDED}: {text}", index, text))
    held = tokenizer.get_added_tokens_decoder()
    for key, index, token in places:
        text = _text(key, token)
        place = tokenizer.token_to_id(text) if text else None
        if place is None or str(place) != str(index):
            what = "absent" if place is None else place
            raise ConfigError(key, f"{text}: {index}", f"the id in the vocabulary, where the token is {what}")
        if not isinstance(token, Mapping):
            continue
        refuse_unknown(token, ("content", "special", "lstrip", "rstrip", "normalized", "single_word", "__type"),
                       f"{key}[{index}].", frozenset())  # fmt: skip
        own = held.get(place)
        # A special token never stands in a report here, see `Tokenizer`.
        for switch in ("lstrip", "rstrip", "normalized", "single_word"):
            if own and not own.special and token.get(switch) not in (None, getattr(own, switch)):
                raise ConfigError(f"{key}[{index}].{switch}", token[switch], f"{not token[switch]}, as tokenizer.json")


def _check_words(tokenizer: tokenizers.Tokenizer, settings: Mapping[str, Any]) -> None:
    """Refuse a word that is named as a special token, at which transformers would cut every text, and this does not."""
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    named = [(key, _text(key, settings.get(key))) for key in SPECIALS]
    for several in _SEVERAL:
        given = settings.get(several) or []
        named += [
            (several, _text(several, token)) for token in (given.values() if isinstance(given, Mapping) else given)
        ]
    decoder = settings.get("added_tokens_decoder") or {}
    named += [("added_tokens_decoder", token["content"]) for token in decoder.values()
              if isinstance(token, Mapping) and token.get("special")]  # fmt: skip
    for key, token in named:
        if re.fullmatch(r"\w+", token) and token not in special:
            raise ConfigError(f"{CONFIG}: {key}", token, "no word of a text, unless tokenizer.json keeps it apart")


def _check_frame(tokenizer: tokenizers.Tokenizer, settings: Mapping[str, Any]) -> None:
    """Refuse names of the first and the last token of a text that tokenizer.json does not put there."""
    empty = tokenizer.encode("")
    # A tokenizer.json may fill texts up; what it fills them with frames nothing.
    frame = [tokenizer.id_to_token(index) for index, real in zip(empty.ids, empty.attention_mask) if real]
    ends = {key: settings.get(key, "") for key in SPECIALS}
    first, last = {ends["bos_token"], ends["cls_token"]} - {""}, {ends["eos_token"], ends["sep_token"]} - {""}
    if len(frame) > 1 and first and frame[0] not in first:
        raise ConfigError(f"{CONFIG}: bos_token", ends["bos_token"] or ends["cls_token"], f"{frame[0]!r}, with which "
                          "tokenizer.json begins a text")  # fmt: skip
    if frame and last and frame[-1] not in last:
        raise ConfigError(f"{CONFIG}: eos_token", ends["eos_token"] or ends["sep_token"], f"{frame[-1]!r}, with which "
                          "tokenizer.json ends a text")  # fmt: skip
    for key, token, at in (
        ("add_bos_token", ends["bos_token"], frame[:1]),
        ("add_eos_token", ends["eos_token"], frame[-1:]),
    ):
        if isinstance(settings.get(key), bool) and token and settings[key] != (at == [token]):
            raise ConfigError(
                f"{CONFIG}: {key}", settings[key], f"{str(at == [token]).lower()}, as tokenizer.json does it"
            )


def check_whole(path: Path, tokenizer: tokenizers.Tokenizer) -> None:
    """Refuse keys of a tokenizer.json that the library passed over, and texts padded or cut on the left.

    Raises:
      ConfigError: names the key.
      DataError: the file holds no JSON object.
    """
    given = files.read_object(path)
    for name, key in (("padding", "direction"), ("truncation", "direction")):
        side = (given.get(name) or {}).get(key, "Right")
        if str(side).lower() != "right":
            raise ConfigError(
                f"tokenizer.json: {name}.{key}", side, "'Right': positions count from a text's first token"
            )
    padding = given.get("padding") or {}
    if (token := padding.get("pad_token")) and tokenizer.token_to_id(token) != padding.get("pad_id"):
        expected = f"{tokenizer.token_to_id(token)}, the id of {token!r}"
        raise ConfigError("tokenizer.json: padding.pad_id", padding.get("pad_id"), expected)
    for key, value in _passed_over(given, json.loads(tokenizer.to_str()), ""):
        raise ConfigError(f"tokenizer.json: {key}", value, "a key and value that the tokenizers library knows")


def _passed_over(given: object, kept: object, path: str) -> Iterator[tuple[str, object]]:
    """Yield the keys of `given` that are not in `kept`, what the library read, with their values."""
    if isinstance(given, Mapping) and isinstance(kept, Mapping):
        for key, value in given.items():
            place = f"{path}.{key}".lstrip(".")
            if key in kept and key not in _LISTS:
                yield from _passed_over(value, kept[key], place)
            elif key not in kept and key not in _FORMER and not is_nothing(value):
                yield place, value
    elif isinstance(given, list) and isinstance(kept, list):
        for number, (one, other) in enumerate(zip(given, kept)):
            yield from _passed_over(one, other, f"{path}[{number}]")


def check_vocabulary(folder: Path) -> None:
    """Refuse vocabulary files that would be read as another tokenizer's, or give the unknown token alone.

    Raises:
      ConfigError: a class that is neither BERT's (vocab.txt) nor CLIP's (vocab.json with merges.txt).
      DataError: a token that stands twice, an id that is none, a missing file, or missing special tokens.
    """
    settings, named = (
        read_settings(folder),
        str(files.read_object(folder / CONFIG).get("tokenizer_class") or ""),
    )
    if (path := folder / "vocab.txt").is_file():
        kinds = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer")
        needed = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
        tokens = path.read_text("utf-8", errors="replace").removesuffix("\n").split("\n")
        if twice := [token for token, count in Counter(tokens).items() if count > 1]:
            raise DataError(f"{path}: the token {twice[0]!r} stands twice, so that two ids have it.")
    else:
        path, kinds = folder / "vocab.json", ("CLIPTokenizer",)
        needed = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
        if not (folder / "merges.txt").is_file():
            raise DataError(f"{folder} holds vocab.json without merges.txt: no word would be known.")
        content = files.read_object(path)
        tokens = list(content)
        if {str(index) for index in content.values()} != {str(index) for index in range(len(content))}:
            raise DataError(f"{path}: its ids are not 0 to {len(content) - 1}, each once.")
    if named and named.removesuffix("Fast") not in kinds:
        expected = f"{' or '.join(kinds)}, or a tokenizer.json: {path.name} alone does not tell"
        raise ConfigError(f"{CONFIG}: tokenizer_class", named, expected)
    for role, usual in needed.items():
        if (token := settings.get(role) or usual) not in tokens:
            raise DataError(f"{path} lacks {token!r}, the {role} of its texts.")


def _leaves(value: object) -> Iterator[tuple[str, Any]]:
    """Yield the keys of nested objects with their values."""
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, Mapping):
            for key, inner in part.items():
                yield key, inner
                yield from _leaves(inner)


def _mapping(key: str, value: object) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise DataError(f"{key} must hold a JSON object; it holds a {type(value).__name__}.")
    return value or {}
