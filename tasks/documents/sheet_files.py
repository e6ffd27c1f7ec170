"""XLSX, read by openpyxl: what a person sees in the cells, merged cells expanded, each row with its heads."""

from __future__ import annotations

import datetime
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.documents.builder import Builder
from tasks.documents.form import Document, Unreadable, clean, reason_of
from tasks.documents.text_files import MAX_TEXT_BYTES

_CURRENCY = re.compile(r"[€$£¥]|\b(?:EUR|USD|GBP|CHF)\b")


@dataclass
class Sheet:
    """One sheet of a workbook."""

    title: str
    rows: list[tuple[int, list[str]]] = field(default_factory=list)  # (number from 1, cells as text)
    hidden: list[str] = field(default_factory=list)  # texts of hidden rows, columns or the whole sheet
    uncounted: list[str] = field(default_factory=list)  # places of formulas without a saved value


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
        formulas = openpyxl.load_workbook(path)
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
    for number, row in enumerate(values.iter_rows(), start=1):
        cells: list[str] = []
        for cell in row:
            origin = merged.get((cell.row, cell.column))
            source = values.cell(*origin) if origin else cell
            text = shown(source.value, source.number_format or "")
            if cell.value is None and origin is None and formulas.cell(cell.row, cell.column).data_type == "f":
                found.uncounted.append(cell.coordinate)
            hidden = (
                values.column_dimensions[cell.column_letter].hidden if hasattr(cell, "column_letter") else False
            )
            if text and (hidden or values.row_dimensions[number].hidden or values.sheet_state != "visible"):
                found.hidden.append(text)
                text = ""
            cells.append(text)
        found.rows.append((number, cells))
    return found


def shown(value: Any, form: str) -> str:
    """A cell as a person sees it: `0815` of 815 in the form 0000, `5%` of 0.05, `2024-05-01` of a date."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime.datetime):
        midnight = value.time() == datetime.time()
        return value.date().isoformat() if midnight else value.isoformat(" ", "minutes")
    if isinstance(value, datetime.time):
        return value.isoformat("minutes")
    if isinstance(value, int | float):
        if re.fullmatch("0+", form) and value == int(value):
            return str(int(value)).zfill(len(form))
        if "%" in form:
            return f"{round(value * 100, 10):g}%"
        decimals = re.search(r"0\.(0+)", form)
        text = f"{value:.{len(decimals[1])}f}" if decimals else f"{value:.12g}"
        sign = _CURRENCY.search(form)
        return f"{text} {sign[0]}" if sign else text
    return clean(str(value))


def names_of(sheets: Sequence[Sheet]) -> set[str]:
    """What stands in the first rows, where columns are named."""
    return {clean(cell).lower() for sheet in sheets for _, cells in sheet.rows[:10] for cell in cells}


def as_tables(sheets: Sequence[Sheet], file: str) -> Document:
    """A workbook as tables with their heads."""
    built = Builder(file, "row")
    for sheet in sheets:
        built.raw += [cell for _, cells in _without_merged(sheet) for cell in cells]
        built.raw += sheet.hidden
        for text in sheet.hidden:
            built.leave("hidden cells", text)
        if sheet.uncounted:
            said = f"{len(sheet.uncounted)} cells of {sheet.title!r} hold formulas without a result"
            built.problem(0, f"{said}, {sheet.uncounted[0]} first; open the file and save it again")
        if any(any(cells) for _, cells in sheet.rows):
            built.heading(1, sheet.title)
            built.raw.append(sheet.title)
            for table in _tables(sheet.rows):
                _read_table(built, table)
    return built.document()


def _without_merged(sheet: Sheet) -> Iterator[tuple[int, list[str]]]:
    """Rows with each merged cell once."""
    above: list[str] = []
    for number, cells in sheet.rows:
        yield (
            number,
            [
                cell
                for n, cell in enumerate(cells)
                if not (n and cells[n - 1] == cell) and not (n < len(above) and above[n] == cell)
            ],
        )
        above = cells


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


def _read_table(built: Builder, table: Sequence[tuple[int, list[str]]]) -> None:
    heads: list[str] = []
    for n, (number, cells) in enumerate(table):
        filled = [cell for cell in cells if cell]
        if len(set(filled)) == 1:
            built.paragraph(filled[0], number)
        elif not heads and n + 1 < len(table) and not any(re.fullmatch(r"[-\d.,% €$£]+", cell) for cell in filled):
            heads = cells
        else:
            built.row(heads, cells, number)
