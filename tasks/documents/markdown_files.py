"""Markdown, parsed by markdown-it-py and read as the page that it becomes.

What only looks like markup is text: `<user>` is no element of HTML, `2*3*4` no emphasis, and an element that is
never closed was not meant as one.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from tasks.documents.builder import Builder
from tasks.documents.form import Document, names
from tasks.documents.html_files import read_page
from tasks.documents.text_files import read_lines

_TAG = re.compile(r"<(/?)([a-zA-Z][\w:-]*)((?:\s[^<>]*)?)(/?)>")
_ADDRESS = re.compile(r"^$|[#@\\]|/(?!\d)|^[a-zA-Z][\w+.-]+:|\.[a-zA-Z]")  # or a path
_OPEN = names("br hr img wbr input p li td th tr dt dd option")  # need no end
_ELEMENTS = _OPEN | names(
    """
    a abbr article aside b bdi bdo big blockquote button caption center cite code col colgroup dd
    del details dfn div dl dt em figcaption figure font footer form h1 h2 h3 h4 h5 h6 header i ins
    kbd label li main mark nav ol option p pre q rp rt ruby s samp script section select small span
    strike strong style sub summary sup svg table tbody td tfoot th thead time title tr tt u ul var
    """
)


def read_markdown(path: Path, file: str) -> Document:
    """A Markdown file; places are its lines."""
    from markdown_it import MarkdownIt

    built = Builder(file)
    lines: list[str] = []
    for number, line in read_lines(path, file, built.problems):
        lines += [""] * (number - 1 - len(lines)) + [line]
    lines = _without_front_matter(lines, built)
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    found: dict[str, Any] = {}
    parser.parse("\n".join(lines), found)
    lines, targets = _without_definitions(lines, found, built)
    tokens = parser.parse("\n".join(lines), {"references": targets})
    if _keep_cells(lines, tokens):
        tokens = parser.parse("\n".join(lines), {"references": targets})
    counted = _keep_numbers(tokens)
    for token in tokens:
        if token.map and token.nesting >= 0:
            token.attrSet("data-line", str(token.map[0] + 1))
        if token.type == "inline":
            token.children = _plain_emphasis(token.children or [])
            _escape_unpaired([child for child in token.children if child.type == "html_inline"])
    _escape_unpaired([token for token in tokens if token.type == "html_block"])
    built.raw.append(
        _raw([re.sub(r"\d+", "", line, count=1) if n in counted else line for n, line in enumerate(lines)])
    )
    read_page(parser.renderer.render(tokens, parser.options, {}), built)
    return built.document()


def _without_front_matter(lines: list[str], built: Builder) -> list[str]:
    """Blanks a YAML head between two lines of three dashes, so that line numbers stay."""
    if lines and lines[0].strip() == "---":
        for end, line in enumerate(lines[1:60], start=1):
            if line.strip() in ("---", "..."):
                built.problem(1, f"its head of {end + 1} lines (front matter) is not read as text")
                built.raw.append("\n".join(lines[:end]))
                built.leave("front matter", " ".join(lines[:end]))
                return [""] * (end + 1) + lines[end + 1 :]
            if line.strip() and not re.match(r"\s*(?:[\w-]+\s*:|-\s|#)", line):
                break
    return lines


def _without_definitions(
    lines: Sequence[str], found: dict[str, Any], built: Builder
) -> tuple[list[str], dict[str, Any]]:
    """(the lines without those that say where a link leads, targets by label); a footnote of one word is text."""
    lines, targets = list(lines), found.get("references", {})
    again = ((target["label"], target) for target in found.get("duplicate_refs", ()))
    for label, target in (*targets.items(), *again):
        begin, end = target["map"]
        if label.startswith("^"):
            lines[begin] = lines[begin].replace("[", "\\[", 1)
            continue
        if not _ADDRESS.search(target["href"]):
            built.raw.append(" ".join(lines[begin:end]))
            built.leave("definitions of links", built.raw[-1])
        lines[begin:end] = [""] * (end - begin)
    return lines, {label: target for label, target in targets.items() if not label.startswith("^")}


def _keep_cells(lines: list[str], tokens: Sequence[Any]) -> bool:
    """Joins the cells that a row has beyond its table's heads to the last one, bars of code first; whether any."""
    changed = False
    for token in tokens:
        if token.type != "table_open" or token.level:
            continue
        begin, end = token.map
        wanted = len(_cells(lines[begin]))
        for n in range(begin + 2, end):
            whole = lines[n]
            if len(_cells(whole)) > wanted:
                whole = re.sub(r"(`+)[^`]+\1", lambda code: re.sub(r"(?<!\\)\|", r"\\|", code[0]), whole)
            cells = _cells(whole)
            if len(cells) > wanted:
                whole = "|".join([*cells[: wanted - 1], r"\|".join(cells[wanted - 1 :])])
                whole = f"|{whole}|"
            changed, lines[n] = changed or whole != lines[n], whole
    return changed


def _cells(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", re.sub(r"^\s*\||(?<!\\)\|\s*$", "", line))


def _keep_numbers(tokens: Sequence[Any]) -> set[int]:
    """Gives items the numbers that were typed, where these rise; returns the lines of those that a page counts."""
    counted: set[int] = set()
    lists: list[list[Any]] = []
    for token in tokens:
        if token.type in ("ordered_list_open", "bullet_list_open"):
            lists.append([])
        elif token.type == "list_item_open":
            lists[-1].append(token)
        elif token.type in ("ordered_list_close", "bullet_list_close"):
            items = lists.pop()
            numbers = [int(item.info) for item in items if item.info]
            if any(one >= two for one, two in pairwise(numbers)):
                counted.update(item.map[0] for item in items)
                continue
            for item in items:
                if item.info:
                    item.attrSet("value", item.info)
    return counted


def _plain_emphasis(children: Sequence[Any]) -> list[Any]:
    """Emphasis inside a word or a name (`2*3*4`, `__init__.py`) turned back into the signs that were typed."""
    children = list(children)
    open_at: list[int] = []
    for n, token in enumerate(children):
        if token.type in ("em_open", "strong_open"):
            open_at.append(n)
        elif token.type in ("em_close", "strong_close") and open_at:
            begin = open_at.pop()
            before = children[begin - 1].content[-1:] if begin and children[begin - 1].type == "text" else ""
            behind = children[n + 1].content if n + 1 < len(children) and children[n + 1].type == "text" else ""
            inside = _is_ascii_word(before) and _is_ascii_word(behind[:1])
            name = token.markup == "__" and re.match(r"\.\w|\w|\(", behind)
            if inside or name:
                for one in (children[begin], token):
                    one.type, one.tag, one.nesting, one.content = "text", "", 0, one.markup
    return children


def _is_ascii_word(letter: str) -> bool:
    return letter.isascii() and letter.isalnum()


def _escape_unpaired(tokens: Sequence[Any]) -> None:
    """Turns tags that are no elements, or that are opened and never closed, back into text."""
    seen: dict[tuple[str, bool], int] = {}
    for token in tokens:
        for close, name, _, _ in _TAG.findall(token.content):
            key = (name.lower(), bool(close))
            seen[key] = seen.get(key, 0) + 1

    def kept(match: re.Match[str]) -> str:
        name = match[2].lower()
        paired = seen.get((name, True), 0) and seen.get((name, False), 0)
        return match.group() if name in _OPEN or (name in _ELEMENTS and paired) else html.escape(match.group())

    for token in tokens:
        token.content = _TAG.sub(kept, token.content)


def _raw(lines: Sequence[str]) -> str:
    """The words of the source without the targets of links, the names of code and the tags of HTML."""
    text = "\n".join(lines)
    text = re.sub(r"<!--.*?-->", " ", text, flags=re.DOTALL)
    text = re.sub(r"(?m)^\s*(```+|~~~+).*$", " ", text)
    text = re.sub(r"!\[[^\]]*\]\([^()]*(?:\([^()]*\)[^()]*)*\)", " ", text)
    text = re.sub(r"\]\([^()\n]*(?:\([^()\n]*\)[^()\n]*)*\)|\]\[[^\]\n]*\]", "] ", text)
    text = _TAG.sub(lambda tag: " " if tag[2].lower() in _ELEMENTS else tag.group(), text)
    return html.unescape(text)
