"""One finished comparison of three methods for every test that only reads it."""

from __future__ import annotations

import contextlib
import io
import json

import pytest
from commands import METHODS, SMALL, Finished, run_command, run_folders, use

from eval.records import read_records
from methods.backbone import Backbone


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, pristine_lively: Backbone) -> Finished:
    """Shared: never change its folder, copy it."""
    base = tmp_path_factory.mktemp("compare")
    uri = f"sqlite:///{base.as_posix()}/mlflow.db"
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")
        patch.chdir(base)  # MLflow puts artifacts under the current folder
        use(patch, pristine_lively)
        with contextlib.redirect_stdout(shown):
            run_command(patch, *SMALL, f"runs_dir={base / 'runs'}", f"run_methods=[{','.join(METHODS)}]")
    (folder,) = run_folders(base / "runs")
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return Finished(folder, summary, *read_records(folder / "records.jsonl"), shown.getvalue(), uri)
