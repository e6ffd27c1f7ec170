"""What every test shares: no network, one thread, a random model that is cheap to copy, one finished run."""

from __future__ import annotations

import contextlib
import io
import json
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

# Read at the import of the libraries, so set before any of them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # threads that wait for each other on a busy machine: 80 times slower

if TYPE_CHECKING:
    from commands import Finished
    from word_encoder import WordEncoder

    from methods.backbone import Backbone
    from tasks.base import TaskData

settings.register_profile("busy", deadline=None)  # the machine may be at work on something else
settings.load_profile("busy")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("browser")
    group.addoption("--screenshots", metavar="FOLDER", help="tests/browser: keep its screenshots here, as PNG")
    group.addoption("--show-run", metavar="FOLDER", help="with --screenshots: of this finished run")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: over three seconds; leave out with -m 'not slow'")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="torch sees no CUDA device here"))


@pytest.fixture(scope="session")
def regs() -> TaskData:
    """Six clauses, some cued and some not."""
    from tasks.registry import load_task

    return load_task("regs", 6, 0)


@pytest.fixture
def encoder() -> WordEncoder:
    from word_encoder import WordEncoder

    return WordEncoder()


@pytest.fixture(scope="session")
def pristine() -> Backbone:
    """The tiny random model as it is loaded. Shared: never change it, clone it."""
    from methods.backbone import load_backbone

    return load_backbone("tiny", device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def pristine_lively(pristine: Backbone) -> Backbone:
    """The tiny model with large random weights: fresh from its start it only repeats its last token."""
    from lively import enlivened

    return enlivened(pristine)


@pytest.fixture
def tiny(pristine: Backbone) -> Backbone:
    """A copy of its own."""
    return pristine.clone()


@pytest.fixture
def lively(pristine_lively: Backbone) -> Backbone:
    """A copy of its own."""
    return pristine_lively.clone()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, pristine_lively: Backbone) -> Finished:
    """One finished comparison of three methods. Shared: never change its folder, copy it."""
    from commands import METHODS, SMALL, Finished, run_command, run_folders, use

    from eval.records import read_records

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
