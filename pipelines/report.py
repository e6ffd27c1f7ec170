"""Report a finished run again: `python -m pipelines.report run=latest`.

Every number, table, figure and page is computed from what the run folder holds, without a model, and comes
out as the first time, to the last digit.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from glob import glob
from pathlib import Path

from eval.lm_eval_log import is_log
from eval.records import RecordError
from pipelines.ablation_results import Ablation, comparison_of, is_ablation, text_of, write_ablation
from pipelines.against import compare_folders
from pipelines.cli import main_with
from pipelines.keep import keep
from pipelines.log_runs import log_waiting, tried, waits
from pipelines.packages import is_here
from pipelines.pooled import pool
from pipelines.results import read_saved, write_results
from pipelines.run import read_json, writer_of
from reports.base import Comparison, ReportError
from reports.text import redact
from reports.two_runs import text_of as text_of_two

HELP = """usage: python -m pipelines.report [run=latest] [runs_dir=runs] [mlflow=false] [keep=FOLDER]
       python -m pipelines.report run=A against=B
       python -m pipelines.report runs=A,B,C
       python -m pipelines.report --log [runs_dir=runs]

  run=...        a run's folder, its id (the folder's name, or task/name), or latest
  against=...    a second run, compared with the first question by question; both may be lm-eval's sample logs
                 (samples_*.jsonl of lm_eval --log_samples, or the folder that holds them)
  runs=...       several runs of one comparison, each with seeds of its own, as one report; or a pattern such
                 as regs/2026*
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
    against: str = ""
    runs: str = ""
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
    if status in ("finished", "unlogged", "paused"):  # paused: out of hours before all was decided
        return
    if writer is not None:
        raise RecordError(f"{path}: the run still goes on in process {writer}; report it once that has ended")
    finished = state.get("stages_finished")
    stages = ", ".join(map(str, finished)) if isinstance(finished, list) and finished else "nothing"
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
    asked = "mlflow=true" if options.mlflow else "--log"
    if (options.mlflow or options.log) and not is_here("mlflow"):
        raise ReportError(
            f"{asked}: MLflow is not installed here; leave the word out, or install the package mlflow"
        )
    if options.log:
        log_all(Path(options.runs_dir))
        return
    if options.against:
        show_against(options)
        return
    if options.runs:
        show_pooled(options)
        return
    folder = find_run(options.run, Path(options.runs_dir))
    check_finished(folder)
    if is_ablation(folder):
        show_ablation(write_ablation(folder), options.mlflow)
    else:
        show_comparison(write_results(read_saved(folder)), options.mlflow)
    if options.keep:
        keep(folder, Path(options.keep))


def show_against(options: Options) -> None:
    """What two runs, or two logs of lm-eval, say about each other."""
    if options.runs or options.keep or options.mlflow:
        raise ReportError(
            "against=... prints a comparison of two runs; leave out runs=..., keep=... and mlflow=true"
        )
    runs_dir = Path(options.runs_dir)
    sides = [
        Path(name) if is_log(Path(name)) else _finished(name, runs_dir) for name in (options.run, options.against)
    ]
    found = compare_folders(*sides)
    sys.stdout.write(text_of_two(found.names, found.rows, found.differs, found.seeds))


def show_pooled(options: Options) -> None:
    """One report over several runs."""
    if options.run != Options.run or options.keep:
        raise ReportError("runs=... makes one report over several runs; leave out run=... and keep=...")
    runs_dir = Path(options.runs_dir)
    named = [folder.resolve() for name in options.runs.split(",") if name for folder in _named(name, runs_dir)]
    if not named:
        raise ReportError(f"runs={options.runs} names no run; give their ids, with commas in between")
    show_comparison(write_results(pool(list(dict.fromkeys(named)), runs_dir)), options.mlflow)


def _named(name: str, runs_dir: Path) -> list[Path]:
    """The finished run of this name, or those of a pattern; below a pattern other folders are passed over."""
    if not any(char in name for char in "*?["):
        return [_finished(name, runs_dir)]
    found = [folder for base in (Path(), runs_dir) for folder in sorted(base.glob(name))] if name[0] != "/" else []
    found = found or [Path(path) for path in sorted(glob(name))]
    folders = [folder for folder in found if (folder / "run.json").exists() and not folder.is_symlink()]
    if not folders:
        raise ReportError(f"runs={name}: no run folder has such a name; give their ids, with commas in between")
    for folder in folders:
        check_finished(folder)
    return folders


def _finished(name: str, runs_dir: Path) -> Path:
    folder = find_run(name, runs_dir)
    check_finished(folder)
    return folder


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
