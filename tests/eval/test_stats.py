"""Intervals and comparisons: by hand where that is possible, by planted truth where it is not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.stats import (
    Difference,
    Sample,
    StatsError,
    bootstrap_means,
    bootstrap_p,
    bootstrap_quantiles,
    clustered_se,
    difference_from,
    draw_resamples,
    estimate,
    estimate_mean,
    estimate_over_seeds,
    estimate_quantile,
    estimate_ratio,
    holm,
    leave_one_seed_out,
    minimum_detectable_effect,
    missing,
    paired_difference,
    percentile_interval,
    seed_variance,
    unseen_share,
    wilson_interval,
)

RNG = np.random.default_rng


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


def test_wilson_by_hand() -> None:
    # 5 of 10: centre 0.5, half z/(1+z^2/n) * sqrt(1/40 + z^2/400), z = 1.95996
    assert wilson_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    with pytest.raises(StatsError):
        wilson_interval(0, 0)


@given(st.integers(0, 50), st.integers(1, 50))
def test_wilson_holds_its_share_inside_zero_and_one(successes: int, extra: int) -> None:
    n = successes + extra
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= successes / n <= high <= 1


def test_clustered_se_by_hand() -> None:
    # mean 0.5; deviations +.5 +.5 | -.5 -.5 ; cluster sums 1 and -1; sqrt(1 + 1) / 4
    assert clustered_se(np.array([1, 1, 0, 0.0]), ["a", "a", "b", "b"]) == pytest.approx(math.sqrt(2) / 4)
    # clusters that cancel: no error left
    assert clustered_se(np.array([1, 0, 1, 0.0]), ["a", "a", "b", "b"]) == 0.0
    # every value its own cluster: the ordinary standard error (with n, not n - 1)
    assert clustered_se(np.array([1, 0, 1, 0.0]), list("abcd")) == pytest.approx(0.5 / 2)


def spread_of_seeds(drawn: Sample) -> float:
    resamples = draw_resamples(drawn.clusters, drawn.seeds, RNG(0), 50)
    return seed_variance(lambda r: bootstrap_means(drawn, r), resamples, drawn.seeds)


def test_seed_variance_by_hand() -> None:
    # means of the seeds 1, 0.5, 0: variance 0.25 (with S - 1), over S = 3
    assert spread_of_seeds(make([1, 1, 0, 1, 0, 0], list("ababab"), [0, 0, 1, 1, 2, 2])) == pytest.approx(0.25 / 3)
    # two seeds, 1 and 0: variance 0.5, over 2. The plain bootstrap of seeds would say 0.125
    assert spread_of_seeds(make([1, 1, 0, 0], list("abab"), [0, 0, 1, 1])) == pytest.approx(0.25)
    assert spread_of_seeds(make([1, 0, 1, 0], list("abab"), [0, 0, 1, 1])) == 0.0
    assert spread_of_seeds(make([1, 0, 1, 0])) == 0.0


def test_the_error_of_a_difference_holds_clauses_and_seeds() -> None:
    clusters, seeds = [c for _ in range(3) for c in range(8)], [s for s in range(3) for _ in range(8)]
    arm = make([1] * 8 + [1] * 4 + [0] * 4 + [1] * 2 + [0] * 6, clusters, seeds)
    reference = make([0] * 24, clusters, seeds)
    found = paired_difference(arm, reference, draw_resamples(arm.clusters, seeds, RNG(0), 500))
    by_cluster, by_seed = clustered_se(arm.values, arm.clusters) ** 2, spread_of_seeds(arm)
    assert by_seed == pytest.approx(float(np.var([1, 0.5, 0.25], ddof=1)) / 3)
    assert found.se == pytest.approx(math.sqrt(by_cluster + by_seed))
    assert found.mde > 2.8016 * found.se  # t of two degrees of freedom for the seeds' share
    assert found.high - found.low > 2 * 4.303 * math.sqrt(by_seed)


def test_one_figure_a_seed() -> None:
    # sd 2, t of two degrees of freedom 4.303
    found = estimate_over_seeds([10.0, 12.0, 14.0])
    assert found.low is not None and found.high is not None
    assert found.high - 12 == pytest.approx(4.303 * 2 / math.sqrt(3), rel=1e-3)
    assert 12 - found.low == pytest.approx(found.high - 12)
    two = estimate_over_seeds([10.0, 11.0])  # sd 0.7071, t of one degree 12.706
    assert two.high == pytest.approx(10.5 + 12.706 / 2, rel=1e-3)
    four = estimate_over_seeds([10.0, 12.0, 14.0, 16.0])  # sd 2.582, t of three degrees 3.182
    assert four.high == pytest.approx(13 + 3.182 * 2.582 / 2, rel=0.01)
    assert estimate_over_seeds([3.0]).low is None
    assert estimate_over_seeds([0.0, 9.0]).low == 0.0


def test_minimum_detectable_effect() -> None:
    assert minimum_detectable_effect(0.01) == pytest.approx(0.02802, abs=1e-5)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_resample_draws_whole_clusters() -> None:
    drawn = make([1, 1, 0, 0, 0], ["a", "a", "b", "b", "b"])
    resamples = draw_resamples(drawn.clusters, drawn.seeds, RNG(0), 200)
    means = bootstrap_means(drawn, resamples)
    # a a -> 1; a b -> 2/5; b b -> 0
    assert set(np.round(means, 6)) == {0.0, 0.4, 1.0}
    assert np.mean(means == 0.4) == pytest.approx(0.5, abs=0.15)


def test_clauses_are_resampled_with_all_seeds_and_seeds_are_left_out_one_by_one() -> None:
    drawn = make([1, 1, 0, 0], ["a", "b", "a", "b"], [0, 0, 1, 1])
    resamples = draw_resamples(drawn.clusters, drawn.seeds, RNG(0), 500)
    assert set(bootstrap_means(drawn, resamples)) == {0.5}
    assert bootstrap_means(drawn, leave_one_seed_out(resamples, drawn.seeds)).tolist() == [0.0, 1.0]


def test_a_cluster_that_is_not_drawn_leaves_a_gap() -> None:
    part = make([1.0], ["a"])
    means = bootstrap_means(part, draw_resamples(["a", "b"], [0], RNG(0), 200))
    assert np.isnan(means).any() and set(means[~np.isnan(means)]) == {1.0}


def test_resamples_are_seeded() -> None:
    first, again = (draw_resamples("abc", [0], RNG(7), 50) for _ in range(2))
    assert np.array_equal(first.cluster_counts_BC, again.cluster_counts_BC)
    assert (first.cluster_counts_BC.sum(axis=1) == 3).all()
    assert (first.seed_counts_BS == 1).all()
    with pytest.raises(StatsError):
        draw_resamples([], [], RNG(0), 10)


def test_which_interval_is_used() -> None:
    single = make([1, 0, 1, 1])
    resamples = draw_resamples(single.clusters, [0], RNG(0), 200)
    found = estimate(single, resamples)
    assert (found.low, found.high) == wilson_interval(3, 4)
    perfect = make([1, 1, 1, 1], ["0", "0", "1", "1"])
    found = estimate(perfect, resamples)
    assert (found.low, found.high, found.n) == (*wilson_interval(2, 2), 4)
    none = estimate(make([0, 0]), resamples)
    assert (none.low, none.high) == wilson_interval(0, 2)
    empty = Sample(np.array([]), (), (), (), reason="nothing asked")
    assert estimate(empty, resamples) == missing("nothing asked")
    assert estimate(empty, resamples).as_dict() == {"value": None, "reason": "nothing asked"}


def test_clustered_intervals_are_wider() -> None:
    values = [1.0] * 50 + [0.0] * 50
    clustered = make(values, [i // 10 for i in range(100)])
    found = estimate(clustered, draw_resamples(clustered.clusters, [0], RNG(0), 2000))
    alone = estimate(make(values), draw_resamples(map(str, range(100)), [0], RNG(0), 2000))
    assert found.low is not None and found.high is not None and alone.low is not None and alone.high is not None
    assert found.high - found.low > 2 * (alone.high - alone.low)


def test_intervals_cover_a_planted_mean() -> None:
    """Eight clusters of four with clause effects: the plain percentile interval would cover about 0.88."""
    covered = 0
    for seed in range(300):
        rng = RNG(seed)
        share = rng.beta(1, 1, 8)
        values = (rng.random((8, 4)) < share[:, None]).astype(float).ravel()
        drawn = make(values.tolist(), [i // 4 for i in range(32)])
        found = estimate(drawn, draw_resamples(drawn.clusters, [0], rng, 400))
        assert found.low is not None and found.high is not None
        covered += found.low <= 0.5 <= found.high
    assert 0.92 <= covered / 300 <= 0.99


def test_p_and_interval_agree() -> None:
    rng = RNG(0)
    for _ in range(50):
        resampled = rng.normal(rng.normal(0, 2), 1, 2000)
        low, high = percentile_interval(resampled, 12)
        p = bootstrap_p(resampled, 12)
        if p < 0.045:
            assert low > 0 or high < 0
        if p > 0.055:
            assert low <= 0 <= high
    assert bootstrap_p(np.zeros(100), 12) == 1.0
    assert bootstrap_p(np.ones(9999), 1000) < 0.001


def test_paired_difference_by_hand() -> None:
    arm, reference = make([1, 1, 1, 0], list("aabb")), make([1, 0, 0, 0], list("aabb"))
    resamples = draw_resamples("ab", [0], RNG(0), 500)
    found = paired_difference(arm, reference, resamples)
    assert (found.arm, found.reference, found.value, found.n, found.num_clusters) == (0.75, 0.25, 0.5, 4, 2)
    # differences 0 1 | 1 0, sums of deviations 0 and 0: no cluster differs from another
    assert found.se == pytest.approx(1 / 3)
    assert found.mde == pytest.approx(2.8016 / 3, abs=1e-3)
    # 0 of 2: 1.96^2 / (2 + 1.96^2) to either side
    assert (found.low, found.high) == pytest.approx((0.5 - 0.6576, 0.5 + 0.6576), abs=1e-4)


def flipped(num_flips: int, num_clusters: int, num_seeds: int = 1, per_cluster: int = 1) -> Difference:
    """Two arms that are right throughout, but for the arm's first answers in the first seed."""
    n = num_clusters * per_cluster
    clusters = [i // per_cluster for i in range(n)] * num_seeds
    seeds = [s for s in range(num_seeds) for _ in range(n)]
    values = np.ones(n * num_seeds)
    values[[i * per_cluster for i in range(num_flips)]] = 0
    reference = make([1.0] * (n * num_seeds), clusters, seeds)
    resamples = draw_resamples(reference.clusters, seeds, RNG(0), 2000)
    return paired_difference(make(values.tolist(), clusters, seeds), reference, resamples)


def test_what_may_go_unseen_by_hand() -> None:
    assert unseen_share(75) == pytest.approx(
        3.8415 / 78.8415, abs=1e-4
    )  # the rule of three says 3 / 75, one-sided
    none = flipped(0, 75)
    assert (none.low, none.high) == pytest.approx((-0.04872, 0.04872), abs=1e-4)
    assert (none.value, none.p, none.se) == (0.0, 1.0, pytest.approx(1 / 76))
    # Tango's score interval of one discordant pair in 75 is [-0.072, 0.037]
    one = flipped(1, 75)
    assert one.low == pytest.approx(-0.072, abs=0.012) and one.high == pytest.approx(0.037, abs=0.002)


@pytest.mark.parametrize(("num_seeds", "per_cluster"), [(1, 1), (3, 1), (1, 4), (2, 2)])
def test_no_flip_is_never_weaker_than_one(num_seeds: int, per_cluster: int) -> None:
    for num_clusters in (12, 75, 200):
        counts = range(7) if per_cluster == 1 else range(4)
        found = [flipped(k, num_clusters, num_seeds, per_cluster) for k in counts]
        for fewer, more in pairwise(found):
            assert more.low <= fewer.low and more.mde >= fewer.mde * (1 - 1e-9)
        assert all(d.p >= 0.05 for d in found[:4])  # three flips the same way: p = 0.25 in McNemar's exact test


def test_more_clauses_and_more_seeds_narrow_a_difference_that_never_shows() -> None:
    for shapes in ([(20, 1), (40, 1), (80, 1)], [(40, 1), (40, 2), (40, 3)]):
        found = [flipped(0, *shape) for shape in shapes]
        for small, large in pairwise(found):
            assert large.high < small.high and large.low > small.low and large.mde < small.mde


def test_what_may_go_unseen_does_not_touch_ordinary_data() -> None:
    """Four answers in four clauses of 100 on: the bootstrap alone, as with any other data."""
    found = flipped(4, 100, per_cluster=5)
    assert found.se == pytest.approx(
        clustered_se(
            np.array([-1.0] * 4 + [0.0] * 496),
            [*range(4), *[c for c in range(100) for _ in range(4 if c < 4 else 5)]],
        )
    )
    assert found.high - found.low < 0.02


def test_pairing_is_by_seed_and_item() -> None:
    arm = make([1, 0, 1], list("abc"), [0, 0, 1])
    reference = Sample(np.array([0.0, 1.0]), ("b", "a"), (0, 0), ("1", "0"))
    resamples = draw_resamples("abc", [0, 1], RNG(0), 100)
    assert paired_difference(arm, reference, resamples).value == 0.0
    assert paired_difference(arm, reference, resamples).n == 2
    other = Sample(np.array([1.0]), ("a",), (5,), ("0",))
    with pytest.raises(StatsError, match="no answered turn in common"):
        paired_difference(arm, other, resamples)
    twice = Sample(np.array([1.0, 0.0]), ("a", "a"), (0, 0), ("0", "0"))
    with pytest.raises(StatsError, match="twice"):
        paired_difference(twice, arm, resamples)


def test_difference_from_a_fixed_value() -> None:
    hits = make([1, 0, 0, 0] * 10, [i // 4 for i in range(40)])
    found = difference_from(hits, 0.25, draw_resamples(hits.clusters, [0], RNG(0), 200))
    assert found.value == 0.0 and found.p == 1.0
    with pytest.raises(StatsError, match="why"):
        difference_from(Sample(np.array([]), (), (), (), "why"), 0.1, draw_resamples("a", [0], RNG(0), 5))


def test_a_planted_difference_is_found() -> None:
    rng = RNG(0)
    base = rng.random((40, 4)) < 0.5
    better = base | (rng.random((40, 4)) < 0.4)  # 0.5 -> 0.7
    clusters = [i // 4 for i in range(160)]
    arm, reference = (make(side.astype(float).ravel().tolist(), clusters) for side in (better, base))
    found = paired_difference(arm, reference, draw_resamples(arm.clusters, [0], rng, 2000))
    assert found.p < 0.01 and found.low <= 0.2 <= found.high


def test_two_copies_of_one_method_are_rarely_called_different() -> None:
    """200 seeded trials at 400 resamples: at most 5% of false alarms."""
    alarms = 0
    for seed in range(200):
        rng = RNG(seed)
        share = rng.beta(2, 2, 40)[:, None]  # how hard each clause is, for both
        sides = [(rng.random((40, 4)) < share).astype(float).ravel().tolist() for _ in range(2)]
        arm, reference = (make(side, [i // 4 for i in range(160)]) for side in sides)
        alarms += paired_difference(arm, reference, draw_resamples(arm.clusters, [0], rng, 400)).p < 0.05
    assert alarms <= 10


@pytest.mark.parametrize(("num_seeds", "seed_sd"), [(3, 0.1), (3, 0.2), (2, 0.2)])
def test_intervals_cover_and_alarms_are_rare_where_seeds_matter(num_seeds: int, seed_sd: float) -> None:
    """48 clauses of two answers, no true effect: two arms whose fits differ by their seeds alone.

    With the seeds resampled as the clauses are, three seeds would cover 0.90 and 0.82.
    """
    trials, covered, covered_mean, alarms = 300, 0, 0, 0
    clusters, seeds = [i // 2 for i in range(96)] * num_seeds, [s for s in range(num_seeds) for _ in range(96)]
    for trial in range(trials):
        rng = RNG(trial)
        share_C2 = np.repeat(rng.uniform(0.3, 0.7, 48), 2)  # how hard each clause is, for both arms
        arms = []
        for _ in range(2):
            share_SA = np.clip(share_C2 + rng.normal(0, seed_sd / math.sqrt(2), (num_seeds, 1)), 0, 1)
            arms.append(
                make((rng.random(share_SA.shape) < share_SA).astype(float).ravel().tolist(), clusters, seeds)
            )
        resamples = draw_resamples(arms[0].clusters, seeds, rng, 400)
        found = paired_difference(arms[0], arms[1], resamples)
        covered += found.low <= 0 <= found.high
        alarms += found.p < 0.05
        alone = estimate(arms[0], resamples)
        assert alone.low is not None and alone.high is not None
        covered_mean += alone.low <= 0.5 <= alone.high
    least = 0.93 if num_seeds == 3 else 0.91  # of these trials: two seeds hold 0.94 in the long run
    assert covered / trials >= least and covered_mean / trials >= least
    assert alarms / trials <= 1 - least


def test_p_and_interval_agree_over_seeds() -> None:
    clusters, seeds = list(range(30)) * 3, [s for s in range(3) for _ in range(30)]
    for trial in range(40):
        rng = RNG(trial)
        gain = rng.uniform(0, 0.5) + rng.normal(0, 0.05, (3, 1))
        arm = make((rng.random((3, 30)) < 0.4 + gain).astype(float).ravel().tolist(), clusters, seeds)
        reference = make((rng.random(90) < 0.4).astype(float).tolist(), clusters, seeds)
        found = paired_difference(arm, reference, draw_resamples(arm.clusters, seeds, rng, 500))
        if found.p < 0.045:
            assert found.low > 0 or found.high < 0
        if found.p > 0.055:
            assert found.low <= 0 <= found.high


def test_three_seeds_do_not_raise_false_alarms() -> None:
    alarms = 0
    for seed in range(100):
        rng = RNG(seed)
        share = np.repeat(rng.beta(2, 2, 20), 2)
        sides = [(rng.random((3, 40)) < share).astype(float).ravel().tolist() for _ in range(2)]
        clusters, seeds = [i // 2 % 20 for i in range(120)], [i // 40 for i in range(120)]
        arm, reference = (make(side, clusters, seeds) for side in sides)
        resamples = draw_resamples(arm.clusters, arm.seeds, rng, 400)
        alarms += paired_difference(arm, reference, resamples).p < 0.05
    assert alarms <= 5


def test_ratio_by_hand() -> None:
    top, bottom = make([1, 0, 1, 0], list("abcd")), make([1, 1, 1, 0], list("abcd"))
    resamples = draw_resamples("abcd", [0], RNG(0), 500)
    found = estimate_ratio(top, bottom, resamples, "nothing right")
    assert found.value == pytest.approx(2 / 3)
    assert found.low is not None and found.high is not None and found.low <= 2 / 3 <= found.high
    assert estimate_ratio(top, make([0, 0]), resamples, "nothing right") == missing("nothing right")
    ones = make([1, 1, 1, 1], list("abcd"))
    same = estimate_ratio(ones, ones, resamples, "")
    low = wilson_interval(4, 4)[0]
    assert (same.value, same.low, same.high) == pytest.approx((1.0, low, 1 / low))


@given(st.lists(st.floats(0, 100), min_size=2, max_size=12), st.floats(0, 1))
def test_resampled_quantiles_are_numpys(values: list[float], q: float) -> None:
    drawn = make(values, [i // 2 for i in range(len(values))])
    resamples = draw_resamples(drawn.clusters, [0], RNG(0), 20)
    found = bootstrap_quantiles(drawn, q, resamples, chunk=7)
    for b in range(20):
        counts = [int(resamples.cluster_counts_BC[b, resamples.clusters[c]]) for c in drawn.clusters]
        assert found[b] == pytest.approx(np.quantile(np.repeat(values, counts), q), abs=1e-9)


def test_quantile_and_mean_estimates() -> None:
    drawn = make([float(i) for i in range(101)])
    resamples = draw_resamples(drawn.clusters, [0], RNG(0), 500)
    for found in (estimate_quantile(drawn, 0.5, resamples), estimate_mean(drawn, resamples)):
        assert found.value == 50 and found.n == 101
        assert found.low is not None and found.high is not None and 38 < found.low < 50 < found.high < 62
    alone = make([1.0, 3.0], ["a", "a"])
    assert estimate_mean(alone, resamples).low is None
    assert estimate_quantile(alone, 0.5, resamples).value == 2.0
