"""What two runs against each other say, as plain text for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eval.two_runs import Row
from reports.metric_names import ROWS
from reports.text import one_line

MOST_SETTINGS = 12


def text_of(
    names: tuple[str, str],
    rows: Sequence[Row],
    differs: Mapping[str, tuple[str, str]],
    seeds: tuple[Sequence[int], Sequence[int]] | None,
) -> str:
    """A line a method (or task) and metric, then what differs between the runs, and what the intervals hold."""
    labels = {row.key: row.label for row in ROWS}
    lines = [
        one_line(f"{names[0]} against {names[1]}: first minus second, paired by question, with 95% intervals")
    ]
    for row in rows:
        d = row.difference
        lines.append("")
        lines.append(f"{one_line(row.name)}, {labels.get(row.metric, one_line(row.metric))}: {row.outcome}")
        lines.append(
            f"  {d.arm:.3f} against {d.reference:.3f}: {d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}], "
            f"{_p(row.p_holm)}{' (Holm)' if len({r.name for r in rows}) > 1 else ''}, "
            f"{d.n} answers in common, {d.num_clusters} clusters"
        )
        if row.outcome != "different":
            lines.append(
                f"  a true difference of {d.mde:.3f} would be seen 4 times in 5; a smaller one may go unseen"
            )
        if any(row.unpaired):
            lines.append(f"  left out: {row.unpaired[0]} and {row.unpaired[1]} answers that the other lacks")
    lines.append("")
    if differs:
        shown = list(differs.items())[:MOST_SETTINGS]
        more = f"; and {len(differs) - len(shown)} more" if len(differs) > len(shown) else ""
        lines.append(one_line("differs: " + "; ".join(f"{key} {a} -> {b}" for key, (a, b) in shown) + more))
    lines.append(_meaning(seeds))
    return "\n".join(lines) + "\n"


def _p(p: float) -> str:
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def _meaning(seeds: tuple[Sequence[int], Sequence[int]] | None) -> str:
    if seeds is None:
        return "Each document is its own cluster: a log does not say which belong together."
    if list(seeds[0]) != list(seeds[1]):
        return (
            "The seeds are not the same: each question's means over a run's seeds are compared, and the intervals "
            "are about these fits; others of equal settings may differ. seed=... gives both runs the same."
        )
    if len(seeds[0]) == 1:
        return (
            "One fit a side: the intervals are about these fits, and two fits of equal settings differ too; "
            "seeds=3 or more tells of others."
        )
    return "Families of near-miss clauses and seeds are the clusters."
