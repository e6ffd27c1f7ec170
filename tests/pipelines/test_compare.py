"""One small comparison from the command to every file it leaves."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from commands import METHODS, Finished

from eval.runner import num_generated
from methods.backbone import Backbone, load_backbone
from pipelines import compare
from pipelines.footprint import footprints, measure, measured_apart
from pipelines.progress import Display
from pipelines.run import environment
from tasks.base import Memory, TaskError
from tasks.dialogues import DialogueOptions, build_dialogues
from tasks.registry import load_task

# DESIGN, section 7: stable from the first version on
KEYS = (
    "retention/accuracy",
    "retention/first_ask_cued",
    "retention/first_ask_uncued",
    *(f"retention/d{d}" for d in (0, 1, 2, 4, 8)),
    "retention/consistency",
    "abstention/precision",
    "abstention/recall",
    "ledger/trigger",
    "ledger/hit_at_1",
    "ledger/verbatim",
    "ledger/false_recall",
    "cost/ttft_p50_s",
    "cost/ttfa_p50_s",
    "cost/tpot_p50_s",
    "cost/latency_p50_s",
    "cost/latency_p95_s",
    "cost/prompt_tokens",
    "cost/new_tokens",
    "cost/peak_rss_bytes",
    "cost/fit_s",
    "cost/fit_tokens",
    "structure/well_formed",
    "structure/stopped_after_recall",
    "structure/correct_and_well_formed",
    "lifecycle/write_s",
    "lifecycle/stale_rate",
)


def test_it_says_that_it_is_finished(finished: Finished) -> None:
    state = json.loads((finished.folder / "run.json").read_text(encoding="utf-8"))
    assert state["status"] == "finished"
    assert state["turns_recorded"] == len(finished.turns)
    assert state["timings_recorded"] == len(finished.costs)
    assert state["stages_finished"] == [
        *(f"fit {name} seed 0" for name in METHODS),
        *(f"dialogues {name} seed 0" for name in METHODS),
        "timing seed 0",
        "measured",
    ]
    assert (finished.folder.parent.parent / "latest").resolve() == finished.folder.resolve()


def test_the_summary_holds_every_promised_key(finished: Finished) -> None:
    summary = finished.summary
    assert {"task", "preset", "seed", "wall_s", "methods", "verdicts"} <= set(summary)
    assert (summary["task"], summary["preset"], summary["seed"]) == ("regs", "smoke", 0)
    assert tuple(summary["methods"]) == METHODS
    for name, metrics in summary["methods"].items():
        assert set(KEYS) <= set(metrics), name
        assert any(key.startswith("ability/") for key in metrics)
        for key, cell in metrics.items():
            if cell["value"] is None:  # a number, or why there is none
                assert cell["reason"], key
                continue
            assert {"value", "low", "high", "n"} <= set(cell), key
            if cell["low"] is not None:
                assert cell["low"] <= cell["value"] <= cell["high"], key


def test_what_applies_is_a_number(finished: Finished) -> None:
    for name, metrics in finished.summary["methods"].items():
        for key in ("retention/accuracy", "structure/well_formed", "cost/latency_p50_s", "cost/fit_tokens"):
            assert metrics[key]["value"] is not None, (name, key)
    recall = finished.summary["methods"]["recall"]
    assert recall["ledger/trigger"]["value"] is not None
    assert finished.summary["methods"]["sft"]["ledger/trigger"]["value"] is None


def test_budgets_are_equal(finished: Finished) -> None:
    spent = {name: metrics["cost/fit_tokens"]["value"] for name, metrics in finished.summary["methods"].items()}
    assert all(300 <= tokens < 300 + 2 * 4 * 1200 for tokens in spent.values()), spent  # to a batch a stage


def test_every_method_answers_the_same_dialogues(finished: Finished) -> None:
    task = load_task("regs", 6, 0)
    options = DialogueOptions(questions_per_clause=1, max_unanswerable=3, max_two_clause=2, num_ordinary=3)
    dialogues = build_dialogues(task, 0, "test", options)
    asked = {
        name: {(r.dialogue_id, r.turn, r.question) for r in finished.turns if r.method == name} for name in METHODS
    }
    assert asked["recall"] == asked["sft"] == asked["rag"]
    assert len(asked["recall"]) == num_generated(dialogues)
    assert len(finished.turns) == 3 * num_generated(dialogues)  # none twice


def test_every_method_is_timed_on_the_same_questions(finished: Finished) -> None:
    assert len(finished.costs) == 3 * 2
    assert len({(r.method, r.question_id) for r in finished.costs}) == 6
    assert len({r.question_id for r in finished.costs}) == 2
    assert all(r.usage.total_s > 0 for r in finished.costs)
    assert {r.method for r in finished.costs if "search" in r.usage.stage_s} == {"rag"}


def test_lookups_come_from_the_whole_rulebook(finished: Finished) -> None:
    task = load_task("regs", 6, 0)
    known = {m.id for m in (*task.memories, *task.rest)}
    found = {lookup.memory_id for r in finished.turns for lookup in r.answer.lookups}
    assert found & {m.id for m in task.rest}
    by_method = {name: [r for r in finished.turns if r.method == name] for name in METHODS}
    assert all(lookup.memory_id in known for r in by_method["rag"] for lookup in r.answer.lookups)
    assert all(lookup.memory_id in {*known, ""} for r in by_method["recall"] for lookup in r.answer.lookups)
    assert all(len(r.answer.lookups) == 3 for r in by_method["rag"])
    assert not any(r.answer.lookups for r in by_method["sft"])


def test_the_report_and_the_screen(finished: Finished) -> None:
    report = (finished.folder / "report.md").read_text(encoding="utf-8")
    for name in METHODS:
        assert name in report
        assert name in finished.shown
    assert "report.md" in finished.shown
    assert "Traceback" not in finished.shown
    assert list((finished.folder / "figures").iterdir())


def test_the_environment_is_written_down(finished: Finished) -> None:
    facts = json.loads((finished.folder / "environment.json").read_text(encoding="utf-8"))
    assert facts["dtype"] == "float32"
    assert {"torch", "transformers", "chromadb"} <= set(facts["versions"])
    assert facts["model"]["kind"] == "llama" and facts["model"]["template"]["system_turn"] == "the template's"
    config = json.loads((finished.folder / "config.json").read_text(encoding="utf-8"))
    assert config["train"]["max_tokens"] == 300
    assert config["data_version"] == load_task("regs", 6, 0).version


def test_a_package_that_is_not_installed_is_said_to_be_none(
    pristine: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.run.PACKAGES", ["torch", "recallbench-none"])
    versions = environment(pristine)["versions"]
    assert versions == {"torch": torch.__version__, "recallbench-none": "not installed"}


def test_mlflow_holds_a_parent_and_a_child_a_method(finished: Finished) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(finished.mlflow_uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "recallbench-regs"]
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    assert len(runs) == 1 + len(METHODS)
    for run in runs:
        if run not in parents:
            assert run.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
            assert "retention/accuracy" in run.data.metrics


def test_no_weights_are_copied_into_a_run(finished: Finished) -> None:
    """An adapter and an index or a bank, never the model again."""
    for name in METHODS:
        folder = finished.folder / "fits" / "0" / name
        assert list(folder.rglob("adapter_model.safetensors"))
        assert not list(folder.rglob("model.safetensors"))


@pytest.mark.parametrize("name", METHODS)
def test_a_fit_can_be_loaded_from_the_folder_and_asked(finished: Finished, name: str) -> None:
    peak = measure(finished.folder, 0, name)
    assert peak.kind == "rss" and peak.reserved_bytes is None
    assert len(peak.peaks_bytes) == 3
    assert peak.peak_bytes == max(peak.peaks_bytes) and min(peak.peaks_bytes) > 50 * 2**20


def test_what_loading_needs_for_a_moment_is_no_peak_of_answering(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 400 * 2**20

    def load(*args: Any) -> Backbone:
        block = np.ones(size, dtype=np.uint8)
        time.sleep(0.1)
        del block
        return load_backbone(*args)

    measure(finished.folder, 0, "sft")  # what is imported for the first time stays
    before = psutil.Process().memory_info().rss
    monkeypatch.setattr("pipelines.making.load_backbone", load)
    assert measure(finished.folder, 0, "sft").peak_bytes < before + size / 2


def test_stored_bytes_are_adapters_and_bank_or_index(finished: Finished) -> None:
    for name in METHODS:
        folder = finished.folder / "fits" / "0" / name
        fit = json.loads((folder / "fit.json").read_text(encoding="utf-8"))
        adapters = sum(file.stat().st_size for file in (folder / "adapters").rglob("*.safetensors"))
        assert adapters > 10_000
        assert fit["bytes_stored"] == adapters + fit["index_bytes"], name
        assert (fit["index_bytes"] == 0) == (name == "sft"), name
        metrics = finished.summary["methods"][name]
        assert metrics["cost/bytes_stored"]["value"] == fit["bytes_stored"]
        assert metrics["cost/fit_threads"]["value"] == fit["notes"]["threads"] >= 1


def test_flops_come_from_the_records(finished: Finished) -> None:
    """Twice the weights for every token at the least; only what is looked up differs beyond that."""
    for record in finished.costs:
        assert record.shapes is not None and record.shapes.model is not None
        metrics = finished.summary["methods"][record.method]
        tokens = metrics["cost/prompt_tokens"]["value"] + metrics["cost/new_tokens"]["value"] - 1
        assert metrics["cost/flops"]["value"] > 2 * record.shapes.model.block_weights * tokens
        assert "cost/lookup_flops" in metrics and "cost/stage_prompt_s" in metrics


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own(finished: Finished) -> None:
    assert measured_apart(finished.folder, 0, "sft")["peak_bytes"] > 50 * 2**20


def test_a_failed_measurement_is_no_guess(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "no such adapter")
    monkeypatch.setattr("pipelines.footprint.subprocess.run", lambda *_args, **_kwargs: failed)
    with pytest.raises(RuntimeError, match="memory of sft failed:\nno such adapter"):
        footprints(finished.folder, 1, ["sft"], Display())  # of seed 0 it is known


def test_the_task_of_every_seed_is_checked_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A seed's slice has clauses of its own, and with them mistakes of its own."""
    slices = {seed: load_task("regs", 6, seed) for seed in (4, 5, 6)}
    slices[6] = replace(slices[6], memories=(*slices[6].memories, slices[6].memories[0]))
    monkeypatch.setattr(compare, "load_backbone", lambda *_: pytest.fail("a model was loaded"))
    off = SimpleNamespace(lifecycle=False)
    config: Any = SimpleNamespace(seed=4, seeds=3, task=SimpleNamespace(load=slices.__getitem__), evaluation=off)
    with pytest.raises(TaskError, match=slices[6].memories[0].id):
        compare.compare(config, Display())


def test_memories_that_fill_an_answer_are_counted_and_the_longest_is_named(lively: Backbone) -> None:
    memories = [Memory("short", "x" * 94), Memory("long", "x" * 95), Memory("longest", "x" * 120)]
    assert compare.too_long_to_recite(lively, memories, 126) == ""
    assert "'longest' takes 132" in compare.too_long_to_recite(lively, memories, 126, num_pads=8)
    # Four tokens stand around a recited text, and its pad
    said = compare.too_long_to_recite(lively, memories, 100)
    assert "2 of 3 memories" in said
    assert "100 tokens and 'longest' takes 125" in said
