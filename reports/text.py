"""Text from clauses, questions and models, made safe to show.

Clause text is data: it may hold table bars, HTML, `$` (mathematics on GitHub), backticks, newlines,
terminal escapes or right-to-left marks that reorder the cells beside them. Everything that reports/
prints goes through here, so that a report shows what a record holds and nothing more.
"""

from __future__ import annotations

import re
import unicodedata

# Invisible or reordering characters are shown by their number. U+200D (joins emoji) and variation
# selectors stay: without them emoji fall apart.
_HIDDEN = frozenset(
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u2060\ufeff"
    + "".join(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]))
)
_NEWLINES = re.compile(r"\s*(?:\r\n|[\n\r\v\f\x85\u2028\u2029])\s*")
_BREAKS = re.compile(r"\r\n|[\r\v\f\x85\u2028\u2029]")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;", "|": "&#124;"}
_BACKSLASHED = frozenset("\\`*_[]#~")
_ISOLATE, _POP = "\u2068", "\u2069"  # first-strong isolate: right-to-left words cannot move neighbours


def one_line(text: str, limit: int | None = None) -> str:
    """`text` on one line, with nothing in it that a terminal or a browser would act on.

    Newlines become ` ↵ `, control and invisible characters are shown as `⟨U+202E⟩`, lone surrogates
    as U+FFFD (they cannot be written as UTF-8), right-to-left words are isolated. Longer than `limit`
    characters: cut, with an ellipsis.
    """
    text = _NEWLINES.sub(" ↵ ", text.strip()).replace("\t", " ")
    if limit is not None and len(text) > limit:
        text = text[: max(limit - 1, 0)].rstrip() + "…"
    shown = "".join(_visible(char) for char in text)
    if any(unicodedata.bidirectional(char) in ("R", "AL") for char in shown):
        return f"{_ISOLATE}{shown}{_POP}"
    return shown


def _visible(char: str) -> str:
    if char in _HIDDEN or unicodedata.category(char) == "Cc":
        return f"⟨U+{ord(char):04X}⟩"
    return "\ufffd" if unicodedata.category(char) == "Cs" else char


def visible(text: str, limit: int | None = None) -> str:
    """`text` with its lines kept and nothing hidden in it, for an element whose direction is its own.

    Control and invisible characters and lone surrogates are shown as in `one_line`; nothing is escaped
    and right-to-left words are not isolated, which is the page's part (autoescape, dir="auto").
    """
    text = _BREAKS.sub("\n", text.strip())
    if limit is not None and len(text) > limit:
        text = text[: max(limit - 1, 0)].rstrip() + "…"
    return "".join(char if char in "\n\t" else _visible(char) for char in text)


def md(text: str, limit: int | None = None) -> str:
    """`text` as literal Markdown on one line: safe in a sentence, a list item and a table cell.

    HTML, mathematics and table bars become entities, which hold in every dialect; the rest of
    Markdown's punctuation is backslashed. Rendered, it reads exactly as `one_line(text)`.
    """
    return "".join(
        _ENTITIES.get(char) or (f"\\{char}" if char in _BACKSLASHED else char) for char in one_line(text, limit)
    )


def md_table(header: list[str], rows: list[list[str]], right: frozenset[int] = frozenset()) -> str:
    """A GitHub table. Cells are Markdown already (see `md`); `right` numbers the right-aligned columns.

    Raises ValueError where a row is not as long as the header: a table never loses a cell silently.
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"table row {row!r} has {len(row)} cells, the header {header!r} has {len(header)}")
    rule = ["---:" if column in right else "---" for column in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, rule, *rows])


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "—": "---",
    "–": "--",
    "…": r"\ldots{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}


def latex(text: str) -> str:
    """`text` as literal LaTeX on one line. Letters that fonts lack (beyond Latin) are shown as [U+1F98A]."""

    def shown(char: str) -> str:
        if char in (_ISOLATE, _POP):
            return ""
        return _LATEX.get(char) or (char if ord(char) < 0x180 else f"[U+{ord(char):04X}]")

    return "".join(map(shown, one_line(text)))


def redact(uri: str) -> str:
    """A tracking address without the user and password that it may hold."""
    return re.sub(r"^([\w+.-]+://)[^/]*@", r"\1", uri)
