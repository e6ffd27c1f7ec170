"""What the check says of a comparison: that of the laptop preset, and figures worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tasks.forecast import SLICE, SPREAD, forecast, smallest_visible
from tasks.registry import load_task

PRESET = Path(__file__).parents[2] / "pipelines" / "conf" / "preset" / "laptop.yaml"


def test_the_slice_is_that_of_the_laptop_preset() -> None:
    assert yaml.safe_load(PRESET.read_text(encoding="utf-8"))["task"]["num_clauses"] == SLICE


@pytest.mark.parametrize(("families", "quantiles"), [(6, 2.571 + 0.920), (44, 2.017 + 0.850)])
def test_the_smallest_visible_difference_by_hand(families: int, quantiles: float) -> None:
    assert smallest_visible(families) == pytest.approx(quantiles * SPREAD / families**0.5, rel=2e-3)


def test_one_family_decides_nothing() -> None:
    assert smallest_visible(1) == float("inf")


def test_a_whole_handbook_takes_more_and_sees_more() -> None:
    lines = list(forecast(load_task("regs")))
    assert "36 of 132 clauses, about 45 minutes; 12 families" in lines[0]
    assert "3 slices (seeds=3), about 2 hours; 36 families" in lines[1]
    assert len(lines) == 2
    assert len(list(forecast(load_task("regs", num_clauses=36)))) == 1
