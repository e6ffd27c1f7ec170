"""A comparison in a real MLflow store (SQLite), read back by MLflow's own client."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_fixtures import METHODS, ODD, make_comparison, make_turns

from methods.base import FitReport
from methods.parts import Part
from reports import mlflow_log
from reports.base import Comparison, LoggedRun, ReportError, estimate
from reports.html import write_html
from reports.markdown import write_report
from reports.text import md

from mlflow import MlflowClient  # isort: skip (after mlflow_log, which quiets it)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to run in; its database is made once, which takes 3 s."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def logged(store: Path) -> tuple[Comparison, LoggedRun]:
    comparison = make_comparison(store)
    (comparison.run_dir / "summary.json").write_text(json.dumps(comparison.summary), encoding="utf-8")
    write_report(comparison)
    write_html(comparison)
    return comparison, mlflow_log.log_comparison(comparison, max_traces=6)


@pytest.fixture(scope="module")
def client(logged: tuple[Comparison, LoggedRun]) -> MlflowClient:
    return MlflowClient(tracking_uri=logged[1].tracking_uri)


def history(client: MlflowClient, run_id: str, key: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in client.get_metric_history(run_id, key)]


def test_a_plain_mlflow_ui_in_the_folder_finds_it(logged: tuple[Comparison, LoggedRun], store: Path) -> None:
    assert logged[1].tracking_uri == f"sqlite:///{store}/mlflow.db"
    assert (store / "mlflow.db").is_file() and (store / "mlruns").is_dir()


def test_one_parent_and_one_child_a_method(client: MlflowClient, logged: tuple[Comparison, LoggedRun]) -> None:
    run = logged[1]
    assert list(run.method_run_ids) == list(METHODS)
    children = client.search_runs([run.experiment_id], f"tags.`mlflow.parentRunId` = '{run.run_id}'")
    assert {child.info.run_id for child in children} == set(run.method_run_ids.values())
    parent = client.get_run(run.run_id)
    assert parent.info.run_name == f"laptop {logged[0].run_dir.name}"
    assert {r.info.status for r in [parent, *children]} == {"FINISHED"}
    assert parent.info.end_time - parent.info.start_time >= 1_234_500
    assert parent.data.metrics["headline/first_ask_cued.recall"] == pytest.approx(0.93)


def test_every_metric_is_there_under_its_own_name(
    client: MlflowClient, logged: tuple[Comparison, LoggedRun]
) -> None:
    comparison, run = logged
    for name, run_id in run.method_run_ids.items():
        metrics = client.get_run(run_id).data.metrics
        for key in comparison.summary["methods"][name]:
            value = estimate(comparison.summary, name, key).value
            assert metrics.get(key) == (None if value is None else pytest.approx(value))
        low = estimate(comparison.summary, name, "retention/accuracy").low
        assert metrics["uncertainty/retention/accuracy.low"] == pytest.approx(low)
        assert metrics["fit/hit_at_1"] == 1.0


def test_curves_are_steps(client: MlflowClient, logged: tuple[Comparison, LoggedRun]) -> None:
    run_id = logged[1].method_run_ids["recall"]
    assert history(client, run_id, "fit/loss/step2") == [(0, 3.0), (1, 1.0), (2, 0.2)]
    assert history(client, run_id, "by_turn/first_ask") == [(0, 1.0), (1, 0.0), (2, 0.0), (3, 0.0)]
    assert [step for step, _ in history(client, run_id, "by_distance/first_ask")] == [0, 1, 2, 4, 8]
    assert len(history(client, run_id, "by_timing/total_s")) == 4
    assert history(client, run_id, "by_turn/looked_up") == [(0, 1.0), (1, 1.0), (2, 1.0), (3, 0.0), (4, 1.0)]
    assert history(client, run_id, "by_turn/prompt_tokens") == [(turn, 61.0) for turn in range(5)]


def test_params_tags_and_description(client: MlflowClient, logged: tuple[Comparison, LoggedRun]) -> None:
    parent = client.get_run(logged[1].run_id)
    assert parent.data.params["methods.recall.lora_rank"] == "16"
    assert parent.data.params["versions.torch"] == "2.13.0"
    assert parent.data.params["long"] == "x" * 5999 + "…"
    assert (parent.data.params["a_b"], parent.data.params["a_b_2"]) == ("1", "2")
    assert ODD in parent.data.params.values()
    tags = parent.data.tags
    assert tags["H1"] == "supported" and tags["H5/recall_spec"] == "not decided by this data"
    assert (tags["git_sha"], tags["device"], tags["preset"]) == ("0123abc", "cpu, 2 cores", "laptop")
    assert tags["data_version"] == "v" * 64 and tags["note"] == ODD
    assert "**H2 refuted**" in tags["mlflow.note.content"] and "| first ask, cued |" in tags["mlflow.note.content"]
    child = client.get_run(logged[1].method_run_ids["rag"])
    assert child.data.params["lora_rank"] == "16" and child.data.tags["method"] == "rag"


def test_the_data_is_an_input(client: MlflowClient, logged: tuple[Comparison, LoggedRun]) -> None:
    """Of the comparison and of every method: the clauses that were learnt, the turns that were asked."""
    for run_id in (logged[1].run_id, *logged[1].method_run_ids.values()):
        learnt, asked = sorted(
            client.get_run(run_id).inputs.dataset_inputs, key=lambda entry: len(entry.dataset.name)
        )
        assert (learnt.dataset.name, learnt.dataset.digest) == ("regs", "v" * 36)
        assert json.loads(learnt.dataset.profile)["num_rows"] == 2
        assert (asked.dataset.name, json.loads(asked.dataset.profile)["num_rows"]) == ("regs dialogues", 15)
        assert [tag.value for entry in (learnt, asked) for tag in entry.tags] == ["training", "evaluation"]


def test_artifacts_and_tables(client: MlflowClient, logged: tuple[Comparison, LoggedRun]) -> None:
    comparison, run = logged
    names = {entry.path for entry in client.list_artifacts(run.run_id)}
    assert names == {"report.html", "report.md", "summary.json", "figures", "tables", "metrics.json"}
    report = Path(client.download_artifacts(run.run_id, "report.md")).read_text(encoding="utf-8")
    assert md(ODD) in report
    turns = client.load_table(run.experiment_id, "turns.json", [run.method_run_ids["recall"]])
    assert len(turns) == 15 and ODD in set(turns["answer"])
    assert turns["correct"].sum() == 3
    assert len(client.load_table(run.experiment_id, "metrics.json", [run.run_id])) == sum(
        map(len, comparison.summary["methods"].values())
    )


def test_traces_are_the_same_dialogues_for_every_method(
    client: MlflowClient, logged: tuple[Comparison, LoggedRun]
) -> None:
    run = logged[1]
    assert run.num_traces == 6
    found = {
        name: client.search_traces(locations=[run.experiment_id], run_id=run_id)
        for name, run_id in run.method_run_ids.items()
    }
    assert {tuple(sorted(t.info.tags["dialogue"] for t in traces)) for traces in found.values()} == {("d0", "d2")}
    trace = found["recall"][0]
    assert trace.info.tags["right"] == "1 of 5"
    spans = trace.data.spans
    assert len(spans) == 1 + 5 + 4  # the dialogue, its turns, their look-ups
    turns = sorted((s for s in spans if s.span_type == "LLM"), key=lambda s: s.start_time_ns)
    assert [s.name for s in turns][:2] == ["turn 0: first ask ✓", "turn 1: first ask ✗"]
    assert turns[2].outputs["answer"] == ODD
    lookups = sorted((s for s in spans if s.span_type == "RETRIEVER"), key=lambda s: s.start_time_ns)
    assert lookups[0].outputs[0]["metadata"]["score"] == pytest.approx(0.91)
    assert [s.name for s in lookups][:2] == ["recall per-diem-lisbon 0.91 ✓", "recall per-diem-porto 0.91 ✗"]
    assert lookups[1].attributes["chosen"] == "per-diem-porto" and lookups[1].attributes["right_clause"] is False
    assert lookups[1].attributes["right_clauses"] == ["per-diem-lisbon"]
    assert lookups[1].attributes["candidates"][0] == {"rank": 1, "memory": "per-diem-porto", "score": 0.91}
    assert lookups[-1].attributes["right_clause"] is None  # no clause answers the last turn


def test_no_bound_of_mlflow_is_met_with_an_error(logged: tuple[Comparison, LoggedRun], tmp_path: Path) -> None:
    """More metrics and parameters than one call takes, curves longer than the limit, texts with NUL."""
    comparison = logged[0]
    said = (Part("text", "\ud800 40 euros"),)
    odd_turns = [
        dataclasses.replace(t, question="a\0b\ud800", answer=dataclasses.replace(t.answer, parts=said))
        for t in make_turns(("recall",), 1)
    ]
    fit = FitReport(1.0, 2, 3, curves={"long": tuple(map(float, range(5000))), "nan": (float("nan"),)})
    summary = {
        **comparison.summary,
        "methods": {"recall": {}, "b@d (method)": {f"x/{i}": {"value": i} for i in range(1200)}},
    }
    big = dataclasses.replace(
        comparison,
        summary=summary,
        run_dir=tmp_path,
        config={f"key{i}": "v" for i in range(250)},
        turns=odd_turns,
        fits={"recall": [fit, fit]},
    )
    run = mlflow_log.log_comparison(big)
    client = MlflowClient(tracking_uri=run.tracking_uri)
    curve = history(client, run.method_run_ids["recall"], "fit/loss/long/1")
    assert len(curve) == mlflow_log.MAX_CURVE_POINTS and curve[0] == (0, 0.0) and curve[-1] == (4999, 4999.0)
    assert len(client.get_run(run.method_run_ids["b@d (method)"]).data.metrics) == 1200
    assert len(client.get_run(run.run_id).data.params) == 251
    assert run.num_traces == 1


def test_the_process_is_left_as_it_was(logged: tuple[Comparison, LoggedRun]) -> None:
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert logging.getLogger().level == logging.WARNING


@pytest.mark.parametrize("uri", ["http://me:secret@127.0.0.1:9", "nonsense://x", "sqlite:////proc/none/mlflow.db"])
def test_a_store_that_fails_costs_one_clear_sentence(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    before = sorted(comparison.run_dir.rglob("*"))
    with pytest.raises(ReportError, match="are safe in") as caught:
        mlflow_log.log_comparison(comparison)
    message = str(caught.value)
    assert "\n" not in message and "secret" not in message and str(comparison.run_dir) in message
    assert sorted(comparison.run_dir.rglob("*")) == before
    assert os.environ["MLFLOW_TRACKING_URI"] == uri


def test_a_failure_half_way_closes_the_runs(
    logged: tuple[Comparison, LoggedRun], client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> int:
        raise OSError("disk full\nsecond line")

    monkeypatch.setattr(mlflow_log, "log_traces", fail)
    with pytest.raises(ReportError, match=r"OSError: disk full\)"):
        mlflow_log.log_comparison(logged[0], experiment="half")
    experiment = client.get_experiment_by_name("half")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 4 and {run.info.status for run in runs} == {"FAILED"}


def test_a_run_is_logged_once_however_often_that_was_cut(
    logged: tuple[Comparison, LoggedRun], client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill leaves runs that no one ends, and traces; what stands whole is not logged again."""

    log_traces = mlflow_log.log_traces

    def once() -> LoggedRun:
        return mlflow_log.log_comparison(logged[0], experiment="once", max_traces=6, once=True)

    def stopped(*arguments: Any) -> int:
        log_traces(*arguments)
        raise KeyboardInterrupt

    for _ in range(2):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(mlflow_log, "log_traces", stopped)
            once()
    first, second = once(), once()
    assert first == second
    runs = client.search_runs([first.experiment_id])
    assert {run.info.run_id for run in runs} == {first.run_id, *first.method_run_ids.values()}
    assert {run.info.status for run in runs} == {"FINISHED"}
    traces = client.search_traces(locations=[first.experiment_id], include_spans=False, max_results=100)
    assert len(traces) == first.num_traces > 0


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("hit@1", "hit_at_1"),
        ("a (b) = c", "a _b_ _ c"),
        ("/x//y/", "x/y"),
        ("$", "_"),
        ("é/日", "é/日"),
        ("x" * 300, "x" * 250),
    ],
)
def test_names_that_mlflow_takes(key: str, name: str) -> None:
    assert mlflow_log.metric_name(key) == name


def test_thinning_keeps_both_ends() -> None:
    assert mlflow_log.thin(3, 5) == [0, 1, 2]
    assert mlflow_log.thin(1000, 4) == [0, 333, 666, 999]
    assert mlflow_log.thin(5, 1) == [0]
    assert mlflow_log.thin(0, 5) == []


def test_nothing_else_imports_mlflow() -> None:
    root = Path(mlflow_log.__file__).parents[1]
    folders = ("tasks", "methods", "eval", "reports", "pipelines")
    texts = {
        path: path.read_text(encoding="utf-8") for folder in folders for path in (root / folder).rglob("*.py")
    }
    users = [path.name for path, text in texts.items() if "import mlflow\n" in text or "from mlflow" in text]
    assert [name for name in users if name != "mlflow_log.py"] == []
