"""What a machine can do to a run costs one sentence, and the same command goes on once it is put right."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from commands import METHODS, SMALL, Finished, run_command, run_folders, use

from eval.records import RecordWriter, TurnRecord, read_records
from methods.backbone import Backbone
from methods.base import MethodError
from methods.recall.method import RecallMethod
from methods.recall.recipe import make_bank
from methods.recall.spec import SpecRecallMethod
from methods.setup import MethodSetup
from methods.sft import SftMethod
from pipelines import fit_processes, footprint, report
from pipelines.children import MARK
from pipelines.config import TaskChoice, saved_config
from pipelines.faults import sentence_of
from pipelines.fit_processes import FitJob
from pipelines.making import load_of_run
from pipelines.progress import Display
from pipelines.run import Run
from tasks.base import TaskData

WORDS = (*SMALL, "run_methods=[recall,sft]", "mlflow=false")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, pristine_lively: Backbone) -> None:
    use(monkeypatch, pristine_lively)


def failed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The sentence: the last line on the error stream, with status 2 and no traceback."""
    with pytest.raises(SystemExit) as stopped:
        run_command(monkeypatch, *words)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said.splitlines()[-1]


# The disk.


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Every write beyond it fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("full_in", ["fit", "dialogues"])
def test_a_disk_that_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], full_in: str
) -> None:
    """No half of a record stays, and once there is room the run ends as if there always had been."""
    words = (*WORDS, f"runs_dir={tmp_path / 'runs'}")
    with monkeypatch.context() as patch:
        cls, name = (SftMethod, "fit") if full_in == "fit" else (RecallMethod, "answer_batch")
        original = getattr(cls, name)

        def filling(self: Any, *args: Any) -> Any:
            found = original(self, *args)
            (folder,) = run_folders(tmp_path / "runs")
            size = (folder / "records.jsonl").stat().st_size
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 500, hard))
            return found

        patch.setattr(cls, name, filling)
        with files_of_at_most(resource.RLIM_INFINITY):
            said = failed(monkeypatch, capsys, *words)
    assert "the disk is full" in said and "the same command goes on from there" in said
    (folder,) = run_folders(tmp_path / "runs")
    records = folder / "records.jsonl"
    assert records.read_bytes()[-1:] in (b"", b"\n")
    run_command(monkeypatch, *words)
    assert run_folders(tmp_path / "runs") == [folder]
    run_command(monkeypatch, *WORDS, f"runs_dir={tmp_path / 'other'}")
    (whole,) = run_folders(tmp_path / "other")
    assert turns_of(folder) == turns_of(whole)
    assert not list(folder.rglob("*.part"))


def turns_of(folder: Path) -> list[TurnRecord]:
    return read_records(folder / "records.jsonl")[0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_device_without_room_is_told_by_its_error(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").symlink_to("/dev/full")
    writer = RecordWriter(tmp_path / "records.jsonl")
    with pytest.raises(OSError, match="No space left") as caught:
        writer.write(finished.turns[:1])
    assert "the disk is full" in str(sentence_of(caught.value))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder in which nobody may write, not even root")
@pytest.mark.usefixtures("model")
def test_a_folder_that_may_not_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = failed(monkeypatch, capsys, *WORDS, "runs_dir=/proc/self/runs")
    assert said.startswith("error: runs_dir=/proc/self/runs: no run can be written there")
    assert "choose another folder" in said


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_file_that_may_not_be_written_is_named(code: int) -> None:
    said = sentence_of(OSError(code, os.strerror(code), "/there/records.jsonl"))
    assert said is not None and said.startswith("/there/records.jsonl: may not be written")


# Memory.


def test_memory_that_runs_out_is_one_sentence() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.zeros(1 << 55, dtype=torch.uint8)
    for error in (caught.value, MemoryError(), torch.cuda.OutOfMemoryError("CUDA out of memory. Tried 2 GiB")):
        said = sentence_of(error)
        assert said is not None and said.startswith("memory ran out") and "train.batch_tokens" in said
    assert sentence_of(RuntimeError("something else")) is None


def jobs(*names: str) -> list[FitJob]:
    return [FitJob(name, name, 0) for name in names]


def saying(monkeypatch: pytest.MonkeyPatch, module: Any, code: str) -> None:
    """The module's children run this code in place of their own, on the CPU."""
    monkeypatch.setattr(module, "saved_config", lambda _folder: SimpleNamespace(device="cpu"))
    monkeypatch.setattr(module, "command_of", lambda *_args: [sys.executable, "-c", f"import os, sys\n{code}"])


def test_a_child_that_the_system_ends_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = f"os.kill(os.getpid(), {int(signal.SIGKILL)})"
    saying(monkeypatch, fit_processes, killed)
    with pytest.raises(MethodError, match=r"^fitting sft: it was killed from outside, .*memory.*fit_processes=1"):
        fit_processes.fit_apart(Run(tmp_path, {}), jobs("sft"), 1, Display())
    saying(monkeypatch, footprint, killed)
    with pytest.raises(MethodError, match=r"^measuring the memory of sft: it was killed from outside"):
        footprint.footprints(tmp_path, 0, ["sft"], Display())


# What children say.

NOISE = (
    "for stream in (sys.stdout, sys.stderr):\n"
    "    stream.write('x' * 1_000_000 + '\\n')\n"
    "    stream.write('{\"peak_bytes\": 1}\\n')\n"
    f"    stream.write('{MARK}no JSON\\n{MARK}[1, 2]\\n{MARK}\\n')\n"
    "    stream.flush()\n"
)


def test_a_child_that_says_much_and_odd_things_fits_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a pipe holds, on both streams; marked lines that are no JSON, or no fit's."""
    saying(monkeypatch, fit_processes, f"{NOISE}print('{MARK}{{\"odd\": 1}}')\n")
    run = Run(tmp_path, {})
    fit_processes.fit_apart(run, jobs("a", "b"), 2, Display())
    assert sorted(run.stages) == ["fit a seed 0", "fit b seed 0"]
    logged = (run.fit_folder(0, "a") / "fit.log").read_text(encoding="utf-8")
    assert logged.count("x" * 1_000_000) == 2 and f"{MARK}no JSON" in logged


def test_a_memory_is_read_among_all_that_libraries_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"peak_bytes": 7, "kind": "rss", "peaks_bytes": [5, 7], "reserved_bytes": None}
    saying(monkeypatch, footprint, f"{NOISE}print({MARK + json.dumps(said)!r})\n{NOISE}")
    found = footprint.footprints(tmp_path, 0, ["a"], Display())
    assert found["a"].peaks_bytes == (5, 7)
    saying(monkeypatch, footprint, "raise SystemExit(1)")  # what was measured is not measured again
    assert footprint.footprints(tmp_path, 0, ["a"], Display()) == found
    saying(monkeypatch, footprint, "pass")
    with pytest.raises(RuntimeError, match="measuring the memory of b failed"):
        footprint.footprints(tmp_path, 0, ["a", "b"], Display())


def test_a_child_ends_with_the_process_that_started_it() -> None:
    """At the next thing it says: nobody reads it."""
    code = "from pipelines.children import say\ninput()\nwhile True: say(stage='s', done=1, total=2)"
    words = [sys.executable, "-c", code]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None and child.stdin is not None and child.stderr is not None
    child.stdout.close()
    child.stdin.write(b"go\n")
    child.stdin.close()
    assert child.wait(60) == 1
    assert b"Traceback" not in child.stderr.read()
    child.stderr.close()


# Damaged files.


@pytest.fixture
def cut_run(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pristine_lively: Backbone
) -> tuple[Path, tuple[str, ...]]:
    """A run that was cut in its timings, and the command that goes on with it."""
    use(monkeypatch, pristine_lively)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", finished.mlflow_uri)
    folder = tmp_path / "runs" / "regs" / finished.folder.name
    shutil.copytree(finished.folder, folder)
    state = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    left = [stage for stage in state["stages_finished"] if stage != "measured" and not stage.startswith("timing")]
    (folder / "run.json").write_text(json.dumps(state | {"status": "failed", "stages_finished": left}))
    words = (*SMALL, f"run_methods=[{','.join(METHODS)}]", f"runs_dir={tmp_path / 'runs'}", "mlflow=false")
    return folder, words


def without_its_end(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-30])


DAMAGES: list[tuple[str, Callable[[Path], None], str]] = [
    (
        "fits/0/recall/bank/bank.safetensors",
        without_its_end,
        "fits/0/recall: the saved fit of recall cannot be read",
    ),
    ("fits/0/recall/bank/bank.json", without_its_end, "fits/0/recall: the saved fit of recall cannot be read"),
    ("fits/0/rag/index.json", without_its_end, "fits/0/rag: the saved fit of rag cannot be read"),
    (
        "fits/0/sft/adapters/sft/adapter_model.safetensors",
        without_its_end,
        "fits/0/sft: the saved fit of sft cannot be read",
    ),
    ("fits/0/sft/fit.json", without_its_end, "fits/0/sft/fit.json: is no whole fit report"),
    ("run.json", without_its_end, "run.json:"),
    ("config.json", without_its_end, "config.json:"),
    ("environment.json", without_its_end, "environment.json:"),
    (
        "records.jsonl",
        lambda file: file.write_bytes(b"{" + file.read_bytes()),
        "records.jsonl:1: not a whole JSON",
    ),
]


@pytest.mark.parametrize(("file", "damage", "said"), DAMAGES, ids=[case[0] for case in DAMAGES])
def test_a_damaged_file_is_named(
    cut_run: tuple[Path, tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: str,
    damage: Callable[[Path], None],
    said: str,
) -> None:
    folder, words = cut_run
    damage(folder / file)
    sentence = failed(monkeypatch, capsys, *words)
    assert f"{folder}/{said}" in sentence, sentence


def test_a_fit_whose_folder_is_removed_is_made_anew(
    cut_run: tuple[Path, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, finished: Finished
) -> None:
    folder, words = cut_run
    shutil.rmtree(folder / "fits" / "0" / "sft")
    shutil.rmtree(folder / "fits" / "0" / "rag" / "chroma")  # what was a database is made from the index
    run_command(monkeypatch, *words)
    assert run_folders(folder.parents[1]) == [folder]
    turns, costs = read_records(folder / "records.jsonl")
    assert turns == finished.turns and len(costs) == len(finished.costs)
    weights = "fits/0/sft/adapters/sft/adapter_model.safetensors"
    assert (folder / weights).read_bytes() == (finished.folder / weights).read_bytes()


def test_a_model_that_was_changed_under_its_run_is_refused(finished: Finished, tmp_path: Path) -> None:
    """Where a process of its own loads it: by its weights, whatever the folder is called."""
    for file in ("config.json", "environment.json"):
        shutil.copyfile(finished.folder / file, tmp_path / file)
    config = saved_config(tmp_path)
    version = load_of_run(config, tmp_path, "cpu").fingerprint
    body = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert body["model_version"] == version
    (tmp_path / "config.json").write_text(json.dumps(body | {"model_version": "0" * 12}), encoding="utf-8")
    told = f"^model=tiny: its weights, tokenizer or template are not those .*fingerprint {'0' * 12}, now {version}"
    with pytest.raises(MethodError, match=told):
        load_of_run(config, tmp_path, "cpu")


def test_a_model_that_was_changed_is_refused_when_memories_are_written(
    lively: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where keys come from the untouched model they would be another model's."""
    memories = TaskChoice("regs", 6).load(0).memories
    fitted = SpecRecallMethod(MethodSetup(replace(lively.clone(), origin=None)))
    fitted.bank = make_bank(lively, memories[:3], 1, 0)
    other = replace(lively.clone(), fingerprint="changed")
    monkeypatch.setattr("methods.recall.spec.load_backbone", lambda *_args: other)
    with pytest.raises(MethodError, match="now changed"):
        fitted.write(memories[3:4])
    assert len(fitted.bank) == 4  # the null memory too


# Questions that nothing could score.


@pytest.mark.usefixtures("model")
def test_a_question_that_only_the_lifecycle_asks_is_refused_before_the_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load = TaskChoice.load

    def loading(self: TaskChoice, seed: int) -> TaskData:
        task = load(self, seed)
        if self.num_clauses:
            return task
        return replace(task, questions=tuple(replace(qa, answer="...", aliases=()) for qa in task.questions))

    monkeypatch.setattr(TaskChoice, "load", loading)
    words = (*WORDS, "evaluation.lifecycle=true", f"runs_dir={tmp_path / 'runs'}")
    said = failed(monkeypatch, capsys, *words)
    assert "nothing is left of '...' to compare with" in said
    assert not (tmp_path / "runs").exists()


# MLflow.


@pytest.mark.usefixtures("model")
def test_a_server_that_is_gone_costs_a_sentence_and_the_run_is_logged_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    words = (*SMALL, "run_methods=[sft]", f"runs_dir={tmp_path / 'runs'}")
    with pytest.raises(SystemExit) as stopped:
        run_command(monkeypatch, *words)
    seen = capsys.readouterr()
    assert stopped.value.code == 2 and "python -m pipelines.report --log" in seen.err.splitlines()[-1]
    assert "report.html" in seen.out  # the table is shown all the same
    (folder,) = run_folders(tmp_path / "runs")

    def status() -> str:
        return str(json.loads((folder / "run.json").read_text(encoding="utf-8"))["status"])

    def parents(uri: str) -> list[str]:
        client = MlflowClient(tracking_uri=uri)
        found = client.search_runs([e.experiment_id for e in client.search_experiments()])
        return [run.info.status for run in found if "mlflow.parentRunId" not in run.data.tags]

    assert status() == "unlogged"
    kept = shutil.copytree(tmp_path / "runs", tmp_path / "kept", symlinks=True)
    uri = f"sqlite:///{tmp_path / 'later.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for logged in (1, 0):
        monkeypatch.setattr(sys, "argv", ["report", "--log", f"runs_dir={tmp_path / 'runs'}"])
        report.main()
        assert capsys.readouterr().out.splitlines()[-1] == f"{logged} runs logged"
        assert (status(), parents(uri)) == ("finished", ["FINISHED"])
    monkeypatch.setattr(SftMethod, "fit", None)  # the same command logs too, and makes nothing anew
    run_command(monkeypatch, *words[:-1], f"runs_dir={kept}")
    assert len(run_folders(kept)) == 1 and parents(uri) == ["FINISHED"]  # it stands there already


@pytest.mark.slow
def test_three_runs_that_are_logged_at_once_to_a_new_file(finished: Finished, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri}
    children = []
    for number in range(3):
        folder = tmp_path / f"{number}" / "regs" / f"run{number}"
        shutil.copytree(finished.folder, folder)
        words = [sys.executable, "-m", "pipelines.report", f"run={folder}", "mlflow=true"]
        children.append(subprocess.Popen(words, cwd=Path(report.__file__).parents[1], env=environment))
    assert [child.wait() for child in children] == [0, 0, 0]
    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert len(runs) == 3 * (1 + len(METHODS)) and {run.info.status for run in runs} == {"FINISHED"}
