"""Metrics of a whole split: pure functions of labels (N,) and probabilities (N, C).

Point values come from scikit-learn. Confidence intervals are a percentile bootstrap over images
(Efron & Tibshirani 1993, ch. 13): each resample is a vector of integer weights, and all resamples
are scored at once from weighted confusion matrices, weighted ROC areas and weighted mean losses.

    key                  scikit-learn                         averaging
    accuracy             accuracy_score                       none
    kappa                cohen_kappa_score                    none
    log_loss             log_loss                             mean over the images
    geometric_mean       of recall_score's (average=None)     over the classes
    precision_*          precision_recall_fscore_support      _binary, _macro, _weighted
    recall_*, f1_*       precision_recall_fscore_support      _binary, _macro, _weighted
    specificity_*        multilabel_confusion_matrix          _binary, _macro, _weighted
    auc_*                roc_auc_score, one-vs-rest           _binary, _macro, _weighted

Conventions
- Prediction: two classes, class 1 iff p_1 > 0.5; more classes, argmax. A tie goes to the lowest
  class. With two classes everything but the log loss depends on p_1 alone.
- The averaging is in the key: `_binary` (of class 1; two classes only), `_macro` (plain mean over
  the classes), `_weighted` (mean weighted by the classes' numbers of images); AUC is one-vs-rest.
- Precision of a class that is never predicted is 0.0 (scikit-learn's zero_division=0). Recall, F1
  and AUC of a class without images are undefined, as are AUC and specificity where every image is
  of that class. Undefined is None, never NaN, and a macro average over it is None.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from medexp.errors import MedexpError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_RATES = ("precision", "recall", "f1", "specificity", "auc")
_SHARES = ("share", "mean_probability")
_SHORT = ("accuracy", "auc", "f1", "precision", "recall")
# Weights held at once: 8 MB of float64 stays in cache, and memory does not grow with N * resamples.
_CHUNK = 1_000_000


def score(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    classes: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Score one split; the result is JSON-ready (floats, ints, strings, lists, None).

    Args:
        labels: (N,) integers in [0, C).
        probabilities: (N, C) in [0, 1]; rows sum to 1 within 1e-6.
        classes: the C class names; of two, the second is the positive one.
        resamples: bootstrap resamples for `ci95`; 0 leaves the intervals out.
        seed: of the bootstrap; the same input and seed give the same intervals.

    Returns:
        `n`, `positive_class`, `accuracy`, `kappa`, `log_loss` (nats), `geometric_mean` (of the
        recalls), {precision, recall, f1, specificity, auc}_{binary, macro, weighted}, `per_class`
        (the same five, `support`, `share` of the images, `mean_probability` over all images),
        `confusion_matrix` (rows actual, columns predicted), `ci95` (key, or `per_class.CLASS.key`,
        -> [low, high] or None), `ci_method`, `ci_resamples`, `ci_seed`.

    Raises:
        MedexpError: shapes, labels or probabilities are not as above, or `resamples` < 0.
    """
    y, p = _checked(labels, probabilities, len(classes))
    if resamples < 0:
        raise MedexpError(f"resamples is {resamples}; give 0 (no intervals) or more")
    predicted = predict(p)
    scalars, per_class, confusion = _point(y, p, predicted)
    return {
        "n": len(y),
        "positive_class": classes[1] if len(classes) == 2 else None,
        **{key: _defined(value) for key, value in scalars.items()},
        "per_class": {
            name: {
                **{rate: _defined(per_class[rate][c]) for rate in (*_RATES, *_SHARES)},
                "support": int(confusion[c].sum()),
            }
            for c, name in enumerate(classes)
        },
        "confusion_matrix": confusion.tolist(),
        "ci95": _intervals(y, p, predicted, classes, resamples, seed) if resamples else {},
        "ci_method": (
            f"percentile bootstrap over images, {resamples} resamples, seed {seed}; images of one"
            " patient or slide count as independent, so intervals are too narrow where they are not"
            if resamples
            else "none"
        ),
        "ci_resamples": resamples,
        "ci_seed": seed,
    }


def quick(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> dict[str, float | None]:
    """The headline metrics of one split under their short names, for an epoch's history row.

    Takes what `score` takes and raises what it raises; about 50 ms for N = 32,768 and C = 2.
    """
    names = [str(c) for c in range(np.shape(probabilities)[-1])]
    scored = score(labels, probabilities, names, resamples=0)
    return {short: scored[key] for short, key in headline(names).items()}


def headline(classes: Sequence[str]) -> dict[str, str]:
    """Short name -> key of `score`: for two classes the `_binary` keys, else the `_macro` ones.

    The history's columns are `val_<short name>`, so `trainer.monitor=val_auc` means the same
    whatever the number of classes.
    """
    averaging = "binary" if len(classes) == 2 else "macro"
    return {short: short if short == "accuracy" else f"{short}_{averaging}" for short in _SHORT}


def direction(name: str) -> Literal["max", "min"]:
    """Whether a higher or a lower value of a metric or history column is the better one."""
    return "min" if name.endswith("loss") else "max"


def predict(probabilities: Floats) -> Ints:
    """Predicted classes (N,) int64 of probabilities (N, C), by the rule of the module docstring."""
    if probabilities.shape[1] == 2:
        return (probabilities[:, 1] > 0.5).astype(np.int64)
    predicted: Ints = probabilities.argmax(axis=1)
    return predicted


def _checked(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, num_classes: int
) -> tuple[Ints, Floats]:
    y, p = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if num_classes < 2:
        raise MedexpError(f"{num_classes} class name(s) given; a classification has two or more")
    if y.ndim != 1 or p.shape != (len(y), num_classes):
        raise MedexpError(
            f"labels have shape {y.shape} and probabilities {p.shape} for {num_classes} classes;"
            f" expected (N,) and (N, {num_classes})"
        )
    if len(y) == 0:
        raise MedexpError("no image to score: the split is empty")
    if not np.issubdtype(y.dtype, np.integer):
        raise MedexpError(f"labels have type {y.dtype}; expected integers")
    if wrong := np.flatnonzero((y < 0) | (y >= num_classes)).tolist():
        raise MedexpError(
            f"label {y[wrong[0]]} of image {wrong[0]} lies outside 0..{num_classes - 1}"
        )
    if wrong := np.flatnonzero(~np.isfinite(p).all(axis=1)).tolist():
        raise MedexpError(
            f"probabilities of image {wrong[0]} are {p[wrong[0]].tolist()} ({len(wrong)} of"
            f" {len(p)} images): the network diverged; lower optimizer.lr or switch AMP off"
        )
    if wrong := np.flatnonzero(((p < 0) | (p > 1)).any(axis=1)).tolist():
        raise MedexpError(
            f"probabilities of image {wrong[0]} are {p[wrong[0]].tolist()}, outside [0, 1]:"
            " pass the softmax of the logits"
        )
    if wrong := np.flatnonzero(np.abs(p.sum(axis=1) - 1) > 1e-6).tolist():
        raise MedexpError(
            f"probabilities of image {wrong[0]} sum to {p[wrong[0]].sum()!r}, not to 1 within 1e-6"
        )
    return y.astype(np.int64), p


def _point(
    y: Ints, p: Floats, predicted: Ints
) -> tuple[dict[str, Floats], dict[str, Floats], Ints]:
    """scikit-learn's values: scalars (0-d), per class (C,), confusion (C, C); NaN if undefined."""
    # Imported here: scikit-learn takes a second, which `medexp --help` and `report` do not owe.
    from sklearn import metrics as sk

    num_classes = p.shape[1]
    ids = np.arange(num_classes)
    confusion = np.asarray(sk.confusion_matrix(y, predicted, labels=ids), dtype=np.int64)
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        y, predicted, labels=ids, average=None, zero_division=0
    )
    recall, f1 = (np.where(support > 0, rate, np.nan) for rate in (recall, f1))
    true_negative, false_positive = sk.multilabel_confusion_matrix(y, predicted, labels=ids)[:, 0].T
    # Of two classes both follow p_1, so that there is one area.
    auc = [
        sk.roc_auc_score(y == c, p[:, c]) if 0 < support[c] < len(y) else np.nan
        for c in (ids if num_classes > 2 else ids[1:])
    ]
    per_class = {
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "specificity": _ratio(true_negative, true_negative + false_positive),
        "auc": np.array(auc if num_classes > 2 else 2 * auc),
        "share": support / len(y),
        "mean_probability": p.mean(axis=0),
    }
    # One class, and only that predicted: kappa is 0/0, which scikit-learn reports with a warning.
    agreed = confusion.diagonal().max() == len(y)
    scalars = {
        "accuracy": np.asarray(sk.accuracy_score(y, predicted)),
        "kappa": np.asarray(np.nan if agreed else sk.cohen_kappa_score(y, predicted, labels=ids)),
        "log_loss": np.asarray(sk.log_loss(y, _normalised(p), labels=ids)),
        "geometric_mean": _geometric_mean(recall),
        **_averages({rate: per_class[rate] for rate in _RATES}, support),
    }
    return scalars, per_class, confusion


def _intervals(
    y: Ints, p: Floats, predicted: Ints, classes: Sequence[str], resamples: int, seed: int
) -> dict[str, list[float] | None]:
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK // len(y))
    sizes = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    parts = [_weighted(y, p, predicted, _draw(rng, size, len(y))) for size in sizes]
    drawn = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    intervals = {key: _percentiles(values) for key, values in drawn.items() if values.ndim == 1}
    for c, name in enumerate(classes):
        for rate in (*_RATES, *_SHARES):
            intervals[f"per_class.{name}.{rate}"] = _percentiles(drawn[rate][:, c])
    return intervals


def value_at(scored: Mapping[str, Any], key: str) -> float | None:
    """A value of `score` by its key or, of a class, by `per_class.CLASS.key`; None if undefined."""
    first, _, rest = key.partition(".")
    if first != "per_class":
        return scored.get(key)
    name, _, rate = rest.rpartition(".")
    value: float | None = (scored.get("per_class") or {}).get(name, {}).get(rate)
    return value


def _draw(rng: np.random.Generator, size: int, n: int) -> Floats:
    """Weights (size, n): how often each image was drawn in n draws with replacement."""
    drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def _percentiles(values: Floats) -> list[float] | None:
    """95% interval over the resamples where the metric is defined; None if in fewer than half."""
    defined = values[~np.isnan(values)]
    if 2 * len(defined) < len(values):
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return [float(low), float(high)]


def _weighted(y: Ints, p: Floats, predicted: Ints, weights: Floats) -> dict[str, Floats]:
    """All scalar metrics (R,) and per class (R, C) under image weights (R, N); NaN: undefined.

    Equal to scikit-learn's with `sample_weight` (the tests hold each one against it).
    """
    num_classes = p.shape[1]
    total = weights.sum(axis=1)
    confusion = _confusions(y, predicted, num_classes, weights)
    hit = np.diagonal(confusion, axis1=1, axis2=2)
    support, called = confusion.sum(axis=2), confusion.sum(axis=1)
    outside = total[:, None] - support
    per_class = {
        "precision": np.nan_to_num(_ratio(hit, called)),
        "recall": _ratio(hit, support),
        "f1": np.where(support > 0, _ratio(2 * hit, support + called), np.nan),
        "specificity": _ratio(outside - (called - hit), outside),
        "auc": _roc_areas(y, p, weights),
    }
    accuracy = hit.sum(axis=1) / total
    chance = (support * called).sum(axis=1) / total**2
    return {
        "accuracy": accuracy,
        "kappa": _ratio(accuracy - chance, 1 - chance),
        "log_loss": weights @ _losses(y, p) / total,
        "geometric_mean": _geometric_mean(per_class["recall"]),
        **_averages(per_class, support),
        **per_class,
        "share": support / total[:, None],
        "mean_probability": weights @ p / total[:, None],
    }


def _confusions(y: Ints, predicted: Ints, num_classes: int, weights: Floats) -> Floats:
    """Confusion matrices (R, C, C), rows actual, under weights (R, N)."""
    cells = y * num_classes + predicted
    order = np.argsort(cells, kind="stable")
    occupied, starts = np.unique(cells[order], return_index=True)
    flat = np.zeros((len(weights), num_classes**2))
    flat[:, occupied] = np.add.reduceat(np.take(weights, order, axis=1), starts, axis=1)
    return flat.reshape(-1, num_classes, num_classes)


def _roc_areas(y: Ints, p: Floats, weights: Floats) -> Floats:
    """One-vs-rest ROC areas (R, C) under weights (R, N)."""
    if p.shape[1] == 2:
        area = _roc_area(y == 1, p[:, 1], weights)
        return np.stack([area, area], axis=1)
    return np.stack([_roc_area(y == c, p[:, c], weights) for c in range(p.shape[1])], axis=1)


def _roc_area(positive: npt.NDArray[np.bool_], scores: Floats, weights: Floats) -> Floats:
    """ROC areas (R,) of scores (N,) under weights (R, N); NaN without positives or negatives.

    Mann and Whitney's U from the positives' mid-ranks: of the summed ranks P^2 / 2 is what the
    positives owe to each other, and the rest counts the negatives below them, ties as a half.
    """
    order = np.argsort(scores)
    below = np.zeros((len(weights), len(scores) + 1))
    np.cumsum(np.take(weights, order, axis=1), axis=1, out=below[:, 1:])
    own = scores[positive]
    first, past = (np.searchsorted(scores[order], own, side) for side in ("left", "right"))
    weight = weights[:, positive]
    ranks = (np.take(below, first, axis=1) + np.take(below, past, axis=1)) / 2
    positives, total = weight.sum(axis=1), below[:, -1]
    above = (weight * ranks).sum(axis=1) - positives**2 / 2
    return _ratio(above, positives * (total - positives))


def _averages(per_class: dict[str, Floats], support: Floats) -> dict[str, Floats]:
    """Values (..., C) to averages (...): `_binary` if C is 2, `_macro`, `_weighted` by support."""
    weight = support / support.sum(axis=-1, keepdims=True)
    averages: dict[str, Floats] = {}
    for rate, values in per_class.items():
        if values.shape[-1] == 2:
            averages[f"{rate}_binary"] = values[..., 1]
        averages[f"{rate}_macro"] = values.mean(axis=-1)
        # A class without images has weight 0: its undefined value must not reach the sum.
        averages[f"{rate}_weighted"] = np.where(weight > 0, weight * values, 0).sum(axis=-1)
    return averages


def _geometric_mean(recall: Floats) -> Floats:
    """Recalls (..., C) to (...): with two classes sqrt(sensitivity * specificity)."""
    mean: Floats = np.prod(recall, axis=-1) ** (1 / recall.shape[-1])
    return mean


def _normalised(p: Floats) -> Floats:
    # float32 softmax rows miss 1 by some 1e-8, about which scikit-learn's log_loss warns.
    normalised: Floats = p / p.sum(axis=1, keepdims=True)
    return normalised


def _losses(y: Ints, p: Floats) -> Floats:
    """Negative log likelihoods (N,), clipped at machine epsilon as scikit-learn's log_loss is."""
    own = _normalised(p)[np.arange(len(y)), y]
    losses: Floats = -np.log(np.clip(own, np.finfo(np.float64).eps, 1 - np.finfo(np.float64).eps))
    return losses


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """numerator / denominator, NaN where the denominator is 0."""
    undefined = np.full(np.shape(numerator), np.nan)
    ratio: Floats = np.divide(numerator, denominator, out=undefined, where=denominator != 0)
    return ratio


def _defined(value: Floats) -> float | None:
    return None if np.isnan(value) else float(value)
