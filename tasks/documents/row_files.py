"""Readers of files with one thing a row: JSONL, CSV and XLSX, of texts or of questions.

Names of columns are read in any case; a spreadsheet's `sep=` line and blank first lines are no rows.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.documents.builder import Builder
from tasks.documents.form import (
    Document,
    Left,
    Problem,
    Section,
    Unreadable,
    clean,
    nothing_left,
    reason_of,
)
from tasks.documents.sheet_files import Sheet, as_tables, head_row, read_sheets, without_merged
from tasks.documents.text_files import MAX_TEXT_BYTES, read_lines

csv.field_size_limit(MAX_TEXT_BYTES)  # of one cell; the module's own limit is 131,072 characters


@dataclass(frozen=True)
class Row:
    """One row of a JSONL or CSV file, values as text; a list stays a list."""

    line: int
    values: Mapping[str, Any]

    def text(self, *names: str) -> str:
        """The first of the named fields that has text."""
        for name in names:
            value = self.values.get(name)
            if isinstance(value, str | int | float) and clean(str(value)):
                return clean(str(value))
        return ""


@dataclass
class Rows:
    """The rows of a table file, and what was refused; lines = rows + refused."""

    rows: list[Row] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)  # about single rows, and notes
    num_refused: int = 0
    refused: list[str] = field(default_factory=list)  # the texts of rows that were refused
    left: list[Left] = field(default_factory=list)  # of a workbook: what is hidden or above the head, comments


def read_rows(
    path: Path, file: str, needed: Sequence[str], known: Sequence[str], others: list[Sheet] | None = None
) -> Rows:
    """The rows of a .jsonl, .csv or .xlsx file with the column `needed[0]` (or its other names after it).

    A broken row is refused and named; sheets without the column are added to `others`. Raises Unreadable where the
    file as a whole cannot be used, as one without the column where no `others` are taken.
    """
    found = Rows()
    kind = path.suffix.lower()
    if kind == ".xlsx":
        rows = _sheet_rows(read_sheets(path), found, file, needed, others)
    else:
        lines = read_lines(path, file, found.problems)
        rows = _csv_rows(lines, found, file, needed) if kind == ".csv" else _jsonl_rows(lines, found, file)
    unread: dict[str, int] = {}
    for row in rows:
        for name in row.values:
            if name not in known:
                unread.setdefault(name, row.line)
        if row.text(*needed):
            found.rows.append(row)
        else:
            _refuse(found, file, row.line, f"has no {needed[0]!r}; write it or remove the row")
            found.refused.append(" ".join(map(str, row.values.values())))
    if unread:
        first = min(unread.values())
        named = ", ".join(map(repr, list(unread)[:6]))
        said = f"the fields {named} are not read; known are: {', '.join(known)}"
        found.problems.append(Problem(file, first, "line", said))
    found.num_refused += sum("was left out; break it" in problem.said for problem in found.problems)
    return found


def _refuse(found: Rows, file: str, line: int, said: str) -> None:
    found.num_refused += 1
    found.problems.append(Problem(file, line, "line", said))


def _jsonl_rows(lines: Iterable[tuple[int, str]], found: Rows, file: str) -> Iterator[Row]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            body = json.loads(line)
        except (ValueError, RecursionError) as error:
            _refuse(found, file, number, f"broken JSON ({reason_of(error)}); write one whole JSON object a line")
            continue
        if isinstance(body, dict):
            yield Row(number, {clean(name).lower(): value for name, value in body.items()})
        else:
            _refuse(found, file, number, f"holds {type(body).__name__}; write one JSON object, in curly braces")


def _csv_rows(lines: Iterable[tuple[int, str]], found: Rows, file: str, needed: Sequence[str]) -> Iterator[Row]:
    places: list[int] = []  # line number of every line handed to the reader

    def source() -> Iterator[str]:
        for number, line in lines:
            places.append(number)
            yield f"{line}\n"

    stream = source()
    first = next((line for line in stream if line.strip()), "")
    named = re.fullmatch(r'\W?"?sep=(.)"?[,;\t|]*\s*', first, re.IGNORECASE)
    if named:
        first = next((line for line in stream if line.strip()), "")
    delimiter = named[1] if named else max(",;\t|", key=first.count)
    header = [clean(name).lower() for name in next(csv.reader([first], delimiter=delimiter), [])]
    place = places[-1] if places else 1
    if not set(header) & set(needed):
        columns = ", ".join(map(repr, header)) or "none"
        raise Unreadable(
            f"has the columns {columns} and none called {needed[0]!r}; name it in the first line", place
        )
    if len(set(filter(None, header))) != len(list(filter(None, header))):
        raise Unreadable(f"names a column twice: {', '.join(header)}; give each its own name", place)
    reader = csv.reader(stream, delimiter=delimiter, strict=True)
    while True:
        start = len(places)
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            begin = places[min(start, len(places) - 1)]
            reach = f" that runs to line {places[-1]}" if places[-1] > begin else ""
            _refuse(found, file, begin, f"broken row{reach} ({error}); check its quotes")
            continue
        number = places[min(start, len(places) - 1)]
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(header) and not any(cell.strip() for cell in cells[len(header) :]):
            cells = cells[: len(header)]  # empty cells that a spreadsheet has written behind the last column
        if len(cells) != len(header):
            found.refused.append(" ".join(cells))
            said = f"has {len(cells)} cells and the first line names {len(header)}"
            _refuse(found, file, number, f"{said}; quote cells that hold {delimiter!r}")
            continue
        yield Row(number, {name: cell for name, cell in zip(header, cells, strict=True) if name or cell})


def _sheet_rows(
    sheets: Sequence[Sheet], found: Rows, file: str, needed: Sequence[str], others: list[Sheet] | None
) -> Iterator[Row]:
    """The rows below the row that names the needed column, of each sheet that has one."""
    for sheet in sheets:
        head = head_row(sheet, needed)
        if head is None and others is not None and any(any(cells) for _, cells in sheet.rows):
            others.append(sheet)
            continue
        found.left += sheet.left
        if head is None:
            if any(any(cells) for _, cells in sheet.rows):
                said = f"its sheet {sheet.title!r} has no column {needed[0]!r} and is not read"
                found.problems.append(Problem(file, 0, "row", f"{said}; save it as a file of its own"))
            continue
        above = [" ".join(cells).strip() for _, cells in list(without_merged(sheet))[:head]]
        found.left += [Left("rows above the head", text) for text in above if text]
        header = [cell.lower() for cell in sheet.rows[head][1]]
        for number, cells in sheet.rows[head + 1 :]:
            if any(cells):
                yield Row(number, {name: cell for name, cell in zip(header, cells, strict=True) if name or cell})
    if others is None and all(head_row(sheet, needed) is None for sheet in sheets):
        first = next((cells for sheet in sheets for _, cells in sheet.rows if any(cells)), [])
        columns = ", ".join(repr(cell) for cell in first if cell) or "none"
        raise Unreadable(f"has the columns {columns} and none called {needed[0]!r}; name it in the first row", 1)


def read_table(path: Path, file: str) -> Document:
    """Rows of texts, one a clause; sheets without a column `text` are read as tables with their heads."""
    known = ("id", "title", "heading", "text", "content")
    others: list[Sheet] = []
    found = read_rows(path, file, ("text", "content"), known, others)
    return as_document(found, file, known, as_tables(others, file) if others else Document(file, ()))


def as_document(found: Rows, file: str, known: Sequence[str], tables: Document) -> Document:
    """Rows of texts as a document, the file's tables behind them. Raises Unreadable where no row is left."""
    places: dict[str, int] = {}
    sections: list[Section] = []
    left = [*found.left, *(Left("refused rows", text) for text in found.refused)]
    raw = [tables.raw, *(one.text for one in left)]
    for row in found.rows:
        values = {name: _words_of(value) for name, value in row.values.items()}
        raw += values.values()
        left += [Left("columns that are not read", text) for name, text in values.items() if name not in known]
        row_id = row.text("id")
        left.append(Left("ids of rows", row_id))
        if row_id and row_id in places:
            said = f"repeats the id {row_id!r} of line {places[row_id]} and was left out; give each row its own"
            _refuse(found, file, row.line, said)
            left.append(Left("refused rows", " ".join(values.values())))
            continue
        if row_id:
            places[row_id] = row.line
        built = Builder(file)
        for paragraph in str(row.values.get("text") or row.values.get("content") or "").split("\n\n"):
            built.paragraph(paragraph, row.line)
        found.problems += built.problems
        left += built.left
        if not built.problems:
            title = row.text("title", "heading")
            passages = tuple(p for section in built.document().sections for p in section.passages)
            sections.append(Section(file, title, passages, "line", row_id))
    if not sections and not tables.sections:
        raise nothing_left(found.problems, "row")
    problems = tuple(sorted((*found.problems, *tables.problems), key=lambda problem: problem.place))
    return Document(file, (*sections, *tables.sections), problems, raw="\n".join(raw), left=(*left, *tables.left))


def _words_of(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
