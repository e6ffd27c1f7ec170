"""PDF, read by pypdfium2: the lines of a page (`pdf_lines`) put together to headings, paragraphs and lists."""

from __future__ import annotations

import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tasks.documents.builder import Builder
from tasks.documents.counting import formed
from tasks.documents.form import ENDS, Document, Unreadable, clean, raised, reason_of
from tasks.documents.line_joining import joined, vocabulary
from tasks.documents.pdf_layers import layers_off
from tasks.documents.pdf_lines import NOTE, Line
from tasks.documents.pdf_pages import opened, read_pages
from tasks.documents.text_files import BULLET, NUMBERED, PAGE_NUMBER, heading_level, list_starts

_LEADERS = re.compile(r"(?:\s?\.){4,}\s*(\d+|[ivxl]+)$")
_COUNTED = re.compile(r"\d+|\b[ivxl]+\b", re.IGNORECASE)
_ROMAN = {formed(n, "lowerRoman"): n for n in range(1, 90)}
_LARGER = 1.12  # letters of a heading against those of the text
_SMALLER = 0.93  # letters of footnotes


def read_pdf(path: Path, file: str) -> Document:
    """A PDF file; places are its pages."""
    import pypdfium2

    built = Builder(file, "page")
    lines: list[Line] = []
    try:
        pdf = opened(path)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise Unreadable("is password-protected; save a copy without a password") from error
        raise Unreadable(f"is no PDF that can be read ({reason_of(error)}); save it again as PDF") from error
    try:
        num_pages = len(pdf)
        outline = _outline(pdf)
        has_off, off = layers_off(pdf)
        if has_off:
            said = "has layers that are switched off, and text of theirs may be read; save a copy without them"
            built.problem(0, said)
        for number, page in enumerate(read_pages(pdf, path, off), start=1):
            if isinstance(page, str):
                built.problem(number, f"cannot be read ({page}) and was left out; save the PDF again")
                continue
            if page.num_bad:
                said = f"holds {page.num_bad} signs whose letters the file does not tell; compare it with the page"
                built.problem(number, said)
            if not page.lines:
                said = "holds no text (a picture or a scan?); run text recognition (OCR) over the file"
                built.problem(number, said)
            built.raw += [page.raw, page.outside, *page.comments]
            for kind, texts in (("hidden text", [page.outside, page.layers]), ("comments", page.comments)):
                for text in filter(None, texts):
                    built.leave(kind, text)
            lines += page.lines
    finally:
        pdf.close()
    lines = _without_running_lines(built, lines, num_pages, outline)
    lines = _without_contents(built, lines, num_pages)
    _Reader(built, lines, outline).read()
    return built.document(num_pages)


def _outline(pdf: object) -> dict[tuple[int, str], int]:
    """(page, letters of the title) -> level, for each bookmark of the file."""
    found: dict[tuple[int, str], int] = {}
    for mark in pdf.get_toc():  # type: ignore[attr-defined]
        try:
            target = mark.get_dest()
            page = None if target is None else target.get_index()
            if page is not None:
                found[page + 1, _letters(_without_number(mark.get_title()))] = mark.level + 1
        except Exception:  # a bookmark that leads nowhere says nothing
            continue
    return found


def _without_number(title: str) -> str:
    """A title without the numbers before it, which bookmarks may lack."""
    return re.sub(
        r"^(?:\s*(?:(?i:chapter|part|section|appendix)\s+)?(?:[A-Z]|\d{1,3})(?:\.\d{1,3})*[.:]?\s+)+", "", title
    )


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", clean(text).lower())


def _edges(lines: Sequence[Line]) -> Iterator[Line]:
    """The two upper and the two lower lines of each page."""
    pages: dict[int, list[Line]] = defaultdict(list)
    for line in lines:
        if not line.turned:
            pages[line.page].append(line)
    for held in pages.values():
        held = sorted(held, key=lambda line: -line.y)
        yield from held[:2]
        yield from held[2:][-2:]


def _patterns(part: str, page: int) -> Iterator[str]:
    """A piece of an edge line as it could return: as it stands, or with one number told by the page's."""
    yield part
    for found in _COUNTED.finditer(part):
        number = int(found[0]) if found[0].isdecimal() else _ROMAN.get(found[0].lower())
        if number is not None:
            yield f"{part[: found.start()]}#{number - page}{part[found.end() :]}"


def _without_running_lines(
    built: Builder, lines: Sequence[Line], num_pages: int, outline: dict[tuple[int, str], int]
) -> list[Line]:
    """Without running heads and feet: edge lines that return at one height, and page numbers alone.

    Only a number that rises with the page may differ. Where such lines stand on many pages, a head that names the
    chapter returns on two, or stands beside the page's number, or is the title of a bookmark before it.
    """
    edges = list(_edges(lines))
    parts = {id(line): line.cells or (line.text,) for line in edges}
    pages: dict[tuple[str, int], set[int]] = defaultdict(set)
    for line in edges:
        for part in parts[id(line)]:
            for pattern in _patterns(part, line.page):
                for n in (-1, 0, 1):
                    pages[pattern, round(line.y) + n].add(line.page)
    counts = {
        id(line): [
            max(len(pages[p, round(line.y)]) for p in _patterns(part, line.page)) for part in parts[id(line)]
        ]
        for line in edges
    }
    many = max(3 if num_pages > 4 else 2, 0.08 * num_pages)
    heights = {round(line.y) + n for line in edges if max(counts[id(line)]) >= many for n in (-1, 0, 1)}

    def runs(line: Line) -> bool:
        held = counts[id(line)]
        numbers = [count for part, count in zip(parts[id(line)], held, strict=True) if PAGE_NUMBER.fullmatch(part)]
        if len(numbers) == len(held):
            return min(held) > 1 or any(p.lower().startswith("page #0") for p in _patterns(line.text, line.page))
        title = _letters(_without_number(line.text))
        named = any(page < line.page for page, named in outline if named == title)
        return round(line.y) in heights and (min(held) > 1 or max(numbers, default=0) >= max(3, many) or named)

    running = {id(line) for line in edges if runs(line)}
    for line in lines:
        if id(line) in running:
            built.leave("running heads and feet", line.text)
    return [line for line in lines if id(line) not in running]


def _without_contents(built: Builder, lines: Sequence[Line], num_pages: int) -> list[Line]:
    """Without the lines of a table of contents: dots and page numbers that do not fall from line to line."""
    groups: list[list[tuple[int, int]]] = []  # (line, page that it names)
    for n, line in enumerate(lines):
        if found := _LEADERS.search(line.text):
            page = int(found[1]) if found[1].isdecimal() else 0
            last, before = groups[-1][-1] if groups else (-9, 0)
            if n - last == 1 or (n - last < 4 and page >= before):
                groups[-1].append((n, page))
            else:
                groups.append([(n, page)])
    contents: set[int] = set()
    for group in groups:
        places, named = zip(*group, strict=True)
        if len(group) > 1 and list(named) == sorted(named) and named[-1] <= num_pages:
            contents.update(places)
    for n in sorted(contents):
        built.leave("table of contents", lines[n].text)
    return [line for n, line in enumerate(lines) if n not in contents]


class _Reader:
    """Puts lines together; a paragraph may go on in the next column or on the next page."""

    def __init__(self, built: Builder, lines: Sequence[Line], outline: dict[tuple[int, str], int]) -> None:
        self.built, self.outline = built, outline
        letters: Counter[float] = Counter()
        for line in lines:
            letters[line.size] += len(line.text)
        self.body = letters.most_common(1)[0][0] if letters else 0.0
        self.lines, self.notes = self._without_notes(lines)
        self.known = vocabulary(line.text for line in lines)
        sizes = {line.size for line in self.lines if line.size >= _LARGER * self.body}
        self.larger = sorted(sizes, reverse=True)
        gaps = [a.y - b.y for a, b in zip(self.lines, self.lines[1:], strict=False) if a.column == b.column]
        gaps = [gap for gap in gaps if 0 < gap < 3 * max(self.body, 1)]
        self.leading = statistics.median(gaps) if gaps else 1.2 * self.body
        texts = [line.text for line in self.lines]
        breaks = frozenset(n for n in range(1, len(texts)) if self._is_apart(self.lines[n - 1], self.lines[n]))
        self.starts = list_starts(texts, breaks)
        self.text, self.held = "", list[Line]()
        self.mark: tuple[str, int] | None = None
        self.noted: list[tuple[int, str]] = []
        self.heads: Line | None = None  # of the table that was read last

    # ----------------------------------------------------------------------------------- footnotes

    def _without_notes(self, lines: Sequence[Line]) -> tuple[list[Line], dict[tuple[int, str], str]]:
        """(lines of the text, footnotes by page and number): small letters at a page's foot, a number first."""
        pages: dict[int, list[Line]] = defaultdict(list)
        for line in lines:
            pages[line.page].append(line)
        kept: list[Line] = []
        notes: dict[tuple[int, str], str] = {}
        known = vocabulary(line.text for line in lines)
        for page, held in pages.items():
            first = len(held)
            while first and held[first - 1].size <= _SMALLER * self.body:
                first -= 1
            small = held[first:]
            start = next((n for n, line in enumerate(small) if NOTE.match(line.text)), len(small))
            kept += [*held[:first], *small[:start]]
            number = ""
            for line in small[start:]:
                begun = NOTE.match(line.text)
                if begun:
                    number = begun[1]
                    notes[page, number] = line.text[begun.end() :]
                else:
                    notes[page, number] = joined(notes[page, number], line.text, known)
        return [self._with_marks(line, notes) for line in kept], notes

    def _with_marks(self, line: Line, notes: dict[tuple[int, str], str]) -> Line:
        """Raised digits that no footnote of the page belongs to are digits again."""
        text = NOTE.sub(
            lambda m: m.group() if (line.page, m[1]) in notes else raised(line.text[: m.start()], m[1]), line.text
        )
        return replace(line, text=text, cells=tuple(NOTE.sub(r"\1", cell) for cell in line.cells))

    # ------------------------------------------------------------------------------------ putting together

    def read(self) -> None:
        n = 0
        while n < len(self.lines):
            line = self.lines[n]
            if self._is_chapter_mark(n):
                self.built.leave("running heads and feet", line.text)
                n += 1
                continue
            level, num_lines = self._heading(n)
            if level:
                self.flush()
                whole = ""
                for one in self.lines[n : n + num_lines]:
                    whole = joined(whole, one.text, self.known)
                sure = (line.page, _letters(_without_number(whole))) in self.outline
                self.built.heading(level, self._take_notes(line.page, whole), line.page, sure=sure)
                self.flush()
                n += num_lines
                continue
            if len(line.cells) > 1 and not line.fixed:
                n = self._table(n)
                continue
            self._add(n)
            n += 1
        self.flush()
        for (page, number), text in self.notes.items():  # whose mark was not found
            self.built.item(NOTE.sub(r"\1", text), page, f"[{number}]", 9)

    def flush(self) -> None:
        text, held, self.text, self.held = self.text, self.held, "", []
        if not held:
            noted, self.noted = self.noted, []
        else:
            text = self._take_notes(held[0].page, text, {line.page for line in held})
            noted, self.noted = self.noted, []
            if self.mark is not None:
                self.built.item(text, held[0].page, *self.mark)
            else:
                self.built.paragraph(text, held[0].page)
        self.mark = None
        noted += [one for one in self.notes if held and one[0] < held[0].page and one not in noted]
        for page, number in noted:
            note = self.notes.pop((page, number), "")
            self.built.item(NOTE.sub(r"\1", note), page, f"[{number}]", 9)

    def _take_notes(self, page: int, text: str, pages: set[int] | None = None) -> str:
        """The text without the marks of footnotes, which are noted to follow."""

        def taken(match: re.Match[str]) -> str:
            for one in sorted(pages or {page}):
                if (one, match[1]) in self.notes and (one, match[1]) not in self.noted:
                    self.noted.append((one, match[1]))
                    return ""
            return match[1]

        return NOTE.sub(taken, text)

    def _heading(self, n: int) -> tuple[int, int]:
        """(level, lines) of a heading that begins here; (0, 0) where none does."""
        line = self.lines[n]
        whole = ""
        for count in (1, 2, 3, 4):
            if n + count > len(self.lines) or self.lines[n + count - 1].page != line.page:
                break
            whole = joined(whole, self.lines[n + count - 1].text, self.known)
            level = self.outline.get((line.page, _letters(_without_number(NOTE.sub("", whole)))))
            if level and len(whole) <= 300 and line.size >= 0.98 * self.body:
                return level, count
        depth = max(self.outline.values(), default=0)
        if line.size in self.larger and len(line.text) <= 120:
            level, count = 1 + self.larger.index(line.size), 1
            while n + count < len(self.lines) and count < 3:
                following = self.lines[n + count]
                if following.size != line.size or self._is_apart(self.lines[n + count - 1], following):
                    break
                count += 1
            return (depth + level if depth else level), count
        ended = not self.text or self.text[-1] in ".!?:;…"
        if depth:
            return 0, 0  # the file's bookmarks name its headings
        alone = ended and len(line.cells) == 1 and self._stands_alone(n)
        if alone and NUMBERED.match(line.text) and n not in self.starts and heading_level(line.text):
            return depth + len(self.larger) + heading_level(line.text), 1
        if alone and (line.bold or line.text.isupper()) and heading_level(line.text):
            return depth + len(self.larger) + 1, 1
        return 0, 0

    def _is_chapter_mark(self, n: int) -> bool:
        """`CHAPTER` or `FIFTEEN` in capitals, or `Chapter 15`, above the title that a bookmark names."""
        line = self.lines[n]
        if (
            not (line.text.isupper() or re.fullmatch(r"[^\W\d_]+ (?:\d+|[A-Z]+)", line.text))
            or len(line.text.split()) > 3
            or (n and self.lines[n - 1].page == line.page and n > 1 and self.lines[n - 2].page == line.page)
        ):
            return False
        return any(
            following.page == line.page and self._heading(n + ahead)[0] == 1
            for ahead, following in enumerate(self.lines[n + 1 : n + 3], start=1)
        )

    def _stands_alone(self, n: int) -> bool:
        """Whether a line is set apart from the one before it, and short."""
        before = (
            n == 0
            or self._is_apart(self.lines[n - 1], self.lines[n])
            or self.lines[n - 1].bold != self.lines[n].bold
        )
        return before and len(self.lines[n].text) <= 100

    def _is_apart(self, above: Line, line: Line) -> bool:
        """Whether white space parts a line from the one above it in the same column."""
        return (above.page, above.column) == (line.page, line.column) and above.y - line.y > 1.3 * max(
            self.leading, line.size
        )

    def _add(self, n: int) -> None:
        """A line to the paragraph, or as the beginning of a new one."""
        line = self.lines[n]
        if n in self.starts:
            mark, end = self.starts[n]
            self.flush()
            self.mark = (mark, 1 + int(line.x0 > line.left + 2.5 * self.body))
            self.text, self.held = line.text[end:], [line]
            return
        if self.held and self._is_term(line):
            self.text += ":"
            self.flush()
        elif self.held and self._begins(line):
            self.flush()
        code = line.fixed and bool(self.held) and self.held[-1].fixed  # whose lines end where they end
        self.text = f"{self.text} {line.text}" if code else joined(self.text, line.text, self.known)
        self.held.append(line)

    def _is_term(self, line: Line) -> bool:
        """Whether the bold line that is held names what the line below it explains."""
        alone = len(self.held) == 1 and self.held[0].bold and not line.bold and self.text[-1:] not in ENDS
        return alone and line.x0 > self.held[0].x0 + 0.8 * line.size and line.page == self.held[0].page

    def _begins(self, line: Line) -> bool:
        """Whether a line begins a paragraph behind the one that is held."""
        last = self.held[-1]
        ended = self.text[-1:] in ".!?:;…。！？：；" or bool(re.search(rf"[.!?:;]{NOTE.pattern}$", self.text))
        if abs(line.size - last.size) > 0.1 * last.size or line.turned != last.turned:
            return True
        if (line.page, line.column) != (last.page, last.column):
            outside = (
                self.mark is not None and line.column == last.column and line.x0 < self.held[0].x0 - line.size
            )
            return outside or ended or BULLET.match(line.text) is not None
        if line.fixed and last.fixed and 0 < last.y - line.y < 3 * line.size:
            return False  # code, with empty lines in it
        if line.turned or line.y > last.y + 1 or self._is_apart(last, line):
            return True
        if line.bold != last.bold and ended:
            return True
        shift = line.x0 - min(one.x0 for one in self.held[1:] or self.held)
        if abs(shift) > 0.8 * line.size and ended:
            return True
        if shift < -0.8 * line.size and len(self.held) > 1:
            return True  # further left than the lines of a list item
        return ended and last.x1 < last.right - 0.25 * (last.right - last.left)

    def _table(self, n: int) -> int:
        """Lines of several cells as table rows, heads where the first is bold; returns where the text goes on."""
        rows: list[tuple[Line, list[str]]] = []
        end = n
        while end < len(self.lines) and self.lines[end].page == self.lines[n].page:
            line = self.lines[end]
            if len(line.cells) > 1:
                rows.append((line, list(line.cells)))
            else:  # a cell's second line stands below its first
                below = [at for at, x in enumerate(rows[-1][0].edges) if at and abs(x - line.x0) < 3]
                if not below or self._is_apart(self.lines[end - 1], line):
                    break
                rows[-1][1][below[0]] = joined(rows[-1][1][below[0]], line.text, self.known)
            end += 1
        if len(rows) == 1 and end == n + 1 and not self._same_columns(rows[0][0]):
            self._add(n)
            return end
        self.flush()
        if rows[0][0].bold and len(rows) > 1:
            self.heads = rows.pop(0)[0]
        elif not self._same_columns(rows[0][0]):
            self.heads = None
        for line, cells in rows:
            heads = self.heads.cells if self.heads is not None and len(self.heads.cells) == len(cells) else ()
            self.built.row(heads, [cells[0].rstrip(": "), *cells[1:]], line.page)
        return end

    def _same_columns(self, line: Line) -> bool:
        """Whether a row stands in the columns of the last table that had heads."""
        heads = () if self.heads is None else self.heads.edges
        return bool(heads) and all(any(abs(x - head) < 3 for head in heads) for x in line.edges)
