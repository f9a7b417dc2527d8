"""95% intervals of metrics, each by a method that covers for few images and for scores near 1.

    shares (accuracy, recall, precision, ...)  Clopper and Pearson (1934): exact, from the beta
    AUC                                        DeLong's variance (1988) on the logit scale (Pepe
                                               2003, section 5.2); for few images of a class no less
                                               than Hanley and McNeil's (1982), and at 1.0 the exact
                                               bound of as many pairs
    F1, kappa, geometric mean, averages        Dirichlet draws of the confusion matrix with a
                                               pseudo-count on the errors for the lower end and on
                                               the hits for the upper one, as in Clopper-Pearson
    log loss                                   BCa bootstrap (Efron 1987)
    mean probability                           Student's t, within [0, 1]

Where images belong to patients or slides, these are what is drawn: the number of images is divided
by the design effect, the variance between groups over that between images (Korn and Graubard 1998).
benchmarks/intervals.py measures the coverage of all of them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Interval = tuple[float, float]

SHARE = "Clopper-Pearson"
AREA = "logit DeLong"
MATRIX = "Dirichlet draws of the confusion matrix"
LOSS = "BCa bootstrap"
MEAN = "Student's t"
NORMAL = NormalDist()
FEW = 25  # images of a class up to which DeLong's variance alone is too small


# ---------------------------------------------------------------- groups of images


class Groups:
    """Which images belong together. codes: (N,) integers; each image its own group if None."""

    def __init__(self, groups: npt.ArrayLike | None, n: int):
        self.known = groups is not None
        if groups is None:
            self.codes = np.arange(n)
        else:
            self.codes = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(n)
        self.count = int(self.codes.max()) + 1 if n else 0
        self.single = self.count == n

    def among(self, images: npt.NDArray[np.bool_]) -> int:
        """How many groups have an image among these (N,)."""
        return len(np.unique(self.codes[images]))

    def variance(self, influence: Floats) -> float:
        """Of an estimate with these influences (N,), of sum 0: groups are drawn as a whole."""
        sums = np.bincount(self.codes, influence, self.count)
        used = len(np.unique(self.codes[influence != 0]))
        return float(sums @ sums) * used / max(used - 1, 1)

    def effect(self, influence: Floats, images: npt.NDArray[np.bool_] | None = None) -> float:
        """The design effect, 1 or more: by how much groups make n images count for less.

        images: (N,), those that the estimate is of; all if None. Where no influence is left, as of
        a perfect score, nothing tells how alike images of a group are, and a group counts as one.
        """
        if self.single:
            return 1.0
        n = len(influence) if images is None else int(images.sum())
        count = self.count if images is None else self.among(images)
        plain = float(influence @ influence)
        if plain < 1e-18:
            return n / max(count, 1)
        if count < 2:  # all images of one group count as one, whatever cancels within it
            return float(n)
        # Few groups tell their own variance badly.
        few = (_t(count - 1) / _t(None)) ** 2
        return min(max(self.variance(influence) / plain * few, 1.0), n / 1.0)


def _t(freedom: int | None) -> float:
    """The 97.5% quantile of Student's t; None: of the normal distribution."""
    if freedom is None:
        return NORMAL.inv_cdf(0.975)
    from scipy import special  # half a second that `medexp --help` does not owe

    return float(special.stdtrit(freedom, 0.975))


# ---------------------------------------------------------------- shares


def share_interval(hits: float, n: float) -> Interval:
    """Clopper-Pearson of a share hits / n; of effective numbers, which need not be whole."""
    from scipy.special import betaincinv

    if n <= 0:
        return 0.0, 1.0
    low = 0.0 if hits <= 0 else float(betaincinv(hits, n - hits + 1, 0.025))
    high = 1.0 if hits >= n else float(betaincinv(hits + 1, n - hits, 0.975))
    return low, high


def grouped_share(
    hit: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_], groups: Groups
) -> Interval:
    """Of the share of images (N,) that are hit, among those that count."""
    n = int(among.sum())
    if not n:
        return 0.0, 1.0
    share = float(hit[among].mean())
    effect = groups.effect(np.where(among, hit - share, 0.0) / n, among)
    return share_interval(share * n / effect, n / effect)


# ---------------------------------------------------------------- areas under ROC curves


class Area(NamedTuple):
    """An area under a ROC curve. influence: (N,) of each image on it; floor: Hanley and McNeil's
    variance; least: images of the rarer class, or groups that have one."""

    value: float
    influence: Floats
    floor: float
    least: int


def area_of(positive: npt.NDArray[np.bool_], scores: Floats, groups: Groups) -> Area | None:
    """None without positives or without negatives."""
    from medexp.score.comparisons import placements

    m, n = int(positive.sum()), int((~positive).sum())
    if not m or not n:
        return None
    below, above = placements(positive, scores)
    a = float(below.sum()) / (m * n)
    influence = np.zeros(len(positive))
    # The factors make the sum of squares DeLong's variance, whose parts have n - 1 below them.
    influence[positive] = (below / n - a) / m * math.sqrt(m / max(m - 1, 1))
    influence[~positive] = (above / m - a) / n * math.sqrt(n / max(n - 1, 1))
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    floor = (a * (1 - a) + (m - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (m * n)
    least = min(groups.among(positive), groups.among(~positive))
    return Area(a, influence, max(floor, 0.0), least)


def area_interval(parts: Sequence[Area], weights: Sequence[float], groups: Groups) -> Interval:
    """Of the weighted mean of the areas of one or more classes (one-vs-rest)."""
    share = np.array(weights) / np.sum(weights)
    a = float(sum(w * part.value for w, part in zip(share, parts, strict=True)))
    least = min(part.least for part in parts)
    if a >= 1 or a <= 0:  # disjoint pairs of a positive and a negative, all in order
        bound = 0.025 ** (1 / least)
        return (bound, 1.0) if a >= 1 else (0.0, 1 - bound)
    influence = np.sum([w * part.influence for w, part in zip(share, parts, strict=True)], axis=0)
    plain = float(influence @ influence)
    alone = sum(float(part.influence @ part.influence) for part in parts)
    floor = sum(part.floor for part in parts) * (plain / alone if alone > 0 else 1 / len(parts))
    trust = min(1.0, FEW / least)
    variance = max(plain, (1 - trust) * plain + trust * floor)
    if not groups.single:
        variance = max(
            variance, groups.variance(influence) * (_t(max(least - 1, 1)) / _t(None)) ** 2
        )
    half = _t(None) * math.sqrt(variance) / (a * (1 - a))
    logit = math.log(a / (1 - a))
    return _sigmoid(logit - half), _sigmoid(logit + half)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


# ---------------------------------------------------------------- what the confusion matrix decides

Scores = Callable[[Floats], Mapping[str, Floats]]


def matrix_intervals(
    y: Ints,
    predicted: Ints,
    classes: int,
    scores: Scores,
    groups: Groups,
    *,
    draws: int,
    seed: int,
) -> dict[str, Interval | None]:
    """Of scores that follow from the confusion matrix; None where one is undefined.

    scores: matrices (R, C, C), rows actual -> key -> (R,).
    """
    counts = np.zeros((classes, classes))
    np.add.at(counts, (y, predicted), 1)
    point = {key: float(values[0]) for key, values in scores(counts[None]).items()}
    effects = _effects(y, predicted, counts, scores, groups)
    # Pseudo-counts by the root of a class's share: by the share itself a mean over the classes
    # covers too little, with one for each class it is needlessly wide.
    root = np.sqrt(counts.sum(axis=1) / len(y))
    weight = (math.sqrt(classes) * root / root.sum())[:, None]
    hits = np.eye(classes)
    pseudo = (weight * (1 - hits) / (classes - 1), weight * hits)
    drawn: dict[tuple[int, float], Mapping[str, Floats]] = {}
    found: dict[str, Interval | None] = {}
    for key, value in point.items():
        if math.isnan(value):
            found[key] = None
            continue
        ends = []
        for side, level in ((0, 2.5), (1, 97.5)):
            place = (side, effects[key])
            if place not in drawn:
                rng = np.random.default_rng(seed)
                shape = np.maximum(counts / effects[key] + pseudo[side], 1e-9)
                drawn[place] = scores(rng.gamma(shape, size=(draws, classes, classes)))
            values = drawn[place][key]
            ends.append(float(np.percentile(values[~np.isnan(values)], level)))
        found[key] = (min(ends[0], value), max(ends[1], value))
    return found


def _effects(
    y: Ints, predicted: Ints, counts: Floats, scores: Scores, groups: Groups
) -> dict[str, float]:
    """Key -> design effect, from what one more image in each cell of the matrix changes."""
    keys = list(scores(counts[None]))
    if groups.single:
        return dict.fromkeys(keys, 1.0)
    cells = np.flatnonzero(counts.ravel())
    step = np.zeros((len(cells), counts.size))
    step[np.arange(len(cells)), cells] = 1e-3
    up, down = (
        scores(np.clip(counts.ravel() + s * step, 1e-12, None).reshape(-1, *counts.shape))
        for s in (1, -1)
    )
    place = np.zeros(counts.size, np.int64)
    place[cells] = np.arange(len(cells))
    own = place[y * len(counts) + predicted]
    effects = {}
    for key in keys:
        slope = np.nan_to_num((up[key] - down[key]) / 2e-3)
        effects[key] = round(groups.effect(slope[own]), 3)  # equal ones share their draws
    return effects


# ---------------------------------------------------------------- means


def loss_interval(losses: Floats, groups: Groups, *, draws: int, seed: int) -> Interval | None:
    """BCa of the mean of losses (N,), groups drawn as a whole; None where all losses are equal."""
    sums = np.bincount(groups.codes, losses, groups.count)
    sizes = np.bincount(groups.codes, minlength=groups.count).astype(np.float64)
    mean, n = float(losses.mean()), groups.count
    influence = sums - mean * sizes
    if n < 2 or not np.any(np.abs(influence) > 1e-12):
        return None
    rng = np.random.default_rng(seed)
    means = []
    block = max(1, 1_000_000 // n)  # 8 MB at a time
    for size in [min(block, draws - start) for start in range(0, draws, block)]:
        picked = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        weights = np.bincount(picked.ravel(), minlength=size * n).reshape(size, n)
        means.append((weights @ sums) / (weights @ sizes))
    drawn = np.sort(np.concatenate(means))
    below = (float((drawn < mean).mean()) + float((drawn <= mean).mean())) / 2
    bias = float(NORMAL.inv_cdf(min(max(below, 1 / (draws + 1)), draws / (draws + 1))))
    skew = float((influence**3).sum() / (6 * (influence**2).sum() ** 1.5))
    ends = []
    for z in (-_t(None), _t(None)):
        level = NORMAL.cdf(bias + (bias + z) / (1 - skew * (bias + z)))
        ends.append(float(np.percentile(drawn, 100 * level)))
    return ends[0], ends[1]


def mean_interval(values: Floats, groups: Groups) -> Interval | None:
    """Student's t of the mean of values (N,) in [0, 1]; None where it has no spread."""
    mean = float(values.mean())
    variance = groups.variance((values - mean) / len(values))
    if groups.count < 2 or variance < 1e-24:
        return None
    half = _t(groups.count - 1) * math.sqrt(variance)
    return max(0.0, mean - half), min(1.0, mean + half)


class Mean(NamedTuple):
    """A mean of n values, their standard deviation, and the ends of a 95% interval if known."""

    n: int
    value: float
    sd: float
    interval: Interval | None


def mean_of(
    values: Sequence[float],
    overlap: float | None = 0.0,
    bounds: tuple[float | None, float | None] = (None, None),
) -> Mean:
    """Mean, standard deviation (ddof = 1) and 95% t interval of two or more values.

    overlap: n_test / n_train where the values are of folds (Nadeau & Bengio 2003), 0 where they are
    independent, None where it is unknown and so is the interval. bounds: what the metric cannot
    pass; the interval ends there. Values that are all equal tell nothing of their spread: None.
    """
    n, mean, sd = len(values), float(np.mean(values)), float(np.std(values, ddof=1))
    if overlap is None or sd < 1e-12:
        return Mean(n, mean, sd, None)
    half = _t(n - 1) * sd * math.sqrt(1 / n + overlap)
    low, high = mean - half, mean + half
    if bounds[0] is not None:
        low = max(low, bounds[0])
    if bounds[1] is not None:
        high = min(high, bounds[1])
    return Mean(n, mean, sd, (low, high))
