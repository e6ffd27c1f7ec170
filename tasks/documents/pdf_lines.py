"""The lines of a PDF page in reading order, from the place of every letter: columns apart, turned text upright.

pdfium tells the letters, their places and sizes, and sets the blanks that a PDF does not store.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from tasks.documents.pdf_layers import gone, switch_off

NOTE = re.compile("\ue000(\\d{1,3})\ue001")  # raised digits: of a footnote, or a power
_BOLD = re.compile(r"bold|black|heavy|semib|-bd|cmbx|-demi", re.IGNORECASE)
_FIXED = re.compile(r"mono|courier|typewriter|consol|cmtt|code|menlo|fixed", re.IGNORECASE)
_MEANT = {2: "-", 0xFFFE: "-", 0: "\ufffd", 0xAD: "-"}  # by pdfium's own codes
_GUTTER = 1.3  # white space that parts two pieces of a line, in heights of its letters
_LEAST_LINES = 3  # on both sides of a gutter that parts columns


@dataclass(frozen=True)
class Line:
    """A line of a page, in points from its lower left corner; of turned text as if it were upright."""

    text: str
    page: int
    y: float  # of its base
    x0: float
    x1: float
    size: float  # of most of its letters
    bold: bool = False
    fixed: bool = False  # letters of one width, as of code
    turned: int = 0  # quarter turns
    column: int = 0  # counted in reading order
    left: float = 0.0  # edges of its column
    right: float = 0.0
    cells: tuple[str, ...] = ()  # its pieces, where wide blanks part them
    edges: tuple[float, ...] = ()  # their left edges


class _Letter(NamedTuple):
    text: str
    x: float
    y: float
    x1: float
    size: float
    turned: int
    at: int  # among the signs of the page
    shown: bool = False  # some of it lies on the page


class Page(NamedTuple):
    """What a page holds."""

    lines: list[Line]  # in reading order
    raw: str  # its text as pdfium gives it
    num_bad: int  # signs that have no known letter
    outside: str  # text beyond the part of the page that is shown
    comments: list[str]
    layers: str = ""  # text of layers that are switched off


def page_lines(pdf: Any, number: int, off: Collection[str] = ()) -> Page:
    """A page, counted from 1, with what is filled in and written over it, without the layers that are off."""
    import pypdfium2.raw as raw

    page = pdf[number - 1]
    comments, drawn = _annotations(page)
    if drawn and raw.FPDFPage_Flatten(page, raw.FLAT_NORMALDISPLAY) == raw.FLATTEN_SUCCESS:
        page = pdf[number - 1]
    textpage = page.get_textpage()
    layers = ""
    try:
        text = textpage.get_text_bounded()
        if off and switch_off(page, off):
            textpage.close()
            textpage = page.get_textpage()
            layers = gone(text, textpage.get_text_bounded())
        letters = list(_letters(textpage.raw, textpage.count_chars(), page.get_bbox()))
        num_bad = sum(letter is not None and letter.text in ("\ufffd", "\0") for letter in letters)
        shown, hidden = list[list[_Letter]](), list[list[_Letter]]()
        for run in _runs(letters):  # one that is shown may go on beyond the page
            (shown if any(letter.shown for letter in run) else hidden).append(run)
        pieces = [_piece(run, textpage.raw, number) for run in shown]
    finally:
        textpage.close()
    pieces = [piece for piece in pieces if piece.text.strip()]
    lines: list[Line] = []
    for turned in sorted({piece.turned for piece in pieces}):
        lines += _in_order([piece for piece in pieces if piece.turned == turned], len(lines))
    text = re.sub(r"[\u0002\ufffe\ufffd\0]|(?<=\w)-(?=\s)", " ", text)  # hyphens at line ends part words
    outside = " ".join("".join(letter.text for letter in run) for run in hidden)
    return Page(lines, text, num_bad, outside, comments, layers)


def _annotations(page: Any) -> tuple[list[str], bool]:
    """(comments on a page, whether anything is filled in or written over it)."""
    import pypdfium2.raw as raw

    comments, drawn = [], False
    for n in range(raw.FPDFPage_GetAnnotCount(page)):
        annotation = raw.FPDFPage_GetAnnot(page, n)
        kind = raw.FPDFAnnot_GetSubtype(annotation)
        drawn = drawn or kind != raw.FPDF_ANNOT_LINK
        if kind not in (raw.FPDF_ANNOT_LINK, raw.FPDF_ANNOT_WIDGET, raw.FPDF_ANNOT_FREETEXT):
            size = raw.FPDFAnnot_GetStringValue(annotation, b"Contents", None, 0)
            buffer = (raw.FPDF_WCHAR * size)()
            raw.FPDFAnnot_GetStringValue(annotation, b"Contents", buffer, size)
            comments.append(bytes(buffer)[:size].decode("utf-16-le", errors="replace").rstrip("\0"))
        raw.FPDFPage_CloseAnnot(annotation)
    return [comment for comment in comments if comment.strip()], drawn


def _letters(textpage: Any, count: int, box: Sequence[float]) -> Iterator[_Letter | None]:
    """The letters of a page; None where pdfium has set a line's end. box: left, lower, right and upper edge."""
    import pypdfium2.raw as raw

    x, y = ctypes.c_double(), ctypes.c_double()
    left, right, bottom, top = (ctypes.c_double() for _ in range(4))
    origin, edges = (ctypes.byref(x), ctypes.byref(y)), [ctypes.byref(n) for n in (left, right, bottom, top)]
    code_of, origin_of, box_of = raw.FPDFText_GetUnicode, raw.FPDFText_GetCharOrigin, raw.FPDFText_GetCharBox
    size_at, angle_at = raw.FPDFText_GetFontSize, raw.FPDFText_GetCharAngle
    scale, size_of = 1.0, 0.0
    matrix = raw.FS_MATRIX()
    for n in range(count):
        code = code_of(textpage, n)
        if code in (10, 13):
            yield None
            continue
        origin_of(textpage, n, *origin)
        if code == 32:
            yield _Letter(" ", x.value, y.value, x.value, 0.0, -1, n)
            continue
        size, angle = size_at(textpage, n), angle_at(textpage, n)
        box_of(textpage, n, *edges)
        if size != size_of:
            size_of = size
            ok = raw.FPDFText_GetMatrix(textpage, n, matrix)
            scale = math.sqrt(abs(matrix.a * matrix.d - matrix.b * matrix.c)) if ok else 1.0
        turned = -round(angle / (math.pi / 2)) % 4 if angle else 0  # pdfium counts clockwise
        known = code < 0xD800 or 0xE000 <= code < 0x110000
        text = _MEANT.get(code) or (chr(code) if known else "\ufffd")
        shown = left.value <= box[2] and box[0] <= right.value and bottom.value <= box[3] and box[1] <= top.value
        x0, y0, x1 = x.value, y.value, right.value
        if turned == 1:
            x0, y0, x1 = y.value, -x.value, top.value
        elif turned == 2:
            x0, y0, x1 = -x.value, -y.value, -left.value
        elif turned == 3:
            x0, y0, x1 = -y.value, x.value, -bottom.value
        yield _Letter(text, x0, y0, max(x0, x1), round(size * (scale or 1.0), 1) or 1.0, turned, n, shown)


def _runs(letters: Sequence[_Letter | None]) -> Iterator[list[_Letter]]:
    """Letters that stand behind each other on a line without a wide blank."""
    run: list[_Letter] = []
    last: _Letter | None = None
    for letter in letters:
        if letter is None:
            if run:
                yield run
            run, last = [], None
            continue
        if letter.turned < 0:  # a blank
            if run:
                run.append(letter)
            continue
        if last is not None and (
            letter.turned != last.turned
            or abs(letter.y - last.y) > 0.7 * max(letter.size, last.size)
            or letter.x - last.x1 > _GUTTER * max(letter.size, last.size)
            or letter.x < last.x - 0.5 * last.size
        ):
            yield run
            run = []
        run.append(letter)
        last = letter
    if run:
        yield run


def _piece(run: Sequence[_Letter], textpage: Any, page: int) -> Line:
    """A run of letters as a line of its own, raised digits marked."""
    seen = [letter for letter in run if letter.turned >= 0]
    size = Counter(letter.size for letter in seen).most_common(1)[0][0]
    base = Counter(round(letter.y, 1) for letter in seen if letter.size == size).most_common(1)[0][0]
    parts: list[str] = []
    raised = ""
    for letter in [*run, None]:
        if (
            letter is not None
            and letter.text.isdigit()
            and letter.size < 0.85 * size
            and letter.y > base + 0.15 * size
        ):
            raised += letter.text
            continue
        if raised:
            parts.append(f"\ue000{raised[:3]}\ue001{raised[3:]}")
            raised = ""
        if letter is not None:
            parts.append(letter.text)
    middle = next((letter for letter in seen if letter.text.isalpha()), seen[0])
    fonts = [_font(textpage, letter.at) for letter in (middle, seen[-1])]
    return Line(
        text=" ".join("".join(parts).split()),
        page=page,
        y=base,
        x0=seen[0].x,
        x1=seen[-1].x1,
        size=size,
        bold=all(_BOLD.search(font) for font in fonts),
        fixed=all(_FIXED.search(font) for font in fonts),
        turned=seen[0].turned,
    )


def _font(textpage: Any, index: int) -> str:
    import pypdfium2.raw as raw

    buffer, flags = ctypes.create_string_buffer(128), ctypes.c_int()
    raw.FPDFText_GetFontInfo(textpage, index, buffer, 128, flags)
    return buffer.value.decode("utf-8", errors="replace")


# ------------------------------------------------------------------------------------- reading order


def _in_order(pieces: Sequence[Line], first_column: int) -> list[Line]:
    """The pieces of a page as lines: column after column between what spans them."""
    found: list[Line] = []
    column = first_column
    for part in _parts(sorted(pieces, key=lambda piece: (-piece.y, piece.x0))):
        left, right = min(piece.x0 for piece in part), max(piece.x1 for piece in part)
        for row in _rows(part):
            cells = [piece for piece in row if not NOTE.fullmatch(piece.text)]
            found.append(
                Line(
                    text=" ".join(piece.text for piece in row),
                    page=row[0].page,
                    y=row[0].y,
                    x0=row[0].x0,
                    x1=row[-1].x1,
                    size=Counter({piece.size: len(piece.text) for piece in row}).most_common(1)[0][0],
                    bold=all(piece.bold for piece in row),
                    fixed=all(piece.fixed for piece in row),
                    turned=row[0].turned,
                    column=column,
                    left=left,
                    right=right,
                    cells=tuple(piece.text for piece in cells),
                    edges=tuple(piece.x0 for piece in cells),
                )
            )
        column += 1
    return found


def _rows(pieces: Sequence[Line]) -> Iterator[list[Line]]:
    """Pieces on one base, from left to right; a bullet or a number and its text are one piece."""
    rows: list[list[Line]] = []
    for piece in pieces:
        if rows and abs(rows[-1][0].y - piece.y) <= 0.35 * piece.size:
            rows[-1].append(piece)
        else:
            rows.append([piece])
    for above, row in itertools.pairwise(rows):
        if all(_is_raised(piece, row[0]) for piece in above):
            row += [replace(piece, text=f"\ue000{piece.text}\ue001") for piece in above]
            above.clear()
    for row in filter(None, rows):
        row.sort(key=lambda piece: piece.x0)
        main = max(row, key=lambda piece: (piece.size, len(piece.text)))
        row[:] = [replace(p, text=f"\ue000{p.text}\ue001") if _is_raised(p, main) else p for p in row]
        while len(row) > 1 and len(row[0].text) <= 5 and not row[0].text.isalpha():
            row[:2] = [replace(row[1], text=f"{row[0].text} {row[1].text}", x0=row[0].x0)]
        yield row


def _is_raised(piece: Line, below: Line) -> bool:
    """Whether a piece is a footnote's number that belongs to the line below it."""
    small = piece.size < 0.85 * below.size and 0.1 * below.size < piece.y - below.y < 0.6 * below.size
    return small and re.fullmatch(r"\d{1,3}", piece.text) is not None


def _parts(pieces: Sequence[Line]) -> Iterator[list[Line]]:
    """A page's pieces (from top to bottom) in columns, each part to be read before the next."""
    gutter = _gutter(pieces)
    if gutter is None:
        if pieces:
            yield list(pieces)
        return
    band: list[Line] = []

    def columns() -> Iterator[list[Line]]:
        left = [piece for piece in band if piece.x1 <= gutter + 1]
        right = [piece for piece in band if piece.x1 > gutter + 1]
        for part in (left, right):
            if part:
                yield from _parts(part)

    for piece in pieces:
        if piece.x0 < gutter < piece.x1:  # spans both columns
            yield from columns()
            band = []
            yield [piece]
        else:
            band.append(piece)
    yield from columns()


def _gutter(pieces: Sequence[Line]) -> float | None:
    """The middle of the white space between two columns of prose; None for one column or a table."""
    if len(pieces) < 2 * _LEAST_LINES:
        return None
    left, right = min(piece.x0 for piece in pieces), max(piece.x1 for piece in pieces)
    size = Counter(piece.size for piece in pieces).most_common(1)[0][0]
    crossed = [0] * (int(right - left) + 2)
    for piece in pieces:
        for x in range(int(piece.x0 - left), int(piece.x1 - left) + 1):
            crossed[x] += 1
    best: tuple[float, float] | None = None
    start = None
    most = 0.2 * len(pieces)
    for x, count in enumerate([*crossed, len(pieces) + 1]):
        if count <= most and start is None:
            start = x
        elif count > most and start is not None:
            middle, width = left + (start + x) / 2, x - start
            start = None
            if width < 0.6 * size or not _is_prose(pieces, middle):
                continue
            if best is None or width > best[0]:
                best = (width, middle)
    return None if best is None else best[1]


def _is_prose(pieces: Sequence[Line], gutter: float) -> bool:
    """Whether both sides hold lines that fill their column, as cells of a table do not."""
    sides = [[p for p in pieces if p.x1 <= gutter], [p for p in pieces if p.x0 >= gutter]]
    for side in sides:
        if len(side) < _LEAST_LINES:
            return False
        if _gutter(side) is not None:
            continue  # columns as well
        width = max(p.x1 for p in side) - min(p.x0 for p in side)
        long = sum(p.x1 - p.x0 > 0.6 * width for p in side)
        words = sum(len(p.text.split()) for p in side) / len(side)
        if long < 0.5 * len(side) or words < 3.5:
            return False
    return True
