"""Labels, families and styles of methods and attacks: those of the tables, and those from outside that results name.

An entry from outside ranjax is in the tables only in the process that ran it. Its label and style are written to
results.json ("labels"), and `labels_of` takes them from there, so that no page imports anyone's module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, NamedTuple

from ranjax.attacks.attack_table import ATTACKS
from ranjax.data.recipe_table import RECIPES
from ranjax.methods.table import METHODS, PARTS, Style

_OTHER_ATTACKS = {"worst": "worst of all", "transfer": "transferred", "words": "prompts"}


class MethodLabel(NamedTuple):
    """The appearance of a method: its label, its family and style as in `Method`, and the part that an ablation
    leaves out.
    """

    label: str
    family: str = "head"
    style: Style | None = None
    leaves_out: str = ""


_DIRECTIONS = {"image_to_text": MethodLabel("Image to report"), "text_to_image": MethodLabel("Report to image")}
_Labels = Mapping[str, Mapping[str, Any]]
_FROM_RESULTS: ContextVar[_Labels] = ContextVar("labels", default=MappingProxyType({}))


def labels_document(methods: Iterable[str], attacks: Iterable[str]) -> dict[str, dict[str, object]]:
    """Return the "labels" of results.json: of the methods and attacks that are no built-in entries.

    Args:
      methods, attacks: the names that results hold.
    """
    shown = {name: _from_table(name) for name in methods if METHODS.source_of(name)}
    outside = [name for name in attacks if ATTACKS.source_of(name) or RECIPES.source_of(name)]
    return {
        "methods": {name: {**one._asdict(), "style": one.style and vars(one.style)} for name, one in shown.items()},
        "attacks": {name: attack_name(name) for name in outside},
    }


@contextmanager
def labels_of(runs: Iterable[Mapping[str, Any]]) -> Iterator[None]:
    """Use the labels that results.json of these runs holds for entries that are in no table, while the block runs."""
    found: dict[str, dict[str, dict[str, object]]] = {"methods": {}, "attacks": {}}
    for results in runs:
        for kind, labels in (results.get("labels") or {}).items():
            found[kind] = {**labels, **found.get(kind, {})}
    token = _FROM_RESULTS.set(found)
    try:
        yield
    finally:
        _FROM_RESULTS.reset(token)


def _from_table(name: str) -> MethodLabel:
    method = METHODS[name]
    return MethodLabel(method.label, method.family, method.style, method.leaves_out)


def method(name: object) -> MethodLabel:
    """Return how a method is shown; one that is nowhere known by its name, without a style."""
    name = str(name)
    if name == "encoder":
        return _from_table("zero_shot")._replace(label="Encoder")
    if name in _DIRECTIONS:
        return _DIRECTIONS[name]
    if name in METHODS:
        return _from_table(name)
    stored = _FROM_RESULTS.get().get("methods", {}).get(name)
    if stored is None:
        return MethodLabel(name, "unknown")
    if (style := stored.get("style")) is None:
        return MethodLabel(**stored)
    # JSON made lists of the tuples of matplotlib's line style.
    line = style["line"] if isinstance(style["line"], str) else (style["line"][0], tuple(style["line"][1]))
    return MethodLabel(**{**stored, "style": Style(**{**style, "line": line})})


def method_label(name: object) -> str:
    """Return the label of a method, or of a direction of retrieval; the name itself where none is known."""
    return method(name).label


def in_usual_order(names: Iterable[str]) -> list[str]:
    """Return different names of methods in the order in which they are shown: the encoder, then as in the table."""
    names = list(dict.fromkeys(names))
    known = [name for name in ("encoder", *METHODS, *_DIRECTIONS) if name in names]
    return known + [name for name in names if name not in known]


def is_head(name: str) -> bool:
    """Return whether a method leaves the encoder as it is and works on its features."""
    shown = method(name)
    return shown.family in ("zero_shot", "head") and not shown.leaves_out


def part_label(ablation: str) -> str:
    """Return the label of the part that an ablation leaves out, e.g. "consistency" of "ran_without_mse"."""
    part = method(ablation).leaves_out
    return PARTS[part].label if part in PARTS else part


def is_ablation(item: object) -> bool:
    """Return whether an item of a list in results.json is about a method without one of its parts."""
    return isinstance(item, Mapping) and any(
        item.get(field) and method(item[field]).leaves_out for field in ("method", "a", "b")
    )


def main_attack(names: Iterable[object]) -> str:
    """Return the attack that figures of the task under attack are shown of: the worst of all, or the only one.

    Args:
      names: of the attacks that the task's rows hold.
    """
    found = sorted({str(name).partition("@")[0] for name in names} - {"none", "transfer", "words", "nan", "None"})
    return "worst" if "worst" in found or not found else found[0]


def attack_name(name: object) -> str:
    """Return the label of an attack; one that is not known in capitals."""
    name = str(name)
    entry = ATTACKS.get(name) or RECIPES.get(name)
    if entry is not None:
        return entry.label
    return _OTHER_ATTACKS.get(name) or str(_FROM_RESULTS.get().get("attacks", {}).get(name, name.upper()))


def attack_label(name: object, among: Iterable[object] = ()) -> str:
    """Return "clean" or "attacked", with the attack's name where several attacks are `among` the rows."""
    if name in (None, "none"):
        return "clean"
    several = len({other for other in among if other not in (None, "none")} | {name}) > 1
    return f"attacked ({attack_name(name)})" if several else "attacked"


def attack_phrase(name: object) -> str:
    """Return the attack as the subject of a sentence."""
    return {"worst": "the worst of all attacks", "transfer": "the attack transferred from the surrogate"}.get(
        str(name), f"the attack {attack_name(name)}"
    )
