"""A chain of thought by rule for a question that brings none: what the clause says to it, the answer.

Without one, a model that is trained on such questions learns that nothing is said between a clause and an answer.
"""

from __future__ import annotations

import re

from tasks.base import QA
from tasks.chinese import is_chinese
from tasks.values import stands_in, tokenize

LONGEST = 25  # words of a part that is quoted whole
_PARTS = re.compile(r"(?<=[,.;:?!])\s+|(?<=[，。；：？！])")


def said(text: str, shown: str, answer: str) -> str:
    """What a text says at one place, and the answer, be it in these words or in others."""
    if is_chinese(text):
        return f"条文写着{shown}，所以答案是{answer}。"
    return f"The rule says {shown}, so the answer is {answer}."


def chain_of(qa: QA, text: str) -> str:
    """For a question with an answer that a clause's text gives, in these words or others."""
    for form in (qa.answer, *qa.aliases):
        edges = ("", "") if is_chinese(text) else (r"(?<!\w)", r"(?!\w)")  # Chinese words stand unparted
        found = re.search(edges[0] + re.escape(form) + edges[1], text, re.IGNORECASE) if form else None
        if found:
            return said(text, found[0], qa.answer)
    asked = set(tokenize(qa.question))
    parts = [part.strip() for part in _PARTS.split(text) if part.strip()]
    holding = [part for part in parts if stands_in(qa.answer, part)]
    part = max(holding or parts or [text], key=lambda part: len(asked & set(tokenize(part))))
    shown = " ".join(part.split()[:LONGEST]).rstrip(",.;:，。；：")
    return said(text, shown, qa.answer)
