"""The literal recipe's gate: who failed is left out with the figures, and the others go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import SMALL, run_command, run_folders, use

from methods.backbone import Backbone
from methods.base import FitReport, MethodError
from pipelines import gate
from pipelines.cli import compose_config
from pipelines.config import resolve
from pipelines.fit_processes import FitJob, read_memories
from pipelines.progress import Display
from pipelines.run import GATE_FILE, Run, read_json
from pipelines.saved_fits import save_fit


def gated(folder: Path, backbone: Backbone, names: list[str], segments: float, verbatim: float) -> list[str]:
    """With the gate's fit already made."""
    run = Run(folder, {})
    notes = {"segment_hit_at_1": segments, "verbatim_from_true_vector": verbatim}
    save_fit(run.refit_folder(0, "recall_spec", "gate"), FitReport(1.0, 1, 1, notes=notes))
    config = resolve(compose_config("compare", list(SMALL)))
    return gate.gated(names, str, config, run, backbone, Display())


@pytest.mark.parametrize(
    ("segments", "verbatim", "passes"),
    [(1.0, 1.0, True), (0.9, 0.95, True), (0.89, 1.0, False), (1.0, 0.94, False)],
)
def test_who_passes(tmp_path: Path, pristine: Backbone, segments: float, verbatim: float, passes: bool) -> None:
    left = gated(tmp_path, pristine, ["recall", "recall_spec"], segments, verbatim)
    assert left == (["recall", "recall_spec"] if passes else ["recall"])
    assert (tmp_path / GATE_FILE).exists() == passes
    if passes:
        assert read_json(tmp_path / GATE_FILE)["segment_hit_at_1"] == segments


def test_with_nothing_else_to_run_a_failure_is_an_error(tmp_path: Path, pristine: Backbone) -> None:
    with pytest.raises(gate.GateError, match=r"found 0\.50 .* recited 0\.20 .* raise train\.max_tokens"):
        gated(tmp_path, pristine, ["recall_spec"], 0.5, 0.2)


def test_without_the_literal_recipe_there_is_no_gate(tmp_path: Path, pristine: Backbone) -> None:
    assert gated(tmp_path, pristine, ["recall", "rag"], 0.0, 0.0) == ["recall", "rag"]
    assert not (tmp_path / GATE_FILE).exists()


@pytest.mark.parametrize(("processes", "beside"), [(1, []), (2, ["recall"]), (3, ["recall", "rag"])])
def test_sure_fits_go_side_by_side_with_the_gates_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pristine: Backbone, processes: int, beside: list[str]
) -> None:
    """As many as there are processes for; the gate's is on a few clauses, in a folder of its own."""

    def made(_config: Any, run: Run, jobs: list[FitJob], _display: Display) -> None:
        assert [job.name for job in jobs[1:]] == beside
        folder = jobs[0].folder_in(run)
        assert len(read_memories(folder)) == gate.NUM_CLAUSES
        assert folder not in [job.folder_in(run) for job in jobs[1:]] + [run.fit_folder(0, gate.SPEC)]
        raise MethodError("seen")

    monkeypatch.setattr(gate, "fit_missing", made)
    config = resolve(compose_config("compare", [*SMALL, f"fit_processes={processes}"]))
    sure = [FitJob(name, name, 0) for name in ("recall", "rag")]
    with pytest.raises(MethodError, match="seen"):
        gate.gated([gate.SPEC, "recall", "rag"], str, config, Run(tmp_path, {}), pristine, Display(), sure)


def test_a_comparison_goes_on_without_it_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pristine_lively: Backbone
) -> None:
    use(monkeypatch, pristine_lively)
    run_command(monkeypatch, *SMALL, "run_methods=[sft,recall_spec]", "mlflow=false", f"runs_dir={tmp_path}")
    (folder,) = run_folders(tmp_path)
    summary = read_json(folder / "summary.json")
    assert list(summary["methods"]) == ["sft"]
    assert "gate: recall_spec found" in summary["left_out"]["recall_spec"]
    assert "left out: recall spec" in (folder / "report.md").read_text(encoding="utf-8")
    assert summary["verdicts"]["H5/recall_spec"]["verdict"] == "not decided by this data"
