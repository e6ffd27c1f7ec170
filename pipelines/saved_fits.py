"""A method's fit in its run folder: made once, restored ever after. fit.json comes last: without it, no fit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from eval.fields import decode
from methods.base import FitReport, Method
from pipelines.run import Run, write_json
from tasks.base import Conversation, Memory, TaskData


def save_fit(folder: Path, report: FitReport) -> None:
    """Marks the fit in `folder` as finished."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "fit.json", dataclasses.asdict(report))


def load_fit(folder: Path) -> FitReport | None:
    """The report of a fit that was finished here, else None."""
    file = folder / "fit.json"
    if not file.exists():
        return None
    return decode(FitReport, json.loads(file.read_text(encoding="utf-8")))


def saved_fits(folder: Path) -> set[tuple[int, str]]:
    """(seed, name) of every fit that a run folder holds; the name of an ablation's row may hold a slash."""
    paths = [file.parent.relative_to(folder / "fits") for file in folder.glob("fits/*/**/fit.json")]
    return {(int(path.parts[0]), "/".join(path.parts[1:])) for path in paths}


def fit_and_save(
    method: Method, folder: Path, memories: Sequence[Memory], sft: Sequence[Conversation]
) -> FitReport:
    """Fits the method and saves it in `folder`. The report notes on how many threads its seconds were taken."""
    import torch  # not above: reports read fits without it

    folder.mkdir(parents=True, exist_ok=True)
    report = method.fit(memories, sft)
    report = dataclasses.replace(report, notes={**report.notes, "threads": float(torch.get_num_threads())})
    method.save(folder)
    save_fit(folder, report)
    return report


def fit_or_load(method: Method, run: Run, folder: Path, task: TaskData, stage: str) -> FitReport:
    """Restores the fit that `folder` holds, or makes it and finishes `stage`; the report is the making's."""
    report = load_fit(folder)
    if report is None:
        report = fit_and_save(method, folder, task.memories, task.sft)
        run.finish_stage(stage)
    else:
        method.load(folder)
    return report
