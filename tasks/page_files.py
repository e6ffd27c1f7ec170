"""Readers of what people write on pages: text, Markdown, HTML, DOCX and PDF.

Left out of pages without a word: scripts, styles, navigation and footers of HTML, images, private-use
characters (bullets of symbol fonts), and lines that a PDF repeats on most of its pages.
"""

from __future__ import annotations

import logging
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.sections import (
    BULLET,
    MAX_TEXT_BYTES,
    NUMBERED,
    Builder,
    Document,
    Unreadable,
    clean,
    heading_level,
    read_lines,
    reason_of,
    row_text,
)


def read_text(path: Path, file: str) -> Document:
    """Plain text: blocks between blank lines; a short line of its own above a block is a heading."""
    built = Builder(file)
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
            level = heading_level(block[0][1].strip())
            if level:
                built.heading(level, block[0][1])
                continue
        _text_block(built, block)
    return built.document()


def _text_block(built: Builder, block: Iterable[tuple[int, str]]) -> None:
    """The lines of a block as one passage, list items apart."""
    text, place = "", 0
    for number, line in block:
        bullet = BULLET.match(line)
        if (bullet or not text) and text:
            built.passage(text, place)
            text = ""
        if not text:
            place = number
        text = f"{text} {line[bullet.end() :] if bullet else line}"
    built.passage(text, place)


# ----------------------------------------------------------------------------------- Markdown, HTML


def read_markdown(path: Path, file: str) -> Document:
    from markdown_it import MarkdownIt

    built = Builder(file)
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
                built.passage(row_text(header, cells), start)
            cells = None
    return built.document()


def _without_front_matter(lines: list[str], built: Builder) -> list[str]:
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


def read_html(path: Path, file: str) -> Document:
    from bs4 import BeautifulSoup, NavigableString
    from bs4.element import PreformattedString

    built = Builder(file)
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
                row.string = row_text(header, cells)
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


def _html_source(path: Path, file: str, built: Builder) -> str:
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


def read_docx(path: Path, file: str) -> Document:
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
        raise Unreadable(f"is no DOCX that can be read ({reason_of(error)}); save it again as .docx") from error
    built = Builder(file, "paragraph")
    place = 0
    for item in document.iter_inner_content():
        if isinstance(item, Table):
            rows = [[cell.text for cell in row.cells] for row in item.rows]
            for row in rows[1:] or rows:
                place += 1
                built.passage(row_text(rows[0] if len(rows) > 1 else (), row), place)
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


def read_pdf(path: Path, file: str) -> Document:
    import pypdf
    from pypdf.errors import DependencyError, PyPdfError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it warns of what it mends by itself
    built = Builder(file, "page")
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
                    built.problem(
                        page, f"cannot be read ({reason_of(error)}) and was left out; save the PDF again"
                    )
    except DependencyError as error:
        raise Unreadable("is encrypted; save a copy without encryption") from error
    except (PyPdfError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable(f"is no PDF that can be read ({reason_of(error)}); save it again as PDF") from error
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


def _pdf_sections(built: Builder, lines: Sequence[_Line]) -> None:
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
        level = heading_level(line.text) if ended and NUMBERED.match(line.text) else 0
        if level:
            flush()
            built.heading(len(larger) + level, line.text)
            continue
        bullet = BULLET.match(line.text) if line.text[0] in "-*•‣·–" else None
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
