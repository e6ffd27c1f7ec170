"""Training examples that every method draws from: questions on clauses and passages, and how they are put.

What differs between methods is only how the clause gets into the think: recalled from a vector, recited
from the weights, or quoted from the prompt.

A question is put anew each time it is seen: behind other talk, with words left out, asked again, against a
claim, or in half a sentence. The wordings are others than those of the held-out dialogues (`tasks.dialogues`), or
those would be trained on.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from tasks.base import NO_CLAUSE_THINK, QA, Conversation, Language, Memory, Message, TaskError, split_think
from tasks.chains import chain_of
from tasks.chinese import is_chinese
from tasks.self_cues import self_made_questions

T = TypeVar("T")
READING_ID = "\0reading/"  # training passages: \0reading/<kind>/<text>; no clause id starts so


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
    later: bool = False  # put as a later turn on the same clause or family

    @property
    def source(self) -> str:
        """What a sample of it teaches from, as the fit's report counts it."""
        if self.memory_id.startswith(READING_ID):
            return "questions on other passages"
        if not self.memory_id:
            return "questions that no clause covers"
        return "later turns on clauses" if self.later else "first questions on clauses"


@dataclass(frozen=True)
class ExampleConfig:
    """What every method's training data are drawn by. Shares an epoch are multiples of the number of memories."""

    self_cues: int = 3  # self-made questions of an uncued clause, from its text by rule, one beside cues; 0: none
    history_probability: float = 0.2  # share of questions that come after talk: a conversation of the corpus
    later_turns: float = 0.25  # share of SFT's and RAG's questions put as later turns; recall's: mixture.queries
    sft_only: float = 0.4  # ordinary conversations an epoch
    reading: float = 0.25  # questions on the corpus's own passages an epoch (recall and RAG)
    unanswerable: float = 0.15  # questions an epoch that no clause covers

    def __post_init__(self) -> None:
        for name in ("self_cues", "sft_only", "reading", "unanswerable"):
            if getattr(self, name) < 0:
                raise TaskError(f"examples.{name}={getattr(self, name)} is below 0; choose 0 or more")
        for name in ("history_probability", "later_turns"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise TaskError(f"examples.{name}={getattr(self, name)} is not a share; choose from 0 to 1")


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
        limit = min(config.self_cues, 1) if cued else config.self_cues
        examples[memory.id] = cued + [
            Example((Message("user", question),), memory.id, memory.text)
            for question in self_made_questions(memory, limit)
        ]
    return examples


def _cue_example(memory: Memory, cue: QA, family: Sequence[tuple[Memory, QA]]) -> Example:
    """A training question. family: the cues on the same fact in the clause's family, its own among them."""
    siblings = [other for owner, other in family if owner.id != memory.id]
    leads = [(Message("user", other.question), Message("assistant", other.answer)) for other in siblings]
    return Example(
        messages=(Message("user", cue.question),),
        memory_id=memory.id,
        clause=memory.text,
        reasoning=cue.think or (chain_of(cue, memory.text) if cue.answer else ""),
        answer=cue.answer,
        rivals=tuple(dict.fromkeys(other.answer for other in siblings if other.answer != cue.answer)),
        leads=tuple(leads) if memory.variant else (),
        variant=memory.variant,
    )


def unanswerable_examples(sft: Sequence[Conversation]) -> list[Example]:
    """The corpus's abstentions: their think takes the place of the clause, in the task's own language."""
    replies = [(c, *split_think(c.messages[-1].content)) for c in sft if c.kind == "unanswerable"]
    return [
        Example(conversation.messages[:-1], memory_id="", clause=think or NO_CLAUSE_THINK, answer=answer)
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
    """Ordinary conversations. Raises TaskError where there are none: nothing would keep ordinary ability."""
    found = [c for c in sft if c.kind == "general"]
    if not found:
        raise TaskError("fit needs general SFT conversations and got none; pass the task's sft corpus")
    return found


def plain_messages(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Messages as history: assistant thinks removed, as in every history a method sees."""
    return tuple(Message(m.role, split_think(m.content)[1]) if m.role == "assistant" else m for m in messages)


# --- how a question is put ---------------------------------------------------------------------------

WORD_DROPOUT = 0.15  # share of a question's plain words left out, on every other question
CLAIMS: dict[Language, tuple[str, ...]] = {
    "en": (
        "I thought it was {rival}. {question}",
        "My notes say {rival}. {question}",
        "{question} I believe {rival}.",
        "Is it {rival}? {question}",
        "On my shift they swear it is {rival}. {question}",
    ),
    "zh": ("我以为是{rival}。{question}", "我的笔记上写着{rival}。{question}", "{question}我觉得是{rival}。"),
}
FOLLOW_UPS: dict[Language, tuple[str, ...]] = {
    "en": (
        "Suppose it were {variant}?",
        "The same for {variant}, please.",
        "Now {variant}?",
        "How is it for {variant}?",
    ),
    "zh": ("{variant}又怎样？", "换成{variant}呢？"),
}
AGAIN: dict[Language, tuple[str, ...]] = {
    "en": (
        "{question}",
        "I forgot. {question}",
        "Again, please. {question}",
        "{question} I have lost my notes.",
        "Tell me one more time. {question}",
    ),
    "zh": ("{question}", "我忘了。{question}", "请再说一次。{question}", "{question}我的笔记丢了。"),
}


# Ways to ask for a clause as a whole: the paraphrases that make SFT strong (Ovadia et al. 2023,
# arXiv:2312.05934).
RECITATIONS = (
    "What does the handbook say about {title}?",
    "Please quote the rule on {title}.",
    "Tell me the clause titled {title}.",
    "How does the rule on {title} go?",
    "I need the exact wording of {title}.",
    "Recite {title} from the handbook.",
)


def subject_of(memory: Memory) -> str:
    """Its title, or its first words."""
    return memory.title or " ".join(memory.text.split()[:6])


def recitation_question(memory: Memory, rng: random.Random) -> str:
    subject = subject_of(memory)
    return rng.choice(RECITATIONS).format(title=subject[0].lower() + subject[1:])


def put(
    example: Example, conversations: Sequence[Conversation], config: ExampleConfig, rng: random.Random
) -> Example:
    """The example as SFT and RAG see it once: as a first question or, at times, as a later turn."""
    later = rng.random() < config.later_turns
    return (later_turn if later else augmented)(example, conversations, config, rng)


def augmented(
    example: Example, conversations: Sequence[Conversation], config: ExampleConfig, rng: random.Random
) -> Example:
    """The example as training sees it once: some words less, some talk before it."""
    question = Message("user", _thinned(example.messages[-1].content, rng))
    before = talk_before(conversations, config, rng)
    return replace(example, messages=(*before, *example.messages[:-1], question))


def later_turn(
    example: Example, conversations: Sequence[Conversation], config: ExampleConfig, rng: random.Random
) -> Example:
    """The question where a conversation has come to it before: asked again, against a claim, or following on.

    Asked again, its own exchange stands in the history, as often as not with other talk behind it. An example
    without answer, rivals and leads is put as in `augmented`.
    """
    forms = ["again"] * bool(example.answer) + ["claim"] * bool(example.rivals) + ["follow"] * bool(example.leads)
    form = rng.choice(forms) if forms else ""
    language: Language = "zh" if is_chinese(example.messages[-1].content) else "en"
    if form == "again":
        between = plain_messages(rng.choice(conversations).messages) if rng.random() < 0.5 else ()
        question = _thinned(example.messages[-1].content, rng)
        asked = rng.choice(AGAIN[language]).format(question=question)
        exchange = (*example.messages, Message("assistant", example.answer))
        return replace(example, messages=(*exchange, *between, Message("user", asked)), later=True)
    if form == "follow":
        asked = rng.choice(FOLLOW_UPS[language]).format(variant=example.variant)
        said = rng.choice(example.leads)
    elif form == "claim":
        question = _thinned(example.messages[-1].content, rng)
        claim = rng.choice(CLAIMS[language])
        asked, said = claim.format(rival=rng.choice(example.rivals), question=question), example.messages[:-1]
    else:
        return augmented(example, conversations, config, rng)
    messages = (*talk_before(conversations, config, rng), *said, Message("user", asked))
    return replace(example, messages=messages, later=True)


def talk_before(
    conversations: Sequence[Conversation], config: ExampleConfig, rng: random.Random
) -> tuple[Message, ...]:
    """What is said before a question, mostly nothing.

    Drawn alike before questions on clauses and before openings (`methods.recall.mixture`), so that it does not
    tell which comes.
    """
    if rng.random() >= config.history_probability:
        return ()
    return plain_messages(rng.choice(conversations).messages)


def _thinned(question: str, rng: random.Random) -> str:
    """Every other question loses some words; those with a capital or a digit tell near misses apart and stay."""
    if not WORD_DROPOUT or rng.random() >= 0.5:
        return question
    words = question.split()
    kept = [w for w in words if rng.random() >= WORD_DROPOUT or re.search(r"[A-Z\d]", w)]
    return " ".join(kept or words)


def drawn(pool: Sequence[T], count: int, rng: random.Random) -> list[T]:
    """So many of the pool in any order, none twice; all where it has fewer."""
    return rng.sample(list(pool), min(len(pool), count))


def in_turn(
    examples: Mapping[str, Sequence[Example]], memory_id: str, decks: dict[str, list[Example]], rng: random.Random
) -> Example:
    """A clause's examples in turn: each is seen before any is seen again."""
    deck = decks.setdefault(memory_id, [])
    if not deck:
        deck += rng.sample(examples[memory_id], len(examples[memory_id]))
    return deck.pop()
