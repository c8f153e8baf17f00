"""Pages of the site that are made from something else: the README, the tables, the schema, docstrings, notebooks.

A hook of mkdocs (`mkdocs.yml`). Nothing here imports JAX.
"""

from __future__ import annotations

import ast
import csv
import json
import posixpath
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = {
    "index.md": "README.md",
    "project/contributing.md": "CONTRIBUTING.md",
    "project/security.md": "SECURITY.md",
    "project/changelog.md": "CHANGELOG.md",
}
PACKAGES = ("attacks", "evaluation", "methods", "models", "objectives", "training", "data", "report", "core")
_TABLE = re.compile(r"(?m)^\[([^]]+)\]\(((?:\.\./)?tables/[\w.]+\.csv)\)$")
_EXAMPLE = re.compile(r"(?m)^\[([^]]+)\]\((examples/\w+\.py)\)$")
_LINK = re.compile(r"(!?)\[([^]]*)\]\(([^)\s]+)\)")


def pages() -> dict[str, str]:
    """Return the Markdown of every page that is made, by its path below docs/."""
    made = {page: (ROOT / file).read_text() for page, file in PROJECT.items()}
    made = {page: moved(text, PROJECT[page], page) for page, text in made.items()}
    made["reference/config.md"] = config_page()
    made["reference/entries.md"] = entries_page()
    made["reference/data_sets.md"] = data_sets_page()
    made |= {f"reference/api/{package}.md": api_page(package) for package in PACKAGES}
    return made | {f"tutorials/{path.stem}.md": notebook_page(path) for path in notebooks()}


def notebooks() -> list[Path]:
    """Return the notebooks in the order of their names."""
    return sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))


def moved(text: str, file: str, page: str) -> str:
    """Return a page of the project with links that hold on the site.

    Args:
      text: of the page.
      file: its path from the root, against which its links hold now.
      page: its path below docs/ on the site.

    A link to a file that is no page becomes its words.
    """
    homes = {file: page for page, file in PROJECT.items()}

    def link(match: re.Match[str]) -> str:
        picture, words, address = match.groups()
        path, mark, anchor = address.partition("#")
        if re.match(r"[a-z]+:", address) or not path:
            return match.group()
        target = posixpath.normpath(posixpath.join(posixpath.dirname(file), path))
        home = homes.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else "")
        if not home or not (target in homes or (ROOT / target).is_file()) or target.endswith(".py"):
            return words
        home = home.replace(".ipynb", ".md")  # notebooks are pages of the site
        return f"{picture}[{words}]({posixpath.relpath(home, posixpath.dirname(page) or '.')}{mark}{anchor})"

    pieces = re.split(r"(?ms)(^```.*?^```)", text)
    return "".join(piece if index % 2 else _LINK.sub(link, piece) for index, piece in enumerate(pieces))


def config_page() -> str:
    """Return a page on every configuration key, from the schema."""
    from ranjax.run import config

    parts = [
        "# Every config key",
        "`ranjax describe CONFIG` prints them with the values of a config. Made from the schema.",
    ]
    groups: dict[str, list[str]] = {}
    for key in config.KEYS:
        group = key.name.rpartition(".")[0] or "general"
        allowed = getattr(key.check, "stated", "")
        words = [
            f"**`{key.name}`** = `{key.default!r}`"
            + (f" ({key.unit})" if key.unit else "")
            + f"  \n{_plain(key.meaning)}"
        ]
        words += [f"  \nAllowed: {_plain(allowed)}."] if allowed else []
        groups.setdefault(group, []).append("".join(words))
    for group, keys in groups.items():
        parts += [f"## {group}", *keys]
    return "\n\n".join(parts) + "\n"


def _plain(text: str) -> str:
    """Return text in which nothing is Markdown's."""
    return re.sub(r"([\\`*_<>\[\]|])", r"\\\1", text)


def entries_page() -> str:
    """Return a page on every entry of the tables, as `ranjax list` has them."""
    import importlib

    from ranjax.cli import list_command

    parts = ["# Every entry of the tables", "`ranjax list KIND` prints them. Each is named in a config."]
    for kind, place in list_command.TABLES.items():
        module, _, name = place.partition(":")
        rows = list_command.rows_of(getattr(importlib.import_module(module), name))
        columns = list(dict.fromkeys(field for row in rows for field in row))
        lines = [columns, ["---"] * len(columns)]
        lines += [[f"`{row['name']}`", *(_plain(row.get(field, "")) for field in columns[1:])] for row in rows]
        parts += [f"## {kind}", "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    return "\n\n".join(parts) + "\n"


def data_sets_page() -> str:
    """Return a page on every data set, as `ranjax prepare explain NAME` has it."""
    from ranjax.cli import prepare_command
    from ranjax.data.sets import SETS

    parts = ["# Every data set", "`ranjax prepare explain NAME` prints this for one set. Nothing is downloaded."]
    for name in SETS:
        title, *facts = prepare_command.explain(name).splitlines()
        lines = [_plain(fact) for fact in facts if not fact.startswith("checksum")]
        parts += [f"## {_plain(title)}", "\n".join(f"* {line}" for line in lines)]
    return "\n\n".join(parts) + "\n"


def api_page(package: str) -> str:
    """Return the page of a package: its public modules, whose docstrings mkdocstrings reads."""
    folder = ROOT / "ranjax" / package
    tree = ast.parse((folder / "__init__.py").read_text())
    words = ast.get_docstring(tree) or ""
    named = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    modules = [name for name in dict.fromkeys(named) if (folder / f"{name.replace('.', '/')}.py").is_file()]
    parts = [f"# ranjax.{package}", words, *(f"::: ranjax.{package}.{name}" for name in sorted(modules))]
    return "\n\n".join(parts) + "\n"


def notebook_page(path: Path) -> str:
    """Return a notebook with its outputs as Markdown."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        parts += list(_outputs(cell))
    return "\n\n".join(parts) + "\n"


def _outputs(cell: dict) -> Iterator[str]:
    for output in cell["outputs"]:
        if output["output_type"] == "stream":
            yield f"```text\n{''.join(output['text']).rstrip()}\n```"
        elif "image/png" in output.get("data", {}):
            yield f"![output](data:image/png;base64,{output['data']['image/png'].strip()})"


def on_config(config):
    """Fill the parts of the navigation that are lists of made pages."""
    filled = {
        "TUTORIALS": [f"tutorials/{path.stem}.md" for path in notebooks()],
        "API": [f"reference/api/{package}.md" for package in PACKAGES],
    }

    def fill(item):
        if isinstance(item, dict):
            return {
                name: filled.get(value, fill(value)) if isinstance(value, str) else fill(value)
                for name, value in item.items()
            }
        return [fill(one) for one in item] if isinstance(item, list) else item

    config.nav = [one for one in fill(config.nav) if list(one.values()) != [[]]]
    return config


def on_files(files, config):
    """Add the pages that are made."""
    from mkdocs.structure.files import File

    for page, text in pages().items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turn links of the documentation that leave it into links that hold on the site."""
    if page.file.generated_by is not None:
        return markdown + _tooltips()
    shown = moved(_EXAMPLE.sub(_example, markdown), f"docs/{page.file.src_uri}", page.file.src_uri)
    shown = _TABLE.sub(_table, shown)
    if page.file.src_uri == "glossary.md":
        shown += abbreviation_table()
    return shown + _tooltips()


def abbreviation_table() -> str:
    """Return the end of the glossary: every abbreviation of the report page."""
    from ranjax.report.abbreviations import ABBREVIATIONS

    lines = [("short", "long"), ("---", "---"), *sorted(ABBREVIATIONS.items(), key=lambda item: item[0].lower())]
    return "\n" + "\n".join(f"| {short} | {words} |" for short, words in lines) + "\n"


def _tooltips() -> str:
    """Return the abbreviations as the site's extension `abbr` reads them."""
    from ranjax.report.abbreviations import ABBREVIATIONS

    return "\n\n" + "\n".join(f"*[{short}]: {words}" for short, words in ABBREVIATIONS.items()) + "\n"


def commands() -> dict[str, str]:
    """Return the command behind a table by its file: of those that were made, and of the archive's."""
    folder = ROOT / "docs" / "tables"
    made = {file: one["command"] for file, one in json.loads((folder / "results.json").read_text()).items()}
    archive = tomllib.loads((folder / "archive.toml").read_text("utf-8"))["tables"]
    return made | {file: one["command"] for one in archive for file in one["files"]}


def _example(match: re.Match[str]) -> str:
    """Return a program of docs/examples in the place of a line that is its link."""
    words, file = match.groups()
    return f"{words}:\n\n```python\n{(ROOT / 'docs' / file).read_text()}```"


def _table(match: re.Match[str]) -> str:
    """Return a table of docs/tables, folded, in the place of a line that is its link; a made one with its command."""
    words, file = match.group(1), match.group(2).removeprefix("../")
    with open(ROOT / "docs" / file, newline="") as opened:
        header, *rows = ([cell.replace("|", "\\|") for cell in row] for row in csv.reader(opened))
    lines = (f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows))
    body = "\n".join(lines)
    if command := commands().get(posixpath.basename(file)):
        body += f"\n\n```bash\n{command.strip()}\n```"
    return f"<details markdown><summary>{words} ({file})</summary>\n\n{body}\n\n</details>"
