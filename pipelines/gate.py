"""The gate of the literal recipe: a bug must never be reported as a refuted specification (DESIGN section 4).

Before a figure of `recall_spec` counts, the recipe learns a few clauses by heart with the run's own budget: it
must find the think segments that it was trained on and recite the clauses from their true vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

from methods.backbone import Backbone
from methods.base import MethodError
from pipelines.config import Resolved
from pipelines.fit_processes import FitJob, fit_missing, write_memories
from pipelines.making import key_of, make_method
from pipelines.progress import Display
from pipelines.run import GATE_FILE, Run, write_json
from pipelines.saved_fits import fit_or_load, load_fit

T = TypeVar("T")

SPEC = "recall_spec"
LEAST_SEGMENTS = 0.9  # hit@1 on trained segments
LEAST_VERBATIM = 0.95  # from the true vector
NUM_CLAUSES = 6


@dataclass(frozen=True)
class Passed:
    """What the recipe did on what it was trained on."""

    segment_hit_at_1: float
    verbatim_from_true_vector: float


class GateError(MethodError):
    """`recall_spec` did not learn what it was trained on: its figures say nothing of the specification."""


def gate(
    config: Resolved, run: Run, backbone: Backbone, display: Display, beside: Sequence[FitJob] = ()
) -> Passed:
    """Fits `recall_spec` on a few clauses, with the budget of the run. Raises GateError with the figures.

    beside: fits that are wanted whatever comes of it; as many as there are processes for go side by side with it.
    """
    job = FitJob(SPEC, SPEC, config.seed, refit="gate")
    folder = job.folder_in(run)
    report = load_fit(folder)
    if report is None:
        display.say(f"gate: {SPEC} must learn what it is trained on")
        task = config.task.load(config.seed)
        task = replace(task, memories=task.memories[:NUM_CLAUSES], rest=())
        write_memories(folder, task.memories)
        fit_missing(config, run, [job, *beside[: config.fit_processes - 1]], display)
        method = make_method(config, SPEC, task, config.seed, backbone.clone(), display, folder)
        key = key_of(config, SPEC, task, config.seed, backbone)
        report = fit_or_load(method, run, folder, task, job.stage, key, display.say)
    found = Passed(report.notes["segment_hit_at_1"], report.notes["verbatim_from_true_vector"])
    if found.segment_hit_at_1 < LEAST_SEGMENTS or found.verbatim_from_true_vector < LEAST_VERBATIM:
        raise GateError(
            f"gate: {SPEC} found {found.segment_hit_at_1:.2f} of its trained segments (needs {LEAST_SEGMENTS}) "
            f"and recited {found.verbatim_from_true_vector:.2f} of its memories from their vectors (needs "
            f"{LEAST_VERBATIM}); its figures would mean nothing: raise train.max_tokens"
        )
    return found


def gated(
    asked: Sequence[T],
    method_of: Callable[[T], str],
    config: Resolved,
    run: Run,
    backbone: Backbone,
    display: Display,
    beside: Sequence[FitJob] = (),
) -> list[T]:
    """What counts of `asked`: where `recall_spec` fails its gate, it is left out and the figures say why.

    beside: as in `gate`. Raises GateError where nothing else was asked for.
    """
    others = [item for item in asked if method_of(item) != SPEC]
    if len(others) == len(asked):
        return others
    try:
        write_json(run.folder / GATE_FILE, asdict(gate(config, run, backbone, display, beside)))
        return list(asked)
    except GateError as error:
        if not others:
            raise
        if SPEC not in run.left_out:
            display.say(f"left out: {error}")
            run.leave_out(SPEC, str(error))
        return others
