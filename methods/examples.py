"""Training examples that every method shares: the same questions, clauses, reasoning and answers.

What differs between methods is only how the clause gets into the think: recalled from a vector, recited
from the weights, or quoted from the prompt.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from methods.base import MethodError
from methods.chat import split_think
from methods.examples_zh import chinese_questions
from tasks.base import NO_CLAUSE_THINK, QA, Conversation, Memory, Message
from tasks.chinese import is_chinese

READING_ID = "\0reading/"  # training passages: \0reading/<kind>/<text>; no clause id starts so
NULL_TEXT = NO_CLAUSE_THINK  # text of the null memory


@dataclass(frozen=True)
class Example:
    """A question with everything a think needs."""

    messages: tuple[Message, ...]  # history + the question last
    memory_id: str  # the clause it rests on; "" where no clause covers it
    clause: str  # the clause's text, recalled or quoted; where none covers it, a sentence that says so
    reasoning: str = ""  # steps after the clause
    answer: str = ""  # "": only the way to the clause is learnt, and the clause
    rivals: tuple[str, ...] = ()  # what sibling clauses say instead: a user may claim it
    leads: tuple[tuple[Message, ...], ...] = ()  # exchanges on siblings that this question may follow on, in brief
    variant: str = ""  # what sets the clause apart from its siblings
    teacher_row: int = -1  # of the ranking that recall's retrieval learns from (-1: the gold clause alone)


@dataclass(frozen=True)
class ExampleConfig:
    """How shared examples are drawn; the same for every method."""

    self_cues: int = 3  # self-made questions of an uncued clause, from its text by rule; 0: none
    self_cues_beside: int = 1  # self-made questions of a clause that has cues
    # Samples are turns of dialogues of 1 to so many (methods.turns); 1: each alone
    dialogue_turns: int = 1
    history_probability: float = 0.2  # share of examples that come after talk of their own
    history_conversations: int = 1  # of the general corpus, at most, that make up such talk
    history_asked: float = 0.0  # share of them that are instead a question on a clause, with its answer
    # Off: at equal tokens they cost more than they taught (docs/EXPERIMENTS.md)
    claim_probability: float = 0.0  # share of those with rivals before which a user claims one of them
    follow_up_probability: float = 0.0  # share of those with leads that follow on one of them, in brief
    word_dropout: float = 0.15  # share of a question's plain words left out, on every other question

    def __post_init__(self) -> None:
        for name in ("self_cues", "self_cues_beside"):
            if getattr(self, name) < 0:
                raise MethodError(f"examples.{name}={getattr(self, name)} is below 0; choose 0 or more")
        if self.dialogue_turns < 1:
            raise MethodError(f"examples.dialogue_turns={self.dialogue_turns} holds no sample; choose 1 or more")
        if self.history_conversations < 1:
            raise MethodError(
                f"examples.history_conversations={self.history_conversations} is no talk; choose 1 or more, or "
                "examples.history_probability=0"
            )
        shares = ("history_probability", "history_asked", "claim_probability", "follow_up_probability")
        for name in (*shares, "word_dropout"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise MethodError(f"examples.{name}={getattr(self, name)} is not a share; choose from 0 to 1")


# A number with the word it counts, or a name of two capitalised words: what a question may ask for.
# "box 41 by 15:35" counts nothing: a preposition or a conjunction is no unit.
_NO_UNIT = r"(?!(?:and|or|on|by|to|of|at|in|for|from|per|before|after|until|with|is|are|a|an|the)\b)"
_FACT = re.compile(
    r"\b\d(?:[\d.,:]*\d)?(?:(?:st|nd|rd|th)\b|\s+(?:per\s+cent|" + _NO_UNIT + r"[a-z]+))?"
    r"|\b[A-Z][a-z]+(?:\s[A-Z][a-z]+)+\b"
)


def self_made_cues(memory: Memory, limit: int) -> list[Example]:
    """Questions by rule from a clause's own text: a fact replaced by its question, under the title.

    They lead to the clause and no further: an answer picked by rule would teach to name any fact at hand.

    "Staff receive 31 euros a day." titled "Meals, Cork" -> "Meals, Cork: staff receive how many euros a day?"
    """
    found = [Example((Message("user", asked),), memory.id, memory.text) for asked in chinese_questions(memory)]
    for sentence in () if is_chinese(memory.text) else re.split(r"(?<=[.!?])\s+", memory.text):
        for match in _FACT.finditer(sentence):
            fact = match.group()
            if match.start() == 0 or fact in memory.title:
                continue
            unit = fact.partition(" ")[2]
            asked = f"how many {unit}" if unit and fact[0].isdigit() else "what"
            blank = (sentence[: match.start()] + asked + sentence[match.end() :]).rstrip(".!? ")
            question = f"{memory.title}: {blank[0].lower() + blank[1:]}?" if memory.title else f"{blank}?"
            found.append(Example((Message("user", question),), memory.id, memory.text))
    if len(found) <= limit:
        return found
    return random.Random(memory.id).sample(found, limit)


def titled(memory: Memory) -> str:
    """A memory as searches read it: its title, then its text."""
    return f"{memory.title}. {memory.text}" if memory.title else memory.text


def clause_examples(memories: Sequence[Memory], config: ExampleConfig) -> dict[str, list[Example]]:
    """memory id -> its training examples: cues and self-made ones; empty for an uncued clause without facts."""
    asked: dict[tuple[str, str], list[tuple[Memory, QA]]] = {}  # family, slot -> the members' cues
    for memory in memories:
        for cue in memory.cues:
            if memory.family and cue.slot:
                asked.setdefault((memory.family, cue.slot), []).append((memory, cue))
    examples: dict[str, list[Example]] = {}
    for memory in memories:
        cued = [_cue_example(memory, cue, asked.get((memory.family, cue.slot), ())) for cue in memory.cues]
        limit = config.self_cues_beside if cued else config.self_cues
        examples[memory.id] = cued + self_made_cues(memory, limit)
    return examples


def _cue_example(memory: Memory, cue: QA, family: Sequence[tuple[Memory, QA]]) -> Example:
    """A training question. family: the cues on the same fact in the clause's family, its own among them."""
    siblings = [other for owner, other in family if owner.id != memory.id]
    leads = [(Message("user", other.question), Message("assistant", other.answer)) for other in siblings]
    return Example(
        messages=(Message("user", cue.question),),
        memory_id=memory.id,
        clause=memory.text,
        reasoning=cue.think,
        answer=cue.answer,
        rivals=tuple(dict.fromkeys(other.answer for other in siblings if other.answer != cue.answer)),
        leads=tuple(leads) if memory.variant else (),
        variant=memory.variant,
    )


def unanswerable_examples(sft: Sequence[Conversation]) -> list[Example]:
    """The corpus's abstentions: their think takes the place of the clause, in the task's own language."""
    replies = [(c, *split_think(c.messages[-1].content)) for c in sft if c.kind == "unanswerable"]
    return [
        Example(conversation.messages[:-1], memory_id="", clause=think or NULL_TEXT, answer=answer)
        for conversation, think, answer in replies
    ]


def reading_examples(sft: Sequence[Conversation]) -> list[Example]:
    """The corpus's passages, each with a question on every fact, the passage taken out of the question.

    Many wordings of questions on texts that are no clauses: they teach what the few questions on the clauses
    cannot, to find and read a text by questions in other words, and that abstaining is not a matter of style.
    """
    return [
        Example(
            messages=(Message("user", conversation.question),),
            memory_id=f"{READING_ID}{conversation.passage_kind}/{conversation.passage}",
            clause=conversation.passage,
            reasoning=split_think(conversation.messages[-1].content)[0],
            answer=split_think(conversation.messages[-1].content)[1],
        )
        for conversation in sft
        if conversation.kind == "reading"
    ]


def general(sft: Sequence[Conversation]) -> list[Conversation]:
    """Ordinary conversations. Raises MethodError where there are none: nothing would keep ordinary ability."""
    found = [c for c in sft if c.kind == "general"]
    if not found:
        raise MethodError("fit needs general SFT conversations and got none; pass the task's sft corpus")
    return found


def plain_messages(conversation: Conversation) -> tuple[Message, ...]:
    """The conversation as history: assistant thinks removed, as in every history a method sees."""
    return tuple(
        Message(m.role, split_think(m.content)[1]) if m.role == "assistant" else m for m in conversation.messages
    )
