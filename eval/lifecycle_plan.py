"""What the lifecycle pass changes and asks: the same plan for every method.

    write    clauses that the fit never saw, several a call (`written_at_once`), as a batch of news comes in
    update   clauses with a new text under their old id, one a call; the old value afterwards is *stale*
    forget   one clause of each near-miss family; its questions should be declined, its siblings' answered
    growth   ever more memories beside the fitted ones: does the right one still come first?

Where every clause of the task was fitted, none is left to write. Some fitted ones are then forgotten on the copy,
unmeasured, and written again, and every record of that step says `rewritten`: what the bank or index does is
measured as ever, but weights that were trained on these clauses may still know them, so the answers bound what
a write does from above.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from eval.records import LifecycleStep
from tasks.base import QA, Memory, Split, TaskData, TaskError

RefitSet = Literal["changed", "forgotten"]  # with what is written and revised; without what is forgotten
STEPS: tuple[LifecycleStep, ...] = ("write", "update", "forget", "growth")


@dataclass(frozen=True)
class LifecycleOptions:
    """How much is changed, and how many questions tell what came of it."""

    num_written: int = 6  # clauses from outside the slice, at least: whole families are drawn
    written_at_once: int = 3  # of them, in one call: a method may write several at less cost than one by one
    num_forgotten: int = 6  # clauses, at most one a family
    num_neighbours: int = 24  # questions a step about clauses that it leaves alone, at most
    growth: tuple[int, ...] = (10, 30, 100)  # memories beside the fitted ones
    num_growth_questions: int = 24
    growth_new_tokens: int = 24  # of a growth answer, of which the first lookup alone counts

    def __post_init__(self) -> None:
        if self.written_at_once < 1:
            raise TaskError(f"lifecycle.written_at_once={self.written_at_once} writes nothing; choose 1 or more")


@dataclass(frozen=True)
class LifecyclePlan:
    """What is changed and what is asked: the same for every method."""

    memories: tuple[Memory, ...]  # the fitted ones
    written: tuple[Memory, ...]
    revisions: tuple[Memory, ...]
    forgotten: tuple[Memory, ...]
    distractors: tuple[Memory, ...]
    growth: tuple[int, ...]
    growth_new_tokens: int
    written_at_once: int
    targets: Mapping[LifecycleStep, tuple[QA, ...]]  # questions about what a step changes
    neighbours: Mapping[LifecycleStep, tuple[QA, ...]] = field(default_factory=dict)
    old: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # revised question -> forms of the old value
    rewritten: bool = False  # what is written was fitted, and is forgotten first

    def memories_of(self, refit: RefitSet) -> list[Memory]:
        """What a method that cannot change its memories is fitted on again."""
        if refit == "forgotten":
            gone = {memory.id for memory in self.forgotten}
            return [memory for memory in self.memories if memory.id not in gone]
        revised = {memory.id: memory for memory in self.revisions}
        kept = [revised.get(memory.id, memory) for memory in self.memories]
        return kept if self.rewritten else [*kept, *self.written]


def plan_lifecycle(
    task: TaskData, whole: TaskData, seed: int, options: LifecycleOptions, split: Split = "test"
) -> LifecyclePlan:
    """A seeded plan. task: what the methods were fitted on; whole: the task that it is a slice of.

    Raises TaskError for a revised question whose old value is not told.

    What is written was left out of the fit. Where nothing was, fitted clauses that no revision changes are
    written once more (`rewritten`). Distractors are the clauses that are left, then passages of the general
    corpus that was kept back.
    """
    rng = random.Random(f"lifecycle/{seed}")
    fitted, revised = {memory.id for memory in task.memories}, {memory.id for memory in task.revisions}
    new = [memory for memory in whole.memories if memory.id not in fitted]
    again = [] if new else [memory for memory in task.memories if memory.id not in revised]
    families: dict[str, list[Memory]] = {}
    for memory in new or again:
        families.setdefault(memory.family or f"only {memory.id}", []).append(memory)
    names = rng.sample(list(families), len(families))
    asked = {memory_id for qa in whole.held_out(split) for memory_id in qa.memory_ids}
    names.sort(key=lambda name: (asked.isdisjoint(m.id for m in families[name]), len(families[name]) == 1))
    written: list[Memory] = []
    while names and len(written) < options.num_written:
        written += families[names.pop(0)]
    left = [memory for name in names for memory in families[name] if new]
    passages = dict.fromkeys(c.passage for c in whole.sft_heldout if c.passage)
    distractors = (
        *rng.sample(left, len(left)),
        *(Memory(f"passage/{n}", text) for n, text in enumerate(passages, start=1)),
    )

    growth = tuple(sorted(size for size in options.growth if 0 < size <= len(distractors)))

    siblings: dict[str, list[Memory]] = {}
    for memory in task.memories:
        if memory.family:
            siblings.setdefault(memory.family, []).append(memory)
    several = [members for members in siblings.values() if len(members) > 1]
    picked = rng.sample(several, min(options.num_forgotten, len(several)))
    forgotten = [rng.choice(members) for members in picked]

    singles = list(task.held_out(split))
    updated = [qa for qa in task.revised_questions if qa.split == split]

    def about(memories: Collection[Memory], questions: Sequence[QA]) -> list[QA]:
        ids = {memory.id for memory in memories}
        return [qa for qa in questions if qa.memory_ids[0] in ids]

    def beside(changed: Collection[Memory]) -> list[Memory]:
        ids, near = {memory.id for memory in changed}, {memory.family for memory in changed if memory.family}
        return [memory for memory in task.memories if memory.family in near and memory.id not in ids]

    def drawn(questions: Sequence[QA], most: int) -> tuple[QA, ...]:
        return tuple(rng.sample(list(questions), min(most, len(questions))))

    changed = {memory.id for memory in (*written, *task.revisions)}
    untouched = [memory for memory in task.memories if memory.id not in changed]
    return LifecyclePlan(
        memories=task.memories,
        written=tuple(written),
        revisions=task.revisions,
        forgotten=tuple(forgotten),
        distractors=distractors,
        growth=growth,
        growth_new_tokens=options.growth_new_tokens,
        written_at_once=options.written_at_once,
        targets={
            "write": tuple(about(written, list(whole.held_out(split)))),
            "update": tuple(updated),
            "forget": tuple(about(forgotten, singles)),
            "growth": drawn(singles, options.num_growth_questions if growth else 0),
        },
        neighbours={
            # A refit that learns what is written learns the revisions too, and answers by them.
            "write": drawn(about(untouched, singles), options.num_neighbours),
            "update": drawn(about(beside(task.revisions), singles), options.num_neighbours),
            "forget": drawn(about(beside(forgotten), singles), options.num_neighbours),
        },
        old={qa.id: _old_value(task, qa) for qa in updated},
        rewritten=bool(again),
    )


def _old_value(task: TaskData, qa: QA) -> tuple[str, ...]:
    """The forms of a fact before its revision."""
    fact = f"{qa.memory_ids[0]}/{qa.slot}"
    if fact not in task.facts:
        raise TaskError(
            f"task {task.name}: question {qa.id!r} asks for a revised value, and `facts` lacks the old one; "
            f"add {fact!r}, or leave the question out"
        )
    return task.facts[fact]
