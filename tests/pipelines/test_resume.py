"""The same command goes on where a run stopped, and ends with the records of a run that never stopped."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import SMALL, run_command, run_folders, use

from eval.records import CostRecord, RecordError, TurnRecord, read_records
from methods import checkpoint
from methods.backbone import Backbone
from methods.recall.method import RecallMethod
from methods.sft import SftMethod
from pipelines import run as runs
from pipelines.run import Run, config_hash, open_run

WORDS = (*SMALL, "run_methods=[recall,sft]", "mlflow=false")


def records_of(folder: Path) -> tuple[list[TurnRecord], list[tuple[Any, ...]]]:
    """Turns in order, and what was timed; the times themselves differ from run to run."""
    turns, costs = read_records(folder / "records.jsonl")
    return turns, [(r.method, r.seed, r.question_id, r.round) for r in costs]


def status_of(folder: Path) -> str:
    return str(json.loads((folder / "run.json").read_text(encoding="utf-8"))["status"])


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, pristine_lively: Backbone
) -> Iterator[tuple[list[TurnRecord], list[tuple[Any, ...]]]]:
    """The records of an uninterrupted run."""
    runs = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        use(patch, pristine_lively)
        run_command(patch, *WORDS, f"runs_dir={runs}")
    (folder,) = run_folders(runs)
    assert status_of(folder) == "finished"
    yield records_of(folder)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, pristine_lively: Backbone) -> None:
    use(monkeypatch, pristine_lively)


def raising(original: Any, calls_before: int, error: type[BaseException]) -> Any:
    """The original, until it has been called so often."""
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > calls_before:
            raise error("cut here")
        return original(*args, **kwargs)

    return wrapped


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("kind", "function", "calls_before", "error"),
    [
        (SftMethod, "fit", 0, KeyboardInterrupt),  # in the second method's fit
        (RecallMethod, "answer_batch", 2, KeyboardInterrupt),  # in the middle of the retention pass
        (SftMethod, "answer", 2, KeyboardInterrupt),  # in the middle of the cost pass
        (SftMethod, "answer_batch", 1, RuntimeError),  # a crash
    ],
)
def test_cut_and_continued(
    whole: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type,
    function: str,
    calls_before: int,
    error: type[BaseException],
) -> None:
    words = (*WORDS, f"runs_dir={tmp_path}")
    fits: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(kind, function, raising(getattr(kind, function), calls_before, error))
        if error is KeyboardInterrupt:
            with pytest.raises(SystemExit) as stopped:
                run_command(patch, *words)
            assert stopped.value.code == 130
        else:
            with pytest.raises(error, match="cut here"):
                run_command(patch, *words)
    (folder,) = run_folders(tmp_path)
    assert status_of(folder) == ("interrupted" if error is KeyboardInterrupt else "failed")
    turns, _ = records_of(folder)
    assert turns == whole[0][: len(turns)]
    assert len(turns) == {"fit": 0, "answer": len(whole[0])}.get(function, len(turns))
    assert function != "answer_batch" or 0 < len(turns) < len(whole[0])
    fitted = {file.parent.name for file in folder.glob("fits/0/*/fit.json")}

    with monkeypatch.context() as patch:
        for method in (RecallMethod, SftMethod):
            fit = method.fit
            patch.setattr(
                method, "fit", lambda self, *args, fit=fit: (fits.append(self.name), fit(self, *args))[1]
            )
        run_command(patch, *words)
    assert run_folders(tmp_path) == [folder]
    assert status_of(folder) == "finished"
    assert set(fits) == {"recall", "sft"} - fitted  # what was fitted is not fitted again
    assert records_of(folder) == whole


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("lost", [40, 3000])
def test_killed_while_writing(whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int) -> None:
    """A line cut in half, or a batch of which only the beginning reached the disk."""
    words = (*WORDS, f"runs_dir={tmp_path}")
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(RecallMethod, "answer_batch", raising(RecallMethod.answer_batch, 2, KeyboardInterrupt))
        run_command(patch, *words)
    (folder,) = run_folders(tmp_path)
    state = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    (folder / "run.json").write_text(json.dumps({**state, "status": "running"}), encoding="utf-8")
    records = folder / "records.jsonl"
    records.write_bytes(records.read_bytes()[:-lost])
    run_command(monkeypatch, *words)
    assert run_folders(tmp_path) == [folder]
    assert records_of(folder) == whole


@pytest.mark.usefixtures("model")
def test_killed_while_writing_timings(whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*WORDS, f"runs_dir={tmp_path}")
    run_command(monkeypatch, *words)
    (folder,) = run_folders(tmp_path)
    state = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    before = state["stages_finished"].index("timing seed 0")
    state |= {"status": "running", "stages_finished": state["stages_finished"][:before]}
    (folder / "run.json").write_text(json.dumps(state), encoding="utf-8")
    records = folder / "records.jsonl"
    records.write_bytes(records.read_bytes()[:-40])  # the last timing is cut, the others are whole
    run_command(monkeypatch, *words)
    assert records_of(folder) == whole


@pytest.mark.usefixtures("model")
def test_killed_at_random_moments(whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL, three times; `tests/torture/kills.py` is the long form, with every phase."""
    words = (*WORDS, f"runs_dir={tmp_path}")
    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)
    rng = random.Random(0)
    for _ in range(3):
        child = os.fork()
        if not child:
            try:
                run_command(monkeypatch, *words)
            finally:
                os._exit(0)
        time.sleep(rng.uniform(0.2, 2.0))
        os.kill(child, signal.SIGKILL)
        if not os.WIFSIGNALED(os.waitpid(child, 0)[1]):  # it was over
            break
    else:
        run_command(monkeypatch, *words)
    (folder,) = run_folders(tmp_path)
    assert status_of(folder) == "finished"
    assert records_of(folder) == whole
    assert not [*folder.rglob("*.part"), *folder.rglob("checkpoint*")]


# Which folder.

CONFIG: dict[str, Any] = {"task": {"name": "regs"}, "seed": 0, "runs_dir": "", "mlflow": True, "data_version": "1"}


def folder_after(tmp_path: Path, status: str, **changes: Any) -> tuple[Path, Path]:
    """(first folder, the folder of a second start)."""
    config = {**CONFIG, "runs_dir": str(tmp_path)}
    first = open_run(config)
    first.close(status)
    renamed = first.folder.with_name("20000101-000000-" + first.folder.name.split("-")[-1])
    first.folder.rename(renamed)  # as if it had been started some time ago
    second: Run = open_run({**config, **changes})
    second.close("running")
    assert (tmp_path / "latest").resolve() == second.folder.resolve()
    return renamed, second.folder


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_an_unfinished_run_is_continued(tmp_path: Path, status: str) -> None:
    first, second = folder_after(tmp_path, status)
    assert first == second


def opened_again(tmp_path: Path, **lock: Any) -> bool:
    """Does a run go on whose run.json says so of the process that wrote it? The folder is the same, or refused."""
    config = {**CONFIG, "runs_dir": str(tmp_path)}
    run = open_run(config)
    state = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    kept = {key: value for key, value in {**state, **lock}.items() if value is not None}
    (run.folder / "run.json").write_text(json.dumps(kept), encoding="utf-8")
    try:
        return open_run(config).folder == run.folder
    except RecordError as error:
        assert f"{run.folder} is being written by process {lock['pid']} " in str(error)
        return False


def test_a_run_that_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    """Known by its id and its start time; in a run.json from before that was kept, by its id alone."""
    other = psutil.Process(os.getppid())
    assert not opened_again(tmp_path / "new", pid=other.pid, pid_started=runs.started(other.pid))
    assert not opened_again(tmp_path / "old", pid=other.pid, pid_started=None)


def test_a_killed_run_goes_on_though_its_process_id_is_taken_again(tmp_path: Path) -> None:
    other = psutil.Process(os.getppid())
    assert opened_again(tmp_path, pid=other.pid, pid_started=f"{runs.started(other.pid)}0")


@pytest.mark.parametrize("started", ["own", None])
def test_a_killed_run_goes_on_once_its_process_has_ended(tmp_path: Path, started: str | None) -> None:
    """Before its parent has asked for its exit status, and after."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    lock = {"pid": child.pid, "pid_started": started and runs.started(child.pid)}
    assert not opened_again(tmp_path / "alive", **lock)
    child.kill()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert opened_again(tmp_path / "zombie", **lock)
    child.communicate()
    assert opened_again(tmp_path / "gone", **lock)


STARTING = """
import json, sys
from pipelines.run import open_run
from eval.records import RecordError
input()
try:
    print(open_run(json.loads(sys.argv[1])).folder.name, flush=True)
except RecordError as error:
    print("refused:", error, flush=True)
input()
"""


def test_of_runs_that_start_at_the_same_moment_one_gets_the_folder(tmp_path: Path) -> None:
    words = [sys.executable, "-c", STARTING, json.dumps({**CONFIG, "runs_dir": str(tmp_path)})]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    starts = [subprocess.Popen(words, text=True, cwd=runs.ROOT, **pipes) for _ in range(4)]  # type: ignore[call-overload]
    for child in starts:
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [child.stdout.readline() for child in starts]
    for child in starts:
        child.communicate("end\n")
    assert sum(line.startswith("refused:") for line in said) == 3, said
    assert len(run_folders(tmp_path)) == 1


def test_a_clock_that_is_put_back_changes_no_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest run is the one that is gone on with, and no folder is taken twice."""
    config = {**CONFIG, "runs_dir": str(tmp_path), "fresh": True}
    folders = []
    for now in ("20300101-000000", "20300101-000000", "20200101-000000", "20200101-000000"):
        monkeypatch.setattr(runs.time, "strftime", lambda _form, now=now: now)
        run = open_run(config)
        run.close("interrupted")
        folders.append(run.folder)
    assert folders == sorted(folders) and len(set(folders)) == 4
    assert open_run({**config, "fresh": False}).folder == folders[-1]


def test_a_fresh_run_is_a_new_one_and_stays_fresh(tmp_path: Path) -> None:
    config = {**CONFIG, "runs_dir": str(tmp_path)}
    first = open_run(config)
    first.close("interrupted")
    second = open_run({**config, "fresh": True})
    assert second.folder != first.folder and second.fresh and not first.fresh
    second.close("interrupted")
    again = open_run(config)  # the same command without the word goes on
    assert again.folder == second.folder and again.fresh


@pytest.mark.parametrize(("status", "measured"), [("paused", False), ("unlogged", True), ("failed", True)])
def test_a_run_that_paused_measures_on(tmp_path: Path, status: str, measured: bool) -> None:
    """One that only waits to be reported or logged does not."""
    config = {**CONFIG, "runs_dir": str(tmp_path)}
    run = open_run(config)
    run.stop_clock()
    run.close(status)
    again = open_run(config)
    assert again.folder == run.folder and (runs.MEASURED in again.stages) == measured


def test_after_a_finished_run_a_new_one_starts(tmp_path: Path) -> None:
    first, second = folder_after(tmp_path, "finished")
    assert first != second
    assert status_of(first) == "finished"


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"data_version": "2"}, {"model": "other"}, {"model_version": "2"}]
)
def test_other_settings_or_data_are_another_run(tmp_path: Path, changes: dict[str, Any]) -> None:
    first, second = folder_after(tmp_path, "interrupted", **changes)
    assert first != second


def test_where_results_go_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = folder_after(tmp_path, "interrupted", mlflow=False)
    assert first == second
    assert config_hash(CONFIG) == config_hash({**CONFIG, "runs_dir": "elsewhere"})
    before = config_hash(CONFIG)
    monkeypatch.setattr("pipelines.run.code_version", lambda: "changed")
    assert config_hash(CONFIG) != before


def test_earlier_attempts_count_as_wall_time(tmp_path: Path) -> None:
    config = {**CONFIG, "runs_dir": str(tmp_path)}
    run = open_run(config)
    run.started -= 100
    run.close("interrupted")
    again = open_run(config)
    assert again.wall_s >= 100
    again.close("finished")


def test_fits_that_end_at_the_same_moment_are_all_kept(tmp_path: Path) -> None:
    run = Run(tmp_path, {})
    names = [f"fit {n}" for n in range(200)]
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(run.finish_stage, names))  # raises what a worker raised
    run.close("finished")
    body = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert sorted(body["stages_finished"]) == sorted(names)


def test_timings_are_not_mixed_with_turns(tmp_path: Path) -> None:
    from methods.base import Usage

    run = open_run({**CONFIG, "runs_dir": str(tmp_path)})
    run.add([CostRecord("rag", 0, "q", 0, Usage(1, 1), 5, "rss")])
    run.close("interrupted")
    again = open_run({**CONFIG, "runs_dir": str(tmp_path)})
    assert (again.turns, len(again.costs)) == ([], 1)
    again.close("finished")


def test_another_general_corpus_is_another_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every method trains on it: a run is not continued, and no fit reused, after it has changed."""
    before = runs.code_version()
    assert before == runs.code_version()
    corpus = shutil.copytree(runs.GENERAL_CORPUS, tmp_path / "general")
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    monkeypatch.setattr(runs, "GENERAL_CORPUS", corpus)
    copied = runs.code_version()
    (corpus / "reading_rules" / "home.txt").write_text("Other rules.", encoding="utf-8")
    assert runs.code_version() != copied
