"""How often intervals hold the truth, and how often a difference is seen, over designs and sizes.

`python tests/eval/test_coverage.py` prints the table. Every cell is a few thousand comparisons of two planted
methods, whose answers are right or wrong with a probability that adds up

    how hard the family is (for both), a family effect, a seed effect and a family-by-seed effect of each method

so that the truth is known. *Covers* and *share* are the coverage of the 95% intervals of the difference and of
one method's share, where the methods do not differ; *alarms* is how often that difference is called one. *Power*
is how often a true difference of `GAP` is.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pytest

from eval.stats import Floats, Layout, difference_parts, se_and_t, share_bounds

GAP = 0.15
QUESTIONS = 6  # a family


@dataclass(frozen=True)
class Effects:
    """Standard deviations, as shares of right answers. Those of methods: of the difference of the two."""

    hard: float = 0.15
    family: float = 0.2
    seed: float = 0.05
    both: float = 0.1  # family by seed


@dataclass(frozen=True)
class Cell:
    design: str  # one seed, crossed (every seed has all families), nested (each seed has its own)
    num_families: int  # a seed
    num_seeds: int
    effects: Effects = Effects()

    @property
    def num_trials(self) -> int:
        return max(1000, min(3000, 800_000 // (self.num_families * self.num_seeds * QUESTIONS)))

    def layout(self) -> Layout:
        shape = (self.num_seeds, self.num_families, QUESTIONS)
        seeds, families, questions = (axis.ravel() for axis in np.indices(shape))
        if self.design == "nested":
            families = families + seeds * self.num_families
        return Layout(families, seeds, families * QUESTIONS + questions)

    def draw(self, rng: np.random.Generator, gap: float) -> tuple[Floats, Floats]:
        """Right or wrong of two methods. -> (trials, n) each"""
        trials, families, seeds, effects = self.num_trials, self.num_families, self.num_seeds, self.effects
        shared = (trials, seeds if self.design == "nested" else 1, families, 1)
        hard = rng.normal(0, effects.hard, shared)

        def method(mean: float) -> Floats:
            right = mean + hard + rng.normal(0, effects.family / math.sqrt(2), shared)
            if seeds > 1:  # with one, the interval is about that seed
                right = right + rng.normal(0, effects.seed / math.sqrt(2), (trials, seeds, 1, 1))
                right = right + rng.normal(0, effects.both / math.sqrt(2), (trials, seeds, families, 1))
            answers: Floats = (rng.random((trials, seeds, families, QUESTIONS)) < right).astype(np.float64)
            return answers.reshape(trials, -1)

        return method(0.5 + gap / 2), method(0.5 - gap / 2)


@dataclass(frozen=True)
class Found:
    """Shares of the trials."""

    covers: float
    share: float
    power: float

    @property
    def alarms(self) -> float:
        return 1 - self.covers


@lru_cache
def measure(cell: Cell) -> Found:
    rng, layout = np.random.default_rng(cell.num_families * 100 + cell.num_seeds), cell.layout()

    def seen(gap: float) -> tuple[float, float]:
        arm, reference = cell.draw(rng, gap)
        differences = arm - reference
        se, quantile = se_and_t(difference_parts(differences, layout))
        low, high = share_bounds(arm, layout)
        return (
            float(np.mean(np.abs(differences.mean(axis=1)) > se * quantile)),
            float(np.mean((low <= 0.5) & (high >= 0.5))),
        )

    alarms, share = seen(0.0)
    return Found(1 - alarms, share, seen(GAP)[0])


SIZES = (6, 12, 18, 44, 132)
CELLS = [Cell("one seed", size, 1) for size in SIZES] + [
    Cell(design, size, seeds)
    for design in ("nested", "crossed")
    for size in SIZES
    for seeds in (2, 3, 5, 10)
    if size * seeds <= 440
]
HARD_CELLS = [  # one effect alone, where a sum of parts is easily too small or too large
    Cell(design, size, seeds, effects)
    for design in ("nested", "crossed")
    for size in (6, 18)
    for seeds in (3, 5)
    for effects in (Effects(0, 0, 0, 0), Effects(0, 0.3, 0, 0), Effects(0, 0, 0.15, 0), Effects(0.1, 0, 0, 0.3))
]


def noise(num_trials: int) -> float:
    """Three standard errors of a share of 0.95 over so many trials."""
    return 3 * math.sqrt(0.95 * 0.05 / num_trials)


@pytest.mark.parametrize("cells", [CELLS, HARD_CELLS], ids=["sizes", "one effect alone"])
def test_intervals_cover_and_alarms_are_rare(cells: list[Cell]) -> None:
    """At least 0.94 covered, so alarms of at most 0.06, and 0.05 on the average of all cells."""
    found = {cell: measure(cell) for cell in cells}
    for cell, shares in found.items():
        assert shares.covers >= 0.94 - noise(cell.num_trials), cell
        assert shares.share >= 0.94 - noise(cell.num_trials), cell
    assert np.mean([shares.alarms for shares in found.values()]) <= 0.05


def test_intervals_are_no_wider_than_they_must_be() -> None:
    """At most 0.96 covered; 0.975 over few crossed seeds, whose two parts can hardly be told apart."""
    for cell in CELLS:
        most = 0.975 if cell.design == "crossed" and cell.num_seeds <= 5 else 0.96
        assert measure(cell).covers <= most + noise(cell.num_trials), cell


def test_more_families_see_more() -> None:
    powers = [measure(Cell("one seed", size, 1)).power for size in SIZES]
    assert powers == sorted(powers) and powers[0] > 0.1 and powers[-1] > 0.99


@pytest.mark.parametrize("alike", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("num_families", [6, 18, 44])
def test_rare_failures_raise_no_alarms(num_families: int, alike: float) -> None:
    """Two methods that fail on 2 to 10 answers in 100, which families share or do not (their correlation)."""
    rng, layout, trials = np.random.default_rng(0), Cell("one seed", num_families, 1).layout(), 1000
    for share in (0.02, 0.05, 0.1):

        def failures(share: float = share) -> Floats:
            rate = np.full((trials, num_families, 1), share)
            if alike:
                scale = (1 - alike) / alike
                rate = rng.beta(share * scale, (1 - share) * scale, rate.shape)
            return (rng.random((trials, num_families, QUESTIONS)) < rate).astype(np.float64).reshape(trials, -1)

        differences = failures() - failures()
        se, quantile = se_and_t(difference_parts(differences, layout))
        assert np.mean(np.abs(differences.mean(axis=1)) > se * quantile) <= 0.05 + noise(trials)


@pytest.mark.parametrize("sizes", [[15] * 6 + [1] * 20, [3, 3, 3, 3, 4, 5, 6, 7, 9, 12, 15, 24]], ids=str)
@pytest.mark.parametrize("effect", [0.0, 0.3])
def test_families_of_unlike_sizes_are_covered(sizes: list[int], effect: float) -> None:
    """Six families of clauses beside twenty questions that no clause answers, say."""
    rng, trials, clusters = np.random.default_rng(1), 3000, np.repeat(range(len(sizes)), sizes)
    layout = Layout(clusters, np.zeros_like(clusters), np.arange(len(clusters)))
    share = np.clip(0.5 + rng.normal(0, effect, (trials, len(sizes)))[:, clusters] / 2, 0, 1)
    differences = (rng.random(share.shape) < share).astype(np.float64) - (rng.random(share.shape) < 1 - share)
    se, quantile = se_and_t(difference_parts(differences, layout))
    covers = np.mean(np.abs(differences.mean(axis=1)) <= se * quantile)
    assert 0.94 - noise(trials) <= covers <= 0.97 + noise(trials)


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_intervals_about_this_rulebook_cover_its_own_share(num_seeds: int) -> None:
    """The same families every time, all of them drawn; questions and seeds are new each time."""
    rng, cell = np.random.default_rng(3), Cell("crossed", 12, num_seeds)
    layout, trials = cell.layout(), 3000
    of_family = rng.normal(0, 0.25, (1, 1, 12, 1))
    of_question = rng.normal(0, 0.1, (trials, 1, 12, QUESTIONS))
    of_seed = rng.normal(0, 0.05 if num_seeds > 1 else 0.0, (trials, num_seeds, 1, 1))
    right = np.clip(0.5 + of_family + of_question + of_seed, 0, 1)
    truth = float(right.mean())
    answers = (rng.random(right.shape) < right).astype(np.float64).reshape(trials, -1)
    low, high = share_bounds(answers, layout, fraction=1.0)
    assert np.mean((low <= truth) & (truth <= high)) >= 0.94 - noise(trials)
    halves = {f: np.prod(se_and_t(difference_parts(answers, layout, f)), axis=0) for f in (0.0, 1.0)}
    covers = float(np.mean(np.abs(answers.mean(axis=1) - truth) <= halves[1.0]))
    assert 0.94 - noise(trials) <= covers <= 0.97
    assert halves[1.0].mean() < 0.8 * halves[0.0].mean()  # narrower than about rulebooks like it


if __name__ == "__main__":
    header = ("design", "families a seed", "seeds", "covers", "alarms", "share", f"power at {GAP}")
    lines = [header, ("---",) * len(header)]
    for cell in [*CELLS, *HARD_CELLS]:
        shares, of = measure(cell), cell.effects
        only = "" if cell in CELLS else f" (effects {of.hard}, {of.family}, {of.seed}, {of.both})"
        figures = (shares.covers, shares.alarms, shares.share, shares.power)
        lines.append(
            (cell.design + only, str(cell.num_families), str(cell.num_seeds), *(f"{x:.3f}" for x in figures))
        )
    sys.stdout.write("".join(f"| {' | '.join(line)} |\n" for line in lines))
