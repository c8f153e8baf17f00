"""Lets timm and open_clip be imported without torchvision, of which the parts used here need nothing."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types


class _AnyName(type):
    """A class with every attribute, whose value is its name."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Absent(types.ModuleType):
    """A module of which every public name is an empty class."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyName(name, (), {})


class _StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every module of torchvision, all of them empty."""

    def find_spec(self, name, path, target=None):
        if name.split(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return _Absent(spec.name)

    def exec_module(self, module):
        pass


def stand_in_for_torchvision() -> None:
    """Registers empty modules under torchvision's names, unless torchvision is installed."""
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(_StandIn())
