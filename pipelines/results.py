"""From a run folder to its results: summary, verdicts, report. Needs no model, so it can be done again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eval.summary import comparisons, summarise
from eval.verdict import judge_all
from methods.base import FitReport
from pipelines.run import Run, write_json
from reports.base import Comparison
from reports.markdown import write_report
from tasks.base import TaskData


def write_results(
    run: Run,
    fits: Mapping[str, Sequence[FitReport]],
    environment: Mapping[str, Any],
    data: TaskData,
    *,
    seed: int,
    num_resamples: int,
) -> Comparison:
    """Computes everything from the records, writes summary.json and the report, returns what was written.

    Every computation starts from the same seed, so a second time gives the same digits.
    """

    def rng() -> np.random.Generator:
        return np.random.default_rng(seed)

    verdicts = judge_all(run.turns, run.costs, rng(), num_resamples=num_resamples)
    summary = summarise(
        run.turns,
        run.costs,
        fits,
        rng(),
        task=data.name,
        preset=str(run.config["preset"]),
        wall_s=round(run.wall_s, 1),
        verdicts=verdicts,
        num_resamples=num_resamples,
    )
    write_json(run.folder / "summary.json", summary)
    comparison = Comparison(
        summary=summary,
        run_dir=run.folder,
        config=run.config,
        environment=environment,
        turns=run.turns,
        costs=run.costs,
        fits=fits,
        pairs=comparisons(run.turns, rng(), num_resamples=num_resamples),
        data=data,
    )
    write_report(comparison)
    return comparison
