"""Questions that a model drafts for a clause, and what a program lets pass of them.

A draft is kept where the answer stands in a quote, the quote in one clause, the question does not give its answer
away, no other clause answers it otherwise, none of the kept ones is nearly the same, and, where the model can, it
finds the answer again in the clause.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from tasks.base import QA, Message, Split
from tasks.conflicts import sentences
from tasks.documents.cutting import Clause, Cut
from tasks.documents.form import Unreadable, clean
from tasks.documents.row_files import Row
from tasks.keys import is_correct
from tasks.local import QuestionReader
from tasks.validate import content_words, gives, nearly_equal, words
from tasks.writers import Reply, Writer

ASK = """Text, under the heading "{title}":

{text}

Write {number} different questions that people would ask and that this text answers, in the language of the text.
Each question says what it is about, so that it is understood without the text, and asks for one short fact: a
number, a time, a name, a place or a thing. Use other words than the text where you can. The answer is at most six
words, copied from the text; it must not stand in the question.
Write one JSON object a line and nothing else: {{"question": "...", "answer": "..."}}"""
NEAR = """Text, under the heading "{title}":

{text}

A similar text, under the heading "{other_title}":

{other}

Write {number} questions on what differs between the two. The first text answers them; each question names what
only the first text is about. The answer is at most six words, copied from the first text; it must not stand in the
question.
Write one JSON object a line and nothing else: {{"question": "...", "answer": "..."}}"""
BESIDE = """Text, under the heading "{title}":

{text}

Write {number} questions on another matter that somebody at the same place could ask, in the language of the text.
The text must not answer them.
Write one JSON object a line and nothing else: {{"question": "..."}}"""
BACK = """Text, under the heading "{title}":

{text}

Question: {question}

Answer with a few words of the text and nothing else. If the text does not say, answer: The text does not say."""
NUM_NEAR, NUM_BESIDE = 2, 2
BESIDE_EVERY = 4  # clauses: at one in so many, what nothing answers is asked for
SPLITS: dict[bool, tuple[Split, ...]] = {  # half of the clauses have training questions
    True: ("test", "train", "train", "dev"),
    False: ("test", "dev", "test", "test"),
}
UNANSWERED: tuple[Split, ...] = ("test", "train", "dev", "train")
MOST_NEW_TOKENS, MOST_ANSWER_TOKENS = 600, 60
# (text, question, answer): a model that gets one of these wrong is not asked back.
TRIAL = (
    ("The gate of the yard is locked at 18:40 by Per Holm.", "When is the yard locked?", "18:40"),
    ("The gate of the yard is locked at 18:40 by Per Holm.", "Who locks the yard?", "Per Holm"),
    ("A lost badge costs 18 euros and is replaced within 3 days.", "What does a lost badge cost?", "18 euros"),
    ("A lost badge costs 18 euros and is replaced within 3 days.", "Which colour does the badge have?", ""),
)


@dataclass(frozen=True)
class Kept:
    """A row of questions.csv."""

    question: str
    answer: str
    quote: str
    split: Split
    clause: str  # its id; "" where nothing answers


@dataclass
class Work:
    """What one clause gave and took."""

    kept: list[Kept] = field(default_factory=list)
    num_drafts: int = 0
    num_refused: int = 0  # by program
    num_otherwise: int = 0  # answered otherwise when asked back
    prompt_tokens: int = 0
    new_tokens: int = 0

    def add(self, reply: Reply) -> str:
        """The reply's text, without what a model thinks before it."""
        self.prompt_tokens += reply.prompt_tokens
        self.new_tokens += reply.new_tokens
        return reply.text.rpartition("</think>")[2]


def drafts_in(text: str) -> Iterator[tuple[str, str]]:
    """(question, answer) of every JSON object in a text, whatever stands around; one cut off is left out."""
    decoder, place = json.JSONDecoder(), text.find("{")
    while place >= 0:
        try:
            body, length = decoder.raw_decode(text[place:])
            end = place + length
        except (ValueError, RecursionError):
            body, end = None, place + 1
        if isinstance(body, dict):
            question, answer = (clean(str(body.get(name) or "")) for name in ("question", "answer"))
            if question:
                yield question, answer
        place = text.find("{", end)


def can_answer(writer: Writer, work: Work) -> bool:
    """Does the model find what a text says, and see what it does not say?"""
    for text, question, answer in TRIAL:
        qa = QA("", question, answer, ("trial",) if answer else (), kind="single" if answer else "unanswerable")
        if not _finds(writer, work, qa, "", text):
            return False
    return True


def _finds(writer: Writer, work: Work, qa: QA, title: str, text: str) -> bool:
    asked = BACK.format(title=title, text=text, question=qa.question)
    said = work.add(writer.reply([Message("user", asked)], MOST_ANSWER_TOKENS))
    return is_correct(said.strip(), qa)


class Drafting:
    """Drafts questions clause by clause; keeps in view what was kept before."""

    def __init__(self, pieces: Cut, number: int) -> None:
        self._clauses = pieces.clauses
        self._reader = QuestionReader("questions.csv", pieces)
        self._number = number
        self._line = 1
        self._asked: dict[str, list[Kept]] = defaultdict(list)  # content word -> kept questions
        self._plain: set[str] = set()
        self._num_unanswered = 0

    def remember(self, kept: Kept) -> None:
        """A question that stands: later ones must differ from it."""
        self._plain.add(" ".join(words(kept.question)))
        for word in set(words(kept.question)):
            self._asked[word].append(kept)
        self._num_unanswered += not kept.answer

    def work_on(self, clause: Clause, writer: Writer, ask_back: bool) -> Work:
        """Asks the writer for questions on a clause and keeps those that pass. Raises Away where it is gone."""
        work = Work()
        shown = {"title": clause.title, "text": clause.text}
        asked = [ASK.format(number=self._number, **shown)]
        asked += [
            NEAR.format(number=NUM_NEAR, other_title=other.title, other=other.text, **shown)
            for other in self._reader.siblings.get(clause.id, ())[:1]
        ]
        for prompt in asked:
            text = work.add(writer.reply([Message("user", prompt)], MOST_NEW_TOKENS))
            for question, answer in drafts_in(text):
                self._weigh(question, answer, clause, work, writer if ask_back else None)
        if self._clauses.index(clause) % BESIDE_EVERY == 0:
            prompt = BESIDE.format(number=NUM_BESIDE, **shown)
            text = work.add(writer.reply([Message("user", prompt)], MOST_NEW_TOKENS))
            for question, _ in drafts_in(text):
                self._weigh(question, "", clause, work, writer if ask_back else None)
        return work

    def _weigh(self, question: str, answer: str, clause: Clause, work: Work, writer: Writer | None) -> None:
        work.num_drafts += 1
        if answer:
            splits = SPLITS[_is_cued(clause)]
            num_kept = sum(bool(kept.answer) for kept in work.kept)
            split = splits[num_kept % len(splits)]
        else:
            split = UNANSWERED[self._num_unanswered % len(UNANSWERED)]
        kept = Kept(question, answer, self._quote(question, answer, clause), split, clause.id if answer else "")
        qa = self._accepted(kept)
        if qa is None:
            work.num_refused += 1
        elif writer is not None and not self._found_again(writer, work, qa, clause):
            work.num_otherwise += 1
        else:
            work.kept.append(kept)
            self.remember(kept)

    def _found_again(self, writer: Writer, work: Work, qa: QA, clause: Clause) -> bool:
        places = [clause] if qa.answer else [clause, *self._nearest(qa.question, clause)]
        return all(_finds(writer, work, qa, place.title, place.text) for place in places)

    def _nearest(self, question: str, clause: Clause) -> list[Clause]:
        """The clause that would most likely answer a question beside the one that it was drafted for."""
        asked = content_words(question)
        others = (other for other in self._clauses if other.id != clause.id)
        best = max(others, key=lambda o: len(asked & content_words(f"{o.title} {o.text}")), default=None)
        return [best] if best else []

    def _quote(self, question: str, answer: str, clause: Clause) -> str:
        """The sentence that holds the answer, or as much around it as no other clause has; "" for none."""
        said = sentences(clause.text)
        asked = content_words(question)
        qa = QA("", question, answer, (clause.id,))
        holders = [n for n, sentence in enumerate(said) if answer and gives(sentence, qa)]
        holders.sort(key=lambda n: -len(asked & content_words(said[n])))
        for n in holders[:1]:
            for quote in (said[n], " ".join(said[n : n + 2]), " ".join(said[max(0, n - 1) : n + 2]), clause.text):
                if self._reader.quoted(quote) == [clause.id]:
                    return quote
        return ""

    def _accepted(self, kept: Kept) -> QA | None:
        """The question, unless a check of the program refuses it."""
        if bool(kept.answer) != bool(kept.quote) or self._is_repeated(kept):
            return None
        self._line += 1
        row = {"question": kept.question, "answer": kept.answer, "quote": kept.quote, "split": kept.split}
        try:
            qa, _ = self._reader.question(Row(self._line, row))
        except Unreadable:
            return None
        return qa if qa.kind == "unanswerable" else replace(qa, memory_ids=(kept.clause,))

    def _is_repeated(self, kept: Kept) -> bool:
        if " ".join(words(kept.question)) in self._plain:
            return True
        near = {id(other): other for word in set(words(kept.question)) for other in self._asked[word]}
        return any(
            (other.split != kept.split or other.clause == kept.clause)
            and nearly_equal(other.question, kept.question)
            for other in near.values()
        )


def _is_cued(clause: Clause) -> bool:
    return hashlib.sha256(clause.id.encode()).digest()[0] % 2 == 0


def tokens_expected(clauses: Sequence[Clause], number: int) -> tuple[int, int]:
    """(to read, to write), roughly, for clauses that are drafted for and asked back."""
    read = sum(
        len(ASK) // 4 + (1 + number) * len(clause.text) // 4 + number * len(BACK) // 4 for clause in clauses
    )
    return read, len(clauses) * number * 45
