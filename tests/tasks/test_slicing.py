"""A slice is whole families, nothing dangles, and the seed alone decides."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.base import TaskError
from tasks.regs import load
from tasks.slicing import slice_task

REGS = load(num_train=9, num_heldout=9)


@settings(max_examples=40, deadline=None)
@given(num_clauses=st.integers(1, len(REGS.memories)), seed=st.integers(0, 1000))
def test_a_slice_is_whole_families_with_a_third_uncued(num_clauses: int, seed: int) -> None:
    task = slice_task(REGS, num_clauses, seed)
    assert num_clauses <= len(task.memories) < num_clauses + 3
    assert set(Counter(m.family for m in task.memories).values()) == {3}
    assert sum(not m.cued for m in task.memories) * 3 == len(task.memories)
    assert task == slice_task(REGS, num_clauses, seed)

    kept = {m.id for m in task.memories}
    for qa in (*task.questions, *task.revised_questions):
        assert kept.issuperset(qa.memory_ids)
    assert {m.id for m in task.revisions} == {m.id for m in REGS.revisions} & kept
    assert {key.rpartition("/")[0] for key in task.facts} == kept
    assert set(task.follow_ups) <= set(task.facts)
    # Everything that can stay does.
    expected = [qa for qa in REGS.questions if kept.issuperset(qa.memory_ids)]
    assert list(task.questions) == expected
    assert task.sft == REGS.sft


def test_clauses_without_siblings_come_last() -> None:
    alone = [m for m in REGS.memories if m.id.endswith("a")]
    mixed = replace(REGS, memories=tuple(replace(m, family="") if m in alone else m for m in REGS.memories))
    pairs = len(REGS.memories) - len(alone)
    for seed in range(5):
        assert {m.family for m in slice_task(mixed, pairs, seed).memories}.isdisjoint({""})
        assert sum(not m.family for m in slice_task(mixed, pairs + 1, seed).memories) == 1


def test_seeds_share_no_family_until_all_were_drawn() -> None:
    """44 families of three give seven slices of six families; then they are shuffled again."""
    families = [{m.family for m in slice_task(REGS, 18, seed).memories} for seed in range(14)]
    first, second = families[:7], families[7:]
    for round_ in (first, second):
        assert len(set().union(*round_)) == sum(map(len, round_)) == 42
    assert not any(slice_ in first for slice_ in second)


def test_families_of_unlike_sizes_take_turns_too() -> None:
    """Every slice is large enough, and few families come twice before all have come once."""
    sizes = dict.fromkeys(m.family for m in REGS.memories)
    large = set(list(sizes)[::3])  # every third family gets a fourth clause, from the others'
    moved = [m for m in REGS.memories if m.family in large and m.id.endswith("c")]
    uneven = replace(
        REGS, memories=tuple(replace(m, family=f"{m.family} 2") if m in moved else m for m in REGS.memories)
    )
    slices = [slice_task(uneven, 18, seed).memories for seed in range(7)]
    assert all(18 <= len(memories) < 21 for memories in slices)
    drawn = Counter(m.id for memories in slices for m in memories)
    assert len(drawn) >= 100 and max(drawn.values()) <= 2


@pytest.mark.parametrize("everything", [None, 0, len(REGS.memories)])
def test_everything_can_be_kept(everything: int | None) -> None:
    assert slice_task(REGS, everything, seed=1) == REGS


@pytest.mark.parametrize("impossible", [-1, len(REGS.memories) + 1])
def test_an_impossible_number_is_named(impossible: int) -> None:
    with pytest.raises(TaskError, match=f"{impossible} clauses of {len(REGS.memories)}"):
        slice_task(REGS, impossible, seed=0)


def test_a_slice_tells_which_share_of_the_families_it_holds() -> None:
    part = slice_task(REGS, 18, 0)
    assert (REGS.fraction, part.fraction) == (1.0, 18 / len(REGS.memories))  # all families are of three
    assert slice_task(part, 9, 0).fraction == 9 / len(REGS.memories)
