"""A seeded slice of a task, drawn as whole near-miss families so that the hard part stays hard."""

from __future__ import annotations

import random
from dataclasses import replace

from tasks.base import QA, TaskData, TaskError


def slice_task(task: TaskData, num_clauses: int | None, seed: int) -> TaskData:
    """The task with at least `num_clauses` clauses, drawn family by family; None or 0 keeps all.

    A clause without a family is a family of its own. Families with a test question come first, and among
    them near-miss families: clauses that have no sibling are drawn only when no other is left.
    What is left out is kept as `rest`, without its training questions.
    Unanswerable questions stay (no clause covers them, in the slice or out of it); a two-clause question
    stays where both its clauses do.
    """
    if not num_clauses:
        return task
    if num_clauses < 0 or num_clauses > len(task.memories):
        raise TaskError(
            f"task {task.name}: cannot draw {num_clauses} clauses of {len(task.memories)}; "
            "set num_clauses to a number in between, or to 0 for all"
        )
    families: dict[str, list[str]] = {}
    for memory in task.memories:
        families.setdefault(memory.family or f"only {memory.id}", []).append(memory.id)
    names = list(families)
    random.Random(f"slice/{seed}").shuffle(names)
    tested = {memory_id for qa in task.held_out("test") for memory_id in qa.memory_ids}
    names.sort(key=lambda name: (tested.isdisjoint(families[name]), len(families[name]) == 1))
    kept: set[str] = set()
    for name in names:
        if len(kept) >= num_clauses:
            break
        kept.update(families[name])

    def keeps(qa: QA) -> bool:
        return all(memory_id in kept for memory_id in qa.memory_ids)

    def of_kept(slot_id: str) -> bool:
        return slot_id.rpartition("/")[0] in kept

    return replace(
        task,
        memories=tuple(m for m in task.memories if m.id in kept),
        rest=tuple(replace(m, cues=()) for m in task.memories if m.id not in kept),
        questions=tuple(qa for qa in task.questions if keeps(qa)),
        revisions=tuple(m for m in task.revisions if m.id in kept),
        revised_questions=tuple(qa for qa in task.revised_questions if keeps(qa)),
        follow_ups={key: asked for key, asked in task.follow_ups.items() if of_kept(key)},
        facts={key: forms for key, forms in task.facts.items() if of_kept(key)},
        fraction=task.fraction * sum(kept.issuperset(members) for members in families.values()) / len(families),
    )
