"""A key that is a label and its value, "Default: 100.", and what an answer must say of it.

The label says which value is meant. An answer may leave it out where the question names it, or where the value is
a figure or yes or no: "100", "The default is 100.", "It defaults to 100". Where the answer gives the value another
label, or the label another value, it says something else: "Maximum: 100", "Default: 200".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from tasks.assertion import denied, key_says
from tasks.spelling import words
from tasks.values import FIGURES, Item, matches, read, same, stands_in

MOST_WORDS = 5  # of a label
_AROUND = r"[\s*_`\"'“”]*"
_LABELLED = re.compile(
    rf"{_AROUND}(?:\[\w+\]\s*)?(?P<label>[^\W\d_][^:：=.,;!?()\n]{{0,60}}?){_AROUND}"
    rf"(?P<sign>:(?=[*_`]*\s)|(?<=[\u4e00-\u9fff]):|：|=){_AROUND}(?P<value>\S.*)",
    re.DOTALL,
)
_ANOTHER = re.compile(r"[^\W\d]:\s|：|=")
_SENTENCE = re.compile(r"(?:^|[.!?;)\]]\s|[。！？；\n])\s*(?:[-*•]\s+)?(?=[^\W\d_])([^.!?;。！？；\n]+(?:\.\d+)*)")
# They tell no label from another: "The value is 100." "Final answer: 100"
EMPTY = frozenset(
    words(
        "a an the value number answer final result amount figure total of for in on at to by with and as or per if"
        " not no yes there what which how many much long when where who whom do doe did can could may must will it"
        " its this that i you we they my your be is are wa were have ha get set note"
    )
) | frozenset("的是为了值在多少什么几个有会答案要可以")
# Different values of one thing; no answer may take one for another.
_ROLES = [
    frozenset({w}) for w in words("default minimum maximum min max lowest highest recommended average initial")
]
_ROLES += [frozenset(w) for w in words("默认 最大 最小 最高 最低 最多 最少 推荐 平均 初始")]
_LINKS = frozenset(words("is are wa be to of at as = value number set it by a currently now 是 为 值 设 成 的"))


class Form(NamedTuple):
    """One way to state a value; its label, () where there is none, must not be contradicted."""

    items: tuple[Item, ...]
    label: tuple[Item, ...] = ()
    alone: bool = True  # right without its label
    bare: bool = False  # numbers that no unit may follow


def parted(form: str) -> tuple[str, str, str] | None:
    """("Default", ":", "100.") of "Default: 100."; None where no label leads a value.

    A label is a few words without a figure; "9:30", "https://..." and "Yes: with a permit" have none.
    """
    match = _LABELLED.match(form)
    if match is None or _ANOTHER.search(match["value"]) or not read(match["value"]):
        return None
    label = read(match["label"])
    plain = all(item.kind == "word" and not item.mark for item in label)
    if not plain or not 0 < len(label) <= MOST_WORDS or key_says(match["label"]) is not None:
        return None
    return match["label"], match["sign"], match["value"]


def _telling(items: Iterable[Item]) -> set[str]:
    return {item.text for item in items} - EMPTY


@lru_cache(maxsize=16384)
def stated(form: str, question: str) -> str:
    """The value of a labelled form that is right without its label; else the form.

    It is where the question names the label, or where a plain label stands before a figure or yes or no. The name
    of a setting or command is told by no figure: "pool_size: 20".
    """
    if (parts := parted(form)) is None:
        return form
    label, sign, value = parts
    named = _telling(read(label)) <= _telling(read(question))
    figure = read(value)[0].kind in FIGURES or key_says(value) is not None
    plain = sign != "=" and not any(item.code for item in read(label))
    return value if named or (figure and plain) else form


@lru_cache(maxsize=16384)
def forms(form: str, question: str) -> tuple[Form, ...]:
    """The ways to state a form, the main one first."""
    whole = Form(read(form))
    if (parts := parted(form)) is None:
        return (whole,)
    alone = stated(form, question) != form
    value = Form(read(parts[2]), read(parts[0]), alone)
    return (value, whole) if alone else (whole, value)


def labelled_in(text: str) -> Iterator[str]:
    """The sentences of a text that are a label and its value."""
    return (said for match in _SENTENCE.finditer(text) if parted(said := match[1].strip()))


def bears(form: Form, items: Sequence[Item], span: tuple[int, int], question: str, others: Iterable[str]) -> bool:
    """May the span of an answer's items stand for the form, as far as labels go?

    others: further forms; a label of theirs in the span's clause is another label, as "maximum" is to "default".
    """
    if not form.label or _linked(form.label, items, span):
        return True
    if not form.alone:
        return False
    own = _telling(form.label) | _telling(read(question))
    clause = items[span[0]].clause
    first = next(n for n, item in enumerate(items) if item.clause == clause)
    if ":" in items[first].mark:
        before = [item for item in items[:first] if item.clause == items[first - 1].clause]
        if _telling(before) and len(before) <= MOST_WORDS and not _telling(before) & own:
            return False
    said = {item.text for item in items if item.clause == clause}
    labels = [_telling(read(parts[0])) for other in others if (parts := parted(other))]
    return not any(label <= said and not label <= own for label in (*labels, *_ROLES) if label)


def _linked(label: Sequence[Item], items: Sequence[Item], span: tuple[int, int]) -> bool:
    """Does the label stand beside the span, link words aside: "the default is 100", "100 by default"?"""
    before, behind = span[0], span[1]
    while before > 0 and items[before - 1].text in _LINKS:
        before -= 1
    while behind < len(items) and items[behind].text in _LINKS:
        behind += 1
    found = matches(label, items, bounds=False)
    return any(end == before or start == behind for start, end in found)


def contradicted(form: Form, items: Sequence[Item], spans: Iterable[tuple[int, int]]) -> bool:
    """Does the answer give the form's label another value: "The default is 200", "Default: legacy"?

    spans: where the value stands in the answer, in any form.
    """
    if not form.label:
        return False
    right = {n for start, end in spans for n in range(start, end)}
    for _, end in matches(form.label, items, bounds=False):
        place = end
        while place < len(items) and items[place].text in _LINKS:
            place += 1
        if place == len(items) or place in right or denied(items, place, place + 1):
            continue
        value, other = form.items[0], items[place]
        told = ":" in items[end].mark
        figures = value.kind in FIGURES and other.kind in FIGURES and other.clause == items[end - 1].clause
        if (told or figures) and not same(value, other, bounds=False, any_unit=True):
            return True
    return False


def gives_away(question: str, value: str) -> bool:
    """Does a question hold the value that it asks for, with its label or without? Yes or no is no value."""
    return key_says(value) is None and any(stands_in(form, question) for form in {value, stated(value, question)})
