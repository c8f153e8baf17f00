"""How a text encoder of sentence-transformers pools: what its modules.json and 1_Pooling/config.json state."""

from __future__ import annotations

import json
from pathlib import Path

from ranjax.core.errors import ConfigError, DataError
from ranjax.models.checkpoints.config_keys import refuse_unknown
from ranjax.models.checkpoints.weight_files import CONFIG, read_config

MODULES, POOLING = "modules.json", "1_Pooling"
_MODES = {"cls": "cls", "mean": "mean"}
"""Modes of its Pooling that are implemented, by their names there -> ours."""
_FLAG = "pooling_mode_"
_FLAGS = {
    "cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max", "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean_tokens": "weightedmean", "lasttoken": "lasttoken",
}  # fmt: skip
# Behind the pooling, embeddings are made unit vectors here as well.
_PARTS = ("Transformer", "Pooling", "Normalize")


def stated_pooling(folder: Path, width: int) -> str:
    """Return the pooling, "cls" or "mean", that a folder of sentence-transformers states; "" for any other folder.

    Args:
      folder: of the checkpoint.
      width: of the text tower.

    Raises:
      ConfigError: another pooling, several at once, another width, or parts that are not implemented, as 2_Dense.
      DataError: a file that is no JSON.
    """
    file = folder / _folder_of_pooling(folder) / CONFIG
    if not file.is_file():
        return ""
    content = read_config(file.parent)
    prefix = f"{file.relative_to(folder)}: "
    flags = [_FLAG + name for name in _FLAGS]
    # The last is of prompts in front of texts, which are not used here.
    refuse_unknown(content, (*flags, "pooling_mode", "word_embedding_dimension", "embedding_dimension"), prefix,
                   frozenset({"include_prompt"}))  # fmt: skip
    for key in ("word_embedding_dimension", "embedding_dimension"):
        if key in content and content[key] != width:
            raise ConfigError(prefix + key, content[key], f"{width}, the width of the text tower")
    modes = [mode for name, mode in _FLAGS.items() if content.get(_FLAG + name) is True]
    if "pooling_mode" in content:
        given = content["pooling_mode"]
        modes = list(given) if isinstance(given, list | tuple) else [given]
    if len(modes) != 1 or modes[0] not in _MODES:
        found = ", ".join(map(str, modes)) or "none"
        raise ConfigError(
            f"{prefix}pooling_mode", found, f"one of {', '.join(_MODES)}: no other pooling is implemented"
        )
    return _MODES[modes[0]]


def _folder_of_pooling(folder: Path) -> str:
    """Return the folder of the pooling by modules.json. Raises ConfigError for parts that are not implemented."""
    file = folder / MODULES
    if not file.is_file():
        return POOLING
    try:
        parts = json.loads(file.read_text("utf-8"))
        kinds = {str(part["type"]).split(".")[-1]: str(part["path"]) for part in parts}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is no list of the parts of a model of sentence-transformers.") from error
    for kind, path in kinds.items():
        if kind not in _PARTS:
            raise ConfigError(
                f"{MODULES}: type", kind, f"one of {', '.join(_PARTS)}: {path or kind} is not implemented"
            )
    if "Pooling" in kinds and not (folder / kinds["Pooling"] / CONFIG).is_file():
        raise DataError(f"{folder / kinds['Pooling'] / CONFIG} is absent, in which the pooling stands.")
    return kinds.get("Pooling", POOLING)
