"""The area under the trigger's ROC against values worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.trigger import trigger_area

MARGINS = st.lists(st.floats(-20, 20), min_size=1, max_size=12)


def test_by_hand() -> None:
    # of six pairs only (-1, 0.5) is the wrong way round
    assert trigger_area([3.0, 1.0, -1.0], [-2.0, 0.5]) == pytest.approx(5 / 6)


def test_ties_count_half() -> None:
    assert trigger_area([1.0], [1.0]) == 0.5


@given(MARGINS, MARGINS)
def test_the_other_way_round_it_is_the_rest(wanted: list[float], ordinary: list[float]) -> None:
    assert trigger_area(wanted, ordinary) + trigger_area(ordinary, wanted) == pytest.approx(1.0)


def test_one_side_missing_is_an_error() -> None:
    with pytest.raises(ValueError, match="both kinds"):
        trigger_area([], [1.0])
