"""Report a finished run again: `python -m pipelines.report run=latest`.

Every number, table, figure and page is computed from what the run folder holds, without a model, and comes
out as the first time, to the last digit.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import psutil

from eval.records import RecordError
from pipelines.cli import guarded, options_of
from pipelines.results import read_json, read_saved, write_results
from reports.base import Comparison, LoggedRun, ReportError

HELP = """usage: python -m pipelines.report [run=latest] [runs_dir=runs] [mlflow=false]

  run=...        a run's folder, its id (the folder's name, or task/name), or latest
  runs_dir=...   where runs lie
  mlflow=true    logs the run to MLflow again

Computes summary.json, report.html, report.md, tables/ and figures/ again from the records. No model is loaded.
"""


@dataclass(frozen=True)
class Options:
    """The words of the command."""

    run: str = "latest"
    runs_dir: str = "runs"
    mlflow: bool = False


def find_run(run: str, runs_dir: Path) -> Path:
    """The folder of a run. Raises ReportError naming the nearest ids where there is none."""
    folders = sorted(file.parent for file in runs_dir.glob("*/*/run.json") if not file.parents[1].is_symlink())
    if run == "latest":
        link = runs_dir / "latest"
        if link.is_dir():
            return runs_dir / os.readlink(link) if link.is_symlink() else link
    elif Path(run).is_dir():
        return Path(run)
    found = [folder for folder in folders if run in (folder.name, f"{folder.parent.name}/{folder.name}")]
    if len(found) == 1:
        return found[0]
    if not folders:
        raise ReportError(
            f"run={run}: runs_dir={runs_dir} holds no run; make one with python -m pipelines.compare"
        )
    ids = {name: folder for folder in folders for name in (folder.name, f"{folder.parent.name}/{folder.name}")}
    nearest = [ids[name] for name in get_close_matches(run, ids, n=6, cutoff=0.0)]
    shown = dict.fromkeys(f"{folder.parent.name}/{folder.name}" for folder in found or nearest)
    raise ReportError(f"run={run}: no such run in {runs_dir}; the nearest are: {', '.join(list(shown)[:3])}")


def check_finished(folder: Path) -> None:
    """Raises RecordError where the run still goes on or was cut."""
    path = folder / "run.json"
    state = read_json(path)
    status, pid = state.get("status"), state.get("pid")
    if status == "finished":
        return
    if status == "running" and isinstance(pid, int) and psutil.pid_exists(pid):
        raise RecordError(f"{path}: the run still goes on in process {pid}; report it once that has ended")
    stages = ", ".join(state.get("stages_finished", ())) or "nothing"
    num_turns = state.get("turns_recorded", 0)
    raise RecordError(
        f"{path}: the run is not finished (status {status!r}; finished: {stages}; {num_turns} "
        "turns recorded); start the same comparison again, it goes on from there"
    )


def report(run: str, runs_dir: Path) -> Comparison:
    """All results of a saved run, written again."""
    folder = find_run(run, runs_dir)
    check_finished(folder)
    return write_results(read_saved(folder))


def main() -> None:
    """The command."""
    words = sys.argv[1:]
    if any(word in ("-h", "--help") for word in words):
        sys.stdout.write(HELP)
        return
    options = options_of(Options, words)
    guarded(lambda: report_and_show(options))


def report_and_show(options: Options) -> None:
    """Reports, logs to MLflow where asked to, prints the table."""
    from reports.terminal import show

    comparison = report(options.run, Path(options.runs_dir))
    logged: LoggedRun | None = None
    if options.mlflow:
        from pipelines.progress import quiet_libraries
        from reports.mlflow_log import log_comparison

        quiet_libraries()
        logged = log_comparison(comparison)
    show(comparison, logged, sys.stdout)


if __name__ == "__main__":
    main()
