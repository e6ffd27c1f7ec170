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

from eval.records import RecordError
from pipelines.ablation_results import Ablation, comparison_of, is_ablation, text_of, write_ablation
from pipelines.cli import main_with
from pipelines.keep import keep
from pipelines.log_runs import log_waiting, tried, waits
from pipelines.results import read_saved, write_results
from pipelines.run import read_json, writer_of
from reports.base import Comparison, ReportError
from reports.text import redact

HELP = """usage: python -m pipelines.report [run=latest] [runs_dir=runs] [mlflow=false] [keep=FOLDER]
       python -m pipelines.report --log [runs_dir=runs]

  run=...        a run's folder, its id (the folder's name, or task/name), or latest
  runs_dir=...   where runs lie
  mlflow=true    logs the run to MLflow again
  keep=...       copies what the figures rest on, without weights, into a new folder: small enough to hand on
  --log          logs to MLflow every finished run that it did not take when the run ended

Computes summary.json, report.html, report.md, tables/ and figures/ (of an ablation: ablation.json, .csv and .md)
again from the records. No model is loaded.
"""


@dataclass(frozen=True)
class Options:
    """The words of the command."""

    run: str = "latest"
    runs_dir: str = "runs"
    mlflow: bool = False
    keep: str = ""
    log: bool = False


def saved_runs(runs_dir: Path) -> dict[str, Path]:
    """`task/name` -> the folder, for every run below `runs_dir`; a task's name may hold a slash (hub/obliqa)."""
    files = sorted(file for pattern in ("*/*/run.json", "*/*/*/run.json") for file in runs_dir.glob(pattern))
    folders = (file.parent for file in files)
    found = {folder.relative_to(runs_dir).as_posix(): folder for folder in folders}
    return {name: folder for name, folder in found.items() if not (runs_dir / name.split("/")[0]).is_symlink()}


def find_run(run: str, runs_dir: Path) -> Path:
    """The folder of a run. Raises ReportError naming the nearest ids where there is none."""
    if run == "latest":
        link = runs_dir / "latest"
        if link.is_dir():
            return runs_dir / os.readlink(link) if link.is_symlink() else link
    elif Path(run).is_dir():
        return Path(run)
    folders = saved_runs(runs_dir)
    if not folders:
        raise ReportError(
            f"run={run}: runs_dir={runs_dir} holds no run; make one with python -m pipelines.compare"
        )
    found = [name for name, folder in folders.items() if run in (name, folder.name)]
    if len(found) == 1:
        return folders[found[0]]
    names = {short: name for name, folder in folders.items() for short in (name, folder.name)}
    nearest = (names[short] for short in get_close_matches(run, names, n=6, cutoff=0.0))
    shown = list(dict.fromkeys(found or nearest))[:3]
    raise ReportError(f"run={run}: no such run in {runs_dir}; the nearest are: {', '.join(shown)}")


def check_finished(folder: Path) -> None:
    """Raises RecordError where the run still goes on or was cut."""
    path = folder / "run.json"
    state = read_json(path)
    status, writer = state.get("status"), writer_of(state)
    if status in ("finished", "unlogged"):
        return
    if writer is not None:
        raise RecordError(f"{path}: the run still goes on in process {writer}; report it once that has ended")
    stages = ", ".join(state.get("stages_finished", ())) or "nothing"
    num_turns = state.get("turns_recorded", 0)
    raise RecordError(
        f"{path}: the run is not finished (status {status!r}; finished: {stages}; {num_turns} "
        "turns recorded); start the same comparison again, it goes on from there"
    )


def main() -> None:
    """The command."""
    main_with(Options, lambda: HELP, report_and_show)


def report_and_show(options: Options) -> None:
    """Reports, logs to MLflow where asked to, prints the table."""
    if options.log:
        log_all(Path(options.runs_dir))
        return
    folder = find_run(options.run, Path(options.runs_dir))
    check_finished(folder)
    if is_ablation(folder):
        show_ablation(write_ablation(folder), options.mlflow)
    else:
        show_comparison(write_results(read_saved(folder)), options.mlflow)
    if options.keep:
        keep(folder, Path(options.keep))


def log_all(runs_dir: Path) -> None:
    """Logs what waits; a line a run."""
    waiting = [folder for folder in saved_runs(runs_dir).values() if waits(folder)]
    for folder in waiting:
        logged = log_waiting(folder)
        sys.stdout.write(f"{folder}: MLflow run {logged.run_id} in {redact(logged.tracking_uri)}\n")
    sys.stdout.write(f"{len(waiting)} runs logged\n")


def show_ablation(ablation: Ablation, to_mlflow: bool) -> None:
    """The rows' table and the verdicts on H5 and H6."""
    logged, refused = tried(comparison_of(ablation)) if to_mlflow else (None, None)
    sys.stdout.write(text_of(ablation))
    sys.stdout.write(f"\nevery figure: {ablation.saved.folder / 'ablation.json'}\n")
    if logged is not None:
        sys.stdout.write(f"MLflow: run {logged.run_id} in {logged.tracking_uri}; see it with: mlflow ui\n")
    if refused is not None:
        raise refused


def show_comparison(comparison: Comparison, to_mlflow: bool) -> None:
    """The methods' table and the verdicts."""
    from reports.terminal import show

    logged, refused = tried(comparison) if to_mlflow else (None, None)
    show(comparison, logged, sys.stdout)
    if refused is not None:
        raise refused


if __name__ == "__main__":
    main()
