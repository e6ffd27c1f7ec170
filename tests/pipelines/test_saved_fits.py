"""A method is fitted once a folder; a fit that was cut is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from methods.base import FitReport
from pipelines.run import Run
from pipelines.saved_fits import fit_or_load, load_fit
from tasks.base import Conversation, Memory
from tasks.registry import load_task

REPORT = FitReport(seconds=1.5, forward_tokens=7, optimizer_steps=2, bytes_stored=3, curves={"lm": (2.0, 1.0)})


class Fitted:
    """Notes what is done to it."""

    name = "fitted"

    def __init__(self, cut: str = "") -> None:
        self.cut, self.done = cut, []

    def note(self, what: str) -> None:
        self.done.append(what)
        if what == self.cut:
            raise KeyboardInterrupt

    def fit(self, memories: Sequence[Memory], sft: Sequence[Conversation]) -> FitReport:
        self.note("fit")
        return REPORT

    def save(self, path: Path) -> None:
        assert path.is_dir()
        self.note("save")

    def load(self, path: Path) -> None:
        self.note("load")


@pytest.mark.parametrize("cut", ["", "fit", "save"])
def test_fitted_once_and_restored_after_unless_it_was_cut(tmp_path: Path, cut: str) -> None:
    task, run = load_task("regs", 6, 0), Run(tmp_path, {})
    folder = run.fit_folder(0, "fitted")

    def fit_again(method: Any) -> FitReport:
        return fit_or_load(method, run, folder, task, "the stage")

    if cut:
        with pytest.raises(KeyboardInterrupt):
            fit_again(Fitted(cut))
        assert load_fit(folder) is None
        assert run.stages == []
    first, second = Fitted(), Fitted()
    noted = replace(REPORT, notes={**REPORT.notes, "threads": torch.get_num_threads()})
    assert fit_again(first) == fit_again(second) == load_fit(folder) == noted
    assert (first.done, second.done) == (["fit", "save"], ["load"])
    assert run.stages == ["the stage"]
