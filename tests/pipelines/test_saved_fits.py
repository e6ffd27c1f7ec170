"""A method is fitted once a folder; a fit that was cut is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from methods.backbone import Backbone
from methods.base import FitReport
from pipelines.cli import compose_config
from pipelines.config import resolve
from pipelines.making import key_of
from pipelines.run import Run
from pipelines.saved_fits import fit_or_load, fit_threads, load_fit
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
        (path / "weights").write_text("weights", encoding="utf-8")

    def load(self, path: Path) -> None:
        self.note("load")


@pytest.mark.parametrize("cut", ["", "fit", "save"])
def test_fitted_once_and_restored_after_unless_it_was_cut(tmp_path: Path, cut: str) -> None:
    task, run = load_task("regs", 6, 0), Run(tmp_path, {})
    folder, said = run.fit_folder(0, "fitted"), []

    def fit_again(method: Any) -> FitReport:
        return fit_or_load(method, run, folder, task, "the stage", "a key", said.append)

    if cut:
        with pytest.raises(KeyboardInterrupt):
            fit_again(Fitted(cut))
        assert load_fit(folder) is None
        assert run.stages == []
    first, second = Fitted(), Fitted()
    noted = replace(REPORT, notes={**REPORT.notes, "threads": float(fit_threads())})
    assert fit_again(first) == fit_again(second) == load_fit(folder) == noted
    assert (first.done, second.done) == (["fit", "save"], ["load"])
    assert run.stages == ["the stage"]


def fitted_in(runs_dir: Path, number: int, key: str, fresh: bool = False, cut: str = "") -> tuple[Fitted, Path]:
    """A fit with this key in a run of its own."""
    task, run = (
        load_task("regs", 6, 0),
        Run(runs_dir / "regs" / str(number), {"runs_dir": str(runs_dir)}, fresh=fresh),
    )
    method, folder = Fitted(cut), run.fit_folder(0, "fitted")
    fit_or_load(method, run, folder, task, "the stage", key, method.done.append)
    assert (folder / "weights").exists() and load_fit(folder) is not None and run.stages == ["the stage"]
    return method, folder


def test_a_fit_is_taken_over_from_another_run_that_made_the_same(tmp_path: Path) -> None:
    made, first = fitted_in(tmp_path, 1, "key")
    taken, second = fitted_in(tmp_path, 2, "key")
    assert (made.done, taken.done) == (
        ["fit", "save"],
        [f"fitted: the fit of {first} is the same and taken over; fresh=true makes it anew", "load"],
    )
    assert load_fit(first) == load_fit(second)
    assert fitted_in(tmp_path, 3, "another key")[0].done == ["fit", "save"]
    assert fitted_in(tmp_path, 4, "key", fresh=True)[0].done == ["fit", "save"]
    assert fitted_in(tmp_path, 5, "")[0].done == fitted_in(tmp_path, 6, "")[0].done == ["fit", "save"]


def test_a_fit_that_was_cut_is_taken_over_by_nobody(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fitted_in(tmp_path, 1, "key", cut="save")
    assert fitted_in(tmp_path, 2, "key")[0].done == ["fit", "save"]


def test_a_key_holds_all_that_a_fit_is_made_of(pristine: Backbone) -> None:
    """And nothing else: how answers are asked for, or what another method is set to."""

    def key(*words: str, name: str = "recall", backbone: Backbone = pristine, seed: int = 0) -> str:
        config = resolve(compose_config("compare", ["preset=smoke", *words]))
        return key_of(config, name, config.task.load(seed), seed, backbone)

    same = [
        key(),
        key("evaluation.max_new_tokens=99"),
        key("methods.rag.top_k=7"),
        key("dialogues.num_ordinary=1"),
    ]
    assert len(set(same)) == 1
    warmer = replace(pristine, fingerprint="another")
    # A lifecycle leaves out of what is searched the clauses that it writes later.
    others = [
        key("evaluation.lifecycle=true"),
        key("train.max_tokens=9"),
        key("methods.recall.vectors_per_memory=2"),
        key("task.num_clauses=9"),
    ]
    others += [
        key(name="sft"),
        key(name="recall_quoted"),
        key(backbone=warmer),
        key(seed=1),
        key("examples.reading=0"),
    ]
    assert len({*same, *others}) == 1 + len(others)
    assert key(name="oracle_text") == ""
