"""The configuration: defaults, checks, overrides, and how a config file is read.

The keys themselves stand in `ranjax.run.schema`, one file a group. `default_config()` turns them into a
`ml_collections.ConfigDict`, `validate(config)` checks a resolved config against them,
`override(config, "pretrain.steps", "500")` sets one key from text, `describe(config)` prints it. A config file is a
Python program whose `get_config(argument)` starts from `default_config()` and changes what it needs; since it is a
program, run only config files that you trust.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ml_collections import ConfigDict

from ranjax.core import files
from ranjax.core.checks import Key, Value, check_value
from ranjax.core.errors import ConfigError, nearest
from ranjax.core.settings import read, value_at
from ranjax.run.schema import GROUPS, TABLES, RunConfig
from ranjax.run.schema.entry_keys import Config

RENAMED: dict[str, str] = {old: new for group in GROUPS for old, new in getattr(group, "RENAMED", {}).items()}
"""Keys of earlier versions and what they are called now; they are refused, with the new name."""
BY_NAME: dict[str, Key] = {
    key.name: key
    for group in GROUPS
    for key in (*group.KEYS, *(key for table in getattr(group, "TABLES", ()) for key in table.built_in_keys()))
}
"""The keys that every config has: settings of entries from outside come with the config that names these."""
KEYS: tuple[Key, ...] = tuple(BY_NAME.values())
_NAMING = {name for table in TABLES for name in table.named_by}
"""The keys that name entries of tables, which bring keys of their own: they are set before others."""


def default_config() -> ConfigDict:
    """Return a ConfigDict that holds every key with its default."""
    config = ConfigDict()
    for key in KEYS:
        _add(config, key)
    config.lock()
    return config


def defaults() -> dict[str, Value]:
    """Return the default of every key, by its dotted name."""
    return {key.name: key.default for key in KEYS}


def typed(config: ConfigDict) -> RunConfig:
    """Return a valid config as its stages read it."""
    return read(RunConfig, config)


def _add(config: ConfigDict, key: Key) -> None:
    *path, last = key.name.split(".")
    for part in path:
        if part not in config:
            config[part] = ConfigDict()
        config = config[part]
    if last not in config:
        config[last] = key.default


def _set(config: ConfigDict, name: str, value: Value) -> None:
    """Set a key that exists; the entries that it names bring their own keys."""
    with config.unlocked():
        config.update_from_flattened_dict({name: value})
    if name in _NAMING:
        add_settings(config)


def keys_of_config(config: Config) -> dict[str, Key]:
    """Return the keys of a config by name: `KEYS`, and the settings of the entries from outside that it names.

    Raises:
      ConfigError: a name in a key such as `evaluate.attacks` that is no entry of its table.
    """
    found = dict(BY_NAME)
    for table in TABLES:
        for entry in table.named(config).values():
            found.update((key.name, key) for key in table.keys(entry))
    return found


def add_settings(config: ConfigDict) -> None:
    """Add the settings of the entries from outside that a config names, with their defaults.

    Raises:
      ConfigError: as `keys_of_config`; an entry's name that is a key already.
    """
    with config.unlocked():
        for table in TABLES:
            for entry in table.named(config).values():
                table.check_name(entry, config[table.prefix])
        for key in keys_of_config(config).values():
            _add(config, key)


def unknown_key(name: str, value: object, known: Mapping[str, Key]) -> ConfigError:
    """Return the error for a key that does not exist: its new name where it was renamed, else the nearest one."""
    if name in RENAMED:
        return ConfigError(name, value, f"its new name, {RENAMED[name]}")
    return ConfigError(name, value, "a known key", nearest(name, known))


def flatten(config: Config) -> dict[str, Value]:
    """Return the config as {"pretrain.steps": 400, ...}, in the order of `KEYS`; unknown keys come last."""
    if isinstance(config, RunConfig):
        return {name: value_at(config, name) for name in keys_of_config(config)}
    flat = dict(_leaves(config, ""))
    return {**{k: flat[k] for k in BY_NAME if k in flat}, **{k: v for k, v in flat.items() if k not in BY_NAME}}


def _leaves(node: ConfigDict, prefix: str) -> Iterator[tuple[str, Value]]:
    for name in node:
        value = node[name]
        if isinstance(value, ConfigDict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def validate(config: ConfigDict) -> None:
    """Check every key, and how keys fit each other.

    Raises:
      ConfigError: names the key, its value, what is expected, and for an unknown key the nearest one.
    """
    flat = flatten(config)
    for name, value in flat.items():
        if name in BY_NAME:
            check_value(BY_NAME[name], value)
    keys = keys_of_config(config)
    for name, value in flat.items():
        if name not in keys:
            raise unknown_key(name, value, keys)
        check_value(keys[name], value)
    for name in keys:
        if name not in flat:
            raise ConfigError(name, None, "a value: the key is missing")
    for group in GROUPS:
        if check := getattr(group, "check", None):
            check(config)


def notes(config: Config) -> list[str]:
    """Return a line for each key that a valid config sets without effect, because another key decides it."""
    found: list[str] = []
    for group in GROUPS:
        own = getattr(group, "notes", None)
        unused = (note for table in getattr(group, "TABLES", ()) for note in table.unused(config))
        found += own(config) if own else unused
    return found


def override(config: ConfigDict, name: str, text: str) -> None:
    """Set one key from text, e.g. ``override(config, "noise.ratios", "(0.0, 0.5)")``.

    Raises:
      ConfigError: the key is unknown, or the text cannot be read as the key's type.
    """
    known = keys_of_config(config)
    key = known.get(name)
    if key is None:
        raise unknown_key(name, text, known)
    value = _parse(key, text)
    check_value(key, value)
    _set(config, name, value)


def resolve(path_and_argument: str, overrides: Iterable[tuple[str, str]] = ()) -> ConfigDict:
    """Return the valid config of a file, with keys set from text.

    Args:
      path_and_argument: as `load`.
      overrides: (key, text), e.g. [("pretrain.steps", "500")].

    Raises:
      ConfigError: as `load`, `override` and `validate`.
    """
    config = load(path_and_argument)
    override_all(config, overrides)
    validate(config)
    return config


def override_all(config: ConfigDict, overrides: Iterable[tuple[str, str]]) -> None:
    """Set several keys as `override`, in any order: those that name entries of tables first, as these bring keys."""
    for key, text in sorted(overrides, key=lambda item: item[0] not in _NAMING):
        override(config, key, text)


def _parse(key: Key, text: str) -> Value:
    """Return text as a value of the type of a key's default.

    Raises:
      ConfigError: it cannot be read as one.
    """
    default = key.default
    try:
        if isinstance(default, str):
            return text
        if isinstance(default, bool):
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if isinstance(default, int):
            number = float(text)
            if number != int(number):
                raise ValueError(text)
            return int(number)
        if isinstance(default, float):
            return float(text)
        element = type(default[0])
        if element is str and not any(sign in text for sign in "'\"([{"):
            return tuple(word.strip() for word in text.split(","))  # names without quotes: lp,ran
        value = ast.literal_eval(text if text.strip().startswith(("(", "[")) else f"({text},)")
        return tuple(element(v) for v in value)
    except (ValueError, KeyError, SyntaxError, TypeError, OverflowError):
        examples = {bool: "true or false", int: "a whole number", float: "a number"}
        raise ConfigError(key.name, text, examples.get(type(default), f"a value like {default!r}")) from None


def load(path_and_argument: str) -> ConfigDict:
    """Run a config file, ``"configs/ran.py"`` or ``"configs/ran.py:smoke"``, and return its ConfigDict.

    Where there is no such file, a config that comes with ranjax is meant: ``"ran"``, or ``"configs/ran.py"``.

    Raises:
      ConfigError: there is no such file, it has no `get_config`, or it takes no argument.
    """
    name, _, argument = path_and_argument.partition(":")
    path, refused = Path(name), functools.partial(ConfigError, "--config", path_and_argument)
    if not path.is_file() and path.parent in (Path(), Path("configs")):
        path = shipped().get(path.name.removesuffix(".py"), path)
    if not path.is_file():
        siblings = [str(p) for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise refused("a config file that exists", nearest(name, [*siblings, *shipped()]))
    spec = importlib.util.spec_from_file_location(f"ranjax_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise refused("a Python file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    get_config = getattr(module, "get_config", None)
    if get_config is None:
        raise refused("a file that defines get_config()")
    if argument and not inspect.signature(get_config).parameters:
        raise refused(f"{name} without an argument after a colon: it takes no argument")
    config = get_config(argument) if argument else get_config()
    if not isinstance(config, ConfigDict):
        raise refused("a file whose get_config() returns a ConfigDict")
    add_settings(config)
    return config


def shipped() -> dict[str, Path]:
    """Return the config files that come with ranjax, by their names: in the package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    folder = next((one for one in (package / "configs", package.parent / "configs") if one.is_dir()), package)
    return {path.stem: path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")}


def of_run(workdir: str | os.PathLike[str]) -> ConfigDict:
    """Return the resolved config that a run wrote into its workdir.

    Keys that were added after the run was made have their default; the code of then may have done something else.

    Raises:
      ConfigError: no run's folder, or a key that this version does not know.
    """
    path = Path(workdir) / "config.json"
    if not path.is_file():
        raise ConfigError("workdir", str(workdir), "a folder of a run, with its config.json")
    config = default_config()
    written = files.read_json(path)
    for name in sorted(written, key=lambda name: name not in _NAMING):
        if name not in keys_of_config(config):
            raise unknown_key(name, written[name], BY_NAME)
        _set(config, name, tuple(written[name]) if isinstance(written[name], list) else written[name])
    validate(config)
    return config


def describe(config: ConfigDict) -> str:
    """Return a text that lists every key of a config with its value, default, unit, meaning and choices."""
    lines, group, keys = [], "", keys_of_config(config)
    for name, value in flatten(config).items():
        key = keys[name]
        head = name.split(".")[0] if "." in name else ""
        if head != group:
            lines.append("")
            group = head
        shown = f"{name} = {value!r}" + (f"  [{key.unit}]" if key.unit else "")
        default = "" if value == key.default else f"  (default {key.default!r})"
        lines.append(f"{shown}{default}\n    {key.meaning}")
        if stated := getattr(key.check, "stated", ""):
            lines.append(f"    Allowed: {stated}.")
    return "\n".join(lines)
