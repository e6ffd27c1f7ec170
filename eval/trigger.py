"""How well the trigger tells turns that need a memory from those that do not."""

from __future__ import annotations

from collections.abc import Sequence


def trigger_area(wanted: Sequence[float], ordinary: Sequence[float]) -> float:
    """Area under the trigger's ROC: probability that a turn that needs a memory has the larger margin.

    wanted, ordinary: margins of turns that need a memory and of those that do not, the logit of <recall> less the
    largest other where the think begins; ties count half. Raises ValueError where either is empty. Fawcett (2006),
    "An introduction to ROC analysis", Pattern Recognition Letters 27.
    """
    if not wanted or not ordinary:
        raise ValueError("trigger ROC: margins of both kinds of turns are needed")
    wins = sum((a > b) + 0.5 * (a == b) for a in wanted for b in ordinary)
    return wins / (len(wanted) * len(ordinary))
