"""The examples that every method shares: self-made questions are right, histories hold no thinks."""

from __future__ import annotations

import pytest

from methods.base import MethodError
from methods.examples import (
    ExampleConfig,
    clause_examples,
    general,
    plain_messages,
    reading_examples,
    self_made_cues,
    unanswerable_examples,
)
from tasks.base import NO_CLAUSE_ANSWER, QA, Conversation, Memory, Message, TaskData
from tasks.registry import load_task

ALL = load_task("regs")
LISBON = Memory(
    "1", "Staff get 31 euros per day. On the 19th Ana Reis pays it, by 23:05, into account 1,200.", "Meals, Lisbon"
)


def test_every_clause_gets_questions() -> None:
    """Else an uncued clause would never be asked for in training."""
    assert [m.id for m in ALL.memories if not self_made_cues(m, 3)] == []


def test_a_self_made_question_leads_to_its_clause_and_no_further() -> None:
    for memory in ALL.memories:
        questions = [example.messages[-1].content for example in self_made_cues(memory, 99)]
        assert len(set(questions)) == len(questions)
        for question in questions:
            assert {"what", "what,", "what?", "how"} & set(question.split()), question
            assert question.startswith(f"{memory.title}: ")
        for example in self_made_cues(memory, 99):
            assert (example.memory_id, example.clause) == (memory.id, memory.text)
            assert example.answer == example.reasoning == ""  # an answer by rule would teach any fact


def test_self_made_questions_by_hand() -> None:
    assert [e.messages[-1].content.removeprefix("Meals, Lisbon: ") for e in self_made_cues(LISBON, 99)] == [
        "staff get how many euros per day?",
        "on the what Ana Reis pays it, by 23:05, into account 1,200?",
        "on the 19th what pays it, by 23:05, into account 1,200?",
        "on the 19th Ana Reis pays it, by what, into account 1,200?",
        "on the 19th Ana Reis pays it, by 23:05, into account what?",
    ]
    title = self_made_cues(Memory("3", "Guests of Ana Reis pay 5 euros.", "Guests, Ana Reis"), 9)
    assert len(title) == 1  # what the title says is no question
    gate = self_made_cues(Memory("2", "The gate closes at 21:15 and opens at 6."), 3)
    assert [e.messages[-1].content for e in gate] == [
        "The gate closes at what and opens at 6?",
        "The gate closes at 21:15 and opens at what?",
    ]


def test_at_most_so_many_and_always_the_same() -> None:
    drawn = self_made_cues(LISBON, 2)
    assert len(drawn) == 2
    assert drawn == self_made_cues(LISBON, 2)
    assert set(drawn) < set(self_made_cues(LISBON, 99))
    assert self_made_cues(LISBON, 0) == []


def test_cues_come_first_and_self_made_ones_beside_them() -> None:
    cue = QA("q", "What is paid for meals?", "31 euros", ("1",), think="It is there.")
    cued = Memory("1", LISBON.text, LISBON.title, (cue,))
    uncued = Memory("2", LISBON.text, LISBON.title)
    plain = Memory("3", "Be kind to guests.")
    examples = clause_examples([cued, uncued, plain], ExampleConfig(self_cues=3, self_cues_beside=1))
    assert {key: len(found) for key, found in examples.items()} == {"1": 2, "2": 3, "3": 0}
    first = examples["1"][0]
    assert first.messages == (Message("user", cue.question),)
    assert (first.reasoning, first.answer, first.clause) == ("It is there.", "31 euros", LISBON.text)
    assert clause_examples([cued, uncued], ExampleConfig(0, 0))["2"] == []


def test_held_out_questions_are_never_trained_on() -> None:
    asked = {qa.question for qa in ALL.questions}
    examples = clause_examples(ALL.memories, ExampleConfig(99, 99))
    trained = {e.messages[-1].content for found in examples.values() for e in found}
    assert not asked & trained


def test_abstention_examples() -> None:
    examples = unanswerable_examples(ALL.sft)
    assert len(examples) == sum(c.kind == "unanswerable" for c in ALL.sft) > 0
    assert {(e.memory_id, e.answer) for e in examples} == {("", NO_CLAUSE_ANSWER)}
    assert all(e.messages[-1].role == "user" for e in examples)


def test_without_general_conversations_there_is_no_fit(regs: TaskData) -> None:
    assert all(c.kind == "general" for c in general(regs.sft))
    with pytest.raises(MethodError, match="general SFT conversations"):
        general([c for c in regs.sft if c.kind == "unanswerable"])


TWO_TURNS = Conversation(
    "c",
    (
        Message("user", "1 + 1?"),
        Message("assistant", "<think>\nOne more is two.\n</think>\n2"),
        Message("user", "And 1 more?"),
        Message("assistant", "<think>\nThree.\n</think>\n3"),
    ),
)


def test_a_history_holds_no_think() -> None:
    assert [m.content for m in plain_messages(TWO_TURNS)] == ["1 + 1?", "2", "And 1 more?", "3"]


def test_reading_examples_take_the_passage_out_of_the_question() -> None:
    examples = reading_examples(ALL.sft)
    assert len(examples) > 50
    clauses = {m.text for m in ALL.memories}
    for example in examples:
        assert example.clause not in example.messages[-1].content
        assert example.clause not in clauses  # no clause is taught on the side
        assert example.answer
        assert example.memory_id not in {m.id for m in ALL.memories}
    texts: dict[str, set[str]] = {}
    for example in examples:
        texts.setdefault(example.memory_id, set()).add(example.clause)
    assert all(len(found) == 1 for found in texts.values())  # one id, one text
