"""What an answer costs: times, tokens, bytes, and seconds per right answer.

Everything is computed from CostRecords: batch 1, warmed up, synchronised, methods interleaved. Timings
of one question belong together, so the question is the cluster of the intervals. Times are seconds,
memory is bytes. Video memory and resident set are different things and never share a metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from eval.records import CostRecord, RecordError
from eval.stats import (
    Difference,
    Estimate,
    Resamples,
    Sample,
    StatsError,
    bootstrap_quantiles,
    draw_resamples,
    estimate_mean,
    estimate_quantile,
    minimum_detectable_effect,
    missing,
    resampled,
)
from methods.base import FitReport, Usage

STAGES = ("embed", "search", "prefill", "memory_head", "recalled_text")  # and "rest"
MIN_TIMINGS_FOR_P95 = 60
AMORTISED_OVER = (1, 100, 10_000)  # questions that share one fit


def cost_id(record: CostRecord) -> str:
    return f"{record.method}/{record.seed}/{record.question_id}/{record.round}"


def check(record: CostRecord) -> None:
    """Raises RecordError where the times of a record cannot be."""
    usage = record.usage
    times = (usage.ttft_s, usage.ttfa_s, usage.total_s, *usage.stage_s.values())
    if not all(math.isfinite(time) and time >= 0 for time in times):
        raise RecordError(f"record {cost_id(record)}: a time is negative or not a number")
    if usage.total_s <= 0 or usage.new_tokens < 1:
        raise RecordError(
            f"record {cost_id(record)}: {usage.new_tokens} new tokens in {usage.total_s} s; it was not timed"
        )
    if max(usage.ttft_s, usage.ttfa_s) > usage.total_s * (1 + 1e-6):
        raise RecordError(f"record {cost_id(record)}: a token came after the end of the answer")


def timings(
    records: Sequence[CostRecord],
    value: Callable[[CostRecord], float | None],
    reason: str = "no timed answer",
) -> Sample:
    """One value per timed answer; None leaves it out."""
    kept = [(record, result) for record in records if (result := value(record)) is not None]
    return Sample(
        values=np.array([float(result) for _, result in kept], dtype=np.float64),
        clusters=tuple(record.question_id for record, _ in kept),
        seeds=tuple(record.seed for record, _ in kept),
        items=tuple(f"{record.question_id}/{record.round}" for record, _ in kept),
        reason="" if kept else reason,
    )


def ttft(records: Sequence[CostRecord]) -> Sample:
    """Seconds to the first new token."""
    return timings(records, lambda r: r.usage.ttft_s)


def ttfa(records: Sequence[CostRecord]) -> Sample:
    """Seconds to the first token of the *answer*, behind `</think>`; 0 means it was not reached and is out.

    Recall decodes serially what RAG prefills in parallel, so the first token flatters recall; this is
    the fair one.
    """
    return timings(
        records,
        lambda r: r.usage.ttfa_s if r.usage.ttfa_s > 0 else None,
        "no timed answer closed its think",
    )


def tpot(records: Sequence[CostRecord]) -> Sample:
    """Seconds per output token after the first: (total - ttft) / (new tokens - 1); one-token answers are out."""

    def value(record: CostRecord) -> float | None:
        usage = record.usage
        return (usage.total_s - usage.ttft_s) / (usage.new_tokens - 1) if usage.new_tokens > 1 else None

    return timings(records, value, "no timed answer has a second token")


def latency(records: Sequence[CostRecord]) -> Sample:
    """Seconds from the question to the end of the answer."""
    return timings(records, lambda r: r.usage.total_s)


def latency_p95(records: Sequence[CostRecord], resamples: Resamples) -> Estimate:
    """95th percentile of the latency; not given under 60 timings, where it would be the slowest few."""
    if not records:
        return missing("no timed answer")
    if len(records) < MIN_TIMINGS_FOR_P95:
        return missing(f"{len(records)} timings; a p95 needs {MIN_TIMINGS_FOR_P95}")
    return estimate_quantile(latency(records), 0.95, resamples)


def usage_mean(records: Sequence[CostRecord], value: Callable[[Usage], float]) -> Sample:
    """A figure of `Usage`, e.g. prompt tokens, new tokens, bytes of keys and values."""
    return timings(records, lambda r: value(r.usage))


def stage(records: Sequence[CostRecord], name: str) -> Sample:
    """Mean seconds of one stage per answer, over all answers if any has it; a stage not run took none."""
    present = any(name in record.usage.stage_s for record in records)
    return timings(
        records if present else (),
        lambda r: r.usage.stage_s.get(name, 0.0),
        "this method has no such stage" if records else "no timed answer",
    )


def stage_rest(records: Sequence[CostRecord]) -> Sample:
    """Mean seconds per answer outside all named stages: the rest of the decoding."""

    def value(record: CostRecord) -> float:
        named = sum(seconds for name, seconds in record.usage.stage_s.items() if name != "rest")
        return max(0.0, record.usage.total_s - named)

    return timings(records, value)


def peak_bytes(records: Sequence[CostRecord], memory_kind: str) -> Estimate:
    """The highest peak over the timed answers, of one kind of memory ("vram" or "rss"). A maximum has no
    interval."""
    peaks = [record.peak_bytes for record in records if record.memory_kind == memory_kind]
    if not peaks:
        kinds = sorted({record.memory_kind for record in records})
        return missing(f"measured as {' and '.join(kinds)}" if kinds else "no timed answer")
    return Estimate(float(max(peaks)), n=len(peaks))


# --- cost of pass -------------------------------------------------------------------------------


def cost_of_pass(fit_s: float, latency_s: float, accuracy: float, num_questions: int) -> float | None:
    """Seconds per right answer when one fit serves `num_questions`: (fit / k + latency) / accuracy.

    Cost of pass: Erol et al. 2025, arXiv:2504.13359, with the fit amortised. None where nothing is right.
    """
    return (fit_s / num_questions + latency_s) / accuracy if accuracy > 0 else None


def estimate_cost_of_pass(
    fit_s: Estimate, mean_latency: Estimate, accuracy: Estimate, num_questions: int
) -> Estimate:
    """`cost_of_pass` from estimates; the bounds combine the worse and the better end of both, so they
    are wider than a joint interval would be."""
    if fit_s.value is None or mean_latency.value is None or accuracy.value is None:
        return missing(fit_s.reason or mean_latency.reason or accuracy.reason)
    value = cost_of_pass(fit_s.value, mean_latency.value, accuracy.value, num_questions)
    if value is None:
        return missing("no right answer")
    low = high = None
    if mean_latency.low is not None and accuracy.high is not None:
        low = cost_of_pass(fit_s.value, mean_latency.low, accuracy.high, num_questions)
    if mean_latency.high is not None and accuracy.low is not None:
        high = cost_of_pass(fit_s.value, mean_latency.high, accuracy.low, num_questions)
    return Estimate(value, low, high, mean_latency.n)


def break_even(
    fit_s: float,
    latency_s: float,
    accuracy: float,
    other_fit_s: float,
    other_latency_s: float,
    other_accuracy: float,
) -> float | None:
    """From how many questions on a method with the dearer fit has the lower cost of pass.

    k at which (F/k + L)/A = (F'/k + L')/A'. None where no positive k is such a point: one of the two
    is at least as cheap at every k, or one has no right answer.
    """
    if accuracy <= 0 or other_accuracy <= 0:
        return None
    fit_gap = fit_s / accuracy - other_fit_s / other_accuracy
    running_gap = other_latency_s / other_accuracy - latency_s / accuracy
    if running_gap == 0 or fit_gap == 0 or fit_gap / running_gap < 0:
        return None
    return fit_gap / running_gap


# --- ratios -------------------------------------------------------------------------------------


def cost_resamples(
    records: Sequence[CostRecord], rng: np.random.Generator, num_resamples: int
) -> Resamples | None:
    """One set of resamples of the questions for all methods; None without records."""
    if not records:
        return None
    return draw_resamples((r.question_id for r in records), (r.seed for r in records), rng, num_resamples)


def relative_difference(arm: Sample, reference: Sample, q: float, resamples: Resamples) -> Difference:
    """q-quantile of the arm over that of the reference, minus 1, with interval over shared resamples.

    q = 0.5 compares medians, q = 1 maxima. Paired by question through the resamples.
    """
    if not len(arm) or not len(reference):
        raise StatsError((arm if not len(arm) else reference).reason)
    of_arm, of_reference = float(np.quantile(arm.values, q)), float(np.quantile(reference.values, q))
    if of_reference <= 0:
        raise StatsError("the reference costs nothing: no ratio")
    num_clusters = len(set(arm.clusters) & set(reference.clusters))
    if not num_clusters:
        raise StatsError("the two arms have no timed question in common")
    found = resampled(
        of_arm / of_reference - 1,
        lambda r: bootstrap_quantiles(arm, q, r) / bootstrap_quantiles(reference, q, r) - 1,
        resamples,
        num_clusters,
        {*arm.seeds, *reference.seeds},
    )
    low, high = found.interval()
    ratio_B = found.resampled_B
    se = found.se(float(ratio_B[np.isfinite(ratio_B)].std()))
    return Difference(
        arm=of_arm,
        reference=of_reference,
        value=found.value,
        low=low,
        high=high,
        p=found.p(),
        se=se,
        mde=minimum_detectable_effect(se, found.seed_variance, found.num_seeds),
        n=len(arm),
        num_clusters=num_clusters,
    )


def cost_metrics(
    records: Sequence[CostRecord],
    fits: Sequence[FitReport],
    accuracy: Estimate,
    resamples: Resamples | None,
) -> dict[str, Estimate]:
    """All cost/* metrics of one method, under their stable names."""
    for record in records:
        check(record)

    def quantile(drawn: Sample) -> Estimate:
        return missing(drawn.reason) if resamples is None else estimate_quantile(drawn, 0.5, resamples)

    def mean(drawn: Sample) -> Estimate:
        return missing(drawn.reason) if resamples is None else estimate_mean(drawn, resamples)

    def of_fit(value: Callable[[FitReport], float]) -> Estimate:
        if not fits:
            return missing("no fit report")
        return Estimate(float(np.mean([value(report) for report in fits])), n=len(fits))

    mean_latency = mean(latency(records))
    metrics = {
        "cost/ttft_p50_s": quantile(ttft(records)),
        "cost/ttfa_p50_s": quantile(ttfa(records)),
        "cost/tpot_p50_s": quantile(tpot(records)),
        "cost/latency_p50_s": quantile(latency(records)),
        "cost/latency_p95_s": (
            missing("no timed answer") if resamples is None else latency_p95(records, resamples)
        ),
        "cost/latency_mean_s": mean_latency,
        "cost/prompt_tokens": mean(usage_mean(records, lambda u: u.prompt_tokens)),
        "cost/new_tokens": mean(usage_mean(records, lambda u: u.new_tokens)),
        "cost/kv_bytes": mean(usage_mean(records, lambda u: u.kv_bytes)),
        "cost/peak_vram_bytes": peak_bytes(records, "vram"),
        "cost/peak_rss_bytes": peak_bytes(records, "rss"),
    }
    named = dict.fromkeys((*STAGES, *(name for r in records for name in r.usage.stage_s)))
    for name in (name for name in named if name != "rest"):
        metrics[f"cost/stage_{name}_s"] = mean(stage(records, name))
    metrics["cost/stage_rest_s"] = mean(stage_rest(records))
    metrics |= {
        "cost/fit_s": of_fit(lambda f: f.seconds),
        "cost/fit_tokens": of_fit(lambda f: f.forward_tokens),
        "cost/fit_steps": of_fit(lambda f: f.optimizer_steps),
        "cost/bytes_stored": of_fit(lambda f: f.bytes_stored),
    }
    for k in AMORTISED_OVER:
        metrics[f"cost/per_correct_s_k{k}"] = estimate_cost_of_pass(
            metrics["cost/fit_s"], mean_latency, accuracy, k
        )
    return metrics
