"""The tasks by name. A new task is one file and one entry here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from tasks import hub, local, manual, regs, regs_zh, synthetic
from tasks.base import TaskData, TaskError
from tasks.keys import with_own_clauses

Loader = Callable[..., TaskData]  # (num_clauses, seed, **the task's own options)

TASKS: dict[str, Loader] = {
    "local": local.load,
    "manual": manual.load,
    "regs": regs.load,
    "regs_zh": regs_zh.load,
    "synthetic": synthetic.load,
    **{f"hub/{name}": partial(hub.load, name) for name in hub.ADAPTERS},
}


def load_task(name: str, num_clauses: int | None = None, seed: int = 0, **options: Any) -> TaskData:
    """The task `name`, or a seeded slice of it; `options` are the task's own (a folder, a data set).

    Raises TaskError for a name or an option that does not exist.
    """
    if name not in TASKS:
        raise TaskError(f"no task is called {name!r}; choose one of: {', '.join(sorted(TASKS))}")
    known = [option for option in inspect.signature(TASKS[name]).parameters if option != "seed"]
    for option in options:
        if option not in known:
            hint = " (your own documents: task=local path=...)" if option == "path" else ""
            raise TaskError(f"task {name} has no option {option!r}; it has: {', '.join(known)}{hint}")
    return with_own_clauses(TASKS[name](num_clauses=num_clauses, seed=seed, **options))
