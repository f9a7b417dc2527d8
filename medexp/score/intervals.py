"""The mean of repeats and its interval, over seeds or over folds."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Mean(NamedTuple):
    """A mean of n values, their standard deviation, and the ends of a 95% interval if known."""

    n: int
    value: float
    sd: float
    interval: tuple[float, float] | None


def mean_of(values: Sequence[float], overlap: float | None = 0.0) -> Mean:
    """Mean, standard deviation (ddof = 1) and 95% t interval of two or more values.

    overlap: n_test / n_train where the values are of folds (Nadeau & Bengio 2003), 0 where they are
    independent, None where it is unknown and so is the interval. The interval is symmetric and may
    reach beyond what a metric can be.
    """
    from scipy import stats  # half a second that `medexp --help` does not owe

    n, mean, sd = len(values), float(np.mean(values)), float(np.std(values, ddof=1))
    if overlap is None:
        return Mean(n, mean, sd, None)
    half = float(stats.t.ppf(0.975, n - 1)) * sd * math.sqrt(1 / n + overlap)
    return Mean(n, mean, sd, (mean - half, mean + half))
