"""Statistics between models that were scored on the same images.

Areas under two ROC curves by DeLong, DeLong and Clarke-Pearson (1988), "Comparing the areas under
two or more correlated receiver operating characteristic curves", Biometrics 44, in the fast form of
Sun and Xu (2014), IEEE Signal Processing Letters 21. Shares of right predictions by McNemar's
(1947) exact test. Several pairs by Holm (1979), Scandinavian Journal of Statistics 6.

All take images as independent: where several are of one patient or slide, p-values are too small
and intervals too narrow. They are of the trained networks at hand, not of their training: another
seed may differ more.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medexp.errors import MedexpError
from medexp.report.table.entries import run_labels, run_names
from medexp.report.table.load import Predictions, Run, read_predictions
from medexp.report.table.repeats import Repeats, arranged, find_repeats, scores
from medexp.report.table.sweeps import leading
from medexp.score.metrics import predict

NOTES = (
    "Difference of AUC: DeLong et al. (1988), with a 95% interval; of accuracy: McNemar's exact"
    " test. Both take images as independent, and say nothing of the chance in training.",
    "p (Holm): adjusted for all pairs here, each test by itself (Holm 1979).",
    "Where runs differ in seed or fold alone, the first of them is compared; of more than 12 runs"
    " of a data set, the 12 best by validation.",
)

_STATISTICS = (
    "images", "auc_a", "auc_b", "auc_difference", "auc_low", "auc_high", "auc_p", "auc_p_holm",
    "accuracy_a", "accuracy_b", "accuracy_difference", "both_right", "only_a_right",
    "only_b_right", "both_wrong", "mcnemar_p", "mcnemar_p_holm",
)  # fmt: skip

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


def delong(labels: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike) -> Areas:
    """Compare the areas of two scores of the same images; higher scores mean the positive class.

    labels: (N,), 1 or True where positive; a, b: (N,).

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
    (below_a, above_a), (below_b, above_b) = (_placements(positive, s) for s in (first, second))
    area_a, area_b = (float(below.sum()) / (m * n) for below in (below_a, below_b))
    difference = float((below_a - below_b).sum()) / (m * n)
    if min(m, n) < 2:
        return Areas(area_a, area_b, difference)
    # Differences of counts are whole halves: equal curves have a variance of exactly 0.
    error = math.sqrt(
        float(np.var(below_a - below_b, ddof=1)) / m / n**2
        + float(np.var(above_a - above_b, ddof=1)) / n / m**2
    )
    if error == 0:
        return Areas(area_a, area_b, difference, error, p=None if difference else 1.0)
    z, half = difference / error, NormalDist().inv_cdf(0.975) * error
    p = math.erfc(abs(z) / math.sqrt(2))
    return Areas(area_a, area_b, difference, error, z, p, (difference - half, difference + half))


def _placements(positive: npt.NDArray[np.bool_], values: Floats) -> tuple[Floats, Floats]:
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
    labels: npt.ArrayLike, predicted_a: npt.ArrayLike, predicted_b: npt.ArrayLike
) -> Agreement:
    """Compare two models' predicted classes (N,) of the same images with labels (N,).

    p: two-sided, of the exact binomial distribution of the images on which one alone is right; 1
    where there are none.
    """
    truth = np.asarray(labels)
    a, b = np.asarray(predicted_a) == truth, np.asarray(predicted_b) == truth
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    return Agreement(
        int((a & b).sum()), only_a, only_b, int((~a & ~b).sum()), _sign_test(only_a, only_b)
    )


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


# ---------------------------------------------------------------- runs


def compare_runs(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Every pair of scored runs of one data set, as a flat JSON-ready mapping; NOTES explain it.

    Of runs that differ in seed or fold alone the first scored one is compared, and of more than 12
    of a data set the 12 best by validation (`sweeps.leading`). A pair that was not scored on the
    same images has a `reason`, and no statistic; of more than two classes the AUC is not compared.
    Runs of different data sets are no pair.
    """
    groups = find_repeats(runs)
    labels = run_labels(runs, groups)
    names = run_names(runs, labels)
    by_dataset: dict[str, list[Run]] = {}
    for one in arranged(runs, groups):
        run = one.scored[0] if isinstance(one, Repeats) else one
        if scores(run):
            by_dataset.setdefault(run.dataset, []).append(run)
    pairs = []
    for found in by_dataset.values():
        kept, _ = leading(found)
        read = {run.path: _predictions(run) for run in kept}
        pairs += [_pair(a, b, names, read[a.path], read[b.path]) for a, b in combinations(kept, 2)]
    for key in ("auc_p", "mcnemar_p"):
        for pair, p in zip(pairs, holm([pair[key] for pair in pairs]), strict=True):
            pair[f"{key}_holm"] = p
    return pairs


def _predictions(run: Run) -> Predictions | None:
    path = run.path / "predictions.csv"
    return read_predictions(path).get(run.split) if path.is_file() else None


def _pair(
    a: Run,
    b: Run,
    names: Mapping[Path, str],
    read_a: Predictions | None,
    read_b: Predictions | None,
) -> dict[str, Any]:
    reason = _reason(a, b, read_a, read_b)
    facts: dict[str, Any] = {
        "dataset": a.dataset,
        "split": a.split,
        "a": names[a.path],
        "b": names[b.path],
        "marks_a": ", ".join(a.marks),
        "marks_b": ", ".join(b.marks),
    }
    if read_a is None or read_b is None or reason:
        return facts | dict.fromkeys(_STATISTICS) | {"reason": reason}
    # The same images may stand in another order.
    place = {name: i for i, name in enumerate(read_b.ids)}
    labels, p = read_a.labels, read_a.probabilities
    q = read_b.probabilities[[place[name] for name in read_a.ids]]
    areas = delong(labels, p[:, 1], q[:, 1]) if p.shape[1] == 2 else Areas()
    table, count = mcnemar(labels, predict(p), predict(q)), len(labels)
    low, high = areas.interval or (None, None)
    found = {
        "images": count,
        "auc_a": areas.a,
        "auc_b": areas.b,
        "auc_difference": areas.difference,
        "auc_low": low,
        "auc_high": high,
        "auc_p": areas.p,
        "accuracy_a": (table.both + table.only_a) / count,
        "accuracy_b": (table.both + table.only_b) / count,
        "accuracy_difference": (table.only_a - table.only_b) / count,
        "both_right": table.both,
        "only_a_right": table.only_a,
        "only_b_right": table.only_b,
        "both_wrong": table.neither,
        "mcnemar_p": table.p,
    }
    return facts | {key: found.get(key) for key in _STATISTICS} | {"reason": None}


def _reason(a: Run, b: Run, read_a: Predictions | None, read_b: Predictions | None) -> str | None:
    """Why two runs cannot be compared; None if they can."""
    if a.split != b.split:
        return f"scored on different splits: {a.split} and {b.split}"
    if (a.metrics or {}).get("classes") != (b.metrics or {}).get("classes"):
        return "different classes"
    if read_a is None or read_b is None:
        return f"no predictions of the {a.split} split"
    ids_a, ids_b = set(read_a.ids), set(read_b.ids)
    if len(ids_a) < len(read_a.ids) or len(ids_b) < len(read_b.ids):
        return "images without an id of their own"
    if ids_a != ids_b:
        return (
            f"different images: {len(ids_a):,} and {len(ids_b):,}, {len(ids_a & ids_b):,} in both"
        )
    if dict(zip(*read_a[:2], strict=True)) != dict(zip(*read_b[:2], strict=True)):
        return "different labels of the same images"
    return None
