"""metrics.py against scikit-learn, which is the oracle for point values and weighted formulas."""

import json
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics as sk

from medexp.errors import MedexpError
from medexp.score import metrics

Labels = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]


def draw(
    num_classes: int, n: int, seed: int, *, ties: bool = False
) -> tuple[Labels, Probabilities]:
    """Labels and probabilities that go with them; `ties` rounds to eighths."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(num_classes, size=n)
    logits = rng.normal(size=(n, num_classes))
    logits[np.arange(n), labels] += 1.0
    p = np.exp(logits)
    p /= p.sum(axis=1, keepdims=True)
    if ties:
        p = np.round(p * 8) / 8
        p[:, -1] = 0
        p[:, -1] = np.clip(1 - p.sum(axis=1), 0, 1)
        p /= p.sum(axis=1, keepdims=True)
    return labels, p


def oracle(y: Labels, p: Probabilities, weight: Any = None) -> dict[str, float]:
    """Every scalar metric straight from scikit-learn, NaN where it is undefined."""
    num_classes = p.shape[1]
    ids = list(range(num_classes))
    predicted = (p[:, 1] > 0.5).astype(int) if num_classes == 2 else p.argmax(axis=1)
    w = {"sample_weight": weight}
    present = np.unique(y if weight is None else y[np.asarray(weight) > 0])
    support = np.bincount(y, weights=weight, minlength=num_classes)
    recalls = sk.recall_score(y, predicted, labels=ids, average=None, zero_division=0, **w)
    values = {
        "accuracy": sk.accuracy_score(y, predicted, **w),
        "kappa": sk.cohen_kappa_score(y, predicted, **w),
        "log_loss": sk.log_loss(y, p / p.sum(axis=1, keepdims=True), labels=ids, **w),
        "geometric_mean": np.prod(recalls) ** (1 / num_classes),
    }
    functions = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}
    for name, function in functions.items():
        for averaging in ["macro", "weighted"] + ["binary"] * (num_classes == 2):
            values[f"{name}_{averaging}"] = function(
                y,
                predicted,
                average=averaging,
                zero_division=0,
                labels=None if averaging == "binary" else ids,
                **w,
            )
    specificity = np.array([sk.recall_score(y != c, predicted != c, **w) for c in ids])
    auc = np.array(
        [
            sk.roc_auc_score(y == c, p[:, max(c, 1)] * (1 if c or num_classes > 2 else -1), **w)
            if num_classes == 2
            else sk.roc_auc_score(y == c, p[:, c], **w)
            if c in present
            else np.nan
            for c in ids
        ]
    )
    for name, each in (("specificity", specificity), ("auc", auc)):
        if num_classes == 2:
            values[f"{name}_binary"] = each[1]
        values[f"{name}_macro"] = each.mean()
        values[f"{name}_weighted"] = np.nansum(each * support) / support.sum()
    if len(present) < num_classes:
        values |= dict.fromkeys(["recall_macro", "f1_macro", "auc_macro", "geometric_mean"], np.nan)
    return {key: float(value) for key, value in values.items()}


@pytest.mark.parametrize("num_classes", [2, 3, 4])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_point_values_are_scikit_learns(num_classes: int, ties: bool, seed: int) -> None:
    y, p = draw(num_classes, 200, seed, ties=ties)
    scored = metrics.score(y, p, [f"c{c}" for c in range(num_classes)], resamples=0)
    expected = oracle(y, p)
    assert {k for k, v in scored.items() if isinstance(v, float)} == set(expected)
    for key, value in expected.items():
        assert scored[key] == pytest.approx(value, abs=1e-12), key
    if num_classes > 2:
        for averaging in ("macro", "weighted"):
            expected_auc = sk.roc_auc_score(y, p, multi_class="ovr", average=averaging)
            assert scored[f"auc_{averaging}"] == pytest.approx(expected_auc, abs=1e-12)
    else:
        assert scored["auc_binary"] == scored["auc_macro"]


@pytest.mark.parametrize(("num_classes", "absent"), [(2, None), (4, None), (4, 2)])
@pytest.mark.parametrize("seed", range(4))
def test_the_formulas_of_the_confusion_matrix_are_scikit_learns_under_sample_weight(
    num_classes: int, absent: int | None, seed: int
) -> None:
    y, p = draw(num_classes, 120, seed, ties=True)
    predicted = metrics.predict(p)
    weights = np.random.default_rng(seed).integers(0, 4, size=(5, len(y))).astype(np.float64)
    if absent is not None:
        weights[:, y == absent] = 0
    matrices = np.stack(
        [
            sk.confusion_matrix(y, predicted, labels=range(num_classes), sample_weight=w)
            for w in weights
        ]
    )
    ours, per_class = metrics.of_confusion(matrices)
    for row, weight in enumerate(weights):
        expected = oracle(y, p, weight)
        assert set(ours) == {key for key in expected if "auc" not in key and key != "log_loss"}
        for key, values in ours.items():
            assert values[row] == pytest.approx(expected[key], abs=1e-12, nan_ok=True), key
        precision, recall, f1, support = sk.precision_recall_fscore_support(
            y, predicted, sample_weight=weight, labels=range(num_classes), zero_division=0
        )
        there = support > 0
        assert per_class["precision"][row] == pytest.approx(precision)
        assert per_class["recall"][row][there] == pytest.approx(recall[there])
        assert per_class["f1"][row][there] == pytest.approx(f1[there])


def test_the_result_is_json_and_the_same_seed_gives_the_same_bits() -> None:
    y, p = draw(3, 90, 0)
    scored = metrics.score(y, p, list("abc"), resamples=30, seed=5)
    assert json.loads(json.dumps(scored, allow_nan=False)) == scored
    assert metrics.score(y, p, list("abc"), resamples=30, seed=5) == scored
    assert metrics.score(y, p, list("abc"), resamples=30, seed=6)["ci95"] != scored["ci95"]
    of_classes = {f"per_class.{c}.{k}" for c in "abc" for k in scored["per_class"]["a"]}
    assert set(scored["ci95"]) == (
        {*oracle(y, p), *of_classes} - {f"per_class.{c}.support" for c in "abc"}
    )
    assert "30 draws, seed 5" in scored["ci_method"]
    assert set(scored["ci95_methods"]) == set(scored["ci95"])
    assert (scored["ci_resamples"], scored["ci_seed"]) == (30, 5)
    assert "images" in scored["ci_method"]


def test_per_class_and_confusion_matrix() -> None:
    y = np.array([0, 0, 0, 1, 1, 2])
    p = np.eye(3)[[0, 0, 1, 1, 1, 0]]
    scored = metrics.score(y, p, ["a", "b", "c"], resamples=0)
    assert scored["confusion_matrix"] == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert scored["per_class"]["a"]["precision"] == pytest.approx(2 / 3)
    assert scored["per_class"]["a"]["specificity"] == pytest.approx(2 / 3)
    assert scored["per_class"]["c"] == {
        "precision": 0.0, "recall": 0.0, "f1": 0.0, "specificity": 1.0, "auc": 0.5, "support": 1,
        "share": pytest.approx(1 / 6), "mean_probability": 0.0,
    }  # fmt: skip
    assert scored["n"] == 6
    assert scored["positive_class"] is None
    assert scored["geometric_mean"] == 0.0


def test_values_and_intervals_of_a_class() -> None:
    y, p = draw(2, 300, 3)
    scored = metrics.score(y, p, ["benign", "type 1.5"], resamples=500)
    assert metrics.value_at(scored, "accuracy") == scored["accuracy"]
    for rate in ("precision", "recall", "f1", "auc", "specificity"):
        key = f"per_class.type 1.5.{rate}"
        assert metrics.value_at(scored, key) == pytest.approx(scored[f"{rate}_binary"])
        assert scored["ci95"][key] == scored["ci95"][f"{rate}_binary"]
    mean = metrics.value_at(scored, "per_class.benign.mean_probability")
    low, high = scored["ci95"]["per_class.benign.mean_probability"]
    assert mean == pytest.approx(p[:, 0].mean())
    half = 1.96 * p[:, 0].std() / 300**0.5  # of the mean's normal interval
    assert (mean - low, high - mean) == (pytest.approx(half, rel=0.2),) * 2
    assert metrics.value_at(scored, "per_class.malignant.f1") is None
    assert metrics.value_at({}, "per_class.a.f1") is None


def test_geometric_mean_of_two_classes_is_of_sensitivity_and_specificity() -> None:
    y, p = draw(2, 100, 3)
    scored = metrics.score(y, p, ["benign", "malignant"], resamples=0)
    product = scored["recall_binary"] * scored["specificity_binary"]
    assert scored["geometric_mean"] == pytest.approx(product**0.5)
    assert scored["positive_class"] == "malignant"


@pytest.mark.filterwarnings("error")
def test_one_class_present_leaves_undefined_values_none() -> None:
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    scored = metrics.score(np.zeros(3, int), p, ["a", "b"], resamples=20)
    undefined = ["auc_binary", "auc_macro", "auc_weighted", "kappa", "recall_binary", "f1_binary",
                 "recall_macro", "f1_macro", "geometric_mean", "specificity_macro"]  # fmt: skip
    assert {key: scored[key] for key in undefined} == dict.fromkeys(undefined)
    assert {key: scored["ci95"][key] for key in undefined} == dict.fromkeys(undefined)
    assert scored["accuracy"] == scored["recall_weighted"] == scored["specificity_binary"] == 1.0
    assert scored["precision_binary"] == 0.0
    assert scored["per_class"]["b"]["auc"] is None
    assert scored["log_loss"] == pytest.approx(-np.log([0.9, 0.8, 0.7]).mean())
    assert metrics.quick(np.zeros(3, int), p)["auc"] is None


def test_a_tie_goes_to_the_lowest_class() -> None:
    assert metrics.predict(np.array([[0.5, 0.5], [0.4, 0.6]])).tolist() == [0, 1]
    assert metrics.predict(np.array([[0.2, 0.4, 0.4]])).tolist() == [1]


def test_headline_and_quick_share_short_names() -> None:
    assert metrics.headline(["a", "b"])["auc"] == "auc_binary"
    assert metrics.headline(["a", "b", "c"])["f1"] == "f1_macro"
    for num_classes in (2, 3):
        y, p = draw(num_classes, 80, 1)
        names = [str(c) for c in range(num_classes)]
        scored = metrics.score(y, p, names, resamples=0)
        expected = {short: scored[key] for short, key in metrics.headline(names).items()}
        assert metrics.quick(y, p) == expected
        assert list(expected) == ["accuracy", "auc", "f1", "precision", "recall"]


@pytest.mark.parametrize("name", ["loss", "val_loss", "log_loss", "val_log_loss"])
def test_losses_are_to_fall(name: str) -> None:
    assert metrics.direction(name) == "min"


@pytest.mark.parametrize("name", ["val_auc", "accuracy", "kappa", "f1_macro"])
def test_everything_else_is_to_rise(name: str) -> None:
    assert metrics.direction(name) == "max"


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1, 0], [[0.5, 0.5]], r"labels have shape \(3,\) and probabilities \(1, 2\)"),
        ([0], [[0.2, 0.3, 0.5]], r"for 2 classes"),
        ([], np.zeros((0, 2)), r"the split is empty"),
        ([0.0], [[0.5, 0.5]], r"labels have type float64"),
        ([0, 2], [[0.5, 0.5]] * 2, r"label 2 of image 1 lies outside 0..1"),
        ([-1], [[0.5, 0.5]], r"label -1 of image 0"),
        ([0], [[np.nan, 0.5]], r"image 0 are \[nan, 0.5\].*diverged; lower optimizer.lr"),
        ([0], [[1.5, -0.5]], r"image 0 are \[1.5, -0.5\], outside"),
        ([0], [[0.5, 0.4]], r"image 0 sum to .*0.9.*, not to 1"),
    ],
)
def test_bad_input_is_refused_by_name(labels: Any, probabilities: Any, message: str) -> None:
    with pytest.raises(MedexpError, match=message):
        metrics.score(labels, probabilities, ["a", "b"])


def test_what_cannot_be_scored_at_all_is_refused() -> None:
    with pytest.raises(MedexpError, match=r"1 class name\(s\) given; a classification has two"):
        metrics.score([0], [[1.0]], ["a"])
    with pytest.raises(MedexpError, match="resamples is -1; give 0"):
        metrics.score([0], [[0.5, 0.5]], ["a", "b"], resamples=-1)


def test_a_whole_test_split_is_scored_in_seconds() -> None:
    y, p = draw(2, 32_768, 0)
    metrics.quick(y, p)
    start = time.perf_counter()
    metrics.quick(y, p)
    middle = time.perf_counter()
    metrics.score(y, p, ["a", "b"])
    # Ten times what two idle cores take: a guard against a loop in Python, not a benchmark.
    assert middle - start < 0.5
    assert time.perf_counter() - middle < 25
