"""Clauses that contradict each other: two sentences in the same words with another figure.

A question on such a figure has two answers, unless it names what only one of the two clauses says.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence

from tasks.chinese import is_chinese
from tasks.documents.cutting import Clause, ends_sentence
from tasks.labels import stated
from tasks.similarity import candidate_pairs
from tasks.spelling import NUMBERS
from tasks.validate import content_words
from tasks.values import FIGURES, Item, read, same, stands_in

SAME_WORDS = 0.8  # two sentences say the same but for their figures from this Jaccard similarity on
_HOLDS_FIGURE = re.compile(rf"\d|\b(?:{'|'.join(NUMBERS)})\b", re.IGNORECASE)


def sentences(text: str) -> list[str]:
    """The sentences of a text, English or Chinese; an abbreviation's full stop ends none."""
    if is_chinese(text):
        return [part for part in re.split(r"(?<=[。！？；])\s*", text) if part]
    found: list[str] = []
    for part in re.split(r"(?<=[.!?])\s+", text):
        if found and not ends_sentence(found[-1]):
            found[-1] = f"{found[-1]} {part}"
        else:
            found.append(part)
    return found


class Conflicts:
    """Finds, for a question on one clause, another clause that gives it another answer."""

    def __init__(self, clauses: Sequence[Clause]) -> None:
        said = [(clause, s) for clause in clauses for s in sentences(clause.text) if _HOLDS_FIGURE.search(s)]
        frames = [frozenset(item.text for item in read(s) if item.kind not in FIGURES) for _, s in said]
        self._alike: dict[str, list[tuple[str, Clause, str]]] = defaultdict(list)  # own sentence, other, its one
        for i, j in candidate_pairs(frames, SAME_WORDS):
            (one, first), (two, second) = said[i], said[j]
            if one.id != two.id:
                self._alike[one.id].append((first, two, second))
                self._alike[two.id].append((second, one, first))

    def against(self, clause: Clause, question: str, forms: Collection[str]) -> tuple[Clause, str] | None:
        """(the other clause, its sentence), where the question does not tell the two clauses apart."""
        values = (read(stated(form, question)) for form in forms)
        keys = [items[0] for items in values if len(items) == 1 and items[0].kind in FIGURES]
        for own, other, instead in self._alike.get(clause.id, ()):
            if not any(_holds(own, key) and _has_another(instead, key) for key in keys):
                continue
            if not content_words(question) & (_words_of(clause) - _words_of(other)):
                return other, instead
        return None


def _holds(sentence: str, key: Item) -> bool:
    return any(same(key, item, bounds=False, any_unit=True) for item in read(sentence))


def _has_another(sentence: str, key: Item) -> bool:
    """Has the sentence a value of the key's kind in the place of the key?"""
    figures = [item for item in read(sentence) if item.kind in FIGURES]
    return not _holds(sentence, key) and any(item.unit == key.unit or not key.unit for item in figures)


def _words_of(clause: Clause) -> frozenset[str]:
    return content_words(f"{re.sub(r'[/._-]', ' ', clause.file)} {clause.title} {clause.text}")


def same_answer(one: Collection[str], two: Collection[str]) -> bool:
    """Do two keys, each with its aliases, accept the same?"""
    return any(stands_in(a, b) or stands_in(b, a) for a in one for b in two)
