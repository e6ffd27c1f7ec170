"""A method's fit in its run folder: made once, restored ever after. fit.json comes last: without it, no fit.

`fit.key` says what a fit was made of: settings, clauses, conversations, weights and code. Another run that wants
the same fit copies it from there.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from eval.fields import decode
from eval.records import RecordError
from methods.base import FitReport, Method, MethodError
from pipelines.run import Run, write_json
from tasks.base import TaskData
from tasks.files import flush_all, write_whole

KEY = "fit.key"
CHECKPOINTS = "checkpoints"  # in a fit's folder, while it trains
NOT_COPIED = ("fit.json", KEY, "fit.log", CHECKPOINTS, "chroma")  # what is a fit's mark, or of its own process


def save_fit(folder: Path, report: FitReport) -> None:
    """Marks the fit in `folder` as finished, once all of it is on the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    flush_all(folder)
    write_json(folder / "fit.json", dataclasses.asdict(report))


def load_fit(folder: Path) -> FitReport | None:
    """The report of a fit that was finished here, else None. Raises RecordError for one that is not whole."""
    file = folder / "fit.json"
    if not file.exists():
        return None
    try:
        return decode(FitReport, json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(
            f"{file}: is no whole fit report ({error}); remove it, and the fit is made anew"
        ) from error


def saved_fits(folder: Path) -> set[tuple[int, str]]:
    """(seed, name) of every fit that a run folder holds; the name of an ablation's row may hold a slash."""
    paths = [file.parent.relative_to(folder / "fits") for file in folder.glob("fits/*/**/fit.json")]
    return {(int(path.parts[0]), "/".join(path.parts[1:])) for path in paths}


def fit_of_another_run(key: str, runs_dir: Path, folder: Path) -> Path | None:
    """The folder of a finished fit with this key in any run but the one that `folder` lies in; None without."""
    for file in sorted(runs_dir.glob(f"**/{KEY}")) if key else ():
        finished = (file.parent / "fit.json").exists() and not folder.is_relative_to(file.parent)
        if finished and file.read_text(encoding="utf-8") == key:
            return file.parent
    return None


def copy_fit(source: Path, folder: Path, key: str) -> FitReport:
    """Takes a fit over whole; fits that lie in folders below it are others."""

    def left_out(parent: str, names: Collection[str]) -> list[str]:
        inner = [name for name in names if (Path(parent) / name / "fit.json").exists()]
        return [*inner, *(name for name in names if Path(parent) == source and name in NOT_COPIED)]

    shutil.copytree(source, folder, ignore=left_out, dirs_exist_ok=True)
    report = load_fit(source)
    assert report is not None
    write_whole(folder / KEY, key)
    save_fit(folder, report)
    return report


def fit_threads() -> int:
    """CPU threads of a fit: a third of what there are, so that three methods fill a machine.

    Whatever goes on beside it: on other numbers of threads the same settings end in other weights
    (docs/EXPERIMENTS_LOG.md, "Noise of a fit").
    """
    import torch  # not above: reports read fits without it

    return max(1, torch.get_num_threads() // 3)


@contextmanager
def on_fit_threads() -> Iterator[int]:
    """torch computes on `fit_threads()` threads inside."""
    import torch

    all_threads, threads = torch.get_num_threads(), fit_threads()
    torch.set_num_threads(threads)
    try:
        yield threads
    finally:
        torch.set_num_threads(all_threads)


def fit_and_save(
    method: Method, folder: Path, task: TaskData, key: str, runs_dir: Path | None, say: Callable[[str], None]
) -> FitReport:
    """Fits the method and saves it in `folder`. The report notes on how many threads its seconds were taken.

    runs_dir: where another run may hold the same fit, which is then taken over and said; None: nowhere.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = fit_of_another_run(key, runs_dir, folder) if runs_dir else None
    if source is not None:
        say(f"{method.name}: the fit of {source} is the same and taken over; fresh=true makes it anew")
        restore(method, source)
        return copy_fit(source, folder, key)
    with on_fit_threads() as threads:
        report = method.fit(task.memories, task.sft)
    report = dataclasses.replace(report, notes={**report.notes, "threads": float(threads)})
    method.save(folder)
    write_whole(folder / KEY, key)
    save_fit(folder, report)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return report


def fit_or_load(
    method: Method, run: Run, folder: Path, task: TaskData, stage: str, key: str, say: Callable[[str], None]
) -> FitReport:
    """Restores the fit that `folder` holds, or makes it and finishes `stage`; the report is the making's."""
    report = load_fit(folder)
    if report is None:
        report = fit_and_save(method, folder, task, key, None if run.fresh else run.runs_dir, say)
        run.finish_stage(stage)
    else:
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # of a fit that was killed at its very end
        restore(method, folder)
    return report


def restore(method: Method, folder: Path) -> None:
    """Loads a saved fit. Raises MethodError naming the folder where it is damaged."""
    from safetensors import SafetensorError

    try:
        method.load(folder)
    except MethodError:
        raise
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise MethodError(
            f"{folder}: the saved fit of {method.name} cannot be read ({type(error).__name__}: {error}); remove "
            "that folder and give the same command again: it is fitted anew, and nothing else is"
        ) from error
