"""`--multirun seed=0,1,2` is the comparison over these seeds, aggregated in one run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import SMALL, run_command, run_folders, use

from methods.backbone import Backbone
from pipelines.cli import one_run


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["--multirun", "seed=0,1,2"], ["seed=0", "seeds=3"]),
        (["preset=smoke", "seed=5,4", "-m", "task=regs"], ["preset=smoke", "task=regs", "seed=4", "seeds=2"]),
        (["--multirun", "seed=7"], ["seed=7", "seeds=1"]),
        (["seed=3", "run_methods=[recall,rag]"], ["seed=3", "run_methods=[recall,rag]"]),
    ],
)
def test_what_it_means(words: list[str], meant: list[str]) -> None:
    assert one_run(words) == meant


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--multirun"], "goes over seeds"),
        (["--multirun", "seed=0,2"], "follow each other"),
        (["--multirun", "seed=a,b"], "goes over seeds"),
        (["--multirun", "seed=0,1", "seed=2"], "in one word"),
        (["--multirun", "train.max_tokens=1,2"], "goes over seeds"),
        (["--multirun", "seed=0,1", "seeds=2"], "leave one of them out"),
    ],
)
def test_what_it_does_not_mean(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        one_run(words)
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1


def test_two_seeds_with_arms_and_lifecycle_in_one_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pristine_lively: Backbone
) -> None:
    """Each seed has a slice, fits and a lifecycle of its own; the metrics are over both."""
    use(monkeypatch, pristine_lively)
    words = ("run_methods=[recall]", "evaluation.arms=[oracle_vector]", "evaluation.lifecycle=true")
    small = ("lifecycle.num_written=1", "lifecycle.num_neighbours=2", "lifecycle.growth=[2]", "mlflow=false")
    run_command(monkeypatch, *SMALL, *words, *small, "--multirun", "seed=1,2", f"runs_dir={tmp_path}")
    (folder,) = run_folders(tmp_path)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert (summary["seed"], summary["seeds"]) == (1, [1, 2])
    recall, oracle = (summary["methods"][name] for name in ("recall", "oracle_vector"))
    assert recall["cost/fit_s"]["n"] == oracle["cost/fit_s"]["n"] == 2
    written = {
        seed: {tuple(json.loads(line)["memory_ids"]) for line in lines if f'"seed": {seed}' in line}
        for lines in [[x for x in (folder / "records.jsonl").open(encoding="utf-8") if '"EditRecord"' in x]]
        for seed in (1, 2)
    }
    assert written[1] and written[2] and written[1] != written[2]
    assert recall["lifecycle/write_s"]["n"] == 2 * 3  # a family of three clauses a seed
