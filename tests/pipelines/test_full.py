"""`evaluation=full`: arms, ability and lifecycle in one small run, from the command to the summary."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from commands import SMALL, run_command, run_folders, use

from eval.arms import ARMS
from eval.lifecycle_metrics import KEYS
from eval.records import (
    AbilityRecord,
    EditRecord,
    LifecycleRecord,
    Record,
    TurnRecord,
    read_all_records,
)
from methods.backbone import Backbone
from methods.recall.method import RecallMethod
from methods.sft import SftMethod
from pipelines.cli import compose_config
from pipelines.config import resolve
from pipelines.footprint import measure
from pipelines.results import read_saved, write_results
from tasks.base import TaskError
from tasks.registry import load_task

METHODS = ("recall", "sft", "rag")
WORDS = (
    *SMALL,
    "evaluation=full",
    "mlflow=false",
    "evaluation.ability_items=3",
    "evaluation.timed_questions=1",
    "lifecycle.num_written=2",
    "lifecycle.num_neighbours=3",
    "lifecycle.growth=[2,4]",
    "lifecycle.num_growth_questions=3",
)


@dataclass(frozen=True)
class Finished:
    folder: Path
    summary: dict[str, Any]
    records: list[Record]

    def of(self, method: str, kind: type) -> list[Any]:
        return [r for r in self.records if isinstance(r, kind) and r.method == method]  # type: ignore[attr-defined]


def read(folder: Path) -> Finished:
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return Finished(folder, summary, read_all_records(folder / "records.jsonl"))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, pristine_lively: Backbone) -> Iterator[Finished]:
    runs = tmp_path_factory.mktemp("full")
    with pytest.MonkeyPatch.context() as patch:
        use(patch, pristine_lively)
        with contextlib.redirect_stdout(io.StringIO()):
            run_command(patch, *WORDS, f"runs_dir={runs}", f"run_methods=[{','.join(METHODS)}]")
        (folder,) = run_folders(runs)
        yield read(folder)


def test_methods_and_arms_answer_the_same_dialogues(full: Finished) -> None:
    assert tuple(full.summary["methods"]) == (*METHODS, *ARMS)
    asked = {name: {(r.dialogue_id, r.turn) for r in full.of(name, TurnRecord)} for name in (*METHODS, *ARMS)}
    assert asked["recall"]
    assert len(set(map(frozenset, asked.values()))) == 1
    assert full.summary["left_out"] == {}


def test_arms_are_neither_timed_nor_changed_nor_measured(full: Finished) -> None:
    for name, metrics in full.summary["methods"].items():
        for key in ("cost/latency_p50_s", "lifecycle/forget_s", "ability/after"):
            assert (metrics[key]["value"] is None) == (name in ARMS), (name, key)
    for kind in (AbilityRecord, EditRecord, LifecycleRecord):
        assert {r.method for r in full.records if isinstance(r, kind)} == set(METHODS)


def test_arms_show_the_cost_of_the_fit_that_they_use(full: Finished) -> None:
    tokens = {name: metrics["cost/fit_tokens"]["value"] for name, metrics in full.summary["methods"].items()}
    assert tokens["oracle_vector"] == tokens["random_vector"] == tokens["recall"]
    assert tokens["oracle_text"] == tokens["rag"]
    fits = full.folder / "fits" / "0"
    owners = {file.parent.name for file in fits.glob("*/adapters")}
    assert owners == {*METHODS, "none", "full_context"}  # the others borrow theirs


def test_the_oracles_are_always_right_where_they_look(full: Finished) -> None:
    """Elliptic questions too: the arms know the dialogues."""
    methods = full.summary["methods"]
    assert methods["oracle_text"]["ledger/hit_at_1"]["value"] == 1.0
    assert methods["oracle_text"]["ledger/trigger"]["value"] == 1.0
    for record in full.of("oracle_vector", TurnRecord):
        found = [lookup.memory_id for lookup in record.answer.lookups]
        gold = record.qa.memory_ids if record.qa is not None else ()
        assert set(found) <= {*gold, ""}
    for record in full.of("random_vector", TurnRecord):
        gold = record.qa.memory_ids if record.qa is not None else ()
        assert not {lookup.memory_id for lookup in record.answer.lookups} & {*gold, ""}


def test_every_method_has_every_key(full: Finished) -> None:
    for metrics in full.summary["methods"].values():
        assert {*KEYS, "lifecycle/hit_at_1_plus4", "retention/accuracy_unknown_to_none"} <= set(metrics)
        assert {"ability/before", "ability/after", "ability/with_memory"} <= set(metrics)
    assert full.summary["verdicts"]["H4"]["evidence"]


def test_lifecycle_of_each_method(full: Finished) -> None:
    methods = full.summary["methods"]
    assert {name: methods[name]["lifecycle/refit"]["value"] for name in METHODS} == {
        "recall": 0.0,
        "sft": 1.0,
        "rag": 0.0,
    }
    for name in METHODS:
        for key in ("write_s", "update_s", "forget_s", "stale_rate", "forget_abstention", "neighbour_accuracy"):
            assert methods[name][f"lifecycle/{key}"]["value"] is not None, (name, key)
    assert methods["rag"]["lifecycle/write_hit_at_1"]["value"] is not None
    texts = {memory.id: len(memory.text.encode()) for memory in load_task("regs").memories}
    grown = [texts[i] for r in full.of("recall", EditRecord) if r.step == "growth" for i in r.memory_ids]
    key_and_value = 2 * 64 * 4  # fp32
    grown_bytes = methods["recall"]["lifecycle/growth_bytes"]["value"]
    assert grown_bytes == pytest.approx(key_and_value + sum(grown) / len(grown))
    assert {r.phase for r in full.of("recall", LifecycleRecord)} == {"before", "after", "recall_off"}
    assert methods["sft"]["lifecycle/write_tokens"]["value"] >= 300  # a whole fit
    assert len(full.of("sft", EditRecord)) == 3


def test_what_was_forgotten_is_never_looked_up(full: Finished) -> None:
    for name in METHODS:
        gone = {i for r in full.of(name, EditRecord) if r.step == "forget" for i in r.memory_ids}
        assert gone
        after = [r for r in full.of(name, LifecycleRecord) if (r.step, r.phase) == ("forget", "after")]
        seen = {c for r in after for lookup in r.turn.answer.lookups for c, _ in lookup.candidates}
        assert after
        assert not seen & gone
        off = [r for r in full.of(name, LifecycleRecord) if r.phase == "recall_off"]
        assert not any(r.turn.answer.lookups for r in off)


def test_an_updated_clause_is_shown_with_its_new_text(full: Finished) -> None:
    after = [r for r in full.of("rag", LifecycleRecord) if (r.step, r.phase) == ("update", "after")]
    for record in after:
        shown = {lookup.memory_id: lookup.text for lookup in record.turn.answer.lookups}
        clause = record.turn.qa.memory_ids[0] if record.turn.qa else ""
        if clause in shown and record.role == "target":
            assert shown[clause] == record.turn.memory_text


def test_the_summary_comes_out_again_to_the_last_digit(full: Finished) -> None:
    before = (full.folder / "summary.json").read_bytes()
    pairs = write_results(read_saved(full.folder)).pairs
    assert (full.folder / "summary.json").read_bytes() == before
    # Arms would only raise Holm's bar for the rivals.
    assert set(pairs["retention/accuracy"]) == {"recall - sft", "recall - rag", "sft - rag"}


@pytest.mark.parametrize("name", ["oracle_vector", "oracle_text"])
def test_a_borrowing_arm_can_be_loaded_alone(full: Finished, name: str) -> None:
    assert measure(full.folder, 0, name).peak_bytes > 50 * 2**20


# Cut and continued.


def raising_at(original: Any, calls_before: int) -> Any:
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > calls_before:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    return wrapped


SHORT = (*WORDS, "run_methods=[recall,sft]", "evaluation.arms=[oracle_vector]", "evaluation.ability=false")


def settled(records: list[Record]) -> list[str]:
    """Records without their times, in any order."""
    kept = []
    for record in records:
        body = dict(vars(record))
        body.pop("seconds", None)
        body.pop("usage", None)
        body.pop("peak_bytes", None)
        body.pop("serial_s", None)
        kept.append(repr(sorted(body.items(), key=lambda item: item[0])))
    return sorted(kept)


@pytest.mark.slow
def test_a_run_cut_in_a_full_pass_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pristine_lively: Backbone
) -> None:
    use(monkeypatch, pristine_lively)
    run_command(monkeypatch, *SHORT, f"runs_dir={tmp_path / 'whole'}")
    whole = read(run_folders(tmp_path / "whole")[0])
    words = (*SHORT, f"runs_dir={tmp_path / 'cut'}")
    for kind, function, calls in (
        (RecallMethod, "forget", 0),  # in the lifecycle of the first method, at its third step
        (SftMethod, "fit", 0),  # the refit of the second one
    ):
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(kind, function, raising_at(getattr(kind, function), calls))
            run_command(patch, *words)
    run_command(monkeypatch, *words)
    (folder,) = run_folders(tmp_path / "cut")
    assert settled(read(folder).records) == settled(whole.records)


# What is asked for.


def arms_of(*words: str) -> list[str]:
    return resolve(compose_config("compare", ["evaluation=full", *words])).arms


def test_arms_that_bound_no_method_are_left_out() -> None:
    assert arms_of() == list(ARMS)
    assert arms_of("run_methods=[sft]") == ["none", "full_context"]
    assert arms_of("run_methods=[rag]") == ["none", "full_context", "oracle_text"]
    assert arms_of("run_methods=[recall,none]") == ["full_context", "oracle_vector", "random_vector"]
    assert resolve(compose_config("compare", [])).arms == []


def test_an_unknown_arm_is_named() -> None:
    with pytest.raises(TaskError, match=r"evaluation\.arms: 'sft' is no control arm; choose from: none, full"):
        arms_of("evaluation.arms=[sft]")


def test_a_handbook_over_the_window_leaves_full_context_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pristine_lively: Backbone, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, pristine_lively)
    words = (*SMALL, "mlflow=false", "task.num_clauses=12", "run_methods=[sft]", f"runs_dir={tmp_path}")
    run_command(monkeypatch, *words, "evaluation.arms=[none,full_context]")
    found = read(run_folders(tmp_path)[0])
    assert list(found.summary["methods"]) == ["sft", "none"]
    assert "clauses make a prompt of" in found.summary["left_out"]["full_context"]
    assert "left out: full_context" in capsys.readouterr().err.replace("\n", " ")


def test_asked_for_by_name_it_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pristine_lively: Backbone, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, pristine_lively)
    words = (*SMALL, "mlflow=false", "task.num_clauses=12", f"runs_dir={tmp_path}")
    with pytest.raises(SystemExit) as stopped:
        run_command(monkeypatch, *words, "run_methods=[full_context]")
    assert stopped.value.code == 2
    assert "error: full_context: 12 clauses make a prompt of" in capsys.readouterr().err
