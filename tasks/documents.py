"""Reads a person's own documents into sections: Markdown, text, HTML, DOCX, PDF, JSONL and CSV.

Whatever cannot be read is named with its file and line (or page) and the fix, and the rest is read all the
same: files found = files read + files skipped. Markdown is parsed by markdown-it-py, HTML by Beautiful Soup,
DOCX by python-docx and PDF by pypdf. Left out of pages without a word: scripts, styles, navigation and
footers of HTML, images, private-use characters (bullets of symbol fonts), lines that a PDF repeats as headers.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import re
import stat
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tasks.base import TaskError

MAX_LINE_BYTES = 1_000_000  # a longer line is left out; it is never held in memory
MAX_TEXT_BYTES = 64_000_000  # of one file; more is no document that a person wrote
QUESTION_FILES = ("questions.jsonl", "questions.csv")
ENDS = ".!?:;,…。！？：；，"  # a passage that ends otherwise gets a full stop, so that clauses read as sentences

Unit = Literal["line", "page", "paragraph"]


@dataclass(frozen=True)
class Problem:
    """Something about a file that a person should know."""

    file: str  # relative to the folder
    place: int  # line, page or paragraph; 0: the file as a whole
    unit: Unit
    said: str  # what it is and the fix, without the place

    def __str__(self) -> str:
        if not self.place:
            return f"{self.file}: {self.said}"
        where = f":{self.place}" if self.unit == "line" else f", {self.unit} {self.place}"
        return f"{self.file}{where}: {self.said}"


@dataclass(frozen=True)
class Passage:
    """A paragraph, a list item or a table row, on one line."""

    text: str
    place: int  # line, page or paragraph of the file, from 1


@dataclass(frozen=True)
class Section:
    """What stands under one heading."""

    file: str
    title: str
    passages: tuple[Passage, ...]
    unit: Unit = "line"
    row_id: str = ""  # JSONL and CSV: the row's own id


@dataclass(frozen=True)
class Document:
    file: str
    sections: tuple[Section, ...]
    problems: tuple[Problem, ...] = ()
    num_pages: int = 0  # PDF only


@dataclass(frozen=True)
class Folder:
    """Everything found in a folder; len(files) = len(documents) + len(skipped) + (questions is there)."""

    path: Path
    files: tuple[str, ...]
    documents: tuple[Document, ...]
    skipped: tuple[Problem, ...]  # one a file that was not read
    not_entered: tuple[Problem, ...] = ()  # folders that were left alone, and why
    questions: Path | None = None

    @property
    def sections(self) -> tuple[Section, ...]:
        return tuple(section for document in self.documents for section in document.sections)


class Unreadable(Exception):
    """A file that cannot be used: the reason with the fix, and the line or page where it shows."""

    def __init__(self, said: str, place: int = 0) -> None:
        super().__init__(said)
        self.place = place


def _nothing_left(problems: Sequence[Problem], what: str) -> Unreadable:
    """Why a file gave nothing: its first problem and their number."""
    if not problems:
        return Unreadable(f"holds no {what}; write some or remove it")
    first = min(problems, key=lambda problem: problem.place)
    more = f" ({len(problems)} such places, and nothing else in the file)" if len(problems) > 1 else ""
    return Unreadable(f"{first.said}{more}", first.place)


# --------------------------------------------------------------------------------------- plain text

_BLANK = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"))  # soft hyphen, zero widths


def clean(text: str) -> str:
    """One line of NFC text: white space collapsed, invisible, control and private-use characters dropped."""
    text = unicodedata.normalize("NFC", text.translate(_BLANK))
    text = "".join(" " if unicodedata.category(c) in ("Cc", "Co", "Zl", "Zp", "Zs") else c for c in text)
    return " ".join(text.split())


def read_lines(path: Path, file: str, problems: list[Problem]) -> Iterator[tuple[int, str]]:
    """(line number, text) of a UTF-8 file, or a UTF-16 one with its mark, in bounded memory a line.

    A line over MAX_LINE_BYTES is left out and named. Raises Unreadable at a NUL byte or a wrong encoding.
    """
    size = 0
    with path.open("rb") as handle:
        if handle.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            yield from _utf16_lines(path)
            return
        handle.seek(0)
        number = 0
        while line := handle.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
                length = len(line)
                while line and not line.endswith(b"\n"):
                    line = handle.readline(MAX_LINE_BYTES)
                    length += len(line)
                said = f"a line of {length / 1e6:.1f} MB was left out; break it into lines below 1 MB"
                problems.append(Problem(file, number, "line", said))
                continue
            size += len(line)
            if size > MAX_TEXT_BYTES:
                raise Unreadable(f"holds more than {MAX_TEXT_BYTES // 10**6} MB of text; split it", number)
            if b"\0" in line:
                raise Unreadable("holds a NUL byte: it is binary, no text; save it as text", number)
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                byte = f"byte 0x{line[error.start]:02x}"
                raise Unreadable(f"is not UTF-8 ({byte}); save the file as UTF-8", number) from error
            for part in re.split(r"\r(?!$)", text.rstrip("\r\n")):
                yield number, part


def _utf16_lines(path: Path) -> Iterator[tuple[int, str]]:
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise Unreadable(f"is larger than {MAX_TEXT_BYTES // 10**6} MB; split it and save it as UTF-8")
    try:
        text = path.read_bytes().decode("utf-16")
    except UnicodeDecodeError as error:
        raise Unreadable("is not whole UTF-16; save the file as UTF-8") from error
    yield from enumerate(text.replace("\r\n", "\n").split("\n"), start=1)


class _Builder:
    """Collects headings and passages of one file in reading order."""

    def __init__(self, file: str, unit: Unit = "line") -> None:
        self.file, self.unit = file, unit
        self.problems: list[Problem] = []
        self._path: list[tuple[int, str]] = []  # open headings: (level, text)
        self._parts: list[tuple[tuple[tuple[int, str], ...], list[Passage]]] = [((), [])]

    def problem(self, place: int, said: str) -> None:
        self.problems.append(Problem(self.file, place, self.unit, said))

    def heading(self, level: int, text: str) -> None:
        text = clean(text).rstrip(":. ").replace("\ufffd", "")
        if text:
            self._path = [entry for entry in self._path if entry[0] < level] + [(level, text)]
            self._parts.append((tuple(self._path), []))

    def passage(self, text: str, place: int) -> None:
        text = clean(text)
        if "\ufffd" in text or any(unicodedata.category(c) == "Cs" for c in text):
            said = "holds the mark of a failed decoding and was left out; mend the text and save it as UTF-8"
            self.problem(place, said)
        elif text:
            self._parts[-1][1].append(Passage(text if text[-1] in ENDS else f"{text}.", place))

    def document(self, num_pages: int = 0) -> Document:
        """The file's sections. Raises Unreadable where nothing is left to read."""
        paths = {path for path, passages in self._parts if passages}
        # A single heading above all others is the document's name, and no news in each title.
        name = next(iter(paths))[:1] if paths and len(paths) > 1 else ()
        shared = name if name and all(path[:1] == name for path in paths) else ()
        sections = []
        for path, passages in self._parts:
            if passages:
                own = path[len(shared) :] or path
                title = ", ".join(text for _, text in own[-2:]) or _name_of(self.file)
                sections.append(Section(self.file, title, tuple(passages), self.unit))
        if not sections:
            raise _nothing_left(self.problems, "text")
        return Document(self.file, tuple(sections), tuple(self.problems), num_pages)


def _name_of(file: str) -> str:
    return clean(re.sub(r"[-_.]+", " ", Path(file).stem)) or file


def _row_text(header: Sequence[str], cells: Sequence[str]) -> str:
    """A table row as text: `Site: Cork, Amount: 31 euros`."""
    cells = [clean(cell) for cell in cells]
    names = [clean(name) for name in header] + [""] * len(cells)
    parts = [
        f"{name}: {cell}" if name and name != cell else cell for name, cell in zip(names, cells, strict=False)
    ]
    return ", ".join(part for part, cell in zip(parts, cells, strict=True) if cell)


_NUMBERED = re.compile(r"(?:§\s*)?(\d{1,2}(?:\.\d{1,2})*)\.?\s+[^\W\d_]")


def _heading_level(line: str) -> int:
    """Level of a plain-text line that looks like a heading, 0 for one that does not."""
    words = line.split()
    if not words or len(words) > 10 or len(line) > 70 or line[-1] in ENDS:
        return 0
    numbered = _NUMBERED.match(line)
    if numbered:
        return 1 + numbered[1].count(".")
    return 1 if line[0].isupper() and (line.isupper() or len(words) <= 8) else 0


_BULLET = re.compile(r"\s*(?:[-*•‣·–]|\(?[a-z\d]{1,2}[.)])\s+")


def _read_text(path: Path, file: str) -> Document:
    """Plain text: blocks between blank lines; a short line of its own above a block is a heading."""
    built = _Builder(file)
    blocks: list[list[tuple[int, str]]] = [[]]
    for number, line in read_lines(path, file, built.problems):
        if line.strip():
            blocks[-1].append((number, line))
        elif blocks[-1]:
            blocks.append([])
    blocks = [block for block in blocks if block]
    for n, block in enumerate(blocks):
        if len(block) > 1 and re.fullmatch(r"\s*[=\-~_*]{3,}\s*", block[1][1]):
            built.heading(1 if "=" in block[1][1] else 2, block[0][1])
            block = block[2:]
        elif block[0][1].startswith("#"):
            built.heading(len(block[0][1]) - len(block[0][1].lstrip("#")), block[0][1].lstrip("# "))
            block = block[1:]
        elif len(block) == 1 and n + 1 < len(blocks):
            level = _heading_level(block[0][1].strip())
            if level:
                built.heading(level, block[0][1])
                continue
        _text_block(built, block)
    return built.document()


def _text_block(built: _Builder, block: Iterable[tuple[int, str]]) -> None:
    """The lines of a block as one passage, list items apart."""
    text, place = "", 0
    for number, line in block:
        bullet = _BULLET.match(line)
        if (bullet or not text) and text:
            built.passage(text, place)
            text = ""
        if not text:
            place = number
        text = f"{text} {line[bullet.end() :] if bullet else line}"
    built.passage(text, place)


# ----------------------------------------------------------------------------------- Markdown, HTML


def _read_markdown(path: Path, file: str) -> Document:
    from markdown_it import MarkdownIt

    built = _Builder(file)
    lines: list[str] = []
    for number, line in read_lines(path, file, built.problems):
        lines += [""] * (number - 1 - len(lines)) + [line]
    lines = _without_front_matter(lines, built)
    header: list[str] = []
    cells: list[str] | None = None
    tokens = MarkdownIt("commonmark").enable("table").parse("\n".join(lines))
    for n, token in enumerate(tokens):
        place = token.map[0] + 1 if token.map else 0
        if token.type == "inline":
            before = tokens[n - 1]
            text = _inline_text(token.children or ())
            if before.type == "heading_open":
                built.heading(int(before.tag[1]), text)
            elif cells is not None:
                cells.append(text)
            else:
                built.passage(text, place)
        elif token.type in ("fence", "code_block"):
            built.passage(token.content, place)
        elif token.type == "html_block":
            text = _html_text(token.content)
            if text:
                built.passage(text, place)
        elif token.type == "tr_open":
            cells = []
        elif token.type == "tr_close" and cells is not None:
            row = tokens[n - 1].type == "th_close"
            header = cells if row else header
            if not row:
                start = next(t.map[0] + 1 for t in reversed(tokens[:n]) if t.type == "tr_open" and t.map)
                built.passage(_row_text(header, cells), start)
            cells = None
    return built.document()


def _without_front_matter(lines: list[str], built: _Builder) -> list[str]:
    """Blanks a YAML head between two lines of three dashes, so that line numbers stay."""
    if lines and lines[0].strip() == "---":
        for end, line in enumerate(lines[1:60], start=1):
            if line.strip() in ("---", "..."):
                built.problem(1, f"its head of {end + 1} lines (front matter) is not read as text")
                return [""] * (end + 1) + lines[end + 1 :]
            if line.strip() and not re.match(r"\s*(?:[\w-]+\s*:|-\s|#)", line):
                break
    return lines


def _inline_text(children: Iterable[Any]) -> str:
    """The words without markup; of an image nothing."""
    parts = []
    for child in children:
        if child.type in ("text", "code_inline"):
            parts.append(child.content)
        elif child.type in ("softbreak", "hardbreak"):
            parts.append(" ")
    return "".join(parts)


def _html_text(markup: str) -> str:
    from bs4 import BeautifulSoup, Comment

    soup = BeautifulSoup(markup, "html.parser")
    for comment in soup.find_all(string=lambda text: isinstance(text, Comment)):
        comment.extract()
    return clean(soup.get_text(" "))


_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_BLOCKS = re.compile(
    "h[1-6]|p|li|tr|td|th|pre|blockquote|dt|dd|div|section|article|main|body|html|ul|ol|dl|table|figcaption"
    "|caption|address|header|aside|details"
)
_NO_TEXT = ("script", "style", "nav", "footer", "template", "noscript", "svg", "head", "select", "button")


def _read_html(path: Path, file: str) -> Document:
    from bs4 import BeautifulSoup, NavigableString
    from bs4.element import PreformattedString

    built = _Builder(file)
    soup = BeautifulSoup(_html_source(path, file, built), "html.parser")
    name = clean(soup.title.get_text(" ")) if soup.title else ""
    for tag in soup.find_all(_NO_TEXT):
        tag.extract()
    for table in reversed(soup.find_all("table")):
        header: list[str] = []
        for row in table.find_all("tr"):
            cells = [cell.get_text(" ") for cell in row.find_all(["th", "td"])]
            if not row.find("td") and not header:
                header = cells
                row.extract()
            else:
                row.string = _row_text(header, cells)
    if name and not soup.find(_HEADINGS):
        built.heading(1, name)
    holder: Any = None  # the block that the text gathered so far stands in
    text: list[str] = []

    def flush() -> None:
        whole = "".join(text)
        if holder is not None and holder.name in _HEADINGS:
            built.heading(int(holder.name[1]), whole)
        elif whole.strip():
            built.passage(whole, (holder.sourceline if holder is not None else 0) or 1)
        text.clear()

    for node in soup.descendants:
        if getattr(node, "name", None) == "br":
            text.append(" ")
        if not isinstance(node, NavigableString) or isinstance(node, PreformattedString):
            continue  # a tag, a comment, a doctype
        block = next((tag for tag in node.parents if _BLOCKS.fullmatch(tag.name)), None)
        if block is not holder:
            flush()
            holder = block
        text.append(str(node))
    flush()
    return built.document()


def _html_source(path: Path, file: str, built: _Builder) -> str:
    """The page's text; one that names another charset than UTF-8 is read in that."""
    with path.open("rb") as handle:
        declared = re.search(rb"<meta[^>]+charset=[\"']?([\w-]+)", handle.read(2048), re.IGNORECASE)
    charset = declared[1].decode("ascii").lower() if declared else "utf-8"
    if charset in ("utf-8", "utf8"):
        return "\n".join(line for _, line in read_lines(path, file, built.problems))
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise Unreadable(f"is larger than {MAX_TEXT_BYTES // 10**6} MB; split it")
    try:
        return path.read_bytes().decode(charset)
    except (LookupError, UnicodeDecodeError) as error:
        raise Unreadable(f"is not in the charset {charset!r} that it names; save it as UTF-8") from error


# ---------------------------------------------------------------------------------------- DOCX, PDF


def _read_docx(path: Path, file: str) -> Document:
    import docx
    from docx.opc.exceptions import OpcError
    from docx.table import Table

    with path.open("rb") as handle:
        if handle.read(8) == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
            said = "is password-protected or an old .doc; save it as .docx without a password"
            raise Unreadable(said)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > 4 * MAX_TEXT_BYTES:
                raise Unreadable("unpacks to more than 256 MB; split it or leave its pictures out")
        document = docx.Document(str(path))
    except (OpcError, zipfile.BadZipFile, KeyError, ValueError, SyntaxError) as error:
        raise Unreadable(f"is no DOCX that can be read ({_reason(error)}); save it again as .docx") from error
    built = _Builder(file, "paragraph")
    place = 0
    for item in document.iter_inner_content():
        if isinstance(item, Table):
            rows = [[cell.text for cell in row.cells] for row in item.rows]
            for row in rows[1:] or rows:
                place += 1
                built.passage(_row_text(rows[0] if len(rows) > 1 else (), row), place)
            continue
        place += 1
        style = item.style.name or "" if item.style is not None else ""
        level = re.fullmatch(r"(?:Heading|heading) (\d)", style)
        if style == "Title" or level:
            built.heading(int(level[1]) if level else 1, item.text)
        else:
            built.passage(item.text, place)
    return built.document()


@dataclass(frozen=True)
class _Line:
    """A line of a PDF page."""

    text: str
    size: float  # of its largest letters, in points
    page: int
    number: int = 0  # on the page, from 0; the last is negative


def _read_pdf(path: Path, file: str) -> Document:
    import pypdf
    from pypdf.errors import DependencyError, PyPdfError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it warns of what it mends by itself
    built = _Builder(file, "page")
    lines: list[_Line] = []
    try:
        with path.open("rb") as handle:
            reader = pypdf.PdfReader(handle)
            if reader.is_encrypted and not reader.decrypt(""):
                raise Unreadable("is password-protected; save a copy without a password")
            num_pages = len(reader.pages)
            for page in range(1, num_pages + 1):
                try:
                    lines += _page_lines(reader.pages[page - 1], page)
                except Exception as error:
                    built.problem(page, f"cannot be read ({_reason(error)}) and was left out; save the PDF again")
    except DependencyError as error:
        raise Unreadable("is encrypted; save a copy without encryption") from error
    except (PyPdfError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable(f"is no PDF that can be read ({_reason(error)}); save it again as PDF") from error
    read = {line.page for line in lines} | {problem.place for problem in built.problems}
    for page in range(1, num_pages + 1):
        if page not in read:
            built.problem(page, "holds no text (a picture or a scan?); run text recognition (OCR) over the file")
    _pdf_sections(built, _without_repeats(lines, num_pages))
    return built.document(num_pages)


def _page_lines(page: Any, number: int) -> list[_Line]:
    """The page's lines with the size of their letters."""
    text, size = "", 0.0
    found: list[tuple[str, float]] = []

    def visit(part: str, cm: Sequence[float], tm: Sequence[float], _font: Any, font_size: float) -> None:
        nonlocal text, size
        scale = abs(tm[3] or tm[1]) * abs(cm[3] or cm[1])
        for n, piece in enumerate(part.split("\n")):
            if n:
                found.append((text, size))
                text, size = "", 0.0
            text += piece
            if piece.strip():
                size = max(size, round(font_size * scale, 1))

    page.extract_text(visitor_text=visit)
    found.append((text, size))
    kept = [(clean(text), size) for text, size in found if clean(text)]
    return [
        _Line(text, size, number, n if n < len(kept) / 2 else n - len(kept)) for n, (text, size) in enumerate(kept)
    ]


def _without_repeats(lines: Sequence[_Line], num_pages: int) -> list[_Line]:
    """Without running headers and footers: lines at a page's edge that, digits aside, most pages have."""

    def edge(line: _Line) -> str:
        return re.sub(r"\d+", "#", line.text) if -2 <= line.number <= 1 else ""

    counts = Counter(key for key in {(edge(line), line.page) for line in lines})
    pages = Counter(key for key, _ in counts)
    repeated = {key for key, count in pages.items() if key and num_pages >= 3 and count > 0.6 * num_pages}
    number = re.compile(r"(?:page\s*)?[-–]?\s*\d+\s*(?:(?:of|/)\s*\d+)?\s*[-–]?", re.IGNORECASE)
    return [
        line for line in lines if edge(line) not in repeated and not (edge(line) and number.fullmatch(line.text))
    ]


def _pdf_sections(built: _Builder, lines: Sequence[_Line]) -> None:
    """Headings are lines in larger letters, or numbered ones; the rest runs on, over pages too."""
    letters: Counter[float] = Counter()
    for line in lines:
        letters[line.size] += len(line.text)
    body = letters.most_common(1)[0][0] if letters else 0.0
    larger = sorted({line.size for line in lines if line.size >= 1.12 * body}, reverse=True)
    text, place = "", 0

    def flush() -> None:
        nonlocal text
        if text:
            built.passage(text, place)
        text = ""

    for line in lines:
        ended = not text or text[-1] in ".!?:;…"
        if line.size in larger and len(line.text) <= 120:
            flush()
            built.heading(1 + larger.index(line.size), line.text)
            continue
        level = _heading_level(line.text) if ended and _NUMBERED.match(line.text) else 0
        if level:
            flush()
            built.heading(len(larger) + level, line.text)
            continue
        bullet = _BULLET.match(line.text) if line.text[0] in "-*•‣·–" else None
        if bullet or (ended and line.page != place):
            flush()
        if not text:
            place = line.page
        words = line.text[bullet.end() :] if bullet else line.text
        if re.search(r"[^\W\d_]-$", text) and words[:1].islower():
            text = text[:-1] + words
        else:
            text = f"{text} {words}".strip()
    flush()


def _reason(error: BaseException) -> str:
    return clean(str(error))[:120] or type(error).__name__


# -------------------------------------------------------------------------------------- JSONL, CSV


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
            _refuse(found, file, number, f"broken JSON ({_reason(error)}); write one whole JSON object a line")
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


def _read_table(path: Path, file: str) -> Document:
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
        built = _Builder(file)
        built.passage(row.text("text", "content"), row.line)
        found.problems += built.problems
        if not built.problems:
            (section,) = built.document().sections
            title = row.text("title", "heading")
            sections.append(Section(file, title, section.passages, "line", row_id))
    if not sections:
        raise _nothing_left(found.problems, "row")
    return Document(file, tuple(sections), tuple(sorted(found.problems, key=lambda problem: problem.place)))


# ------------------------------------------------------------------------------------------ folders

READERS: dict[str, Callable[[Path, str], Document]] = {
    **dict.fromkeys((".md", ".markdown"), _read_markdown),
    **dict.fromkeys((".txt", ".text"), _read_text),
    **dict.fromkeys((".html", ".htm", ".xhtml"), _read_html),
    ".docx": _read_docx,
    ".pdf": _read_pdf,
    **dict.fromkeys((".jsonl", ".csv"), _read_table),
}
_ADVICE = {
    ".doc": "save it as .docx",
    ".odt": "save it as .docx",
    ".rtf": "save it as .docx",
    ".pages": "save it as .docx",
    ".xls": "save its sheet as .csv",
    ".xlsx": "save its sheet as .csv",
    ".json": "write one object a line and name it .jsonl",
    ".pptx": "save it as .pdf",
    ".zip": "unpack it",
}


def read_folder(path: Path) -> Folder:
    """All documents under a folder, or one single file. Raises TaskError where there is no such folder."""
    path = path.expanduser()
    if not path.exists():
        raise TaskError(f"path={path}: no such file or folder; check the spelling")
    not_entered: list[Problem] = []
    if path.is_file():
        root, found = path.parent, [path.name]
    else:
        root, found = path, sorted(_walk(path, not_entered))
    questions = [name for name in QUESTION_FILES if name in found] if path.is_dir() else []
    documents: list[Document] = []
    skipped: list[Problem] = []
    for file in found:
        if file in questions[:1]:
            continue
        if file in questions[1:]:
            said = f"is not read, since {questions[0]} is there; keep one of the two"
            skipped.append(Problem(file, 0, "line", said))
            continue
        try:
            documents.append(_read_file(root / file, file))
        except Unreadable as error:
            unit: Unit = "page" if file.lower().endswith(".pdf") else "line"
            skipped.append(Problem(file, error.place, unit, f"{error} (skipped)"))
    return Folder(
        path=path,
        files=tuple(found),
        documents=tuple(documents),
        skipped=tuple(skipped),
        not_entered=tuple(not_entered),
        questions=root / questions[0] if questions else None,
    )


def _walk(folder: Path, not_entered: list[Problem]) -> Iterator[str]:
    """Files below a folder, relative to it. Links to folders are not followed, so that no loop is walked."""
    pending = [folder]
    while pending:
        current = pending.pop()
        name = "" if current == folder else current.relative_to(folder).as_posix()
        try:
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError as error:
            not_entered.append(Problem(name or str(folder), 0, "line", f"cannot be opened ({error.strerror})"))
            continue
        for entry in entries:
            file = f"{name}/{entry.name}" if name else entry.name
            if entry.is_dir(follow_symlinks=False):
                if entry.name.startswith("."):
                    not_entered.append(Problem(file, 0, "line", "is a hidden folder and is not entered"))
                else:
                    pending.append(Path(entry.path))
            elif entry.is_symlink() and Path(entry.path).is_dir():
                said = "is a link to a folder and is not followed; copy the folder here if it belongs"
                not_entered.append(Problem(file, 0, "line", said))
            else:
                yield file


def _read_file(path: Path, file: str) -> Document:
    """One file by its kind. Raises Unreadable with the reason why it is skipped."""
    suffix = path.suffix.lower()
    if path.name.startswith("."):
        raise Unreadable("is a hidden file")
    try:
        state = path.stat()
    except OSError as error:
        raise Unreadable(f"cannot be opened ({error.strerror}); mend the link or remove it") from error
    if not stat.S_ISREG(state.st_mode):
        raise Unreadable("is no plain file; remove it")
    if suffix not in READERS:
        kind = f"is of the kind {suffix!r}" if suffix else "has no ending that names its kind"
        fix = _ADVICE.get(suffix, f"known are: {', '.join(sorted(READERS))}")
        raise Unreadable(f"{kind}, which is not read; {fix}")
    if state.st_size == 0:
        raise Unreadable("is empty; write its text or remove it")
    try:
        return READERS[suffix](path, file)
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror or _reason(error)}); check its permissions") from error
    except RecursionError as error:
        raise Unreadable("is nested too deeply to be read; simplify it") from error
