"""Packages whose names are imported when they are first used, so that ``import ranjax.models`` waits for nothing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def function(module: str, name: str) -> Callable[..., Any]:
    """Return the function `name` of a module that is imported when the function is called."""

    def call(*args: Any, **options: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*args, **options)

    return call


def exports(
    package: str, homes: Mapping[str, tuple[str, ...]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return a package's ``__getattr__``, ``__dir__`` and ``__all__``.

    Args:
      package: its ``__name__``.
      homes: by module below the package, the names that it exports; a module without names, or with its own among
        them, is exported itself.
    """
    home_of = {name: home for home, names in homes.items() for name in names or (home,)}

    def find(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f"{package}.{home_of[name]}")
        return module if name == home_of[name] else getattr(module, name)

    names = sorted(home_of)
    return find, lambda: names, names
