"""A seeded slice of a task, drawn as whole near-miss families so that the hard part stays hard.

Seeds that follow each other share no family until all have been drawn, so that each adds what was not seen.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from itertools import cycle

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
    tested = {memory_id for qa in task.held_out("test") for memory_id in qa.memory_ids}
    ranks: dict[tuple[bool, bool], dict[str, int]] = {}  # rank -> its families' sizes; the least comes first
    for name, members in families.items():
        ranks.setdefault((tested.isdisjoint(members), len(members) == 1), {})[name] = len(members)
    kept: set[str] = set()
    for rank in sorted(ranks):
        if len(kept) < num_clauses:
            for name in _turn(list(families), ranks[rank], num_clauses - len(kept), seed):
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


def _turn(names: list[str], sizes: Mapping[str, int], num_clauses: int, seed: int) -> list[str]:
    """The families of one rank that the seed gets: at least `num_clauses` clauses, all where there are no more.

    Seeds take turns: the rank is shuffled and dealt out, a slice a seed, then shuffled again for the next round.
    names: all families, of any rank. A round has as many turns as whole slices fit into the handbook's own order;
    where the shuffled one runs short of large families, its last turn goes on with the first.
    """
    if sum(sizes.values()) <= num_clauses:
        return list(sizes)
    turns = filled = 0
    for size in sizes.values():
        filled += size
        if filled >= num_clauses:
            turns, filled = turns + 1, 0
    around, turn = divmod(seed, turns)
    shuffled = list(names)
    random.Random(f"slice/{around}").shuffle(shuffled)
    order = cycle(name for name in shuffled if name in sizes)
    drawn: list[str] = []
    for _ in range(turn + 1):
        drawn = []
        while sum(sizes[name] for name in drawn) < num_clauses:
            drawn.append(next(order))
    return drawn
