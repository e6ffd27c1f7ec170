"""What a document becomes: sections of passages; and plain text read in bounded memory, cleaned and checked."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MAX_LINE_BYTES = 1_000_000  # a longer line is left out; it is never held in memory
MAX_TEXT_BYTES = 64_000_000  # of one file; more is no document that a person wrote
HEAD_BYTES = 8192  # where a binary file gives itself away
BINARY = "holds a NUL byte: it is binary, no text; save it as text"
ENDS = ".!?:;,…。！？：；，"  # a passage that ends otherwise gets a full stop, so that clauses read as sentences

Unit = Literal["line", "page", "paragraph"]


@dataclass(frozen=True)
class Problem:
    """Something about a file that a person should know."""

    file: str  # relative to the folder
    place: int  # line, page or paragraph; 0: the file as a whole
    unit: Unit
    said: str  # what it is and the fix, without the place

    def __str__(self) -> str:
        if not self.place:
            return f"{self.file}: {self.said}"
        where = f":{self.place}" if self.unit == "line" else f", {self.unit} {self.place}"
        return f"{self.file}{where}: {self.said}"


@dataclass(frozen=True)
class Passage:
    """A paragraph, a list item or a table row, on one line."""

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
    file: str
    sections: tuple[Section, ...]
    problems: tuple[Problem, ...] = ()
    num_pages: int = 0  # PDF only


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


def clean(text: str) -> str:
    """One line of NFC text: white space collapsed, invisible, control and private-use characters dropped."""
    text = unicodedata.normalize("NFC", text.translate(_BLANK))
    text = "".join(" " if unicodedata.category(c) in ("Cc", "Co", "Zl", "Zp", "Zs") else c for c in text)
    return " ".join(text.split())


def read_lines(path: Path, file: str, problems: list[Problem]) -> Iterator[tuple[int, str]]:
    """(line number, text) of a UTF-8 file, or a UTF-16 one with its mark, in bounded memory a line.

    A line over MAX_LINE_BYTES is left out and named. Raises Unreadable at a NUL byte or a wrong encoding.
    """
    size = 0
    with path.open("rb") as handle:
        head = handle.read(HEAD_BYTES)
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            yield from _utf16_lines(path)
            return
        if b"\0" in head:  # before a line of it is taken for text in another encoding
            raise Unreadable(BINARY, 1 + head[: head.index(0)].count(b"\n"))
        handle.seek(0)
        number = 0
        while line := handle.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
                length = len(line)
                while line and not line.endswith(b"\n"):
                    line = handle.readline(MAX_LINE_BYTES)
                    length += len(line)
                said = f"a line of {length / 1e6:.1f} MB was left out; break it into lines below 1 MB"
                problems.append(Problem(file, number, "line", said))
                continue
            size += len(line)
            if size > MAX_TEXT_BYTES:
                raise Unreadable(f"holds more than {MAX_TEXT_BYTES // 10**6} MB of text; split it", number)
            if b"\0" in line:
                raise Unreadable(BINARY, number)
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                byte = f"byte 0x{line[error.start]:02x}"
                raise Unreadable(f"is not UTF-8 ({byte}); save the file as UTF-8", number) from error
            for part in re.split(r"\r(?!$)", text.rstrip("\r\n")):
                yield number, part


def _utf16_lines(path: Path) -> Iterator[tuple[int, str]]:
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise Unreadable(f"is larger than {MAX_TEXT_BYTES // 10**6} MB; split it and save it as UTF-8")
    try:
        text = path.read_bytes().decode("utf-16")
    except UnicodeDecodeError as error:
        raise Unreadable("is not whole UTF-16; save the file as UTF-8") from error
    yield from enumerate(text.replace("\r\n", "\n").split("\n"), start=1)


class Builder:
    """Collects headings and passages of one file in reading order."""

    def __init__(self, file: str, unit: Unit = "line") -> None:
        self.file, self.unit = file, unit
        self.problems: list[Problem] = []
        self._path: list[tuple[int, str]] = []  # open headings: (level, text)
        self._parts: list[tuple[tuple[tuple[int, str], ...], list[Passage]]] = [((), [])]

    def problem(self, place: int, said: str) -> None:
        self.problems.append(Problem(self.file, place, self.unit, said))

    def heading(self, level: int, text: str) -> None:
        text = clean(text).rstrip(":. ").replace("\ufffd", "")
        if text:
            self._path = [entry for entry in self._path if entry[0] < level] + [(level, text)]
            self._parts.append((tuple(self._path), []))

    def passage(self, text: str, place: int) -> None:
        text = clean(text)
        if "\ufffd" in text or any(unicodedata.category(c) == "Cs" for c in text):
            said = "holds the mark of a failed decoding and was left out; mend the text and save it as UTF-8"
            self.problem(place, said)
        elif text:
            self._parts[-1][1].append(Passage(text if text[-1] in ENDS else f"{text}.", place))

    def document(self, num_pages: int = 0) -> Document:
        """The file's sections. Raises Unreadable where nothing is left to read."""
        paths = {path for path, passages in self._parts if passages}
        # A single heading above all others is the document's name, and no news in each title.
        name = next(iter(paths))[:1] if paths and len(paths) > 1 else ()
        shared = name if name and all(path[:1] == name for path in paths) else ()
        sections = []
        for path, passages in self._parts:
            if passages:
                own = path[len(shared) :] or path
                title = ", ".join(text for _, text in own[-2:]) or name_of(self.file)
                sections.append(Section(self.file, title, tuple(passages), self.unit))
        if not sections:
            raise nothing_left(self.problems, "text")
        return Document(self.file, tuple(sections), tuple(self.problems), num_pages)


def name_of(file: str) -> str:
    return clean(re.sub(r"[-_.]+", " ", Path(file).stem)) or file


def row_text(header: Sequence[str], cells: Sequence[str]) -> str:
    """A table row as text: `Site: Cork, Amount: 31 euros`."""
    cells = [clean(cell) for cell in cells]
    names = [clean(name) for name in header] + [""] * len(cells)
    parts = [
        f"{name}: {cell}" if name and name != cell else cell for name, cell in zip(names, cells, strict=False)
    ]
    return ", ".join(part for part, cell in zip(parts, cells, strict=True) if cell)


NUMBERED = re.compile(r"(?:§\s*)?(\d{1,2}(?:\.\d{1,2})*)\.?\s+[^\W\d_]")


def heading_level(line: str) -> int:
    """Level of a plain-text line that looks like a heading, 0 for one that does not."""
    words = line.split()
    if not words or len(words) > 10 or len(line) > 70 or line[-1] in ENDS:
        return 0
    numbered = NUMBERED.match(line)
    if numbered:
        return 1 + numbered[1].count(".")
    return 1 if line[0].isupper() and (line.isupper() or len(words) <= 8) else 0


BULLET = re.compile(r"\s*(?:[-*•‣·–]|\(?[a-z\d]{1,2}[.)])\s+")
