"""HTML, parsed by lxml: the main part of a page as headings, paragraphs, list items and table rows.

All text is taken but for an explicit list: navigation and what stands outside the main part, hidden and deleted
text, controls of forms, pictures, permalinks. Each of these is counted under its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from tasks.sections import ENDS, Builder, Document, clean
from tasks.tables import Cell, grid_rows, is_layout
from tasks.text_files import read_lines, read_whole

_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_BLOCKS = frozenset(
    (
        *_HEADINGS,
        *"address article aside blockquote body caption center dd details dialog div dl dt fieldset figcaption figure "
        "footer form header hgroup hr html legend li main menu nav ol p pre section summary table tbody td tfoot th "
        "thead tr ul".split(),
    )
)
_UNSEEN = frozenset("script style template head title".split())
_CONTROLS = frozenset("select option button textarea input datalist".split())
_ROLES = frozenset("navigation search banner contentinfo menu menubar complementary toolbar".split())
_NAVIGATION = re.compile(
    r"(?:site|page|main|top|global|primary|secondary)?[-_]?(?:nav|navbar|navigation|menu|sidebar|sphinxsidebar|footer|"
    r"breadcrumbs?|pagination|pager|searchbox|skip-?links?|related|toc|table-of-contents|toctree-wrapper)",
    re.IGNORECASE,
)
_COOKIES = re.compile(r"(?:cookies?|consent|gdpr)(?:[-_]?(?:banner|bar|notice|consent|popup|law|info|box))?", re.IGNORECASE)
_UNSEEN_CLASS = re.compile(r"sr-only|screen-reader-text|visually-?hidden|d-none|hidden", re.IGNORECASE)
_PERMALINK = re.compile(r"[¶#§🔗⚓\uf0c1\s]+")
_HIDING = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_TYPES = {"1": "decimal", "a": "lower-alpha", "A": "upper-alpha", "i": "lower-roman", "I": "upper-roman"}
_ROMAN = ((100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))


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
        page = read_whole(path, charset)
    raw = _RawText()
    raw.feed(page)
    built.raw.append("".join(raw.parts))
    read_page(page, built)
    return built.document()


class _RawText(HTMLParser):
    """All text of a page but scripts and styles, by the standard library's own parser."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unseen += tag in ("script", "style", "title", "template")
        if tag in _BLOCKS or tag == "br":
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self._unseen -= tag in ("script", "style", "title", "template") and self._unseen > 0
        if tag in _BLOCKS:
            self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.parts.append(data)


def read_page(page: str, built: Builder) -> None:
    """Hands the blocks of a page to the builder."""
    from lxml import etree, html

    page = re.sub(r"^\s*<\?xml[^>]*\?>", "", page).replace("\0", "")
    if not page.strip():
        return
    try:
        tree = html.document_fromstring(page, parser=html.HTMLParser(huge_tree=True, remove_pis=True))
    except etree.ParserError:
        return  # nothing but comments
    _Page(built, tree).read()


class _Page:
    """The walk over one page."""

    def __init__(self, built: Builder, tree: Any) -> None:
        self.built, self.tree = built, tree
        self.hidden = _hidden_selectors(tree)
        self.text: list[str] = []  # of the block that is being read
        self.place = 0
        self.mark: tuple[str, int] | None = None  # of the list item that begins here
        self.depth = 0
        self.in_pre = False
        self.notes = _footnotes(tree)  # id -> its element; read behind the paragraph that points to it
        self.noted: list[Any] = []
        self.done: set[Any] = set()  # elements of footnotes that were read
        self.main: Any = None
        self.around_main: frozenset[Any] = frozenset()
        self.inside = True  # the main part, where the page has one

    def read(self) -> None:
        body = self.tree.find("body")
        body = self.tree if body is None else body
        self.main = _main_part(body)
        if self.main is not None:
            self.around_main, self.inside = frozenset(self.main.iterancestors()), False
        title = self.tree.find(".//title")
        if title is not None and not any(True for _ in self.tree.iter(*_HEADINGS)):
            self.built.heading(1, title.text_content())
        self.visit(body)
        self.flush()

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
            self.place = _line(element)
        self.text.append(text)

    # -------------------------------------------------------------------------------------- blocks

    def visit(self, element: Any) -> None:
        """An element with what stands in it, without what follows it."""
        name = element.tag
        if not isinstance(name, str):
            return  # a comment
        name = name.rpartition("}")[2].lower()
        if name in _UNSEEN or element in self.done:
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
            self.built.leave(reason, _seen_text(element))
        elif name in _HEADINGS:
            self.flush()
            self.built.heading(int(name[1]), self._heading(element), _line(element))
        elif name == "table":
            self.flush()
            self._table(element)
        elif name in ("ol", "ul", "menu", "dir"):
            self._list(element, name)
        elif name == "br":
            self._break(element)
        elif name in ("img", "svg", "canvas", "video", "audio", "picture"):
            self.built.leave("pictures", _seen_text(element))
            self.add(" ", element)
        elif name == "dt":
            self.flush()
            self.children(element)
            term = clean("".join(self.text))
            if term and term[-1] not in ENDS:
                self.text.append(":")
            self.flush()
        elif name in _BLOCKS:
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
        """A line break ends the paragraph where a sentence ends, and is a blank elsewhere."""
        if re.search(r"[.!?。！？]\s*$", "".join(self.text[-3:])) and self.mark is None:
            self.flush()
        else:
            self.add(" ", element)

    def _heading(self, element: Any) -> str:
        """A heading's words without the link to itself."""
        return "".join(_texts(element, self._is_permalink))

    def _is_permalink(self, element: Any) -> bool:
        if element.tag != "a":
            return False
        text = element.text_content()
        if "headerlink" in element.get("class", "") or (text.strip() and _PERMALINK.fullmatch(text)):
            self.built.leave("permalinks", text)
            return True
        return False

    def _list(self, element: Any, name: str) -> None:
        self.flush()
        self.depth += 1
        step = -1 if element.get("reversed") is not None else 1
        items = [child for child in element if child.tag == "li"]
        number = _int(element.get("start"), len(items) if step < 0 else 1)
        style = re.search(r"list-style(?:-type)?\s*:\s*([\w-]+)", element.get("style", ""))
        kind = style[1] if style else _TYPES.get(element.get("type", "1"), "decimal")
        kind = next((k for k in ("lower-alpha", "upper-alpha", "lower-roman", "upper-roman") if k.replace("-", "") in
                     element.get("class", "").replace("-", "")), kind)
        self.add(element.text, element)
        for child in element:
            if child.tag == "li":
                self.flush()
                number = _int(child.get("value"), number)
                self.mark = (f"{_counted(number, kind)}." if name == "ol" else "", self.depth)
                number += step
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
        rows = [(row, list(_cells(row))) for row in _rows(table)]
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
        for row, cells in rows:
            if self._reason(row, "tr"):
                self.built.leave(self._reason(row, "tr"), _seen_text(row))
                continue
            plain.append([
                Cell(
                    text=self._cell(cell),
                    rows=tuple(self._nested(cell)),
                    columns=_int(cell.get("colspan"), 1),
                    lines=_int(cell.get("rowspan"), 1),
                    head=cell.tag == "th" or row.getparent().tag == "thead",
                    place=_line(cell),
                )
                for cell in cells
            ])  # fmt: skip
        for heads, texts, place in grid_rows(plain):
            self.built.row(heads, texts, place)

    def _is_laid_out(self, cell: Any) -> bool:
        """Whether a cell holds blocks of its own, as the cells of a page's layout do."""
        if any(True for _ in cell.iter(*_HEADINGS, "section", "article", "form")):
            return True
        blocks = sum(1 for _ in cell.iter("p", "ul", "ol", "pre", "blockquote"))
        return blocks > 2 and len(cell.text_content().split()) > 40

    def _cell(self, cell: Any) -> str:
        return clean("".join(_texts(cell, self._left_in_cell)))

    def _left_in_cell(self, element: Any) -> bool:
        if element.tag == "table":
            return True
        if element.tag in _UNSEEN:
            return True
        reason = self._reason(element, str(element.tag))
        if reason:
            self.built.leave(reason, _seen_text(element))
        return bool(reason)

    def _nested(self, cell: Any) -> Iterator[tuple[str, ...]]:
        """The rows of the tables inside a cell."""
        for table in cell.iter("table"):
            if next(table.iterancestors("td", "th"), None) is cell:
                for row in _rows(table):
                    texts = tuple(self._cell(one) for one in _cells(row))
                    deeper = [inner for one in _cells(row) for inner in self._nested(one)]
                    yield texts
                    yield from deeper

    # ------------------------------------------------------------------------------- what is left out

    def _reason(self, element: Any, name: str) -> str:
        """Why an element is left out; "" for one that is read."""
        classes = (element.get("class", "") + " " + element.get("id", "")).split()
        if not self.inside:
            return "" if element in self.around_main else "outside the main part"
        if name in ("noscript", "object", "iframe") or self._is_hidden(element, classes, name):
            return "hidden text"
        if name == "del":
            return "deleted text"
        if name in ("s", "strike") or "line-through" in element.get("style", ""):
            return "struck-through text"
        if name in _CONTROLS:
            return "controls of forms"
        if name in ("rt", "rp"):
            return "reading aids"
        if name == "a" and self._is_note_mark(element):
            return "footnote marks"
        role = element.get("role", "").lower()
        if name == "nav" or role in _ROLES:
            return "navigation"
        if name == "footer" and not any(one.tag in ("article", "blockquote", "main") for one in element.iterancestors()):
            return "navigation"
        if name in _BLOCKS and any(_COOKIES.fullmatch(one) for one in classes):
            return "cookie notices"
        if name in _BLOCKS and any(_NAVIGATION.fullmatch(one) for one in classes) and not _is_most(element):
            return "navigation"
        if name == "a" and self._is_permalink_alone(element, classes):
            return "permalinks"
        return ""

    def _is_hidden(self, element: Any, classes: Sequence[str], name: str) -> bool:
        return (
            element.get("hidden") is not None
            or bool(_HIDING.search(element.get("style", "")))
            or any(_UNSEEN_CLASS.fullmatch(one) for one in classes)
            or bool(self.hidden & {f".{one}" for one in classes})
            or f"#{element.get('id', '')}" in self.hidden
            or (name == "dialog" and element.get("open") is None)
        )

    def _is_permalink_alone(self, element: Any, classes: Sequence[str]) -> bool:
        return "headerlink" in classes or bool(re.fullmatch(r"\s*[¶🔗]\s*", element.text_content()))

    # ----------------------------------------------------------------------------------- footnotes

    def _is_note_mark(self, element: Any) -> bool:
        """Whether a link is the number of a footnote; that is read behind the paragraph."""
        target = element.get("href", "").removeprefix("#")
        if target not in self.notes or not re.fullmatch(r"\s*\[?[\d*†‡]{1,3}\]?\s*", element.text_content()):
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
        whole = " ".join("".join(_texts(part, self._left_in_cell)) for part in parts)
        self.built.item(re.sub(r"^\s*\[?\d{1,3}\]?\s+", "", whole), _line(note), label, 9)
        self.done |= {note, *parts}


def _footnotes(tree: Any) -> dict[str, Any]:
    """Footnotes by their ids: definition lists and asides of Sphinx, list items of Markdown's converters."""
    found = {}
    for element in tree.iter("dt", "aside", "li", "p", "div"):
        name, classes = element.get("id", ""), element.get("class", "")
        above = element.getparent().get("class", "") if element.getparent() is not None else ""
        if name and (
            (element.tag == "dt" and "footnote" in above)
            or (element.tag == "aside" and "footnote" in classes and "list" not in classes)
            or re.match(r"fn\W?\w*\d|footnote-?\d|_ftn\d", name)
        ):
            found[name] = element
    return found


def _main_part(body: Any) -> Any:
    """The element that holds what the page is about; None where nothing says so."""
    mains = [one for one in body.iter() if one.tag == "main" or one.get("role") == "main"]
    if not mains:
        articles = [one for one in body.iter("article")]
        mains = articles if len(articles) == 1 and _is_most(articles[0]) else []
    mains = [one for one in mains if one.get("hidden") is None and one.text_content().strip()]
    return mains[0] if len(mains) == 1 else None


def _is_most(element: Any) -> bool:
    """Whether an element holds more than half of its page's words."""
    root = element.getroottree().getroot()
    body = root.find("body")
    return 2 * len(_seen_text(element)) > len(_seen_text(root if body is None else body))


def _hidden_selectors(tree: Any) -> set[str]:
    """Classes and ids that a style sheet in the page hides: `.draft`, `#old`."""
    found: set[str] = set()
    for style in tree.iter("style"):
        for selectors, rules in re.findall(r"([^{}]+)\{([^{}]*)\}", style.text or ""):
            if _HIDING.search(rules) and "@" not in selectors:
                found |= {one for one in re.split(r"\s*,\s*", selectors.strip()) if re.fullmatch(r"[.#][\w-]+", one)}
    return found


def _texts(element: Any, left: Any) -> Iterator[str]:
    """The texts inside an element, without the elements for which left(element) holds."""
    yield element.text or ""
    for child in element:
        if isinstance(child.tag, str) and not left(child):
            if child.tag in _BLOCKS or child.tag == "br":
                yield " "
            yield "".join(_texts(child, left))
            if child.tag in _BLOCKS:
                yield " "
        yield child.tail or ""


def _seen_text(element: Any) -> str:
    return clean("".join(_texts(element, lambda one: one.tag in _UNSEEN)))


def _line(element: Any) -> int:
    """The line of an element; of Markdown the one that its parser has noted."""
    line = int(element.sourceline or 1)
    while element is not None:
        noted = element.get("data-line") if isinstance(element.tag, str) else None
        if noted:
            return int(noted)
        element = element.getparent()
    return line


def _rows(table: Any) -> Iterator[Any]:
    for row in table.iter("tr"):
        if next(row.iterancestors("table"), None) is table:
            yield row


def _cells(row: Any) -> Iterable[Any]:
    return (cell for cell in row if cell.tag in ("td", "th"))


def _int(value: str | None, otherwise: int) -> int:
    return int(value) if value and re.fullmatch(r"-?\d{1,6}", value.strip()) else otherwise


def _counted(number: int, kind: str) -> str:
    """The number as a list shows it."""
    if kind.endswith("alpha") or kind.endswith("latin"):
        sign = ""
        while number > 0:
            number, rest = divmod(number - 1, 26)
            sign = chr(ord("a") + rest) + sign
    elif kind.endswith("roman"):
        sign = ""
        for value, letters in _ROMAN:
            while number >= value:
                sign, number = sign + letters, number - value
    else:
        return str(number)
    return sign.upper() if kind.startswith("upper") else sign
