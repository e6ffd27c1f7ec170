"""XLSX, read by openpyxl: what a person sees in the cells, merged cells expanded, each row with its heads."""

from __future__ import annotations

import datetime
import operator
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tasks.documents.builder import Builder
from tasks.documents.form import Document, Left, Unreadable, clean, reason_of
from tasks.documents.tables import holds_figures, may_be_head
from tasks.documents.text_files import MAX_TEXT_BYTES

# Of a number's format: words in quotes, an escaped letter, a blank or a note in brackets, the number, other signs.
_FORMAT = re.compile(r'"([^"]*)"|\\(.)|[_*].|\[[^\]]*\]|(General|@|[#0?][#0?,.]*)|(.)')
_HOLDS = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq, "<>": operator.ne,
}  # fmt: skip


Spot = tuple[int, int]  # a cell: number of its row, index in the row


@dataclass
class Sheet:
    """One sheet of a workbook."""

    title: str
    rows: list[tuple[int, list[str]]] = field(default_factory=list)  # (number from 1, cells as text)
    left: list[Left] = field(default_factory=list)  # comments, and hidden rows, columns or the whole sheet
    uncounted: list[str] = field(default_factory=list)  # places of formulas without a saved value
    # each cell that repeats a merged one -> the one that it repeats
    repeats: dict[Spot, Spot] = field(default_factory=dict)


def read_sheets(path: Path) -> list[Sheet]:
    """The visible cells of each sheet. Raises Unreadable for a file that is no workbook."""
    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    with path.open("rb") as handle:
        if handle.read(8) == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
            raise Unreadable("is password-protected or an old .xls; save it as .xlsx without a password")
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > 4 * MAX_TEXT_BYTES:
                raise Unreadable("unpacks to more than 256 MB; split it")
        values = openpyxl.load_workbook(path, data_only=True)
        formulas = openpyxl.load_workbook(path, rich_text=True)
        return [_sheet(values[sheet.title], formulas[sheet.title]) for sheet in values.worksheets]
    except (
        InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError, IndexError,
        SyntaxError,
    ) as error:  # fmt: skip
        raise Unreadable(f"is no XLSX that can be read ({reason_of(error)}); save it again as .xlsx") from error


def _sheet(values: Any, formulas: Any) -> Sheet:
    found = Sheet(values.title)
    merged = {
        (row, column): (area.min_row, area.min_col)
        for area in values.merged_cells.ranges
        for row in range(area.min_row, area.max_row + 1)
        for column in range(area.min_col, area.max_col + 1)
    }
    unseen = {
        column
        for held in values.column_dimensions.values()
        if held.hidden
        for column in range(held.min or 0, (held.max or 0) + 1)
    }
    for number, row in enumerate(values.iter_rows(), start=1):
        cells: list[str] = []
        for cell in row:
            origin = merged.get((cell.row, cell.column))
            source = values.cell(*origin) if origin else cell
            text, struck = _parted(source, formulas.cell(source.row, source.column).value)
            if origin and origin != (cell.row, cell.column):
                found.repeats[number, cell.column - 1] = (origin[0], origin[1] - 1)
            if cell.comment:
                found.left.append(Left("comments", clean(cell.comment.text)))
            if cell.value is None and origin is None and formulas.cell(cell.row, cell.column).data_type == "f":
                found.uncounted.append(cell.coordinate)
            if struck and source is cell:
                found.left.append(Left("struck-through text", struck))
            hidden = cell.column in unseen or values.row_dimensions[number].hidden
            hidden = hidden or values.sheet_state != "visible" or _hides(source.number_format or "", source.value)
            if text and hidden:
                found.left.append(Left("hidden cells", text))
                text = ""
            cells.append(text)
        found.rows.append((number, cells))
    return found


def _parted(cell: Any, rich: Any) -> tuple[str, str]:
    """(what a cell shows, what of it is struck through)."""
    text = shown(cell.value, cell.number_format or "")
    if text and cell.has_style and cell.font.strike:
        return "", text
    pieces = [(str(one), getattr(one, "font", None)) for one in rich] if isinstance(rich, list) else []
    struck = [text for text, font in pieces if font is not None and font.strike]
    if not struck:
        return text, ""
    return clean("".join(text for text, font in pieces if font is None or not font.strike)), clean("".join(struck))


def _hides(form: str, value: Any) -> bool:
    """Whether a format has no part for a value: `;;;` for any, `0;-0;` for zero."""
    parts = re.sub(r'"[^"]*"|\\.', "x", form).split(";")
    at = 0
    if isinstance(value, str):
        at = 3
    elif isinstance(value, int | float) and value <= 0:
        at = 1 if value < 0 else 2
    return len(parts) > max(at, 1) and not parts[at].strip() and not re.search(r"\[[<>=]", form)


def shown(value: Any, form: str) -> str:
    """A cell as a person sees it: `0815` of 815 in the form 0000, `5%` of 0.05, `2024-05-01` of a date."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime.datetime):
        midnight = value.time() == datetime.time()
        return value.date().isoformat() if midnight else value.isoformat(" ", "seconds").removesuffix(":00")
    if isinstance(value, datetime.time):
        return value.isoformat("seconds").removesuffix(":00")
    if isinstance(value, datetime.timedelta):
        seconds = round(abs(value.total_seconds()))
        text = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}".removesuffix(":00")
        return f"-{text}" if value.total_seconds() < 0 else text
    if isinstance(value, int | float):
        return _number(value, form)
    return clean(str(value))


def _number(value: float, form: str) -> str:
    """A number in the part of its format that is for its value, behind the minus of what is below zero."""
    minus, size = "-" * (value < 0), abs(value)
    form = re.sub(r"\[\$([^\]-]*)(-[^\]]*)?\]", r'"\1"', form)
    pieces: list[tuple[str, ...]] = []
    for part in re.findall(r'(?:"[^"]*"|\\.|[^;])+', form):
        condition = re.search(r"\[(<=|>=|<>|[<>=])(-?\d+(?:\.\d+)?)\]", part)
        pieces = _FORMAT.findall(part)
        if condition is None or _HOLDS[condition[1]](value, float(condition[2])):
            break
    spots = [spot for _, _, spot, _ in pieces if spot]
    if len(spots) != 1:  # a fraction, a telephone number
        return minus + _digits(size)
    percent = any(sign == "%" for *_, sign in pieces)
    thousands = len(spots[0]) - len(spots[0].rstrip(","))
    size = size * 100 if percent else size / 1000**thousands if thousands else size
    decimals = re.search(r"\.(0+)", spots[0])
    text = f"{size:.{len(decimals[1])}f}" if decimals and not percent else _digits(size)
    if re.fullmatch("0+", spots[0]) and text.isdigit():
        text = text.zfill(len(spots[0]))
    said = "".join(text if spot else word or letter or sign or " " for word, letter, spot, sign in pieces)
    return minus + clean(said)


def _digits(size: float) -> str:
    """All digits of a number, as many as a spreadsheet keeps."""
    return str(int(size)) if size % 1 == 0 else f"{Decimal(f'{size:.15g}'):f}"


def head_row(sheet: Sheet, needed: Sequence[str]) -> int | None:
    """Index of the row that names a needed column, of the first ten."""
    rows = enumerate(cells for _, cells in sheet.rows[:10])
    return next((n for n, cells in rows if {cell.lower() for cell in cells} & set(needed)), None)


def as_tables(sheets: Sequence[Sheet], file: str) -> Document:
    """A workbook as tables with their heads."""
    built = Builder(file, "row")
    for sheet in sheets:
        built.raw += [cell for _, cells in without_merged(sheet) for cell in cells]
        built.raw += [left.text for left in sheet.left]
        built.left += sheet.left
        if sheet.uncounted:
            said = f"{len(sheet.uncounted)} cells of {sheet.title!r} hold formulas without a result"
            built.problem(0, f"{said}, {sheet.uncounted[0]} first; open the file and save it again")
        if any(any(cells) for _, cells in sheet.rows):
            built.heading(1, sheet.title)
            built.raw.append(sheet.title)
            for table in _tables(sheet.rows):
                _read_table(built, table, sheet.repeats)
    return built.document()


def without_merged(sheet: Sheet) -> Iterator[tuple[int, list[str]]]:
    """Rows with each merged cell once."""
    for number, cells in sheet.rows:
        yield number, [cell for n, cell in enumerate(cells) if (number, n) not in sheet.repeats]


def _tables(rows: Sequence[tuple[int, list[str]]]) -> Iterator[list[tuple[int, list[str]]]]:
    """Runs of rows between empty ones."""
    table: list[tuple[int, list[str]]] = []
    for number, cells in rows:
        if any(cells):
            table.append((number, cells))
        elif table:
            yield table
            table = []
    if table:
        yield table


def _read_table(built: Builder, table: Sequence[tuple[int, list[str]]], repeats: Mapping[Spot, Spot]) -> None:
    def own(number: int, cells: Sequence[str]) -> list[int]:
        """The columns of the filled cells, one merged over several in the first alone."""
        places = (n for n, cell in enumerate(cells) if cell)
        return [n for n in places if not _goes_on(repeats, number, n)]

    rows = [cells for number, cells in table if len(own(number, cells)) > 1]
    used = [n for n in range(len(table[0][1])) if any(cells[n] for cells in rows)]
    heads: list[str] = []
    named_at = 0  # the row that names the columns
    filled_below: set[int] = set()  # the named columns with a cell below their head
    widest = 0  # number of filled cells; what is no wider than a row without heads is none itself
    for (number, whole), (_, below) in zip_longest(table, table[1:], fillvalue=(0, list[str]())):
        cells = [whole[n] for n in used]
        num_filled = sum(map(bool, cells))
        filled = own(number, whole)
        if heads and len(filled) > 1 and _is_second_head(table, named_at, number, used, repeats):
            heads = [
                f"{head} {cell}" if cell not in ("", head) else head
                for head, cell in zip(heads, cells, strict=True)
            ]
        elif len(filled) == 1:
            built.paragraph(whole[filled[0]], number)
        elif not heads and num_filled > widest and below and may_be_head(cells, [below[n] for n in used]):
            heads, named_at = cells, number
        else:
            named = heads or [""] * len(cells)
            again = [
                k > 0 and _goes_on(repeats, number, n) and named[k] == named[k - 1] for k, n in enumerate(used)
            ]
            built.row(heads, ["" if more else cell for cell, more in zip(cells, again, strict=True)], number)
            widest = max(widest, num_filled)
            filled_below |= {k for k, cell in enumerate(cells) if cell}
    unused = {head for k, head in enumerate(heads) if k not in filled_below}
    unused -= {head for k, head in enumerate(heads) if k in filled_below}
    built.paragraph(", ".join(head for head in dict.fromkeys(heads) if head in unused - {""}), named_at)


def _is_second_head(
    table: Sequence[tuple[int, list[str]]],
    named_at: int,
    number: int,
    used: Sequence[int],
    repeats: Mapping[Spot, Spot],
) -> bool:
    """Whether the row below a head over several columns names these one by one."""
    wide = [n for n in used if _goes_on(repeats, named_at, n)]
    if not wide or number != named_at + 1:
        return False
    heads, cells = (next(held for place, held in table if place == one) for one in (named_at, number))
    alone = [n for n in used if n not in wide and n + 1 not in wide]
    free = bool(alone) and all(cells[n] in ("", heads[n]) for n in alone)
    return free or not holds_figures([cells[n] for n in used])


def _goes_on(repeats: Mapping[Spot, Spot], number: int, column: int) -> bool:
    """Whether a cell goes on with the merged one to its left."""
    first = repeats.get((number, column))
    return first is not None and first[1] < column
