"""Self-made cues in Chinese: the same rule as for English text, a fact replaced by its question."""

from __future__ import annotations

import re

from tasks.base import Memory
from tasks.chinese import HAN, is_chinese

BEFORE_A_NAME = "由与向给找是经过为电告交的"  # no word ends are marked: a name begins behind one of these
# A clock time, a date, a code, a name with a middle dot, or a number with what it counts.
_FACT = re.compile(
    r"(?P<clock>\d{1,2}:\d{2})"
    r"|(?P<date>\d{1,2}月\d{1,2}[日号])"
    r"|(?P<code>[A-Z]+-?\d+)"
    rf"|(?<=[{BEFORE_A_NAME}])(?P<name>(?:(?![{BEFORE_A_NAME}])[{HAN}]){{1,5}}·[{HAN}]{{2,3}})(?=[，。；、]|$)"
    rf"|(?P<number>\d[\d.,]*)(?P<unit>个?[{HAN}]{{1,2}})"
)
_ASKED = {"clock": "几点", "date": "几月几日", "code": "什么编号", "name": "谁"}


def _asked(match: re.Match[str]) -> str:
    """What stands in the fact's place: "27天" -> "多少天"."""
    return f"多少{match['unit']}" if match["number"] else _ASKED[str(match.lastgroup)]


def chinese_questions(memory: Memory) -> list[str]:
    """Questions by rule from a Chinese clause's own text; none for a text in another script.

    "员工每年享有27天年假。" titled "年假，长期员工" -> "年假，长期员工：员工每年享有多少天年假？"
    """
    if not is_chinese(memory.text):
        return []
    found = []
    for sentence in re.split(r"(?<=[。！？；])\s*", memory.text):
        for match in _FACT.finditer(sentence):
            if match.start() == 0 or match.group() in memory.title:
                continue
            blank = (sentence[: match.start()] + _asked(match) + sentence[match.end() :]).rstrip("。！？； ")
            found.append(f"{memory.title}：{blank}？" if memory.title else f"{blank}？")
    return found
