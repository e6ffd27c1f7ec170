"""The packaged handbook is sound, large enough, and its sums and differences are right."""

from __future__ import annotations

import re

import pytest

from tasks.base import QA, TaskError
from tasks.handbook import stands_in
from tasks.registry import TASKS, load_task
from tasks.validate import problems, remarks

REGS = load_task("regs")


def test_it_has_no_problem() -> None:
    assert problems(REGS) == []
    assert remarks(REGS) == []


def test_it_is_large_enough() -> None:
    kinds = [(qa.kind, qa.split) for qa in REGS.questions]
    assert len(REGS.memories) >= 120
    assert kinds.count(("unanswerable", "test")) >= 40
    assert sum(c.kind == "unanswerable" for c in REGS.sft) >= 40
    assert kinds.count(("two_clause", "test")) + kinds.count(("two_clause", "dev")) >= 30
    assert len(REGS.revisions) >= 25
    assert all(sum(qa.memory_ids == (m.id,) for qa in REGS.held_out("test")) == 2 for m in REGS.memories)
    assert REGS.licence == "Apache-2.0"


def test_quoting_the_clause_is_a_right_answer() -> None:
    """Holds the key and no rival: else no method that recites could ever be right."""
    for qa in REGS.questions:
        if qa.kind == "single":
            text = REGS.memory(qa.memory_ids[0]).text
            assert stands_in(qa.answer, text), qa.id
            assert not any(stands_in(rival, text) for rival in qa.rivals), qa.id


def test_every_slot_can_be_followed_up() -> None:
    assert set(REGS.follow_ups) == set(REGS.facts)


def test_a_cued_clause_has_one_training_question_for_each_fact() -> None:
    for memory in REGS.memories:
        slots = sorted(key.rpartition("/")[2] for key in REGS.facts if key.startswith(f"{memory.id}/"))
        assert sorted(cue.slot for cue in memory.cues) in ([], slots), memory.id


def test_what_a_cue_asks_for_tells_the_fact_and_not_its_value() -> None:
    """Siblings share the wording, the facts of a clause do not, and the value comes after it."""
    asks: dict[tuple[str, str], set[str]] = {}
    for memory in REGS.memories:
        values = [f for key, forms in REGS.facts.items() if key.startswith(f"{memory.id}/") for f in forms]
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


def _amounts(qa: QA) -> set[int]:
    """Sums and differences over the slots that both clauses of a question have."""
    one, two = qa.memory_ids
    results = set()
    for key, forms in REGS.facts.items():
        memory_id, _, slot = key.rpartition("/")
        if memory_id == one and f"{two}/{slot}" in REGS.facts:
            a, b = _numbers(forms[0]), _numbers(REGS.facts[f"{two}/{slot}"][0])
            if a and b:
                results |= {a[0] + b[0], abs(a[0] - b[0])}
    return results


TWO_CLAUSE = [qa for qa in REGS.questions if qa.kind == "two_clause"]


@pytest.mark.parametrize("qa", [qa for qa in TWO_CLAUSE if qa.answer[0].isdigit()], ids=lambda qa: qa.id)
def test_two_clause_amounts_are_right(qa: QA) -> None:
    assert _numbers(qa.answer)[0] in _amounts(qa)


@pytest.mark.parametrize("qa", [qa for qa in TWO_CLAUSE if not qa.answer[0].isdigit()], ids=lambda qa: qa.id)
def test_two_clause_comparisons_offer_their_answer(qa: QA) -> None:
    """The answer is one of the two things that the question names, and not both."""
    assert stands_in(qa.answer, qa.question)
    variants = [REGS.memory(memory_id).variant.lower() for memory_id in qa.memory_ids]
    forms = [form.lower() for form in (qa.answer, *qa.aliases)]
    meant = [v for v in variants if any(form in v or v in form for form in forms)]
    assert len(meant) == 1, (variants, forms)


def test_an_unknown_task_is_named_with_the_choices() -> None:
    with pytest.raises(TaskError, match=r"'rags'.*regs"):
        load_task("rags")
    assert "regs" in TASKS


def test_load_task_slices_by_seed() -> None:
    task = load_task("regs", num_clauses=18, seed=3)
    assert len(task.memories) == 18
    assert task.version == REGS.version
