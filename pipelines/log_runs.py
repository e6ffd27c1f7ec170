"""Finished runs into MLflow, each once: a run that no server took waits on disk, and is logged later."""

from __future__ import annotations

from pathlib import Path

from pipelines.ablation_results import comparison_of, is_ablation, write_ablation
from pipelines.results import read_saved, write_results
from pipelines.run import read_json, take_up
from reports.base import Comparison, LoggedRun, ReportError


def log_once(comparison: Comparison) -> LoggedRun:
    """Logs a run whose figures are on disk, and finishes it; what a cut attempt left in MLflow is taken away.

    Raises ReportError where MLflow does not take it, and RecordError where another process is at it.
    """
    from pipelines.progress import quiet_libraries
    from reports.mlflow_log import log_comparison  # takes 2 s

    quiet_libraries()
    run = take_up(comparison.run_dir)
    status = "unlogged"
    try:
        logged = log_comparison(comparison, once=True)
        status = "finished"
    finally:
        run.close(status)
    return logged


def status_at_end(asked: bool) -> str:
    """Of a run of which everything is measured and reported: it waits where it is still to be logged, here or,
    where MLflow is not installed, elsewhere."""
    return "unlogged" if asked else "finished"


def tried(comparison: Comparison) -> tuple[LoggedRun | None, ReportError | None]:
    """Logs a run, again where it was finished: (where it stands, None), or (None, why MLflow did not take it).

    The results stand either way, and are to be shown before the error is raised.
    """
    from pipelines.progress import quiet_libraries
    from reports.mlflow_log import log_comparison

    quiet_libraries()
    try:
        return log_once(comparison) if waits(comparison.run_dir) else log_comparison(comparison), None
    except ReportError as error:
        return None, error


def waits(folder: Path) -> bool:
    """Is everything of this run there but its place in MLflow?"""
    return read_json(folder / "run.json").get("status") == "unlogged"


def log_waiting(folder: Path) -> LoggedRun:
    """Logs a run that waits, its figures computed again from its records."""
    if is_ablation(folder):
        return log_once(comparison_of(write_ablation(folder)))
    return log_once(write_results(read_saved(folder)))
