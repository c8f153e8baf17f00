"""The configuration: defaults, checks, overrides, and how a config file is read.

The keys themselves stand in `ranjax.run.schema`, one file a group. `default_config()` turns them into a
`ml_collections.ConfigDict`, `validate(config)` checks a resolved config against them,
`override(config, "pretrain.steps", "500")` sets one key from text, `describe(config)` prints it. A config file is a
Python program whose `get_config(argument)` starts from `default_config()` and changes what it needs; since it is a
program, run only config files that you trust.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_collections

from ranjax.core import files
from ranjax.core.checks import Key, OneOf, SomeOf, pixel_units
from ranjax.core.errors import ConfigError, nearest
from ranjax.run.schema import GROUPS
from ranjax.run.schema.adapt_keys import METHODS
from ranjax.run.schema.noise_keys import RECIPES

__all__ = [
    "BY_NAME",
    "KEYS",
    "METHODS",
    "RECIPES",
    "Key",
    "default_config",
    "describe",
    "flatten",
    "load",
    "notes",
    "override",
    "pixel_units",
    "validate",
]

KEYS: tuple[Key, ...] = tuple(key for group in GROUPS for key in group.KEYS)
BY_NAME = {key.name: key for key in KEYS}


def default_config() -> ml_collections.ConfigDict:
    """A ConfigDict that holds every key with its default."""
    config = ml_collections.ConfigDict()
    for key in KEYS:
        *path, last = key.name.split(".")
        node = config
        for part in path:
            if part not in node:
                node[part] = ml_collections.ConfigDict()
            node = node[part]
        node[last] = key.default
    config.lock()
    return config


def flatten(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The config as {"pretrain.steps": 400, ...}, in the order of `KEYS`; unknown keys come last."""
    flat = dict(_leaves(config, ""))
    return {**{k: flat[k] for k in BY_NAME if k in flat}, **{k: v for k, v in flat.items() if k not in BY_NAME}}


def _leaves(node: ml_collections.ConfigDict, prefix: str) -> Iterator[tuple[str, Any]]:
    for name in node:
        value = node[name]
        if isinstance(value, ml_collections.ConfigDict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def validate(config: ml_collections.ConfigDict) -> None:
    """Checks every key and what keys demand of each other.

    Raises:
      ConfigError: names the key, the value received, what is allowed, and for an unknown key the nearest one.
    """
    flat = flatten(config)
    for name, value in flat.items():
        if name not in BY_NAME:
            raise ConfigError(name, value, "a known key", nearest(name, BY_NAME))
        _check(BY_NAME[name], value)
    for name in BY_NAME:
        if name not in flat:
            raise ConfigError(name, None, "the key must be present")
    for group in GROUPS:
        if check := getattr(group, "check", None):
            check(config)


def notes(config: ml_collections.ConfigDict) -> list[str]:
    """What a valid config says in vain, because another of its keys decides it."""
    return [note for group in GROUPS if hasattr(group, "notes") for note in group.notes(config)]


def _check(key: Key, value: Any) -> None:
    expected = type(key.default)
    number_for_float = expected is float and isinstance(value, int) and not isinstance(value, bool)
    if not number_for_float and (not isinstance(value, expected) or (expected is int and isinstance(value, bool))):
        raise ConfigError(key.name, value, f"a value of type {expected.__name__}")
    if expected is tuple and not all(_is_of(type(key.default[0]), element) for element in value):
        raise ConfigError(key.name, value, f"values of type {type(key.default[0]).__name__}, like {key.default!r}")
    if expected is float and not math.isfinite(value):
        raise ConfigError(key.name, value, key.check(value) or "a finite number")
    if allowed := key.check(value):
        raise ConfigError(key.name, value, allowed)


def _is_of(kind: type, value: Any) -> bool:
    """Whether a tuple of `kind` may hold the value; whole numbers stand for floats too."""
    return isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))


def override(config: ml_collections.ConfigDict, name: str, text: str) -> None:
    """Sets one key from the command line's text, e.g. ``override(config, "noise.ratios", "(0.0, 0.5)")``.

    Raises:
      ConfigError: the key is unknown, or the text cannot be read as the key's type.
    """
    key = BY_NAME.get(name)
    if key is None:
        raise ConfigError(name, text, "a known key", nearest(name, BY_NAME))
    *path, last = name.split(".")
    node = config
    for part in path:
        node = node[part]
    with node.unlocked():
        node[last] = _parse(key, text)
    _check(key, node[last])


def _parse(key: Key, text: str) -> Any:
    kind = type(key.default)
    try:
        if kind is str:
            return text
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if kind is int:
            number = float(text)
            if number != int(number):
                raise ValueError(text)
            return int(number)
        if kind is float:
            return float(text)
        element = type(key.default[0])
        if element is str and not any(sign in text for sign in "'\"([{"):
            return tuple(word.strip() for word in text.split(","))  # names as they are: lp,ran
        value = ast.literal_eval(text if text.strip().startswith(("(", "[")) else f"({text},)")
        return tuple(element(v) for v in value)
    except (ValueError, KeyError, SyntaxError, TypeError, OverflowError):
        example = {bool: "true or false", int: "a whole number", float: "a number"}.get(kind, f"like {key.default!r}")
        raise ConfigError(key.name, text, example) from None


def load(path_and_argument: str) -> ml_collections.ConfigDict:
    """Runs a config file, ``"configs/ran.py"`` or ``"configs/ran.py:smoke"``, and returns its ConfigDict.

    Raises:
      ConfigError: there is no such file, it has no `get_config`, or it takes no argument.
    """
    name, _, argument = path_and_argument.partition(":")
    path = Path(name)
    if not path.is_file():
        siblings = [str(p) for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise ConfigError("--config", path_and_argument, "a config file that exists", nearest(name, siblings))
    spec = importlib.util.spec_from_file_location(f"ranjax_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError("--config", path_and_argument, "a Python file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    get_config = getattr(module, "get_config", None)
    if get_config is None:
        raise ConfigError("--config", path_and_argument, "a file that defines get_config()")
    if argument and not inspect.signature(get_config).parameters:
        raise ConfigError("--config", path_and_argument, f"{name} takes no argument after a colon")
    config = get_config(argument) if argument else get_config()
    if not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError("--config", path_and_argument, "a file whose get_config() returns a ConfigDict")
    return config


def of_run(workdir: str | os.PathLike[str]) -> ml_collections.ConfigDict:
    """The resolved config that a run wrote into its workdir.

    Keys that were added after the run was made have their default: what the code did then may have been something else.

    Raises:
      ConfigError: no run's folder, or a key that this version does not know.
    """
    path = Path(workdir) / "config.json"
    if not path.is_file():
        raise ConfigError("workdir", str(workdir), "a folder of a run, with its config.json")
    config = default_config()
    for name, value in files.read_json(path).items():
        if name not in BY_NAME:
            raise ConfigError(name, value, "a known key", nearest(name, BY_NAME))
        *path_, last = name.split(".")
        node = config
        for part in path_:
            node = node[part]
        with node.unlocked():
            node[last] = tuple(value) if isinstance(value, list) else value
    validate(config)
    return config


def describe(config: ml_collections.ConfigDict) -> str:
    """A text that lists every key of the resolved config with its value, default, unit, meaning and choices."""
    lines, group = [], ""
    for name, value in flatten(config).items():
        key = BY_NAME[name]
        head = name.split(".")[0] if "." in name else ""
        if head != group:
            lines.append("")
            group = head
        shown = f"{name} = {value!r}" + (f"  [{key.unit}]" if key.unit else "")
        default = "" if value == key.default else f"  (default {key.default!r})"
        lines.append(f"{shown}{default}\n    {key.meaning}")
        if isinstance(key.check, (OneOf, SomeOf)):
            lines.append(f"    Allowed: {key.check.stated}.")
    return "\n".join(lines)
