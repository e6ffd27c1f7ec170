"""Questions made by rule from a clause's own text, for documents that come without any.

A number with its unit, an amount, a date, a time, a code, a name, or who a rule is about is asked for in a
question of its own (tasks.question_wording); where no rule fits, a gap in the sentence that one word fills. No
question may be answered by another clause too, nor hold its answer. No person has seen these questions: whoever
shows a figure that rests on them says so.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from tasks import rule_questions_zh as zh
from tasks.base import QA, Memory
from tasks.chinese import is_chinese
from tasks.conflicts import sentences
from tasks.documents.cutting import Clause
from tasks.keys import key_problems
from tasks.labels import gives_away
from tasks.question_wording import ask_for_definition, ask_for_fact, ask_for_object, ask_for_subject, has_verb
from tasks.self_cues import self_made_questions
from tasks.validate import content_words, nearly_equal, words
from tasks.values import stands_in

TEST_PER_CLAUSE = 2
GAP = "___"
GAP_WORDS = (8, 7)  # of the sentence, before and behind a gap
ALSO_COVERS = (
    0.8  # a clause answers a question too from this share of the words that the question's own clause has
)
LEAST_ASKED = 3  # content words of a question that goes without the clause's title
MOST_HOLDERS = 3  # clauses with a word that fills a gap: one that many hold can be guessed

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
    r"(?!(?:and|or|on|by|to|of|at|in|for|from|per|before|after|until|with|is|are|a|an|the|as|if|than|that|has|does|goes|this|"
    r"its|unless|less|thus|always|perhaps|towards|across|plus|versus|us|says|means|applies|contains|includes)\b)"
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
_TO_FILL = re.compile(r"(?<![\w/.-])[\w/.+~-]{3,}\w(?![\w/-])")
_ADDRESS = re.compile(r"\S*(?:://|@|\bwww\.)\S*")
_NOUN_BEFORE = re.compile(r"\b(?:an?|the|each|every|of|no|its|their|any|all)\s(?:[a-z-]+\s)?$", re.IGNORECASE)
_NOUN_BEHIND = re.compile(
    r"(?: (?:of|in|to|for|is|are|must|may|should|can|was|on|by|with|from|that|which|as|at|and|or|has|will|if)\b"
    r"|[.,;:)]|$)"
)
_NO_NOUN = re.compile(r"(?:\w+(?:ly|ed|ing|ive|ous|able|ible|ful|less|self|selves|thing|one|body))$")
_FACT = re.compile("|".join(f"(?P<{kind}{n}>{pattern})" for n, (kind, pattern) in enumerate(_KINDS)))
_ASKED = {
    "percentage": "What percentage",
    "amount": "How much",
    "date": "What date",
    "time": "What time",
    "code": "Which code",
    "name": "Who",
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


def title_of(clause: Clause) -> str:
    """The clause's title without its number and the marks that pages put behind it."""
    return re.sub(r"^(?:(?:\d+|[A-Z])(?:\.\d+)*\.?\s+)|[\s¶§#]+$", "", clause.title)


class Draft(NamedTuple):
    """A question that a rule made."""

    question: str
    fact: Fact
    natural: bool  # no gap


class RuleQuestions:
    """Makes the questions of each clause, all clauses in view."""

    def __init__(self, clauses: Sequence[Clause]) -> None:
        self._clauses = list(clauses)
        self._words = [content_words(f"{title_of(clause)} {clause.text}") for clause in clauses]
        self._place = {clause.id: n for n, clause in enumerate(clauses)}
        self._holders: dict[str, list[int]] = defaultdict(list)  # content word -> clauses
        for n, held in enumerate(self._words):
            for word in held:
                self._holders[word].append(n)
        self._text = Counter(word for clause in clauses for word in set(words(clause.text)))

    def make(self, clause: Clause, siblings: Sequence[Clause]) -> list[tuple[str, str, Fact]]:
        """(split, question, fact) of a clause; no question holds its own answer or a sibling's."""
        rivals: dict[str, list[str]] = defaultdict(list)
        for other in siblings:
            for fact in facts(other):
                rivals[fact.slot].append(fact.answer)
        trained = self_made_questions(Memory(clause.id, clause.text, clause.title), limit=10**6)
        test: list[Draft] = []
        dev: list[Draft] = []
        for draft in self._drafts(clause):
            asked, fact = draft.question, draft.fact
            if any(gives_away(asked, value) for value in (fact.answer, *rivals[fact.slot])):
                continue
            if any(nearly_equal(asked, other) for other in (*trained, *(d.question for d in test + dev))):
                continue
            if not stands_in(fact.answer, clause.text) or key_problems(QA("", asked, fact.answer, (clause.id,))):
                continue
            new = all(fact != other.fact for other in test)
            if len(test) < TEST_PER_CLAUSE and new and (draft.natural or not test):
                test.append(draft)
            elif not dev:
                dev.append(draft)
            if len(test) == TEST_PER_CLAUSE and dev:
                break
        return [(split, d.question, d.fact) for split, drafts in (("test", test), ("dev", dev)) for d in drafts]

    def _drafts(self, clause: Clause) -> Iterator[Draft]:
        """Questions in order of preference; drawn by the clause's id alone within one kind."""
        found = facts(clause)
        random.Random(f"facts/{clause.id}").shuffle(found)
        if is_chinese(clause.text):
            yield from self._chinese(clause, found)
            return
        for fact in found:
            question = ask_for_fact(fact.sentence, fact.start, fact.end, fact.asked)
            if question and (asked := self._placed(clause, question)):
                yield Draft(asked, fact, True)
        said = sentences(clause.text)
        for kind, ask in (
            ("definition", ask_for_definition),
            ("object", ask_for_object),
            ("subject", ask_for_subject),
        ):
            yield from self._by_sentence(clause, said, kind, ask)
        found += self._words_to_fill(clause, said)
        for fact in found:
            if _tells(fact) and (asked := self._placed(clause, by_gap(fact))):
                yield Draft(asked, fact, False)

    def _chinese(self, clause: Clause, found: Sequence[Fact]) -> Iterator[Draft]:
        usable = [fact for fact in found if zh.phrases(fact.sentence, fact.start, fact.end)]
        asked = [zh.by_keywords(f.asked, zh.phrases(f.sentence, f.start, f.end), clause.title) for f in usable]
        for fact, question in zip(usable, asked, strict=True):
            if asked.count(question) == 1:
                yield Draft(question, fact, True)
        for fact in usable:
            yield Draft(zh.by_gap(fact.sentence, fact.start, fact.end, GAP, clause.title), fact, False)

    def _by_sentence(
        self, clause: Clause, said: Sequence[str], kind: str, ask: Callable[[str], tuple[str, str] | None]
    ) -> Iterator[Draft]:
        for number, sentence in enumerate(said, start=1):
            asked = ask(sentence)
            if asked is None or clause.text.count(asked[1]) > 1 or self._is_common(asked[1]):
                continue
            place = sentence.find(asked[1])
            question = self._placed(clause, asked[0])
            if question and place >= 0 and not stands_in(asked[1], title_of(clause)):
                yield Draft(question, Fact(f"{kind}{number}", asked[1], "", sentence, place), True)

    def _is_common(self, answer: str) -> bool:
        """Does each content word of the answer stand in so many clauses that it can be guessed?"""
        most = max(MOST_HOLDERS, len(self._clauses) // 20)
        return all(len(self._holders[word]) > most for word in content_words(answer))

    def _words_to_fill(self, clause: Clause, said: Sequence[str]) -> list[Fact]:
        """The rarest words of a clause, one a sentence: technical names before plain nouns."""
        found: list[tuple[int, int, Fact]] = []
        text = clause.text.lower()
        for number, sentence in enumerate(said, start=1):
            addresses = [match.span() for match in _ADDRESS.finditer(sentence)]
            best: tuple[int, int, Fact] | None = None
            for match in _TO_FILL.finditer(sentence):
                word = match.group().rstrip(".,;:")
                plain = word.lower()
                if len(word) < 4 or plain in _FUNCTION_WORDS or text.count(plain) > 1:
                    continue
                if any(start <= match.start() < end for start, end in addresses):
                    continue
                if match.start() == 0 and word.isalpha():
                    continue
                technical = not word.isalpha() or not word[1:].islower() or word[0].isupper()
                holders = max((self._text[part] for part in words(word)), default=0)
                if word[0].isupper() and re.match(r"\s[A-Z]", sentence[match.end() :]):
                    continue  # a part of a name
                if not technical and (_NO_NOUN.match(word) or not _is_noun(sentence, match.start(), len(word))):
                    continue
                entry = (not technical, holders, Fact(f"word{number}", word, "", sentence, match.start()))
                if (best is None or entry[:2] < best[:2]) and not stands_in(word, clause.title):
                    best = entry
            if best:
                found.append(best)
        return [fact for *_, fact in sorted(found, key=lambda entry: entry[:2])]

    def _placed(self, clause: Clause, question: str) -> str | None:
        """The question, with the clause's title where it needs one; None where another clause answers it too."""
        title = title_of(clause)
        named = f'{question[:-1]}, according to "{title}"?' if title and '"' not in title else ""
        for asked in (question, named):
            enough = len(content_words(asked)) >= LEAST_ASKED or (asked == named and content_words(asked))
            if asked and enough and not self._answered_elsewhere(clause, asked):
                return asked
        return None

    def _answered_elsewhere(self, clause: Clause, question: str) -> bool:
        own = self._place[clause.id]
        asked = content_words(question) & self._words[own]
        enough = ALSO_COVERS * len(asked)
        # Who holds that many of the words holds one of the rarest.
        rarest = sorted(asked, key=lambda word: len(self._holders[word]))[: len(asked) - math.ceil(enough) + 1]
        met = set(chain.from_iterable(self._holders[word] for word in rarest)) - {own}
        return any(len(asked & self._words[n]) >= enough for n in met)


def _is_noun(sentence: str, start: int, length: int) -> bool:
    behind = _NOUN_BEHIND.match(sentence, start + length)
    return length > 4 and bool(behind and _NOUN_BEFORE.search(sentence[:start]))


def _tells(fact: Fact) -> bool:
    """Does the sentence say something about its gap, or name it? "Page ___ here" and "Dr. ___, Tel" do not."""
    before, behind = fact.sentence[: fact.start], fact.sentence[fact.end :]
    plain = [word for word in re.findall(r"[^\W\d_]+", f"{before} {behind}") if not word[0].isupper()]
    says = has_verb(f"{before} {behind}") or before.endswith(": ")
    says = says or len(content_words(" ".join(plain))) >= LEAST_ASKED
    return says and len(content_words(fact.sentence)) > LEAST_ASKED


def by_gap(fact: Fact) -> str:
    """`What is missing here: "permanent employees receive ___ of paid holiday"?`"""
    left = fact.sentence[: fact.start].split(" ")
    right = fact.sentence[fact.end :].split(" ")
    window = f"{' '.join(left[-GAP_WORDS[0] - 1 :])}{GAP}{' '.join(right[: GAP_WORDS[1] + 1])}"
    said = re.sub(r"[\"“”]", "", window).strip(" .!?;,:").replace(" ,", ",")
    what = "Which word is missing" if fact.slot.startswith("word") else "What is missing"
    return f'{what} in "{said}"?'
