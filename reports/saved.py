"""Finished runs as the notebooks read them: from their folders alone, no model is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.fields import decode
from eval.records import read_records, records_file
from methods.base import FitReport
from reports.base import Comparison, ReportError, Summary, TaskFacts, read_summary

MEASURED = Path(__file__).resolve().parent / "results"  # summaries that came with the repository


def read_run(folder: Path) -> Comparison:
    """A run folder as reports take it. Raises ReportError where it is no finished run."""
    folder = folder.resolve()
    if not folder.is_dir():
        near = sorted(path.parent.as_posix() for path in folder.parent.glob("**/summary.json"))[-5:]
        hint = f"there are: {', '.join(near)}" if near else "make one with python -m pipelines.compare"
        raise ReportError(f"{folder}: no such run; {hint}")
    turns, costs = read_records(records_file(folder)) if records_file(folder).is_file() else ([], [])
    task = _json(folder / "task.json")
    fits: dict[str, list[FitReport]] = {}
    for file in sorted(folder.glob("fits/*/*/fit.json")):
        body = _json(file)
        curves = {stage: tuple(losses) for stage, losses in body.pop("curves", {}).items()}
        fits.setdefault(file.parent.name, []).append(FitReport(**body, curves=curves))
    return Comparison(
        summary=read_summary(folder),
        run_dir=folder,
        config=_json(folder / "config.json"),
        environment=_json(folder / "environment.json"),
        turns=turns,
        costs=costs,
        fits=fits,
        data=decode(TaskFacts, task) if task else None,
    )


def _json(path: Path) -> dict[str, Any]:
    """An object of a run folder; empty where the file is not there. Raises ReportError where it is cut."""
    try:
        body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path}: not valid JSON ({error}); the file was cut or edited") from error
    return body


def neighbours(run: Comparison, *others: Path) -> dict[str, Summary]:
    """Name -> summary of `run` and of every finished run on the same task, oldest first.

    Looks beside the run's own folder and below `others`. Runs on another preset are taken along: their names
    say so.
    """
    task = run.summary.get("task")
    files = {path.resolve() for base in (run.run_dir.parent, *others) for path in base.glob("*/summary.json")}
    found: dict[str, Summary] = {run.run_dir.name: run.summary}
    for file in sorted(files):
        summary = read_summary(file.parent)
        if summary.get("task") == task:
            found[file.parent.name] = summary
    return dict(sorted(found.items()))


def families(run: Comparison) -> Mapping[str, str]:
    """Clause id -> its near-miss family; a clause without one is a family of its own."""
    memories = run.data.memories if run.data is not None else ()
    return {memory.id: memory.family or memory.id for memory in memories}
