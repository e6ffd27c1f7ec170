"""Lines of progress: a stage tells its own rate and time left, each time that it is begun."""

from __future__ import annotations

import json
from functools import partialmethod

import pytest
from tqdm import auto, tqdm

from pipelines import children, fit_processes, progress
from pipelines.progress import EVERY_S, Display


def test_a_stage_that_begins_anew_has_its_own_rate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not that since it began first: a row's Step 1 comes long after the gate's."""
    now = 1000.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    display = Display()
    lines = []
    for pause in (0.0, 5000.0):
        now += pause
        for done in (0, 30, 100):
            display("step 1", done, 100)
            now += 2 * EVERY_S
        lines.append([line for line in capsys.readouterr().err.splitlines() if "30/100" in line])
    assert lines == [["step 1: 30/100 (1.0/s, 70 s left)"]] * 2


def test_a_bar_that_begins_anew_is_the_same_bar_from_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    display = Display()
    display._live = True
    for pause in (0.0, 5000.0):
        now += pause
        for done in (0, 30, 100):
            display("step 1", done, 100)
            now += 30.0
            (bar,) = display._progress.tasks
            assert bar.completed == done
            if done == 30:
                assert bar.fields["rate"] == "1.0/s"


def test_fits_side_by_side_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    """Methods may share a stage's name, and rows and refits train one method; a stage with the name keeps it."""
    for name, stage in (("sft", "sft"), ("recall", "recall step 1"), ("recall_spec", "recall step 1")):
        fit_processes.Lines(name)(stage, 1, 2)
    fit_processes.Lines("sft/changed")("sft", 1, 2)
    said = [json.loads(line.removeprefix(children.MARK))["stage"] for line in capsys.readouterr().out.splitlines()]
    assert said == ["sft", "recall step 1", "recall_spec: recall step 1", "sft/changed: sft"]


def test_bars_of_libraries_are_off(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Those that ask nobody too, as over the tensors of a GGUF file."""
    monkeypatch.setattr(tqdm, "__init__", partialmethod(vars(tqdm)["__init__"], disable=False))
    assert list(auto.tqdm(range(3))) == [0, 1, 2]
    assert "3/3" in capsys.readouterr().err
    for _ in range(2):
        progress.quiet_libraries()
        assert list(auto.tqdm(range(3))) == [0, 1, 2]
        assert capsys.readouterr() == ("", "")
