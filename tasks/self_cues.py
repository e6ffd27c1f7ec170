"""Training questions by rule from a clause's own text, for clauses that nobody asked anything about.

They lead to the clause and no further: an answer picked by rule would teach to name any fact at hand.
"""

from __future__ import annotations

import random
import re

from tasks.base import Memory
from tasks.chinese import is_chinese
from tasks.self_cues_zh import chinese_questions

# A number with the word it counts, or a name of two capitalised words: what a question may ask for.
# "box 41 by 15:35" counts nothing: a preposition or a conjunction is no unit.
_NO_UNIT = r"(?!(?:and|or|on|by|to|of|at|in|for|from|per|before|after|until|with|is|are|a|an|the)\b)"
_FACT = re.compile(
    r"\b\d(?:[\d.,:]*\d)?(?:(?:st|nd|rd|th)\b|\s+(?:per\s+cent|" + _NO_UNIT + r"[a-z]+))?"
    r"|\b[A-Z][a-z]+(?:\s[A-Z][a-z]+)+\b"
)


def self_made_questions(memory: Memory, limit: int) -> list[str]:
    """A fact replaced by its question, under the title; at most `limit`, the same ones every time.

    "Staff receive 31 euros a day." titled "Meals, Cork" -> "Meals, Cork: staff receive how many euros a day?"
    """
    found = chinese_questions(memory)
    for sentence in () if is_chinese(memory.text) else re.split(r"(?<=[.!?])\s+", memory.text):
        for match in _FACT.finditer(sentence):
            fact = match.group()
            if match.start() == 0 or fact in memory.title:
                continue
            unit = fact.partition(" ")[2]
            asked = f"how many {unit}" if unit and fact[0].isdigit() else "what"
            blank = (sentence[: match.start()] + asked + sentence[match.end() :]).rstrip(".!? ")
            found.append(f"{memory.title}: {blank[0].lower() + blank[1:]}?" if memory.title else f"{blank}?")
    return found if len(found) <= limit else random.Random(memory.id).sample(found, limit)
