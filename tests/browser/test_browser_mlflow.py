"""A finished run in MLflow: its pages in a browser, and a server elsewhere that takes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from browsing import WAIT_S, Picture, Shown, size_of, wait_for
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from reports import mlflow_log
from reports.saved import read_run

from mlflow import MlflowClient  # isort: skip (after mlflow_log, which quiets it)
from mlflow.entities import Run, Trace  # isort: skip

COLUMNS = ("retention/accuracy", "retention/first_ask_cued", "retention/first_ask_uncued", "cost/latency_p50_s")


@pytest.fixture(scope="module")
def parent(mlflow_ui: str) -> Run:
    """The comparison's own run."""
    client = MlflowClient(tracking_uri=mlflow_ui)
    (experiment,) = [found for found in client.search_experiments() if found.name.startswith("recallbench")]
    runs = client.search_runs([experiment.experiment_id])
    return next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)


@pytest.fixture
def ui(page: Chrome, mlflow_ui: str) -> Chrome:
    """The browser on MLflow's pages, without what they offer a first visitor."""
    page.get(f"{mlflow_ui}/health")  # of the same origin
    for key, value in {
        "mlflow.assistant.panelOpen_v1": "false",
        "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
        "mlflow.detectIssues.guidanceShown_v1": "true",
    }.items():
        page.execute_script("localStorage.setItem(arguments[0], arguments[1])", key, value)
    page.get_log("browser")  # that address has no icon
    size_of(page, 1400, 800)
    return page


def clicked(page: Chrome, words: str) -> None:
    """Clicks the first visible element that says just that."""
    path = f"//*[not(self::script)][normalize-space(text())={json.dumps(words, ensure_ascii=False)}]"

    def seen(_: Chrome) -> list[WebElement]:
        return [found for found in page.find_elements(By.XPATH, path) if found.is_displayed()]

    WebDriverWait(page, WAIT_S).until(seen)[0].click()


# The table's columns as the page itself keeps them, with these metrics in place of its first choice.
_CHOOSE = """
for (const [key, value] of Object.entries(localStorage)) {
  if (!key.endsWith("ReactComponentState")) continue;
  localStorage.setItem(key, JSON.stringify({...JSON.parse(value), selectedColumns: arguments[0]}));
}
"""


@pytest.mark.browser
def test_the_runs_page_lists_the_methods(ui: Chrome, mlflow_ui: str, parent: Run, picture: Picture) -> None:
    ui.get(f"{mlflow_ui}/#/experiments/{parent.info.experiment_id}/runs")
    wait_for(ui, parent.info.run_name)
    ui.execute_script(_CHOOSE, [f"metrics.`{name}`" for name in COLUMNS])
    ui.get("about:blank")
    ui.get(f"{mlflow_ui}/#/experiments/{parent.info.experiment_id}/runs")
    opener = (By.CSS_SELECTOR, "button[data-component-id*='runnamecellrenderer']")  # the + before its name
    WebDriverWait(ui, WAIT_S).until(lambda _: ui.find_elements(*opener))[0].click()
    client = MlflowClient(tracking_uri=mlflow_ui)
    runs = client.search_runs([parent.info.experiment_id])
    wait_for(ui, *(run.info.run_name for run in runs))
    picture("mlflow-runs")


@pytest.mark.browser
def test_the_comparisons_page_holds_verdicts_and_versions(ui: Chrome, mlflow_ui: str, parent: Run) -> None:
    ui.get(f"{mlflow_ui}/#/experiments/{parent.info.experiment_id}/runs/{parent.info.run_id}")
    tags = ("H1", "data_version", "device", "preset", "git_sha")
    wait_for(ui, parent.info.run_name, *(tag for tag in tags if parent.data.tags.get(tag)))


@pytest.mark.browser
def test_a_trace_says_why(ui: Chrome, mlflow_ui: str, parent: Run, picture: Picture) -> None:
    """The dialogue, its turns, and for a lookup what was chosen from."""
    client, experiment = MlflowClient(tracking_uri=mlflow_ui), parent.info.experiment_id
    ui.get(f"{mlflow_ui}/#/experiments/{experiment}/traces")
    wait_for(ui, "Input", "Output", "questions")
    picture("mlflow-traces")
    trace = shown_trace(client.search_traces(locations=[experiment]))
    lookup = next(span for span in trace.data.spans if span.span_type == "RETRIEVER")
    ui.get(f"{mlflow_ui}/#/experiments/{experiment}/traces?selectedEvaluationId={trace.info.trace_id}")
    wait_for(ui, *(span.name for span in trace.data.spans))
    clicked(ui, lookup.name)
    clicked(ui, "Attributes")
    wait_for(ui, "candidates", "right_clause", str(lookup.attributes["chosen"]))
    picture("mlflow-trace")


def shown_trace(traces: list[Trace]) -> Trace:
    """A dialogue with lookups, of recall where it looked anything up, and of many turns."""
    found = [trace for trace in traces if any(span.span_type == "RETRIEVER" for span in trace.data.spans)]
    return max(found, key=lambda trace: (trace.info.tags["method"] == "recall", len(trace.data.spans)))


def test_a_server_elsewhere_takes_a_run(
    mlflow_ui: str, shown: Shown, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By the usual environment variable, files and traces included."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_ui)
    monkeypatch.chdir(tmp_path)
    logged = mlflow_log.log_comparison(read_run(shown.folder), experiment="elsewhere", max_traces=3)
    assert logged.tracking_uri == mlflow_ui and logged.num_traces == 3
    client = MlflowClient(tracking_uri=mlflow_ui)
    page = Path(client.download_artifacts(logged.run_id, "report.html"))
    assert page.read_bytes() == (shown.folder / "report.html").read_bytes()
    assert len(client.search_runs([logged.experiment_id])) == 1 + len(logged.method_run_ids)
    assert list(tmp_path.iterdir()) == []  # nothing was written here
