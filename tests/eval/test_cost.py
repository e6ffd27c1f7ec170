"""Cost metrics by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted import timed

from eval.cost import (
    break_even,
    check,
    cost_metrics,
    cost_of_pass,
    cost_resamples,
    estimate_cost_of_pass,
    fit_seconds,
    latency,
    latency_p95,
    measured_peaks,
    peak_bytes,
    relative_difference,
    relative_peaks,
    reserved_bytes,
    serial_latency,
    stage,
    stage_rest,
    tpot,
    ttfa,
    ttft,
    usage_mean,
)
from eval.records import CostRecord, RecordError
from eval.stats import Estimate, StatsError
from methods.base import FitReport

RNG = np.random.default_rng


def test_times_by_hand() -> None:
    records = [
        timed("recall", "q1", total_s=1.0, ttft_s=0.1, ttfa_s=0.7, new_tokens=10),
        timed("recall", "q2", total_s=2.0, ttft_s=0.2, ttfa_s=0.0, new_tokens=5),
        timed("recall", "q3", total_s=0.4, ttft_s=0.4, ttfa_s=0.0, new_tokens=1),
    ]
    assert ttft(records).values.tolist() == [0.1, 0.2, 0.4]
    assert ttfa(records).values.tolist() == [0.7]  # the others never reached an answer
    assert tpot(records).values.tolist() == pytest.approx([0.9 / 9, 1.8 / 4])
    assert latency(records).values.tolist() == [1.0, 2.0, 0.4]
    assert usage_mean(records, lambda u: u.prompt_tokens).mean == 50
    assert ttfa(records[1:]).reason == "no timed answer closed its think"
    assert tpot(records[2:]).reason == "no timed answer has a second token"


def test_what_drafts_save_is_read_off_the_same_answers() -> None:
    drafted, plain = timed("recall", "q1", total_s=1.0), timed("recall", "q2", total_s=3.0)
    assert serial_latency([replace(drafted, serial_s=2.5), plain]).values.tolist() == [2.5, 3.0]
    assert serial_latency([drafted, plain]).reason == "no answer was drafted"


def test_stages() -> None:
    records = [
        timed("rag", "q1", total_s=1.0, stage_s={"search": 0.2, "prefill": 0.1, "rest": 0.7}),
        timed("rag", "q2", total_s=1.0, stage_s={"prefill": 0.3}),
    ]
    assert stage(records, "search").mean == pytest.approx(0.1)
    assert stage(records, "prefill").mean == pytest.approx(0.2)
    assert stage_rest(records).values.tolist() == pytest.approx([0.7, 0.7])
    assert stage(records, "memory_head").reason == "this method has no such stage"


def test_p95_is_a_dash_under_sixty_timings() -> None:
    records = [timed("sft", f"q{i % 20}", i // 20, total_s=1 + i / 100) for i in range(60)]
    resamples = cost_resamples(records, RNG(0), 200)
    assert resamples is not None
    found = latency_p95(records, resamples)
    assert found.value == pytest.approx(float(np.quantile([1 + i / 100 for i in range(60)], 0.95)))
    assert found.low is not None and found.high is not None and found.low <= found.value <= found.high
    few = latency_p95(records[:59], resamples)
    assert few.value is None and few.reason == "59 timings; a p95 needs 60"


def test_video_memory_and_resident_set_never_mix() -> None:
    records = [timed("sft", "q1", peak_bytes=7), timed("sft", "q2", peak_bytes=7)]
    assert peak_bytes(records, "rss") == Estimate(7.0, n=1)
    assert peak_bytes(records, "vram") == Estimate(None, reason="measured as rss")
    assert peak_bytes([], "vram").reason == "no timed answer"


def measured(method: str, *peaks: int, seed: int = 0, reserved: int | None = None) -> list[CostRecord]:
    """Two timings that carry the same measurements."""
    records = [timed(method, f"q{i}", peak_bytes=max(peaks), seed=seed) for i in range(2)]
    return [replace(record, peaks_bytes=peaks, reserved_bytes=reserved) for record in records]


def test_peak_memory_counts_measurements_not_timings() -> None:
    repeats = measured("sft", 10, 12, 11)
    found = peak_bytes(repeats, "rss")
    half = 4.3027 / 3**0.5  # t on two degrees of freedom; their standard deviation is 1
    assert (found.value, found.n) == (11.0, 3)
    assert (found.low, found.high) == pytest.approx((11 - half, 11 + half), abs=0.05 * half)
    seeds = repeats + measured("sft", 20, 22, 21, seed=1)
    assert measured_peaks(seeds, "rss") == [11.0, 21.0]  # a process counts once
    assert peak_bytes(seeds, "rss").n == 2


def test_reserved_memory_stands_beside() -> None:
    records = measured("sft", 10, reserved=64) + measured("sft", 10, seed=1, reserved=66)
    assert reserved_bytes(records) == Estimate(65.0, n=2)
    assert reserved_bytes(measured("sft", 10)).reason == "measured on CUDA alone"


def test_relative_peaks_by_hand() -> None:
    found = relative_peaks(measured("recall", 108, 110, 112), measured("sft", 99, 100, 101), "rss")
    assert (found.arm, found.reference, found.n, found.num_clusters) == (110, 100, 3, 3)
    assert found.value == pytest.approx(0.1)
    arm = peak_bytes(measured("recall", 108, 110, 112), "rss")
    reference = peak_bytes(measured("sft", 99, 100, 101), "rss")
    assert arm.low and arm.high and reference.low and reference.high
    assert (found.low, found.high) == pytest.approx((arm.low / reference.high - 1, arm.high / reference.low - 1))
    assert found.se == pytest.approx(1.1 * ((4 / 3) / 110**2 + (1 / 3) / 100**2) ** 0.5)
    assert found.p < 0.001
    once = relative_peaks(measured("recall", 110), measured("sft", 99, 100, 101), "rss")
    assert (once.value, once.low, once.high, once.se, once.n) == pytest.approx((0.1, 0.1, 0.1, 0.0, 1))
    with pytest.raises(StatsError, match="vram"):
        relative_peaks(measured("recall", 1), measured("sft", 1), "vram")


def test_cost_of_pass_by_hand() -> None:
    assert cost_of_pass(100.0, 2.0, 0.5, 1) == 204.0
    assert cost_of_pass(100.0, 2.0, 0.5, 100) == 6.0
    assert cost_of_pass(100.0, 2.0, 0.0, 100) is None
    found = estimate_cost_of_pass(
        Estimate(100.0, n=1), Estimate(2.0, 1.0, 3.0, 9), Estimate(0.5, 0.4, 0.8, 9), 100
    )
    assert found == Estimate(6.0, 2 / 0.8, 4 / 0.4, 9)
    nothing = estimate_cost_of_pass(Estimate(1.0), Estimate(2.0), Estimate(0.0, 0.0, 0.2, 9), 1)
    assert nothing.reason == "no right answer"
    spread = estimate_cost_of_pass(
        Estimate(100.0, 80.0, 120.0, 3), Estimate(2.0, 1.0, 3.0, 9), Estimate(0.5, 0.4, 0.8, 9), 100
    )
    assert spread == Estimate(6.0, (0.8 + 1) / 0.8, (1.2 + 3) / 0.4, 9)


def test_seconds_of_fits() -> None:
    fits = [FitReport(seconds, 1000, 5) for seconds in (90.0, 100.0, 110.0)]
    found = fit_seconds(fits)
    half = 4.3027 * 10 / 3**0.5  # t on two degrees of freedom
    assert (found.value, found.n) == (100.0, 3)
    assert (found.low, found.high) == pytest.approx((100 - half, 100 + half), abs=0.05 * half)
    assert fit_seconds(fits[:1]) == Estimate(90.0, n=1)  # one fit has no spread
    assert fit_seconds([]).reason == "no fit report"


def test_break_even_by_hand() -> None:
    # (100 / k + 1) / 0.5 = (0 / k + 3) / 1  <=>  200 / k + 2 = 3  <=>  k = 200
    k = break_even(100, 1, 0.5, 0, 3, 1.0)
    assert k == pytest.approx(200)
    assert k is not None
    assert cost_of_pass(100, 1, 0.5, round(k)) == pytest.approx(cost_of_pass(0, 3, 1.0, round(k)))
    assert break_even(100, 3, 1.0, 0, 3, 1.0) is None  # never catches up
    assert break_even(100, 4, 1.0, 0, 3, 1.0) is None  # dearer at every k
    assert break_even(100, 1, 0.0, 0, 3, 1.0) is None


def test_relative_difference_of_medians() -> None:
    questions = [f"q{i}" for i in range(30)]
    arm = [timed("recall", q, total_s=1.2) for q in questions]
    reference = [timed("sft", q, total_s=1.0) for q in questions]
    resamples = cost_resamples([*arm, *reference], RNG(0), 200)
    assert resamples is not None
    slower = relative_difference(latency(arm), latency(reference), 0.5, resamples)
    assert slower.value == pytest.approx(0.2) and slower.se == pytest.approx(0)
    assert (slower.arm, slower.reference, slower.n) == (1.2, 1.0, 30)
    with pytest.raises(StatsError, match="no timed answer"):
        relative_difference(latency([]), latency(reference), 0.5, resamples)


def test_paired_noise_cancels_in_the_ratio() -> None:
    rng = RNG(0)
    lengths = rng.uniform(1, 10, 60)
    arm = [timed("recall", f"q{i}", total_s=1.05 * t) for i, t in enumerate(lengths)]
    reference = [timed("sft", f"q{i}", total_s=t) for i, t in enumerate(lengths)]
    resamples = cost_resamples([*arm, *reference], rng, 500)
    assert resamples is not None
    found = relative_difference(latency(arm), latency(reference), 0.5, resamples)
    assert found.low == pytest.approx(0.05) and found.high == pytest.approx(0.05)


def test_all_cost_metrics_have_their_names() -> None:
    fits = [
        FitReport(seconds, 1000, 5, 64, notes={"threads": threads}, index_bytes=24)
        for seconds, threads in ((10.0, 1), (20.0, 2))
    ]
    records = [timed("recall", f"q{i}", r) for i in range(3) for r in range(2)]
    resamples = cost_resamples(records, RNG(0), 100)
    metrics = cost_metrics(records, fits, Estimate(0.5, 0.4, 0.6, 10), resamples)
    assert (metrics["cost/fit_s"].value, metrics["cost/fit_s"].n) == (15.0, 2)
    assert metrics["cost/fit_tokens"].value == 1000
    assert metrics["cost/fit_threads"].value == 1.5
    assert (metrics["cost/bytes_stored"].value, metrics["cost/index_bytes"].value) == (64, 24)
    assert metrics["cost/kv_bytes"].value == 64
    assert metrics["cost/latency_p50_s"].value == 1.0
    assert metrics["cost/per_correct_s_k100"].value == pytest.approx((0.15 + 1.0) / 0.5)
    old = cost_metrics(records, [FitReport(10.0, 1000, 5, 64)], Estimate(0.5), resamples)
    for key in ("bytes_stored", "index_bytes", "fit_threads"):  # an old report's bytes left adapters out
        assert old[f"cost/{key}"].reason == "the fit did not tell"
    empty = cost_metrics([], [], Estimate(0.5), None)
    assert set(empty) == set(metrics)
    assert all(metric.value is None and metric.reason for metric in empty.values())


def test_broken_timings_are_named() -> None:
    good = timed("recall", "q1", 2)
    check(good)
    for usage in (
        replace(good.usage, total_s=0.0),
        replace(good.usage, new_tokens=0),
        replace(good.usage, ttft_s=float("nan")),
        replace(good.usage, ttfa_s=5.0),
        replace(good.usage, stage_s={"search": -1.0}),
    ):
        with pytest.raises(RecordError, match=r"recall/0/q1/2"):
            check(replace(good, usage=usage))
