"""Curves for the notebooks: over the seeds of a run, over several runs, over the timed answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eval import retention
from eval.records import CostRecord, TurnRecord
from eval.stats import Sample
from reports.base import Summary, estimate
from reports.figures import COLOURS, LINES, MARKERS, STYLE, axes_of, legend_below, plain_name, spread
from tasks.base import TurnKind


def by_seed(turns: Sequence[TurnRecord]) -> pd.DataFrame:
    """Share of first asks right, a row a method and seed; n is the number of first asks."""
    rows = []
    for method, seed in dict.fromkeys((turn.method, turn.seed) for turn in turns):
        own = [turn for turn in turns if (turn.method, turn.seed) == (method, seed)]
        cued, uncued = retention.first_ask(own, cued=True), retention.first_ask(own, cued=False)
        re_asks = retention.by_kind(own, "re_ask")
        rows.append((method, seed, cued.mean, len(cued), uncued.mean, len(uncued), re_asks.mean, len(re_asks)))
    columns = ["method", "seed", "cued", "n cued", "uncued", "n uncued", "re-asks", "n re-asks"]
    return pd.DataFrame(rows, columns=columns).set_index(["method", "seed"]).sort_index()


def _means(samples: Iterable[Sample]) -> list[float]:
    """Their means; a gap in the line where a sample is empty."""
    return [math.nan if s.mean is None else s.mean for s in samples]


@rc_context(STYLE)
def seeds_by_turn(turns: Sequence[TurnRecord], kind: TurnKind = "first_ask") -> Figure | None:
    """Share of a kind of turn right, by turn: a thin line a seed, a thick one over all. None for none scored."""
    label = kind.replace("_", " ")
    figure, axes = axes_of("turn of the dialogue (0 is the first)", f"{label}: answers right (share)")
    turns = [turn for turn in turns if turn.kind == kind]
    drawn = False
    for index, method in enumerate(dict.fromkeys(turn.method for turn in turns)):
        own = [turn for turn in turns if turn.method == method]
        seeds = sorted({turn.seed for turn in own})
        colour, line = COLOURS[index % len(COLOURS)], LINES[index % len(LINES)]
        for seed in seeds if len(seeds) > 1 else ():
            curve = retention.by_turn([turn for turn in own if turn.seed == seed]).get(kind, {})
            axes.plot(list(curve), _means(curve.values()), color=colour, linewidth=0.7, alpha=0.5)
        curve = retention.by_turn(own).get(kind, {})
        if curve:
            drawn = True
            label = f"{plain_name(method)} ({len(seeds)} seed{'s' * (len(seeds) > 1)}, n={len(own)} turns)"
            marker = MARKERS[index % len(MARKERS)]
            means = _means(curve.values())
            axes.plot(list(curve), means, color=colour, linestyle=line, marker=marker, linewidth=1.8, label=label)
    if not drawn:
        return None
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(-0.02, 1.02)
    legend_below(figure)
    return figure


def across_runs(summaries: Mapping[str, Summary], keys: Sequence[str]) -> pd.DataFrame:
    """A row a run and method: preset, seed, and `value [low, high]` of each metric (a dash for none)."""
    rows = []
    for name, summary in summaries.items():
        for method in summary["methods"]:
            cells = [estimate(summary, method, key) for key in keys]
            rows.append(
                [name, method, summary.get("preset"), summary.get("seeds") or [summary.get("seed")]]
                + ["—" if cell.value is None else _interval(cell.value, cell.low, cell.high) for cell in cells]
            )
    return pd.DataFrame(rows, columns=["run", "method", "preset", "seeds", *keys]).set_index(["run", "method"])


def _interval(value: float, low: float | None, high: float | None) -> str:
    ends = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    return f"{value:.2f}{ends}"


@rc_context(STYLE)
def runs_figure(summaries: Mapping[str, Summary], key: str, label: str) -> Figure | None:
    """One metric with its interval in every run, a column a run, a look a method. None where no run has it."""
    methods = list(dict.fromkeys(name for summary in summaries.values() for name in summary["methods"]))
    figure, axes = axes_of("run", label)
    drawn = False
    for index, method in enumerate(methods):
        cells = [
            (at, estimate(summary, method, key))
            for at, summary in enumerate(summaries.values())
            if method in summary["methods"]
        ]
        cells = [(at, cell) for at, cell in cells if cell.value is not None]
        if cells:
            drawn = True
            shift = 0.12 * (index - (len(methods) - 1) / 2)
            axes.errorbar(
                [at + shift for at, _ in cells],
                [cell.value or 0.0 for _, cell in cells],
                yerr=spread([cell for _, cell in cells]),
                linestyle="none",
                color=COLOURS[index % len(COLOURS)],
                marker=MARKERS[index % len(MARKERS)],
                capsize=2,
                label=plain_name(method),
            )
    if not drawn:
        return None
    axes.set_xticks(range(len(summaries)), [plain_name(name) for name in summaries], rotation=20, ha="right")
    axes.set_xlim(-0.6, len(summaries) - 0.4)
    legend_below(figure)
    return figure


def timed_answers(costs: Sequence[CostRecord]) -> pd.DataFrame:
    """One timed answer a row: tokens, seconds, bytes."""
    rows = [
        {
            "method": cost.method,
            "question": cost.question_id,
            "seed": cost.seed,
            "prompt tokens": cost.usage.prompt_tokens,
            "new tokens": cost.usage.new_tokens,
            "first token, s": cost.usage.ttft_s,
            "first of the answer, s": cost.usage.ttfa_s or None,
            "whole answer, s": cost.usage.total_s,
            "keys and values, MiB": cost.usage.kv_bytes / 2**20,
            f"peak {cost.memory_kind}, MiB": cost.peak_bytes / 2**20,
        }
        for cost in costs
    ]
    return pd.DataFrame(rows)


@rc_context(STYLE)
def seconds_by_tokens(costs: Sequence[CostRecord]) -> Figure | None:
    """Seconds of each timed answer against the tokens that it generated. None where nothing was timed."""
    if not costs:
        return None
    figure, axes = axes_of("new tokens of the answer", "seconds for the whole answer (batch 1)")
    for index, method in enumerate(dict.fromkeys(cost.method for cost in costs)):
        own = [cost.usage for cost in costs if cost.method == method]
        tokens, seconds = np.array([usage.new_tokens for usage in own]), [usage.total_s for usage in own]
        axes.scatter(
            tokens,
            seconds,
            s=22,
            alpha=0.75,
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            label=f"{plain_name(method)} (n={len(own)})",
        )
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    legend_below(figure)
    return figure
