"""From the rows of a public data set to a sound task: placing, splitting, and dropping with a reason.

An adapter turns each row into one outcome. What follows is the same for every set: the key must stand in one
clause and not in its question, no question may be asked twice, and none may be nearly a training question.
Rows read = rows used + rows dropped, by reason; the task's notes say so.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tasks.base import (
    NO_CLAUSE_ANSWER,
    NO_CLAUSE_THINK,
    QA,
    Conversation,
    Memory,
    Message,
    Split,
    TaskData,
    assistant_content,
)
from tasks.documents.cutting import pieces
from tasks.handbook import rivals_of
from tasks.hub_cards import Card
from tasks.similarity import candidate_pairs
from tasks.synthetic import unknown_questions
from tasks.think_sft import sft_corpus
from tasks.validate import (
    COVERED_OVERLAP,
    LEAST_IN_COMMON,
    MIN_CONTENT_WORDS,
    content_words,
    nearly_equal,
    odd_characters,
    words,
)
from tasks.values import stands_in

FAMILY = 3  # neighbouring clauses of a document count as near misses, in threes
MAX_ANSWER_WORDS = 12  # a longer key cannot be expected word for word
MAX_UNKNOWN = 60  # unanswerable questions of a split
FEWEST_UNKNOWN = 6  # where a set has fewer, questions about invented places are added
DEV_EVERY = 5  # of the clauses with one question, so many give it to dev instead of test
_ARTICLES = frozenset(("a", "an", "the"))


@dataclass(frozen=True)
class Asked:
    """A row with a question that a passage answers."""

    row_id: str
    question: str
    answer: str
    passage: str
    document: str  # clauses of one document are neighbours
    title: str = ""
    aliases: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()
    evidence: str = ""  # what in the passage says so, where the set marks it
    prefix: str = ""  # what every part of the passage begins with, when it stands alone
    reworded: str = ""  # another wording of the question; a cue at most
    beside: tuple[str, ...] = ()  # further questions of the row, which no clause answers


@dataclass(frozen=True)
class Unknown:
    """A row with a question that nothing answers."""

    row_id: str
    question: str


@dataclass(frozen=True)
class Dropped:
    row_id: str
    reason: str


Outcome = Asked | Unknown | Dropped


@dataclass
class _Question:
    """A question on its way into a split."""

    row: int
    text: str
    split: Split
    clause: int = -1  # -1: no clause answers it
    answer: str = ""
    aliases: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()
    made: bool = False  # by rule, from the clause's own text
    alive: bool = True

    @property
    def rank(self) -> int:
        """Of two questions that cannot both stay, the one with the higher rank does."""
        return 0 if self.clause < 0 else {"train": 1, "dev": 2, "test": 3}[self.split]


@dataclass
class _Clause:
    text: str
    title: str
    document: str
    asked: list[_Question] = field(default_factory=list)
    reworded: dict[int, str] = field(default_factory=dict)  # row -> another wording


@dataclass
class _Rows:
    """What became of every row."""

    num_read: int = 0
    used: set[int] = field(default_factory=set)
    why: dict[int, str] = field(default_factory=dict)  # the first reason against a row

    def notes(self) -> tuple[str, ...]:
        dropped = Counter(reason for row, reason in self.why.items() if row not in self.used)
        total = f"{self.num_read} rows read: {len(self.used)} used, {dropped.total()} dropped."
        return (total, *(f"{count} dropped: {reason}." for reason, count in sorted(dropped.items())))


def clean(text: str) -> str:
    """One line in composed form (NFC)."""
    return " ".join(unicodedata.normalize("NFC", text).split())


class _Placer:
    """Finds the clause that answers a row, and the reason where none does."""

    def __init__(self) -> None:
        self.clauses: dict[tuple[str, str], _Clause] = {}
        self.ids: set[str] = set()
        self.questions: set[tuple[str, ...]] = set()
        self.cut: dict[str, list[str]] = {}

    def parts(self, passage: str) -> list[str]:
        if passage not in self.cut:
            self.cut[passage] = [clean(part) for _, part in pieces(unicodedata.normalize("NFC", passage))]
        return self.cut[passage]

    def refuse(self, outcome: Asked | Unknown) -> str:
        """Why the row cannot be used whatever clause there is; "" where it can."""
        if outcome.row_id in self.ids:
            return "its id repeats one before"
        self.ids.add(outcome.row_id)
        question = clean(outcome.question)
        if not words(question):
            return "its question is empty"
        if words(question) in self.questions:
            return "its question is asked in a row before"
        self.questions.add(words(question))
        texts = [question]
        if isinstance(outcome, Asked):
            texts += [outcome.answer, outcome.passage, outcome.title]
        if any(odd_characters(clean(text)) for text in texts):
            return "its encoding is broken"
        return ""

    def place(self, row: int, asked: Asked) -> str:
        """Puts the row's question under its clause; the reason where that cannot be done."""
        question, answer = clean(asked.question), clean(asked.answer)
        if not set(words(answer)) - _ARTICLES:
            return "its answer is empty"
        if len(answer.split()) > MAX_ANSWER_WORDS:
            return f"its answer is longer than {MAX_ANSWER_WORDS} words"
        if not clean(asked.passage):
            return "its passage is missing"
        if stands_in(answer, question):
            return "its question holds the answer"
        held = [f"{asked.prefix}{part}" for part in self.parts(asked.passage)]
        held = [part for part in held if stands_in(answer, part)]
        if not held:
            return "its answer stands in no part of the passage"
        meant = content_words(f"{question} {asked.evidence}")
        text = max(held, key=lambda part: len(meant & content_words(part)))
        clause = self.clauses.setdefault((asked.document, text), _Clause(text, clean(asked.title), asked.document))
        aliases = [clean(alias) for alias in asked.aliases]
        aliases = [a for a in dict.fromkeys(aliases) if words(a) and a != answer and not stands_in(a, question)]
        rivals = [clean(rival) for rival in asked.rivals]
        rivals = [r for r in rivals if words(r) and not stands_in(r, text) and not stands_in(r, question)]
        clause.asked.append(
            _Question(
                row=row,
                text=question,
                split="test",
                answer=answer,
                aliases=tuple(aliases),
                rivals=rivals_of((answer, *aliases), [rivals]),
            )
        )
        if asked.reworded:
            clause.reworded[row] = clean(asked.reworded)
        return ""


def _in_order(clauses: Iterable[_Clause]) -> list[_Clause]:
    """Document by document, so that neighbours stand together."""
    documents: dict[str, list[_Clause]] = defaultdict(list)
    for clause in clauses:
        documents[clause.document].append(clause)
    return [clause for group in documents.values() for clause in group]


def _families(clauses: Sequence[_Clause]) -> list[str]:
    """Threes of neighbours in a document; "" for one that is left over alone."""
    counts = Counter(clause.document for clause in clauses)
    place: Counter[str] = Counter()
    families = []
    for clause in clauses:
        n = place[clause.document]
        place[clause.document] += 1
        alone = n // FAMILY * FAMILY == counts[clause.document] - 1
        families.append("" if alone else f"{clause.document}/{n // FAMILY + 1}")
    return families


def _gap_question(clause: _Clause, question: _Question) -> str:
    """The sentence that holds the answer, with a gap in its place; "" where some form stays."""
    forms = (question.answer, *question.aliases)
    for sentence in re.split(r"(?<=[.!?])\s+", clause.text):
        if stands_in(question.answer, sentence):
            for form in sorted(forms, key=len, reverse=True):
                sentence = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", "...", sentence, flags=re.IGNORECASE)
            if any(stands_in(form, sentence) for form in forms) or len(words(sentence)) < 4:
                return ""
            return f"Which words are missing here: {sentence}"
    return ""


def _split(clause: _Clause, number: int) -> list[_Question]:
    """Test first, then dev, then cues; a third of the clauses gets no cues but a second test question."""
    cued = number % FAMILY != FAMILY - 1
    first, *others = clause.asked
    if not others and number % DEV_EVERY == DEV_EVERY - 1:
        first.split = "dev"
    order: tuple[Split, ...] = ("dev", "test")
    if cued:
        order = ("dev", "train", "train", "train") if len(others) > 1 else ("train",)
    for question, split in zip(others, order, strict=False):
        question.split = split
    kept = [first, *others[: len(order)]]
    if cued and not any(question.split == "train" for question in kept):
        text = clause.reworded.get(first.row, "") or _gap_question(clause, first)
        if text and not any(stands_in(form, text) for form in (first.answer, *first.aliases, *first.rivals)):
            made = first.row not in clause.reworded
            kept.append(
                _Question(first.row, text, "train", -1, first.answer, first.aliases, first.rivals, made=made)
            )
    for question in kept:
        question.clause = number
    return kept


def _clash(one: _Question, two: _Question) -> bool:
    """Whether two nearly equal questions may not both stay."""
    if words(one.text) == words(two.text):
        return True
    if "train" in (one.split, two.split):
        return one.split != two.split
    return one.split != two.split or one.clause == two.clause


def _drop_repeats(questions: Sequence[_Question], trained: Sequence[str], rows: _Rows) -> None:
    """Of questions that are nearly the same one stays; a trained conversation always does."""
    texts = [*trained, *(question.text for question in questions)]
    sets = [frozenset(words(text)) for text in texts]
    for i, j in candidate_pairs(sets, LEAST_IN_COMMON):
        if j < len(trained) or not nearly_equal(texts[i], texts[j]):
            continue
        two = questions[j - len(trained)]
        if i < len(trained):
            loser = two
        else:
            one = questions[i - len(trained)]
            if not (one.alive and two.alive and _clash(one, two)):
                continue
            loser = one if one.rank < two.rank else two
        loser.alive = False
        rows.why.setdefault(loser.row, "its question is nearly the same as another")


def _drop_covered(unknown: Sequence[_Question], clauses: Sequence[_Clause], rows: _Rows) -> None:
    """An unanswerable question goes where some clause holds most of its words: it may be answerable."""
    holders: dict[str, list[int]] = defaultdict(list)
    for number, clause in enumerate(clauses):
        for word in content_words(f"{clause.title} {clause.text}"):
            holders[word].append(number)
    for question in unknown:
        asked = content_words(question.text)
        if len(asked) < MIN_CONTENT_WORDS:
            continue
        common = Counter(number for word in asked for number in holders[word])
        if common and max(common.values()) >= COVERED_OVERLAP * len(asked):
            question.alive = False
            rows.why.setdefault(question.row, "no clause is said to answer it, but one seems to")


def _unknown_splits(unknown: Sequence[_Question], rows: _Rows) -> None:
    splits: tuple[Split, ...] = ("test", "train", "dev")
    for number, question in enumerate(unknown):
        question.split = splits[number % len(splits)]
        if number >= MAX_UNKNOWN * len(splits):
            question.alive = False
            rows.why.setdefault(question.row, f"{MAX_UNKNOWN} unanswerable questions of a split are enough")


def _qa(question: _Question, memory_id: str, number: int, slot: str) -> QA:
    name = "cue" if question.split == "train" else question.split
    return QA(
        id=f"{memory_id}/{name}{number}",
        question=question.text,
        answer=question.answer,
        memory_ids=(memory_id,),
        aliases=question.aliases,
        rivals=question.rivals,
        split=question.split,
        slot=slot,
    )


def _abstention(name: str, question: str) -> Conversation:
    reply = assistant_content(NO_CLAUSE_THINK, NO_CLAUSE_ANSWER)
    return Conversation(
        f"abstain/{name}",
        (Message("user", question), Message("assistant", reply)),
        kind="unanswerable",
        topic="unanswerable",
    )


def _unanswerable(unknown: Sequence[_Question]) -> tuple[list[QA], list[Conversation]]:
    held_out = []
    trained = []
    for number, question in enumerate(unknown, start=1):
        name = f"unknown{number:04d}"
        if question.split == "train":
            trained.append(_abstention(name, question.text))
        else:
            held_out.append(QA(name, question.text, "", (), split=question.split, kind="unanswerable"))
    return held_out, trained


def _place_rows(outcomes: Iterable[Outcome], rows: _Rows) -> tuple[_Placer, list[_Question]]:
    placer = _Placer()
    unknown: list[_Question] = []
    for row, outcome in enumerate(outcomes):
        rows.num_read += 1
        if isinstance(outcome, Dropped):
            rows.why[row] = outcome.reason
            continue
        reason = placer.refuse(outcome)
        if not reason and isinstance(outcome, Unknown):
            unknown.append(_Question(row, clean(outcome.question), "test"))
        elif not reason and isinstance(outcome, Asked):
            reason = placer.place(row, outcome)
            if not reason:
                unknown += [_Question(row, clean(text), "test") for text in outcome.beside if words(text)]
        if reason:
            rows.why[row] = reason
    return placer, unknown


def build(card: Card, outcomes: Iterable[Outcome], num_train: int = 600, num_heldout: int = 120) -> TaskData:
    """The task of all rows. num_train, num_heldout: general conversations, see think_sft."""
    rows = _Rows()
    placer, unknown = _place_rows(outcomes, rows)
    clauses = _in_order(placer.clauses.values())
    questions = [question for number, clause in enumerate(clauses) for question in _split(clause, number)]
    kept = {id(question) for question in questions}
    for clause in clauses:
        for question in clause.asked:
            if id(question) not in kept:
                rows.why.setdefault(question.row, "its clause has questions enough")

    general, heldout = sft_corpus(0, num_train, num_heldout)
    _drop_covered(unknown, clauses, rows)
    unknown = [question for question in unknown if question.alive]
    _unknown_splits(unknown, rows)
    unknown = [question for question in unknown if question.alive]
    if few := len(unknown) < 3 * FEWEST_UNKNOWN:
        made = unknown_questions(range(2 * MAX_UNKNOWN), seed=0)
        # Behind its own, so that of two alike the set's question stays.
        unknown += [_Question(-1, text, split) for split, texts in made.items() for text in texts]
    _drop_repeats([*questions, *unknown], [c.messages[0].content for c in general], rows)

    alive_of: dict[int, list[_Question]] = defaultdict(list)
    for question in questions:
        if question.alive:
            alive_of[question.clause].append(question)
    memories: list[Memory] = []
    singles: list[QA] = []
    facts: dict[str, tuple[str, ...]] = {}
    num_made = 0
    for number, (clause, family) in enumerate(zip(clauses, _families(clauses), strict=True)):
        alive = alive_of[number]
        if all(question.split == "train" for question in alive):
            continue
        memory_id = f"c{number + 1:05d}"
        slots: dict[str, str] = {}
        counts: Counter[str] = Counter()
        qas = []
        for question in alive:
            slot = slots.setdefault(question.answer, f"fact{len(slots) + 1}")
            facts.setdefault(f"{memory_id}/{slot}", (question.answer, *question.aliases))
            counts[question.split] += 1
            qas.append(_qa(question, memory_id, counts[question.split], slot))
            rows.used.add(question.row)
            num_made += question.made
        cues = tuple(qa for qa in qas if qa.split == "train")
        memories.append(Memory(memory_id, clause.text, clause.title, cues, family=family))
        singles += [qa for qa in qas if qa.split != "train"]
    held_out, trained = _unanswerable([question for question in unknown if question.alive])
    rows.used.update(question.row for question in unknown if question.alive and question.row >= 0)
    for row in range(rows.num_read):
        if row not in rows.used:
            rows.why.setdefault(row, "its clause has no held-out question left")

    notes = []
    if card.keys_by_rule:
        notes.append("The keys were picked by rule from longer reference answers.")
    if num_made:
        notes.append(f"{num_made} training questions were made by rule: a sentence of the clause with a gap.")
    if few:
        notes.append("Unanswerable questions were made by rule: the set has too few of its own.")
    notes += [*rows.notes(), f"The set's size as stated: {card.size}."]
    digest = hashlib.sha256(f"{card.repo} {card.revision}".encode())
    digest.update(repr((memories, singles, held_out, trained)).encode())
    return TaskData(
        name=f"hub/{card.name}",
        memories=tuple(memories),
        questions=(*singles, *held_out),
        sft=(*general, *trained),
        sft_heldout=heldout,
        facts=facts,
        licence=card.licence,
        source=card.source,
        description=f"{card.asked} Left out: {' '.join(card.left_out)}",
        version=digest.hexdigest()[:12],
        notes=tuple(notes),
    )
