"""What each method was given: samples, tokens and steps of its fits, and what was chosen on dev for it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import pandas as pd

from methods.base import FitReport
from reports.base import Comparison

DASH = "—"
TRIED = {  # method -> settings of which several values were compared on dev, at any time (docs/EXPERIMENTS.md)
    "recall": "recipe, mixture, vectors, losses",
    "rag": "top_k (1, 3, 5)",
    "sft": "none",
}
FEW_STEPS = 0.7  # of the most steps that any method had: fewer are said in words


def given(comparison: Comparison) -> pd.DataFrame:
    """Index: what was given; a column a method with a fit of its own; means over its fits, one a seed."""
    fits = {name: _listed(fit) for name, fit in comparison.fits.items() if _listed(fit)}
    sources = list(dict.fromkeys(source for reports in fits.values() for r in reports for source in r.samples))
    rows = {source: [_mean([r.samples.get(source, 0) for r in fits[name]]) for name in fits] for source in sources}
    rows |= {
        "samples in all": [_mean([sum(r.samples.values()) for r in fits[name]]) for name in fits],
        "tokens": [_mean([r.forward_tokens for r in fits[name]]) for name in fits],
        "optimiser steps": [_mean([r.optimizer_steps for r in fits[name]]) for name in fits],
        "settings chosen on dev": [TRIED.get(name, DASH) for name in fits],
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(fits)).rename_axis("trained on, a fit")


def few_steps(comparison: Comparison) -> list[str]:
    """A sentence for each method that had clearly fewer optimiser steps than another, on whatever tokens."""
    steps = {name: fmean(r.optimizer_steps for r in _listed(fit)) for name, fit in comparison.fits.items() if fit}
    most = max(steps, key=lambda name: steps[name], default="")
    return [
        f"{name} had {count:,.0f} optimiser steps where {most} had {steps[most]:,.0f}: its samples are longer, so "
        "equal tokens are fewer of them."
        for name, count in steps.items()
        if count < FEW_STEPS * steps[most]
    ]


def _listed(fit: FitReport | Sequence[FitReport]) -> Sequence[FitReport]:
    return [fit] if isinstance(fit, FitReport) else fit


def _mean(counts: Sequence[float]) -> str:
    mean = fmean(counts)
    return f"{mean:,.0f}" if mean else DASH
