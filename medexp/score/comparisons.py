"""Statistics between models that were scored on the same images.

Areas under two ROC curves by DeLong, DeLong and Clarke-Pearson (1988), "Comparing the areas under
two or more correlated receiver operating characteristic curves", Biometrics 44, in the fast form of
Sun and Xu (2014), IEEE Signal Processing Letters 21. Shares of right predictions by McNemar's
(1947) exact test. Several pairs by Holm (1979), Scandinavian Journal of Statistics 6.

Where images belong to patients or slides, these are what is drawn: the error of a difference of
areas is that between groups (Obuchowski 1997, Biometrics 53), and McNemar's test becomes that of
Durkalski et al. (2003), Statistics in Medicine 22. Without groups images count as independent. All
are of the trained networks at hand, not of their training: another seed may differ more.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from medexp.errors import MedexpError
from medexp.score.intervals import Groups

Floats = npt.NDArray[np.float64]


class Areas(NamedTuple):
    """Areas under two ROC curves and their difference a - b; None where undefined.

    p is two-sided, of the normal z; interval the 95% one of the difference.
    """

    a: float | None = None
    b: float | None = None
    difference: float | None = None
    standard_error: float | None = None
    z: float | None = None
    p: float | None = None
    interval: tuple[float, float] | None = None


class Agreement(NamedTuple):
    """Images that both models predict rightly, only one of them, or neither; p of McNemar."""

    both: int
    only_a: int
    only_b: int
    neither: int
    p: float


def delong(
    labels: npt.ArrayLike,
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
) -> Areas:
    """Compare the areas of two scores of the same images; higher scores mean the positive class.

    labels: (N,), 1 or True where positive; a, b: (N,). groups: (N,), the patient or slide of each.

    Undefined are the areas without positives or without negatives; the standard error with only one
    of either; z and the interval where the estimated error is 0, as it is of two curves that are
    the same or both perfect. Of such p is 1 if the areas are equal, else undefined.

    Raises:
        MedexpError: the three are not of one length.
    """
    positive, first, second = np.asarray(labels, bool), *(np.asarray(s, float) for s in (a, b))
    if not positive.shape == first.shape == second.shape == (positive.size,):
        raise MedexpError(
            f"labels have shape {positive.shape}, scores {first.shape} and {second.shape};"
            " expected (N,) of each"
        )
    m, n = int(positive.sum()), int((~positive).sum())
    if not m or not n:
        return Areas()
    (below_a, above_a), (below_b, above_b) = (placements(positive, s) for s in (first, second))
    area_a, area_b = (float(below.sum()) / (m * n) for below in (below_a, below_b))
    difference = float((below_a - below_b).sum()) / (m * n)
    if min(m, n) < 2:
        return Areas(area_a, area_b, difference)
    # Differences of counts are whole halves: equal curves have a variance of exactly 0.
    error = math.sqrt(
        float(np.var(below_a - below_b, ddof=1)) / m / n**2
        + float(np.var(above_a - above_b, ddof=1)) / n / m**2
    )
    together = Groups(groups, len(positive))
    if not together.single:
        influence = np.zeros(len(positive))
        influence[positive] = (below_a - below_b) / (m * n) - difference / m
        influence[~positive] = (above_a - above_b) / (m * n) - difference / n
        error = math.sqrt(together.variance(influence))
    if error == 0:
        return Areas(area_a, area_b, difference, error, p=None if difference else 1.0)
    z, half = difference / error, NormalDist().inv_cdf(0.975) * error
    p = math.erfc(abs(z) / math.sqrt(2))
    return Areas(area_a, area_b, difference, error, z, p, (difference - half, difference + half))


def placements(positive: npt.NDArray[np.bool_], values: Floats) -> tuple[Floats, Floats]:
    """For each positive the negatives below it (m,), for each negative the positives above (n,).

    Ties count as a half. An image's rank among all less that in its own class is the number of the
    other class below it.
    """
    from scipy.stats import rankdata  # half a second that `medexp --help` does not owe

    ranks = rankdata(values)
    below = ranks[positive] - rankdata(values[positive])
    above = positive.sum() - (ranks[~positive] - rankdata(values[~positive]))
    return below, above


def mcnemar(
    labels: npt.ArrayLike,
    predicted_a: npt.ArrayLike,
    predicted_b: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
) -> Agreement:
    """Compare two models' predicted classes (N,) of the same images with labels (N,).

    p: two-sided, of the exact binomial distribution of the images on which one alone is right; 1
    where there are none. groups: (N,), the patient or slide of each; p is then of the normal
    distribution of the differences within them.
    """
    truth = np.asarray(labels)
    a, b = np.asarray(predicted_a) == truth, np.asarray(predicted_b) == truth
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    together = Groups(groups, len(truth))
    if together.single:
        p = _sign_test(only_a, only_b)
    else:
        within = np.bincount(together.codes, a.astype(float) - b, together.count)
        spread = float(within @ within)
        p = math.erfc(abs(float(within.sum())) / math.sqrt(2 * spread)) if spread else 1.0
    return Agreement(int((a & b).sum()), only_a, only_b, int((~a & ~b).sum()), p)


def _sign_test(one: int, other: int) -> float:
    from scipy.stats import binom

    return min(1.0, 2 * float(binom.cdf(min(one, other), one + other, 0.5)))


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted for one another, in their order; None, which is no test, stays None."""
    known = sorted((p, i) for i, p in enumerate(values) if p is not None)
    adjusted: list[float | None] = [None] * len(values)
    largest = 0.0
    for place, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - place) * p))
        adjusted[i] = largest
    return adjusted
