"""What slices added one after another have decided so far, and what the open rest would likely take.

A contrast is two methods' shares of right answers (`recall-sft`), or a hypothesis of eval.verdict (`H2`).
It is looked at after each slice from the first look on, at the level that eval.looks gives the look for the
contrast's equal part of the 5%, and stays as it was first decided. Two methods are *different* where the
interval of their difference leaves out zero, and *alike* where it lies within `ALIKE`: one interval serves
both, so that together they err in 5% of the cases at most. All is computed from records, look by look,
whenever they were made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal

from scipy.special import stdtrit

from eval import retention
from eval.looks import ALPHA, FIRST_LOOK, levels
from eval.records import CostRecord, TurnRecord
from eval.stats import (
    POWER,
    Difference,
    Layout,
    Sample,
    StatsError,
    difference_parts,
    of_seeds,
    paired,
    paired_difference,
)
from eval.summary import by_method
from eval.verdict import HYPOTHESES, bound_of, judge_all

ALIKE = 0.10  # share of right answers: methods closer than this are alike
FAR = 200  # slices; more is no advice
NONE = 1e-9  # level before the first look
LEAST_FORECAST = 3  # slices by which to judge how much slices differ
JUDGED = {h.key: h for h in HYPOTHESES if h.id in ("H1", "H2", "H3")}  # those that every slice measures

State = Literal["different", "alike", "supported", "refuted", "open", "not_measured"]


@dataclass(frozen=True)
class Decision:
    """Where a contrast stands."""

    state: State
    slices: int  # after how many it was decided; open: seen so far
    more_slices: int | None = None  # open: that would likely decide it; None: cannot be told, or more than `FAR`
    value: float | None = None  # a pair's difference at that look, and its interval over all looks and contrasts
    low: float | None = None
    high: float | None = None
    reason: str = ""  # of a hypothesis: its differences; not_measured: why


def contrasts_asked(asked: Sequence[str], methods: Sequence[str]) -> list[str]:
    """The contrasts by name; none asked for: every pair of methods, and H2 where it is measured.

    Raises StatsError naming one that is unknown, or whose methods do not run.
    """
    pairs = [f"{a}-{b}" for a, b in combinations(methods, 2)]
    judged = [key for key, h in JUDGED.items() if {h.recipe, *h.references} <= set(methods)]
    if not asked:
        return pairs + [key for key in judged if key == "H2"]
    either = {name: pair for pair in pairs for name in (pair, "-".join(reversed(pair.split("-"))))}
    names = either | {key: key for key in judged}
    for name in asked:
        if name not in names:
            raise StatsError(
                f"contrasts: {name!r} is none of these methods; choose from: {', '.join(pairs + judged)}"
            )
    return list(dict.fromkeys(names[name] for name in asked))


def decided(
    turns: Sequence[TurnRecord], costs: Sequence[CostRecord], contrasts: Sequence[str], most: int, wall_s: float
) -> dict[str, Any]:
    """The plan and each contrast's `Decision`, ready for json.dump. A seed of the turns is a slice.

    most: slices that were planned at most, `FIRST_LOOK` or more. wall_s: seconds that the slices took together.
    """
    seeds = sorted({record.seed for record in turns})
    at = levels(most, ALPHA / len(contrasts))
    right = {name: retention.accuracy(records) for name, records in by_method(turns).items()}
    found: dict[str, Decision] = {}
    for slices in range(min(FIRST_LOOK, len(seeds)), len(seeds) + 1):
        seen = set(seeds[:slices])
        for name in contrasts:
            if name in found and found[name].state != "open":
                continue
            if name in JUDGED:
                there = [r for r in turns if r.seed in seen], [r for r in costs if r.seed in seen]
                found[name] = _judged(name, *there, slices, at)
            else:
                arms = [of_seeds(right[method], seen) for method in name.split("-") if method in right]
                found[name] = _told_apart(arms, slices, at)
    return {
        "slices": len(seeds),
        "most": most,
        "first_look": FIRST_LOOK,
        "level": level_now(len(seeds), most, len(contrasts)),
        "hours_a_slice": wall_s / 3600 / len(seeds),
        "questions_a_slice": max(map(len, right.values())) / len(seeds),
        "contrasts": {name: asdict(found[name]) for name in contrasts},
    }


def level_now(slices: int, most: int, num_contrasts: int) -> float:
    """Two-sided level of all contrasts together at this look; before the first none that decides anything."""
    return num_contrasts * levels(most, ALPHA / num_contrasts)[min(slices, most)] if slices >= FIRST_LOOK else NONE


def _told_apart(arms: Sequence[Sample], slices: int, at: Mapping[int, float]) -> Decision:
    """A pair after so many slices; before the first look it is open, whatever the figures."""
    if len(arms) < 2:
        return Decision("not_measured", slices, reason="one of the two did not run")
    a, b = arms
    difference = paired_difference(a, b, level=at[max(slices, FIRST_LOOK)])
    state: State = "open"
    if slices >= FIRST_LOOK and (difference.low > 0 or difference.high < 0):
        state = "different"
    elif slices >= FIRST_LOOK and difference.low > -ALIKE and difference.high < ALIKE:
        state = "alike"
    more = None
    if state == "open":
        gap = max(abs(difference.value), ALIKE - abs(difference.value))
        more = slices_likely(gap, difference, slices, at, _lasting(a, b))
    return Decision(state, slices, more, difference.value, difference.low, difference.high)


def _judged(
    key: str,
    turns: Sequence[TurnRecord],
    costs: Sequence[CostRecord],
    slices: int,
    at: Mapping[int, float],
) -> Decision:
    level = at[max(slices, FIRST_LOOK)]
    verdict = judge_all(turns, costs, level=level, keys=(key,))[key]
    if not verdict.evidence:
        return Decision("not_measured", slices, reason=verdict.reason)
    figures = "; ".join(f"{k} {d.value:+.2f} [{d.low:+.2f}, {d.high:+.2f}]" for k, d in verdict.evidence.items())
    if verdict.outcome != "not_decided" and slices >= FIRST_LOOK:
        return Decision(verdict.outcome, slices, reason=figures)
    gaps = [(abs(d.value - bound_of(verdict.hypothesis)), d) for d in verdict.evidence.values()]
    needed = [slices_likely(gap, difference, slices, at) for gap, difference in gaps]
    known = [more for more in needed if more is not None]
    return Decision("open", slices, max(known) if len(known) == len(needed) else None, reason=figures)


def _lasting(arm: Sample, reference: Sample) -> float:
    """Share of the difference's variance that further seeds leave: that of families which slices share."""
    a, b = paired(arm, reference)
    parts = difference_parts(a.values - b.values, Layout.of(a))
    total = sum(float(part.variance) for part in parts)
    return 1 - float(parts[-1].variance) / total if total else 0.0


def slices_likely(
    gap: float, difference: Difference, seen: int, at: Mapping[int, float], lasting: float = 0.0
) -> int | None:
    """How many more slices would show a gap of this size 4 times in 5, by how much those seen differ.

    at: level of each look; beyond the plan its last. None: never, or too few seen to tell (`LEAST_FORECAST`).
    """
    if seen < LEAST_FORECAST:
        return None
    for slices in range(max(seen + 1, FIRST_LOOK), seen + FAR + 1):
        df = difference.df * (slices - 1) / (seen - 1)
        se = difference.se * math.sqrt(lasting + (1 - lasting) * seen / slices)
        level = at[min(slices, max(at))]
        if gap >= se * float(stdtrit(df, 1 - level / 2) + stdtrit(df, POWER)):
            return slices - seen
    return None
