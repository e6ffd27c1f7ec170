"""What a report says first: which method keeps more and which is quicker, in sentences that the data decide.

Two targets apart: this rulebook, whose clauses are fixed, and rulebooks like it, of which these clauses are a
sample. A pair that is not told apart is said with the number of further near-miss families that would do it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from eval.cost import relative_latency
from eval.stats import LEVEL, StatsError
from reports.base import Comparison
from reports.decided import sentences

METRIC = "retention/accuracy"  # right answers over every scored turn
MORE_CLAUSES = "asking about more of its clauses would tell (task.num_clauses=0: all)"
MORE_SLICES = "more slices would tell"
MORE_SEEDS = "more seeds would tell (seeds=3)"
MANY = 500  # families; more is no advice
HERE, LIKE_IT, COST = "For this rulebook", "For rulebooks like it", "Time an answer"

Pairs = Mapping[str, Mapping[str, Any]]  # "a - b" -> figures of eval.summary.comparisons


def head(comparison: Comparison) -> dict[str, list[str]]:
    """Heading -> its sentences; headings without any are left out."""
    plan = comparison.summary.get("decided")
    if plan and plan["slices"] < plan["first_look"]:
        return {LIKE_IT: sentences(plan)}
    whole = comparison.data is not None and comparison.data.fraction >= 1
    found = {
        HERE: kept(
            comparison.pairs_here.get(METRIC, {}), MORE_SLICES if plan else MORE_SEEDS if whole else MORE_CLAUSES
        ),
        LIKE_IT: sentences(plan) if plan else kept(comparison.pairs.get(METRIC, {})),
        COST: cost(comparison),
    }
    return {heading: sentences for heading, sentences in found.items() if sentences}


def kept(pairs: Pairs, advice: str = "") -> list[str]:
    """What the pairs of methods say about right answers, decided ones first.

    advice: what would decide an open pair; "": the number of further families.
    """
    beaten: dict[str, list[tuple[str, str]]] = {}  # loser -> (winner, figures)
    undecided: list[str] = []
    for names, pair in pairs.items():
        a, b = names.split(" - ")
        winner, loser = (a, b) if pair["value"] > 0 else (b, a)
        figures = _figures(pair, 1 if winner == a else -1)
        if pair["outcome"] == "different":
            beaten.setdefault(loser, []).append((winner, figures))
        elif pair["low"] > 0 or pair["high"] < 0:
            among = f"among {len(pairs)} pairs that is not decided (Holm p = {pair['p_holm']:.2f}); "
            undecided.append(f"{winner} kept more than {loser} here ({figures}); {among}{advice or _more(pair)}.")
        else:
            undecided.append(f"{winner} and {loser} are not told apart ({figures}); {advice or _more(pair)}.")
    decided = []
    for loser, winners in beaten.items():
        who, figures = _listed([name for name, _ in winners]), _listed([found for _, found in winners])
        verb = "keep" if len(winners) > 1 else "keeps"
        decided.append(f"{who} {verb} more than {loser} (right answers {figures}).")
    return decided + undecided


def cost(comparison: Comparison) -> list[str]:
    """Which of two methods is quicker, on the timed questions that both answer."""
    decided: list[str] = []
    undecided: list[str] = []
    level = comparison.summary.get("decided", {}).get("level", LEVEL)
    timed = {name: [c for c in comparison.costs if c.method == name] for name in comparison.rivals}
    for a, b in combinations([name for name, records in timed.items() if records], 2):
        try:
            found = relative_latency(timed[a], timed[b], level)
        except StatsError:
            continue
        quick, slow = (a, b) if found.value < 0 else (b, a)
        ratios = sorted((1 + end) ** (1 if quick == a else -1) for end in (found.low, found.high))
        ratio = (1 + found.value) ** (1 if quick == a else -1)
        figures = f"{ratio:.2f} [{ratios[0]:.2f}, {ratios[1]:.2f}]"
        on = f"{found.n} questions that both answer"
        if found.low <= 0 <= found.high:
            undecided.append(f"{a} and {b} are not told apart ({quick} takes {figures} of the time; {on}).")
        else:
            decided.append(f"{quick} answers in {figures} of {slow}'s time ({on}).")
    return decided + undecided


def _figures(pair: Mapping[str, Any], sign: int = 1) -> str:
    low, high = sorted((sign * pair["low"], sign * pair["high"]))
    return f"{sign * pair['value']:+z.2f} [{low:+z.2f}, {high:+z.2f}]"


def _more(pair: Mapping[str, Any]) -> str:
    """What it would take to decide, at the difference that was seen."""
    needed = pair["families_needed"]
    if needed is None or needed > MANY:
        return f"more than {MANY} further families would be needed, at this difference"
    return f"about {needed} more families would, at this difference" if needed > 1 else "one more family might"


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)
