"""HTML, parsed by lxml: the main part of a page as headings, paragraphs, list items and table rows.

All text is taken but for an explicit list: navigation and what stands outside the main part, hidden and deleted
text, controls of forms, pictures, permalinks. Each of these is counted under its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from encodings.aliases import aliases
from pathlib import Path
from typing import Any

from tasks.documents.builder import Builder
from tasks.documents.form import ENDS, Document, clean, raised
from tasks.documents.html_parts import (
    BLOCKS,
    CONTROLS,
    COOKIES,
    HEADINGS,
    NAVIGATION,
    PERMALINK,
    ROLES,
    UNSEEN,
    UNSEEN_CLASS,
    RawText,
    cells_of,
    footnotes,
    hidden_elements,
    is_bold,
    is_most,
    line_of,
    main_part,
    marks_of,
    note_target,
    rows_of,
    seen_text,
    texts,
    whole_number,
    write_marks,
)
from tasks.documents.tables import Cell, grid_rows, is_layout
from tasks.documents.text_files import read_lines, read_whole

_CHARSETS = {  # as Python and as browsers read them
    "ascii": "cp1252", "latin_1": "cp1252", "iso8859_9": "cp1254", "shift_jis": "cp932", "gb2312": "gb18030",
    "gbk": "gb18030", "euc_kr": "cp949", "big5": "big5hkscs",
}  # fmt: skip
_SIGNS = {"mfrac": "/", "msup": "^", "msub": "_", "msubsup": "_^"}  # behind the parts of an element of MathML


def read_html(path: Path, file: str) -> Document:
    """An HTML page; places are its lines."""
    built = Builder(file)
    with path.open("rb") as handle:
        head = handle.read(4096)
    declared = re.search(rb"<meta[^>]+charset\s*=\s*[\"']?([\w-]+)", head, re.IGNORECASE)
    declared = declared or re.match(rb"\s*<\?xml[^>]+encoding\s*=\s*[\"']([\w-]+)", head)
    charset = declared[1].decode("ascii").lower() if declared else "utf-8"
    marked = head.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"))
    if marked or charset in ("utf-8", "utf8", "utf-16"):
        page = "\n".join(line for _, line in read_lines(path, file, built.problems))
    else:
        name = charset.replace("-", "_")
        page = read_whole(path, _CHARSETS.get(aliases.get(name, name), charset))
    raw = RawText()
    raw.feed(page)
    built.raw.append("".join(raw.parts))
    read_page(page, built)
    return built.document()


def read_page(page: str, built: Builder) -> None:
    """Hands the blocks of a page to the builder."""
    from lxml import etree, html

    page = re.sub(r"^\s*<\?xml[^>]*\?>", "", page).replace("\0", "")
    if not page.strip():
        return
    parser = html.HTMLParser(huge_tree=True, remove_pis=True, remove_comments=True)
    try:
        tree = html.document_fromstring(page, parser=parser)
    except etree.ParserError:
        return  # nothing but comments
    _Page(built, tree).read()


class _Page:
    """The walk over one page."""

    def __init__(self, built: Builder, tree: Any) -> None:
        self.built, self.tree = built, tree
        self.hidden = hidden_elements(tree, built.problem)
        self.text: list[str] = []  # of the block that is being read
        self.place = 0
        self.mark: tuple[str, int] | None = None  # of the list item that begins here
        self.depth = 0
        self.in_pre = False
        self.notes = footnotes(tree)  # id -> its element; read behind the paragraph that points to it
        self.noted: list[Any] = []
        self.done: set[Any] = set()  # footnotes that were read, and what is not seen
        self.main: Any = None
        self.around_main: frozenset[Any] = frozenset()
        self.inside = True  # the main part, where the page has one

    def read(self) -> None:
        body = self.tree.find("body")
        body = self.tree if body is None else body
        self.main = main_part(body)
        if self.main is not None:
            self.around_main, self.inside = frozenset(self.main.iterancestors()), False
        self._drop_unseen(body)
        self._write_signs()
        title = self.tree.find(".//title")
        if title is not None and not any(True for _ in self.tree.iter(*HEADINGS)):
            self.built.heading(1, title.text_content())
        self.visit(body)
        self.flush()

    def _write_signs(self) -> None:
        """What only its place above, below or behind a line tells, as signs: 10^6, (a+b)/2."""
        for sup in self.tree.iter("sup"):
            last = sup.getprevious()
            before = sup.getparent().text if last is None else last.tail or last.text_content()
            sup.text = raised(before or "", sup.text or "")
        for math in self.tree.iter(*_SIGNS):
            for part in math:
                if len(part) > 1:
                    part.text, part[-1].tail = "(" + (part.text or ""), (part[-1].tail or "").rstrip() + ")"
            for part, sign in zip(math, _SIGNS[math.tag], strict=False):
                part.tail = sign + (part.tail or "").lstrip()

    # ------------------------------------------------------------------------------------- inline

    def flush(self) -> None:
        """Ends the block: what was gathered becomes a paragraph or a list item."""
        whole = clean("".join(self.text))
        self.text = []
        if whole:
            if self.mark is not None:
                self.built.item(whole, self.place, *self.mark)
                self.mark = None
            else:
                self.built.paragraph(whole, self.place)
        self.place = 0
        notes, self.noted = self.noted, []
        for note in notes:
            self._note(note)

    def add(self, text: str | None, element: Any) -> None:
        if not text:
            return
        if not self.inside:
            if text.strip():
                self.built.leave("outside the main part", text)
            return
        if not self.place and text.strip():
            self.place = line_of(element)
        self.text.append(text)

    # -------------------------------------------------------------------------------------- blocks

    def visit(self, element: Any) -> None:
        """An element with what stands in it, without what follows it."""
        name = element.tag
        if not isinstance(name, str):
            return  # a comment
        name = name.rpartition("}")[2].lower()
        if name in UNSEEN or element in self.done:
            return
        if element is self.main:
            self.inside = True
            self.flush()
            self.children(element)
            self.flush()
            self.inside = False
            return
        reason = self._reason(element, name)
        if reason:
            self.built.leave(reason, seen_text(element))
        elif name in HEADINGS:
            self.flush()
            self.built.heading(int(name[1]), self._heading(element), line_of(element))
        elif name == "table":
            self.flush()
            self._table(element)
        elif name in ("ol", "ul", "menu", "dir"):
            self._list(element)
        elif name == "br":
            self._break(element)
        elif name in ("img", "svg", "canvas", "video", "audio", "picture"):
            self.built.leave("pictures", seen_text(element))
            self.add(" ", element)
        elif name == "dt":
            self.flush()
            self.children(element)
            term = clean("".join(self.text))
            if term and term[-1] not in ENDS:
                self.text.append(":")
            self.flush()
        elif name in BLOCKS:
            self.flush()
            self.children(element)
            self.flush()
        else:
            self.children(element)

    def children(self, element: Any) -> None:
        self.add(element.text, element)
        for child in element:
            self.visit(child)
            self.add(child.tail, child)

    def _break(self, element: Any) -> None:
        """A line break ends the paragraph behind a sentence or another break, and is a blank elsewhere."""
        if re.search(r"[.!?。！？\u2028]\s*$", "".join(self.text[-3:])) and self.mark is None:
            self.flush()
        else:
            self.add("\u2028", element)

    def _heading(self, element: Any) -> str:
        """A heading's words without the link to itself."""
        return "".join(texts(element, self._is_permalink))

    def _is_permalink(self, element: Any) -> bool:
        if element.tag != "a":
            return False
        text = element.text_content()
        if "headerlink" in element.get("class", "") or (text.strip() and PERMALINK.fullmatch(text)):
            self.built.leave("permalinks", text)
            return True
        return False

    def _list(self, element: Any) -> None:
        self.flush()
        self.depth += 1
        marks = marks_of(element)
        self.add(element.text, element)
        for child in element:
            if child.tag == "li":
                self.flush()
                self.mark = (marks[child], self.depth)
                self.visit(child)
                self.flush()
                self.mark = None
            else:
                self.visit(child)
            self.add(child.tail, child)
        self.flush()
        self.depth -= 1

    # -------------------------------------------------------------------------------------- tables

    def _table(self, table: Any) -> None:
        rows = [(row, list(cells_of(row))) for row in rows_of(table)]
        for part in table:
            if part.tag == "caption":
                self.visit(part)
                self.flush()
        if is_layout([[self._is_laid_out(cell) for cell in cells] for _, cells in rows]):
            for _, cells in rows:
                for cell in cells:
                    self.children(cell)
                    self.flush()
            return
        plain: list[list[Cell]] = []
        bold = [is_bold(row) for row, _ in rows]
        num_heads = 0 if all(bold) else bold.index(False)
        for n, (row, cells) in enumerate(rows):
            if self._reason(row, "tr"):
                self.built.leave(self._reason(row, "tr"), seen_text(row))
                continue
            plain.append([
                Cell(
                    text=self._cell(cell),
                    rows=tuple(self._nested(cell)),
                    columns=whole_number(cell.get("colspan"), 1),
                    lines=whole_number(cell.get("rowspan"), 1),
                    head=cell.tag == "th" or row.getparent().tag == "thead" or n < num_heads,
                    place=line_of(cell),
                )
                for cell in cells
            ])  # fmt: skip
        for heads, held, place in grid_rows(plain):
            self.built.row(heads, held, place)

    def _is_laid_out(self, cell: Any) -> bool:
        """Whether a cell holds blocks of its own, as the cells of a page's layout do."""
        if any(True for _ in cell.iter(*HEADINGS, "section", "article", "form")):
            return True
        blocks = sum(1 for _ in cell.iter("p", "ul", "ol", "pre", "blockquote"))
        return blocks > 2 and len(cell.text_content().split()) > 40

    def _cell(self, cell: Any) -> str:
        write_marks(cell)
        return clean("".join(texts(cell, self._left_in_cell)))

    def _left_in_cell(self, element: Any) -> bool:
        if element.tag == "table":
            return True
        if element.tag in UNSEEN:
            return True
        reason = self._reason(element, str(element.tag))
        if reason:
            self.built.leave(reason, seen_text(element))
        return bool(reason)

    def _nested(self, cell: Any) -> Iterator[tuple[str, ...]]:
        """The rows of the tables inside a cell."""
        for table in cell.iter("table"):
            if next(table.iterancestors("td", "th"), None) is cell:
                for row in rows_of(table):
                    texts = tuple(self._cell(one) for one in cells_of(row))
                    deeper = [inner for one in cells_of(row) for inner in self._nested(one)]
                    yield texts
                    yield from deeper

    # ------------------------------------------------------------------------------- what is left out

    def _drop_unseen(self, body: Any) -> None:
        """Takes what is hidden or struck out of the tree; what is only not drawn leaves its place empty."""
        for element in list(body.iter("*")):
            if element in self.done or element in self.around_main or element in (body, self.main):
                continue
            reason = self._unseen(element)
            if reason:
                self.built.leave(reason, seen_text(element))
                self.done.update(element.iterdescendants())
                if reason == "hidden text" and self.hidden.get(element, "display") == "display":
                    self.done.add(element)
                    element.drop_tree()
                else:
                    element.text = None
                    del element[:]

    def _unseen(self, element: Any) -> str:
        """Why an element is not seen, or not valid; "" for one that is."""
        classes = (element.get("class", "") + " " + element.get("id", "")).split()
        if (
            element.tag in ("noscript", "object", "iframe", "annotation")
            or element.get("hidden") is not None
            or element in self.hidden
            or any(UNSEEN_CLASS.fullmatch(one) for one in classes)
            or (element.tag == "dialog" and element.get("open") is None)
        ):
            return "hidden text"
        if element.tag == "del":
            return "deleted text"
        struck = element.tag in ("s", "strike") or "line-through" in element.get("style", "")
        return "struck-through text" if struck else ""

    def _reason(self, element: Any, name: str) -> str:
        """Why an element is left out; "" for one that is read."""
        classes = (element.get("class", "") + " " + element.get("id", "")).split()
        if not self.inside:
            return "" if element in self.around_main else "outside the main part"
        if name in CONTROLS:
            return "controls of forms"
        if name in ("rt", "rp"):
            return "reading aids"
        if name in ("a", "sup", "span") and self._is_note_mark(element):
            return "footnote marks"
        role = element.get("role", "").lower()
        if name == "nav" or role in ROLES:
            return "navigation"
        if name == "footer" and not any(
            one.tag in ("article", "blockquote", "main") for one in element.iterancestors()
        ):
            return "navigation"
        if name in BLOCKS and any(COOKIES.fullmatch(one) for one in classes):
            return "cookie notices"
        if name in BLOCKS and any(NAVIGATION.fullmatch(one) for one in classes) and not is_most(element):
            return "navigation"
        if name == "a" and self._is_permalink_alone(element, classes):
            return "permalinks"
        return ""

    def _is_permalink_alone(self, element: Any, classes: Sequence[str]) -> bool:
        return "headerlink" in classes or bool(re.fullmatch(r"\s*[¶🔗]\s*", element.text_content()))

    # ----------------------------------------------------------------------------------- footnotes

    def _is_note_mark(self, element: Any) -> bool:
        """Whether a link is the number of a footnote; that is read behind the paragraph."""
        target = note_target(element)
        if target not in self.notes:
            return False
        if self.notes[target] not in self.noted:
            self.noted.append(self.notes[target])
        return True

    def _note(self, note: Any) -> None:
        """A footnote as a paragraph of its own behind the one that points to it."""
        if note in self.done:
            return
        if note.tag == "dt":
            parts = []
            for one in note.itersiblings():
                if one.tag == "dt":
                    break
                parts.append(one)
        else:
            parts = [note]
        number = re.search(r"\d{1,3}", (note.get("data-number") or "") + note.text_content())
        label = f"[{number[0]}]" if number and note.tag != "li" else ""
        whole = " ".join("".join(texts(part, self._left_in_cell)) for part in parts)
        self.built.item(re.sub(r"^\s*[\[(]?\s*\d{1,3}\s*[\])]?\s+", "", whole), line_of(note), label, 9)
        self.done |= {note, *parts}
