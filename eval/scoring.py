"""What scores an answer against a key or a text: *correct* (`tasks.keys`), and the measures beside it.

Exact match and token F1 are SQuAD's (Rajpurkar et al. 2016, arXiv:1606.05250), over the values and words of
`tasks.values`, so that "EUR 1,500", "1500 euros" and "one thousand five hundred euros" are one value.
"""

from __future__ import annotations

import unicodedata
from collections import Counter

from tasks.abstention import is_abstention
from tasks.base import QA
from tasks.chinese import has_chinese
from tasks.keys import ScoringError, abstains, asserts_key, check_key, held_values, is_correct
from tasks.labels import stated
from tasks.values import matches, normalise, read, tokenize

__all__ = [
    "ScoringError",
    "abstains",
    "asserts_key",
    "exact_match",
    "held_values",
    "is_abstention",
    "is_correct",
    "normalise",
    "overlap_f1",
    "recites",
    "spans",
    "token_f1",
    "tokenize",
    "verbatim",
]


def spans(needle: str, haystack: str) -> list[tuple[int, int]]:
    """Where a value stands in a text, whatever bound is before it: [start, end) among the text's items."""
    return matches(read(needle), read(haystack), bounds=False)


def exact_match(final: str, qa: QA) -> float:
    """1.0 where the whole answer equals the key or an alias as values. SQuAD's EM, arXiv:1606.05250.

    Unanswerable: 1.0 where it abstains, as in SQuAD 2.0.
    """
    check_key(qa)
    if not qa.memory_ids:
        return float(is_abstention(final))
    items = read(final)
    return float(any(matches(read(value), items) == [(0, len(items))] for value in _stated(qa)))


def token_f1(final: str, qa: QA) -> float:
    """Harmonic mean of token precision and recall against the key, best over aliases, in [0, 1].

    SQuAD's F1, arXiv:1606.05250. Unanswerable: 1.0 where it abstains, as in SQuAD 2.0.
    """
    check_key(qa)
    if not qa.memory_ids:
        return float(is_abstention(final))
    return max(overlap_f1(final, value) for value in _stated(qa))


def _stated(qa: QA) -> tuple[str, ...]:
    """The key and its aliases, and their values without a label ("Default: 100") that need not be said."""
    forms = (qa.answer, *qa.aliases)
    return (*forms, *(stated(form, qa.question) for form in forms))


def overlap_f1(left: str, right: str) -> float:
    """Token F1 of two texts after normalisation, in [0, 1]."""
    a, b = tokenize(left), tokenize(right)
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b)) if common else 0.0


_PUNCTUATION = str.maketrans({"。": ".", "、": ",", "“": '"', "”": '"', "「": '"', "」": '"', "‘": "'", "’": "'"})


def folded(text: str) -> str:
    """The text without white space, full-width forms and Chinese punctuation in their half-width form."""
    return "".join(unicodedata.normalize("NFKC", text.translate(_PUNCTUATION)).split())


def verbatim(text: str, memory_text: str) -> bool:
    """Is the text the memory's text, character by character, whitespace runs and ends aside?

    In Chinese all whitespace is put aside, and the width of characters and punctuation. Raises ScoringError
    where the memory has no text.
    """
    _check_text(memory_text)
    if has_chinese(memory_text):
        return folded(text) == folded(memory_text)
    return " ".join(text.split()) == " ".join(memory_text.split())


def recites(think: str, memory_text: str) -> bool:
    """Does the memory's text stand in the think, character by character, whitespace runs aside?

    Chinese text is compared as by `verbatim`. Raises ScoringError where the memory has no text.
    """
    _check_text(memory_text)
    if has_chinese(memory_text):
        return folded(memory_text) in folded(think)
    return " ".join(memory_text.split()) in " ".join(think.split())


def _check_text(memory_text: str) -> None:
    if not memory_text.strip():
        raise ScoringError("the memory has no text to compare with")
