"""A key is checked before anything is trained on it, and its own clause says what else is no right answer."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tasks import local
from tasks.base import QA, TaskError
from tasks.keys import is_correct, key_problems, with_own_clause, with_own_clauses
from tasks.registry import load_task
from tasks.validate import check
from tasks.values import bounded_forms, stands_in

KEY = QA("q1", "How early do I have to ask?", "7 weeks", ("c1",), rivals=("5 weeks",))
CLAUSE = (
    "Staff get 27 days. Use the Heron form; any holiday longer than one week is requested at least 7 weeks ahead."
)


@pytest.mark.parametrize("name", ["regs", "manual", "regs_zh", "synthetic"])
def test_every_packaged_key_is_right_as_its_own_answer(name: str) -> None:
    task = load_task(name)
    asked = (*task.questions, *task.revised_questions)
    assert [problem for qa in asked for problem in key_problems(qa)] == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"answer": "!?"}, "question q1: nothing is left of '!"),
        ({"answer": "I don't know"}, "question q1: \"I don't know\" is compared as word 'i'.* like an abstention"),
        ({"answer": "7 weeks?"}, r"question q1: '7 weeks\?' is compared as .* name one value"),
        ({"aliases": ("5 weeks",)}, "question q1: '5 weeks' is compared as quantity '5 week'"),
        (
            {"aliases": ("48 days",)},
            "question q1: '48 days' is compared as .*another value than its answer '7 weeks'",
        ),
        ({"rivals": ("49 days",)}, "question q1: its rival '49 days' is compared as quantity '49 day'"),
    ],
)
def test_a_key_that_cannot_be_scored_says_how_it_is_compared(changed: dict[str, object], said: str) -> None:
    found = key_problems(replace(KEY, **changed))  # type: ignore[arg-type]
    assert any(re.search(said, problem) for problem in found), found


def test_no_fit_begins_with_a_key_that_cannot_be_scored() -> None:
    task = load_task("manual", num_clauses=3)
    qa = next(qa for qa in task.questions if qa.kind == "single")
    asked = tuple(replace(q, answer=f"{q.answer}?") if q is qa else q for q in task.questions)
    broken = replace(task, questions=asked)
    with pytest.raises(TaskError, match=f"{qa.id}: '.*' is compared as .* not right as its own answer"):
        check(broken)


def test_a_row_that_cannot_be_scored_is_refused_with_its_line(tmp_path: Path) -> None:
    text = "# Leave\n\nStaff may take 9 weeks of leave after five years of service with the company.\n"
    (tmp_path / "rules.md").write_text(text, encoding="utf-8")
    rows = "question,answer,aliases\nHow long may a pause be?,9 weeks,60 days\nAfter what service?,five years,\n"
    (tmp_path / "questions.csv").write_text(rows, encoding="utf-8")
    drawn = local.read(str(tmp_path)).questions
    assert [qa.answer for qa in drawn.used if qa.memory_ids] == ["five years"]
    (refused,) = drawn.refused
    assert ":2: " in str(refused) and "is compared as" in str(refused)


def test_the_clause_gives_the_key_its_bound_and_its_other_facts() -> None:
    qa = with_own_clause(KEY, CLAUSE, [("27 days",), ("Heron form", "Heron"), ("7 weeks", "seven weeks")])
    assert qa.aliases == ("at least 7 weeks",)
    assert qa.beside == ("27 days", "Heron form", "Heron")
    for right in ("7 weeks", "at least 7 weeks", "no less than 49 days", "It is 7 weeks."):
        assert is_correct(right, qa), right
    for wrong in ("at most 7 weeks", "up to 7 weeks", "7 weeks, on the Heron form", CLAUSE):
        assert not is_correct(wrong, qa), wrong
    assert not is_correct("at least 7 weeks", KEY)  # a bound that the key lacks and no clause gives


def test_what_a_strict_bound_leaves_is_a_form_too() -> None:
    text = "A ticket above 390 euros needs consent."
    assert bounded_forms("390 euros", text) == ("more than 390 euros", "at most 390 euros")
    assert bounded_forms("650欧元", "预支工资不得超过650欧元。") == ("最多650欧元",)
    assert bounded_forms("390 euros", "A ticket costs 390 euros.") == ()


def test_revised_questions_take_the_facts_of_the_new_text() -> None:
    task = with_own_clauses(load_task("regs"))
    for qa in task.revised_questions:
        (text,) = [memory.text for memory in task.revisions if memory.id == qa.memory_ids[0]]
        assert qa.beside and not is_correct(text, qa), qa.id


@pytest.mark.parametrize(
    ("value", "text", "stands"),
    [
        ("90 minutes", "It takes 1.5 hours.", True),
        ("1500 euros", "It costs €1,500.", True),
        ("7 days", "at most 7 days", True),
        ("9 days", "between 7 and 9 days", True),
        ("9 days", "19 days", False),
        ("4.1", "section 4.10", False),
        ("K32", "form K-32", True),
        ("C", "C++", False),
        ("7天", "每年27天", False),
        ("", "anything", False),
    ],
)
def test_a_value_stands_in_a_text_as_a_value(value: str, text: str, stands: bool) -> None:
    assert stands_in(value, text) is stands
