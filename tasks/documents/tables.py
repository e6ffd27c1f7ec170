"""Tables of pages, documents and sheets: merged cells expanded to a grid, each row with its heads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MOST_SPAN = 1000  # of one cell; more is a mistake of its writer


@dataclass(frozen=True)
class Cell:
    """A cell as it stands in its row."""

    text: str
    rows: tuple[tuple[str, ...], ...] = ()  # of a table inside it
    columns: int = 1  # that it spans
    lines: int = 1  # rows that it spans; 0: all that follow
    head: bool = False
    place: int = 0


def is_layout(laid_out: Sequence[Sequence[bool]]) -> bool:
    """Whether a table only lays out a page: one cell in all, or cells that hold blocks of their own.

    laid_out: for each row, for each cell, whether it holds headings, long lists or several paragraphs.
    """
    num_cells = sum(map(len, laid_out))
    return num_cells <= 1 or any(any(row) for row in laid_out)


def holds_figures(cells: Sequence[str]) -> bool:
    """Whether cells hold figures and these are not all years."""
    return not all(re.fullmatch(r"(?:19|20)\d\d(?:[/–-]\d\d)?|\D*", cell) for cell in cells)


def may_be_head(cells: Sequence[str], below: Sequence[str]) -> bool:
    """Whether a table's first row can name its columns.

    One with an empty corner can, and one without figures behind it; several figures ("1 week") where figures of
    another kind stand below them.
    """
    if not cells[0] or not holds_figures(cells[1:]):
        return True
    pairs = [(one, two) for one, two in zip(cells[1:], below[1:], strict=False) if holds_figures([one])]
    return len(pairs) > 1 and all(holds_figures([two]) and _kind(one) != _kind(two) for one, two in pairs)


def _kind(cell: str) -> str:
    return re.sub(r"\d[\d.,:]*", "0", cell).strip()


def grid_rows(rows: Sequence[Sequence[Cell]]) -> Iterator[tuple[list[str], list[str], int]]:
    """(heads, cells, place) of each row that is no head; a cell over several rows or columns stands in each.

    Over columns of one head it stands in the first of them alone, and over all columns it belongs to none: it is
    a title of the table or of the rows below it.
    """
    grid = _grid(rows)
    if not grid:
        return
    width = max(map(len, grid))
    num_heads = 0
    while num_heads < len(grid) and all(cell is None or cell.head for cell in grid[num_heads]):
        num_heads += 1
    if num_heads == len(grid):
        num_heads = 0  # heads alone: a table with a head in each row and nothing else
    titled = num_heads > 0 and _covers_all(grid[0], width)
    named = grid[int(titled) : num_heads]
    heads = [_head([row[n] if n < len(row) else None for row in named]) for n in range(width)]
    empty = [head for n, head in enumerate(heads) if not any(n < len(row) and row[n] for row in grid[num_heads:])]
    unused = dict.fromkeys(head for head in empty if head and heads.count(head) == empty.count(head))
    if titled:
        yield [], [_head(grid[0])], grid[0][0].place if grid[0][0] else 0
    if unused:
        yield [], list(unused), 0
    for row in grid[num_heads:]:
        goes_on = [n > 0 and cell is row[n - 1] and heads[n] == heads[n - 1] for n, cell in enumerate(row)]
        filled = [cell.text if cell and not more else "" for cell, more in zip(row, goes_on, strict=True)]
        place = next((cell.place for cell in row if cell), 0)
        nested = [cell for cell in row if cell and cell.rows]
        if _covers_all(row, width) and not nested:
            yield [], [_head(row)], place
            continue
        if not nested:
            yield (heads if num_heads else []), filled, place
            continue
        before = [text for text in filled if text]
        for inner in nested[0].rows:  # a table in a cell: its rows under the words of the outer row
            own = [text for text in inner if text]
            if len(own) == 2:
                names = [name for name in heads if name]
                said = (
                    f"{', '.join(names)} – {', '.join([*before, own[0]])}"
                    if names
                    else ", ".join([*before, own[0]])
                )
                yield [], [said, own[1]], place
            else:
                yield [], [*before, *own], place


def _grid(rows: Sequence[Sequence[Cell]]) -> list[list[Cell | None]]:
    """One entry a row and column; a merged cell stands in each that it covers."""
    grid: list[list[Cell | None]] = []
    open_cells: dict[int, tuple[Cell, int]] = {}  # column -> (cell, rows that it still covers)
    for row in rows:
        line: list[Cell | None] = []
        waiting = list(row)
        column = 0
        while waiting or any(at >= column for at in open_cells):
            if column in open_cells:
                cell, left = open_cells.pop(column)
                line.append(cell)
                if left > 1:
                    open_cells[column] = (cell, left - 1)
                column += 1
                continue
            if not waiting:
                line.append(None)
                column += 1
                continue
            cell = waiting.pop(0)
            lines = min(cell.lines or MOST_SPAN, MOST_SPAN)
            for _ in range(max(1, min(cell.columns, MOST_SPAN))):
                line.append(cell)
                if lines > 1:
                    open_cells[column] = (cell, lines - 1)
                column += 1
        grid.append(line)
    return grid


def _covers_all(row: Sequence[Cell | None], width: int) -> bool:
    """Whether a row is one cell over all of several columns."""
    return width > 1 and len(row) == width and row[0] is not None and all(cell is row[0] for cell in row)


def _head(cells: Sequence[Cell | None]) -> str:
    """The heads above a column from top to bottom, each once."""
    return " ".join(dict.fromkeys(cell.text for cell in cells if cell and cell.text))
