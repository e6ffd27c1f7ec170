"""Self-made questions in English: right by hand, for every clause, at most so many and always the same."""

from __future__ import annotations

from tasks.base import Memory
from tasks.registry import load_task
from tasks.self_cues import self_made_questions

ALL = load_task("regs")
LISBON = Memory(
    "1", "Staff get 31 euros per day. On the 19th Ana Reis pays it, by 23:05, into account 1,200.", "Meals, Lisbon"
)


def test_every_clause_gets_questions() -> None:
    """Else an uncued clause would never be asked for in training."""
    assert [m.id for m in ALL.memories if not self_made_questions(m, 3)] == []


def test_a_question_stands_under_its_clauses_title_and_asks() -> None:
    for memory in ALL.memories:
        questions = self_made_questions(memory, 99)
        assert len(set(questions)) == len(questions)
        for question in questions:
            assert {"what", "what,", "what?", "how"} & set(question.split()), question
            assert question.startswith(f"{memory.title}: ")


def test_questions_by_hand() -> None:
    assert [question.removeprefix("Meals, Lisbon: ") for question in self_made_questions(LISBON, 99)] == [
        "staff get how many euros per day?",
        "on the what Ana Reis pays it, by 23:05, into account 1,200?",
        "on the 19th what pays it, by 23:05, into account 1,200?",
        "on the 19th Ana Reis pays it, by what, into account 1,200?",
        "on the 19th Ana Reis pays it, by 23:05, into account what?",
    ]
    title = self_made_questions(Memory("3", "Guests of Ana Reis pay 5 euros.", "Guests, Ana Reis"), 9)
    assert len(title) == 1  # what the title says is no question
    assert self_made_questions(Memory("2", "The gate closes at 21:15 and opens at 6."), 3) == [
        "The gate closes at what and opens at 6?",
        "The gate closes at 21:15 and opens at what?",
    ]


def test_at_most_so_many_and_always_the_same() -> None:
    drawn = self_made_questions(LISBON, 2)
    assert len(drawn) == 2
    assert drawn == self_made_questions(LISBON, 2)
    assert set(drawn) < set(self_made_questions(LISBON, 99))
    assert self_made_questions(LISBON, 0) == []
