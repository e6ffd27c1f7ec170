"""The one form that every kind of file becomes: headings, paragraphs, list items and table rows, in order.

A reader hands each of these to a Builder (tasks.documents.builder), names what it leaves out, and gives the file's
whole text, read by another way, as `raw`: tasks.documents.accounting compares the two, so that nothing is lost in
silence.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ENDS = ".!?:;,…。！？：；，"  # what ends otherwise gets a full stop, so that clauses read as sentences

Unit = Literal["line", "page", "paragraph", "row"]
Kind = Literal["heading", "paragraph", "item", "row"]


@dataclass(frozen=True)
class Problem:
    """Something about a file that a person should know."""

    file: str  # relative to the folder
    place: int  # line, page, paragraph or row; 0: the file as a whole
    unit: Unit
    said: str  # what it is and the fix, without the place

    def __str__(self) -> str:
        if not self.place:
            return f"{self.file}: {self.said}"
        where = f":{self.place}" if self.unit == "line" else f", {self.unit} {self.place}"
        return f"{self.file}{where}: {self.said}"


@dataclass(frozen=True)
class Block:
    """One thing on a page, on one line."""

    kind: Kind
    text: str
    place: int  # line, page or paragraph of the file, from 1
    level: int = 1  # of a heading, from 1; depth of a list item, from 1
    mark: str = ""  # the number that stands before it, or that Word or a browser counts: "2.1", "(a)"
    sure: bool = True  # heading: the file says so; otherwise it only looks like one

    @property
    def whole(self) -> str:
        return f"{self.mark} {self.text}".strip()


@dataclass(frozen=True)
class Left:
    """A part of a file that is not read as text, on purpose."""

    kind: str  # "navigation", "hidden text", ...
    text: str  # its words; "" for a picture


@dataclass(frozen=True)
class Passage:
    """What is never parted but between its sentences: a paragraph, a row, a list with its opening words."""

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
    """A file as it was read."""

    file: str
    sections: tuple[Section, ...]
    problems: tuple[Problem, ...] = ()
    num_pages: int = 0  # PDF only
    raw: str = ""  # its whole text, read by another way than the sections
    left: tuple[Left, ...] = ()


class Unreadable(Exception):
    """A file that cannot be used: the reason with the fix, and the line or page where it shows."""

    def __init__(self, said: str, place: int = 0) -> None:
        super().__init__(said)
        self.place = place


def nothing_left(problems: Sequence[Problem], what: str) -> Unreadable:
    """Why a file gave nothing: its first problem and their number."""
    if not problems:
        return Unreadable(f"holds no {what}; write some or remove it")
    first = min(problems, key=lambda problem: problem.place)
    more = f" ({len(problems)} such places, and nothing else in the file)" if len(problems) > 1 else ""
    return Unreadable(f"{first.said}{more}", first.place)


def reason_of(error: BaseException) -> str:
    return clean(str(error))[:120] or type(error).__name__


# Soft hyphen, zero widths, and what turns the direction of the text behind it.
_BLANK = dict.fromkeys([*map(ord, "\u00ad\u061c\u200b\u200c\u200d\u200e\u200f\u2060\ufeff")])
_BLANK |= dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)])
_BLANK |= {0xFB00 + n: letters for n, letters in enumerate(("ff", "fi", "fl", "ffi", "ffl", "st", "st"))}


def clean(text: str) -> str:
    """One line of NFC text: white space collapsed, ligatures parted, invisible and control characters dropped."""
    text = unicodedata.normalize("NFC", text.translate(_BLANK))
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(c) in ("Cc", "Co", "Cs", "Zl", "Zp", "Zs") else c for c in text)
    return " ".join(text.split())


def raised(before: str, text: str) -> str:
    """Raised letters as they can be typed: `10^6` behind a number, `m2` behind anything else."""
    return f"^{text}" if before[-1:].isdigit() and text[:1].isdigit() else text


def names(text: str) -> frozenset[str]:
    """The words of a listing."""
    return frozenset(text.split())


def name_of(file: str) -> str:
    return clean(re.sub(r"[-_.]+", " ", Path(file).stem)) or file
