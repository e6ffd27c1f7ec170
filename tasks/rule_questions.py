"""Questions made by rule from a clause's own text, for documents that come without any.

A number with its unit, an amount, a date, a time, a code or a name is asked for by the words around it, under
the clause's title. No person has seen these questions: whoever shows a figure that rests on them says so.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tasks import rule_questions_zh as zh
from tasks.chinese import is_chinese
from tasks.conflicts import sentences
from tasks.cutting import Clause
from tasks.validate import words
from tasks.values import stands_in

TEST_PER_CLAUSE = 2
MAX_PHRASES = 3  # of the words around a fact, the nearest runs
GAP = "___"

_FUNCTION_WORDS = frozenset(
    words(
        """
        a about above after again all also although an and any are as at be because been before being below between
        both but by can cannot could did do does during each either every few for from had has have he her here
        hers him his how i if in into is it its least less let like many may me might mine more most much must my
        near neither no nor not of off on once one only onto or other our ours out over own per rather same shall
        she should since so some such than that the their them then there these they this those though through to
        too two three four five six seven eight nine ten eleven twelve twenty thirty under unless until up upon us
        very via was we were what when where whether which while who whom whose why will with within without would
        yet you your eur usd gbp chf am pm
        """
    )
)
_MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_CURRENCY = r"(?:€|\$|£|EUR|USD|GBP|CHF|[Ee]uros?|[Dd]ollars?|[Pp]ounds?|[Ff]rancs?)"
_NUMBER = r"\d(?:[\d.,]*\d)?"
_COUNT = (
    "(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|fifty|sixty|ninety)"
)
_NO_UNIT = (
    r"(?!(?:and|or|on|by|to|of|at|in|for|from|per|before|after|until|with|is|are|a|an|the|as|if|than|that)\b)"
)
_SYMBOL = (
    "(?:km/h|[mcdk]?m[²³]?|[mk]?g|[mc]?l|[mk]?W|kWh|[mk]?V|m?A|[kMG]?Hz|m?bar|Nm|rpm|[kMGT]B|°C|°F|dB|h|min"
    "|people|feet)"
)
_KINDS = (
    ("percentage", rf"\b{_NUMBER}\s?(?:%|per\s?cent\b)"),
    ("amount", rf"(?<!\w){_CURRENCY}\s?{_NUMBER}(?!\w)|\b{_NUMBER}\s?{_CURRENCY}(?!\w)"),
    ("date", rf"\b\d{{1,2}}(?:st|nd|rd|th)? {_MONTH}(?: \d{{4}})?\b|\b{_MONTH} \d{{1,2}}(?:, \d{{4}})?\b"),
    ("date", r"\b\d{4}-\d{2}-\d{2}\b"),
    ("time", r"\b\d{1,2}:\d{2}(?:\s?(?:am|pm|h))?\b(?![.,:]?\d)|\b\d{1,2}(?:[:.]\d{2})?\s?(?:am|pm)\b"),
    ("code", r"\b[A-Z]{1,4}-?\d{2,}[A-Z\d-]*\b"),
    ("unit", rf"\b(?:{_NUMBER}|{_COUNT})\s+{_NO_UNIT}(?P<unit>{_SYMBOL}|[a-z][a-z-]+s)(?![\w/-])"),
    ("name", r"\b[A-Z][a-z]+(?:\s[A-Z][a-z]+)+\b"),
)
_FACT = re.compile("|".join(f"(?P<{kind}{n}>{pattern})" for n, (kind, pattern) in enumerate(_KINDS)))
_ASKED = {
    "percentage": "What percentage",
    "amount": "What amount",
    "date": "Which date",
    "time": "What time",
    "code": "Which code",
    "name": "Which name",
}


@dataclass(frozen=True)
class Fact:
    """Something that a clause states and that can be asked for."""

    slot: str  # "days", "name2": what it is, counted within the clause, so that siblings' facts meet
    answer: str
    asked: str  # "How many days"
    sentence: str
    start: int  # of the answer in the sentence

    @property
    def end(self) -> int:
        return self.start + len(self.answer)


def facts(clause: Clause) -> list[Fact]:
    """The facts that stand once in the clause and not in its title, in order."""
    found: list[Fact] = []
    counts: Counter[str] = Counter()
    chinese = is_chinese(clause.text)
    for sentence in sentences(clause.text):
        for name, answer, asked, start in zh.facts_in(sentence) if chinese else _facts_in(sentence):
            counts[name] += 1
            slot = name if counts[name] == 1 else f"{name}{counts[name]}"
            if stands_in(answer, clause.title) or clause.text.count(answer) > 1:
                continue
            found.append(Fact(slot, answer, asked, sentence, start))
    return found


def _facts_in(sentence: str) -> Iterator[tuple[str, str, str, int]]:
    """(kind or unit, answer, what asks for it, where it begins) of each fact."""
    for match in _FACT.finditer(sentence):
        kind = str(match.lastgroup).rstrip("0123456789")
        unit = match["unit"]
        if kind == "name" and match.start() == 0:
            continue  # the capital may be the sentence's own
        name = unit.lower().replace("/", " per ") if unit else kind
        yield name, match.group(), f"How many {unit}" if unit else _ASKED[kind], match.start()


def phrases(fact: Fact) -> list[str]:
    """Runs of content words around the fact: the nearest MAX_PHRASES, in the text's order."""
    if is_chinese(fact.sentence):
        return zh.phrases(fact.sentence, fact.start, fact.end)
    runs: list[tuple[int, int, str]] = []  # distance to the fact, place, the run
    for offset, part in ((0, fact.sentence[: fact.start]), (fact.end, fact.sentence[fact.end :])):
        run: list[str] = []
        begin = 0
        for match in re.finditer(r"[\w'’-]+|[^\w\s'’-]", f"{part} ."):
            word = match.group()
            plain = re.fullmatch(r"[^\W\d_][^\W\d_'’-]*(?:['’-][^\W\d_]+)*", word)
            if plain and len(word) > 1 and word.lower() not in _FUNCTION_WORDS and len(run) < 4:
                begin = begin if run else offset + match.start()
                run.append(word)
            elif run:
                distance = fact.start - begin if begin < fact.start else begin - fact.end
                runs.append((distance, begin, " ".join(run)))
                run = []
    nearest = sorted(runs)[:MAX_PHRASES]
    return [run for _, _, run in sorted(nearest, key=lambda entry: entry[1])]


def by_keywords(fact: Fact, title: str) -> str:
    """`How many days does "Annual holiday" state for employees receive, paid holiday and calendar year?`"""
    if is_chinese(fact.sentence):
        return zh.by_keywords(fact.asked, phrases(fact), title)
    *first, last = phrases(fact) or ["this"]
    listed = f"{', '.join(first)} and {last}" if first else last
    where = f'"{title}"' if title else "the text"
    return f"{fact.asked} does {where} state for {listed}?"


def by_gap(fact: Fact, title: str) -> str:
    """`From "Annual holiday", what belongs in the gap: permanent employees receive ___ of paid holiday`"""
    if is_chinese(fact.sentence):
        return zh.by_gap(fact.sentence, fact.start, fact.end, GAP, title)
    left = fact.sentence[: fact.start].split()[-7:]
    right = fact.sentence[fact.end :].split()[:7]
    where = f'From "{title}", what' if title else "What"
    return f"{where} belongs in the gap: {' '.join([*left, GAP, *right]).rstrip(' .!?;,').replace(' ,', ',')}?"


def draw(clause: Clause) -> tuple[list[Fact], list[Fact]]:
    """(facts asked for in test, facts asked for in dev), drawn by the clause's id alone."""
    usable = [fact for fact in facts(clause) if phrases(fact)]
    asked = Counter(by_keywords(fact, clause.title).lower() for fact in usable)
    usable = [fact for fact in usable if asked[by_keywords(fact, clause.title).lower()] == 1]  # else ambiguous
    unique = list({fact.answer.lower(): fact for fact in reversed(usable)}.values())
    random.Random(f"facts/{clause.id}").shuffle(unique)
    firsts = {fact.sentence: fact for fact in reversed(unique)}  # another sentence asks in other words
    unique.sort(key=lambda fact: firsts[fact.sentence] is not fact)
    test, rest = unique[:TEST_PER_CLAUSE], unique[TEST_PER_CLAUSE:]
    return test, (rest or test)[:1]


def make(clause: Clause, siblings: Sequence[Clause]) -> list[tuple[str, str, Fact]]:
    """(split, question, fact) of a clause; no question holds its own answer or a sibling's."""
    test, dev = draw(clause)
    made = [("test", by_keywords(fact, clause.title), fact) for fact in test]
    made += [("dev", by_gap(fact, clause.title), fact) for fact in dev]
    values = {
        fact.slot: [f.answer for other in siblings for f in facts(other) if f.slot == fact.slot]
        for fact in test + dev
    }
    return [
        (split, question, fact)
        for split, question, fact in made
        if not any(stands_in(value, question) for value in (fact.answer, *values[fact.slot]))
    ]
