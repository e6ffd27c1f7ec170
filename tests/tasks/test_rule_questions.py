"""Questions by rule are asked as people ask, have one answer among the clauses, and do not give it away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.documents.cutting import Clause
from tasks.question_wording import ask_for_fact, ask_for_object, ask_for_subject
from tasks.registry import load_task
from tasks.rule_questions import RuleQuestions, facts
from tasks.spelling import words
from tasks.values import stands_in


def clause(text: str, title: str = "Rules", name: str = "x") -> Clause:
    return Clause(name, text, title, "a.md", 1)


@pytest.mark.parametrize(
    ("sentence", "answer", "question"),
    [
        ("Visitors must leave within 3 days.", "3 days", "Within how many days must visitors leave?"),
        ("If it rains, the pool may be used for 5 hours.", "5 hours", None),  # "it" says nothing by itself
        (
            "If you lose a badge, the desk will charge 18 euros for a new one.",
            "18 euros",
            "How much will the desk charge for a new one if you lose a badge?",
        ),
        ("A lost ticket costs EUR 45 at the desk.", "EUR 45", "How much does a lost ticket cost at the desk?"),
        ("The gate closes at 9:15.", "9:15", "At what time does the gate close?"),
        ("Staff receive 7 days of leave a year.", "7 days", "How many days of leave do staff receive a year?"),
        ("The barrier opens with code KH-204.", "KH-204", "With which code does the barrier open?"),
        ("The depot was opened by Ida Lund in May.", "Ida Lund", "By whom was the depot opened in May?"),
        ("Leave is 24 days or 26 days.", "24 days", None),  # one of two
        ("It takes 12 days.", "12 days", None),
        ("The fee was 30 euros until 2023 and is 35 euros now.", "30 euros", "How much was the fee until 2023?"),
        ("The fee was 30 euros until 2023 and is 35 euros now.", "35 euros", None),  # two statements
        ("Guests must pay 5 euros within 3 days.", "3 days", "Within how many days must guests pay 5 euros?"),
    ],
)
def test_a_fact_is_asked_for_as_people_ask(sentence: str, answer: str, question: str | None) -> None:
    (fact,) = [fact for fact in facts(clause(sentence)) if fact.answer == answer]
    assert ask_for_fact(sentence, fact.start, fact.end, fact.asked) == question


@pytest.mark.parametrize(
    ("sentence", "found"),
    [
        (
            "The site manager must sign every form (see below) before noon.",
            ("Who must sign every form before noon?", "site manager"),
        ),
        ("Wet coats are hung in the drying room.", ("What are hung in the drying room?", "Wet coats")),
        ("They are hung in the drying room.", None),
        ("There is a lamp in the drying room.", None),
        ("The gate is the oldest part of the yard.", None),
    ],
)
def test_a_subject_is_asked_for(sentence: str, found: tuple[str, str] | None) -> None:
    assert ask_for_subject(sentence) == found


def test_an_object_is_asked_for() -> None:
    asked = ask_for_object("You must wear a yellow helmet in the loading yard.")
    assert asked == ("What must you wear in the loading yard?", "yellow helmet")


TWINS = [
    clause("The gate of the north yard closes at 9:15 in winter.", "Gate", "one"),
    clause("The gate of the north yard closes at 8:30 in winter.", "Gate", "two"),
]


def test_what_a_clause_of_the_same_title_answers_too_is_not_asked() -> None:
    made = RuleQuestions(TWINS)
    assert [made.make(twin, ()) for twin in TWINS] == [[], []]


def test_a_title_sets_apart_what_nothing_else_does() -> None:
    apart = [
        clause(twin.text, f"Gate of {site}", twin.id) for twin, site in zip(TWINS, ("Cork", "Oslo"), strict=True)
    ]
    made = RuleQuestions(apart)
    for one, site in zip(apart, ("Cork", "Oslo"), strict=True):
        assert site in made.make(one, ())[0][1]


def test_a_gap_has_one_right_filling() -> None:
    text = "Kindness towards the porcupine of the weighbridge matters."
    ((split, question, fact), *_) = RuleQuestions([clause(text)]).make(clause(text), ())
    assert split == "test" and "___" in question and fact.answer in text
    assert text.replace(fact.answer, "___").rstrip(".") in question


@pytest.mark.parametrize(
    ("text", "filling"),
    [
        ("Page RFC822 here.", None),
        ("See https://www.example.org/porcupines or desk@porcupine.example for the weighbridge.", "weighbridge"),
        ("Mail the desk of the porcupine at desk@porcupine.example before the noon meeting.", None),
        ("Dr. Anna Berg, Tel. 4417.", None),
        ("Copyright (c) 2024 Kestrel Works. All rights reserved.", None),
        ("Site North Cork: 315 euros.", "315 euros"),
    ],
)
def test_no_gap_is_in_an_address_or_in_a_sentence_that_tells_nothing(text: str, filling: str | None) -> None:
    made = RuleQuestions([clause(text)]).make(clause(text), ())
    assert [fact.answer for _, _, fact in made] == ([filling] if filling else [])


def test_most_clauses_of_a_handbook_are_asked_about() -> None:
    clauses = [clause(memory.text, memory.title, memory.id) for memory in load_task("regs").memories]
    made = RuleQuestions(clauses)
    asked = [[question for split, question, _ in made.make(one, ()) if split == "test"] for one in clauses]
    whole = [questions for questions in asked if questions and "___" not in questions[0]]
    assert sum(map(bool, asked)) >= 0.6 * len(clauses)
    assert len(whole) >= 0.3 * len(clauses), len(whole) / len(clauses)


WORDS = st.sampled_from(
    words(
        "the The a gate gates must is are opens closes at within 9:15 3 days 40 euros and or if , . ; ( ) Ida "
        "Lund of in yard staff KH-204 never it which \" ' 5% by"
    )
)


@given(st.lists(WORDS, min_size=1, max_size=40).map(" ".join))
def test_no_question_holds_its_answer_and_every_answer_stands_in_the_clause(text: str) -> None:
    asked = clause(text)
    for _, question, fact in RuleQuestions([asked]).make(asked, ()):
        assert stands_in(fact.answer, text) and not stands_in(fact.answer, question)
        assert question.endswith("?") and "\x00" not in question
