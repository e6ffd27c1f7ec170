"""How much may be claimed at each look, where slices are added until the data decide.

Letters: S slices seen, K slices planned at most, t = S / K. A slice is a seed's families, fits and answers.

Whoever looks after every slice and stops once an interval leaves zero out is wrong more often than 1 time in
20. So the looks are planned beforehand, one after every slice from `FIRST_LOOK` to K, and the 5% are spent over
them (Lan and DeMets 1983, doi:10.1093/biomet/70.3.659): until a share t of the plan is done, `ALPHA` t^`RHO` of
them (Kim and DeMets 1987, doi:10.1093/biomet/74.1.149), divided by `OF_T` (below). `levels` gives the two-sided
level at each look, for sums of independent slices; where slices share families their sums are more alike, and
the error is smaller. Each level is taken of Student's t with the degrees of freedom that the data have at that
look (Jennison and Turnbull 2000, Group Sequential Methods, section 4.4). The variance is estimated anew at each
look, so looks are less alike than such sums: they err 1.00 to 1.22 times as often as was spent, over 5 to 24
slices, which `OF_T` makes up for. The intervals at these levels hold over all looks together: repeated
confidence intervals (Jennison and Turnbull 1989, doi:10.1111/j.2517-6161.1989.tb01763.x). Contrasts share the
5% evenly, so they hold over all contrasts as well. To stop earlier, for want of time, costs nothing.

Simulated in tests/eval/test_decided.py: error over all looks and contrasts, power, slices taken.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

ALPHA = 0.05
RHO = 3.0  # of the spending: little at first, where few slices could decide nothing anyway
OF_T = 1.2  # times what is spent: by which looks with an estimated variance err, at most
FIRST_LOOK = 4  # slices: fewer have too few degrees of freedom to tell methods apart
NODES = 128  # of the integral over the sums that have not ended


def spent(t: float, alpha: float) -> float:
    """The error that may have been made once a share t of the plan is done, by sums of known variance."""
    return alpha / OF_T * min(t, 1.0) ** RHO


@lru_cache
def levels(most: int, alpha: float = ALPHA) -> dict[int, float]:
    """Slices seen -> two-sided level of the look at so many, for at most `most` slices.

    Under no difference the chance of |Z| beyond its bound at some look is alpha / `OF_T`. The density of sums
    that have not ended is carried from look to look (Armitage, McPherson and Rowe 1969, doi:10.2307/2343787).
    """
    found: dict[int, float] = {}
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    sums = density = np.zeros(0)  # nodes between the last bounds, and the density there times their weights
    before = 0
    for seen in range(FIRST_LOOK, most + 1):
        to_spend = spent(seen / most, alpha) - (spent(before / most, alpha) if before else 0.0)
        sd = np.sqrt((seen - before) / most)
        if not before:
            bound = -float(ndtri(to_spend / 2)) * sd
        else:

            def ends(bound: float) -> float:
                outside = ndtr((sums - bound) / sd) + ndtr((-bound - sums) / sd)  # noqa: B023
                return float(np.sum(density * outside))  # noqa: B023

            bound = brentq(lambda b: ends(b) - to_spend, 0.0, 12.0)  # noqa: B023
        found[seen] = 2 * float(ndtr(-bound / np.sqrt(seen / most)))
        ahead = bound * nodes
        apart = (ahead[:, None] - (sums if before else np.zeros(1))) / sd
        steps = np.exp(-(apart**2) / 2) / (sd * np.sqrt(2 * np.pi))
        density = steps @ (density if before else np.ones(1)) * weights * bound
        sums, before = ahead, seen
    return found
