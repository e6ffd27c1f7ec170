"""Lines of progress: a stage tells its own rate and time left, each time that it is begun."""

from __future__ import annotations

import pytest

from pipelines import progress
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
