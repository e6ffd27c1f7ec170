"""`pipelines.export`: a run's recall model leaves the project; what is wrong costs one sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from commands import Finished, said_by_every_method

from methods.backbone import Backbone
from pipelines import export


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch, pristine_lively: Backbone) -> None:
    said_by_every_method(monkeypatch, pristine_lively)


def command(patch: pytest.MonkeyPatch, *words: str) -> None:
    patch.setattr(sys, "argv", ["export", *words])
    export.main()


def test_a_fit_of_a_run_becomes_a_folder_that_recalls(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path / "a folder" / "out"
    command(monkeypatch, f"runs_dir={finished.folder.parent.parent}", f"to={folder}")
    assert f"(seed 0) to {folder}; how to chat with it: {folder / 'README.md'}\n" in capsys.readouterr().out
    tokenizer, fitted = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    inputs = tokenizer("<think>\n<recall>", return_tensors="pt")
    recalled: list[list[dict[str, str]]] = []
    fitted.generate(
        **inputs, max_new_tokens=3, custom_generate=str(folder), trust_remote_code=True, recalled=recalled
    )
    assert recalled[0][0]["text"]
    with pytest.raises(SystemExit):
        command(monkeypatch, f"run={finished.folder}", f"to={folder}")
    assert "overwrite=true" in capsys.readouterr().err
    command(monkeypatch, f"run={finished.folder}", f"to={folder}", "overwrite=true")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), ("to=... is missing", "to=exported")),
        (("to={tmp}/x", "run=nope"), ("run=nope", "the nearest are: ")),
        (("to={tmp}/x", "method=sft"), ("method=sft", "no memories", "recall, sft, rag")),
        (("to={tmp}/x", "method=recall_spec"), ("method=recall_spec", "choose from: recall, sft, rag")),
        (("to={tmp}/x", "seed=7"), ("seed=7", "seed 0 only")),
        (("to={tmp}/x", "device=abacus"), ("device=abacus", "cpu")),
        (("to={tmp}",), ("is not empty and holds no exported model",)),
        (("to={tmp}", "overwrite=true"), ("is not empty and holds no exported model",)),
        (("to={tmp}/mine.txt",), ("mine.txt is a file",)),
        (("to={tmp}/x", "overwrite=maybe"), ("overwrite=maybe", "true nor false")),
        (("folder={tmp}/x",), ("folder=", "to=...")),
    ],
)
def test_a_wrong_word_is_one_sentence_and_writes_nothing(
    finished: Finished,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: tuple[str, ...],
    said: tuple[str, ...],
) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        runs = f"runs_dir={finished.folder.parent.parent}"
        command(monkeypatch, runs, *(word.format(tmp=tmp_path) for word in words))
    assert stopped.value.code == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    (line,) = seen.err.splitlines()
    assert line.startswith("error: ")
    assert all(part in line for part in said), line
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
