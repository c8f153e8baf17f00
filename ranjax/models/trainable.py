"""Which parameters are trained: chosen by regular expressions on their paths, shown before anything runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ranjax.core.errors import ConfigError
from ranjax.models.checkpoints.naming import nest, paths

Tree = dict[str, Any]


def select(params: Mapping[str, Any], patterns: Sequence[str], key: str = "trainable") -> Tree:
    """A tree of bools in the shape of `params`, True where a pattern is found in the path ("vision/positions").

    Args:
      params: nested dict of arrays.
      patterns: regular expressions.
      key: of the config, for messages.

    Raises:
      ConfigError: a pattern that is no regular expression, or that matches nothing.
    """
    names = {path: "/".join(path) for path in paths(dict(params))}
    chosen: set[tuple[str, ...]] = set()
    for pattern in patterns:
        try:
            found = {path for path, name in names.items() if re.search(pattern, name)}
        except re.error as error:
            raise ConfigError(key, pattern, f"a regular expression ({error})") from error
        if not found:
            first = ", ".join(list(names.values())[:5])
            raise ConfigError(key, pattern, f"a pattern that some parameter's path holds, such as {first}")
        chosen |= found
    return nest({path: path in chosen for path in names})


def partition(params: Mapping[str, Any], chosen: Mapping[str, Any]) -> tuple[Tree, Tree]:
    """(trained, frozen): two nested dicts that hold every array once; `combine` puts them together again."""
    flags = paths(dict(chosen))
    leaves = paths(dict(params))
    return tuple(nest({p: leaf for p, leaf in leaves.items() if flags[p] is side}) for side in (True, False))  # type: ignore[return-value]


def combine(trained: Mapping[str, Any], frozen: Mapping[str, Any]) -> Tree:
    """Inverse of `partition`."""
    return nest(paths(dict(trained)) | paths(dict(frozen)))


def describe_adapters(params: Mapping[str, Any], adapters: Mapping[str, Any], names: int = 4) -> str:
    """The table of `describe_trainable` for LoRA: the adapters are trained, and everything in `params` is frozen."""
    beside = {"lora": dict(adapters), **dict(params)}
    chosen = nest({path: path[0] == "lora" for path in paths(beside)})
    return describe_trainable(beside, chosen, names)


def describe_trainable(params: Mapping[str, Any], chosen: Mapping[str, Any], names: int = 4) -> str:
    """A table of what is trained and what is frozen: arrays, numbers, share of all numbers, first names."""
    flags, leaves = paths(dict(chosen)), paths(dict(params))
    total = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(dict(params)))
    lines = [f"{'':8}  {'arrays':>6}  {'numbers':>13}  {'share':>7}  first names"]
    for title, side in (("trained", True), ("frozen", False)):
        kept = {"/".join(path): leaf for path, leaf in leaves.items() if flags[path] is side}
        numbers = sum(int(np.prod(leaf.shape)) for leaf in kept.values())
        first = ", ".join(list(kept)[:names]) + (", ..." if len(kept) > names else "")
        lines.append(f"{title:8}  {len(kept):>6}  {numbers:>13,}  {numbers / max(total, 1):>7.2%}  {first}".rstrip())
    return "\n".join(lines)
