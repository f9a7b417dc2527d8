"""Metrics of a whole split: pure functions of labels (N,) and probabilities (N, C).

Point values come from scikit-learn, 95% intervals from score/intervals.py.

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
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from medexp.errors import MedexpError
from medexp.score import intervals
from medexp.score.intervals import Area, Groups

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_RATES = ("precision", "recall", "f1", "specificity", "auc")
_SHARES = ("share", "mean_probability")
_SHORT = ("accuracy", "auc", "f1", "precision", "recall")
# What no score but these can pass.
_BOUNDS = {"kappa": (-1.0, 1.0), "log_loss": (0.0, None)}


def score(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    classes: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
    groups: npt.ArrayLike | None = None,
) -> dict[str, Any]:
    """Score one split; the result is JSON-ready (floats, ints, strings, lists, None).

    Args:
        labels: (N,) integers in [0, C).
        probabilities: (N, C) in [0, 1]; rows sum to 1 within 1e-6.
        classes: the C class names; of two, the second is the positive one.
        resamples: draws behind those intervals of `ci95` that are drawn; 0 leaves all out.
        seed: of the draws; the same input and seed give the same intervals.
        groups: (N,), the patient or slide of each image, which are drawn as a whole; None where
            they are not known.

    Returns:
        `n`, `positive_class`, `accuracy`, `kappa`, `log_loss` (nats), `geometric_mean` (of the
        recalls), {precision, recall, f1, specificity, auc}_{binary, macro, weighted}, `per_class`
        (the same five, `support`, `share` of the images, `mean_probability` over all images),
        `confusion_matrix` (rows actual, columns predicted), `ci95` (key, or `per_class.CLASS.key`,
        -> [low, high] or None), `ci95_methods` (key -> method), `ci_method` (all in a sentence),
        `ci_resamples`, `ci_seed`.

    Raises:
        MedexpError: shapes, labels or probabilities are not as above, or `resamples` < 0.
    """
    y, p = _checked(labels, probabilities, len(classes))
    if resamples < 0:
        raise MedexpError(f"resamples is {resamples}; give 0 (no intervals) or more")
    predicted = predict(p)
    scalars, per_class, confusion = _point(y, p, predicted)
    belonging = Groups(groups, len(y))
    found = _intervals(y, p, classes, belonging, resamples, seed) if resamples else {}
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
        "ci95": {key: pair and list(pair) for key, (pair, _) in found.items()},
        "ci95_methods": {key: method for key, (_, method) in found.items()},
        "ci_method": _told(belonging, resamples, seed),
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


def bounds(key: str) -> tuple[float | None, float | None]:
    """What a score cannot pass: [0, 1] for most."""
    return _BOUNDS.get(key, (0.0, 1.0))


Found = dict[str, tuple[tuple[float, float] | None, str]]


def _intervals(
    y: Ints, p: Floats, classes: Sequence[str], groups: Groups, draws: int, seed: int
) -> Found:
    """Key of `score` -> its 95% interval and by which method."""
    predicted, count = predict(p), len(classes)
    matrix = intervals.matrix_intervals(
        y, predicted, count, partial(_flat, classes), groups, draws=draws, seed=seed
    )
    found: Found = {key: (pair, intervals.MATRIX) for key, pair in matrix.items()}
    found["accuracy"] = _share(predicted == y, np.ones(len(y), bool), groups)
    areas = []
    for c, name in enumerate(classes):
        of_class, called = y == c, predicted == c
        found[f"per_class.{name}.recall"] = _share(called, of_class, groups)
        # Precision is 0 by convention where the class is never predicted: anything may be true.
        precision = intervals.grouped_share(of_class, called, groups)
        found[f"per_class.{name}.precision"] = (precision, intervals.SHARE)
        found[f"per_class.{name}.specificity"] = _share(~called, ~of_class, groups)
        found[f"per_class.{name}.share"] = _share(of_class, np.ones(len(y), bool), groups)
        mean = intervals.mean_interval(p[:, c], groups)
        found[f"per_class.{name}.mean_probability"] = (mean, intervals.MEAN)
        # Of two classes both follow p_1, so that there is one area.
        area = (
            intervals.area_of(y == max(c, 1), p[:, 1], groups)
            if count == 2
            else (intervals.area_of(of_class, p[:, c], groups))
        )
        areas.append(area)
        found[f"per_class.{name}.auc"] = _area([area], [1.0], groups)
    if count == 2:
        for rate in ("recall", "precision", "specificity", "auc"):
            found[f"{rate}_binary"] = found[f"per_class.{classes[1]}.{rate}"]
    found["auc_macro"] = _area(areas, [1.0] * count, groups)
    support = np.bincount(y, minlength=count)
    there = [c for c in range(count) if support[c]]
    found["auc_weighted"] = _area([areas[c] for c in there], support[there].tolist(), groups)
    loss = intervals.loss_interval(_losses(y, p), groups, draws=draws, seed=seed)
    found["log_loss"] = (loss, intervals.LOSS)
    return {key: (_cut(pair, *bounds(key)), method) for key, (pair, method) in found.items()}


def _cut(
    pair: tuple[float, float] | None, least: float | None, most: float | None
) -> tuple[float, float] | None:
    """Within the bounds, which rounding may pass by a bit."""
    if pair is None:
        return None
    low = pair[0] if least is None else max(pair[0], least)
    return low, pair[1] if most is None else min(pair[1], most)


def _share(
    hit: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_], groups: Groups
) -> tuple[tuple[float, float] | None, str]:
    """None where no image counts, as of the recall of a class without images."""
    interval = intervals.grouped_share(hit, among, groups) if among.any() else None
    return interval, intervals.SHARE


def _area(
    areas: Sequence[Area | None], weights: Sequence[float], groups: Groups
) -> tuple[tuple[float, float] | None, str]:
    known = [area for area in areas if area is not None]
    if len(known) < len(areas):
        return None, intervals.AREA
    return intervals.area_interval(known, weights, groups), intervals.AREA


def _flat(classes: Sequence[str], confusion: Floats) -> dict[str, Floats]:
    """Confusion matrices (R, C, C) -> key of `score` -> (R,), of all that has no closed form."""
    scalars, per_class = of_confusion(confusion)
    kept = {key: values for key, values in scalars.items() if key != "accuracy"}
    for c, name in enumerate(classes):
        kept[f"per_class.{name}.f1"] = per_class["f1"][:, c]
    for rate in ("recall", "precision", "specificity"):
        kept.pop(f"{rate}_binary", None)
    return kept


def of_confusion(confusion: Floats) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Confusion matrices (R, C, C), rows actual -> scalars (R,) and, per class, (R, C).

    NaN: undefined. Equal to scikit-learn's with `sample_weight` (the tests hold each against it).
    """
    total = confusion.sum(axis=(1, 2))
    hit = np.diagonal(confusion, axis1=1, axis2=2)
    support, called = confusion.sum(axis=2), confusion.sum(axis=1)
    outside = total[:, None] - support
    per_class = {
        "precision": np.nan_to_num(_ratio(hit, called)),
        "recall": _ratio(hit, support),
        "f1": np.where(support > 0, _ratio(2 * hit, support + called), np.nan),
        "specificity": _ratio(outside - (called - hit), outside),
    }
    accuracy = hit.sum(axis=1) / total
    chance = (support * called).sum(axis=1) / total**2
    scalars = {
        "accuracy": accuracy,
        "kappa": _ratio(accuracy - chance, 1 - chance),
        "geometric_mean": _geometric_mean(per_class["recall"]),
        **_averages(per_class, support),
    }
    return scalars, per_class


def _told(groups: Groups, draws: int, seed: int) -> str:
    """All methods in a sentence, for the notes of a table."""
    if not draws:
        return "none"
    drawn = f"{draws} draws, seed {seed}"
    text = (
        "shares by Clopper and Pearson, AUC by DeLong on the logit scale, F1, kappa and means over"
        f" classes by Dirichlet draws of the confusion matrix, log loss by BCa bootstrap ({drawn})"
    )
    if not groups.known:
        return (
            f"{text}; patients are unknown, so that images count as independent, and intervals are"
            " too narrow where they are not"
        )
    return f"{text}; images of a patient or slide count together ({groups.count:,} of them)"


def value_at(scored: Mapping[str, Any], key: str) -> float | None:
    """A value of `score` by its key or, of a class, by `per_class.CLASS.key`; None if undefined."""
    first, _, rest = key.partition(".")
    if first != "per_class":
        return scored.get(key)
    name, _, rate = rest.rpartition(".")
    value: float | None = (scored.get("per_class") or {}).get(name, {}).get(rate)
    return value


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
