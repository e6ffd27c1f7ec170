"""The trigger's ROC against values worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.trigger import TriggerPoint, trigger_roc

MARGINS = st.lists(st.floats(-20, 20), min_size=1, max_size=12)


def test_by_hand() -> None:
    roc = trigger_roc([3.0, 1.0, -1.0], [-2.0, 0.5], [0.0, 1.5, -1.5])
    assert roc.points == (
        TriggerPoint(-1.5, 1 / 3, 0.0),
        TriggerPoint(0.0, 2 / 3, 0.5),
        TriggerPoint(1.5, 1.0, 0.5),
    )
    assert roc.area == pytest.approx(5 / 6)  # of six pairs only (-1, 0.5) is the wrong way round


def test_ties_count_half() -> None:
    assert trigger_roc([1.0], [1.0], []).area == 0.5


@given(MARGINS, MARGINS)
def test_more_bias_never_recalls_less(wanted: list[float], ordinary: list[float]) -> None:
    roc = trigger_roc(wanted, ordinary, [-5.0, -1.0, 0.0, 1.0, 5.0])
    for low, high in zip(roc.points, roc.points[1:], strict=False):
        assert low.recalled <= high.recalled
        assert low.false <= high.false
    assert roc.area + trigger_roc(ordinary, wanted, []).area == pytest.approx(1.0)


def test_one_side_missing_is_an_error() -> None:
    with pytest.raises(ValueError, match="both kinds"):
        trigger_roc([], [1.0], [0.0])
