"""What a comparison of a task would take, and what it could decide, before anything is trained.

From three measured runs (docs/ANSWER.md): 36 clauses took three methods 43 to 48 minutes on two cores with bf16
units, beside other work; and the difference of two methods' right answers varied between 36 families with standard
deviations of 0.23 to 0.32. Other documents, models and machines differ: a forecast, not a promise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from scipy.special import stdtrit

from tasks.base import TaskData
from tasks.slicing import slice_task

SLICE, SLICE_MINUTES = 36, 45  # of the laptop preset
SPREAD = 0.27  # standard deviation of a paired difference between families
POWER = 0.8


def smallest_visible(num_families: int) -> float:
    """The difference in the share of right answers that a 95% interval shows in four runs of five.

    Student's t on one less than the families (Bloom 1995, Evaluation Review 19(5)).
    """
    if num_families < 2:
        return math.inf
    df = num_families - 1
    return float(stdtrit(df, 0.975) + stdtrit(df, POWER)) * SPREAD / math.sqrt(num_families)


def _families(task: TaskData) -> int:
    """How many families of near misses have a test question; a clause without siblings is one of its own."""
    tested = {memory_id for qa in task.held_out("test") for memory_id in qa.memory_ids}
    return len({memory.family or memory.id for memory in task.memories if memory.id in tested})


def forecast(task: TaskData) -> Iterator[str]:
    """A line for one slice, and for more where there are more."""
    everything, whole = len(task.memories), _families(task)
    drawn = min(SLICE, everything)
    in_slice = _families(slice_task(task, drawn, 0))
    yield f"Comparison one slice: {drawn} of {everything} clauses, about {_time(1)}; {_sees(in_slice)}"
    slices = max(1, whole // max(1, in_slice))
    for count in sorted({min(3, slices), slices} - {1}):
        seen = _sees(min(whole, count * in_slice))
        yield f"           {count} slices (seeds={count}), about {_time(count)}; {seen}"


def _time(slices: int) -> str:
    minutes = slices * SLICE_MINUTES
    return f"{minutes} minutes" if minutes < 120 else f"{round(minutes / 60)} hours"


def _sees(families: int) -> str:
    least = smallest_visible(families)
    if least >= 1:
        told = "1 family with test questions decides" if families == 1 else f"{families} families decide"
        return f"{told} nothing"
    return f"{families} families can tell methods apart that differ by {least:.2f} of the answers"
