"""Images with a table of your own: one, one a split, or a second one as the out-of-domain test set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from ranjax.core.errors import ConfigError, DataError
from ranjax.data import strict_tables, table_cells
from ranjax.data.images.locations import FileRef
from ranjax.data.publisher_tables import inside
from ranjax.data.sets.column_roles import choose_tables, roles
from ranjax.data.sets.row_entries import Spellings, check_options, from_row
from ranjax.data.sets.spec import Entry, Options, Rejected, Said, spec
from ranjax.data.splits import SPLITS, hash_split

ENDINGS = (".csv", ".csv.gz", ".csv.zip", ".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz", ".ndjson", ".json")


def _table(root: Path, options: Options) -> Iterator[Entry | Rejected | Said]:
    """Read one table, or two: that of `ood_table` gives the out-of-domain test set, with the same columns."""
    values = dict(options.values)
    names = [name for name in values if name.startswith("ood_")]
    other = {name.removeprefix("ood_"): values.pop(name) for name in names}
    shares = _shares(values.pop("shares", ""))
    if other and "table" not in other:
        raise ConfigError("option ood_table", "", f"a table, as option ood_{next(iter(other))} is given")
    for row in _tables(root, values):
        if isinstance(row, Entry) and other:
            row = _from_source("main", row)
        if shares and isinstance(row, Entry) and not row.split:
            row = row._replace(split=hash_split(row.patient or row.id, shares, options.seed))
        yield row
    if other:
        kept = {name: value for name, value in values.items() if name not in ("images", "patient", "split")}
        for row in _tables(root, {**kept, **other}, test=True):
            yield _from_source("ood", row._replace(split="ood_test")) if isinstance(row, Entry) else row


def _shares(stated: str) -> dict[str, float]:
    """Return the shares of train, adapt, validation and test: "0.6,0.1,0.1,0.2" -> {"train": 0.6, ...}."""
    try:
        shares = dict(zip(SPLITS[:4], map(float, stated.split(",")), strict=True)) if stated else {}
    except ValueError:
        shares = {"": -1.0}
    if shares and (min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-6):
        raise ConfigError("option shares", stated, "four positive shares that sum to 1, as '0.6,0.1,0.1,0.2'")
    return shares


def _from_source(source: str, row: Entry) -> Entry:
    """Put the name of its table before the ids of a row and its patient."""
    return row._replace(id=f"{source}/{row.id}", patient=row.patient and f"{source}/{row.patient}")


def _tables(root: Path, values: Mapping[str, str], test: bool = False) -> Iterator[Entry | Rejected | Said]:
    """Go through the tables that `column_roles.choose_tables` chooses; `test`: of the out-of-domain set."""
    name = values.get("table", "")
    if name and not name.lower().endswith(ENDINGS):
        raise ConfigError("option table", name, "a .csv, .csv.gz, .tsv, .jsonl or .json file")
    tables, unread = choose_tables(root, name, ENDINGS)
    if not tables:
        present = ", ".join(sorted(path.name for path in root.iterdir())[:12])
        raise DataError(f"None of index.csv, *.csv, *.jsonl, *.tsv lies in {root}; it holds {present or 'nothing'}.")
    if unread and not test:
        yield Said("tables", f"not read: {', '.join(path.name for path in unread)}", True)
    spellings = Spellings()
    for table, split in tables.items():
        yield from _rows_of(table, root, values, split, spellings)
    spellings.check()


def _rows_of(
    path: Path, root: Path, values: Mapping[str, str], split: str, spellings: Spellings
) -> Iterator[Entry | Rejected | Said]:
    column = values.get("image", "file")
    table = strict_tables.read(path, (column,))
    check_options(values, table.columns)
    known = roles(table.columns, values, column, path.name)
    yield from known.said
    if table.encoding != "utf-8-sig":
        yield Said("tables", f"{path.name} is not UTF-8; it is read as {table.encoding}")
    folder = root / values["images"] if "images" in values else path.parent
    for line in table.rows:
        try:
            name = "" if line.fault else one_spelling(table_cells.name(line.cells.get(column)))
            reason = line.fault or ("" if name else f"column {column!r} is empty")
            file = inside(folder, name)
        except DataError as error:
            reason = str(error)
        if reason:
            yield Rejected(line.place, "", reason)
            continue
        if not file.exists() and (folder / "images").is_dir():
            file = inside(folder / "images", name)
        entry = from_row(line.cells, known.values, FileRef(str(file)), name, split)
        spellings.add(entry, known.values, line.place)
        yield entry


def one_spelling(path: str) -> str:
    """Return a relative path in one spelling: slashes, no "./"; ".." stays, and is refused later."""
    return PurePosixPath(path.replace("\\", "/")).as_posix() if path else ""


SPECS = (spec("table", _table),)
