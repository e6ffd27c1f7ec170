"""A person's folder from the command to the report, which says that a machine made the questions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import SMALL, run_command, run_folders, use

from methods.backbone import Backbone
from pipelines.cli import compose_config, spelled_out

TEXT = """# House rules

## Laundry

The laundry opens at 6:40 and holds 9 machines; tokens cost 3 euros at the desk of Ida Lund.

## Bicycles

Bicycles stand in cellar B for at most 14 days, and a lost key costs 25 euros at the office of Per Holm.

## Guests

Guests may stay for 5 nights; longer stays are agreed with Mia Korn 2 weeks before.
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "house rules (2)"
    path.mkdir()
    (path / "rules.md").write_text(TEXT, encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_folder_is_compared_and_every_table_says_who_asked(
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    pristine_lively: Backbone,
) -> None:
    use(monkeypatch, pristine_lively)
    runs_dir = tmp_path / "runs"
    words = (
        f"runs_dir={runs_dir}",
        "mlflow=false",
        "run_methods=[recall,sft,rag]",
        "task=local",
        f"path={folder}",
    )
    run_command(monkeypatch, *SMALL, *words)
    shown = capsys.readouterr().out
    (run,) = run_folders(runs_dir)
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert (summary["task"], summary["machine_made"]) == ("local", True)
    for metrics in summary["methods"].values():
        # Fewer clauses than the preset asks for, each asked twice.
        assert metrics["retention/first_ask_uncued"]["n"] == 6
        assert metrics["retention/first_ask_cued"]["value"] is None
        assert metrics["retention/first_ask_cued"]["reason"]
    assert "machine-made questions" in shown
    report = (run / "report.md").read_text(encoding="utf-8")
    tables = [line for line in report.splitlines() if line.startswith("| metric")]
    assert tables
    assert all(line.startswith("| metric (machine-made questions)") for line in tables)
    assert "no person has written or checked them" in report
    comparison = (run / "tables" / "comparison.csv").read_text(encoding="utf-8")
    assert comparison.startswith("metric (machine-made questions),")
    assert json.loads((run / "config.json").read_text(encoding="utf-8"))["task"]["path"] == str(folder)


@pytest.mark.parametrize(
    "path", ["docs", "my docs", "a=b", "it's", "x (2), [y]", "ü/{z}", "C:\\docs\\", "a\\'b", "10", "~/docs", ""]
)
def test_a_path_of_any_spelling_reaches_the_task(path: str) -> None:
    for word in (f"path={path}", f"task.path={path}"):
        assert compose_config("compare", ["task=local", word]).task.path == path


def test_other_words_and_quoted_paths_stay_as_they_are() -> None:
    assert [spelled_out(word) for word in ("seed=1", "xpath=a", "path='a b'")] == [
        "seed=1",
        "xpath=a",
        "path='a b'",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("task=local",), "task=local needs path=<folder"),
        (("task=local", "path=/no/such/folder"), "path=/no/such/folder: no such file or folder"),
        (("task=regs", "path=docs"), "your own documents: task=local path="),
    ],
)
def test_what_is_wrong_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    said: str,
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_command(monkeypatch, *SMALL, f"runs_dir={tmp_path / 'runs'}", "mlflow=false", *words)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("word", ["+=", "=3", "~", "++@a=1"])
def test_a_word_that_names_no_setting_is_one_sentence(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        compose_config("compare", ["seed=1", word])
    assert capsys.readouterr().err == f"error: {word!r} names no setting; write it as setting=value\n"


@pytest.mark.parametrize(
    "word", ["task=2", "task=null", "preset=1.5", "evaluation=true", "task=[regs,2]", "hydra=2"]
)
def test_a_group_that_is_no_name_is_one_sentence(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        compose_config("compare", ["seed=1", word])
    said = capsys.readouterr().err
    assert said.startswith("error: one of these words cannot be read (") and f": seed=1 {word}; see --help" in said
    assert said.count("\n") == 1
