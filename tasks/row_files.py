"""Readers of files with one thing a row: JSONL and CSV, of texts or of questions."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.sections import (
    Builder,
    Document,
    Problem,
    Section,
    Unreadable,
    clean,
    nothing_left,
    read_lines,
    reason_of,
)


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


def read_rows(path: Path, file: str, needed: Sequence[str], known: Sequence[str]) -> Rows:
    """The rows of a .jsonl or .csv file with the column `needed[0]` (or its other names after it).

    A broken row is refused and named. Raises Unreadable where the file as a whole cannot be used.
    """
    found = Rows()
    lines = read_lines(path, file, found.problems)
    rows = (
        _csv_rows(lines, found, file, needed) if path.suffix.lower() == ".csv" else _jsonl_rows(lines, found, file)
    )
    unread: dict[str, int] = {}
    for row in rows:
        for name in row.values:
            if name not in known:
                unread.setdefault(name, row.line)
        if row.text(*needed):
            found.rows.append(row)
        else:
            _refuse(found, file, row.line, f"has no {needed[0]!r}; write it or remove the row")
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
            yield Row(number, body)
        else:
            _refuse(found, file, number, f"holds {type(body).__name__}; write one JSON object, in curly braces")


def _csv_rows(lines: Iterable[tuple[int, str]], found: Rows, file: str, needed: Sequence[str]) -> Iterator[Row]:
    places: list[int] = []  # line number of every line handed to the reader

    def source() -> Iterator[str]:
        for number, line in lines:
            places.append(number)
            yield f"{line}\n"

    stream = source()
    first = next(stream, "")
    delimiter = max(",;\t", key=first.count)
    header = [clean(name).lower() for name in next(csv.reader([first], delimiter=delimiter), [])]
    if not set(header) & set(needed):
        columns = ", ".join(map(repr, header)) or "none"
        raise Unreadable(f"has the columns {columns} and none called {needed[0]!r}; name it in the first line", 1)
    if len(set(header)) != len(header):
        raise Unreadable(f"names a column twice: {', '.join(header)}; give each its own name", 1)
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
        if len(cells) != len(header):
            said = f"has {len(cells)} cells and the first line names {len(header)}"
            _refuse(found, file, number, f"{said}; quote cells that hold {delimiter!r}")
            continue
        yield Row(number, dict(zip(header, cells, strict=True)))


def read_table(path: Path, file: str) -> Document:
    """A JSONL or CSV file of texts: `text`, and where wanted `id` and `title`; a row is a section."""
    found = read_rows(path, file, ("text", "content"), ("id", "title", "heading", "text", "content"))
    places: dict[str, int] = {}
    sections = []
    for row in found.rows:
        row_id = row.text("id")
        if row_id and row_id in places:
            said = f"repeats the id {row_id!r} of line {places[row_id]} and was left out; give each row its own"
            _refuse(found, file, row.line, said)
            continue
        if row_id:
            places[row_id] = row.line
        built = Builder(file)
        built.passage(row.text("text", "content"), row.line)
        found.problems += built.problems
        if not built.problems:
            (section,) = built.document().sections
            title = row.text("title", "heading")
            sections.append(Section(file, title, section.passages, "line", row_id))
    if not sections:
        raise nothing_left(found.problems, "row")
    return Document(file, tuple(sections), tuple(sorted(found.problems, key=lambda problem: problem.place)))
