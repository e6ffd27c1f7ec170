"""Where every word of a file went: into clauses, into a named part that is left out, or nowhere.

The file's text is read a second time by simpler means (`Document.raw`), and its words are looked up in what the
cutter made of the first reading. What is found nowhere was lost, and is said.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tasks.chinese import split_characters
from tasks.documents.cutting import Clause, Cut
from tasks.documents.form import Document, Problem

MOST_LOST = 0.001  # share of a file's characters that may be missing without a line that says so
IN_CLAUSES = "in clauses"
_HYPHEN = re.compile(r"(?<=[^\W\d_])[-\u2010\u2011]\s*(?=[^\W\d_])")
_WORD = re.compile(r"[^\W_]+|[%€$£¥°§±≤≥]")


@dataclass(frozen=True)
class Account:
    """Characters (letters, digits, signs of money and measure) of one file: visible = sum of parts + lost."""

    file: str
    visible: int
    parts: tuple[tuple[str, int], ...]  # where they are -> how many; IN_CLAUSES first
    lost: int
    lost_words: tuple[str, ...] = ()
    num_pictures: int = 0

    def __str__(self) -> str:
        listed = " + ".join(f"{count:,} {kind}" for kind, count in self.parts if count or kind == IN_CLAUSES)
        missing = f" + {self.lost:,} not found" if self.lost else ""
        pictures = f"; {self.num_pictures} pictures not read" if self.num_pictures else ""
        return f"{self.file}: {self.visible:,} characters = {listed}{missing}{pictures}"

    def problem(self) -> Problem | None:
        """The line that says that text is missing, where more than MOST_LOST of it is."""
        if self.lost <= MOST_LOST * self.visible:
            return None
        words = ", ".join(map(repr, self.lost_words[:8]))
        said = (
            f"{self.lost:,} of its {self.visible:,} characters stand in no clause and in no part left out: {words}"
        )
        return Problem(self.file, 0, "line", f"{said}; compare the clauses with the file")


def words(text: str) -> Counter[str]:
    """Words and numbers, each with how often it stands there; ligatures and cases folded."""
    text = unicodedata.normalize("NFKC", text).lower().replace("\u00ad", "")
    text = _HYPHEN.sub("", text)  # at a line's end nobody can tell whether the word has it
    return Counter(_WORD.findall(split_characters(text)))


def accounts(documents: Sequence[Document], pieces: Cut) -> Iterator[Account]:
    """The account of each document against what was cut from all of them."""
    found: dict[str, dict[str, list[Clause]]] = defaultdict(lambda: defaultdict(list))
    for kind, clauses in (
        (IN_CLAUSES, pieces.clauses),
        ("exact duplicates", [clause for clause, _ in pieces.duplicates]),
        ("too short", pieces.too_short),
        ("too long", pieces.too_long),
    ):
        for clause in clauses:
            found[clause.file][kind].append(clause)
    for document in documents:
        yield _account(document, found[document.file])


def _account(document: Document, cut: dict[str, list[Clause]]) -> Account:
    texts = {IN_CLAUSES: [section.title for section in document.sections]}
    for kind, clauses in cut.items():
        texts.setdefault(kind, []).extend(clause.text for clause in clauses)
    for left in document.left:
        texts.setdefault(left.kind, []).append(left.text)
    missing = words(document.raw)
    visible, source = _size(missing), frozenset(missing)
    parts: list[tuple[str, int]] = []
    spare: dict[str, Counter[str]] = {}
    for kind, held in texts.items():
        there = words(" ".join(held))
        taken = missing & there
        missing -= taken
        spare[kind] = there - taken
        parts.append((kind, _size(taken)))
    counts = dict(parts)
    made = frozenset(words(" ".join(text for held in texts.values() for text in held)))
    for kind, others in spare.items():  # words that one of the two readings parts and the other does not
        counts[kind] += _size(_tiled(missing, others, source, made))
    return Account(
        file=document.file,
        visible=visible,
        parts=tuple(counts.items()),
        lost=_size(missing),
        lost_words=tuple(sorted(missing, key=len, reverse=True)),
        num_pictures=sum(left.kind == "pictures" for left in document.left),
    )


def _size(counts: Counter[str]) -> int:
    return sum(len(word) * count for word, count in counts.items())


def _tiled(
    missing: Counter[str], others: Counter[str], source: frozenset[str], made: frozenset[str]
) -> Counter[str]:
    """Takes out of `missing` what consists of words in `others`, or makes one of them up; returns it.

    source, made: the words of both readings; of what a word consists, one piece has to be without its match.
    """
    taken: Counter[str] = Counter()
    for word in list(missing):
        while missing[word] > 0 and (pieces := _tiling(word, others, made)):
            others.subtract(pieces)
            missing[word] -= 1
            taken[word] += 1
    for word in list(others) if +missing else ():
        while others[word] > 0 and (pieces := _tiling(word, missing, source)):
            missing.subtract(pieces)
            others[word] -= 1
            taken.update(pieces)
    for word in [word for word, count in missing.items() if count <= 0]:
        del missing[word]
    return taken


def _tiling(word: str, pieces: Counter[str], known: frozenset[str]) -> list[str]:
    """Those of `pieces` that make up a word together with known words; [] where they do not."""
    found: list[str] = []
    used: Counter[str] = Counter()
    begin = 0
    while begin < len(word):
        ends = range(len(word) - (begin == 0), begin, -1)
        end = next((end for end in ends if pieces[word[begin:end]] > used[word[begin:end]]), 0)
        if end:
            found.append(word[begin:end])
            used[word[begin:end]] += 1
        else:
            end = next((end for end in ends if end - begin > 1 and word[begin:end] in known), 0)
            if not end and word[begin].isdigit():
                end = begin + 1
        if not end:
            return []
        begin = end
    return found


def problems(found: Iterable[Account]) -> list[Problem]:
    """A line for each file that lost text."""
    return [problem for account in found if (problem := account.problem()) is not None]
