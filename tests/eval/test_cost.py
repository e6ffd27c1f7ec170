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
    fit_seconds,
    latency,
    latency_p95,
    measured_peaks,
    peak_bytes,
    relative_latency,
    relative_peaks,
    reserved_bytes,
    right,
    seconds_per_right,
    serial_latency,
    stage,
    stage_rest,
    tpot,
    ttfa,
    ttft,
    usage_mean,
)
from eval.records import CostRecord, RecordError
from eval.stats import Estimate, StatsError, estimate
from methods.base import FitReport

RNG = np.random.default_rng
MIB = 2**20
BIG, BIG_ARM = [n * MIB for n in (990, 1000, 1010)], [n * MIB for n in (1080, 1100, 1120)]


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
    again = [replace(drafted, serial_s=2.5), replace(plain, serial_s=3.0), timed("recall", "q3", total_s=9.0)]
    assert serial_latency(again).values.tolist() == [2.5, 3.0]  # the last was not timed without drafts
    assert serial_latency([drafted, replace(plain, serial_s=3.0)]).reason == "no answer was drafted"


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
    found = latency_p95(records)
    assert found.value == pytest.approx(float(np.quantile([1 + i / 100 for i in range(60)], 0.95)))
    assert found.low is not None and found.high is not None and found.low <= found.value <= found.high
    few = latency_p95(records[:59])
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
    found = relative_peaks(measured("recall", *BIG_ARM), measured("sft", *BIG), "rss")
    assert (found.arm, found.reference, found.n, found.num_clusters) == (1100 * MIB, 1000 * MIB, 3, 3)
    assert found.value == pytest.approx(0.1)
    assert found.se == pytest.approx(1.1 * ((400 / 3) / 1100**2 + (100 / 3) / 1000**2) ** 0.5)
    assert (found.high - found.value, found.df) == (pytest.approx(4.3027 * found.se, rel=1e-4), 2)
    assert found.p < 0.05
    alike = relative_peaks(measured("recall", *[1100 * MIB] * 3), measured("sft", *[1000 * MIB] * 3), "rss")
    assert 0.095 < alike.low < alike.value < alike.high < 0.105  # known to the allocator's grain
    with pytest.raises(StatsError, match="measured once"):
        relative_peaks(measured("recall", 110), measured("sft", *BIG), "rss")
    with pytest.raises(StatsError, match="vram"):
        relative_peaks(measured("recall", 1), measured("sft", 1), "vram")


def test_cost_of_pass_by_hand() -> None:
    assert cost_of_pass(100.0, 2.0, 0.5, 1) == 204.0
    assert cost_of_pass(100.0, 2.0, 0.5, 100) == 6.0
    assert cost_of_pass(100.0, 2.0, 0.0, 100) is None


def test_seconds_for_a_right_answer_are_of_the_same_answers() -> None:
    """A quick admission costs its time and gives nothing right."""
    says_no = [timed("sft", f"q{i}", total_s=0.8, final="The handbook does not say.") for i in range(6)]
    answers = [timed("sft", f"a{i}", total_s=2.0 + i / 10) for i in range(4)]
    fits = [FitReport(100.0, 1000, 5)]
    found = seconds_per_right(says_no + answers, fits, 100)
    assert found.value == pytest.approx((10 * 1.0 + 6 * 0.8 + 8.6) / 4)
    assert found.low is not None and found.high is not None and found.low < found.value < found.high
    assert seconds_per_right(says_no, fits, 1).reason == "no right answer"
    assert seconds_per_right(answers, [], 1).reason == "no fit report"
    all_right = seconds_per_right(answers, fits, 100)
    share = estimate(right(answers)).low
    assert all_right.high is not None and all_right.low is not None and all_right.value is not None
    assert share is not None and all_right.high / all_right.value > 1 / share
    kept = seconds_per_right([replace(record, qa=None) for record in answers], fits, 1)
    assert kept.reason == "no timing keeps its answer"


def test_each_seed_bears_its_own_fit() -> None:
    records = [timed("sft", f"q{i}", seed=seed, total_s=1.0) for seed in (4, 5) for i in range(10)]
    even = seconds_per_right(records, [FitReport(100.0, 1, 1), FitReport(100.0, 1, 1)], 10)
    uneven = seconds_per_right(records, [FitReport(90.0, 1, 1), FitReport(110.0, 1, 1)], 10)
    assert even.value == uneven.value == pytest.approx(11.0)
    assert even.low is not None and uneven.low is not None and uneven.low < even.low


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


def test_latency_is_compared_on_questions_that_both_answer() -> None:
    unknown = "The handbook does not say."
    arm = [timed("recall", f"q{i}", r, total_s=2.4 + i / 10 + r / 2) for i in range(30) for r in range(2)]
    reference = [
        timed("sft", f"q{i}", r, total_s=0.1 if i >= 20 else 2.2 + i / 10, final=unknown if i >= 20 else None)
        for i in range(30)
        for r in range(2)
    ]
    found = relative_latency(arm, reference)
    seconds = [(2.65 + i / 10, 2.2 + i / 10) for i in range(20)]  # means over the rounds
    assert (found.n, found.num_clusters) == (20, 20)
    assert (found.arm, found.reference) == pytest.approx(tuple(np.mean(seconds, axis=0)))
    assert found.value == pytest.approx(found.arm / found.reference - 1)
    assert found.low < found.value < found.high and found.p < 0.001
    with pytest.raises(StatsError, match="no answered turn in common"):
        relative_latency([], reference)
    with pytest.raises(StatsError, match="of one family"):
        relative_latency(*([replace(r, cluster="f") for r in side] for side in (arm, reference)))


def test_paired_noise_cancels_in_the_ratio() -> None:
    lengths, noise = RNG(0).uniform(1, 10, 60), RNG(1).normal(1, 0.01, 60)
    arm = [timed("recall", f"q{i}", total_s=1.05 * t) for i, t in enumerate(lengths * noise)]
    reference = [timed("sft", f"q{i}", total_s=t) for i, t in enumerate(lengths)]
    found = relative_latency(arm, reference)
    assert 0.04 < found.low < 0.05 < found.high < 0.06


def test_all_cost_metrics_have_their_names() -> None:
    fits = [
        FitReport(seconds, 1000, 5, 64, notes={"threads": threads}, index_bytes=24)
        for seconds, threads in ((10.0, 1), (20.0, 2))
    ]
    records = [timed("recall", f"q{i}", r, final="no" if i == 0 else None) for i in range(4) for r in range(2)]
    metrics = cost_metrics(records, fits)
    assert (metrics["cost/fit_s"].value, metrics["cost/fit_s"].n) == (15.0, 2)
    assert metrics["cost/fit_tokens"].value == 1000
    assert metrics["cost/fit_threads"].value == 1.5
    assert (metrics["cost/bytes_stored"].value, metrics["cost/index_bytes"].value) == (64, 24)
    assert metrics["cost/kv_bytes"].value == 64
    assert metrics["cost/latency_p50_s"].value == 1.0
    assert metrics["cost/per_correct_s_k100"].value == pytest.approx((0.15 + 1.0) / 0.75)
    assert metrics["cost/accuracy"].value == 0.75
    old = cost_metrics(records, [FitReport(10.0, 1000, 5, 64)])
    for key in ("bytes_stored", "index_bytes", "fit_threads"):  # an old report's bytes left adapters out
        assert old[f"cost/{key}"].reason == "the fit did not tell"
    empty = cost_metrics([], [])
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
