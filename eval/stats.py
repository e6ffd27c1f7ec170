"""Intervals and comparisons that respect which answers belong together.

Letters: n answers, C clusters, S seeds, I items; `...` any leading axes (a simulation's trials).

The cluster is what was drawn: a family of near-miss clauses, whose members are each other's rivals. Answers
about one family stand or fall together (Miller 2024, arXiv:2411.00640), and so do answers of one training seed.

There is one estimator. A figure is written as a sum of *influences*, one an answer (for a mean: the answer's
deviation from it over n; for a ratio of sums r = Y/X: (y - r x) / X), and with u_g the sum of a group's and w_g
its share of the answers

    V(groups) = (G - 1) / G * sum over groups of (u_g / (1 - w_g))^2

(the jackknife by group: MacKinnon, Nielsen and Webb 2023, doi:10.1002/jae.2969; G / (G - 1) * sum of u_g^2
where groups are of one size) its variance is, with one seed, V(families), and with more (Cameron, Gelbach and
Miller 2011, doi:10.1198/jbes.2010.07136)

    V(seeds) + S / (S - 1) * max(0, V(families) - V(families within a seed))

The factor S / (S - 1) makes up for the family effects that the subtracted part holds too; without it two seeds
show half of them. Where each seed draws its own families the bracket is 0 and V(seeds) is left, where all seeds
share them both parts count, and in between it is in between. Each part has Student's t on its own degrees of
freedom, C - 1 and S - 1, weighted by its variance (Cochran 1964, doi:10.2307/2527628). Families of unlike sizes
count as fewer (`Layout.effective_clusters`; Carter, Schnepel and Steigerwald 2017, doi:10.1162/REST_a_00639).
All is deterministic.

Two targets. With `fraction` = 0 the families are a sample: the interval is about rulebooks like this one. With
`fraction` = the share of the rulebook's families that was drawn, it is about *this* rulebook: two-stage
sampling with the finite population correction, (1 - f) V(families) + f V(questions within their families)
(Cochran 1977, Sampling Techniques, section 10.3). One seed's interval is about that seed.

What few answers cannot tell: where (almost) all agree, neither their spread nor how alike a family is shows.
See `_with_prior`. Coverage, false alarms and power of all this are simulated in tests/eval/test_coverage.py. Known
to fall short: failures of 2 to 10 in 100 that lie together in few of 18 or 44 families; where one arm has none,
a difference is then covered 0.84 to 0.93 of the time, since most samples show too few of those families.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr, stdtridf, stdtrit

from eval.records import TurnRecord

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
LEVEL = 0.05  # two-sided, of the 95% interval; a look among several takes less (eval.looks)
UPPER = 1 - LEVEL / 2
POWER = 0.8
RHO = 0.2  # correlation of a family's answers that is taken for granted as long as the data cannot tell


class StatsError(ValueError):
    """Figures that cannot be compared: says what does not fit."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval, or the reason why there is none."""

    value: float | None
    low: float | None = None  # None: one measurement, or no spread to judge by: no interval
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
    clusters: tuple[str, ...]  # (n,) families
    seeds: tuple[int, ...]  # (n,)
    items: tuple[str, ...]  # (n,) what was answered, the same for every method: pairs the arms
    reason: str = ""  # why the sample is empty, where it is

    def __len__(self) -> int:
        return len(self.items)

    @property
    def mean(self) -> float | None:
        return float(self.values.mean()) if len(self) else None


def cluster_of(record: TurnRecord) -> str:
    """The family of the clause, or the dialogue where no clause is at issue."""
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


def of_seeds(drawn: Sample, seeds: Collection[int]) -> Sample:
    """The answers of some seeds."""
    kept = [i for i, seed in enumerate(drawn.seeds) if seed in seeds]
    return Sample(
        drawn.values[kept],
        tuple(drawn.clusters[i] for i in kept),
        tuple(drawn.seeds[i] for i in kept),
        tuple(drawn.items[i] for i in kept),
        drawn.reason,
    )


# --- the estimator ------------------------------------------------------------------------------


def _codes(labels: Sequence[object]) -> Ints:
    """Labels as numbers from 0."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Layout:
    """Which answers belong together, as numbers."""

    clusters: Ints  # (n,)
    seeds: Ints
    items: Ints

    @classmethod
    def of(cls, *drawn: Sample) -> Layout:
        """Of several samples one behind the other."""
        return cls(
            *(
                _codes([label for one in drawn for label in getattr(one, name)])
                for name in ("clusters", "seeds", "items")
            )
        )

    @property
    def num_clusters(self) -> int:
        return len(np.unique(self.clusters))

    @property
    def effective_clusters(self) -> float:
        """n^2 / sum of their squared sizes: C where all are of one size, 1 where there is one. Kish 1965."""
        return len(self.clusters) ** 2 / float(np.sum(np.bincount(self.clusters).astype(np.float64) ** 2))


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a variance."""

    variance: Floats  # (...,)
    df: float


def _sums(influences: Floats, groups: Ints) -> Floats:
    """Sum over each group. influences: (..., n), groups: (n,) -> (..., G)"""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    sums: Floats = np.add.reduceat(influences[..., order], starts, axis=-1)
    return sums


def _between(influences: Floats, groups: Ints) -> Floats:
    """V(groups) of the module's docstring: (..., n) -> (...,). One group tells nothing: 0."""
    _, sizes = np.unique(groups, return_counts=True)
    count, left = len(sizes), 1 - sizes / len(groups)
    if count == 1:
        return np.zeros(influences.shape[:-1])
    variance: Floats = (count - 1) / count * np.sum((_sums(influences, groups) / left) ** 2, axis=-1)
    return variance


def _within(influences: Floats, strata: Ints, units: Ints) -> tuple[Floats, int]:
    """Variance of units drawn within fixed strata, and its degrees of freedom. (..., n) -> (...,)

    Cochran 1977, section 5.4. A stratum with one unit has no spread of its own: the unit's square stands for it.
    """
    places = strata * (int(units.max()) + 1) + units
    sums = _sums(influences, places)
    _, first = np.unique(places, return_index=True)
    _, inside, sizes = np.unique(strata[first], return_inverse=True, return_counts=True)
    means = _sums(sums, inside) / sizes
    centred = np.where(sizes[inside] > 1, sums - means[..., inside], sums)
    factors = np.where(sizes > 1, sizes / np.maximum(sizes - 1, 1), 1.0)
    variance: Floats = np.sum(centred**2 * factors[inside], axis=-1)
    return variance, max(1, len(first) - len(sizes))


def variance_parts(influences: Floats, layout: Layout, fraction: float = 0.0) -> list[Part]:
    """The parts of a figure's variance; formulas: this module's docstring. influences: (..., n).

    fraction: share of the rulebook's families that was drawn, where the rulebook itself is the target; 0: it is
    a sample of rulebooks like it. Raises StatsError outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise StatsError(f"the share of the rulebook that was drawn is {fraction}; it lies between 0 and 1")
    clusters, seeds, items = layout.clusters, layout.seeds, layout.items
    num_seeds = int(seeds.max()) + 1
    families = _between(influences, clusters)
    questions, df_questions = _within(influences, clusters, items) if fraction else (families, 1)
    parts: list[Part] = []
    if num_seeds > 1:
        cells = clusters * num_seeds + seeds
        factor = num_seeds / (num_seeds - 1)
        families = factor * np.maximum(0.0, families - _between(influences, cells))
        if fraction:
            questions = factor * np.maximum(0.0, questions - _within(influences, cells, items)[0])
        parts = [Part(_between(influences, seeds), num_seeds - 1)]
    parts.insert(0, Part((1 - fraction) * families, max(1.0, layout.effective_clusters - 1)))
    return [*parts, Part(fraction * questions, df_questions)] if fraction else parts


def se_and_t(parts: Sequence[Part], probability: float = UPPER) -> tuple[Floats, Floats]:
    """Standard error, and the quantile of t that goes with it: of each part, weighted by its variance.

    Cochran 1964, doi:10.2307/2527628. Without any variance: that of the first part. -> (...,), (...,)
    """
    total = np.sum([part.variance for part in parts], axis=0)
    mixed = np.sum([part.variance * stdtrit(part.df, probability) for part in parts], axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        quantile: Floats = np.where(total > 0, mixed / total, stdtrit(parts[0].df, probability))
    return np.sqrt(total), quantile


@dataclass(frozen=True)
class Error:
    """Standard error of a figure and the degrees of freedom of its t."""

    se: float
    df: float
    level: float = LEVEL  # two-sided; the interval is that of 1 - level

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return float(stdtrit(self.df, 1 - self.level / 2)) * self.se

    @property
    def mde(self) -> float:
        """The smallest true figure that a two-sided test at `level` finds with 80% power.

        At 5% (t_{0.975} + t_{0.8}) * SE. Bloom 1995, doi:10.1177/0193841X9501900504; Miller 2024, section 5.
        """
        return self.half + float(stdtrit(self.df, POWER)) * self.se

    def p(self, value: float) -> float:
        """Two-sided p of "the figure is zero"; below `level` where the interval leaves zero out."""
        if not self.se:
            return 1.0 if math.isclose(value, 0.0, abs_tol=1e-12) else 0.0
        return min(1.0, 2 * float(stdtr(self.df, -abs(value) / self.se)))


def error_of(parts: Sequence[Part], level: float = LEVEL) -> Error:
    """The one t whose interval is that of the parts: its degrees of freedom need not be whole."""
    upper = 1 - level / 2
    se, quantile = (float(found) for found in se_and_t(parts, upper))
    present = {part.df for part in parts if part.variance > 0} or {parts[0].df}
    return Error(se, float(np.clip(stdtridf(upper, quantile), min(present), max(present))), level)


def _deviations(values: Floats) -> Floats:
    """How many values are not the commonest. (..., n) -> (...,)"""
    rounded = np.round(values, 9)
    counts = [np.sum(rounded == value, axis=-1) for value in np.unique(rounded)]
    left: Floats = values.shape[-1] - np.max(counts, axis=0).astype(np.float64)
    return left


def effective_n(layout: Layout) -> float:
    """Answers that n answers in families are worth where a family's correlate by RHO. Kish 1965, section 5.4.

    One family alone is worth one answer.
    """
    n, clusters = len(layout.clusters), layout.effective_clusters
    return n / (1 + (n / clusters - 1) * RHO) if clusters > 1 else 1.0


def _with_prior(parts: Sequence[Part], values: Floats, layout: Layout, least: float) -> list[Part]:
    """The parts with what answers that (almost) all agree cannot tell. values: (..., n).

    k answers deviate from the commonest. The data's own variance has weight k, and weight 1 has the variance
    that k answers apart would have in families whose answers correlate by RHO, `least` or more. So the prior
    rules at k = 0, where the data show no spread whatever is true, and is gone from a dozen on.
    """
    n = values.shape[-1]
    k = _deviations(values)
    independent = np.var(values, axis=-1) / n
    prior = np.maximum(independent * n / effective_n(layout), least)
    own = np.sum([part.variance for part in parts], axis=0)
    blended = (k * own + prior) / (k + 1)
    shows = (own > 1e-20) & (layout.num_clusters > 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = np.where(shows, blended / own, 0.0)  # the parts keep their shares, and so their t
    alone = Part(np.where(shows, 0.0, blended), max(1.0, layout.effective_clusters - 1))
    return [alone, *(Part(part.variance * factor, part.df) for part in parts)]


def share_bounds(values: Floats, layout: Layout, fraction: float = 0.0) -> tuple[Floats, Floats]:
    """95% interval of the mean of values in [0, 1]: Wilson's over the answers that these are worth.

    n* = m (1 - m) / V in place of n, and t in place of z (Wilson 1927, doi:10.1080/01621459.1927.10502953; for
    surveys Korn and Graubard 1998, Survey Methodology 24(2), and Dean and Pagano 2015, doi:10.1093/jssam/smv024).
    Never narrower than Wilson's of n independent answers. (..., n) -> (...,), (...,)
    """
    n = values.shape[-1]
    mean = values.mean(axis=-1)
    parts = variance_parts((values - mean[..., None]) / n, layout, fraction)
    se, quantile = se_and_t(_with_prior(parts, values, layout, 0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        worth = np.where(se > 0, mean * (1 - mean) / se**2, effective_n(layout))
    squared = np.maximum(quantile**2 / worth, ndtri(UPPER) ** 2 / n)
    centre = (mean + squared / 2) / (1 + squared)
    half = np.sqrt(mean * (1 - mean) * squared + squared**2 / 4) / (1 + squared)
    low, high = (np.clip(bound, 0.0, 1.0) for bound in (centre - half, centre + half))
    return np.minimum(low, mean), np.maximum(high, mean)


def difference_parts(values: Floats, layout: Layout, fraction: float = 0.0) -> list[Part]:
    """The parts of the variance of a mean of differences between answers in [0, 1]. (..., n)

    Where no difference deviates, the interval reaches t^2 / (n0 + t^2) to either side, n0 being `effective_n`:
    the score interval of a paired difference without a discordant pair (Tango 1998,
    doi:10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B), and Wilson's bound of a share at 0.
    """
    n = values.shape[-1]
    parts = variance_parts((values - values.mean(axis=-1, keepdims=True)) / n, layout, fraction)
    t = float(stdtrit(max(1.0, layout.effective_clusters - 1), UPPER))
    return _with_prior(parts, values, layout, (t / (effective_n(layout) + t**2)) ** 2)


# --- estimates ----------------------------------------------------------------------------------


def estimate(drawn: Sample, fraction: float = 0.0) -> Estimate:
    """Mean of values in [0, 1] with its 95% interval (`share_bounds`). fraction: as in `variance_parts`."""
    if not len(drawn):
        return missing(drawn.reason)
    low, high = share_bounds(drawn.values, Layout.of(drawn), fraction)
    return Estimate(float(drawn.values.mean()), float(low), float(high), len(drawn))


def estimate_mean(drawn: Sample) -> Estimate:
    """Mean of values of any size with its 95% interval; none with a single cluster, or where all values agree."""
    if not len(drawn):
        return missing(drawn.reason)
    value, layout = float(drawn.values.mean()), Layout.of(drawn)
    half = error_of(variance_parts((drawn.values - value) / len(drawn), layout)).half
    if layout.num_clusters == 1 or half <= 1e-12 * abs(value):
        return Estimate(value, n=len(drawn))
    return Estimate(value, value - half, value + half, len(drawn))


def estimate_quantile(drawn: Sample, q: float) -> Estimate:
    """The q-quantile with its 95% interval; none with a single cluster, or where all values agree.

    The quantiles at the two bounds of the share below it. Woodruff 1952, doi:10.1080/01621459.1952.10483443.
    """
    if not len(drawn):
        return missing(drawn.reason)
    value = float(np.quantile(drawn.values, q))
    below = estimate(replace(drawn, values=(drawn.values <= value).astype(np.float64)))
    assert below.low is not None and below.high is not None
    low, high = (float(bound) for bound in np.quantile(drawn.values, [min(below.low, q), max(below.high, q)]))
    if len(set(drawn.clusters)) == 1 or low == high:
        return Estimate(value, n=len(drawn))
    return Estimate(value, low, high, len(drawn))


def log_ratio_error(top: Sample, bottom: Sample, level: float = LEVEL) -> Error:
    """Error of log(mean of top / mean of bottom), linearised; both means are above 0.

    Answers to one item, or of one family, count together whichever side they stand on.
    """
    influences = np.concatenate(
        [sign * (side.values / side.values.mean() - 1) / len(side) for sign, side in ((1, top), (-1, bottom))]
    )
    return error_of(variance_parts(influences, Layout.of(top, bottom)), level)


def estimate_ratio(top: Sample, bottom: Sample, reason: str) -> Estimate:
    """Ratio of two shares with its 95% interval, on the scale of logarithms; n is the top's.

    Where a share is 0 or its answers do not deviate: the quotients of the ends of the two intervals.
    `reason` is given where the bottom's mean is zero.
    """
    if not len(top) or not len(bottom):
        return missing((top if not len(top) else bottom).reason)
    if not bottom.values.any():
        return missing(reason)
    value = float(top.values.mean() / bottom.values.mean())
    if top.values.any() and np.ptp(top.values) and np.ptp(bottom.values):
        factor = math.exp(min(log_ratio_error(top, bottom).half, 50.0))
        if factor > 1 + 1e-9:
            return Estimate(value, value / factor, value * factor, len(top))
    of_top, of_bottom = estimate(top), estimate(bottom)
    assert of_top.low is not None and of_top.high is not None
    assert of_bottom.low is not None and of_bottom.high is not None
    high = of_top.high / of_bottom.low if of_bottom.low > 0 else None
    return Estimate(value, None if high is None else of_top.low / of_bottom.high, high, len(top))


def estimate_over_seeds(values_S: Sequence[float]) -> Estimate:
    """Mean of one figure a seed, none below 0, with Student's t interval on S - 1 degrees of freedom.

    For what is measured once a fit, as its seconds. No interval with a single seed, or where all agree.
    """
    value, n = float(np.mean(values_S)), len(values_S)
    if n < 2 or not np.ptp(values_S):
        return Estimate(value, n=n)
    half = Error(float(np.std(values_S, ddof=1)) / math.sqrt(n), n - 1).half
    return Estimate(value, max(0.0, value - half), value + half, n)


# --- differences --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """One arm against another (or against a fixed value), answer by answer."""

    arm: float  # mean of the arm on the common answers
    reference: float
    value: float  # arm - reference; for costs arm / reference - 1
    low: float  # interval of `value`: 95%, or as its maker was told
    high: float
    p: float  # two-sided, of "no difference"
    se: float
    df: float  # degrees of freedom of its t
    mde: float  # minimum detectable effect at 80% power
    n: int  # common answers
    num_clusters: int  # families, as many as families of unlike sizes are worth (Kish)


def _difference(
    arm: float, reference: float, differences: Sample, fraction: float, level: float = LEVEL
) -> Difference:
    """The statistics of per-answer differences whose mean is arm - reference."""
    value, layout = float(differences.values.mean()), Layout.of(differences)
    error = error_of(difference_parts(differences.values, layout, fraction), level)
    return Difference(
        arm=arm,
        reference=reference,
        value=value,
        low=max(-1.0, value - error.half),
        high=min(1.0, value + error.half),
        p=error.p(value),
        se=error.se,
        df=error.df,
        mde=error.mde,
        n=len(differences),
        num_clusters=round(layout.effective_clusters),
    )


def paired(arm: Sample, reference: Sample) -> tuple[Sample, Sample]:
    """The two samples on the answers that both have, in one order, paired by seed and item.

    Raises StatsError where nothing is common or an item occurs twice.
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
    clusters = tuple(arm.clusters[tables[0][key]] for key in common)
    seeds, items = tuple(seed for seed, _ in common), tuple(item for _, item in common)
    rows = [[table[key] for key in common] for table in tables]
    first, second = (
        Sample(side.values[chosen], clusters, seeds, items)
        for side, chosen in zip((arm, reference), rows, strict=True)
    )
    return first, second


def paired_difference(arm: Sample, reference: Sample, fraction: float = 0.0, level: float = LEVEL) -> Difference:
    """Mean of the arm minus mean of the reference on the answers that both have; values lie in [0, 1].

    fraction: as in `variance_parts`; level: two-sided, of the interval. Raises StatsError as `paired` does.
    """
    a, b = paired(arm, reference)
    return _difference(
        float(a.values.mean()), float(b.values.mean()), replace(a, values=a.values - b.values), fraction, level
    )


def difference_from(arm: Sample, reference: float, fraction: float = 0.0) -> Difference:
    """Mean of the arm minus a fixed value, e.g. chance."""
    if not len(arm):
        raise StatsError(arm.reason)
    return _difference(float(arm.values.mean()), reference, replace(arm, values=arm.values - reference), fraction)


def families_needed(difference: Difference, bound: float = 0.0, tests: float = 1.0) -> int | None:
    """How many families beyond those measured would show on which side of `bound` an open difference lies.

    4 data sets in 5 of that size would, if the true difference is as measured and the error shrinks as
    1/sqrt(families). tests: comparisons that share the 5% (Bonferroni). None where it lies on the bound, so that
    no number would do.
    """
    gap = abs(difference.value - bound)
    if math.isclose(gap, 0.0, abs_tol=1e-9):
        return None
    one_seed = difference.df > difference.num_clusters - 2  # else the seeds bound the degrees of freedom
    times = 1.0
    for _ in range(60):  # families have more degrees of freedom: a fixed point, met halfway each time
        df = difference.df * max(times, 1.0) if one_seed else difference.df
        seen = stdtrit(df, 1 - (1 - UPPER) / tests) + stdtrit(df, POWER)
        times = (times + (float(seen) * difference.se / gap) ** 2) / 2
    return max(1, math.ceil(difference.num_clusters * (times - 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order given. Holm 1979, jstor.org/stable/4615733."""
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted
