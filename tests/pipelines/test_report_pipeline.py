"""`python -m pipelines.report`: the same digits from a run's files alone, clear words where they do not fit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Finished, run_folders

from eval.fields import decode
from eval.records import SCHEMA, AbilityRecord, EditRecord, RecordWriter
from pipelines import report
from pipelines.run import started
from reports.base import TaskFacts
from reports.text import md
from tasks.registry import load_task

ROOT = Path(__file__).resolve().parents[2]
NOT_NEEDED = ("torch", "transformers", "peft", "safetensors", "chromadb", "tasks.registry", "tasks.regs")
WRITTEN = ("summary.json", "report.html", "report.md", "tables/metrics.csv", "tables/comparison.tex")


def reported(patch: pytest.MonkeyPatch, *words: str) -> None:
    patch.setattr(sys, "argv", ["report", *words])
    report.main()


def refused(patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The sentence. The command must end with status 2 and say nothing else."""
    with pytest.raises(SystemExit) as stopped:
        reported(patch, *words)
    assert stopped.value.code == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    (line,) = seen.err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture
def runs(finished: Finished, tmp_path: Path) -> Path:
    """A copy of a runs folder with one finished comparison in it, which a test may change."""
    shutil.copytree(finished.folder.parent.parent, tmp_path / "runs", symlinks=True)
    return tmp_path / "runs"


def only(runs: Path) -> Path:
    (folder,) = run_folders(runs)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_everything_comes_out_as_the_first_time(
    finished: Finished, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Byte for byte: summary, pages, tables and figures; and the table on the screen. Only the path is new."""
    folder = only(runs)
    before = files_of(folder)
    assert set(WRITTEN) <= set(before)
    for name in before:
        if name.startswith(("summary", "report.", "tables/", "figures/")):
            (folder / name).unlink()
    for name, shown in (("report.html", str), ("report.md", md)):
        old, new = (shown(str(path)).encode() for path in (finished.folder, folder))
        before[name] = before[name].replace(old, new)
    monkeypatch.setattr("methods.backbone.load_backbone", None)
    reported(monkeypatch, "run=latest", f"runs_dir={runs}")
    after = files_of(folder)
    assert set(after) == set(before)
    assert [name for name in before if before[name] != after[name]] == []
    table, _, closing = capsys.readouterr().out.partition("report: ")
    assert table == finished.shown.partition("report: ")[0] != ""
    assert closing.split()[0] == str(folder / "report.html") and "report.md" in closing


def test_the_wall_time_is_the_runs_own(finished: Finished) -> None:
    state = json.loads((finished.folder / "run.json").read_text(encoding="utf-8"))
    assert finished.summary["wall_s"] == state["wall_s"] > 0


def test_the_task_is_kept_with_the_run(finished: Finished) -> None:
    body = json.loads((finished.folder / "task.json").read_text(encoding="utf-8"))
    assert decode(TaskFacts, body) == TaskFacts.of(load_task("regs", 6, 0))


def test_no_model_no_weights_and_no_task_files_are_needed(runs: Path, tmp_path: Path) -> None:
    """A process in which neither torch nor a model library can be imported, on a run without its weights."""
    folder = only(runs)
    before = (folder / "summary.json").read_bytes()
    for file in (folder / "fits").rglob("*"):
        if file.is_file() and file.name != "fit.json":
            file.unlink()
    code = (
        "import sys\n"
        f"for name in {NOT_NEEDED!r}:\n"
        "    sys.modules[name] = None\n"
        f"sys.argv = ['report', {f'run={folder}'!r}]\n"
        "from pipelines.report import main\n"
        "main()\n"
    )
    (folder / "summary.json").unlink()
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "summary.json").read_bytes() == before


@pytest.mark.parametrize("word", ["latest", "{id}", "regs/{id}", "{folder}"])
def test_a_run_is_found_by_folder_id_and_latest(runs: Path, word: str) -> None:
    folder = only(runs)
    found = report.find_run(word.format(id=folder.name, folder=folder), runs)
    assert found.resolve() == folder.resolve()


def test_a_task_with_a_slash_in_its_name_has_runs_too(runs: Path) -> None:
    folder = runs / "hub" / "obliqa" / "20300101-000000-99999999"
    shutil.copytree(only(runs), folder)
    assert report.find_run("hub/obliqa/20300101-000000-99999999", runs) == folder
    assert report.find_run(folder.name, runs) == folder
    assert set(report.saved_runs(runs).values()) == {folder, *runs.glob("regs/*")}


def test_an_id_that_two_tasks_share_is_not_guessed(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = only(runs)
    shutil.copytree(folder, runs / "manual" / folder.name)
    line = refused(monkeypatch, capsys, f"run={folder.name}", f"runs_dir={runs}")
    assert f"manual/{folder.name}, regs/{folder.name}" in line


def test_an_unknown_run_lists_the_nearest(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = only(runs)
    for name in ("20200101-000000-00000000", "20200102-000000-11111111", "20200103-000000-22222222", "zzzz"):
        shutil.copytree(folder, folder.with_name(name))
    line = refused(monkeypatch, capsys, f"run={folder.name[:-1]}x", f"runs_dir={runs}")
    shown = line.partition("the nearest are: ")[2].split(", ")
    assert shown[0] == f"regs/{folder.name}"
    assert len(shown) == len(set(shown)) == 3 and "regs/zzzz" not in shown
    assert "zzzz" in refused(monkeypatch, capsys, "run=zzz", f"runs_dir={runs}")


def test_no_run_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(monkeypatch, capsys, f"runs_dir={tmp_path / 'none'}")
    assert "holds no run" in line and "pipelines.compare" in line
    assert "run.json" in refused(monkeypatch, capsys, f"run={tmp_path}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rum=latest",), ("rum=latest", "no such setting", "run=", "runs_dir=", "mlflow=")),
        (("run=",), ("a value is missing", "run=latest")),
        (("latest",), ("latest", "no such setting")),
        (("mlflow=maybe",), ("mlflow=maybe", "true", "false")),
    ],
)
def test_a_wrong_word(
    words: tuple[str, ...],
    said: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = refused(monkeypatch, capsys, *words)
    assert [part for part in said if part not in line] == [], line


def test_help_names_every_setting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    reported(monkeypatch, "--help")
    text = capsys.readouterr().out
    assert all(f"{name}=" in text for name in ("run", "runs_dir", "mlflow"))


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def cut_records(folder: Path, keep: Callable[[bytes], bytes]) -> int:
    """Changes the last line of the records; returns its number."""
    records = folder / "records.jsonl"
    lines = records.read_bytes().splitlines(keepends=True)
    records.write_bytes(b"".join(lines[:-1]) + keep(lines[-1]))
    return len(lines)


def in_the_middle_of_a_character(line: bytes) -> bytes:
    return line[:40] + "é".encode()[:1]


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        (lambda line: line[: len(line) // 2], "not a whole JSON line"),
        (in_the_middle_of_a_character, "not a whole JSON line"),
        (lambda line: line.replace(b'"schema": %d' % SCHEMA, b'"schema": 99'), "another version"),
        (lambda line: line.replace(b'"round"', b'"rounds"'), "a field is missing or unknown"),
    ],
)
def test_a_cut_or_foreign_record_file_is_named_with_its_line(
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    keep: Callable[[bytes], bytes],
    said: str,
) -> None:
    folder = only(runs)
    number = cut_records(folder, keep)
    line = refused(monkeypatch, capsys, f"run={folder.name}", f"runs_dir={runs}")
    assert f"{folder / 'records.jsonl'}:{number}: " in line and said in line


def test_lines_that_are_gone_as_a_whole_are_missed(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = only(runs)
    number = cut_records(folder, lambda _line: b"")
    line = refused(monkeypatch, capsys, f"run={folder}")
    assert f"records.jsonl:{number - 1}: " in line and "timings" in line


@pytest.mark.parametrize("status", ["interrupted", "failed", "running"])
def test_an_unfinished_run_is_named(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: str
) -> None:
    folder = only(runs)
    edit_json(
        folder / "run.json", status=status, pid=2**22 + 1, stages_finished=["fit recall seed 0"]
    )  # no such pid
    line = refused(monkeypatch, capsys, f"run={folder}")
    assert str(folder / "run.json") in line and repr(status) in line and "fit recall seed 0" in line


def test_a_run_that_still_goes_on(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = only(runs)
    edit_json(folder / "run.json", status="running", pid=1, pid_started=started(1))
    assert "process 1;" in refused(monkeypatch, capsys, f"run={folder}")


@pytest.mark.parametrize(
    "name", ["run.json", "config.json", "environment.json", "records.jsonl", "fits/0/recall/fit.json"]
)
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_file_that_is_gone_or_cut_is_named(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, damage: str
) -> None:
    path = only(runs) / name
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:25])
    before = files_of(only(runs))
    assert str(path) in refused(monkeypatch, capsys, f"run={only(runs)}")
    assert files_of(only(runs)) == before  # nothing is written over


def test_a_run_without_task_facts_is_reported_with_fewer_words(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = only(runs)
    before = (folder / "summary.json").read_bytes()
    (folder / "task.json").unlink()
    reported(monkeypatch, f"run={folder}")
    assert (folder / "summary.json").read_bytes() == before
    assert "data licence" not in (folder / "report.md").read_text(encoding="utf-8")


def test_what_further_passes_recorded_is_reported(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of the lifecycle and the ability pass count where they are there."""
    folder = only(runs)
    writer = RecordWriter(folder / "records.jsonl")
    choices, likely = ("4", "5"), (-1.0, -2.0)
    writer.write(
        [
            AbilityRecord("recall", 0, arm, "multiple_choice", f"i{i}", "2 + 2?", "4", "", choices, likely)
            for arm in ("before", "after")
            for i in range(4)
        ]
    )
    writer.write([EditRecord("rag", 0, "write", (f"c{i}",), 2.0) for i in range(3)])
    writer.close()
    edit_json(folder / "run.json", further_recorded=11)
    reported(monkeypatch, f"run={folder}")
    methods = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["methods"]
    assert (methods["recall"]["ability/after"]["value"], methods["recall"]["ability/after"]["n"]) == (1.0, 4)
    assert methods["rag"]["lifecycle/write_s"]["value"] == 2.0
    assert methods["rag"]["ability/after"]["reason"] == "the ability pass was not run"
    assert methods["recall"]["lifecycle/write_s"]["reason"] == "the lifecycle pass was not run"
    assert 'id="ability"' in (folder / "report.html").read_text(encoding="utf-8")
    assert (folder / "figures" / "ability.svg").is_file()


def test_a_run_can_be_logged_again(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []

    def log(comparison: Any) -> None:
        logged.append(comparison.run_dir.name)

    monkeypatch.setattr("reports.mlflow_log.log_comparison", log)
    reported(monkeypatch, f"run={only(runs)}")
    assert logged == []
    reported(monkeypatch, f"run={only(runs)}", "mlflow=true")
    assert logged == [only(runs).name]


def test_what_is_kept_gives_the_same_figures(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without weights and in little room; an existing folder is not written over."""
    kept = tmp_path / "kept"
    reported(monkeypatch, f"run={only(runs)}", f"keep={kept}")
    assert not list(kept.rglob("*.safetensors")) and not (kept / "records.jsonl").exists()
    before = (only(runs) / "summary.json").read_bytes()
    (kept / "summary.json").unlink()
    reported(monkeypatch, f"run={kept}")
    assert (kept / "summary.json").read_bytes() == before
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["report", f"run={only(runs)}", f"keep={kept}"])
    with pytest.raises(SystemExit) as stopped:
        report.main()
    assert stopped.value.code == 2
    assert "exists already" in capsys.readouterr().err
