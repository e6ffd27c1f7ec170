"""Two runs against each other: aligned by question, paired, clustered, and what that decides.

Sides come from run folders (`side_of_run`) or from lm-eval's sample logs (`sides_of_logs`). They compare where the
same questions were asked, scored and decoded in the same way; what else differs, a model or a recipe, is what the
comparison is about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from eval.lm_eval_log import SampleLog
from eval.records import TurnRecord
from eval.retention import key_of
from eval.stats import LEVEL, Difference, Sample, StatsError, holm, paired_difference
from eval.summary import COMPARED, by_method

GONE = 0.5  # of the smaller side's questions: fewer in common are another data set


class IncomparableError(ValueError):
    """Two runs that say nothing about each other: another scorer, other data, another decoding; and the fix."""


@dataclass(frozen=True)
class Side:
    """One run's answers to what is compared: a method, or an lm-eval task."""

    name: str
    samples: Mapping[str, Sample]  # metric -> values; items are questions
    keys: Mapping[str, str]  # question -> what counts as right
    decoding: Mapping[str, str]  # question ("": all) -> how answers were generated
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Row:
    """One method or task on one metric: the first run minus the second."""

    name: str
    metric: str
    difference: Difference
    p_holm: float  # over the rows of the metric
    outcome: Literal["different", "not told apart"]
    unpaired: tuple[int, int]  # answers of either side that the other lacks


def question_of(record: TurnRecord) -> str:
    """What a turn asks: the same in every run that asks it, whatever its dialogue."""
    qa = key_of(record)
    return f"{record.kind}/{'' if qa is None else qa.id}/{record.question}"


def by_question(records: Sequence[TurnRecord]) -> list[TurnRecord]:
    """The scored turns, named by what they ask; a question asked several times by its place among these."""
    counted: dict[tuple[str, int, str], int] = {}
    found = []
    scored = (record for record in records if key_of(record) is not None)
    for record in sorted(scored, key=lambda r: (r.seed, r.distance or 0, r.dialogue_id, r.turn)):
        question = question_of(record)
        place = record.method, record.seed, question
        counted[place] = counted.get(place, -1) + 1
        cluster = record.cluster or question
        found.append(replace(record, dialogue_id=question, turn=counted[place], cluster=cluster))
    return found


def sides_of_run(turns: Sequence[TurnRecord], decoding: Mapping[str, Any]) -> dict[str, Side]:
    """Method -> its side. decoding: the settings that decide how an answer is generated."""
    sides = {}
    for name, records in by_method(by_question(turns)).items():
        keys = {r.dialogue_id: repr((r.qa.answer, r.qa.aliases, r.qa.rivals)) for r in records if r.qa is not None}
        samples = {metric: value(records) for metric, value in COMPARED.items()}
        seeds = tuple(sorted({record.seed for record in records}))
        how = {"": ", ".join(f"{key}={value}" for key, value in sorted(decoding.items()))}
        sides[name] = Side(name, samples, keys, how, seeds)
    return sides


def sides_of_logs(logs: Sequence[SampleLog]) -> dict[str, Side]:
    """Task -> its side."""
    return {
        log.task: Side(
            log.task,
            {metric: log.sample(metric) for metric in log.metrics},
            {document: f"{log.hashes[document]}/{log.targets[document]}" for document in log.hashes},
            log.decoding,
        )
        for log in logs
    }


def check_comparable(a: Side, b: Side) -> None:
    """Raises IncomparableError naming what is not the same, and the fix."""
    if not shares(a, b):
        raise IncomparableError(
            f"another scorer: {a.name} has {', '.join(a.samples)} against {', '.join(b.samples)}, and no share of "
            "right answers is among both; score both with one metric, such as acc or exact_match"
        )
    shared = a.keys.keys() & b.keys.keys()
    if len(shared) < GONE * min(len(a.keys), len(b.keys)):
        raise IncomparableError(
            f"other data: {len(shared)} questions in common, of {len(a.keys)} and {len(b.keys)} ({a.name}); "
            "ask both the same questions (of one rulebook the same seed draws the same slice)"
        )
    rekeyed = sum(a.keys[question] != b.keys[question] for question in shared)
    if rekeyed:
        raise IncomparableError(
            f"another scorer or other data: {rekeyed} of the {len(shared)} questions in common have another text "
            f"or another right answer ({a.name}); run both on one version of the data"
        )
    for question in sorted(shared | {""}):
        one, other = (side.decoding.get(question, "") for side in (a, b))
        if one != other:
            raise IncomparableError(
                f"another decoding: {one or 'none'} against {other or 'none'} ({a.name}); decode both alike"
            )


def compare_runs(sides: Sequence[tuple[Side, Side]]) -> list[Row]:
    """Every pair of sides on every metric that both have; Holm over the rows of a metric.

    Raises IncomparableError as `check_comparable` does.
    """
    found: dict[str, list[tuple[Side, Difference, tuple[int, int]]]] = {}
    for a, b in sides:
        check_comparable(a, b)
        for metric in shares(a, b):
            one, other = a.samples[metric], b.samples[metric]
            if a.seeds != b.seeds:
                one, other = _over_seeds(one), _over_seeds(other)
            try:
                difference = paired_difference(one, other)
            except StatsError:
                continue  # no answer of the metric's kind in common
            unpaired = len(one) - difference.n, len(other) - difference.n
            found.setdefault(metric, []).append((a, difference, unpaired))
    rows = []
    for metric, of_metric in found.items():
        adjusted = holm([difference.p for _, difference, _ in of_metric])
        for (side, difference, unpaired), p in zip(of_metric, adjusted, strict=True):
            outcome: Literal["different", "not told apart"] = "different" if p < LEVEL else "not told apart"
            rows.append(Row(side.name, metric, difference, p, outcome, unpaired))
    return rows


def shares(a: Side, b: Side) -> list[str]:
    """The metrics of both sides whose values lie between 0 and 1: only of these are differences compared."""

    def lies_there(drawn: Sample) -> bool:
        return not len(drawn) or (drawn.values.min() >= 0 and drawn.values.max() <= 1)

    return [m for m in a.samples if m in b.samples and lies_there(a.samples[m]) and lies_there(b.samples[m])]


def _over_seeds(drawn: Sample) -> Sample:
    """The mean over seeds of each question."""
    values: dict[str, list[float]] = {}
    clusters: dict[str, str] = {}
    for value, cluster, item in zip(drawn.values, drawn.clusters, drawn.items, strict=True):
        question = item.rpartition("/")[0]  # without its place among those of a seed
        values.setdefault(question, []).append(float(value))
        clusters[question] = cluster
    means = np.array([np.mean(found) for found in values.values()], dtype=np.float64)
    return Sample(means, tuple(clusters[item] for item in values), (0,) * len(values), tuple(values), drawn.reason)
