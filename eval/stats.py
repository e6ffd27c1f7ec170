"""Intervals and comparisons that respect which answers belong together.

Letters: B resamples, C clusters (clauses), S seeds, n answers.

Answers about one clause stand or fall together, so the clause is the unit that is resampled; errors
computed as if answers were independent come out two to three times too small (Miller 2024,
arXiv:2411.00640). All arms of a run share one set of resamples, which makes every comparison paired.

Training seeds are too few to be resampled: three of them drawn with replacement show two thirds of the
variance and never more than their own range. So the clauses are resampled with the seeds as they are, and
what another draw of the seeds would change is added: its variance by leaving out one seed at a time
(jackknife, which holds the factor S/(S-1)), its Student's t on S - 1 degrees of freedom. The two parts have
their own t, weighted by their variances (Cochran 1964, doi:10.2307/2527628; after Cochran and Cox 1957,
section 4.14). In simulations with a seed effect (tests/eval/test_stats.py) 95% intervals hold 0.94 or more
with two and three seeds; with two they are many times as wide as one seed's, as two seeds say little about a
third. Noise of single answers counts in both parts, so intervals are too wide where seeds do not matter.
With one seed the interval is about that seed. Everything is a pure function; the generator is passed in.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from eval.records import TurnRecord

Floats = NDArray[np.float64]
NUM_RESAMPLES = 10_000
_NORMAL = NormalDist()


class StatsError(ValueError):
    """Figures that cannot be compared: says what does not fit."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval, or the reason why there is none."""

    value: float | None
    low: float | None = None  # None: one measurement, no interval
    high: float | None = None
    n: int = 0  # answers (or timings) it rests on
    reason: str = ""  # why `value` is None

    def as_dict(self) -> dict[str, float | int | str | None]:
        """As in summary.json: value, low, high, n; or value (null) and reason."""
        if self.value is None:
            return {"value": None, "reason": self.reason}
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


def missing(reason: str) -> Estimate:
    """The estimate of a metric that does not apply."""
    return Estimate(None, reason=reason)


@dataclass(frozen=True, eq=False)
class Sample:
    """The values of one metric on the answers it applies to, before any averaging."""

    values: Floats  # (n,)
    clusters: tuple[str, ...]  # (n,) clause ids
    seeds: tuple[int, ...]  # (n,)
    items: tuple[str, ...]  # (n,) what was answered, the same for every method: pairs the arms
    reason: str = ""  # why the sample is empty, where it is

    def __len__(self) -> int:
        return len(self.items)

    @property
    def mean(self) -> float | None:
        return float(self.values.mean()) if len(self) else None


def cluster_of(record: TurnRecord) -> str:
    """The clause, or the dialogue where no clause is at issue."""
    return record.cluster or record.dialogue_id


def item_of(record: TurnRecord) -> str:
    return f"{record.dialogue_id}/{record.turn}"


def sample(
    records: Iterable[TurnRecord],
    value: Callable[[TurnRecord], float | bool | None],
    reason: str = "no answer of this kind",
) -> Sample:
    """Applies `value` to each record; None leaves the record out. `reason` is kept if none remains."""
    kept = [(record, result) for record in records if (result := value(record)) is not None]
    return Sample(
        values=np.array([float(result) for _, result in kept], dtype=np.float64),
        clusters=tuple(cluster_of(record) for record, _ in kept),
        seeds=tuple(record.seed for record, _ in kept),
        items=tuple(item_of(record) for record, _ in kept),
        reason="" if kept else reason,
    )


# --- resampling ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Resamples:
    """How often each cluster and each seed counts in each resample. Shared by all metrics and arms."""

    clusters: dict[str, int]  # cluster -> column
    seeds: dict[int, int]  # seed -> column
    cluster_counts_BC: Floats
    seed_counts_BS: Floats

    def __len__(self) -> int:
        return len(self.cluster_counts_BC)


def draw_resamples(
    clusters: Iterable[str],
    seeds: Iterable[int],
    rng: np.random.Generator,
    num_resamples: int = NUM_RESAMPLES,
) -> Resamples:
    """Draws C of the C clusters with replacement, B times; every seed counts once each time.

    Order of the arguments does not matter: both are sorted first.
    """
    columns_C = {cluster: i for i, cluster in enumerate(sorted(set(clusters)))}
    columns_S = {seed: i for i, seed in enumerate(sorted(set(seeds)))}
    if not columns_C or not columns_S:
        raise StatsError("nothing to resample: there are no records")
    size = len(columns_C)
    drawn_BC = rng.multinomial(size, np.full(size, 1 / size), size=num_resamples).astype(np.float64)
    return Resamples(columns_C, columns_S, drawn_BC, np.ones((num_resamples, len(columns_S))))


def resamples_for(
    records: Sequence[TurnRecord], rng: np.random.Generator, num_resamples: int = NUM_RESAMPLES
) -> Resamples:
    """One set of resamples for all methods of a run."""
    return draw_resamples(map(cluster_of, records), (r.seed for r in records), rng, num_resamples)


def leave_one_seed_out(resamples: Resamples, seeds: Iterable[int]) -> Resamples:
    """All clusters once and all seeds but one: a row for each of `seeds`."""
    left_out = [resamples.seeds[seed] for seed in sorted(set(seeds))]
    every_SC = np.ones((len(left_out), len(resamples.clusters)))
    others_SS = np.ones((len(left_out), len(resamples.seeds)))
    others_SS[range(len(left_out)), left_out] = 0
    return Resamples(resamples.clusters, resamples.seeds, every_SC, others_SS)


def _totals_B(values: Floats, drawn: Sample, resamples: Resamples) -> Floats:
    """Sum of `values` (one per answer of `drawn`) in each resample. -> (B,)"""
    sums_SC = np.zeros((len(resamples.seeds), len(resamples.clusters)))
    rows = [resamples.seeds[seed] for seed in drawn.seeds]
    columns = [resamples.clusters[cluster] for cluster in drawn.clusters]
    np.add.at(sums_SC, (rows, columns), values)
    totals_B: Floats = np.einsum(
        "bc,bc->b", resamples.seed_counts_BS @ sums_SC, resamples.cluster_counts_BC, optimize=True
    )
    return totals_B


def bootstrap_means(drawn: Sample, resamples: Resamples) -> Floats:
    """The sample's mean in each resample. -> (B,), NaN where none of its clusters was drawn."""
    totals_B = _totals_B(drawn.values, drawn, resamples)
    sizes_B = _totals_B(np.ones(len(drawn)), drawn, resamples)
    with np.errstate(invalid="ignore", divide="ignore"):
        means_B: Floats = np.where(sizes_B > 0, totals_B / sizes_B, np.nan)
    return means_B


# --- small-sample corrections -------------------------------------------------------------------


def _t_from_z(z: float, df: int) -> float:
    """Student's t with the same tail as the normal z. Wallace 1959, doi:10.1214/aoms/1177706093."""
    scaled = z * (8 * df + 3) / (8 * df + 1)
    exponent = scaled * scaled / df
    return math.copysign(math.sqrt(df * math.expm1(min(exponent, 700.0))), z)


def _z_from_t(t: float, df: int) -> float:
    """The inverse of `_t_from_z`."""
    return math.copysign((8 * df + 1) / (8 * df + 3) * math.sqrt(df * math.log1p(t * t / df)), t)


def percentile_interval(resampled_B: Floats, num_clusters: int, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval, expanded for few clusters.

    The plain percentile interval is too narrow by sqrt((C-1)/C) and by the normal's lighter tails; the
    percentiles are moved out to make up for both (Hesterberg 2015, doi:10.1080/00031305.2015.1089789,
    section 5.3). resampled_B: (B,), NaN ignored.
    """
    finite = resampled_B[np.isfinite(resampled_B)]
    if not len(finite):
        raise StatsError("no resample holds any of the clusters")
    z = _NORMAL.inv_cdf(0.5 + level / 2)
    if num_clusters > 1:
        z = math.sqrt(num_clusters / (num_clusters - 1)) * _t_from_z(z, num_clusters - 1)
    tail = _NORMAL.cdf(-z)
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_p(resampled_B: Floats, num_clusters: int) -> float:
    """Two-sided p of "the mean is zero", the inversion of `percentile_interval`.

    Twice the smaller share of resamples on either side of zero, a zero counting half to each side and
    one resample added to both; widened for few clusters as the interval is. resampled_B: (B,).
    """
    finite = resampled_B[np.isfinite(resampled_B)]
    below = float(np.sum(finite < 0) + 0.5 * np.sum(finite == 0))
    tail = (min(below, len(finite) - below) + 1) / (len(finite) + 2)
    if tail >= 0.5:
        return 1.0
    z = -_NORMAL.inv_cdf(tail)
    if num_clusters > 1:
        z = _z_from_t(z / math.sqrt(num_clusters / (num_clusters - 1)), num_clusters - 1)
    return min(1.0, 2 * _NORMAL.cdf(-z))


# --- the seeds ----------------------------------------------------------------------------------


def _t_over_seeds(z: float, num_seeds: int) -> float:
    """Student's t on S - 1 degrees of freedom with the same tail as the normal z, for z >= 0.

    Exact for two and three seeds, where Wallace's approximation is 38% and 4% too large at 95%.
    """
    tail = _NORMAL.cdf(-z)
    if num_seeds == 2:
        return 1 / math.tan(math.pi * tail) if tail < 0.5 else 0.0
    if num_seeds == 3:
        return (1 - 2 * tail) / math.sqrt(2 * tail * (1 - tail))
    return _t_from_z(z, num_seeds - 1)


Statistic = Callable[[Resamples], Floats]  # a figure in each resample -> (B,), NaN where it has none


def seed_variance(statistic: Statistic, resamples: Resamples, seeds: Iterable[int]) -> float:
    """Variance of a figure over draws of the training seeds, by leaving out one seed at a time.

    (S-1)/S * sum of squared deviations of the S figures without one seed from their mean; of a mean over
    equally many answers a seed it is the unbiased variance of the seeds' means over S. Jackknife of groups:
    Miller 1974, doi:10.1093/biomet/61.1.1. 0 with one seed: nothing is known. Infinite where the figure does
    not exist without one of the seeds.
    """
    present = sorted(set(seeds))
    if len(present) < 2:
        return 0.0
    without_S = statistic(leave_one_seed_out(resamples, present))
    if not np.isfinite(without_S).all():
        return math.inf
    spread = float(np.sum((without_S - without_S.mean()) ** 2)) * (len(present) - 1) / len(present)
    return spread if spread > 1e-18 else 0.0  # rounding is no spread


@dataclass(frozen=True, eq=False)
class Resampled:
    """A figure with its resamples by clause, and what another draw of the seeds would add."""

    value: float
    resampled_B: Floats
    num_clusters: int
    seed_variance: float = 0.0
    num_seeds: int = 1

    @cached_property
    def cluster_variance(self) -> float:
        """Of the resamples, with the small-sample factor of `percentile_interval`."""
        c = self.num_clusters
        return float(np.nanvar(self.resampled_B)) * (c / (c - 1) if c > 1 else 1.0)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """`percentile_interval`, each half widened for the seeds; as it is where they add nothing.

        A half of h = t_C sqrt(V_C) becomes t' sqrt(V_C + V_S) with t' = (V_C t_C + V_S t_S) / (V_C + V_S).
        Cochran 1964, doi:10.2307/2527628. t_S: on S - 1 degrees of freedom.
        """
        low, high = percentile_interval(self.resampled_B, self.num_clusters, level)
        if not self.seed_variance:
            return low, high
        if math.isinf(self.seed_variance):
            return -math.inf, math.inf
        by_cluster = self.cluster_variance
        total = by_cluster + self.seed_variance
        t_S = _t_over_seeds(_NORMAL.inv_cdf(0.5 + level / 2), self.num_seeds)
        added = self.seed_variance * t_S / math.sqrt(total)
        share = math.sqrt(by_cluster / total)
        return self.value - share * (self.value - low) - added, self.value + share * (high - self.value) + added

    def p(self) -> float:
        """Two-sided p of "the figure is zero": 1 - the level at which `interval` reaches zero.

        Never less than `bootstrap_p`, which it is where the seeds add nothing.
        """
        by_cluster = bootstrap_p(self.resampled_B, self.num_clusters)
        if not self.seed_variance or math.isclose(self.value, 0.0, abs_tol=1e-12):
            return by_cluster
        inside, outside = 0.0, 1.0  # p at which zero lies inside the interval, and outside it
        for _ in range(20):
            middle = (inside + outside) / 2
            low, high = self.interval(1 - middle)
            if low <= 0 <= high:
                inside = middle
            else:
                outside = middle
        return max(by_cluster, outside)

    def se(self, by_cluster: float) -> float:
        """Standard error with the seeds' part; by_cluster: the clustered one."""
        return math.sqrt(by_cluster**2 + self.seed_variance) if self.seed_variance else by_cluster


def resampled(
    value: float, statistic: Statistic, resamples: Resamples, num_clusters: int, seeds: Iterable[int]
) -> Resampled:
    """A figure, its resamples and its variance over the seeds that it rests on."""
    present = set(seeds)
    spread = seed_variance(statistic, resamples, present)
    return Resampled(value, statistic(resamples), num_clusters, spread, len(present))


# --- estimates ----------------------------------------------------------------------------------


def wilson_interval(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion. Wilson 1927, doi:10.1080/01621459.1927.10502953.

    Holds its level near 0 and 1, where the normal interval collapses. -> (low, high) in [0, 1]
    """
    if n <= 0:
        raise StatsError("a proportion of nothing has no interval")
    z = _NORMAL.inv_cdf(0.5 + level / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def estimate(drawn: Sample, resamples: Resamples) -> Estimate:
    """Mean of values in [0, 1] with its 95% interval.

    Where every answer has a cluster of its own, the values are 0 or 1 and there is one seed: Wilson's
    interval over the answers. Where all values are 0 or all are 1, the bootstrap would show no spread at
    all: Wilson's interval over the *clusters*, as if answers on one clause told nothing new. Else: the
    cluster bootstrap, widened for the seeds and kept in [0, 1].
    """
    if not len(drawn):
        return missing(drawn.reason)
    mean = float(drawn.values.mean())
    num_clusters = len(set(drawn.clusters))
    if mean in (0.0, 1.0) or num_clusters == 1:
        low, high = wilson_interval(mean * num_clusters, num_clusters)
    elif num_clusters == len(drawn) and len(set(drawn.seeds)) == 1 and set(np.unique(drawn.values)) <= {0.0, 1.0}:
        low, high = wilson_interval(float(drawn.values.sum()), len(drawn))
    else:
        low, high = _of_mean(drawn, resamples).interval()
        low, high = max(0.0, low), min(1.0, high)
    return Estimate(mean, low, high, len(drawn))


def _of_mean(drawn: Sample, resamples: Resamples) -> Resampled:
    mean, num_clusters = float(drawn.values.mean()), len(set(drawn.clusters))
    return resampled(mean, lambda r: bootstrap_means(drawn, r), resamples, num_clusters, drawn.seeds)


def estimate_ratio(top: Sample, bottom: Sample, resamples: Resamples, reason: str) -> Estimate:
    """Ratio of two means with the interval of the ratio over shared resamples; n is the top's.

    `reason` is given where the bottom's mean is zero.
    """
    if not len(top) or not len(bottom):
        return missing((top if not len(top) else bottom).reason)
    if not bottom.values.any():
        return missing(reason)

    def ratios(r: Resamples) -> Floats:
        top_B, bottom_B = bootstrap_means(top, r), bootstrap_means(bottom, r)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio_B: Floats = np.where(bottom_B > 0, top_B / bottom_B, np.nan)
        return ratio_B

    value, num_clusters = float(top.values.mean() / bottom.values.mean()), len({*top.clusters, *bottom.clusters})
    ratio = resampled(value, ratios, resamples, num_clusters, (*top.seeds, *bottom.seeds))
    if math.isinf(ratio.seed_variance):
        return missing("nothing is right below the line without one of the seeds")
    if not ratio.seed_variance and np.nanstd(ratio.resampled_B) < 1e-12:
        # no spread to resample: the ends of the two intervals instead
        ends = (estimate(top, resamples), estimate(bottom, resamples))
        low, high = (ends[0].low or 0.0) / (ends[1].high or 1.0), (ends[0].high or 1.0) / (ends[1].low or 1.0)
    else:
        low, high = ratio.interval()
        low = max(0.0, low)
    return Estimate(value, low, high, len(top))


def estimate_over_seeds(values_S: Sequence[float], level: float = 0.95) -> Estimate:
    """Mean of one figure a seed, none below 0, with Student's t interval on S - 1 degrees of freedom.

    For what is measured once a fit, as its seconds. No interval with a single seed.
    """
    value, n = float(np.mean(values_S)), len(values_S)
    if n < 2:
        return Estimate(value, n=n)
    half = _t_over_seeds(_NORMAL.inv_cdf(0.5 + level / 2), n) * float(np.std(values_S, ddof=1)) / math.sqrt(n)
    return Estimate(value, max(0.0, value - half), value + half, n)


# --- differences --------------------------------------------------------------------------------


def clustered_se(values: Floats, clusters: Sequence[str]) -> float:
    """Clustered standard error of the mean. Miller 2024, arXiv:2411.00640, section 2.2.

    SE^2 = (1/n^2) * sum over clusters of (sum of its values' deviations from the mean)^2. The seeds' part is
    `seed_variance`. values: (n,), clusters: (n,) -> float
    """
    if not len(values):
        raise StatsError("the mean of nothing has no standard error")
    deviations = np.asarray(values, dtype=np.float64) - np.mean(values)
    _, inverse = np.unique(np.array(clusters), return_inverse=True)
    return math.sqrt(float(np.sum(np.bincount(inverse, weights=deviations) ** 2)) / len(values) ** 2)


def minimum_detectable_effect(
    se: float,
    seed_variance: float = 0.0,
    num_seeds: int = 1,
    power: float = 0.8,
    alpha: float = 0.05,
) -> float:
    """The smallest true difference that a two-sided test would find with this power.

    (z_{1-alpha/2} + z_power) * SE = 2.80 SE at the defaults. Miller 2024, arXiv:2411.00640, section 5. Of the
    seeds' share of SE^2, t on S - 1 degrees of freedom takes the place of z (Bloom 1995,
    doi:10.1177/0193841X9501900504), weighted as in the interval.
    """
    share = min(1.0, seed_variance / se**2) if seed_variance else 0.0

    def quantile(z: float) -> float:
        return z if not share else (1 - share) * z + share * _t_over_seeds(z, num_seeds)

    return (quantile(_NORMAL.inv_cdf(1 - alpha / 2)) + quantile(_NORMAL.inv_cdf(power))) * se


@dataclass(frozen=True)
class Difference:
    """One arm against another (or against a fixed value), answer by answer."""

    arm: float  # mean of the arm on the common answers
    reference: float
    value: float  # arm - reference; for costs arm / reference - 1
    low: float  # 95% interval of `value`
    high: float
    p: float  # two-sided, of "no difference"
    se: float
    mde: float  # minimum detectable effect at 80% power
    n: int  # common answers
    num_clusters: int


FEW = 3  # clauses that differ: up to here the resamples show less than could have gone unseen


def unseen_share(n: float, level: float = 0.95) -> float:
    """The largest share of cases of a kind that may go without one in n: z^2 / (n + z^2).

    Wilson's upper bound at 0 of n, and half the score interval of a paired difference without a discordant
    pair (Tango 1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B); near the "rule of
    three", which is one-sided (Hanley and Lippman-Hand 1983, doi:10.1001/jama.1983.03330370053031).
    """
    return wilson_interval(0, n, level)[1]


def _odd_cells(differences: Sample) -> tuple[int, int]:
    """How many clauses of a seed differ from the rest in the mean of their answers, of how many.

    The rest: those with the commonest mean.
    """
    cells: dict[tuple[str, int], list[float]] = {}
    for cluster, seed, value in zip(differences.clusters, differences.seeds, differences.values, strict=True):
        cells.setdefault((cluster, seed), []).append(float(value))
    means = Counter(round(float(np.mean(values)), 9) for values in cells.values())
    return len(cells) - max(means.values()), len(cells)


def _difference(arm: float, reference: float, differences: Sample, resamples: Resamples) -> Difference:
    """The statistics of per-answer differences whose mean is arm - reference.

    Where at most three clauses differ from the rest, the resamples show less spread than the data leave
    open (none at all where no clause differs). Then no half of the interval is shorter than `unseen_share`,
    the standard error is no less than that of one more clause being one whole point off, and p agrees with
    the interval. A clause of each seed counts as one case, however many answers it has, as each fit is a new
    chance to differ. So more clauses or seeds always narrow it, and a difference that never shows is never
    weaker evidence than one that shows once.
    """
    found = _of_mean(differences, resamples)
    by_cluster = clustered_se(differences.values, differences.clusters)
    (low, high), p = found.interval(), found.p()
    num_odd, num_cells = _odd_cells(differences)
    if num_odd <= FEW:
        half = unseen_share(num_cells)
        low, high = min(low, found.value - half), max(high, found.value + half)
        by_cluster = max(by_cluster, 1 / (num_cells + 1))
        widened_p = 2 * _NORMAL.cdf(-abs(found.value) / half * _NORMAL.inv_cdf(0.975))
        p = max(p, widened_p) if num_odd else widened_p  # without any spread the resamples have no p
    se = found.se(by_cluster)
    mde = minimum_detectable_effect(se, found.seed_variance, found.num_seeds)
    n, num_clusters = len(differences), found.num_clusters
    return Difference(arm, reference, found.value, low, high, p, se, mde, n, num_clusters)


def paired_difference(arm: Sample, reference: Sample, resamples: Resamples) -> Difference:
    """Mean of the arm minus mean of the reference on the answers that both have, paired by seed and item.

    Values lie in [0, 1]. Raises StatsError where nothing is common or an item occurs twice.
    """
    tables: list[dict[tuple[int, str], int]] = []
    for side in (arm, reference):
        keys = list(zip(side.seeds, side.items, strict=True))
        table = {key: i for i, key in enumerate(keys)}
        if len(table) != len(keys):
            raise StatsError("an answer occurs twice in one arm: it cannot be paired")
        tables.append(table)
    common = [key for key in tables[0] if key in tables[1]]
    if not common:
        raise StatsError("the two arms have no answered turn in common")
    rows_a, rows_b = ([table[key] for key in common] for table in tables)
    values_a, values_b = arm.values[rows_a], reference.values[rows_b]
    differences = Sample(
        values=values_a - values_b,
        clusters=tuple(arm.clusters[i] for i in rows_a),
        seeds=tuple(seed for seed, _ in common),
        items=tuple(item for _, item in common),
    )
    return _difference(float(values_a.mean()), float(values_b.mean()), differences, resamples)


def difference_from(arm: Sample, reference: float, resamples: Resamples) -> Difference:
    """Mean of the arm minus a fixed value, e.g. chance."""
    if not len(arm):
        raise StatsError(arm.reason)
    shifted = Sample(arm.values - reference, arm.clusters, arm.seeds, arm.items)
    return _difference(float(arm.values.mean()), reference, shifted, resamples)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order given. Holm 1979, jstor.org/stable/4615733."""
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


# --- quantiles ----------------------------------------------------------------------------------


def bootstrap_quantiles(drawn: Sample, q: float, resamples: Resamples, chunk: int = 1000) -> Floats:
    """The sample's q-quantile in each resample, interpolated as numpy does by default. -> (B,)"""
    order = np.argsort(drawn.values, kind="stable")
    values = drawn.values[order]
    columns = np.array([resamples.clusters[drawn.clusters[i]] for i in order])
    rows = np.array([resamples.seeds[drawn.seeds[i]] for i in order])
    quantiles_B = np.full(len(resamples), np.nan)
    for start in range(0, len(resamples), chunk):
        part = slice(start, start + chunk)
        weights = resamples.cluster_counts_BC[part][:, columns] * resamples.seed_counts_BS[part][:, rows]
        cumulative = np.cumsum(weights, axis=1)
        sizes = cumulative[:, -1]
        position = np.maximum(sizes - 1, 0) * q
        below = np.floor(position)
        above = np.minimum(below + 1, np.maximum(sizes - 1, 0))
        low = values[np.argmax(cumulative > below[:, None], axis=1)]
        high = values[np.argmax(cumulative > above[:, None], axis=1)]
        quantiles_B[part] = np.where(sizes > 0, low + (position - below) * (high - low), np.nan)
    return quantiles_B


def estimate_quantile(drawn: Sample, q: float, resamples: Resamples) -> Estimate:
    """The q-quantile with its 95% interval by cluster bootstrap; no interval with a single cluster."""
    if not len(drawn):
        return missing(drawn.reason)
    value = float(np.quantile(drawn.values, q))
    num_clusters = len(set(drawn.clusters))
    if num_clusters == 1:
        return Estimate(value, n=len(drawn))
    low, high = resampled(
        value, lambda r: bootstrap_quantiles(drawn, q, r), resamples, num_clusters, drawn.seeds
    ).interval()
    return Estimate(value, low, high, len(drawn))


def estimate_mean(drawn: Sample, resamples: Resamples) -> Estimate:
    """Mean of values of any size with its 95% interval by cluster bootstrap."""
    if not len(drawn):
        return missing(drawn.reason)
    value = float(drawn.values.mean())
    if len(set(drawn.clusters)) == 1:
        return Estimate(value, n=len(drawn))
    low, high = _of_mean(drawn, resamples).interval()
    return Estimate(value, low, high, len(drawn))
