"""What an answer costs: times, tokens, bytes, and seconds per right answer.

Everything is computed from CostRecords: batch 1, warmed up, synchronised, methods interleaved. Times are seconds,
memory is bytes. Video memory and resident set are different things and never share a metric. What an answer took
and whether it is right come from the same record, so that quick admissions of not knowing buy nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from eval.flops import answer_flops, lookup_flops
from eval.records import CostRecord, RecordError
from eval.scoring import ScoringError, abstains, is_correct
from eval.stats import (
    LEVEL,
    Difference,
    Error,
    Estimate,
    Layout,
    Sample,
    StatsError,
    error_of,
    estimate,
    estimate_mean,
    estimate_over_seeds,
    estimate_quantile,
    log_ratio_error,
    missing,
    paired,
    variance_parts,
)
from methods.base import FitReport, Usage

STAGES = ("embed", "search", "prompt", "prefill", "memory_head", "recalled_text")  # and "rest"
MIN_TIMINGS_FOR_P95 = 60
GRAIN_BYTES = 2 * 2**20  # in which the CUDA allocator takes memory: no peak is known better
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
        clusters=tuple(record.cluster or record.question_id for record, _ in kept),
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
    drafting = any(record.serial_s not in (None, record.usage.total_s) for record in records)
    return timings(
        records if drafting else (),
        lambda r: r.serial_s,
        "no answer was drafted" if records else "no timed answer",
    )


def right(records: Sequence[CostRecord]) -> Sample:
    """Is the timed answer right, 1.0 or 0.0? eval.scoring.is_correct. Raises RecordError where it has no score."""

    def value(record: CostRecord) -> float | None:
        try:
            return None if record.qa is None else float(is_correct(record.final, record.qa))
        except ScoringError as error:
            raise RecordError(f"record {cost_id(record)}: {error}") from error

    return timings(records, value, "no timing keeps its answer" if records else "no timed answer")


def latency_p95(records: Sequence[CostRecord]) -> Estimate:
    """95th percentile of the latency; not given under 60 timings, where it would be the slowest few."""
    if not records:
        return missing("no timed answer")
    if len(records) < MIN_TIMINGS_FOR_P95:
        return missing(f"{len(records)} timings; a p95 needs {MIN_TIMINGS_FOR_P95}")
    return estimate_quantile(latency(records), 0.95)


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


def relative_peaks(
    arm: Sequence[CostRecord], reference: Sequence[CostRecord], memory_kind: str, level: float = LEVEL
) -> Difference:
    """Mean measured peak of the arm over that of the reference, minus 1, with Student's t interval.

    The standard error is that of a ratio of two means, on the degrees of freedom of the side that was measured
    less often; a mean is no surer than `GRAIN_BYTES`. Raises StatsError where there is no ratio, or a side was
    measured once, so that its spread is unknown.
    """
    sides = [measured_peaks(records, memory_kind) for records in (arm, reference)]
    if not all(sides):
        raise StatsError(f"no peak memory of kind {memory_kind}")
    n = min(map(len, sides))
    if n < 2:
        raise StatsError("peak memory was measured once, so its spread is unknown")
    means = [float(np.mean(peaks)) for peaks in sides]
    if means[1] <= 0:
        raise StatsError("peak memory of the reference is none: no ratio")
    value = means[0] / means[1] - 1
    relative = sum(
        max(float(np.var(peaks, ddof=1)) / len(peaks), GRAIN_BYTES**2 / 12) / mean**2
        for peaks, mean in zip(sides, means, strict=True)
    )
    return _relative(means, value, Error((1 + value) * math.sqrt(relative), n - 1, level), n, n)


def _relative(means: Sequence[float], value: float, error: Error, n: int, num_clusters: int) -> Difference:
    low, high = value - error.half, value + error.half
    p = error.p(value)
    return Difference(means[0], means[1], value, low, high, p, error.se, error.df, error.mde, n, num_clusters)


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


def seconds_per_right(records: Sequence[CostRecord], fits: Sequence[FitReport], num_questions: int) -> Estimate:
    """`cost_of_pass` over the timed answers, with its 95% interval: seconds of all / right ones among them.

    Each answer bears its seed's fit over `num_questions`, so that with several seeds the interval holds how fits
    differ; of one fit it says nothing about another. The interval is that of a ratio of sums on the scale of
    logarithms; where every answer is right, its upper end is divided by the lower bound of that share.
    """
    top, bottom = latency([record for record in records if record.qa is not None]), right(records)
    if not fits or not len(bottom):
        return missing(bottom.reason or "no fit report")
    if not bottom.values.any():
        return missing("no right answer")
    seeds, seconds = sorted(set(top.seeds)), [report.seconds for report in fits]
    if len(seeds) != len(fits):
        seconds = [float(np.mean(seconds))] * len(seeds)
    of_seed = dict(zip(seeds, seconds, strict=True))
    top = replace(top, values=top.values + np.array([of_seed[seed] for seed in top.seeds]) / num_questions)
    value, n = float(top.values.mean() / bottom.values.mean()), len(top)
    if len(set(top.clusters)) == 1:
        return Estimate(value, n=n)
    factor, share = math.exp(min(50.0, log_ratio_error(top, bottom).half)), estimate(bottom).low
    sure = 1.0 if share is None or np.ptp(bottom.values) else share
    return Estimate(value, value / factor, value * factor / sure, n)


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


# --- two methods --------------------------------------------------------------------------------


def relative_latency(
    arm: Sequence[CostRecord], reference: Sequence[CostRecord], level: float = LEVEL
) -> Difference:
    """Mean latency of the arm over that of the reference, minus 1, on the questions that both answer.

    To say that one does not know is quick, so a question counts where both give an answer in every round and
    neither abstains; its seconds are means over the rounds. The interval is that of a ratio of means, linearised
    on the scale of logarithms; p is of the mean log-ratio of the paired seconds. Raises StatsError where there is
    no such question, or all are of one family.
    """
    first, second = paired(*(_seconds_where_answered(records) for records in (arm, reference)))
    layout, logs = Layout.of(first), np.log(first.values / second.values)
    if layout.num_clusters < 2:
        raise StatsError("the timed questions that both answer are of one family: no interval")
    means = [float(side.values.mean()) for side in (first, second)]
    ratio, error = means[0] / means[1], log_ratio_error(first, second, level)
    scaled = Error(ratio * error.se, error.df, level)
    of_logs = error_of(variance_parts((logs - logs.mean()) / len(logs), layout), level)
    return replace(
        _relative(means, ratio - 1, scaled, len(first), layout.num_clusters),
        low=ratio * math.exp(-error.half) - 1,
        high=ratio * math.exp(min(50.0, error.half)) - 1,
        p=of_logs.p(float(logs.mean())),
    )


def _seconds_where_answered(records: Sequence[CostRecord]) -> Sample:
    """Mean seconds a question over the rounds, of the questions answered in every round."""
    rounds: dict[tuple[int, str], list[CostRecord]] = {}
    for record in records:
        rounds.setdefault((record.seed, record.question_id), []).append(record)
    kept = [timed for timed in rounds.values() if all(map(_answers, timed))]
    return Sample(
        values=np.array([np.mean([record.usage.total_s for record in timed]) for timed in kept], dtype=np.float64),
        clusters=tuple(timed[0].cluster or timed[0].question_id for timed in kept),
        seeds=tuple(timed[0].seed for timed in kept),
        items=tuple(timed[0].question_id for timed in kept),
    )


def _answers(record: CostRecord) -> bool:
    return bool(record.qa is not None and record.final.strip() and not abstains(record.final, record.qa))


def cost_metrics(records: Sequence[CostRecord], fits: Sequence[FitReport]) -> dict[str, Estimate]:
    """All cost/* metrics of one method, under their stable names."""
    for record in records:
        check(record)

    def quantile(drawn: Sample) -> Estimate:
        return estimate_quantile(drawn, 0.5)

    mean = estimate_mean
    metrics = {
        "cost/ttft_p50_s": quantile(ttft(records)),
        "cost/ttfa_p50_s": quantile(ttfa(records)),
        "cost/tpot_p50_s": quantile(tpot(records)),
        "cost/latency_p50_s": quantile(latency(records)),
        "cost/latency_p95_s": latency_p95(records),
        "cost/latency_mean_s": mean(latency(records)),
        "cost/accuracy": estimate(right(records)),
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
        metrics[f"cost/per_correct_s_k{k}"] = seconds_per_right(records, fits, k)
    return metrics
