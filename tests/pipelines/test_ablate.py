"""The ablation: rows are named, resumable, asked dev questions only, and gated."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from commands import SMALL, run_folders, use
from safetensors.torch import load_file

from eval.arms import NAMES
from eval.records import read_records
from methods.backbone import Backbone
from methods.chat import encode_pieces, encode_prompt
from methods.decode import generate
from pipelines import ablate, compare, report
from pipelines.ablation_rows import ALL, SECTION_4_4, SETS, chosen_rows
from pipelines.cli import compose_config
from pipelines.config import resolve, saved_config
from tasks.base import Message, TaskError
from tasks.registry import load_task


def run(monkeypatch: pytest.MonkeyPatch, *words: str, mlflow: bool = False) -> None:
    monkeypatch.setattr(sys, "argv", ["ablate", *words, f"mlflow={mlflow}"])
    ablate.main()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, pristine_lively: Backbone) -> None:
    use(monkeypatch, pristine_lively)
    monkeypatch.setattr(ablate, "load_backbone", lambda *_args: pristine_lively.clone())


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.name)
def test_every_rows_overrides_change_the_configuration(row: ablate.AblationRow) -> None:
    base = resolve(compose_config("compare", []))
    changed = resolve(compose_config("compare", list(row.overrides)))
    assert (base.raw == changed.raw) == (not row.overrides)
    assert row.method in NAMES
    assert row.against in {"", *(other.name for other in ALL)}


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.name)
def test_a_fit_apart_sees_the_rows_own_configuration(row: ablate.AblationRow, tmp_path: Path) -> None:
    base = resolve(compose_config("compare", ["train.max_tokens=77"]))
    config = {**base.raw, "ablation": ["rows"], "data_version": "1"}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    composed = resolve(compose_config("compare", ["train.max_tokens=77", *row.overrides]))
    assert saved_config(tmp_path, row.overrides).raw == composed.raw


def test_rows_are_fitted_side_by_side_in_processes_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each with its own settings. That such fits are those made here is test_fit_processes's."""
    more = "train.max_tokens=1500"  # or Step 1's first batch would end its schedule, at rate 0
    run(monkeypatch, *SMALL, more, "fit_processes=2", f"runs_dir={tmp_path}", "rows=recall/no_step1")
    (folder,) = run_folders(tmp_path)
    fits = {name: folder / "fits" / "0" / name for name in ("recall", "recall/no_step1")}
    assert all((fit / "fit.log").is_file() for fit in fits.values())
    learnt, fixed = [load_file(fit / "bank" / "bank.safetensors")["keys"] for fit in fits.values()]
    assert not torch.equal(learnt, fixed)
    turns, _ = read_records(folder / "records.jsonl")
    assert {turn.method for turn in turns} == set(fits)


def test_rows_are_chosen_by_set_or_name_in_table_order() -> None:
    assert tuple(chosen_rows(["section_4_4"])) == SECTION_4_4
    assert [row.name for row in chosen_rows(["recall/sampled"])] == ["recall", "recall/sampled"]  # its fit
    assert [row.name for row in chosen_rows(["recall_quoted"])] == ["recall", "recall_quoted"]  # read against it
    assert [row.name for row in chosen_rows(["recall"])] == ["recall"]
    assert tuple(chosen_rows(["all"])) == ALL
    for words in (["nothing"], []):
        with pytest.raises(TaskError, match="section_4_4"):
            chosen_rows(words)
    assert len({row.name for row in ALL}) == len(ALL)
    assert set(SETS) == {"section_4_4", "calibrated", "rivals", "all"}


def test_the_table_rests_on_dev_questions_and_goes_on_where_it_was_cut(
    small: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SMALL, f"runs_dir={tmp_path}", "rows=recall/sampled,recall_quoted"]
    ask = compare.run_retention
    asked: list[str] = []

    def cut(method: object, *args: object, **settings: object) -> object:
        asked.append(method.name)  # type: ignore[attr-defined]
        if len(asked) == 2:
            raise KeyboardInterrupt
        return ask(method, *args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(compare, "run_retention", cut)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *words)
    assert stopped.value.code == 130
    run(monkeypatch, *words)
    (folder,) = run_folders(tmp_path)
    turns, costs = read_records(folder / "records.jsonl")
    assert {r.method for r in turns} == {"recall", "recall/sampled", "recall_quoted"}
    assert not costs
    dev = {qa.id for qa in load_task("regs", 6, 0).questions if qa.split == "dev"}
    scored = [r.qa for r in turns if r.qa is not None and r.kind == "first_ask"]
    assert scored
    assert all(qa.id in dev for qa in scored)
    body = json.loads((folder / "ablation.json").read_text(encoding="utf-8"))
    assert list(body["rows"]) == ["recall", "recall/sampled", "recall_quoted"]
    assert body["rows"]["recall"]["fit"] == body["rows"]["recall/sampled"]["fit"]
    assert set(body["verdicts"]) == {"H5", "H6", "H5/recall_spec", "H6/recall_spec"}
    written = {name: (folder / name).read_bytes() for name in ("ablation.json", "ablation.csv", "ablation.md")}
    for name in written:
        (folder / name).unlink()
    shown = capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["report", f"run={folder}"])
    report.main()
    assert {name: (folder / name).read_bytes() for name in written} == written
    assert written["ablation.md"].decode() in capsys.readouterr().out
    for column in ("hit@1", "verbatim", "stopped after recall", "false recall", "well-formed"):
        assert column in shown
    assert "| recall/sampled |" in shown
    assert "tell of these fits alone" in " ".join(shown.split())


def test_an_ablation_is_one_run_in_mlflow_and_its_rows_are_its_children(
    small: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    run(monkeypatch, *SMALL, f"runs_dir={tmp_path}", "rows=recall/sampled", mlflow=True)
    client = MlflowClient(tracking_uri=uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "recallbench-regs"]
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [found for found in runs if "mlflow.parentRunId" not in found.data.tags]
    children = [found for found in runs if found.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {child.data.tags["method"] for child in children} == {"recall", "recall/sampled"}
    assert parent.data.tags["H5"] == parent.data.tags["H6/recall_spec"] == "not decided by this data"
    assert {a.path for a in client.list_artifacts(parent.info.run_id)} >= {"ablation.md", "ablation.json"}
    assert all("structure/well_formed" in child.data.metrics for child in children)
    assert parent.info.run_id in capsys.readouterr().out


def test_a_recipe_that_learnt_nothing_does_not_pass_the_gate(
    small: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *SMALL, f"runs_dir={tmp_path}", "rows=recall_spec")
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "gate: recall_spec" in said
    assert "needs 0.9" in said
    (folder,) = run_folders(tmp_path)
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["status"] == "failed"


def test_a_failed_gate_costs_the_literal_rows_alone_and_the_table_says_so(
    small: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*SMALL, f"runs_dir={tmp_path}", "rows=recall_spec,recall", "evaluation.ability=true")
    run(monkeypatch, *words, "evaluation.ability_items=3")
    (folder,) = run_folders(tmp_path)
    body = json.loads((folder / "ablation.json").read_text(encoding="utf-8"))
    assert list(body["rows"]) == ["recall"]
    assert body["gate"] is None
    shown = capsys.readouterr().out
    assert "Left out: gate: recall_spec found" in shown
    assert "ability after" in shown
    assert body["rows"]["recall"]["metrics"]["ability/after"]["n"] > 0


def test_unknown_rows_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "rows=everything")
    assert stopped.value.code == 2
    assert "no row is called 'everything'" in capsys.readouterr().err


# How much the model wants to recall.

ASKED = [(Message("user", text),) for text in ("Where?", "What is the rule on skates in Oulu?", "Hello there!")]


def recalls(backbone: Backbone, messages: tuple[Message, ...]) -> bool:
    """Whether greedy decoding begins the think with <recall>."""
    ids = backbone.ids
    prompt = encode_prompt(backbone, messages) + encode_pieces(backbone.tokenizer, [ids.think, "\n"])
    (output,) = generate(backbone, [prompt], 1)
    return output.token_ids[0] == ids.recall


def test_a_push_beyond_the_margin_and_no_less_makes_it_recall(lively: Backbone) -> None:
    head, pushed = lively.model.get_output_embeddings(), 0.0

    def push(_module: object, _args: object, logits_BTV: torch.Tensor) -> torch.Tensor:
        logits_BTV = logits_BTV.clone()
        logits_BTV[..., lively.ids.recall] += pushed
        return logits_BTV

    margins = ablate.recall_margins(lively, ASKED).tolist()
    handle = head.register_forward_hook(push)
    for messages, margin in zip(ASKED, margins, strict=True):
        pushed = 0.0
        assert recalls(lively, messages) == (margin > 0)
        pushed = -margin + 0.01
        assert recalls(lively, messages)
        pushed = -margin - 0.01
        assert not recalls(lively, messages)
    handle.remove()


def test_padding_changes_no_margin(lively: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    together = ablate.recall_margins(lively, ASKED).tolist()
    alone = [ablate.recall_margins(lively, [messages]).item() for messages in ASKED]
    assert alone == pytest.approx(together, abs=1e-4)
    monkeypatch.setattr("methods.recall.embed.BATCH_SIZE", 2)
    assert ablate.recall_margins(lively, ASKED).tolist() == pytest.approx(together, abs=1e-4)
