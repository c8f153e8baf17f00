"""Sentences and words of running text: of Markdown, of error messages, of the meanings of keys."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ARCHAIC = ("lest", "save that", "belie", "whatever", "whoever", "thereof", "wherein", "heretofore", "aforesaid")
"""Words that docs/style.md forbids everywhere; *who* and *what* as nouns are left to readers."""
ERRORS = ("ConfigError", "DataError", "RunError", "WeightsError", "CannotHoldError", "Rejected")


def prose(text: str) -> str:
    """Return the running text of Markdown: no code, tables, headings, pictures, front matter or addresses of links."""
    text = re.sub(r"(?ms)^[ ]*```.*?^[ ]*```", "", text)
    text = re.sub(r"(?m)^(\||#|!\[|<).*$", "", text)
    text = re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\s\[[-−\d.]+,\s[-−\d.]+\]", "", text)  # a value with its interval is one word
    return re.sub(r"`[^`]*`", "CODE", text)


def sentences(text: str) -> list[str]:
    """Return the sentences of a text; an item of a list, and the parts beside a semicolon, are sentences too."""
    blocks = re.split(r"\n\s*\n|\n\s*(?:[*-]|\d+\.) ", prose(text))
    parts = [part for block in blocks for part in re.split(r"(?<=[.!?;:])[*_]*\s+", " ".join(block.split()))]
    return [part for part in parts if re.search(r"[a-z]", part)]


def forbidden(text: str) -> list[str]:
    """Return the forbidden words that a text holds."""
    return [word for word in ARCHAIC if re.search(rf"\b{word}\b", text, re.IGNORECASE)]


def messages(file: Path) -> Iterator[str]:
    """Yield the texts of a module's errors and options; X stands for a value that is put in."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in ERRORS:
            for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
                yield from _texts(argument)
        elif isinstance(node, ast.Call):
            for keyword in node.keywords:
                yield from _texts(keyword.value) if keyword.arg == "help" else ()


def _texts(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
    elif isinstance(node, ast.IfExp):
        yield from (*_texts(node.body), *_texts(node.orelse))
    elif isinstance(node, ast.BinOp):
        yield " ".join((*_texts(node.left), *_texts(node.right)))
