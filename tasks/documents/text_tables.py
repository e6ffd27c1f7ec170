"""Tables in plain text: cells between bars or tabs, or in columns that blanks keep apart in every line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from tasks.documents.tables import holds_figures

_RULE = re.compile(r"\s*[|+:]*\s*[-=]{2,}[-=|+:\s]*")  # a line that is drawn

Rows = list[tuple[int, list[str]]]  # (index of its line, cells)


def table_of(lines: Sequence[str]) -> tuple[list[str], Rows] | None:
    """(heads, rows) of the lines of a block; None for what is no table."""
    rules = [n for n, line in enumerate(lines) if _RULE.fullmatch(line)]
    held = [n for n in range(len(lines)) if n not in rules]
    if len(held) < 2:
        return None
    texts = [lines[n] for n in held]
    cells = _between_bars(texts) or _between_tabs(texts) or _in_columns(texts, 4 if rules else 6)
    if cells is None:
        return None
    first, rows = held[0], list(zip(held, cells, strict=True))
    inner = [n for n in rules if first < n < held[-1]]
    if len(inner) > 1:
        rows = _joined(rows, inner)
    ruled = [n for n in inner if "=" in lines[n]] or (inner if len(inner) == 1 else [])
    below = [row for _, row in rows[1:]]
    if len(rows) > 1 and ruled and rows[1][0] > ruled[0]:
        return rows[0][1], rows[1:]
    if len(cells[0]) > 2 and not holds_figures(cells[0][1:]) and all(holds_figures(row[1:]) for row in below):
        return rows[0][1], rows[1:]
    return [], rows


def _between_bars(lines: Sequence[str]) -> list[list[str]] | None:
    if not all(re.fullmatch(r"\s*\|.*\|\s*", line) for line in lines):
        return None
    return _alike([[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in lines])


def _between_tabs(lines: Sequence[str]) -> list[list[str]] | None:
    if not all("\t" in line.strip() and not line[0].isspace() for line in lines):
        return None
    return _alike([[cell.strip() for cell in line.rstrip().split("\t")] for line in lines])


def _in_columns(lines: Sequence[str], least: int) -> list[list[str]] | None:
    """Cells with two blanks or more between them, where no cell reaches below its neighbour.

    least: the number of cells that are no accident.
    """
    found = [list(re.finditer(r"\S+(?: \S+)*", line.expandtabs())) for line in lines]
    cells = _alike([[cell.group() for cell in row] for row in found])
    if cells is None or len(lines) * len(cells[0]) < least:
        return None
    columns = list(zip(*found, strict=True))
    apart = all(max(c.end() for c in one) < min(c.start() for c in two) for one, two in pairwise(columns))
    return cells if apart else None


def _alike(rows: list[list[str]]) -> list[list[str]] | None:
    """The rows, where all have one number of cells and more than one."""
    return rows if len({len(row) for row in rows}) == 1 and len(rows[0]) > 1 else None


def _joined(rows: Rows, rules: Sequence[int]) -> Rows:
    """The rows with the lines that go on with them: no rule before these, and their first cell empty."""
    found: Rows = []
    for n, cells in rows:
        if found and not cells[0] and not any(found[-1][0] < rule < n for rule in rules):
            found[-1] = (
                found[-1][0],
                [f"{one} {two}".strip() for one, two in zip(found[-1][1], cells, strict=True)],
            )
        else:
            found.append((n, cells))
    return found
