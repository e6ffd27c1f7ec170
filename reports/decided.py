"""What a run with until=decided says of its contrasts: decided, open, and what the rest would likely take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.decided import ALIKE, FAR

Plan = Mapping[str, Any]  # summary.json's "decided": eval.decided.decided


def still_open(plan: Plan) -> list[str]:
    """The contrasts that more slices may decide."""
    return [name for name, found in plan["contrasts"].items() if found["state"] == "open"]


def sentences(plan: Plan) -> list[str]:
    """One for each contrast, decided ones first, and one on what the intervals mean."""
    if plan["slices"] < plan["first_look"]:
        return [f"{_slices(plan['slices'])} measured; the first look comes after {plan['first_look']}."]
    contrasts = sorted(plan["contrasts"].items(), key=lambda item: item[1]["state"] == "open")
    return [*(_sentence(name, found, plan) for name, found in contrasts), _meaning(plan)]


def _sentence(name: str, found: Mapping[str, Any], plan: Plan) -> str:
    state, behind = found["state"], f"after {_slices(found['slices'])}"
    if state == "not_measured":
        return f"{name} cannot be decided here: {found['reason']}."
    if state in ("supported", "refuted"):
        return f"{name} is {state}, {behind} ({found['reason']})."
    if found["value"] is None:
        return f"{name} is open {behind} ({found['reason']}); {_more(found, plan)}."
    a, b = name.split("-")
    winner, loser, sign = (a, b, 1) if found["value"] > 0 else (b, a, -1)
    low, high = sorted((sign * found["low"], sign * found["high"]))
    figures = f"right answers {sign * found['value']:+z.2f} [{low:+z.2f}, {high:+z.2f}]"
    if state == "different":
        return f"{winner} keeps more than {loser} ({figures}), decided {behind}."
    if state == "alike":
        return f"{winner} and {loser} keep the same within {ALIKE:.2f} ({figures}), decided {behind}."
    return f"{winner} and {loser} are open {behind} ({figures}); {_more(found, plan)}."


def _more(found: Mapping[str, Any], plan: Plan) -> str:
    """What would likely decide an open contrast, at the figures so far."""
    more, left = found["more_slices"], plan["most"] - plan["slices"]
    if more is None:
        return f"at these figures {FAR} more slices would not decide it, or it cannot be told yet"
    hours, questions = more * plan["hours_a_slice"], more * plan["questions_a_slice"]
    within = "" if more <= left else f", of which the plan has {left} left"
    return (
        f"about {_slices(more)} more would likely decide it ({hours:.2g} hours, {questions:.0f} questions{within})"
    )


def _slices(count: int) -> str:
    return f"{count} slice" if count == 1 else f"{count} slices"


def _meaning(plan: Plan) -> str:
    num = len(plan["contrasts"])
    over = f"all looks and all {num} contrasts together" if num > 1 else "all looks together"
    return (
        f"{plan['slices']} of at most {plan['most']} slices are measured, with a look after each from the "
        f"{plan['first_look']}th on: these intervals hold over {over} in 95% of the cases; "
        "those in the tables are of one look."
    )
