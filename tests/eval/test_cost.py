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
    latency,
    latency_p95,
    peak_bytes,
    relative_difference,
    stage,
    stage_rest,
    timings,
    tpot,
    ttfa,
    ttft,
    usage_mean,
)
from eval.records import RecordError
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
    records = [timed("sft", "q1", peak_bytes=7), timed("sft", "q2", peak_bytes=9)]
    assert peak_bytes(records, "rss") == Estimate(9.0, n=2)
    assert peak_bytes(records, "vram") == Estimate(None, reason="measured as rss")
    assert peak_bytes([], "vram").reason == "no timed answer"


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


def test_break_even_by_hand() -> None:
    # (100 / k + 1) / 0.5 = (0 / k + 3) / 1  <=>  200 / k + 2 = 3  <=>  k = 200
    k = break_even(100, 1, 0.5, 0, 3, 1.0)
    assert k == pytest.approx(200)
    assert k is not None
    assert cost_of_pass(100, 1, 0.5, round(k)) == pytest.approx(cost_of_pass(0, 3, 1.0, round(k)))
    assert break_even(100, 3, 1.0, 0, 3, 1.0) is None  # never catches up
    assert break_even(100, 4, 1.0, 0, 3, 1.0) is None  # dearer at every k
    assert break_even(100, 1, 0.0, 0, 3, 1.0) is None


def test_relative_difference_of_medians_and_maxima() -> None:
    questions = [f"q{i}" for i in range(30)]
    arm = [timed("recall", q, total_s=1.2, peak_bytes=110) for q in questions]
    reference = [timed("sft", q, total_s=1.0, peak_bytes=100) for q in questions]
    resamples = cost_resamples([*arm, *reference], RNG(0), 200)
    assert resamples is not None
    slower = relative_difference(latency(arm), latency(reference), 0.5, resamples)
    assert slower.value == pytest.approx(0.2) and slower.se == pytest.approx(0)
    larger = relative_difference(
        timings(arm, lambda r: r.peak_bytes), timings(reference, lambda r: r.peak_bytes), 1.0, resamples
    )
    assert larger.value == pytest.approx(0.1)
    assert (larger.arm, larger.reference) == (110, 100)
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
    fits = [FitReport(10.0, 1000, 5, 64), FitReport(20.0, 1000, 5, 64)]
    records = [timed("recall", f"q{i}", r) for i in range(3) for r in range(2)]
    resamples = cost_resamples(records, RNG(0), 100)
    metrics = cost_metrics(records, fits, Estimate(0.5, 0.4, 0.6, 10), resamples)
    assert metrics["cost/fit_s"] == Estimate(15.0, n=2)
    assert metrics["cost/fit_tokens"].value == 1000
    assert metrics["cost/bytes_stored"].value == 64
    assert metrics["cost/kv_bytes"].value == 64
    assert metrics["cost/latency_p50_s"].value == 1.0
    assert metrics["cost/per_correct_s_k100"].value == pytest.approx((0.15 + 1.0) / 0.5)
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
