"""The packaged handbook by its name, and slices of it; what it holds is tested in test_packaged.py."""

from __future__ import annotations

import pytest

from tasks.base import TaskError
from tasks.registry import TASKS, load_task

REGS = load_task("regs")


def test_an_unknown_task_is_named_with_the_choices() -> None:
    with pytest.raises(TaskError, match=r"'rags'.*regs"):
        load_task("rags")
    assert "regs" in TASKS


def test_load_task_slices_by_seed() -> None:
    task = load_task("regs", num_clauses=18, seed=3)
    assert len(task.memories) == 18
    assert task.version == REGS.version


def test_every_fact_has_one_dev_question() -> None:
    asked = sorted(f"{qa.memory_ids[0]}/{qa.slot}" for qa in REGS.held_out("dev") if qa.kind == "single")
    assert asked == sorted(REGS.facts)
