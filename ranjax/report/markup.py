"""HTML that is safe by construction: whatever is not Markup already is escaped when it enters an element."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Any

_VOID = frozenset({"meta", "img", "br", "hr", "link"})
_MINUS = re.compile(r"(?<![\w.\-])-(?=\d)")


class Markup(str):
    """Text that is HTML already. Only this module and the plots make it."""

    __slots__ = ()


def escape(value: Any) -> Markup:
    """Returns `value` as Markup: itself where it is Markup, its escaped text otherwise."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value), quote=True))


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """Returns an element. Children that are not Markup are escaped, and so is every attribute.

    A trailing underscore in an attribute's name falls away (`class_`), others become hyphens; None leaves it out, True
    writes the bare name. Lists of children are taken apart.
    """
    written = "".join(
        _attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{''.join(escape(child) for child in _flat(children))}</{name}>")


def _attribute(key: str, value: Any) -> str:
    key = key.rstrip("_").replace("_", "-")
    return f" {key}" if value is True else f' {key}="{html.escape(str(value), quote=True)}"'


def _flat(children: Iterable[Any]) -> Iterable[Any]:
    for child in children:
        if isinstance(child, list | tuple):
            yield from _flat(child)
        elif child is not None:
            yield child


def join(parts: Iterable[Any], between: str = "") -> Markup:
    """Returns the parts one after another as Markup, each escaped unless it is Markup."""
    return Markup(str(escape(between)).join(escape(part) for part in parts))


def figures(text: str) -> str:
    """Returns text with true minus signs before digits, and per cent signs that stay with their number."""
    return _MINUS.sub("−", text).replace(" %", "\N{NO-BREAK SPACE}%")
