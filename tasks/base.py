"""What is asked: the types that tasks hand to methods and to the evaluation.

A task is a rulebook cut into *memories* (clauses), questions about them, a general SFT corpus and
scripted dialogues. Everything here is frozen; nothing here knows about models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

Split = Literal["train", "dev", "test"]
Role = Literal["system", "user", "assistant"]
Language = Literal["en", "zh"]  # of the clauses and the questions
QuestionKind = Literal["single", "two_clause", "unanswerable", "revised"]
TurnKind = Literal[
    "first_ask",  # a clause's fact is asked for the first time in this dialogue
    "re_ask",  # the same fact again, in other words, `distance` turns later
    "follow_up",  # elliptic: "And in Lisbon?" about a sibling clause
    "near_miss",  # the same rule of a sibling clause, asked in full
    "contradiction",  # the user claims a wrong value and asks again
    "two_clause",  # needs two clauses
    "unanswerable",  # no clause covers it
    "ordinary",  # general conversation that the method must answer without recalling
    "filler",  # general conversation with a scripted reply: nothing is generated
]


# What a method is trained to say, and must say, where no clause covers the question.
NO_CLAUSE_THINK = "No clause of the handbook covers this question."
NO_CLAUSE_ANSWER = "The handbook does not say."
NO_CLAUSE: dict[Language, tuple[str, str]] = {  # language -> think, answer
    "en": (NO_CLAUSE_THINK, NO_CLAUSE_ANSWER),
    "zh": ("手册里没有条款涉及这个问题。", "手册没有说明。"),
}


class TaskError(ValueError):
    """Something a user can put right: names the thing, the place and the fix in one sentence."""


@dataclass(frozen=True)
class QA:
    """One question with its key."""

    id: str
    question: str
    answer: str  # short key; stands in the clause's text (empty where unanswerable)
    memory_ids: tuple[str, ...]  # the clauses it rests on; empty: unanswerable
    aliases: tuple[str, ...] = ()  # other right forms of the answer
    rivals: tuple[str, ...] = ()  # values of near-miss clauses; an answer that holds one is wrong
    beside: tuple[str, ...] = ()  # other facts of its own clause(s): an answer that asserts one says too much
    think: str = ""  # reference reasoning after the clause (training questions)
    split: Split = "train"
    kind: QuestionKind = "single"
    slot: str = ""  # which fact of the clause is asked for


@dataclass(frozen=True)
class Memory:
    """One thing to remember: a clause."""

    id: str
    text: str
    title: str = ""
    cues: tuple[QA, ...] = ()  # TRAINING questions about it; empty for an uncued clause
    family: str = ""  # near-miss clauses share a family: the same rule for other sites or grades; "": its own
    variant: str = ""  # what sets this clause apart in its family, e.g. "the Lisbon office"

    @property
    def cued(self) -> bool:
        return bool(self.cues)


@dataclass(frozen=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True)
class Conversation:
    """One SFT sample. Assistant contents read `<think>\\nREASONING\\n</think>\\nANSWER`."""

    id: str
    messages: tuple[Message, ...]
    # reading: trains to read a text, whichever way a method comes by it; unanswerable: trains abstention
    kind: Literal["general", "reading", "unanswerable"] = "general"
    topic: str = ""  # arithmetic, dates, units, ...
    passage: str = ""  # reading comprehension: the text that the question rests on, and
    question: str = ""  # the question without that text
    passage_kind: str = ""  # passages of one kind differ in values only: no question tells them apart


@dataclass(frozen=True)
class Turn:
    """One user message of a scripted dialogue."""

    kind: TurnKind
    user: str
    qa: QA | None = None  # the key; None where nothing is scored for correctness
    distance: int | None = None  # d: turns between this and what it asks about (or the start)
    reply: str | None = None  # filler only: the scripted assistant reply
    topic: str = ""  # filler and ordinary: the kind of small talk or problem


@dataclass(frozen=True)
class Dialogue:
    id: str
    turns: tuple[Turn, ...]
    memory_id: str = ""  # the clause it is about; "" where no clause is asked for


@dataclass(frozen=True)
class TaskData:
    """All that a comparison needs to know of a task."""

    name: str
    memories: tuple[Memory, ...]
    questions: tuple[QA, ...]  # held out: splits dev and test; single, two_clause, unanswerable
    sft: tuple[Conversation, ...]  # general training part + abstention conversations
    sft_heldout: tuple[Conversation, ...]  # general part never trained on
    revisions: tuple[Memory, ...] = ()  # same ids as memories, with new text
    revised_questions: tuple[QA, ...] = ()  # keys after the revision; rivals hold the stale value
    follow_ups: dict[str, str] = field(default_factory=dict)  # "memory id/slot" -> "And in Lisbon?"
    facts: dict[str, tuple[str, ...]] = field(default_factory=dict)  # "memory id/slot" -> answer, aliases
    licence: str = ""
    source: str = ""
    description: str = ""
    version: str = ""  # hash of the data files
    machine_made: bool = False  # the held-out questions were made by rule, not by a person
    language: Language = "en"
    rest: tuple[
        Memory, ...
    ] = ()  # clauses of the rulebook that a slice left out: to be found among, never asked for
    notes: tuple[str, ...] = ()  # what a reader of the figures must know, one sentence each
    fraction: float = 1.0  # of the rulebook's near-miss families, the share that it holds

    def memory(self, memory_id: str) -> Memory:
        for memory in self.memories:
            if memory.id == memory_id:
                return memory
        raise TaskError(f"task {self.name}: no clause has the id {memory_id!r}")

    def held_out(self, split: Split, kind: QuestionKind = "single") -> Iterator[QA]:
        return (qa for qa in self.questions if qa.split == split and qa.kind == kind)


def assistant_content(think: str, answer: str) -> str:
    """The one format of an assistant message that SFT trains on."""
    return f"<think>\n{think}\n</think>\n{answer}"


def split_think(content: str) -> tuple[str, str]:
    """`<think>\\nA\\n</think>\\nB` -> (A, B); text without a think -> ("", text). A and B may spell the marks.

    The inverse of `assistant_content`: each mark stands on a line of its own.
    """
    opening, closing = "<think>\n", "\n</think>\n"
    if not content.startswith(opening) or closing not in content:
        return "", content.strip()
    think, answer = content[len(opening) :].split(closing, 1)
    return think.strip(), answer.strip()


def text_of(messages: Sequence[Message]) -> str:
    """Plain transcript, for logs and tables."""
    return "\n".join(f"{m.role}: {m.content}" for m in messages)
