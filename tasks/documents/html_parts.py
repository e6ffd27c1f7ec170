"""What the elements of a page are: blocks, navigation, hidden parts, the main part, footnotes; and their words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from html.parser import HTMLParser
from itertools import islice
from typing import Any

from tasks.documents.counting import formed
from tasks.documents.form import ENDS, clean, names

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
BLOCKS = names(
    """
    h1 h2 h3 h4 h5 h6 address article aside blockquote body caption center dd details dialog div dl dt
    fieldset figcaption figure footer form header hgroup hr html legend li main menu nav ol p pre section
    summary table tbody td tfoot th thead tr ul
    """
)
UNSEEN = names("script style template head title")
CONTROLS = names("select option button textarea input datalist")
ROLES = names("navigation search banner contentinfo menu menubar complementary toolbar")
NAVIGATION = re.compile(
    r"(?:site|page|main|top|global|primary|secondary)?[-_]?(?:nav|navbar|navheader|navfooter|navigation|menu|sidebar|sphinxsidebar|"
    r"footer|breadcrumbs?|pagination|pager|searchbox|skip-?links?|related|toc|table-of-contents|toctree-wrapper)",
    re.IGNORECASE,
)
COOKIES = re.compile(
    r"(?:cookies?|consent|gdpr)(?:[-_]?(?:banner|bar|notice|consent|popup|law|info|box))?", re.IGNORECASE
)
UNSEEN_CLASS = re.compile(r"sr-only|screen-reader-text|visually-?hidden|d-none|hidden", re.IGNORECASE)
PERMALINK = re.compile(r"[¶#§🔗⚓\uf0c1\s]+")


class RawText(HTMLParser):
    """All text of a page but scripts and styles, by the standard library's own parser."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unseen = 0

    def parse_html_declaration(self, i: int) -> int:
        try:
            return super().parse_html_declaration(i)
        except AssertionError:  # "<![-" is no section
            return self.parse_bogus_comment(i)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unseen += tag in ("script", "style", "title", "template")
        if tag in BLOCKS or tag == "br":
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self._unseen -= tag in ("script", "style", "title", "template") and self._unseen > 0
        if tag in BLOCKS:
            self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.parts.append(data)


_NOTE_MARK = re.compile(r"\s*[\[(]?\s*([\d*†‡]{1,3})\s*[\])]?\s*")


def footnotes(tree: Any) -> dict[str, Any]:
    """Footnotes by the ids that numbers in the text point to: blocks with that number, or that are named so."""
    targets = {name: one for one in tree.iter() for name in (one.get("id"), one.get("name")) if name}
    found = {}
    for link in tree.iter("a"):
        name = link.get("href", "").removeprefix("#")
        mark = _NOTE_MARK.fullmatch(link.text_content())
        note = targets.get(name) if mark and link.get("href", "").startswith("#") else None
        while note is not None and note.tag not in BLOCKS:
            note = note.getparent()
        if note is None or mark is None or note is next(link.iterancestors(*BLOCKS), None):
            continue
        above = note.getparent()
        if above is not None and re.search(r"\bfootnote\b", above.get("class", "")) and note.tag == "p":
            note = above
        begins = _NOTE_MARK.match(note.text_content())
        if (begins and begins[1] == mark[1]) or re.match(r"fn\W?\w*\d|footnote-?\d|_ftn\d", name):
            found[name] = note
    return found


def note_target(element: Any) -> str:
    """The id that a footnote's number in the text points to; "" for what is no such number."""
    if not _NOTE_MARK.fullmatch(element.text_content()):
        return ""
    link = element if element.tag == "a" else next(element.iter("a"), None)
    return "" if link is None else link.get("href", "").removeprefix("#")


def main_part(body: Any) -> Any:
    """The element that holds what the page is about; None where nothing says so."""
    mains = [one for one in body.iter() if one.tag == "main" or one.get("role") == "main"]
    if not mains:
        articles = list(body.iter("article"))
        mains = articles if len(articles) == 1 and is_most(articles[0]) else []
    mains = [one for one in mains if one.get("hidden") is None and one.text_content().strip()]
    return mains[0] if len(mains) == 1 else None


def is_most(element: Any) -> bool:
    """Whether an element holds more than half of its page's words."""
    root = element.getroottree().getroot()
    body = root.find("body")
    return 2 * len(seen_text(element)) > len(seen_text(root if body is None else body))


_FAR = r"-(?:\d{4,}px|\d{3,}(?:r?em|v[wh]|%))"
_HIDING = {  # property -> its values that hide
    "visibility": r"hidden|collapse",
    "opacity": r"0*\.?0+%?",
    "font-size": r"0*\.?0+(?:px|pt|r?em|%)?",
    "left": _FAR,
    "top": _FAR,
    "text-indent": _FAR,
    "clip": r"rect\((?:[01](?:px)?[,\s]*){4}\)",
    "clip-path": r"inset\((?:50|100)%\)",
    "content-visibility": r"hidden",
    "display": r"none",
}
_INHERITED = ("visibility", "font-size")  # what stands inside may be seen again
MOST_SELECTORS = 1000  # of a rule inside others, which each level multiplies; and signs of one
_OFF_SCREEN = re.compile(r"(?<!not )\bprint\b|\bnot screen\b|\bmax-(?:device-)?width\b|\bwidth\s*<", re.IGNORECASE)


_Rule = tuple[tuple[bool, str, bool], tuple[int, ...], list[Any]]  # what is declared, how specific, for what


def hidden_elements(tree: Any, problem: Callable[[int, str], None]) -> dict[Any, str]:
    """What a style keeps from a screen -> the property that does; the more specific, then the later rule holds."""
    import cssselect  # not above: a run without documents needs none
    from lxml.cssselect import CSSSelector

    marked = tree.xpath("//*[@class or @id]")
    known = {name for one in marked for name in (*one.get("class", "").split(), one.get("id", ""))}
    inline: list[Any] = [(one, _declared(one.get("style"))) for one in tree.xpath("//*[@style]")]
    ruled: list[_Rule] = [(said, (1,), [one]) for one, declared in inline for said in declared]
    for sheet in tree.xpath("//style[not(ancestor::noscript)]"):
        for selector, declared in _rules(f"@media {sheet.get('media', '')} {{ {sheet.text or ''} }}"):
            bare = re.sub(r"\[.*?\]|\((?:[^()]|\([^()]*\))*\)", "", selector)
            if not known.issuperset(re.findall(r"[.#]([\w-]++)(?!\\)", bare)):
                continue
            try:
                weight = cssselect.parse(selector)[0].specificity()
                found = CSSSelector(selector, translator="html")(tree)
            except cssselect.SelectorSyntaxError:
                if any(hides for _, _, hides in declared):
                    said = f"{selector!r} in its style sheet hides text and was not understood; delete that text"
                    problem(sheet.sourceline or 0, said)
            except cssselect.SelectorError:  # of a state, such as :focus-within, or of what is no element
                continue
            else:
                ruled += [(said, (0, *weight), found) for said in declared]
    last: dict[str, dict[Any, bool]] = {name: {} for name in _HIDING}
    for (_, name, hides), _, elements in sorted(ruled, key=lambda rule: (rule[0][0], rule[1])):
        last[name] |= dict.fromkeys(elements, hides)
    return {
        element: name
        for name, held in last.items()
        for element, hides in held.items()
        if hides and not (name in _INHERITED and False in map(held.get, element.iterdescendants()))
    }


def _declared(text: str) -> list[tuple[bool, str, bool]]:
    """(important, property, whether it hides) of what a style says about properties that hide."""
    return [
        ("!" in value, name, bool(re.fullmatch(_HIDING[name], value.partition("!")[0].strip())))
        for name, value in re.findall(r"([\w-]+)\s*:\s*([^;]+)", text.lower())
        if name in _HIDING
    ]


def _rules(sheet: str) -> Iterator[tuple[str, list[tuple[bool, str, bool]]]]:
    """Selectors with what is declared for them, where they count on a screen; rules inside rules as well."""
    sheet = re.sub(r"/\*.*?\*/|<!--|-->", " ", sheet, flags=re.DOTALL)
    sheet = re.sub(r"\"[^\"\n]*\"|'[^'\n]*'", lambda quoted: re.sub(r"[{};]", "", quoted[0]), sheet)
    opened: list[tuple[list[str], bool]] = []  # (selectors, whether they count)
    for before, brace in re.findall(r"([^{}]*)([{}])", sheet):
        said, _, head = before.rpartition(";") if brace == "{" else (before, "", "")
        selectors, seen = opened[-1] if opened else ([], True)
        declared = _declared(said)
        if seen and declared:
            yield from ((selector, declared) for selector in selectors)
        if brace == "}":
            del opened[-1:]
        elif "@" in head:
            opened.append((selectors, seen and not all(map(_OFF_SCREEN.search, head.split(",")))))
        else:
            inner = [one.strip() for one in re.split(r",(?![^()]*\))", head)]
            both = (_inside(outer, one) for outer in selectors for one in inner)
            opened.append((list(islice(both, MOST_SELECTORS)) if opened and selectors else inner, seen))


def _inside(outer: str, selector: str) -> str:
    """The selector of a rule inside another one's; "&", which is none, for one that nobody would write out."""
    if len(outer) * selector.count("&") > MOST_SELECTORS:
        return "&"
    return selector.replace("&", outer) if outer and "&" in selector else f"{outer} {selector}".strip()


def texts(element: Any, left: Any) -> Iterator[str]:
    """The texts inside an element, without the elements for which left(element) holds."""
    yield element.text or ""
    for child in element:
        if isinstance(child.tag, str) and not left(child):
            if child.tag in BLOCKS or child.tag == "br":
                yield " "
            yield "".join(texts(child, left))
            if child.tag in BLOCKS:
                yield " "
        yield child.tail or ""


def seen_text(element: Any) -> str:
    return clean("".join(texts(element, lambda one: one.tag in UNSEEN)))


def line_of(element: Any) -> int:
    """The line of an element; of Markdown the one that its parser has noted."""
    line = int(element.sourceline or 1)
    while element is not None:
        noted = element.get("data-line") if isinstance(element.tag, str) else None
        if noted:
            return int(noted)
        element = element.getparent()
    return line


def rows_of(table: Any) -> list[Any]:
    """A table's own rows as a browser shows them: heads first and feet last, wherever they are written."""
    rows = [row for row in table.iter("tr") if next(row.iterancestors("table"), None) is table]
    return sorted(rows, key=lambda row: {"thead": 0, "tfoot": 2}.get(row.getparent().tag, 1))


_BOLD = re.compile(r"font-weight\s*:\s*(?:bold|[6-9]00)", re.IGNORECASE)


def is_bold(row: Any) -> bool:
    """Whether all words of a row without heads of its own are bold, and there are some."""

    def bold(element: Any) -> bool:
        return element.tag in ("b", "strong") or _BOLD.search(element.get("style", "")) is not None

    if row.find("th") is not None or not row.text_content().strip():
        return False
    return bold(row) or not "".join(texts(row, bold)).strip()


_FORMS = {"a": "lowerLetter", "A": "upperLetter", "i": "lowerRoman", "I": "upperRoman"}  # of an attribute `type`
_STYLES = re.compile(r"\b(lower|upper)-?(alpha|latin|roman)\b")  # of a style or a class


def marks_of(listing: Any) -> dict[Any, str]:
    """The items of a list with the numbers that a browser counts for them; "" for a bullet."""
    step = -1 if listing.get("reversed") is not None else 1
    items = [child for child in listing if child.tag == "li"]
    number = whole_number(listing.get("start"), len(items) if step < 0 else 1)
    styled = _STYLES.search(f"{listing.get('style', '')} {listing.get('class', '')}")
    form = _FORMS.get(listing.get("type", ""), "decimal")
    if styled:
        form = styled[1] + ("Roman" if styled[2] == "roman" else "Letter")
    bare = re.search(r"list-style(?:-type)?\s*:\s*none", listing.get("style", ""), re.IGNORECASE)
    marks: dict[Any, str] = {}
    for item in items:
        number = whole_number(item.get("value"), number)
        marks[item] = f"{formed(number, form)}." if listing.tag == "ol" and not bare else ""
        number += step
    return marks


def write_marks(cell: Any) -> None:
    """Writes the numbers of the lists inside a cell into their items, and parts these by signs."""
    for listing in cell.iter("ol", "ul"):
        if next(listing.iterancestors("td", "th"), None) is not cell:
            continue  # of a table inside it
        marks = marks_of(listing)
        for n, (item, mark) in enumerate(marks.items(), start=1):
            item.text = f"{mark} {item.text or ''}"
            whole = item.text_content().rstrip()
            if n < len(marks) and whole and whole[-1] not in ENDS:
                if len(item):
                    item[-1].tail = f"{(item[-1].tail or '').rstrip()};"
                else:
                    item.text = f"{item.text.rstrip()};"


def cells_of(row: Any) -> Iterable[Any]:
    return (cell for cell in row if cell.tag in ("td", "th"))


def whole_number(value: str | None, otherwise: int) -> int:
    return int(value) if value and re.fullmatch(r"-?\d{1,6}", value.strip()) else otherwise
