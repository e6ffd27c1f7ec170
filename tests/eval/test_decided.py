"""Slices are added until the data decide: how often that errs, how often it sees, and what it says meanwhile.

`python tests/eval/test_decided.py` prints the table. Every cell is 2,000 comparisons of three planted methods,
looked at after each slice as `pipelines.compare until=decided` does. *Error*: a claim that is not true, of
any pair at any look (different where they are not or the other way round; alike where they are `ALIKE` or more
apart). *Missed*: an interval of any pair at any look leaves out the truth. *Power*: the first pair, whose true
difference is the gap, is found different; *slices*: after how many, on the average of all comparisons.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pytest
from planted import dialogues, right_with, timed
from scipy.special import stdtrit

from eval.decided import ALIKE, contrasts_asked, decided, level_now
from eval.looks import ALPHA, FIRST_LOOK, OF_T, levels
from eval.records import TurnRecord
from eval.stats import Floats, Ints, Layout, StatsError, difference_parts, se_and_t

FAMILIES, QUESTIONS = 6, 24  # of a slice, of a family: as the laptop preset asks
PAIRS = ((0, 1), (0, 2), (1, 2))
CONTRASTS_OF_DEFAULT = 4  # these pairs, and H2


@dataclass(frozen=True)
class Plan:
    """Effects are standard deviations of a difference of two methods, as shares of right answers."""

    most: int  # slices
    rulebook: int = 0  # families, of which slices take turns; 0: every slice has new ones
    gap: float = 0.0  # of the first method to the two others
    family: float = 0.2
    seed: float = 0.05  # of a fit
    both: float = 0.1  # family by fit
    hard: float = 0.15  # how hard families are, for all methods alike

    def families(self, rng: np.random.Generator) -> Ints:
        """Which families each slice has. -> (most, FAMILIES)"""
        if not self.rulebook:
            return np.arange(self.most * FAMILIES).reshape(self.most, FAMILIES)
        turns = self.rulebook // FAMILIES
        rounds = [rng.permutation(self.rulebook)[: turns * FAMILIES] for _ in range(-(-self.most // turns))]
        return np.concatenate(rounds).reshape(-1, FAMILIES)[: self.most]

    def draw(self, rng: np.random.Generator, families: Ints, trials: int) -> list[Floats]:
        """Right or wrong of the three methods. -> (trials, answers) each, slice behind slice"""
        num = int(families.max()) + 1
        hard = rng.normal(0, self.hard, (trials, num))
        found = []
        for mean in (0.5 + self.gap / 2, *(0.5 - self.gap / 2,) * 2):
            own = hard + rng.normal(0, self.family / math.sqrt(2), (trials, num))
            right = mean + own[:, families] + rng.normal(0, self.seed / math.sqrt(2), (trials, self.most, 1))
            right = right + rng.normal(0, self.both / math.sqrt(2), right.shape)
            answers = rng.random((*right.shape, QUESTIONS)) < right[..., None]
            found.append(answers.astype(np.float64).reshape(trials, -1))
        return found


@dataclass(frozen=True)
class Found:
    """Shares of the comparisons."""

    error: float
    missed: float
    power: float
    slices: float


@lru_cache
def measure(plan: Plan, trials: int) -> Found:
    rng = np.random.default_rng([plan.most, plan.rulebook, round(100 * plan.gap)])
    blocks = [_block(plan, rng, min(500, trials - start)) for start in range(0, trials, 500)]
    error, missed, first = (np.concatenate(columns) for columns in zip(*blocks, strict=True))
    seen = first <= plan.most
    return Found(
        float(error.mean()), float(missed.mean()), float(seen.mean()), float(np.minimum(first, plan.most).mean())
    )


def _block(plan: Plan, rng: np.random.Generator, trials: int) -> tuple[Floats, Floats, Floats]:
    """Whether a claim was wrong, whether an interval missed, when the first pair was told apart (slices).

    As `eval.decided` decides, many comparisons at once: a pair stays as it was first decided.
    """
    families, truths = plan.families(rng), (plan.gap, plan.gap, 0.0)
    answers = plan.draw(rng, families, trials)
    clusters = np.repeat(families.ravel(), QUESTIONS)
    seeds = np.repeat(np.arange(plan.most), FAMILIES * QUESTIONS)
    items = clusters * QUESTIONS + np.tile(np.arange(QUESTIONS), families.size)
    error, missed, first = np.zeros(trials, bool), np.zeros(trials, bool), np.full(trials, plan.most + 1)
    is_open = np.ones((len(PAIRS), trials), bool)
    for slices, level in levels(plan.most, ALPHA / CONTRASTS_OF_DEFAULT).items():
        n = slices * FAMILIES * QUESTIONS
        numbered = np.unique(clusters[:n], return_inverse=True)[1]
        layout = Layout(numbered, seeds[:n], np.unique(items[:n], return_inverse=True)[1])
        for pair, ((a, b), truth) in enumerate(zip(PAIRS, truths, strict=True)):
            values = (answers[a] - answers[b])[:, :n]
            se, quantile = se_and_t(difference_parts(values, layout), 1 - level / 2)
            value, half = values.mean(axis=1), se * quantile
            missed |= abs(value - truth) > half
            different = is_open[pair] & (abs(value) > half)
            alike = is_open[pair] & ~different & (abs(value) + half < ALIKE)
            error |= different & (np.sign(value) != np.sign(truth))
            error |= alike & (abs(truth) >= ALIKE)
            if pair == 0:
                first[different] = slices
            is_open[pair] &= ~(different | alike)
    return error, missed, first


REGS = 44  # families
PLANS = [
    Plan(most, rulebook, gap, seed=seed)
    for most, rulebook, seed in (
        (16, 0, 0.05),
        (16, REGS, 0.05),
        (16, REGS, 0.10),
        (8, 0, 0.05),
        (16, FAMILIES, 0.05),
    )
    for gap in (0.0, ALIKE, 0.15, 0.25)
]


def noise(trials: int) -> float:
    """Three standard errors of a share of 0.05 over so many comparisons."""
    return 3 * math.sqrt(0.05 * 0.95 / trials)


@pytest.mark.parametrize("rulebook", [0, REGS])
@pytest.mark.parametrize("gap", [0.0, ALIKE])
def test_looking_after_every_slice_errs_in_one_case_of_twenty_at_most(rulebook: int, gap: float) -> None:
    trials = 600
    found = measure(Plan(16, rulebook, gap), trials)
    assert found.error <= 0.05 + noise(trials)
    assert found.missed <= 0.05 + noise(trials)


def test_without_a_plan_it_would_err_far_more_often() -> None:
    """The simulation can see what the plan is against: intervals of one look at each of many."""
    rng, plan = np.random.default_rng(0), Plan(16)
    families = plan.families(rng)
    a, b, _ = plan.draw(rng, families, 500)
    wrong = np.zeros(500, bool)
    for slices in range(FIRST_LOOK, 17):
        n = slices * FAMILIES * QUESTIONS
        clusters = np.repeat(families.ravel(), QUESTIONS)[:n]
        layout = Layout(clusters, clusters // FAMILIES, np.arange(n))
        values = (a - b)[:, :n]
        se, quantile = se_and_t(difference_parts(values, layout))
        wrong |= abs(values.mean(axis=1)) > se * quantile
    assert wrong.mean() > 0.10


def test_a_difference_of_fifteen_points_is_seen_four_times_in_five() -> None:
    """Within 16 slices of six families, of new ones or of the packaged handbook's 44."""
    for rulebook in (0, REGS):
        found = measure(Plan(16, rulebook, 0.15), 400)
        assert found.power >= 0.80, (rulebook, found)


@pytest.mark.parametrize("most", [FIRST_LOOK, 7, 16])
def test_levels_spend_five_per_cent_of_sums_of_slices(most: int) -> None:
    rng, trials = np.random.default_rng(most), 100_000
    sums = np.cumsum(rng.normal(size=(trials, most)), axis=1) / np.sqrt(np.arange(1, most + 1))
    p = 2 * (1 - np.vectorize(math.erf)(abs(sums) / math.sqrt(2)) / 2 - 0.5)
    at = levels(most)
    assert list(at) == list(range(FIRST_LOOK, most + 1))
    ended = np.any([p[:, slices - 1] < level for slices, level in at.items()], axis=0)
    assert abs(ended.mean() - ALPHA / OF_T) < 4 * math.sqrt(ALPHA * (1 - ALPHA) / trials)


@pytest.mark.parametrize("most", [FIRST_LOOK, 5, 8, 12, 16, 24])
def test_levels_hold_where_the_variance_is_estimated_at_each_look(most: int) -> None:
    rng, trials, counts = np.random.default_rng(most), 40_000, np.arange(1, most + 1)
    slices = rng.normal(size=(trials, most))
    means = np.cumsum(slices, axis=1) / counts
    variances = (np.cumsum(slices**2, axis=1) - counts * means**2) / np.maximum(counts - 1, 1)
    ended = np.zeros(trials, bool)
    for seen, level in levels(most).items():
        t = abs(means[:, seen - 1]) / np.sqrt(variances[:, seen - 1] / seen)
        ended |= t > stdtrit(seen - 1, 1 - level / 2)
    assert 0.6 * ALPHA < ended.mean() <= ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / trials)


# --- from records -------------------------------------------------------------------------------


def planted(shares: dict[str, float], seeds: int) -> list[TurnRecord]:
    return [
        record
        for seed in range(seeds)
        for at, (method, share) in enumerate(shares.items())
        for record in dialogues(right_with(share, np.random.default_rng([seed, at])), 6, method, seed)
    ]


@pytest.fixture(scope="module")
def turns() -> list[TurnRecord]:
    return planted({"recall": 0.95, "sft": 0.3, "rag": 0.94}, 8)


CONTRASTS = ["recall-sft", "recall-rag", "sft-rag"]


def of_first(turns: list[TurnRecord], seeds: int) -> list[TurnRecord]:
    return [record for record in turns if record.seed < seeds]


def test_a_large_difference_is_decided_and_stays_so(turns: list[TurnRecord]) -> None:
    short, long = (decided(of_first(turns, seeds), [], CONTRASTS, 8, 3600.0) for seeds in (7, 8))
    for pair in ("recall-sft", "sft-rag"):
        assert short["contrasts"][pair]["state"] == "different"
        assert long["contrasts"][pair] == short["contrasts"][pair]
    assert long["contrasts"]["recall-rag"]["state"] in ("open", "alike")
    assert long["contrasts"]["recall-sft"]["value"] > 0 > long["contrasts"]["sft-rag"]["value"]


def test_nothing_is_decided_before_the_first_look(turns: list[TurnRecord]) -> None:
    found = decided(of_first(turns, FIRST_LOOK - 1), [], CONTRASTS, 8, 3600.0)
    assert {contrast["state"] for contrast in found["contrasts"].values()} == {"open"}
    assert found["level"] == level_now(1, 8, 3) < 1e-6
    assert level_now(FIRST_LOOK, 8, 3) == 3 * levels(8, ALPHA / 3)[FIRST_LOOK]


def test_a_smaller_difference_takes_more_slices() -> None:
    more = []
    for share in (0.6, 0.45):
        found = decided(planted({"recall": share, "sft": 0.4}, 4), [], ["recall-sft"], 16, 4 * 3600.0)
        contrast = found["contrasts"]["recall-sft"]
        more.append(contrast["more_slices"] or 500)
        assert (found["hours_a_slice"], contrast["state"]) == (1.0, "open")
    assert 1 <= more[0] < more[1]


def test_a_hypothesis_is_a_contrast_too(turns: list[TurnRecord]) -> None:
    def costs(seconds: float) -> list:
        return [
            timed(method, f"q{number}", seed=seed, number=number, total_s=took * (1 + 0.01 * (number + seed)))
            for seed in range(8)
            for number in range(6)
            for method, took in (("recall", seconds), ("sft", 1.0))
        ]

    slow = decided(turns, costs(2.0), ["H2"], 8, 1.0)["contrasts"]["H2"]
    assert slow["state"] == "refuted" and slow["slices"] < 8
    absent = decided(turns, [], ["H2"], 8, 1.0)["contrasts"]["H2"]
    assert absent["state"] == "not_measured" and "timed answers" in absent["reason"]


def test_contrasts_are_named_by_their_methods() -> None:
    methods = ["recall", "sft", "rag"]
    assert contrasts_asked([], methods) == ["recall-sft", "recall-rag", "sft-rag", "H2"]
    assert contrasts_asked(["rag-recall", "H1", "recall-rag"], methods) == ["recall-rag", "H1"]
    assert contrasts_asked([], ["sft", "rag"]) == ["sft-rag"]
    for wrong in ("recall-none", "H2/x", "H5"):
        with pytest.raises(StatsError, match="choose from: recall-sft, recall-rag, sft-rag, H1"):
            contrasts_asked([wrong], methods)


if __name__ == "__main__":
    header = ("slices at most", "families", "fits differ by", "gap", "error", "missed", "power", "slices")
    lines = [header, ("---",) * len(header)]
    for plan in PLANS:
        found = measure(plan, 2000)
        families = f"{plan.rulebook} in all" if plan.rulebook else f"{FAMILIES} new a slice"
        power = f"{found.power:.3f}" if plan.gap else ""
        figures = (f"{found.error:.3f}", f"{found.missed:.3f}", power, f"{found.slices:.1f}")
        lines.append((str(plan.most), families, f"{plan.seed:.2f}", f"{plan.gap:.2f}", *figures))
    sys.stdout.write("".join(f"| {' | '.join(line)} |\n" for line in lines))
