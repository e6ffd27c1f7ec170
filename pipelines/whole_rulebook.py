"""The clauses that a slice left out, held beside those that were trained on while methods are asked.

A person's rulebook is one, however few of its clauses a run trains on and asks about: what answers must be found
among all. Methods that search hold the rest as they hold what comes after a fit, to be found and no more. Weights
hold nothing of it, and a control arm's lookup is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from methods.arms import ARMS
from methods.base import Indexer, Method, RefitNeeded
from methods.train import Progress
from tasks.base import TaskData


@contextmanager
def whole_rulebook(methods: Sequence[Method], task: TaskData, progress: Progress) -> Iterator[None]:
    """Inside the block, methods that search find among all clauses of the rulebook; behind it, among the slice."""
    holding: list[Method] = []
    for method in methods:
        if not task.rest or method.name in ARMS:
            continue
        stage = f"{method.name}: the other clauses"
        progress(stage, 0, len(task.rest))
        try:
            (method.index if isinstance(method, Indexer) else method.write)(task.rest)
        except RefitNeeded:
            pass
        else:
            holding.append(method)
        progress(stage, len(task.rest), len(task.rest))
    try:
        yield
    finally:
        for method in holding:
            method.forget([memory.id for memory in task.rest])
