"""Intervals and comparisons by hand, and what must hold of any data. Coverage: test_coverage.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from eval.stats import (
    Difference,
    Error,
    Estimate,
    Layout,
    Part,
    Sample,
    StatsError,
    difference_from,
    effective_n,
    error_of,
    estimate,
    estimate_mean,
    estimate_over_seeds,
    estimate_quantile,
    estimate_ratio,
    families_needed,
    holm,
    missing,
    paired_difference,
    variance_parts,
)

RNG = np.random.default_rng
EMPTY = Sample(np.array([]), (), (), (), reason="nothing asked")


def make(
    values: Sequence[float], clusters: Sequence[object] | None = None, seeds: Sequence[int] | None = None
) -> Sample:
    n = len(values)
    return Sample(
        values=np.array(values, dtype=np.float64),
        clusters=tuple(map(str, clusters if clusters is not None else range(n))),
        seeds=tuple(seeds if seeds is not None else [0] * n),
        items=tuple(str(i) for i in range(n)),
    )


def parts(drawn: Sample, fraction: float = 0.0) -> list[tuple[float, float]]:
    influences = (drawn.values - drawn.values.mean()) / len(drawn)
    return [(float(part.variance), part.df) for part in variance_parts(influences, Layout.of(drawn), fraction)]


# The estimator.


def test_one_seed_by_hand() -> None:
    # deviations +.5 +.5 | -.5 -.5, sums 1 and -1 over 4 answers; G / (G - 1) = 2
    assert parts(make([1, 1, 0, 0], list("aabb"))) == [(pytest.approx(2 * 2 / 16), 1)]
    # families that cancel: no error between them
    assert parts(make([1, 0, 1, 0], list("aabb"))) == [(0.0, 1)]
    # every answer its own family: the sample variance over n
    assert parts(make([1, 0, 1, 0])) == [(pytest.approx(1 / 3 / 4), 3)]
    # families of 1 and 3 answers: leaving one out moves the mean from 1/4 to 0 and to 1
    unequal = make([1, 0, 0, 0], list("abbb"))
    assert parts(unequal) == [(pytest.approx(((0 - 1 / 4) ** 2 + (1 - 1 / 4) ** 2) / 2), 1)]
    # families of 2, 2 and 4 answers count as 64 / 24 families
    assert parts(make([1, 0] * 4, list("aabbcccc")))[0][1] == pytest.approx(64 / 24 - 1)


def test_nested_seeds_leave_the_variance_of_seed_means() -> None:
    drawn = make([1, 1, 0, 1, 0, 0], list("abcdef"), [0, 0, 1, 1, 2, 2])
    (families, _), (seeds, df) = parts(drawn)
    assert families == 0
    assert (seeds, df) == (pytest.approx(float(np.var([1, 0.5, 0], ddof=1)) / 3), 2)


@given(st.integers(2, 6), st.integers(2, 5), st.integers(0, 99))
def test_crossed_seeds_by_analysis_of_variance(num_families: int, num_seeds: int, seed: int) -> None:
    """V(seeds) is that of the seeds' means; the families' part follows from the three sums of squares."""
    table_SC = RNG(seed).normal(size=(num_seeds, num_families))
    clusters, seeds = list(range(num_families)) * num_seeds, np.repeat(range(num_seeds), num_families).tolist()
    (families, df), (over_seeds, _) = parts(make(table_SC.ravel().tolist(), clusters, seeds))
    of_families = table_SC.mean(axis=0).var(ddof=1) / num_families
    of_cells = table_SC.var(ddof=1) / table_SC.size
    assert over_seeds == pytest.approx(table_SC.mean(axis=1).var(ddof=1) / num_seeds)
    assert families == pytest.approx(max(0.0, of_families - of_cells) * num_seeds / (num_seeds - 1))
    assert df == num_families - 1


def test_this_rulebook_counts_its_questions_alone() -> None:
    # all families drawn: the two families differ by 1, but their questions do not
    assert sum(v for v, _ in parts(make([1, 1, 0, 0], list("aabb")), fraction=1.0)) == 0
    # within family a: 1 and 0, variance 1/2 of each of 2 questions, weight 2/4
    (between, _), (within, df) = parts(make([1, 0, 0, 0], list("aabb")), fraction=0.5)
    assert within == pytest.approx(0.5 * (0.25 * 0.5 / 2)) and df == 2
    assert between == pytest.approx(0.5 * parts(make([1, 0, 0, 0], list("aabb")))[0][0])
    with pytest.raises(StatsError, match="between 0 and 1"):
        parts(make([1, 0]), fraction=18.0)


def test_mixed_degrees_of_freedom() -> None:
    def half(*found: Part) -> float:
        return error_of(found).half

    few, many = Part(np.float64(1.0), 1), Part(np.float64(3.0), 20)  # type: ignore[arg-type]
    t1, t20 = student.ppf(0.975, [1, 20])
    assert half(few) == pytest.approx(t1) and half(many) == pytest.approx(t20 * math.sqrt(3))
    assert half(few, many) == pytest.approx((t1 + 3 * t20) / 4 * 2)
    assert 1 < error_of([few, many]).df < 20
    nothing = Part(np.float64(0.0), 1)  # type: ignore[arg-type]
    assert error_of([nothing, many]).df == 20


def test_error_by_hand() -> None:
    error = Error(0.1, 5)
    assert error.half == pytest.approx(0.2571, abs=1e-4)
    assert error.mde == pytest.approx(0.2571 + 0.0920, abs=1e-4)
    assert error.p(0.0) == 1.0 and error.p(0.25706) == pytest.approx(0.05, abs=1e-3)
    assert (Error(0.0, 5).p(0.0), Error(0.0, 5).p(0.1)) == (1.0, 0.0)


# Single shares.


def test_wilson_by_hand() -> None:
    # 150 of 300, each answer a family: centre 0.5, t of 299 degrees
    found = estimate(make([1] * 150 + [0] * 150))
    assert (found.low, found.high) == pytest.approx((0.4438, 0.5562), abs=1e-3)
    # 0 of 10 in 10 families: t^2 / (10 + t^2), t of 9 degrees 2.262
    none = estimate(make([0] * 10))
    assert (none.value, none.low, none.high) == pytest.approx((0.0, 0.0, 5.117 / 15.117), abs=1e-3)
    assert estimate(EMPTY) == missing("nothing asked")
    assert estimate(EMPTY).as_dict() == {"value": None, "reason": "nothing asked"}


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 3), st.integers(0, 2)), min_size=1),
    st.sampled_from([0.0, 0.3, 1.0]),
)
def test_a_share_always_has_an_interval_with_width_inside_zero_and_one(
    answers: list[tuple[float, int, int]], fraction: float
) -> None:
    values, clusters, seeds = zip(*answers, strict=True)
    found = estimate(make(values, clusters, seeds), fraction)
    assert found.low is not None and found.high is not None and found.value is not None
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high - found.low > 1 / (len(answers) + 4)


def test_families_that_agree_with_each_other_are_no_certainty() -> None:
    """Six families, each with one of two answers right: nothing differs between them."""
    found = estimate(make([1, 0] * 6, [i // 2 for i in range(12)]))
    alone = estimate(make([1, 0] * 600))
    assert found.low is not None and found.high is not None and alone.low is not None and alone.high is not None
    assert found.low < 0.26 and found.high > 0.74
    assert alone.low > 0.46 and alone.high < 0.54


def test_clustered_intervals_are_wider() -> None:
    values = [1.0] * 50 + [0.0] * 50
    found, alone = estimate(make(values, [i // 10 for i in range(100)])), estimate(make(values))
    assert found.low is not None and found.high is not None and alone.low is not None and alone.high is not None
    assert found.high - found.low > 2 * (alone.high - alone.low)


def test_one_family_says_next_to_nothing() -> None:
    found = estimate(make([1, 1, 1, 0], list("aaaa")))
    assert found.low is not None and found.high is not None and found.high - found.low > 0.9


# Differences.


def test_paired_difference_by_hand() -> None:
    clusters = [i // 4 for i in range(80)]
    arm = make([1, 1, 0, 0] * 15 + [0, 0, 0, 0] * 5, clusters)
    reference = make([1, 0, 0, 0] * 20, clusters)
    found = paired_difference(arm, reference)
    # 15 families at +1/4, 5 at -1/4; 20 of the 80 differences deviate: the prior weighs 1 in 21
    spread = np.var([0.25] * 15 + [-0.25] * 5, ddof=1) / 20
    assert (found.arm, found.reference, found.value) == pytest.approx((0.375, 0.25, 0.125))
    assert (found.n, found.num_clusters, found.df) == (80, 20, 19)
    assert found.se == pytest.approx(math.sqrt(spread), rel=0.03)
    assert found.high - found.value == pytest.approx(student.ppf(0.975, 19) * found.se)
    assert found.mde == pytest.approx((student.ppf(0.975, 19) + student.ppf(0.8, 19)) * found.se)


def flipped(num_flips: int, num_clusters: int, per_cluster: int = 1) -> Difference:
    """Two arms that are right throughout, but for the arm's first answers in the first families."""
    n = num_clusters * per_cluster
    clusters = [i // per_cluster for i in range(n)]
    values = np.ones(n)
    values[[i * per_cluster for i in range(num_flips)]] = 0
    return paired_difference(make(values.tolist(), clusters), make([1.0] * n, clusters))


def test_a_difference_that_never_shows_by_hand() -> None:
    none = flipped(0, 75)  # t of 74 degrees 1.9925: 3.970 / 78.970
    assert (none.low, none.high) == pytest.approx((-0.05027, 0.05027), abs=1e-4)
    assert (none.value, none.p) == (0.0, 1.0)
    one = flipped(1, 75)  # Tango's score interval: [-0.072, 0.037]
    assert one.low == pytest.approx(-0.072, abs=0.02) and one.high == pytest.approx(0.037, abs=0.012)
    alike = flipped(0, 6, per_cluster=15)  # 90 answers are worth 90 / (1 + 14 * 0.2)
    assert effective_n(Layout.of(make([0] * 90, [i // 15 for i in range(90)]))) == pytest.approx(23.684, abs=1e-3)
    t = student.ppf(0.975, 5)
    assert alike.high == pytest.approx(t**2 / (23.684 + t**2), abs=1e-4)


def test_few_flips_are_no_difference() -> None:
    """Three flips the same way: p = 0.25 in McNemar's exact test; ten: 0.002."""
    for num_clusters in (12, 75, 200):
        found = [flipped(k, num_clusters) for k in range(11)]
        assert all(difference.p > 0.05 for difference in found[:4])
        assert found[10].p < 0.05
        for fewer, more in pairwise(found[:6]):
            assert more.low < fewer.low


def test_more_families_narrow_a_difference_that_never_shows() -> None:
    for small, large in pairwise(flipped(0, size, per) for size, per in ((6, 3), (20, 3), (44, 3), (132, 3))):
        assert large.high < small.high and large.mde < small.mde


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 3), st.integers(0, 1)), min_size=1))
def test_a_difference_always_has_an_interval_with_width(answers: list[tuple[bool, bool, int, int]]) -> None:
    arm, reference, clusters, seeds = zip(*answers, strict=True)
    found = paired_difference(make(arm, clusters, seeds), make(reference, clusters, seeds))
    assert found.low <= found.value <= found.high and found.high - found.low > 1 / (len(answers) + 4)
    assert found.se > 0 and 0 <= found.p <= 1
    if found.low > -1 and found.high < 1:
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0) or found.p == pytest.approx(0.05, abs=1e-6)


def test_pairing_is_by_seed_and_item() -> None:
    arm = make([1, 0, 1], list("abc"), [0, 0, 1])
    reference = Sample(np.array([0.0, 1.0]), ("b", "a"), (0, 0), ("1", "0"))
    found = paired_difference(arm, reference)
    assert (found.value, found.n) == (0.0, 2)
    other = Sample(np.array([1.0]), ("a",), (5,), ("0",))
    with pytest.raises(StatsError, match="no answered turn in common"):
        paired_difference(arm, other)
    twice = Sample(np.array([1.0, 0.0]), ("a", "a"), (0, 0), ("0", "0"))
    with pytest.raises(StatsError, match="twice"):
        paired_difference(twice, arm)


def test_difference_from_a_fixed_value() -> None:
    found = difference_from(make([1, 0, 0, 0] * 10, [i // 4 for i in range(40)]), 0.25)
    assert found.value == 0.0 and found.p == 1.0
    with pytest.raises(StatsError, match="why"):
        difference_from(replace(EMPTY, reason="why"), 0.1)


def test_the_order_of_the_answers_does_not_matter() -> None:
    rng = RNG(0)
    arm = make(rng.integers(0, 2, 60).tolist(), rng.integers(0, 7, 60).tolist(), rng.integers(0, 3, 60).tolist())
    order = rng.permutation(60)

    def shuffled(side: Sample) -> Sample:
        return Sample(
            side.values[order],
            *(tuple(getattr(side, key)[i] for i in order) for key in ("clusters", "seeds", "items")),  # type: ignore[arg-type]
        )

    reference = replace(arm, values=rng.integers(0, 2, 60).astype(float))
    found, again = paired_difference(arm, reference), paired_difference(shuffled(arm), shuffled(reference))
    assert (found.low, found.high, found.p) == pytest.approx((again.low, again.high, again.p))


def test_how_many_more_families_would_decide() -> None:
    """The families asked for do decide it, where the error shrinks as their square root says."""
    rng = RNG(1)
    base = (rng.random((12, 4)) < 0.5).astype(float)
    better = np.maximum(base, rng.random((12, 4)) < 0.15)

    def compare(copies: int) -> Difference:
        n = 12 * copies
        clusters = [i // 4 for i in range(4 * n)]
        sides = (np.tile(side, (copies, 1)).ravel().tolist() for side in (better, base))
        return paired_difference(*(make(side, clusters) for side in sides))

    found = compare(1)
    more = families_needed(found, 0.05)
    assert found.low < 0.05 < found.high and more is not None and more > 0
    assert compare(math.ceil((12 + more) / 12)).low > 0.05
    assert families_needed(found, found.value) is None
    several = families_needed(found, 0.05, tests=3)
    assert several is not None and several > more


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


# Other figures.


def test_ratio_by_hand() -> None:
    top, bottom = make([1, 0, 1, 0], list("abcd")), make([1, 1, 1, 0], list("abcd"))
    found = estimate_ratio(top, bottom, "nothing right")
    # influences of the logarithm: (1/2 / .5, -1, 1, -1) / 4 - (1/3, 1/3, 1/3, -1) / 4
    u = np.array([1, -1, 1, -1]) / 4 - np.array([1 / 3, 1 / 3, 1 / 3, -1]) / 4
    factor = math.exp(student.ppf(0.975, 3) * math.sqrt(4 / 3 * np.sum(u**2)))
    assert (found.value, found.low, found.high) == pytest.approx((2 / 3, 2 / 3 / factor, 2 / 3 * factor))
    assert estimate_ratio(top, make([0, 0]), "nothing right") == missing("nothing right")
    ones = make([1, 1, 1, 1], list("abcd"))
    same = estimate_ratio(ones, ones, "")
    low = estimate(ones).low
    assert low is not None
    assert (same.value, same.low, same.high) == pytest.approx((1.0, low, 1 / low))


def test_quantile_and_mean_estimates() -> None:
    drawn = make([float(i) for i in range(101)])
    for found in (estimate_quantile(drawn, 0.5), estimate_mean(drawn)):
        assert found.value == 50 and found.n == 101
        assert found.low is not None and found.high is not None and 38 < found.low < 50 < found.high < 62
    alone = make([1.0, 3.0], ["a", "a"])
    assert estimate_mean(alone) == Estimate(2.0, n=2)
    assert estimate_quantile(alone, 0.5) == Estimate(2.0, n=2)
    alike = make([7.0, 7.0, 7.0])
    assert estimate_mean(alike) == estimate_quantile(alike, 0.5) == Estimate(7.0, n=3)


def test_one_figure_a_seed() -> None:
    # sd 2, t of two degrees of freedom 4.303
    found = estimate_over_seeds([10.0, 12.0, 14.0])
    assert found.low is not None and found.high is not None
    assert found.high - 12 == pytest.approx(4.303 * 2 / math.sqrt(3), rel=1e-3)
    assert 12 - found.low == pytest.approx(found.high - 12)
    assert estimate_over_seeds([3.0]).low is None and estimate_over_seeds([3.0, 3.0]).low is None
    assert estimate_over_seeds([0.0, 9.0]).low == 0.0
