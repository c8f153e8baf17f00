"""The pieces that a section of a page is made of; templates/blocks.html.jinja says how each looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias

from markupsafe import Markup

from ranjax.methods.table import Style
from ranjax.report import entry_labels as labels
from ranjax.report import figures
from ranjax.report.pictures import Pair
from ranjax.report.report_tables import Table
from ranjax.report.worded_findings import Finding


class Heading(NamedTuple):
    """A heading of level 3 or 4, or nothing where the text is empty."""

    text: str
    level: int = 3


class Text(NamedTuple):
    """A paragraph; `look` is its class of style: "caption", "missing-section", "strong", or none."""

    text: str
    look: str = ""


class File(NamedTuple):
    """A link to the CSV file of the blocks above it."""

    path: str


class Files(NamedTuple):
    """A list of links to files."""

    paths: Sequence[str]


class Panels(NamedTuple):
    """Plots side by side."""

    plots: Sequence[Markup]


class Legend(NamedTuple):
    """A legend that wraps with the page: swatches and their labels."""

    entries: Sequence[tuple[Markup, str]]


class Definitions(NamedTuple):
    """Names and values; nested objects and lists become nested lists. Values of the names in `code` are set as code."""

    values: Mapping[str, object]
    code: Sequence[str] = ()


class Findings(NamedTuple):
    """Worded findings of one topic."""

    findings: Sequence[Finding]


class Pairs(NamedTuple):
    """Attacked pairs as pictures."""

    pairs: Sequence[Pair]


class Details(NamedTuple):
    """Blocks behind a summary that opens them."""

    summary: str
    blocks: Sequence[Block]
    open: bool = False


Block: TypeAlias = "Heading | Text | File | Files | Panels | Legend | Definitions | Findings | Pairs | Details | Table"
Blocks: TypeAlias = Iterator[Block]


def captioned(blocks: Iterable[Block], title: str, numbers: Iterator[int]) -> list[Block]:
    """Return the blocks with a number and a caption on every table: its own, or the words above it.

    Args:
      blocks: of one section.
      title: of the section.
      numbers: of the tables of the page.
    """
    found: list[Block] = []
    above = title
    for block in blocks:
        if isinstance(block, Heading):
            above = block.text or above
        elif isinstance(block, Details):
            block = block._replace(blocks=captioned(block.blocks, block.summary, numbers))
        elif isinstance(block, Table):
            said = block.caption or above
            said += "; in brackets the 95 % interval" if block.has_intervals else ""
            block = replace(block, caption=f"Table {next(numbers)}. {said.rstrip('.?')}.")
        found.append(block)
    return found


def legend(looks: Mapping[str, Style], name: str, label: Callable[[str], str] = labels.method_label) -> Legend:
    """Return the legend of styles by name.

    Args:
      looks: the style of each name.
      name: makes the ids of the swatches unique.
      label: of a name.
    """
    return Legend([(figures.swatch(look, f"{name}-{key}"), label(key)) for key, look in looks.items()])


def missing(text: str) -> Text:
    """Return the words that stand where there is nothing to show."""
    return Text(text, "missing-section")
