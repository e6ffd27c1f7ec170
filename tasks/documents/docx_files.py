"""Word documents, opened by python-docx: the text as it stands once every change is accepted.

python-docx gives the parts of the file and checks them; what it offers as a paragraph's text leaves out inserted
text, text boxes, content controls, notes, formulas and the numbers that Word counts. So the text is taken here
from the XML: all of it, but for an explicit list of what no reader of the page sees.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.documents.builder import Builder
from tasks.documents.docx_numbers import Numbers, Styles, W, is_on
from tasks.documents.form import ENDS, Document, Unreadable, clean, raised, reason_of
from tasks.documents.tables import Cell, grid_rows, is_layout
from tasks.documents.text_files import MAX_TEXT_BYTES

M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_DELETED = frozenset(f"{W}{name}" for name in ("del", "moveFrom", "delText"))
_NO_TEXT = frozenset(
    f"{W}{name}"
    for name in ("instrText", "delInstrText", "pPr", "rPr", "sdtPr", "sectPr", "tblPr", "tblGrid", "trPr", "tcPr")
)
_SIGNS = {f"{W}tab": " ", f"{W}br": " ", f"{W}cr": " ", f"{W}ptab": " ", f"{W}noBreakHyphen": "-"}
_PICTURES = re.compile(r"\}(?:drawing|pict|object)$")
_CHANGED = "holds changes that nobody has accepted yet; it was read as if all were accepted"


def read_docx(path: Path, file: str) -> Document:
    """A Word document; places are its paragraphs, counted from 1 with those in tables."""
    import docx
    from docx.opc.exceptions import OpcError

    with path.open("rb") as handle:
        if handle.read(8) == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
            said = "is password-protected or an old .doc; save it as .docx without a password"
            raise Unreadable(said)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > 4 * MAX_TEXT_BYTES:
                raise Unreadable("unpacks to more than 256 MB; split it or leave its pictures out")
            raw = "\n".join(_raw(archive))
        document = docx.Document(str(path))
    except (OpcError, zipfile.BadZipFile, KeyError, ValueError, SyntaxError, NotImplementedError) as error:
        raise Unreadable(f"is no DOCX that can be read ({reason_of(error)}); save it again as .docx") from error
    built = Builder(file, "paragraph")
    built.raw.append(raw)
    _Reader(built, document).read()
    return built.document()


def _raw(archive: zipfile.ZipFile) -> Iterator[str]:
    """The texts of the file's parts, found by their tags alone: those that are left out as well."""
    for name in archive.namelist():
        if re.fullmatch(r"word/(?:document|footnotes|endnotes|comments|header\d*|footer\d*)\.xml", name):
            body = archive.read(name).decode("utf-8", errors="replace")
            body = re.sub(r"<w:(?:tab|br|cr)(?: [^>]*)?/>|</?w:p(?: [^>]*)?>|</m:(?:num|e|r)>", " ", body)
            body = re.sub(r"<w:noBreakHyphen/>", "-", body)
            found = re.findall(r"<(?:w:t|w:delText|m:t|a:t)(?: [^>]*)?>([^<]*)<|( )", body)
            yield _unescape("".join(text or blank for text, blank in found))


def _unescape(text: str) -> str:
    from html import unescape

    return unescape(text)


class _Reader:
    """The walk over one document."""

    def __init__(self, built: Builder, document: Any) -> None:
        self.built, self.document = built, document
        self.styles = Styles(document.styles.element)
        parts = {str(part.partname): part for part in document.part.package.iter_parts()}
        self.parts = {name: _root(part) for name, part in parts.items() if name.endswith(".xml")}
        self.numbers = Numbers(self.parts.get("/word/numbering.xml"), self.styles)
        self.place = 0
        self.changed = False
        self.carried: list[str] = []  # text of paragraphs whose own end is deleted
        self.boxes: list[Any] = []  # text boxes of the paragraph that is being read
        self.notes: list[tuple[str, str]] = []  # (kind, id) of the notes that it points to
        self.num_notes = {"footnote": 0, "endnote": 0}
        self.hidden: list[str] = []
        self.bold: list[bool] = []  # of each run with words in this paragraph
        self.last = ""  # the words of the run before

    def read(self) -> None:
        self.blocks(self.document.element.body)
        for name, root in self.parts.items():
            part = re.fullmatch(r"/word/(header|footer|comments)\d*\.xml", name)
            if part and root is not None:
                kind = "comments" if part[1] == "comments" else "running heads and feet"
                self.built.leave(kind, " ".join("".join(p.itertext(f"{W}t")) for p in root.iter(f"{W}p")))
        if self.changed:
            self.built.problem(0, _CHANGED)

    # -------------------------------------------------------------------------------------- blocks

    def blocks(self, parent: Any) -> None:
        """The paragraphs and tables of a body, a text box or a note, through whatever wraps them."""
        for element in parent:
            if element.tag == f"{W}p":
                self.paragraph(element)
            elif element.tag == f"{W}tbl":
                self.table(element)
            elif element.tag in _DELETED:
                self._leave_deleted(element)
            elif element.tag == f"{MC}AlternateContent":
                self.blocks(self._choice(element))
            elif element.tag not in _NO_TEXT and isinstance(element.tag, str):
                self.blocks(element)

    def paragraph(self, element: Any) -> None:
        self.place += 1
        text = self._paragraph_text(element)
        boxes, notes = self.boxes, self.notes
        self.boxes, self.notes = [], []
        if text is not None:
            self._emit(element, text)
        for box in boxes:
            self.blocks(box)
        for kind, note_id in notes:
            self._note(kind, note_id)

    def _paragraph_text(self, element: Any) -> str | None:
        """Its words; None where its end is deleted, so that they belong to the next one."""
        self.bold, self.last = [], ""
        text = "".join(self._text(element))
        properties = element.find(f"{W}pPr")
        mark = None if properties is None else properties.find(f"{W}rPr")
        if mark is not None and (mark.find(f"{W}del") is not None or mark.find(f"{W}moveFrom") is not None):
            self.changed = True
            self.carried.append(text)
            return None
        whole = "".join([*self.carried, text])
        self.carried = []
        return whole

    def _emit(self, element: Any, text: str) -> None:
        """The paragraph as what it is: a heading, a list item or plain."""
        style = self.styles.of_paragraph(element)
        number = self.numbers.of_paragraph(element)
        text = clean(text)
        if not text:
            return
        if re.fullmatch(r"(?i)toc \d|toc heading|table of figures", style.name):
            self.built.leave("table of contents", text)
            return
        level = self.styles.heading_level(element)
        if level:
            self.built.heading(level, text, self.place, number.text if number else "")
        elif number is not None:
            self.built.item(text, self.place, number.text, number.depth)
        elif self._looks_like_heading(text) and not any(True for _ in element.iterancestors(f"{W}tbl")):
            self.built.heading(9, text, self.place, sure=False)
        else:
            self.built.paragraph(text, self.place)

    def _looks_like_heading(self, text: str) -> bool:
        return bool(self.bold) and all(self.bold) and len(text.split()) <= 10 and text[-1] not in ENDS

    def _note(self, kind: str, note_id: str) -> None:
        root = self.parts.get(f"/word/{kind}s.xml")
        notes = () if root is None else root.iter(f"{W}{kind}")
        for note in notes:
            if note.get(f"{W}id") == note_id and not note.get(f"{W}type"):
                self.num_notes[kind] += 1
                mark: str = f"[{self.num_notes[kind]}]"
                for paragraph in note.iter(f"{W}p"):
                    self.place += 1
                    text = clean(self._paragraph_text(paragraph) or "")
                    if text:
                        self.built.item(text, self.place, mark, 9)
                    mark = ""

    # -------------------------------------------------------------------------------------- tables

    def table(self, element: Any) -> None:
        rows = list(_through(element, f"{W}tr"))
        cells = [list(_through(row, f"{W}tc")) for row in rows]
        if is_layout([[self._is_laid_out(cell) for cell in row] for row in cells]):
            for row in cells:
                for cell in row:
                    self.blocks(cell)
            return
        plain: list[list[Cell]] = []
        above: dict[int, int] = {}  # column -> index of the row in which its merged cell begins
        marked = False
        for row, row_cells in zip(rows, cells, strict=True):
            properties = row.find(f"{W}trPr")
            if properties is not None and properties.find(f"{W}del") is not None:
                self._leave_deleted(row)
                continue
            marked = marked or (properties is not None and is_on(properties.find(f"{W}tblHeader")))
            line, column = [], _gap(properties)
            line += [Cell("")] * column
            for cell in row_cells:
                wide, goes_on = _spans(cell)
                text, nested = self._cell(cell)
                if goes_on and column in above and not text:
                    row_index, at = above[column], column
                    text = _at(plain[row_index], at) if row_index < len(plain) else ""
                else:
                    above[column] = len(plain)
                head = (
                    not plain if not marked else properties is not None and is_on(properties.find(f"{W}tblHeader"))
                )
                line.append(Cell(text, nested, wide, head=head and len(rows) > 1, place=self.place))
                column += wide
            plain.append(line)
        if not marked:
            _join_heads(plain)
        for heads, texts, place in grid_rows(plain):
            self.built.row(heads, texts, place)

    def _is_laid_out(self, cell: Any) -> bool:
        """Whether a cell holds blocks of its own, as the cells of a page's layout do."""
        paragraphs = [p for p in cell.iter(f"{W}p") if p.find(f".//{W}t") is not None]
        if any(self.styles.heading_level(p) for p in paragraphs):
            return True
        words = sum(len("".join(p.itertext(f"{W}t")).split()) for p in paragraphs)
        return len(paragraphs) > 3 and words > 60

    def _cell(self, cell: Any) -> tuple[str, tuple[tuple[str, ...], ...]]:
        """(its words, the rows of the tables inside it)."""
        texts: list[str] = []
        nested: list[tuple[str, ...]] = []
        for block in _through(cell, f"{W}p", f"{W}tbl"):
            if block.tag == f"{W}tbl":
                for row in _through(block, f"{W}tr"):
                    inner = [self._cell(one) for one in _through(row, f"{W}tc")]
                    nested.append(tuple(text for text, _ in inner))
                    nested += [deeper for _, rows in inner for deeper in rows]
                continue
            self.place += 1
            text = clean(self._paragraph_text(block) or "")
            number = self.numbers.of_paragraph(block)
            texts.append(f"{number.text} {text}".strip() if number and text else text)
            boxes, notes = self.boxes, self.notes
            self.boxes, self.notes = [], []
            texts += [clean("".join(self._text(p))) for box in boxes for p in box.iter(f"{W}p")]
            for kind, note_id in notes:
                self._note(kind, note_id)
        return " ".join(text for text in texts if text), tuple(nested)

    # ---------------------------------------------------------------------------------------- text

    def _text(self, element: Any) -> Iterator[str]:
        """All words inside a paragraph, text boxes and notes set apart, by the list of what is not seen."""
        for child in element:
            tag = child.tag
            if not isinstance(tag, str) or tag in _NO_TEXT:
                continue
            if tag in _DELETED:
                self._leave_deleted(child)
            elif tag == f"{W}ins" or tag == f"{W}moveTo":
                self.changed = True
                yield from self._text(child)
            elif tag == f"{W}r":
                yield from self._run(child)
            elif tag in (f"{W}t", f"{M}t", f"{A}t"):
                yield child.text or ""
            elif tag in _SIGNS:
                yield _SIGNS[tag]
            elif tag == f"{W}txbxContent":
                self.boxes.append(child)
            elif tag in (f"{W}footnoteReference", f"{W}endnoteReference"):
                kind = tag.removeprefix(W).removesuffix("Reference")
                self.notes.append((kind, child.get(f"{W}id", "")))
            elif tag == f"{MC}AlternateContent":
                yield from self._text(self._choice(child))
            elif tag == f"{W}rt":
                self.built.leave("reading aids", "".join(child.itertext(f"{W}t")))
            elif tag == f"{M}f":
                top, bottom = ("".join(self._text(child.find(f"{M}{part}"))) for part in ("num", "den"))
                yield f"{top}/{bottom}"
            elif tag in (f"{M}sup", f"{M}sub"):
                yield ("^" if tag.endswith("sup") else "_") + "".join(self._text(child))
            else:
                if _PICTURES.search(tag) and not any(True for _ in child.iter(f"{W}txbxContent")):
                    self.built.leave("pictures", "")
                yield from self._text(child)

    def _run(self, run: Any) -> Iterator[str]:
        words = "".join(self._text(run))
        if self.styles.run_is(run, "vertAlign", "superscript"):
            words = raised(self.last, words)
        self.last = words or self.last
        if self.styles.run_is(run, "vanish") and words.strip():
            self.built.leave("hidden text", words)
            return
        if words.strip() and (self.styles.run_is(run, "strike") or self.styles.run_is(run, "dstrike")):
            self.built.leave("struck-through text", words)
            return
        if words.strip():
            self.bold.append(self.styles.run_is(run, "b"))
        yield words

    def _choice(self, element: Any) -> Any:
        """One of a pair's two forms: the first that can be read; the other says the same."""
        choices = [*element.iterfind(f"{MC}Choice"), *element.iterfind(f"{MC}Fallback")]
        read = next(
            (one for one in choices if any(True for _ in one.iter(f"{W}t"))), choices[0] if choices else element
        )
        for other in choices:
            if other is not read:
                self.built.leave(
                    "second forms for older programs", " ".join(t.text or "" for t in other.iter(f"{W}t"))
                )
        return read

    def _leave_deleted(self, element: Any) -> None:
        self.changed = True
        words = [t.text or "" for t in element.iter(f"{W}t", f"{W}delText")]
        self.built.leave("deleted or moved away", "".join(words))


def _root(part: Any) -> Any:
    """The XML of a part, None where it has none that can be read."""
    from lxml import etree

    if hasattr(part, "element"):
        return part.element
    try:
        return etree.fromstring(part.blob, etree.XMLParser(resolve_entities=False, huge_tree=True))
    except etree.XMLSyntaxError:
        return None


def _through(element: Any, *tags: str) -> Iterator[Any]:
    """Children with these tags, through content controls and other wrappers."""
    for child in element:
        if child.tag in tags:
            yield child
        elif isinstance(child.tag, str) and child.tag not in _NO_TEXT and child.tag not in _DELETED:
            yield from _through(child, *tags)


def _spans(cell: Any) -> tuple[int, bool]:
    """(columns that a cell covers, whether it goes on with the cell above)."""
    properties = cell.find(f"{W}tcPr")
    if properties is None:
        return 1, False
    span, merge = properties.find(f"{W}gridSpan"), properties.find(f"{W}vMerge")
    wide = int(span.get(f"{W}val", "1")) if span is not None else 1
    return max(1, min(wide, 1000)), merge is not None and merge.get(f"{W}val", "continue") == "continue"


def _gap(properties: Any) -> int:
    """Columns that a row leaves out at its start."""
    before = None if properties is None else properties.find(f"{W}gridBefore")
    return int(before.get(f"{W}val", "0")) if before is not None else 0


def _join_heads(rows: list[list[Cell]]) -> None:
    """Makes the row below a head over several columns a head as well."""
    for n in range(len(rows) - 2):
        if not any(cell.columns > 1 for cell in rows[n]):
            return
        rows[n + 1] = [replace(cell, head=True) for cell in rows[n + 1]]


def _at(row: list[Cell], column: int) -> str:
    """The text of the cell that covers a column."""
    for cell in row:
        if column < cell.columns:
            return cell.text
        column -= cell.columns
    return ""
