"""The trigger's receiver operating characteristic: recalls that are wanted against recalls that are not.

A margin is the logit of <recall> less the largest other logit where the think begins; a bias b on <recall>
triggers where margin + b > 0. Fawcett (2006), "An introduction to ROC analysis", Pattern Recognition Letters 27.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TriggerPoint:
    """What one bias does."""

    bias: float
    recalled: float  # share of turns that need a memory on which it recalls
    false: float  # share of ordinary turns on which it recalls


@dataclass(frozen=True)
class TriggerRoc:
    points: tuple[TriggerPoint, ...]  # in order of rising bias
    area: float  # probability that a turn that needs a memory has the larger margin; ties count half


def trigger_roc(wanted: Sequence[float], ordinary: Sequence[float], biases: Sequence[float]) -> TriggerRoc:
    """wanted, ordinary: margins of turns that need a memory and of those that do not.

    Raises ValueError where either is empty.
    """
    if not wanted or not ordinary:
        raise ValueError("trigger ROC: margins of both kinds of turns are needed")
    points = tuple(
        TriggerPoint(
            bias,
            sum(margin + bias > 0 for margin in wanted) / len(wanted),
            sum(margin + bias > 0 for margin in ordinary) / len(ordinary),
        )
        for bias in sorted(biases)
    )
    wins = sum((a > b) + 0.5 * (a == b) for a in wanted for b in ordinary)
    return TriggerRoc(points, wins / (len(wanted) * len(ordinary)))
