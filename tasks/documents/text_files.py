"""Plain text: its encoding, its lines in bounded memory, and what is a heading, a list or a paragraph of it."""

from __future__ import annotations

import codecs
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.documents.builder import Builder
from tasks.documents.form import ENDS, Document, Problem, Unreadable
from tasks.documents.line_joining import joined, vocabulary
from tasks.documents.text_tables import table_of

MAX_LINE_BYTES = 1_000_000  # a longer line is left out; it is never held in memory
MAX_TEXT_BYTES = 64_000_000  # of one file; more is no document that a person wrote
HEAD_BYTES = 8192  # where a binary file gives itself away
CHUNK_BYTES = 1 << 20
BINARY = "holds a NUL byte: it is binary, no text; save it as text"
# What Western European text in Windows' encoding has beside ASCII.
_LETTERS = frozenset("ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûüŸŠšŽžŒœ")
_SIGNS = frozenset("€‚„…†‡‰‹›‘’“”•–—™¡¢£§©ª«¬®°±²³´µ¶·¹º»¼½¾¿×÷\u00a0")
MOST_FOREIGN = 0.2  # share of such letters among all; with more it is another encoding

# ------------------------------------------------------------------------------------------ encodings


def encoding_of(path: Path) -> str:
    """`utf-8`, `utf-16` or, where the bytes are plausible in it, `cp1252`. Raises Unreadable for others."""
    with path.open("rb") as handle:
        head = handle.read(HEAD_BYTES)
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return "utf-16"
        if len(head) > 3 and head[1::2].count(0) > 0.7 * len(head[1::2]) and 0 not in head[::2]:
            return "utf-16-le"
        if b"\0" in head:  # before a line of it is taken for text in another encoding
            raise Unreadable(BINARY, 1 + head[: head.index(0)].count(b"\n"))
        decoder, lines, chunk = codecs.getincrementaldecoder("utf-8")(), 0, head
        while True:
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                if _is_western(path):
                    return "cp1252"
                place = 1 + lines + error.object[: error.start].count(b"\n")
                byte = f"byte 0x{error.object[error.start]:02x}"
                raise Unreadable(f"is not UTF-8 ({byte}); save the file as UTF-8", place) from error
            if not chunk:
                return "utf-8"
            lines += chunk.count(b"\n")
            chunk = handle.read(CHUNK_BYTES)


def _is_western(path: Path) -> bool:
    """Whether the bytes make sense in Windows' Western European encoding."""
    if path.stat().st_size > MAX_TEXT_BYTES:
        return False
    try:
        text = path.read_bytes().decode("cp1252")
    except UnicodeDecodeError:
        return False
    foreign = [c for c in text if c > "\x7f"]
    letters = sum(c in _LETTERS for c in foreign)
    plain = sum(c.isascii() and c.isalpha() for c in text)
    known = all(c in _LETTERS or c in _SIGNS for c in foreign)
    return known and letters <= MOST_FOREIGN * (letters + plain)


def read_lines(path: Path, file: str, problems: list[Problem]) -> Iterator[tuple[int, str]]:
    """(line number, text) of a text file, in bounded memory a line where it is UTF-8.

    A line over MAX_LINE_BYTES is left out and named, and so is another encoding than UTF-8. Raises Unreadable
    at a NUL byte or where no encoding fits.
    """
    encoding = encoding_of(path)
    if encoding != "utf-8":
        text = read_whole(path, encoding)
        said = f"was read in the encoding {encoding}; save it as UTF-8 if letters look wrong"
        problems.append(Problem(file, 0, "line", said))
        yield from enumerate(re.split(r"\r\n|\r|\n", text), start=1)
        return
    size = number = 0
    with path.open("rb") as handle:
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
            decoded = line.decode("utf-8-sig" if number == 1 else "utf-8")
            for part in re.split(r"\r(?!$)", decoded.rstrip("\r\n")):
                yield number, part


def read_whole(path: Path, encoding: str) -> str:
    """A file's text in an encoding. Raises Unreadable where it is too large or in another one."""
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise Unreadable(f"is larger than {MAX_TEXT_BYTES // 10**6} MB; split it and save it as UTF-8")
    try:
        return path.read_bytes().decode(encoding)
    except LookupError as error:
        raise Unreadable(f"is not in the charset {encoding!r} that it names; save it as UTF-8") from error
    except UnicodeDecodeError as error:
        said = (
            "is not whole UTF-16" if encoding == "utf-16" else f"is not in the charset {encoding!r} that it names"
        )
        raise Unreadable(f"{said}; save the file as UTF-8") from error


# ------------------------------------------------------------------------------------------ headings

PAGE_NUMBER = re.compile(r"(?:page\s*)?[-–]?\s*(?:\d+|[ivxl]+)\s*(?:(?:of|/)\s*\d+)?\s*[-–]?", re.IGNORECASE)
NUMBERED = re.compile(r"(?:§\s*)?(\d{1,2}(?:\.\d{1,2})*)\.?\s+[^\W\d_]")


def heading_level(line: str) -> int:
    """Level of a plain-text line that looks like a heading, 0 for one that does not."""
    words = line.split()
    if not words or len(words) > 10 or len(line) > 70 or line[-1] in ENDS:
        return 0
    if PAGE_NUMBER.fullmatch(line) and not line.isalpha():  # "IV" may name a chapter
        return 0
    numbered = NUMBERED.match(line)
    if numbered:
        return 1 + numbered[1].count(".")
    return 1 if line[0].isupper() and (line.isupper() or len(words) <= 8) else 0


# --------------------------------------------------------------------------------------------- lists

BULLET = re.compile(r"\s*[-*+•‣·–◦▪●○■□➢]\s+(?=\S)")
_MARK = re.compile(r"\s*(\(?)(\d{1,3}|[a-z]|[ivx]{2,5})([.)])\s+(?=\S)", re.IGNORECASE)


@dataclass(frozen=True)
class _Mark:
    shape: str  # what all marks of one list share: "(a)", "1."
    value: int
    text: str  # as it stands there
    end: int  # of the mark in the line


def _mark(line: str) -> _Mark | None:
    found = _MARK.match(line)
    if not found:
        return None
    before, sign, behind = found.groups()
    if sign.isdigit():
        kind, value = "1", int(sign)
    elif len(sign) == 1:
        kind, value = "a" if sign.islower() else "A", ord(sign.lower()) - ord("a") + 1
    else:
        kind, value = (
            "i",
            ("ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x").index(sign.lower()) + 2
            if (sign.lower() in ("ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x"))
            else 0,
        )
    return _Mark(f"{before}{kind}{behind}", value, found.group().strip(), found.end())


def list_starts(lines: Sequence[str], breaks: frozenset[int]) -> dict[int, tuple[str, int]]:
    """Line -> (its mark, where its text begins) of each line that begins a list item.

    A mark alone is none ("... not later than / 3. May"): the number before it or behind it has to stand in the
    same list, and a line that goes on with an unfinished one needs that neighbour in its own block.
    breaks: lines before which a block ends.
    """
    numbers: list[int] = []  # of the block that each line stands in
    for n in range(len(lines)):
        numbers.append((numbers[-1] if numbers else 0) + (n in breaks))
    marks = {n: mark for n, line in enumerate(lines) if (mark := _mark(line))}
    for n, mark in marks.items():  # "i)" before "ii)" is a number, before "j)" a letter
        if mark.text.strip("().") in ("i", "I"):
            roman = mark.shape.replace("a", "i").replace("A", "i")
            below = [marks[m] for m in range(n + 1, n + 40) if m in marks]
            if any(other.shape == roman and other.value == 2 for other in below):
                marks[n] = _Mark(roman, 1, mark.text, mark.end)
    bullets = {n: match for n, line in enumerate(lines) if (match := BULLET.match(line))}
    num_bullets = Counter(numbers[n] for n in bullets)
    found: dict[int, tuple[str, int]] = {}
    by_shape: dict[str, list[int]] = {}
    for n, mark in marks.items():
        by_shape.setdefault(mark.shape, []).append(n)

    def free(n: int) -> bool:
        """Whether the line before has ended, so that a mark can begin here."""
        return n == 0 or n in breaks or lines[n - 1].rstrip()[-1:] in ENDS or n - 1 in bullets

    for places in by_shape.values():
        for at, n in enumerate(places):
            near = [*places[max(0, at - 3) : at], *places[at + 1 : at + 4]]
            near = [m for m in near if abs(marks[m].value - marks[n].value) == 1]
            if any(numbers[m] == numbers[n] or (free(n) and free(m)) for m in near):
                found[n] = (marks[n].text, marks[n].end)
    for n, match in bullets.items():
        same = num_bullets[numbers[n]] > 1
        is_sign = match.group().strip() in "-+*–·"  # which may be a minus or a dash as well
        alone = is_sign and lines[n][match.end() : match.end() + 1].isdigit() and not same
        if not alone and (free(n) or same):
            found[n] = ("", match.end())
    return found


# ---------------------------------------------------------------------------------------------- text


def read_text(path: Path, file: str) -> Document:
    """Plain text: blocks between blank lines; a short line of its own above a block is a heading."""
    built = Builder(file)
    places, lines, breaks = list[int](), list[str](), set[int]()
    blank = False
    for number, line in read_lines(path, file, built.problems):
        built.raw.append(line)
        if not line.strip():
            blank = True
            continue
        if blank:
            breaks.add(len(lines))
        blank = False
        places.append(number)
        lines.append(line)
    starts = list_starts(lines, frozenset(breaks))
    known = vocabulary(lines)
    edges = [0, *sorted(breaks - {0}), len(lines)]
    for begin, end in itertools.pairwise(edges):
        begin = _table(built, lines, places, begin, end, starts)
        begin = _heading(built, lines, places, begin, end, starts)
        _text_block(built, lines, places, range(begin, end), starts, known)
    return built.document()


def _table(
    built: Builder,
    lines: Sequence[str],
    places: Sequence[int],
    begin: int,
    end: int,
    starts: dict[int, tuple[str, int]],
) -> int:
    """Takes the table that a block is, behind its opening words; returns where the rest of it begins."""
    if any(n in starts for n in range(begin, end)):
        return begin
    opens = begin < end and lines[begin].rstrip().endswith(":")
    found = table_of(lines[begin + opens : end])
    if found is None:
        return begin
    if opens:
        built.paragraph(lines[begin], places[begin])
    for n, cells in found[1]:
        built.row(found[0], cells, places[begin + opens + n])
    return end


def _heading(
    built: Builder,
    lines: Sequence[str],
    places: Sequence[int],
    begin: int,
    end: int,
    starts: dict[int, tuple[str, int]],
) -> int:
    """Takes the heading that a block begins with; returns where the rest of it begins."""
    if begin == end:
        return end
    line = lines[begin].strip()
    if end > begin + 1 and re.fullmatch(r"\s*[=\-~_*]{3,}\s*", lines[begin + 1]):
        built.heading(1 if "=" in lines[begin + 1] else 2, line, places[begin])
        return begin + 2
    if re.match(r"#{1,6}\s", line):
        built.heading(len(line) - len(line.lstrip("#")), line.lstrip("# "), places[begin])
        return begin + 1
    if end == begin + 1 and end < len(lines) and begin not in starts:
        level = heading_level(line)
        if level:
            built.heading(level, line, places[begin], sure=False)
            return end
    return begin


def _text_block(
    built: Builder,
    lines: Sequence[str],
    places: Sequence[int],
    block: range,
    starts: dict[int, tuple[str, int]],
    known: frozenset[str],
) -> None:
    """The lines of a block as one paragraph, list items apart."""
    text, place, mark, depth = "", 0, "", 0
    indents: list[int] = []

    def flush() -> None:
        nonlocal text
        if text and depth:
            built.item(text, place, mark, depth)
        else:
            built.paragraph(text, place)
        text = ""

    for n in block:
        line = lines[n]
        if re.fullmatch(r"\s*[=\-~_*]{3,}\s*", line):
            continue
        if n in starts:
            flush()
            mark, end = starts[n]
            indent = len(line) - len(line.lstrip())
            indents = [one for one in indents if one < indent] + [indent]
            depth = len(indents)
            line = line[end:]
        if not text:
            place = places[n]
        text = joined(text, line, known)
    flush()
