"""The passes that `evaluation=full` adds: ordinary ability, and changes to what was learnt."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eval.ability import run_ability
from eval.lifecycle import plan_lifecycle, run_lifecycle
from eval.records import AbilityRecord, EditRecord, LifecycleRecord
from methods.backbone import Backbone
from methods.base import FitReport, Method
from pipelines.config import Resolved
from pipelines.progress import Display
from pipelines.run import Run
from tasks.base import Memory, TaskData

Make = Callable[[str, Backbone, Path], Method]  # name, weights and folder of its own -> a method before its fit


def named_tasks(config: Resolved) -> dict[str, Any]:
    """lm-eval tasks by name. Called before anything is fitted too, so that a wrong name costs nothing."""
    names = tuple(config.evaluation.ability_tasks) if config.evaluation.ability else ()
    if not names:
        return {}
    from eval.harness import load_named_tasks

    return load_named_tasks(names)


def measure_ability(
    config: Resolved,
    run: Run,
    methods: Sequence[Method],
    task: TaskData,
    seed: int,
    backbone: Backbone,
    display: Display,
) -> None:
    """The ability pass. backbone: the untouched weights, measured once for all methods."""
    for method in methods:
        stage = f"ability {method.name} seed {seed}"
        if stage in run.stages:
            continue
        for records in run_ability(
            method,
            backbone,
            task,
            seed=seed,
            num_items=config.evaluation.ability_items,
            progress=display,
            done=[record for record in run.further if isinstance(record, AbilityRecord)],
            named_tasks=named_tasks(config),
            max_new_tokens=config.evaluation.max_new_tokens,
        ):
            run.add(records)
        run.finish_stage(stage)


@dataclass
class _Spares:
    """Makes methods that may be changed or fitted again, each in a folder of its own."""

    name: str
    fitted: Path  # where the fit was saved
    task: TaskData
    backbone: Backbone
    make: Make
    base: Path
    made: int = 0

    def _fresh(self) -> Method:
        self.made += 1
        folder = self.base / str(self.made)
        folder.mkdir()
        return self.make(self.name, self.backbone.clone(), folder)

    def copy(self) -> Method:
        method = self._fresh()
        method.load(self.fitted)
        return method

    def refit(self, memories: Sequence[Memory]) -> tuple[Method, FitReport]:
        method = self._fresh()
        return method, method.fit(memories, self.task.sft)


def change_memories(
    config: Resolved,
    run: Run,
    methods: Sequence[Method],
    task: TaskData,
    seed: int,
    backbone: Backbone,
    make: Make,
    display: Display,
) -> None:
    """The lifecycle pass. Fitted methods stay as they are: changes are made to copies from their saved fits."""
    whole = replace(config.task, num_clauses=0).load(seed)
    plan = plan_lifecycle(task, whole, seed, config.lifecycle)
    for method in methods:
        stage = f"lifecycle {method.name} seed {seed}"
        if stage in run.stages:
            continue
        with tempfile.TemporaryDirectory(prefix="recallbench-") as spare:
            spares = _Spares(method.name, run.fit_folder(seed, method.name), task, backbone, make, Path(spare))
            for records in run_lifecycle(
                method,
                plan,
                copy=spares.copy,
                refit=spares.refit,
                seed=seed,
                max_new_tokens=config.evaluation.max_new_tokens,
                batch_size=config.evaluation.batch_size,
                done=[
                    record
                    for record in run.further
                    if isinstance(record, EditRecord | LifecycleRecord)
                    and (record.method, record.seed) == (method.name, seed)
                ],
                progress=display,
            ):
                run.add(records)
        run.finish_stage(stage)
