"""Annotation tables of data sets, .xlsx or .csv: the header is found by its words, cells come as text.

Real files differ in preamble rows, blank columns, case and spaces of their headers, so a column is known by
its letters and digits alone: `Onset Frame`, `OnsetFrame` and `onset_frame` are one.
"""

import csv
import io
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merveil.mer.errors import InputError
from merveil.mer.extras import need

KINDS = (".xlsx", ".csv")
HEADER_WITHIN = 60  # rows; SAMM's header is its 14th
MAX_BYTES = 64 * 2**20
Columns = Mapping[str, Sequence[str]]  # our name -> headers it goes by, the published one first


@dataclass(frozen=True)
class Row:
    """One annotated line: its number in the file, from 1 as spreadsheets count, and cells by our names."""

    number: int
    cells: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        return self.cells[name]


@dataclass(frozen=True)
class Table:
    """An annotation file, the sheet taken, and its rows; a wanted optional column that is absent is ''."""

    path: Path
    sheet: str
    rows: tuple[Row, ...]

    def where(self, row: Row) -> str:
        sheet = f", sheet {self.sheet}" if self.sheet else ""
        return f"{self.path.name}{sheet}, row {row.number}"


def letters(header: str) -> str:
    """What a header is known by: lower-case letters and digits alone."""
    return re.sub(r"[^a-z0-9]+", "", header.lower())


def read_table(path: Path, columns: Columns, optional: Sequence[str] = ()) -> Table:
    """The annotated rows of a file, in its order; rows without any wanted cell are left out.

    columns: our name -> accepted headers; those in `optional` may be absent. InputError names the file and
    the missing column with the headers that are there, a wrong encoding, or a damaged workbook.
    """
    best: tuple[int, str, int, dict[str, int], list[str]] | None = None
    for sheet, lines in _sheets(path):
        for index, line in enumerate(lines[:HEADER_WITHIN]):
            found = _match(line, columns)
            if all(name in found or name in optional for name in columns):
                return Table(path, sheet, tuple(_rows(lines[index + 1 :], index + 2, found, columns)))
            if best is None or len(found) > best[0]:
                best = (len(found), sheet, index + 1, found, [cell for cell in line if cell])
    if best is None:
        raise InputError(f"{path} is empty: an annotation table with a header row is needed")
    _, sheet, number, found, headers = best
    name = next(n for n in columns if n not in found and n not in optional)
    row = f"{f'sheet {sheet}, ' if sheet else ''}row {number}"
    raise InputError(
        f"{path} has no {name} column (headers looked for: {', '.join(columns[name])}); the likeliest "
        f"header, {row}, has: {', '.join(headers) or 'nothing'}. Rename the column in a copy and pass "
        "--labels COPY"
    )


def matches(path: Path, columns: Columns, optional: Sequence[str] = ()) -> bool:
    """Whether a file has a header with all needed columns; a file that cannot be read does not."""
    try:
        read_table(path, columns, optional)
    except InputError:
        return False
    return True


def _match(line: Sequence[str], columns: Columns) -> dict[str, int]:
    known = [letters(cell) for cell in line]
    found = {}
    for name, headers in columns.items():
        place = next((known.index(letters(h)) for h in headers if letters(h) in known), None)
        if place is not None:
            found[name] = place
    return found


def _rows(
    lines: Sequence[Sequence[str]], first: int, places: Mapping[str, int], columns: Columns
) -> Iterator[Row]:
    for number, line in enumerate(lines, first):
        cells = {
            name: line[places[name]] if name in places and places[name] < len(line) else ""
            for name in columns
        }
        if any(cells.values()):
            yield Row(number, cells)


def _sheets(path: Path) -> Iterator[tuple[str, list[list[str]]]]:
    if path.suffix.lower() not in KINDS:
        raise InputError(f"{path} is not an annotation table: save it as {' or '.join(KINDS)}")
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
    data = path.read_bytes()
    if len(data) > MAX_BYTES:
        raise InputError(f"{path} has {len(data) >> 20} MiB: no annotation table is that large")
    if path.suffix.lower() == ".csv":
        yield "", [[cell.strip() for cell in line] for line in csv.reader(_lines(path, data))]
        return
    book = _book(path, data)
    try:
        for sheet in book.worksheets:
            yield sheet.title, [[_text(cell) for cell in line] for line in sheet.iter_rows(values_only=True)]
    finally:
        book.close()


def _book(path: Path, data: bytes) -> Any:
    """An open workbook, formulas as their last values."""
    openpyxl = need("openpyxl", "mer")
    try:
        return openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise InputError(
            f"{path} is not a readable .xlsx workbook ({error}): open it in a spreadsheet and save it anew"
        ) from error


def _lines(path: Path, data: bytes) -> list[str]:
    marked = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return data.decode("utf-16" if marked else "utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}, line {line}, is not UTF-8 (byte {data[error.start]:#04x}): save it as UTF-8 .csv or as "
            ".xlsx and pass that with --labels"
        ) from error


def _text(value: Any) -> str:
    """A cell as people read it: 12.0 is 12, an empty cell is ''."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
