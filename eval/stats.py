"""Intervals and comparisons that respect which answers belong together.

Letters: B resamples, C clusters (clauses), S seeds, n answers.

Answers about one clause stand or fall together, so the clause is the unit that is resampled; errors
computed as if answers were independent come out two to three times too small (Miller 2024,
arXiv:2411.00640). All arms of a run share one set of resamples, which makes every comparison paired.
With several training seeds, seeds and clauses are resampled each on their own and a cell counts as
often as both were drawn together (the pigeonhole bootstrap for crossed designs: Owen 2007,
doi:10.1214/07-AOAS122; it never understates the variance, and overstates it where neither seeds nor
clauses matter by themselves). Everything is a pure function; the generator is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
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
    """How often each cluster and each seed is drawn in each resample. Shared by all metrics and arms."""

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
    """Draws C of the C clusters and S of the S seeds with replacement, B times.

    Order of the arguments does not matter: both are sorted first. One seed is always drawn once.
    """
    columns_C = {cluster: i for i, cluster in enumerate(sorted(set(clusters)))}
    columns_S = {seed: i for i, seed in enumerate(sorted(set(seeds)))}
    if not columns_C or not columns_S:
        raise StatsError("nothing to resample: there are no records")

    def counts(size: int) -> Floats:
        drawn = rng.multinomial(size, np.full(size, 1 / size), size=num_resamples)
        return drawn.astype(np.float64)

    return Resamples(columns_C, columns_S, counts(len(columns_C)), counts(len(columns_S)))


def resamples_for(
    records: Sequence[TurnRecord], rng: np.random.Generator, num_resamples: int = NUM_RESAMPLES
) -> Resamples:
    """One set of resamples for all methods of a run."""
    return draw_resamples(map(cluster_of, records), (r.seed for r in records), rng, num_resamples)


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

    Where every answer has a cluster of its own and the values are 0 or 1: Wilson's interval over the
    answers. Where all values are 0 or all are 1, the bootstrap would show no spread at all: Wilson's
    interval over the *clusters*, as if answers on one clause told nothing new. Else: the cluster
    bootstrap.
    """
    if not len(drawn):
        return missing(drawn.reason)
    mean = float(drawn.values.mean())
    num_clusters = len(set(drawn.clusters))
    if mean in (0.0, 1.0) or num_clusters == 1:
        low, high = wilson_interval(mean * num_clusters, num_clusters)
    elif num_clusters == len(drawn) and set(np.unique(drawn.values)) <= {0.0, 1.0}:
        low, high = wilson_interval(float(drawn.values.sum()), len(drawn))
    else:
        low, high = percentile_interval(bootstrap_means(drawn, resamples), num_clusters)
    return Estimate(mean, low, high, len(drawn))


def estimate_ratio(top: Sample, bottom: Sample, resamples: Resamples, reason: str) -> Estimate:
    """Ratio of two means with the interval of the ratio over shared resamples; n is the top's.

    `reason` is given where the bottom's mean is zero.
    """
    if not len(top) or not len(bottom):
        return missing((top if not len(top) else bottom).reason)
    if not bottom.values.any():
        return missing(reason)
    top_B, bottom_B = bootstrap_means(top, resamples), bootstrap_means(bottom, resamples)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio_B = np.where(bottom_B > 0, top_B / bottom_B, np.nan)
    if np.nanstd(ratio_B) < 1e-12:  # no spread to resample: the ends of the two intervals instead
        ends = (estimate(top, resamples), estimate(bottom, resamples))
        low, high = (ends[0].low or 0.0) / (ends[1].high or 1.0), (ends[0].high or 1.0) / (ends[1].low or 1.0)
    else:
        low, high = percentile_interval(ratio_B, len(set(top.clusters) | set(bottom.clusters)))
    return Estimate(float(top.values.mean() / bottom.values.mean()), low, high, len(top))


# --- differences --------------------------------------------------------------------------------


def clustered_se(values: Floats, clusters: Sequence[str], seeds: Sequence[int] | None = None) -> float:
    """Clustered standard error of the mean. Miller 2024, arXiv:2411.00640, section 2.2.

    SE^2 = (1/n^2) * sum over clusters of (sum of its values' deviations from the mean)^2. With more than
    one seed, clustered both ways: by clause + by seed - by cell (Cameron, Gelbach and Miller 2011,
    doi:10.1198/jbes.2010.07136), never less than by clause alone.
    values: (n,), clusters: (n,), seeds: (n,) or None -> float
    """
    if not len(values):
        raise StatsError("the mean of nothing has no standard error")
    deviations = np.asarray(values, dtype=np.float64) - np.mean(values)

    def variance(groups: Sequence[object]) -> float:
        _, inverse = np.unique(np.array([repr(group) for group in groups]), return_inverse=True)
        return float(np.sum(np.bincount(inverse, weights=deviations) ** 2)) / len(values) ** 2

    by_cluster = variance(list(clusters))
    if seeds is None or len(set(seeds)) < 2:
        return math.sqrt(by_cluster)
    cells = list(zip(clusters, seeds, strict=True))
    return math.sqrt(max(by_cluster, by_cluster + variance(list(seeds)) - variance(cells)))


def minimum_detectable_effect(se: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true difference that a two-sided test would find with this power.

    (z_{1-alpha/2} + z_power) * SE = 2.80 SE at the defaults. Miller 2024, arXiv:2411.00640, section 5.
    """
    return (_NORMAL.inv_cdf(1 - alpha / 2) + _NORMAL.inv_cdf(power)) * se


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


def _difference(arm: float, reference: float, differences: Sample, resamples: Resamples) -> Difference:
    """The statistics of per-answer differences whose mean is arm - reference."""
    value = float(differences.values.mean())
    num_clusters = len(set(differences.clusters))
    se = clustered_se(differences.values, differences.clusters, differences.seeds)
    resampled_B = bootstrap_means(differences, resamples)
    low, high = percentile_interval(resampled_B, num_clusters)
    p = bootstrap_p(resampled_B, num_clusters)
    if math.isclose(se, 0.0, abs_tol=1e-12):
        # No two clusters differ. What could have been missed: one more cluster, one whole point off.
        se = 1 / (num_clusters + 1)
        low, high = value - 1.96 * se, value + 1.96 * se
        p = 1.0 if math.isclose(value, 0.0, abs_tol=1e-12) else 2 * _NORMAL.cdf(-abs(value) / se)
    return Difference(
        arm, reference, value, low, high, p, se, minimum_detectable_effect(se), len(differences), num_clusters
    )


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
    low, high = percentile_interval(bootstrap_quantiles(drawn, q, resamples), num_clusters)
    return Estimate(value, low, high, len(drawn))


def estimate_mean(drawn: Sample, resamples: Resamples) -> Estimate:
    """Mean of values of any size with its 95% interval by cluster bootstrap."""
    if not len(drawn):
        return missing(drawn.reason)
    value = float(drawn.values.mean())
    num_clusters = len(set(drawn.clusters))
    if num_clusters == 1:
        return Estimate(value, n=len(drawn))
    low, high = percentile_interval(bootstrap_means(drawn, resamples), num_clusters)
    return Estimate(value, low, high, len(drawn))
