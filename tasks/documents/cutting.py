"""Cuts sections into clauses of about 25 to 80 words that end where a sentence ends.

Whole passages are packed into that range; one that is longer is parted between sentences by
semantic-text-splitter, which counts in a unit that the caller defines, gives back positions in the text, is
written in Rust, kept up, and needs nothing else. (langchain-text-splitters cuts by separators without a least
length and draws in langchain-core; chonkie wants a tokenizer; syntok and pysbd find sentences and leave the
packing to the caller.) Its sentences are Unicode's, which end after "Dr." as well, so pieces that were parted
inside a sentence are joined again here; a single sentence that is longer than the range stays whole.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from tasks.chinese import split_characters
from tasks.documents.form import Problem, Section, Unit
from tasks.documents.passages import LEAST_WORDS, ends_sentence, num_words
from tasks.similarity import candidate_pairs, components

CLAUSE_WORDS = (25, 80)
MOST_WORDS = 240  # one sentence of more is a list or a table without stops, and no clause
NEAR_DUPLICATE = 0.6  # clauses with this share of common words (numbers aside) are siblings ...
MAX_FAMILY = 8  # ... unless so many are that it is a form, and not a choice
_MARK = re.compile(
    r"(?:^|[:;,.]\s)[(\[]?(?:\d{1,3}(?:\.\d{1,3})*|[A-Za-z]|[ivx]{2,4})[.)\]]$"
)  # "2." or "(a)" that a piece ends with


@dataclass(frozen=True)
class Clause:
    """A piece of a document that is remembered as one."""

    id: str  # file and heading, or the row's own id; the same whatever else lies in the folder
    text: str
    title: str
    file: str
    place: int  # line, page or paragraph where it begins
    unit: Unit = "line"
    family: str = ""  # clauses that are nearly the same share one
    variant: str = ""  # what its title has that those of the others have not

    @property
    def where(self) -> str:
        return str(Problem(self.file, self.place, self.unit, "")).removesuffix(": ")


@dataclass(frozen=True)
class Cut:
    """Pieces cut = clauses + duplicates + too short + too long."""

    clauses: tuple[Clause, ...]
    duplicates: tuple[tuple[Clause, Clause], ...]  # (left out, the one that says the same)
    too_short: tuple[Clause, ...]
    too_long: tuple[Clause, ...] = ()
    notes: tuple[Problem, ...] = ()  # row ids that could not be kept


def pieces(text: str, starts: Sequence[int] = (0,)) -> list[tuple[int, str]]:
    """(offset, piece) of a text, pieces within CLAUSE_WORDS where sentences allow it.

    starts: offsets at which a passage begins; one of at most CLAUSE_WORDS[1] words is never parted.
    """
    least, most = CLAUSE_WORDS
    spans: list[tuple[int, int]] = []  # start, end
    for first, behind in pairwise([*starts, len(text)]):
        whole = text[first:behind].rstrip()
        if not whole.strip():
            continue
        small = num_words(whole) <= most
        for start, end in [(first, first + len(whole))] if small else _sentences(text, first, first + len(whole)):
            if spans:
                held, added = num_words(text[slice(*spans[-1])]), num_words(text[start:end])
                fits = num_words(text[spans[-1][0] : end]) <= most
                if fits and (held < least or added < least // 2):
                    spans[-1] = (spans[-1][0], end)
                    continue
            spans.append((start, end))
    return [(start, text[start:end]) for start, end in spans]


def _sentences(text: str, begin: int, behind: int) -> list[tuple[int, int]]:
    """(start, end) of the pieces of a long passage; each ends with a sentence, and none with a list mark."""
    from semantic_text_splitter import TextSplitter

    spans: list[tuple[int, int]] = []
    for start, chunk in TextSplitter.from_callback(num_words, CLAUSE_WORDS).chunk_indices(text[begin:behind]):
        start += begin
        end = start + len(chunk)
        if spans:
            first, last = spans[-1]
            if not ends_sentence(text[first:last]) or _MARK.search(text[begin:last]):
                spans[-1] = (first, end)
                continue
        spans.append((start, end))
    return spans


def slug(text: str) -> str:
    """Lower-case words joined by hyphens, at most 60 characters, letters of any script."""
    return "-".join(re.findall(r"[^\W_]+", text.lower()))[:60].strip("-")


def cut(sections: Iterable[Section]) -> Cut:
    """All clauses, with exact duplicates and crumbs set apart and near duplicates joined into families."""
    kept: list[Clause] = []
    duplicates: list[tuple[Clause, Clause]] = []
    too_short: list[Clause] = []
    too_long: list[Clause] = []
    seen: dict[str, Clause] = {}
    counts: Counter[str] = Counter()
    row_ids: dict[str, str] = {}  # id -> file
    notes: list[Problem] = []
    ids: set[str] = set()
    for section in sections:
        starts, offset = [], 0
        for passage in section.passages:
            starts.append(offset)
            offset += len(passage.text) + 2
        found = pieces("\n\n".join(passage.text for passage in section.passages), starts)
        base = f"{section.file}#{slug(section.title)}".rstrip("#")
        if section.row_id and section.row_id in row_ids:
            said = f"its id {section.row_id!r} is used in {row_ids[section.row_id]} too, so it is called {base!r}"
            notes.append(Problem(section.file, section.passages[0].place, section.unit, said))
        elif section.row_id:
            row_ids[section.row_id] = section.file
            base = section.row_id
        for start, piece in found:
            counts[base] += 1
            while (name := base if counts[base] == 1 else f"{base}.{counts[base]}") in ids:
                counts[base] += 1
            ids.add(name)
            text = " ".join(piece.split())
            passage = section.passages[bisect.bisect_right(starts, start) - 1]
            clause = Clause(
                id=name,
                text=text,
                title=section.title,
                file=section.file,
                place=passage.place,
                unit=section.unit,
            )
            key = " ".join(re.findall(r"[^\W_]+", text.lower()))
            if key in seen:
                duplicates.append((clause, seen[key]))
            elif num_words(f"{section.title} {text}") < LEAST_WORDS:
                too_short.append(clause)
            elif num_words(text) > MOST_WORDS:
                too_long.append(clause)
            else:
                seen[key] = clause
                kept.append(clause)
    return Cut(_with_families(kept), tuple(duplicates), tuple(too_short), tuple(too_long), tuple(notes))


def _with_families(clauses: Sequence[Clause]) -> tuple[Clause, ...]:
    """Near duplicates share a family, named after the first; each variant is what sets its title apart."""
    texts = (split_characters(clause.text.lower()) for clause in clauses)
    plain = [frozenset(re.findall(r"[^\W\d_]+", text)) for text in texts]
    pairs = list(candidate_pairs(plain, NEAR_DUPLICATE))
    result = list(clauses)
    for group in components(len(clauses), pairs):
        if len(group) > MAX_FAMILY:
            continue
        variants = _variants([clauses[n].title for n in group])
        for n, variant in zip(group, variants, strict=True):
            result[n] = replace(clauses[n], family=f"near {clauses[group[0]].id}", variant=variant)
    return tuple(result)


def _variants(titles: Sequence[str]) -> list[str]:
    """What is left of each title without the words that all begin and end with; "" where titles repeat."""
    split = [title.replace("，", "， ").split() for title in titles]
    if len(set(titles)) < len(titles):
        return [""] * len(titles)
    shortest = min(map(len, split))
    front = next((n for n in range(shortest) if len({words[n] for words in split}) > 1), shortest)
    rest = [words[front:] for words in split]
    shortest = min(map(len, rest))
    back = next((n for n in range(shortest) if len({words[-1 - n] for words in rest}) > 1), shortest)
    return [" ".join(words[: len(words) - back]).strip(" ,:;，") for words in rest]
