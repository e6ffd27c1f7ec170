"""What the elements of a page are: blocks, navigation, hidden parts, the main part, footnotes; and their words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from html.parser import HTMLParser
from typing import Any

from tasks.documents.form import clean, names

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


_HIDING = {  # property -> its values that hide
    "visibility": r"hidden|collapse",
    "opacity": r"0*\.?0+%?",
    "font-size": r"0*\.?0+(?:px|pt|r?em|%)?",
    "left": r"-(?:\d{4,}px|\d{3,}r?em)",
    "display": r"none",
}
_INHERITED = ("visibility", "font-size")  # what stands inside may be seen again
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
            bare = re.sub(r"\[.*?\]|\(.*?\)", "", selector)
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
    """Selectors with what is declared for them, where they count on a screen."""
    opened: list[str] = []
    for before, brace in re.findall(r"([^{}]*)([{}])", re.sub(r"/\*.*?\*/|<!--|-->", " ", sheet, flags=re.DOTALL)):
        if brace == "{":
            opened.append(before.rpartition(";")[2])
        elif opened:
            selectors = opened.pop().split(",")
            seen = all("@" in one and not all(map(_OFF_SCREEN.search, one.split(","))) for one in opened)
            declared = _declared(before)
            if seen and declared:
                yield from ((selector.strip(), declared) for selector in selectors)


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


def rows_of(table: Any) -> Iterator[Any]:
    for row in table.iter("tr"):
        if next(row.iterancestors("table"), None) is table:
            yield row


def cells_of(row: Any) -> Iterable[Any]:
    return (cell for cell in row if cell.tag in ("td", "th"))


def whole_number(value: str | None, otherwise: int) -> int:
    return int(value) if value and re.fullmatch(r"-?\d{1,6}", value.strip()) else otherwise
