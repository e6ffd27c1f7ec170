"""until=decided measures slice after slice, goes on where it stopped, ends once all is decided; pooled runs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import SMALL, run_command, run_folders, use

from eval.looks import FIRST_LOOK
from eval.records import RecordWriter, TurnRecord, read_all_records
from methods.backbone import Backbone
from methods.parts import Part
from pipelines import compare, report

METHODS = ("run_methods=[sft,none]", "mlflow=false", "evaluation.timed_questions=1")
WORDS = (*SMALL, *METHODS, "until=decided", f"seeds={FIRST_LOOK + 1}", "contrasts=[sft-none]")


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch, pristine_lively: Backbone) -> None:
    use(monkeypatch, pristine_lively)


def stopped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[Any, str]:
    """Exit status, and what was said on the error stream."""
    with pytest.raises(SystemExit) as end:
        run_command(monkeypatch, *words)
    return end.value.code, capsys.readouterr().err


def read(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return found


def answered(record: Any, right: bool) -> Any:
    """The record with an answer that is right, or none."""
    if not isinstance(record, TurnRecord) or record.qa is None:
        return record
    final = (record.qa.answer or "The handbook does not say.") if right else "No idea at all, ask someone else."
    return replace(record, answer=replace(record.answer, parts=(Part("text", final),)))


def test_it_goes_on_where_it_stopped_and_ends_once_all_is_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = f"runs_dir={tmp_path}"
    status, said = stopped(monkeypatch, capsys, *WORDS, here, "max_hours=0.00001")
    (folder,) = run_folders(tmp_path)
    assert status == 2 and "does not suffice for one look" in said and "or more" in said
    fits = {path: path.stat().st_mtime_ns for path in folder.glob("fits/**/fit.json")}

    measure = compare.measure

    def until_the_last(*arguments: Any) -> None:
        if arguments[4] == FIRST_LOOK:
            raise KeyboardInterrupt
        measure(*arguments)

    monkeypatch.setattr(compare, "measure", until_the_last)
    status, said = stopped(monkeypatch, capsys, *WORDS, here)
    assert status == 130 and f"{FIRST_LOOK} of at most {FIRST_LOOK + 1} slices" in " ".join(said.split())
    assert fits.items() <= {path: path.stat().st_mtime_ns for path in folder.glob("fits/**/fit.json")}.items()
    assert "open after" in (folder / "report.md").read_text(encoding="utf-8")

    records = read_all_records(folder / "records.jsonl")
    ids = Counter(record.id for record in records if isinstance(record, TurnRecord))
    assert set(ids.values()) == {1} and {record.seed for record in records} == set(range(FIRST_LOOK))
    (folder / "records.jsonl").unlink()
    RecordWriter(folder / "records.jsonl").write([answered(record, record.method == "sft") for record in records])

    run_command(monkeypatch, *WORDS, here)
    assert run_folders(tmp_path) == [folder]
    found = read(folder, "summary.json")
    decision = found["decided"]["contrasts"]["sft-none"]
    assert (decision["state"], decision["slices"], found["seeds"]) == (
        "different",
        FIRST_LOOK,
        [*range(FIRST_LOOK)],
    )
    assert read(folder, "run.json")["status"] == "finished"
    assert "sft keeps more than none" in capsys.readouterr().out
    assert "decided after 4 slices" in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("until=never",), ("until/never", "decided")),
        (("until=decided", "seeds=3"), ("seeds=3", "one look", str(FIRST_LOOK))),
        (("until=decided", "max_hours=-1"), ("max_hours=-1", "above 0")),
        (("until=decided", "contrasts=[sft-rag]"), ("'sft-rag'", "sft-none")),
        (("until=decided", "run_methods=[sft]"), ("run_methods=", "two or more")),
        (("max_hours=8",), ("max_hours=8", "until=decided")),
    ],
)
def test_what_cannot_be_decided_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    said: tuple[str, ...],
) -> None:
    status, sentence = stopped(monkeypatch, capsys, *SMALL, *METHODS, *words, f"runs_dir={tmp_path}")
    assert status == 2 and sentence.count("\n") == 1 and not run_folders(tmp_path)
    for part in said:
        assert part in sentence


# --- several runs, one report -------------------------------------------------------------------


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory, pristine_lively: Backbone) -> tuple[Path, list[Path]]:
    """Seeds 0 and 1 of one comparison, each as a run of its own, and both as one run."""
    base = tmp_path_factory.mktemp("apart")
    with pytest.MonkeyPatch.context() as patch:
        use(patch, pristine_lively)
        for words in (("seed=0",), ("seed=1",)):
            run_command(patch, *SMALL, *METHODS, *words, f"runs_dir={base / 'runs'}")
        run_command(patch, *SMALL, *METHODS, "seeds=2", f"runs_dir={base / 'whole'}")
    return base, [*run_folders(base / "runs"), *run_folders(base / "whole")]


def reported(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr("sys.argv", ["report", *words])
    report.main()


def test_runs_of_one_comparison_are_reported_as_one(
    apart: tuple[Path, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, (_, other, whole) = apart
    reported(monkeypatch, f"runs={other.name},regs/2*", f"runs_dir={base / 'runs'}")
    (pooled,) = (base / "runs").glob("regs/pooled-*/summary.json")
    found, expected = read(pooled.parent, "summary.json"), read(whole, "summary.json")
    assert found["seeds"] == expected["seeds"] == [0, 1]
    for name in ("sft", "none"):
        of_found, of_whole = found["methods"][name], expected["methods"][name]
        untimed = [key for key in of_whole if not key.startswith("cost/")]
        assert {key: of_found[key] for key in untimed} == {key: of_whole[key] for key in untimed}
        assert of_found["cost/fit_s"]["n"] == 2


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        reported(monkeypatch, *words)
    said = capsys.readouterr()
    assert end.value.code == 2 and not said.out and said.err.count("\n") == 1
    return said.err


def test_runs_that_are_not_one_comparison_say_why(
    apart: tuple[Path, list[Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, (one, other, whole) = apart

    def said(*folders: Path) -> str:
        return refused(monkeypatch, capsys, f"runs={','.join(map(str, folders))}", f"runs_dir={tmp_path}")

    assert "both hold seed 0" in said(one, whole)
    assert "no run folder" in refused(monkeypatch, capsys, "runs=regs/x*", f"runs_dir={tmp_path}")
    assert "holds no run" in said(tmp_path / "absent")

    changed = tmp_path / "regs" / other.name
    changed.mkdir(parents=True)
    for file in ("run.json", "config.json", "environment.json", "task.json", "records.jsonl"):
        (changed / file).write_bytes((other / file).read_bytes())
    (changed / "records.jsonl").unlink()
    assert "records.jsonl: no such file" in said(one, changed)
    (changed / "records.jsonl").write_bytes((other / "records.jsonl").read_bytes())
    for fit in other.glob("fits/*/*/fit.json"):
        (changed / fit.relative_to(other)).parent.mkdir(parents=True)
        (changed / fit.relative_to(other)).write_bytes(fit.read_bytes())
    config = read(changed, "config.json")
    (changed / "config.json").write_text(json.dumps({**config, "data_version": "another"}))
    assert "are on other data" in said(one, changed) and "version another" in said(one, changed)
    (changed / "config.json").write_text(json.dumps({**config, "model": "another"}))
    assert "are not one comparison: model is tiny and another" in said(one, changed)
    (changed / "config.json").write_text(json.dumps(config))
    environment = read(changed, "environment.json")
    (changed / "environment.json").write_text(json.dumps({**environment, "code_version": "older"}))
    assert "different versions of the code" in said(one, changed)


def test_two_runs_are_compared_and_what_differs_is_named(
    apart: tuple[Path, list[Path]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, (one, _, whole) = apart
    reported(monkeypatch, f"run={one}", f"against={one}")
    shown = capsys.readouterr().out
    assert "sft, all scored turns: not told apart" in shown and "One fit a side" in shown
    assert ": different" not in shown
    reported(monkeypatch, f"run={one}", f"against={whole}")
    assert "The seeds are not the same" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("sampling", "another decoding: sampling.do_sample False against True"),
        ("dialogues", "other dialogues: dialogues.do_sample"),
        ("data_version", "other data: regs, version"),
    ],
)
def test_runs_that_do_not_compare_say_why(
    apart: tuple[Path, list[Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    setting: str,
    said: str,
) -> None:
    import shutil

    _, (one, *_) = apart
    changed = tmp_path / one.name
    shutil.copytree(one, changed)
    config = read(changed, "config.json")
    config[setting] = "another" if setting == "data_version" else {**config[setting], "do_sample": True}
    (changed / "config.json").write_text(json.dumps(config))
    sentence = refused(monkeypatch, capsys, f"run={one}", f"against={changed}")
    assert "incomparable" in sentence and said in sentence
