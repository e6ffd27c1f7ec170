"""A chain of thought by rule for a question that brings none: the words of the clause that answer it, the answer.

Without one, a model that is trained on such questions learns that nothing is said between a clause and an answer.
"""

from __future__ import annotations

import re

from tasks.base import QA
from tasks.chinese import is_chinese
from tasks.values import stands_in, tokenize

WINDOW = 5  # words before a value that are quoted with it
LONGEST = 25  # words of a part that is quoted whole
_PARTS = re.compile(r"(?<=[,.;:?!])\s+|(?<=[，。；：？！])")


def pointed(text: str, shown: str, answer: str = "") -> str:
    """The words of a text up to a value in it, and the answer, where that is other words than the value."""
    before = ""
    for part in _PARTS.split(text[: text.find(shown)]):  # the last part that says something
        before = part if len(part.split()) > 1 or is_chinese(part) else f"{before} {part}"
    if is_chinese(text):
        return f"能回答它的话是“{before.strip()}{shown}”，所以答案是{answer or shown}。"
    words = " ".join((*before.split()[-WINDOW:], shown))
    return f'The words that answer it are "{words}", so the answer is {answer or shown}.'


def chain_of(qa: QA, text: str) -> str:
    """For a question with an answer that a clause's text gives, in these words or others."""
    for form in (qa.answer, *qa.aliases):
        edges = ("", "") if is_chinese(text) else (r"(?<!\w)", r"(?!\w)")  # Chinese words stand unparted
        found = re.search(edges[0] + re.escape(form) + edges[1], text, re.IGNORECASE) if form else None
        if found:
            return pointed(text, found[0], qa.answer)
    asked = set(tokenize(qa.question))
    parts = [part.strip() for part in _PARTS.split(text) if part.strip()]
    holding = [part for part in parts if stands_in(qa.answer, part)]
    part = max(holding or parts or [text], key=lambda part: len(asked & set(tokenize(part))))
    shown = " ".join(part.split()[:LONGEST]).rstrip(",.;:，。；：")
    return pointed(shown, shown, qa.answer)
