"""until=decided: slices one after another; behind each, what is decided, what is open and what that would take.

A slice is what a seed of `seeds=...` is: families, fits and answers. The run's folder holds them as ever, so that
the same command goes on behind those that are measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eval.looks import FIRST_LOOK
from pipelines.config import Resolved
from pipelines.progress import Display
from pipelines.results import measured_seeds, plan_of, read_saved, slice_stage, write_results
from pipelines.run import Run
from reports.decided import sentences, still_open
from tasks.base import TaskError


def until_decided(config: Resolved, run: Run, display: Display) -> Iterator[list[int]]:
    """Seeds to be measured, one at a time; ends where all is decided, the plan is done or the hours are.

    Before each further slice the results so far are written. Raises TaskError once it shows that the hours do not
    suffice for one look; what was measured stays.
    """
    for seed in range(config.seed, config.seed + config.seeds):
        if slice_stage(seed) in run.stages:
            continue
        done = len(measured_seeds(run.config, run.stages))
        if done:
            run.write_state()
            saved = read_saved(run.folder)
            plan = plan_of(saved)
            assert plan is not None
            for sentence in sentences(plan):
                display.say(sentence)
            if not still_open(plan) or _out_of_time(config, run, done, display):
                return
            write_results(saved)
        yield [seed]
        run.finish_stage(slice_stage(seed))


def is_over(summary: Mapping[str, Any]) -> bool:
    """Whether a run is at its end, not only paused."""
    plan = summary.get("decided")
    return plan is None or not still_open(plan) or plan["slices"] >= plan["most"]


def _out_of_time(config: Resolved, run: Run, done: int, display: Display) -> bool:
    """Whether the next slice would likely end behind max_hours. Raises TaskError where the first look would."""
    a_slice = run.wall_s / done / 3600
    if not config.max_hours:
        return False
    if done < FIRST_LOOK and a_slice * FIRST_LOOK > config.max_hours:
        raise TaskError(
            f"max_hours={config.max_hours:g} does not suffice for one look: a slice takes {a_slice:.2g} hours "
            f"and the first look {FIRST_LOOK} slices; give the same command max_hours={_up(a_slice * FIRST_LOOK)} "
            f"or more, it goes on behind the {done} measured"
        )
    if a_slice * (done + 1) > config.max_hours:
        display.say(
            f"max_hours={config.max_hours:g} leaves no time for a further slice ({a_slice:.2g} hours each); "
            "the same command with more hours goes on from here"
        )
        return True
    return False


def _up(hours: float) -> str:
    """A little more than `hours`, in two digits."""
    return f"{hours * 1.1:.2g}"
