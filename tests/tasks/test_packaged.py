"""What the two packaged, hand-written tasks share: they are sound, large enough, and their sums are right."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from tasks.base import QA, TaskData
from tasks.handbook import stands_in
from tasks.registry import load_task
from tasks.validate import problems, remarks


@dataclass(frozen=True)
class Least:
    """The smallest numbers that a task may have."""

    clauses: int
    unanswerable: int  # of the test split, and as many conversations that train abstention
    two_clause: int
    revisions: int


LEAST = {
    "regs": Least(clauses=120, unanswerable=40, two_clause=30, revisions=25),
    "manual": Least(clauses=81, unanswerable=20, two_clause=16, revisions=15),
}
PACKAGED = {name: load_task(name) for name in LEAST}


@pytest.fixture(params=PACKAGED)
def task(request: pytest.FixtureRequest) -> TaskData:
    return PACKAGED[request.param]


def test_it_has_no_problem(task: TaskData) -> None:
    assert problems(task) == []
    assert remarks(task) == []


def test_it_is_large_enough(task: TaskData) -> None:
    least = LEAST[task.name]
    kinds = [(qa.kind, qa.split) for qa in task.questions]
    assert len(task.memories) >= least.clauses
    assert kinds.count(("unanswerable", "test")) >= least.unanswerable
    assert sum(c.kind == "unanswerable" for c in task.sft) >= least.unanswerable
    assert kinds.count(("two_clause", "test")) + kinds.count(("two_clause", "dev")) >= least.two_clause
    assert len(task.revisions) >= least.revisions
    assert all(sum(qa.memory_ids == (m.id,) for qa in task.held_out("test")) == 2 for m in task.memories)
    assert task.licence == "Apache-2.0"


def test_every_family_is_three_clauses_and_one_of_them_is_uncued(task: TaskData) -> None:
    families: dict[str, list[bool]] = {}
    for memory in task.memories:
        families.setdefault(memory.family, []).append(memory.cued)
    assert all(sorted(cued) == [False, True, True] for cued in families.values())


def test_quoting_the_clause_is_a_right_answer(task: TaskData) -> None:
    """Holds the key and no rival: else no method that recites could ever be right."""
    for qa in task.questions:
        if qa.kind == "single":
            text = task.memory(qa.memory_ids[0]).text
            assert stands_in(qa.answer, text), qa.id
            assert not any(stands_in(rival, text) for rival in qa.rivals), qa.id


def test_every_slot_can_be_followed_up(task: TaskData) -> None:
    assert set(task.follow_ups) == set(task.facts)


def test_a_cued_clause_has_one_training_question_for_each_fact(task: TaskData) -> None:
    for memory in task.memories:
        slots = sorted(key.rpartition("/")[2] for key in task.facts if key.startswith(f"{memory.id}/"))
        assert sorted(cue.slot for cue in memory.cues) in ([], slots), memory.id


def test_what_a_cue_asks_for_tells_the_fact_and_not_its_value(task: TaskData) -> None:
    """Siblings share the wording, the facts of a clause do not, and the value comes after it."""
    asks: dict[tuple[str, str], set[str]] = {}
    for memory in task.memories:
        values = [f for key, forms in task.facts.items() if key.startswith(f"{memory.id}/") for f in forms]
        for cue in memory.cues:
            found = re.fullmatch(
                r"The question asks (.+), and the rule (?:says|names) (.+), so the answer is \2\.", cue.think
            )
            assert found and found[2] == cue.answer, cue.id
            assert not any(stands_in(value, found[1]) for value in values), cue.id
            asks.setdefault((memory.family, cue.slot), set()).add(found[1])
    wordings = [wording for same in asks.values() for wording in same]
    assert len(set(wordings)) == len(wordings) == len(asks)


def _numbers(text: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", text)]


def _amounts(task: TaskData, qa: QA) -> set[int]:
    """Sums and differences over the slots that both clauses of a question have."""
    one, two = qa.memory_ids
    results = set()
    for key, forms in task.facts.items():
        memory_id, _, slot = key.rpartition("/")
        if memory_id == one and f"{two}/{slot}" in task.facts:
            a, b = _numbers(forms[0]), _numbers(task.facts[f"{two}/{slot}"][0])
            if a and b:
                results |= {a[0] + b[0], abs(a[0] - b[0])}
    return results


TWO_CLAUSE = [
    pytest.param(task, qa, id=f"{name}-{qa.id}")
    for name, task in PACKAGED.items()
    for qa in task.questions
    if qa.kind == "two_clause"
]


@pytest.mark.parametrize(("task", "qa"), TWO_CLAUSE)
def test_a_two_clause_question_is_right_by_its_facts(task: TaskData, qa: QA) -> None:
    """An amount is a sum or a difference; a comparison's answer is one of the two things named, and not both."""
    if qa.answer[0].isdigit():
        assert _numbers(qa.answer)[0] in _amounts(task, qa)
        return
    assert stands_in(qa.answer, qa.question)
    variants = [task.memory(memory_id).variant.lower() for memory_id in qa.memory_ids]
    forms = [form.lower() for form in (qa.answer, *qa.aliases)]
    meant = [v for v in variants if any(form in v or v in form for form in forms)]
    assert len(meant) == 1, (variants, forms)
