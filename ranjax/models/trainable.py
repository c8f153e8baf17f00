"""Which parameters are trained: chosen by regular expressions on their paths, shown before anything runs."""

from __future__ import annotations

import re
from collections.abc import Sequence

import jax
import numpy as np

from ranjax.core.errors import ConfigError
from ranjax.core.types import Params
from ranjax.models.checkpoints.naming import nest, paths


def select(params: Params, patterns: Sequence[str], key: str = "trainable") -> Params:
    """Return a tree of bools in the shape of `params`, True where a pattern is found in the path ("vision/positions").

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


def partition(params: Params, chosen: Params) -> tuple[Params, Params]:
    """Return (trained, frozen): two nested dicts that hold every array once; `combine` puts them together again."""
    flags, leaves = paths(chosen), paths(params)
    trained, frozen = (nest({p: leaf for p, leaf in leaves.items() if flags[p] is side}) for side in (True, False))
    return trained, frozen


def combine(trained: Params, frozen: Params) -> Params:
    """Return the whole of two nested dicts, the inverse of `partition`."""
    return nest(paths(dict(trained)) | paths(dict(frozen)))


def describe_adapters(params: Params, adapters: Params, names: int = 4) -> str:
    """Return the table of `describe_trainable` for LoRA: the adapters are trained, and everything in `params` is
    frozen.
    """
    whole = {"lora": adapters, **params}
    chosen = nest({path: path[0] == "lora" for path in paths(whole)})
    return describe_trainable(whole, chosen, names)


def describe_trainable(params: Params, chosen: Params, names: int = 4) -> str:
    """Return a table of the trained and of the frozen parameters: arrays, numbers, share of all numbers,
    first names.
    """
    flags, leaves = paths(dict(chosen)), paths(dict(params))
    total = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(dict(params)))
    lines = [f"{'':8}  {'arrays':>6}  {'numbers':>13}  {'share':>7}  first names"]
    for title, side in (("trained", True), ("frozen", False)):
        found = {"/".join(path): leaf for path, leaf in leaves.items() if flags[path] is side}
        numbers = sum(int(np.prod(leaf.shape)) for leaf in found.values())
        first = ", ".join(list(found)[:names]) + (", ..." if len(found) > names else "")
        lines.append(f"{title:8}  {len(found):>6}  {numbers:>13,}  {numbers / max(total, 1):>7.2%}  {first}".rstrip())
    return "\n".join(lines)
