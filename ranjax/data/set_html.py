"""The page of a prepared set: how its files were understood, with pictures beside the rows they come from."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

from ranjax.data.set_account import lines
from ranjax.data.set_page import Json

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24 }
.warning { color: #b00020; font-weight: 600 }
table { border-collapse: collapse; margin: .5rem 0 }
td, th { border: 1px solid #d0d7de; padding: .2rem .5rem; text-align: left; vertical-align: top }
.film { display: flex; gap: 1rem; margin: 1.2rem 0; border-top: 1px solid #d0d7de; padding-top: 1rem }
.film img { width: 14rem; height: 14rem; object-fit: contain; background: #000 }
pre { white-space: pre-wrap }
"""


def page(summary: Json, pictures: Mapping[str, bytes], more: Sequence[str] = ()) -> str:
    """Return the page as HTML without scripts or links.

    Args:
      summary: of `set_account.account`.
      pictures: PNG of examples by id.
      more: lines of text that follow, as of `set_page.describe`.
    """
    parts = [f"<h1>{escape(summary['title'])}</h1>"]
    parts += [f'<p class="warning">{escape(text)}</p>' for text in summary["warnings"]]
    parts.append(_table(("rows", "number"), list(summary["rows"].items())))
    understood = [line for line in lines(summary) if not line.startswith("! ")][1:]
    parts.append("<h2>How the files were understood</h2><ul>")
    parts += [f"<li>{escape(line.strip())}</li>" for line in understood]
    parts.append("</ul>")
    if summary["first left out"]:
        rows = [(item["id"], item["reason"]) for item in summary["first left out"]]
        parts.append("<h2>First rows that were left out</h2>" + _table(("row", "reason"), rows))
    parts.append("<h2>Rows drawn at random, beside their source</h2>")
    parts += [_film(example, pictures.get(example["id"], b"")) for example in summary["examples"]]
    if more:
        parts.append("<h2>As prepared</h2><pre>" + escape("\n".join(more)) + "</pre>")
    title = escape(summary["title"])
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return head + "</head><body>" + "\n".join(parts) + "</body></html>\n"


def _film(example: Json, picture: bytes) -> str:
    data = base64.b64encode(picture).decode()
    image = f'<img alt="" src="data:image/png;base64,{data}">' if picture else "<p>the image was not opened</p>"
    facts = [(name, example[name]) for name in ("id", "split", "patient", "labels", "unknown") if example[name]]
    facts.append(("report", example["report"]))
    stated = ", ".join(f"{name} {mark}" for name, mark in example["stated"].items())
    facts += [("labels as stated", stated)] if stated else []
    source = _table(("column of the source", "cell"), list(example["source"].items())) if example["source"] else ""
    return f'<div class="film"><div>{image}</div><div>{_table(("as understood", ""), facts)}{source}</div></div>'


def _table(head: Sequence[str], rows: Sequence[tuple[object, object]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return "<table><tr>" + "".join(f"<th>{escape(name)}</th>" for name in head) + f"</tr>{body}</table>"
