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
from itertools import pairwise
from pathlib import Path
from typing import Any

from tasks.documents.builder import Builder
from tasks.documents.docx_numbers import Numbers, Styles, W, is_on
from tasks.documents.docx_signs import CODE, symbol
from tasks.documents.form import ENDS, Document, Unreadable, clean, raised, reason_of
from tasks.documents.tables import Cell, grid_rows, holds_figures, is_layout, may_be_head
from tasks.documents.text_files import MAX_TEXT_BYTES

M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_DELETED = frozenset(f"{W}{name}" for name in ("del", "moveFrom", "delText"))
_NO_TEXT = frozenset(
    f"{W}{name}"
    for name in ("instrText", "delInstrText", "pPr", "rPr", "sdtPr", "sectPr", "tblPr", "tblGrid", "trPr", "tcPr")
)
_TEXTS = frozenset([f"{W}t", f"{W}delText", f"{M}t", f"{A}t"])
_SIGNS = {f"{W}tab": " ", f"{W}br": " ", f"{W}cr": " ", f"{W}ptab": " ", f"{W}noBreakHyphen": "-"}
_FORMULAS = frozenset(f"{M}{name}" for name in ("d", "f", "nary", "rad"))
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
            body = re.sub(r"<w:sym [^>]*>", _raw_symbol, body)
            found = re.findall(r"<(?:w:t|w:delText|m:t|a:t)(?: [^>]*)?>([^<]*)<|( )", body)
            yield _unescape("".join(text or blank for text, blank in found))


def _raw_symbol(match: re.Match[str]) -> str:
    given = dict(re.findall(r"w:(\w+)=[\"']([^\"']*)", match[0]))
    return f"<w:t>{symbol(given.get('font', ''), given.get('char', ''))}</w:t>"


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
        self.done: set[Any] = set()  # notes that were read
        self.boxes: list[Any] = []  # text boxes of the paragraph that is being read
        self.notes: list[tuple[str, str]] = []  # (kind, id) of the notes that it points to
        self.num_notes = {"footnote": 0, "endnote": 0}
        self.fields: list[bool] = []  # of each field that is open here: whether its result has begun
        self.bold: list[bool] = []  # of each run with words in this paragraph
        self.last = ""  # the words of the run before

    def read(self) -> None:
        for root in self.parts.values():
            self.changed = _join_deleted_ends(root) or self.changed
        self.blocks(self.document.element.body)
        for name, root in self.parts.items():
            part = re.fullmatch(r"/word/(header|footer|comments)\d*\.xml", name)
            for note in () if root is None else root.iter(f"{W}footnote", f"{W}endnote"):
                if note not in self.done:
                    self.built.leave("notes that nothing points to", _words(note))
            if part and root is not None:
                kind = "comments" if part[1] == "comments" else "running heads and feet"
                self.built.leave(kind, _words(root))
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
            elif element.tag == f"{W}altChunk":
                said = "holds another document that is not read; open it in Word and save it again"
                self.built.problem(self.place, said)
            elif element.tag == f"{MC}AlternateContent":
                self.blocks(self._choice(element))
            elif element.tag not in _NO_TEXT and isinstance(element.tag, str):
                self.blocks(element)

    def paragraph(self, element: Any) -> None:
        self.place += 1
        text = self._paragraph_text(element)
        boxes, notes = self.boxes, self.notes
        self.boxes, self.notes = [], []
        self._emit(element, text)
        for box in boxes:
            self.blocks(box)
        for kind, note_id in notes:
            self._note(kind, note_id)

    def _paragraph_text(self, element: Any) -> str:
        self.bold, self.last, self.fields = [], "", []
        return clean("".join(self._text(element)))

    def _emit(self, element: Any, text: str) -> None:
        """The paragraph as what it is: a heading, a list item or plain."""
        if not text and (_ends_deleted(element) or is_on(element.find(f"{W}pPr/{W}rPr/{W}vanish"))):
            return  # it takes no number
        style = self.styles.of_paragraph(element)
        number = self.numbers.of_paragraph(element)
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
            if note.get(f"{W}id") == note_id and note.get(f"{W}type", "normal") == "normal":
                self.done.add(note)
                self.num_notes[kind] += 1
                mark: str = f"[{self.num_notes[kind]}]"
                for block in _through(note, f"{W}p", f"{W}tbl"):
                    if block.tag == f"{W}tbl":
                        self.table(block)
                        continue
                    self.place += 1
                    if text := self._paragraph_text(block):
                        self.built.item(text, self.place, mark, 9)
                    mark = ""

    # -------------------------------------------------------------------------------------- tables

    def table(self, element: Any) -> None:
        rows = list(_through(element, f"{W}tr"))
        cells = [self._cells(row) for row in rows]
        if is_layout([[self._is_laid_out(cell) for cell in row] for row in cells]):
            for row in cells:
                for cell in row:
                    self.blocks(cell)
            return
        plain: list[list[Cell]] = []
        above: dict[int, int] = {}  # column -> index of the row in which its merged cell begins
        for row, row_cells in zip(rows, cells, strict=True):
            if not row_cells:
                continue
            properties = row.find(f"{W}trPr")
            head = properties is not None and is_on(properties.find(f"{W}tblHeader"))
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
                line.append(Cell(text, nested, wide, head=head, place=self.place))
                column += wide
            plain.append(line)
        if not any(cell.head for row in plain[:1] for cell in row):
            _find_heads(plain)
        for heads, texts, place in grid_rows(plain):
            self.built.row(heads, texts, place)

    def _cells(self, row: Any) -> list[Any]:
        """The cells of a row but for those that are deleted, alone or with the row."""
        if row.find(f"{W}trPr/{W}del") is not None:
            self._leave_deleted(row)
            return []
        cells = list(_through(row, f"{W}tc"))
        deleted = [cell for cell in cells if cell.find(f"{W}tcPr/{W}cellDel") is not None]
        for cell in deleted:
            self._leave_deleted(cell)
        return [cell for cell in cells if cell not in deleted]

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
        in_list = False
        for block in _through(cell, f"{W}p", f"{W}tbl"):
            if block.tag == f"{W}tbl":
                for row in _through(block, f"{W}tr"):
                    inner = [self._cell(one) for one in self._cells(row)]
                    nested += [tuple(text for text, _ in inner)] if inner else []
                    nested += [deeper for _, rows in inner for deeper in rows]
                continue
            self.place += 1
            text = self._paragraph_text(block)
            number = self.numbers.of_paragraph(block)
            if number and text and texts and texts[-1][-1:] not in (*ENDS, ""):
                texts[-1] += ";" if in_list else ":"
            in_list = number is not None
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
            elif tag in _TEXTS and not all(self.fields):
                self.built.leave("codes of fields", child.text or "")
            elif tag in _TEXTS:
                yield child.text or ""
            elif tag in _SIGNS:
                yield _SIGNS[tag]
            elif tag == f"{W}fldChar":
                yield from self._field(child)
            elif tag == f"{W}txbxContent":
                self.boxes.append(child)
            elif tag in (f"{W}footnoteReference", f"{W}endnoteReference"):
                kind = tag.removeprefix(W).removesuffix("Reference")
                self.notes.append((kind, child.get(f"{W}id", "")))
            elif tag == f"{MC}AlternateContent":
                yield from self._text(self._choice(child))
            elif tag == f"{W}rt":
                self.built.leave("reading aids", _words(child))
            elif tag == f"{W}sym":
                yield self._sign(child.get(f"{W}font", ""), child.get(f"{W}char", ""))
            elif tag in _FORMULAS:
                yield self._formula(child)
            elif tag in (f"{M}sup", f"{M}sub"):
                script = _term("".join(self._text(child)))
                yield f"{'^' if tag.endswith('sup') else '_'}{script}" if script else ""
            else:
                if _PICTURES.search(tag) and not any(True for _ in child.iter(f"{W}txbxContent")):
                    self.built.leave("pictures", "")
                yield from self._text(child)

    def _field(self, mark: Any) -> Iterator[str]:
        """Begin, middle or end of a field; what a control of a form shows stands in its begin."""
        kind = mark.get(f"{W}fldCharType")
        if kind == "begin":
            self.fields.append(False)
            yield _chosen(mark)
        elif self.fields:
            if kind == "separate":
                self.fields[-1] = True
            else:
                self.fields.pop()

    def _sign(self, font: str, char: str) -> str:
        sign = symbol(font, char)
        said = f"holds a sign of the font {font!r} that is not known ({char}); compare it with the page"
        if not sign and said not in (problem.said for problem in self.built.problems):
            self.built.problem(self.place, said)
        return sign

    def _formula(self, element: Any) -> str:
        """A part of a formula on one line: `(a+b)/2`, `√(x)`, `∑_(i=1)^n x`."""
        kind = element.tag.removeprefix(M)

        def part(name: str, between: str = "") -> str:
            return between.join("".join(self._text(one)) for one in element.iterfind(f"{M}{name}"))

        def sign(name: str, default: str) -> str:
            found = element.find(f"{M}{kind}Pr/{M}{name}")
            return default if found is None else str(found.get(f"{M}val", ""))

        if kind == "f":
            return f"{_term(part('num'))}/{_term(part('den'))}"
        if kind == "rad":
            degree = part("deg")
            return f"√[{degree}]({part('e')})" if degree else f"√({part('e')})"
        if kind == "d":
            return sign("begChr", "(") + part("e", sign("sepChr", "|")) + sign("endChr", ")")
        limits = [f"{mark}{_term(text)}" for mark, name in (("_", "sub"), ("^", "sup")) if (text := part(name))]
        return f"{sign('chr', '∫')}{''.join(limits)} {part('e')}"

    def _run(self, run: Any) -> Iterator[str]:
        words = "".join(self._text(run))
        if CODE.search(words):
            font = self.styles.font(run)
            words = CODE.sub(lambda code: self._sign(font, f"{ord(code[0]):X}"), words)
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
                self.built.leave("second forms for older programs", _words(other))
        return read

    def _leave_deleted(self, element: Any) -> None:
        self.changed = True
        self.built.leave("deleted or moved away", _words(element))


def _root(part: Any) -> Any:
    """The XML of a part, None where it has none that can be read."""
    from lxml import etree

    if hasattr(part, "element"):
        return part.element
    try:
        return etree.fromstring(part.blob, etree.XMLParser(resolve_entities=False, huge_tree=True))
    except etree.XMLSyntaxError:
        return None


def _words(element: Any) -> str:
    """All that is written in it, seen or not."""
    found: list[str] = []
    for one in element.iter(*_TEXTS, *_SIGNS, f"{W}p", f"{W}sym"):
        if one.tag in _TEXTS:
            found.append(one.text or "")
        elif one.tag == f"{W}sym":
            found.append(symbol(one.get(f"{W}font", ""), one.get(f"{W}char", "")))
        else:
            found.append(_SIGNS.get(one.tag, " "))
    return "".join(found)


def _chosen(field: Any) -> str:
    """What a control of a form shows: a tick, or the entry that was chosen."""
    if (box := field.find(f"{W}ffData/{W}checkBox")) is not None:
        state = box.find(f"{W}checked")
        return "☒" if is_on(box.find(f"{W}default") if state is None else state) else "☐"
    if (menu := field.find(f"{W}ffData/{W}ddList")) is not None:
        entries = [str(one.get(f"{W}val", "")) for one in menu.iterfind(f"{W}listEntry")]
        given = {one.tag.removeprefix(W): str(one.get(f"{W}val", "0")) for one in menu}
        at = given.get("result", given.get("default", "0"))
        return entries[int(at)] if at.isdigit() and int(at) < len(entries) else ""
    return ""


def _term(text: str) -> str:
    """A part of a formula, in brackets where it has more than one term."""
    return text if re.fullmatch(r"[\w.,%^]*|\([^()]*\)", text) else f"({text})"


def _ends_deleted(paragraph: Any) -> bool:
    mark = paragraph.find(f"{W}pPr/{W}rPr")
    return mark is not None and (mark.find(f"{W}del") is not None or mark.find(f"{W}moveFrom") is not None)


def _join_deleted_ends(root: Any) -> bool:
    """Moves what stands in a paragraph whose own end is deleted into the next one; whether there are such."""
    ended = [] if root is None else [one for one in root.iter(f"{W}p") if _ends_deleted(one)]
    for paragraph in reversed(ended):
        following = next(paragraph.itersiblings(f"{W}p", f"{W}tbl", f"{W}sdt"), None)
        if following is not None and following.tag == f"{W}p":
            begin = 0 if following.find(f"{W}pPr") is None else 1
            following[begin:begin] = [child for child in paragraph if child.tag != f"{W}pPr"]
            paragraph.getparent().remove(paragraph)
    return bool(ended)


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


def _find_heads(rows: list[list[Cell]]) -> None:
    """Makes the first row a head, where it can be one, and the row below a head over several columns as well."""
    is_head = len(rows) > 1 and may_be_head(*([cell.text for cell in row] for row in rows[:2]))
    for n, (row, below) in enumerate(pairwise(rows)):
        if not is_head:
            return
        rows[n] = [replace(cell, head=True) for cell in row]
        if n == 0 and len(row) == 1 and row[0].columns == 2:
            return  # a title over two columns: keys and values
        alone, column = list[bool](), 0  # of each cell over one column: whether the one below says nothing else
        for cell in row:
            if cell.columns == 1:
                alone.append(_at(below, column) in ("", cell.text))
            column += cell.columns
        free = bool(alone) and all(alone)
        is_head = len(alone) < len(row) and (free or not holds_figures([cell.text for cell in below]))


def _at(row: list[Cell], column: int) -> str:
    """The text of the cell that covers a column."""
    for cell in row:
        if column < cell.columns:
            return cell.text
        column -= cell.columns
    return ""
