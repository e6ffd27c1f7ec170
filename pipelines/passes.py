"""The passes that `evaluation=full` adds: ordinary ability, and changes to what was learnt.

lm-eval takes 3 s to import: it is met only where it is asked for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eval.lifecycle import run_lifecycle
from eval.lifecycle_plan import LifecyclePlan, RefitSet, plan_lifecycle
from eval.records import AbilityRecord, EditRecord, LifecycleRecord
from methods.backbone import Backbone
from methods.base import FitReport, Method, Stored
from pipelines.config import Resolved
from pipelines.fit_processes import FitJob, fit_missing, not_made, write_memories
from pipelines.making import indexed_beside, key_of, make_method
from pipelines.packages import is_here
from pipelines.progress import Display
from pipelines.run import Run
from pipelines.saved_fits import fit_or_load
from tasks.base import Memory, TaskData, TaskError
from tasks.keys import key_problems
from tasks.validate import first_of_all


def named_tasks(config: Resolved) -> dict[str, Any]:
    """lm-eval tasks by name. Called before anything is fitted too, so that a wrong name costs nothing."""
    names = tuple(config.evaluation.ability_tasks) if config.evaluation.ability else ()
    if not names or not is_here("lm-eval"):
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
    if not is_here("lm-eval"):
        why = "ordinary ability is not measured, since lm-eval is not installed"
        if "ability" not in run.left_out:
            display.say(f"left out: {why}")
            run.leave_out("ability", why)
        return
    from eval.ability_pass import run_ability

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
    """One method's fits for the lifecycle: copies that may be changed, and refits, kept in the run folder.

    They hold the slice alone, so that growth counts from it.
    """

    config: Resolved
    run: Run
    name: str
    task: TaskData
    seed: int
    backbone: Backbone
    display: Display
    scratch: Path  # for the copies
    copies: int = 0

    def copy(self) -> Method:
        self.copies += 1
        folder = self.scratch / str(self.copies)
        folder.mkdir()
        method = self._made(self.task, folder)
        method.load(self.run.fit_folder(self.seed, self.name))
        self.forget_beside(method)
        return method

    def forget_beside(self, method: Method) -> None:
        beside = [memory.id for memory in indexed_beside(self.config, self.task, self.seed)]
        if beside and isinstance(method, Stored):
            method.forget(beside)

    def _made(self, task: TaskData, folder: Path) -> Method:
        backbone = self.backbone.clone()
        return make_method(self.config, self.name, task, self.seed, backbone, self.display, folder)

    def refit(self, sets: Mapping[RefitSet, Sequence[Memory]]) -> Iterator[tuple[Method, FitReport]]:
        """Fits on each set, side by side where the configuration says so; what an earlier attempt made is kept."""
        jobs = {refit: FitJob(self.name, self.name, self.seed, refit=refit) for refit in sets}
        missing = not_made(self.run, jobs.values())
        for refit, job in jobs.items():
            if job in missing:
                write_memories(job.folder_in(self.run), sets[refit])
        fit_missing(self.config, self.run, missing, self.display)
        for refit, job in jobs.items():  # loaded one at a time: nothing here holds on to one
            yield self._refitted(job, replace(self.task, memories=tuple(sets[refit]), rest=()))

    def _refitted(self, job: FitJob, task: TaskData) -> tuple[Method, FitReport]:
        folder = job.folder_in(self.run)
        method = self._made(task, folder)
        key = key_of(self.config, self.name, task, self.seed, self.backbone)
        return method, fit_or_load(method, self.run, folder, task, job.stage, key, self.display.say)


def lifecycle_of(config: Resolved, task: TaskData, seed: int) -> LifecyclePlan:
    """What the lifecycle pass changes and asks, beyond the slice too. Called before anything is fitted as well.

    Raises TaskError for a question that could be asked and not scored.
    """
    plan = plan_lifecycle(task, replace(config.task, num_clauses=0).load(seed), seed, config.lifecycle)
    asked = {qa.id: qa for found in (*plan.targets.values(), *plan.neighbours.values()) for qa in found}
    found = [problem for qa in asked.values() for problem in key_problems(qa)]
    if found:
        raise TaskError(f"task {task.name}: {first_of_all(found)}")
    return plan


def change_memories(
    config: Resolved,
    run: Run,
    methods: Sequence[Method],
    task: TaskData,
    seed: int,
    backbone: Backbone,
    display: Display,
) -> None:
    """The lifecycle pass. Changes are made to copies of the saved fits; fitted methods keep the slice alone."""
    plan = lifecycle_of(config, task, seed)
    for method in methods:
        stage = f"lifecycle {method.name} seed {seed}"
        if stage in run.stages:
            continue
        with tempfile.TemporaryDirectory(prefix="recallbench-") as spare:
            spares = _Spares(config, run, method.name, task, seed, backbone, display, Path(spare))
            spares.forget_beside(method)
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
