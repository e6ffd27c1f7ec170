"""What an answer costs: times, tokens, bytes, and seconds per right answer.

Everything is computed from CostRecords: batch 1, warmed up, synchronised, methods interleaved. Timings
of one question belong together, so the question is the cluster of the intervals. Times are seconds,
memory is bytes. Video memory and resident set are different things and never share a metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from eval.flops import answer_flops, lookup_flops
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
    estimate_over_seeds,
    estimate_quantile,
    minimum_detectable_effect,
    missing,
    resampled,
)
from methods.base import FitReport, Usage

STAGES = ("embed", "search", "prompt", "prefill", "memory_head", "recalled_text")  # and "rest"
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
    """Seconds from the question, before any look-up, template or tokenisation, to the first new token."""
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
    """Seconds from the question, before any look-up, template or tokenisation, to the end of the answer."""
    return timings(records, lambda r: r.usage.total_s)


def serial_latency(records: Sequence[CostRecord]) -> Sample:
    """The latency of the same answers where every forward takes one token: what drafts save is left out."""
    drafting = any(record.serial_s is not None for record in records)
    return timings(
        records if drafting else (),
        lambda r: r.usage.total_s if r.serial_s is None else r.serial_s,
        "no answer was drafted" if records else "no timed answer",
    )


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


def flops(records: Sequence[CostRecord]) -> Sample:
    """FLOPs of a whole answer, generation and look-up (eval.flops)."""
    return timings(records, answer_flops, "no record tells the sizes of a dense model")


def flops_of_lookup(records: Sequence[CostRecord]) -> Sample:
    """FLOPs of finding memories: the memory head's products, or the encoder's pass over the question."""
    return timings(records, lookup_flops, "no record tells the sizes of a dense model")


# --- memory -------------------------------------------------------------------------------------


def measured_peaks(records: Sequence[CostRecord], memory_kind: str) -> list[float]:
    """The separate measurements of peak memory behind the records, in bytes.

    A method is measured in one process a seed, a few times over; every timing of the seed carries a copy. What is
    repeated in a process is more alike than two processes are: over several seeds each counts once, as its mean.
    """
    by_seed: dict[int, dict[tuple[int, ...], None]] = {}
    for record in records:
        if record.memory_kind == memory_kind:
            measured = record.peaks_bytes or (record.peak_bytes,)
            by_seed.setdefault(record.seed, {})[measured] = None
    repeats = [[float(peak) for measured in found for peak in measured] for found in by_seed.values()]
    return repeats[0] if len(repeats) == 1 else [float(np.mean(peaks)) for peaks in repeats]


def peak_bytes(records: Sequence[CostRecord], memory_kind: str) -> Estimate:
    """Mean of the measured peaks of one kind of memory ("vram" or "rss"), with Student's t interval.

    n is the number of measurements, not of timed answers. One measurement has no interval.
    """
    peaks = measured_peaks(records, memory_kind)
    if not peaks:
        kinds = sorted({record.memory_kind for record in records})
        return missing(f"measured as {' and '.join(kinds)}" if kinds else "no timed answer")
    return estimate_over_seeds(peaks)


def reserved_bytes(records: Sequence[CostRecord]) -> Estimate:
    """The most that the CUDA allocator held at once, used or not: mean over the seeds."""
    found = {record.seed: record.reserved_bytes for record in records if record.reserved_bytes is not None}
    if not found:
        return missing("measured on CUDA alone" if records else "no timed answer")
    return Estimate(float(np.mean(list(found.values()))), n=len(found))


def relative_peaks(arm: Sequence[CostRecord], reference: Sequence[CostRecord], memory_kind: str) -> Difference:
    """Mean measured peak of the arm over that of the reference, minus 1.

    The interval combines the ends of the two sides' own; it is so wider than a joint one. The standard error is
    that of a ratio of two means. Where a side was measured once its spread is unknown: the value is taken as it
    is, without interval or error, and n = 1 says so. Raises StatsError where there is no ratio.
    """
    sides = [measured_peaks(records, memory_kind) for records in (arm, reference)]
    if not all(sides):
        raise StatsError(f"no peak memory of kind {memory_kind}")
    of_arm, of_reference = (estimate_over_seeds(peaks) for peaks in sides)
    assert of_arm.value is not None and of_reference.value is not None
    if of_reference.value <= 0 or of_reference.low == 0:
        raise StatsError("peak memory of the reference is not told from none: no ratio")
    value, n = of_arm.value / of_reference.value - 1, min(map(len, sides))
    low = high = value
    se = 0.0
    if n > 1:
        assert of_arm.low is not None and of_arm.high is not None
        assert of_reference.low is not None and of_reference.high is not None
        low = of_arm.low / of_reference.high - 1
        high = of_arm.high / of_reference.low - 1
        relative = sum(float(np.var(peaks, ddof=1)) / len(peaks) / float(np.mean(peaks)) ** 2 for peaks in sides)
        se = (1 + value) * math.sqrt(relative)
    z = abs(value) / se if se > 0 else math.inf if value else 0.0
    p = math.erfc(z / math.sqrt(2))
    return Difference(
        of_arm.value, of_reference.value, value, low, high, p, se, minimum_detectable_effect(se), n, n
    )


# --- the fit ------------------------------------------------------------------------------------


def fit_figure(fits: Sequence[FitReport], value: Callable[[FitReport], float | None]) -> Estimate:
    """Mean over the fits, one a seed; missing where a report is from before the figure was kept."""
    if not fits:
        return missing("no fit report")
    found = [value(report) for report in fits]
    kept = [figure for figure in found if figure is not None]
    if len(kept) < len(found):
        return missing("the fit did not tell")
    return Estimate(float(np.mean(kept)), n=len(kept))


def fit_seconds(fits: Sequence[FitReport]) -> Estimate:
    """Mean seconds of the fits, one a seed; over several with Student's t interval (`estimate_over_seeds`).

    Wall time on the threads that a fit had (`cost/fit_threads`): on unlike numbers of threads fits do not compare.
    """
    mean = fit_figure(fits, lambda report: report.seconds)
    return mean if mean.value is None else estimate_over_seeds([report.seconds for report in fits])


# --- cost of pass -------------------------------------------------------------------------------


def cost_of_pass(fit_s: float, latency_s: float, accuracy: float, num_questions: int) -> float | None:
    """Seconds per right answer when one fit serves `num_questions`: (fit / k + latency) / accuracy.

    Cost of pass: Erol et al. 2025, arXiv:2504.13359, with the fit amortised. None where nothing is right.
    """
    return (fit_s / num_questions + latency_s) / accuracy if accuracy > 0 else None


def estimate_cost_of_pass(
    fit_s: Estimate, mean_latency: Estimate, accuracy: Estimate, num_questions: int
) -> Estimate:
    """`cost_of_pass` from estimates; its bounds combine the three worse and the three better ends.

    They are so wider than a joint interval. A fit that was made once (one seed) has no ends: it enters as it was
    measured, and the bounds then say nothing about how much another fit would take.
    """
    if fit_s.value is None or mean_latency.value is None or accuracy.value is None:
        return missing(fit_s.reason or mean_latency.reason or accuracy.reason)
    value = cost_of_pass(fit_s.value, mean_latency.value, accuracy.value, num_questions)
    if value is None:
        return missing("no right answer")
    fit_low = fit_s.value if fit_s.low is None else fit_s.low
    fit_high = fit_s.value if fit_s.high is None else fit_s.high
    low = high = None
    if mean_latency.low is not None and accuracy.high is not None:
        low = cost_of_pass(fit_low, mean_latency.low, accuracy.high, num_questions)
    if mean_latency.high is not None and accuracy.low is not None:
        high = cost_of_pass(fit_high, mean_latency.high, accuracy.low, num_questions)
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
        "cost/serial_latency_p50_s": quantile(serial_latency(records)),
        "cost/forwards": mean(timings(records, lambda r: r.usage.forwards or None, "no record counts forwards")),
        "cost/prompt_tokens": mean(usage_mean(records, lambda u: u.prompt_tokens)),
        "cost/new_tokens": mean(usage_mean(records, lambda u: u.new_tokens)),
        "cost/flops": mean(flops(records)),
        "cost/lookup_flops": mean(flops_of_lookup(records)),
        "cost/kv_bytes": mean(usage_mean(records, lambda u: u.kv_bytes)),
        "cost/peak_vram_bytes": peak_bytes(records, "vram"),
        "cost/peak_rss_bytes": peak_bytes(records, "rss"),
        "cost/reserved_vram_bytes": reserved_bytes(records),
    }
    named = dict.fromkeys((*STAGES, *(name for r in records for name in r.usage.stage_s)))
    for name in (name for name in named if name != "rest"):
        metrics[f"cost/stage_{name}_s"] = mean(stage(records, name))
    metrics["cost/stage_rest_s"] = mean(stage_rest(records))
    metrics |= {
        "cost/fit_s": fit_seconds(fits),
        "cost/fit_threads": fit_figure(fits, lambda f: f.notes.get("threads")),
        "cost/fit_tokens": fit_figure(fits, lambda f: f.forward_tokens),
        "cost/fit_steps": fit_figure(fits, lambda f: f.optimizer_steps),
        "cost/bytes_stored": fit_figure(fits, lambda f: None if f.index_bytes is None else f.bytes_stored),
        "cost/index_bytes": fit_figure(fits, lambda f: f.index_bytes),
    }
    for k in AMORTISED_OVER:
        metrics[f"cost/per_correct_s_k{k}"] = estimate_cost_of_pass(
            metrics["cost/fit_s"], mean_latency, accuracy, k
        )
    return metrics
