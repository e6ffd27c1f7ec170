"""A slice is asked among all clauses of its rulebook, and what is measured behind that is the slice's again."""

from __future__ import annotations

import pytest

from methods.base import Method, RefitNeeded, WriteReport
from pipelines.whole_rulebook import whole_rulebook
from tasks.base import Memory, TaskData
from tasks.registry import load_task


class Held:
    """A method that notes what it holds."""

    def __init__(self, name: str, refits: bool = False) -> None:
        self.name, self.refits = name, refits
        self.ids: list[str] = []

    def write(self, memories: tuple[Memory, ...]) -> WriteReport:
        if self.refits:
            raise RefitNeeded("fit again")
        self.ids += [memory.id for memory in memories]
        return WriteReport(0.0, len(memories), 0, 0)

    def forget(self, ids: list[str]) -> None:
        self.ids = [memory_id for memory_id in self.ids if memory_id not in ids]


class Indexed(Held):
    def index(self, memories: tuple[Memory, ...]) -> WriteReport:
        self.ids += [f"index {memory.id}" for memory in memories]
        return WriteReport(0.0, len(memories), 0, 0)

    def forget(self, ids: list[str]) -> None:
        super().forget([f"index {memory_id}" for memory_id in ids])


@pytest.fixture(scope="module")
def regs() -> TaskData:
    return load_task("regs", num_clauses=18)


def test_a_slice_keeps_what_it_leaves_out_without_its_questions(regs: TaskData) -> None:
    whole = load_task("regs")
    assert {m.id for m in regs.memories} | {m.id for m in regs.rest} == {m.id for m in whole.memories}
    assert len(regs.memories) + len(regs.rest) == len(whole.memories) == 132
    assert not any(memory.cues for memory in regs.rest)
    assert not whole.rest
    asked = {memory_id for qa in regs.questions for memory_id in qa.memory_ids}
    assert not asked & {memory.id for memory in regs.rest}


def test_methods_that_search_hold_the_rest_inside_the_block_alone(regs: TaskData) -> None:
    rag, recall, sft, arm = Held("rag"), Indexed("recall"), Held("sft", refits=True), Held("random_vector")
    methods: list[Method] = [rag, recall, sft, arm]  # type: ignore[list-item]
    rest = [memory.id for memory in regs.rest]
    with whole_rulebook(methods, regs, lambda *_said: None):
        assert rag.ids == rest
        assert recall.ids == [f"index {memory_id}" for memory_id in rest]
        assert sft.ids == arm.ids == []
    assert rag.ids == recall.ids == []


def test_the_rest_goes_when_asking_fails(regs: TaskData) -> None:
    rag = Held("rag")
    with pytest.raises(KeyboardInterrupt), whole_rulebook([rag], regs, lambda *_said: None):  # type: ignore[list-item]
        raise KeyboardInterrupt
    assert rag.ids == []
