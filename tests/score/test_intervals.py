"""Intervals against scipy, against DeLong and brute force, and against the truth itself."""

import warnings

import numpy as np
import pytest
from scipy import stats

from medexp.score import intervals, metrics
from medexp.score.comparisons import delong
from medexp.score.intervals import Groups, area_interval, area_of, mean_of, share_interval


def two_normals(n, positives, true, rng):
    y = np.zeros(n, np.int64)
    y[:positives] = 1
    x = stats.norm.cdf(rng.normal(size=n) + np.sqrt(2) * stats.norm.ppf(true) * y)
    return y, np.stack([1 - x, x], axis=1)


# ---------------------------------------------------------------- shares


@pytest.mark.parametrize(("hits", "n"), [(0, 24), (1, 24), (23, 24), (24, 24), (150, 500)])
def test_a_share_has_scipys_exact_interval(hits: int, n: int) -> None:
    theirs = stats.binomtest(hits, n).proportion_ci(0.95, "exact")
    assert share_interval(hits, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_images_of_a_patient_count_as_often_as_they_tell_something_new() -> None:
    """Every image ten times is no more than the images once; unlike images count in full."""
    rng = np.random.default_rng(0)
    hit = rng.random(60) < 0.8
    once = intervals.grouped_share(hit, np.ones(60, bool), Groups(None, 60))
    tenfold = np.repeat(hit, 10)
    patients = Groups(np.repeat(np.arange(60), 10), 600)
    told = intervals.grouped_share(tenfold, np.ones(600, bool), patients)
    assert told == pytest.approx(once, abs=0.01)
    assert told[1] - told[0] >= once[1] - once[0]
    alone = intervals.grouped_share(tenfold, np.ones(600, bool), Groups(None, 600))
    assert alone[1] - alone[0] < 0.5 * (told[1] - told[0])
    unlike = np.tile([True, True, True, False], 50)  # the same share in every patient
    full = intervals.grouped_share(unlike, np.ones(200, bool), Groups(np.arange(200) // 4, 200))
    assert full == pytest.approx(share_interval(150, 200), abs=0.01)


def test_the_variance_between_patients_is_that_of_drawing_patients() -> None:
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 9, 80)
    patient = np.repeat(np.arange(80), sizes)
    hit = rng.random(len(patient)) < np.repeat(rng.beta(2, 1, 80), sizes)
    influence = (hit - hit.mean()) / len(hit)
    sums, counts = np.bincount(patient, hit), np.bincount(patient)
    drawn = rng.integers(80, size=(20_000, 80))
    shares = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    found = Groups(patient, len(patient)).variance(influence)
    assert np.sqrt(found) == pytest.approx(shares.std(), rel=0.05)


def test_a_perfect_score_of_few_patients_is_told_by_the_patients() -> None:
    everyone = np.ones(40, bool)
    low, high = intervals.grouped_share(everyone, everyone, Groups(np.arange(40) // 8, 40))
    assert (low, high) == (share_interval(5, 5)[0], 1.0)


# ---------------------------------------------------------------- areas


def test_the_area_has_delongs_variance_on_the_logit_scale() -> None:
    rng = np.random.default_rng(2)
    y, p = two_normals(600, 250, 0.85, rng)
    groups = Groups(None, 600)
    area = area_of(y == 1, p[:, 1], groups)
    assert area is not None
    # Against a constant score, whose area of 1/2 has no error, DeLong's is this area's own.
    theirs = delong(y, p[:, 1], np.zeros(600))
    assert area.value == pytest.approx(theirs.a)
    assert np.sqrt(area.influence @ area.influence) == pytest.approx(theirs.standard_error)
    low, high = area_interval([area], [1.0], groups)
    assert theirs.standard_error is not None
    half = stats.norm.ppf(0.975) * theirs.standard_error / (area.value * (1 - area.value))
    logit = np.log(area.value / (1 - area.value))
    expected = 1 / (1 + np.exp(-np.array([logit - half, logit + half])))
    assert (low, high) == pytest.approx(expected, abs=0.003)  # 250 images: a tenth of the floor


def test_a_perfect_area_is_bounded_by_its_pairs() -> None:
    y = np.repeat([0, 1], [30, 8])
    area = area_of(y == 1, y.astype(float), Groups(None, 38))
    assert area is not None
    low, high = area_interval([area], [1.0], Groups(None, 38))
    assert high == 1.0
    assert low**8 == pytest.approx(0.025)  # eight disjoint pairs in order by chance


# ---------------------------------------------------------------- means


def test_the_loss_has_scipys_bca_interval() -> None:
    losses = np.random.default_rng(3).exponential(size=80)
    found = intervals.loss_interval(losses, Groups(None, 80), draws=20_000, seed=0)
    theirs = stats.bootstrap(
        (losses,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found == pytest.approx((theirs.low, theirs.high), abs=0.01)
    same = Groups(np.repeat(np.arange(80), 5), 400)
    repeated = intervals.loss_interval(np.repeat(losses, 5), same, draws=20_000, seed=0)
    assert repeated == pytest.approx(found, abs=1e-9)
    assert intervals.loss_interval(np.ones(9), Groups(None, 9), draws=100, seed=0) is None


def test_a_mean_over_runs_ends_where_the_metric_does() -> None:
    assert mean_of([0.2, 0.6]).interval == pytest.approx((-2.141, 2.941), abs=0.001)
    assert mean_of([0.2, 0.6], bounds=(0.0, 1.0)).interval == (0.0, 1.0)
    assert mean_of([0.2, 0.6], bounds=metrics.bounds("kappa")).interval == (-1.0, 1.0)
    low, high = mean_of([0.2, 0.6], bounds=metrics.bounds("log_loss")).interval or (0, 0)
    assert low == 0.0 and high > 2
    assert mean_of([1.0, 1.0, 1.0]).interval is None  # equal values tell nothing of their spread


# ---------------------------------------------------------------- all metrics together


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("classes", [2, 5])
def test_no_interval_is_empty_or_leaves_the_metric(classes: int, grouped: bool) -> None:
    """Perfect, all wrong, never called, and by chance: 24 images."""
    rng = np.random.default_rng(4)
    y = np.arange(24) % classes
    groups = np.arange(24) // 3 if grouped else None
    names = [str(c) for c in range(classes)]
    for called in (y, (y + 1) % classes, np.zeros(24, int), rng.integers(classes, size=24)):
        p = np.full((24, classes), 0.1 / (classes - 1))
        p[np.arange(24), called] = 0.9
        scored = metrics.score(y, p, names, groups=groups)
        for key, interval in scored["ci95"].items():
            value = metrics.value_at(scored, key)
            if value is None:
                assert interval is None, key
            elif interval is not None:
                low, high = interval
                least, most = metrics.bounds(key)
                assert low < high, key
                assert low <= value + 1e-9 and value <= high + 1e-9, key
                assert least is None or low >= least, key
                assert most is None or high <= most, key
            else:
                assert key.endswith(("log_loss", "mean_probability")), key


@pytest.mark.parametrize(
    ("key", "true"), [("accuracy", 0.95), ("f1_binary", 0.95), ("auc_binary", 0.9)]
)
def test_the_truth_is_held_in_at_least_93_of_100(key: str, true: float) -> None:
    """24 balanced images, where the percentile bootstrap held it in 71 to 91 of 100."""
    rng = np.random.default_rng(5)
    held = 0
    for trial in range(300):
        if key == "auc_binary":
            y, p = two_normals(24, 12, true, rng)
        else:
            y = np.arange(24) % 2
            right = rng.random(24) < true
            x = np.where(right == (y == 1), 0.9, 0.1)
            p = np.stack([1 - x, x], axis=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            low, high = metrics.score(y, p, ["a", "b"], resamples=300, seed=trial)["ci95"][key]
        held += low <= true <= high
    assert held / 300 >= 0.93


def test_groups_make_the_intervals_of_alike_images_wider() -> None:
    rng = np.random.default_rng(6)
    y = np.repeat(rng.integers(0, 2, 40), 5)
    own = np.repeat(rng.normal(size=40), 5) + 0.3 * rng.normal(size=200)
    x = stats.norm.cdf(own + 1.5 * y - 0.7)
    p = np.stack([1 - x, x], axis=1)
    alone = metrics.score(y, p, ["a", "b"])
    patients = np.repeat(np.arange(40), 5)
    together = metrics.score(y, p, ["a", "b"], groups=patients)
    for key in ("accuracy", "auc_binary", "f1_binary", "kappa", "log_loss", "recall_binary"):
        widths = [high - low for low, high in (one["ci95"][key] for one in (alone, together))]
        assert widths[1] > 1.5 * widths[0], key
    assert "(40 of them)" in together["ci_method"] and "unknown" in alone["ci_method"]
    single = metrics.score(y, p, ["a", "b"], groups=np.arange(200))
    assert single["ci95"] == alone["ci95"]


@pytest.mark.filterwarnings("ignore")
def test_the_smallest_splits_have_intervals_or_none() -> None:
    """Two to twelve images, of one to four patients, of classes that may be absent."""
    rng = np.random.default_rng(7)
    for _ in range(400):
        classes, n = int(rng.integers(2, 4)), int(rng.integers(2, 12))
        y, p = rng.integers(0, classes, n), rng.dirichlet(np.ones(classes), n)
        if rng.random() < 0.3:
            p = np.tile(p[0], (n, 1))  # a network that calls all images the same
        groups = None if rng.random() < 0.4 else rng.integers(0, rng.integers(1, 5), n)
        scored = metrics.score(y, p, list("abc")[:classes], resamples=40, groups=groups)
        for key, interval in scored["ci95"].items():
            assert interval is None or np.isfinite(interval).all(), key


def test_a_single_patient_has_an_interval_that_is_a_number():
    """Half of one patient's images are right: their errors cancel, which tells no certainty."""
    right, every = np.array([True, False] * 2), np.ones(4, bool)
    groups = intervals.Groups(np.array(["p8"] * 4), 4)
    assert groups.effect(right - 0.5) == 4.0
    low, high = intervals.grouped_share(right, every, groups)
    assert 0 <= low < 0.5 < high <= 1
    assert (low, high) == intervals.share_interval(0.5, 1.0)
