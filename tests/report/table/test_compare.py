"""Statistics between models, held against pROC and R, the definitions, and resampling."""

import json
import math
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.stats import binomtest

from medexp.errors import MedexpError
from medexp.report.table.compare import compare_runs
from medexp.report.table.load import find_runs
from medexp.score.comparisons import delong, holm, mcnemar

MakeRun = Callable[..., Path]

# The 43 complete ones of the 49 patients with ovarian cancer of DeLong et al. (1988), as printed in
# the SAS/STAT User's Guide, PROC LOGISTIC, "Comparing Receiver Operating Characteristic Curves":
# albumin, total protein, Krebs-Goplerud score, and whether surgery failed to help (1).
PATIENTS = """
3.0 5.8 10 0   3.2 6.3  5 1   3.9 6.8  3 1   2.8 4.8  6 0   3.2 5.8  3 1   0.9 4.0  5 0
2.5 5.7  8 0   1.6 5.6  5 1   3.8 5.7  5 1   3.7 6.7  6 1   3.2 5.4  4 1   3.8 6.6  6 1
4.1 6.6  5 1   3.6 5.7  5 1   4.3 7.0  4 1   3.6 6.7  4 0   2.3 4.4  6 1   4.2 7.6  4 0
4.0 6.6  6 0   3.5 5.8  6 1   3.8 6.8  7 1   3.0 4.7  8 0   4.5 7.4  5 1   3.7 7.4  5 1
3.1 6.6  6 1   4.1 8.2  6 1   4.3 7.0  5 1   4.3 6.5  4 1   3.2 5.1  5 1   2.6 4.7  6 1
3.3 6.8  6 0   1.7 4.0  7 0   3.7 6.1  5 1   3.3 6.3  7 1   4.2 7.7  6 1   3.5 6.2  5 1
2.9 5.7  9 0   2.1 4.8  7 1   2.8 6.2  8 0   4.0 7.0  7 1   3.3 5.7  6 1   3.7 6.9  5 1
3.6 6.6  5 1
"""
# What pROC 1.18.0 (Robin et al. 2011) says of them: roc.test(method="delong", paired=TRUE) of
# curves with direction="<"; the score as 10 - score, so that more is better in all three.
AREAS = {"albumin": 0.736559139785, "protein": 0.647849462366, "score": 0.725806451613}
PROC = {  # z, p, ends of the 95% interval of the difference
    ("albumin", "protein"): (
        1.590029258321,
        0.111828210121,
        -0.0206391109204,
        0.1980584657591,
    ),
    ("albumin", "score"): (0.112778269045, 0.910206347201, -0.176117368735, 0.197622745079),
    ("protein", "score"): (-0.745218389658, 0.456139707507, -0.282988015572, 0.127074037078),
}


def patients() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    albumin, protein, score, failed = np.array(PATIENTS.split(), float).reshape(-1, 4).T
    return failed == 1, {"albumin": albumin, "protein": protein, "score": 10 - score}


def by_definition(positive: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Difference of the areas and its standard error, from DeLong et al.'s equations 2, 4 to 6."""
    components = []
    for scores in (a, b):
        x, y = scores[positive], scores[~positive]
        psi = np.where(x[:, None] > y, 1.0, np.where(x[:, None] == y, 0.5, 0.0))
        components.append((psi.mean(axis=1), psi.mean(axis=0)))
    (v10, v01), (w10, w01) = components
    covariance = np.cov(v10, w10) / len(v10) + np.cov(v01, w01) / len(v01)
    contrast = np.array([1.0, -1.0])
    return float(v10.mean() - w10.mean()), math.sqrt(contrast @ covariance @ contrast)


def some(rng: np.random.Generator, n: int, ties: bool) -> tuple[np.ndarray, ...]:
    positive = np.arange(n) < max(2, n // 3)
    common = rng.normal(size=n)
    a, b = (common + rng.normal(size=n) + shift * positive for shift in (1.0, 0.5))
    return (positive, a.round(), b.round()) if ties else (positive, a, b)


# ---------------------------------------------------------------- DeLong


@pytest.mark.parametrize("pair", PROC)
def test_delong_agrees_with_proc_on_delongs_patients(pair: tuple[str, str]) -> None:
    failed, measured = patients()
    assert (len(failed), failed.sum()) == (43, 31)
    z, p, low, high = PROC[pair]
    found = delong(failed, measured[pair[0]], measured[pair[1]])
    assert (found.a, found.b) == pytest.approx([AREAS[name] for name in pair], abs=1e-11)
    assert found.z == pytest.approx(z, abs=1e-11) and found.p == pytest.approx(p, abs=1e-11)
    assert found.interval == pytest.approx((low, high), abs=1e-11)


@pytest.mark.parametrize(("n", "ties"), list(product((7, 60, 301), (False, True))))
def test_delong_agrees_with_its_definition(n: int, ties: bool) -> None:
    rng = np.random.default_rng(n)
    for _ in range(5):
        positive, a, b = some(rng, n, ties)
        found = delong(positive.astype(int), a, b)
        difference, error = by_definition(positive, a, b)
        assert found.difference == pytest.approx(difference, abs=1e-12)
        assert found.standard_error == pytest.approx(error, rel=1e-9)


def test_delong_agrees_with_resampled_images() -> None:
    rng = np.random.default_rng(0)
    positive, a, b = some(rng, 400, ties=False)
    psi_a, psi_b = (s[positive][:, None] > s[~positive] for s in (a, b))
    drawn = []
    for _ in range(3000):
        rows, columns = (rng.integers(size, size=size) for size in psi_a.shape)
        drawn.append(float((psi_a * 1.0 - psi_b)[np.ix_(rows, columns)].mean()))
    found = delong(positive, a, b)
    assert found.standard_error == pytest.approx(np.std(drawn), rel=0.06)
    assert found.interval == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.008)


def test_delong_finds_no_difference_as_often_as_it_should() -> None:
    rng = np.random.default_rng(5)
    values = []
    for _ in range(1500):
        positive = np.arange(120) < 50
        a, b = rng.normal(size=(2, 120)) + positive
        values.append(delong(positive, a, b).p)
    assert np.mean(np.array(values) < 0.05) == pytest.approx(0.05, abs=0.017)


def test_delong_of_swapped_models_is_the_mirror_image() -> None:
    positive, a, b = some(np.random.default_rng(3), 90, ties=True)
    one, other = delong(positive, a, b), delong(positive, b, a)
    assert one.interval is not None and other.interval is not None and one.z is not None
    assert (one.a, one.b, one.p, one.z) == (other.b, other.a, other.p, -(other.z or 0))
    assert one.interval == pytest.approx([-end for end in reversed(other.interval)])


def test_delong_depends_on_the_order_of_the_scores_alone() -> None:
    positive, a, b = some(np.random.default_rng(4), 50, ties=True)
    assert delong(positive, a, b) == delong(positive, np.exp(a), 3 * b - 7)


def test_delong_without_an_error_claims_nothing() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    perfect = np.array([0.1, 0.2, 0.3, 0.8, 0.9])
    for other in (perfect, perfect**2):  # the same curve, and another that is perfect as well
        found = delong(labels, perfect, other)
        assert (found.a, found.b, found.difference, found.p) == (1, 1, 0, 1)
        assert found.standard_error == 0 and found.z is None and found.interval is None
    noise = np.array([0.3, 0.5, 0.1, 0.4, 0.2])
    assert delong(labels, noise, noise).p == 1
    # All right against all wrong: an estimated error of 0 is no proof of any p.
    found = delong(labels, perfect, -perfect)
    assert (found.difference, found.standard_error) == (1, 0)
    assert found.z is None and found.p is None and found.interval is None


def test_delong_of_too_few_images_is_undefined() -> None:
    scores = np.array([0.1, 0.4, 0.3])
    for labels in ([0, 0, 0], [1, 1, 1]):
        assert set(delong(labels, scores, scores)) == {None}
    found = delong([0, 0, 1], scores, -scores)  # the variance of a single positive is 0/0
    assert (found.a, found.b, found.difference) == (0.5, 0.5, 0)
    assert set(found[3:]) == {None}


def test_delong_refuses_scores_of_other_images() -> None:
    with pytest.raises(MedexpError, match=r"\(3,\), scores \(3,\) and \(2,\)"):
        delong([0, 1, 1], [0.1, 0.2, 0.3], [0.1, 0.2])


# ---------------------------------------------------------------- McNemar and Holm


def outcomes(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, ...]:
    """Labels and two models' predictions that give these counts, of three classes."""
    truth = np.arange(both + only_a + only_b + neither) % 3
    right = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], [both, only_a, only_b, neither], axis=0)
    return truth, *np.where(right.T == 1, truth, (truth + 1) % 3)


def test_mcnemar_of_agrestis_approval_ratings() -> None:
    # Agresti (1990), p. 350, as in R's help of mcnemar.test; p: R 4.2.2, binom.test(86, 236).
    found = mcnemar(*outcomes(794, 86, 150, 570))
    assert found[:4] == (794, 86, 150, 570)
    assert found.p == pytest.approx(3.71593613957e-05, rel=1e-11)


def test_mcnemar_is_the_exact_sum_over_the_binomial_distribution() -> None:
    for b, c in [*product(range(9), range(9)), (40, 61), (200, 150), (3000, 3100)]:
        tail = Fraction(sum(math.comb(b + c, i) for i in range(min(b, c) + 1)), 2 ** (b + c))
        p = mcnemar(*outcomes(5, b, c, 2)).p
        assert p == pytest.approx(float(min(Fraction(1), 2 * tail)), rel=1e-9)
        assert p == pytest.approx(binomtest(b, b + c).pvalue if b + c else 1, rel=1e-9)


def test_mcnemar_of_models_that_agree_finds_no_difference() -> None:
    assert mcnemar(*outcomes(9, 0, 0, 4)) == (9, 0, 0, 4, 1.0)
    assert mcnemar(*outcomes(9, 3, 3, 4)).p == 1


def test_holm_as_r_adjusts() -> None:
    # R 4.2.2: p.adjust(c(.042, .001, .031, .014, .007), "holm")
    found = holm([0.042, 0.001, 0.031, 0.014, 0.007])
    assert found == pytest.approx([0.062, 0.005, 0.062, 0.042, 0.028])


def test_holm_is_the_closed_test_of_bonferroni() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 7):
        p = rng.choice([0.001, 0.01, 0.02, 0.2, 0.9], size=n)
        worst = [
            max(
                min(1, len(chosen) * p[list(chosen)].min())
                for size in range(1, n + 1)
                for chosen in combinations(range(n), size)
                if i in chosen
            )
            for i in range(n)
        ]
        assert holm(p.tolist()) == pytest.approx(worst)


def test_holm_counts_only_what_was_tested() -> None:
    assert holm([None, 0.01, None, 0.04]) == [None, 0.02, None, 0.04]
    assert holm([None]) == [None] and holm([]) == []


# ---------------------------------------------------------------- runs


def seeded(path: Path, seed: int) -> Path:
    config = yaml.safe_load((path / "config.yaml").read_text()) | {"seed": seed}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    return path


def edit_predictions(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    header, *rows = (path / "predictions.csv").read_text().splitlines()
    (path / "predictions.csv").write_text("\n".join([header, *change(rows)]) + "\n")


def test_every_pair_of_runs_is_compared_by_what_they_scored(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for model, separation in (("native1", 0.0), ("native2", 0.5), ("native3", 3.0)):
        marks = {"PHANTOM": "drawn"} if model == "native1" else {}
        make_run(model, model=model, separation=separation, marks=marks)
    pairs = compare_runs(find_runs([tmp_path]))
    assert [(p["a"], p["b"]) for p in pairs] == [
        ("native1", "native2"),
        ("native1", "native3"),
        ("native2", "native3"),
    ]
    for pair in pairs:
        one, other = (
            json.loads((tmp_path / pair[which] / "metrics.json").read_text())["test"]
            for which in "ab"
        )
        assert pair["reason"] is None and pair["images"] == 60
        for key in ("auc", "accuracy"):
            ours = [scored[{"auc": "auc_binary"}.get(key, key)] for scored in (one, other)]
            assert [pair[f"{key}_a"], pair[f"{key}_b"]] == pytest.approx(ours)
            assert pair[f"{key}_difference"] == pytest.approx(ours[0] - ours[1])
        assert pair["auc_low"] < pair["auc_difference"] < pair["auc_high"]
        counts = [pair[k] for k in ("both_right", "only_a_right", "only_b_right", "both_wrong")]
        assert sum(counts) == 60
        assert pair["mcnemar_p"] == pytest.approx(binomtest(counts[1], sum(counts[1:3])).pvalue)
    assert pairs[1]["auc_p"] < 1e-4
    for key in ("auc_p", "mcnemar_p"):
        assert [p[f"{key}_holm"] for p in pairs] == holm([p[key] for p in pairs])
    assert [(p["marks_a"], p["marks_b"]) for p in pairs] == [
        ("PHANTOM", ""),
        ("PHANTOM", ""),
        ("", ""),
    ]
    assert json.loads(json.dumps(pairs, allow_nan=False)) == pairs


def test_the_order_of_the_images_does_not_matter(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", model="native1", separation=0.2)
    other = make_run("b", model="native2", separation=1.5)
    before = compare_runs(find_runs([tmp_path]))
    edit_predictions(other, lambda rows: rows[::-1])
    assert compare_runs(find_runs([tmp_path])) == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: rows[:-1], "different images: 60 and 59, 59 in both"),
        (lambda rows: [row.replace("test-5,", "test-x,") for row in rows], "59 in both"),
        (
            lambda rows: [row.replace("test-7,test,1,", "test-7,test,0,") for row in rows],
            "different labels of the same images",
        ),
        (lambda rows: [*rows, rows[-1]], "images without an id of their own"),
        (lambda rows: [row for row in rows if ",val," in row], "no predictions of the test split"),
    ],
)
def test_other_images_are_not_compared_and_it_says_why(
    make_run: MakeRun, tmp_path: Path, change: Callable[[list[str]], list[str]], reason: str
) -> None:
    make_run("a", model="native1")
    edit_predictions(make_run("b", model="native2"), change)
    (pair,) = compare_runs(find_runs([tmp_path]))
    assert reason in pair["reason"]
    facts = ("dataset", "split", "a", "b", "marks_a", "marks_b", "reason")
    assert {value for key, value in pair.items() if key not in facts} == {None}


def test_other_classes_and_other_data_sets_are_not_compared(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run("a", model="native1")
    make_run("b", model="native2", classes=("normal", "other"))
    make_run("c", model="native3", dataset="ldct")
    (pair,) = compare_runs(find_runs([tmp_path]))
    assert (pair["a"], pair["b"], pair["reason"]) == ("native1", "native2", "different classes")


def test_of_more_classes_accuracy_is_compared_and_no_area(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for model, separation in (("m1", 0.1), ("m2", 2.0)):
        make_run(model, model=model, classes=("a", "b", "c"), separation=separation, n=90)
    (pair,) = compare_runs(find_runs([tmp_path]))
    assert pair["auc_a"] is pair["auc_p"] is pair["auc_p_holm"] is None
    assert pair["accuracy_difference"] < -0.2 and pair["mcnemar_p"] < 0.01


def test_repeats_are_stood_for_by_their_first_and_runs_without_scores_are_left_out(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for model, seed in product(("native1", "native2"), (3, 4)):
        words = [f"seed={seed}"]
        seeded(make_run(f"{model}-{seed}", model=model, overrides=words, separation=seed), seed)
    make_run("failed", model="native3", state="failed")
    (pair,) = compare_runs(find_runs([tmp_path]))
    assert (pair["a"], pair["b"]) == ("native1 seed=3", "native2 seed=3")


def test_of_many_runs_the_best_twelve_are_compared(make_run: MakeRun, tmp_path: Path) -> None:
    for number in range(14):
        path = make_run(f"{number}", model=f"m{number}", n=20)
        # val_auc at the best epoch picks: the two lowest are left out.
        history = (path / "history.csv").read_text().splitlines()
        column = history[0].split(",").index("val_auc")
        rows = [line.split(",") for line in history[1:]]
        for row in rows:
            row[column] = str(0.5 + 0.01 * ((number * 5) % 14))
        lines = [history[0], *(",".join(row) for row in rows)]
        (path / "history.csv").write_text("\n".join(lines) + "\n")
    pairs = compare_runs(find_runs([tmp_path]))
    shown = {pair[which] for pair in pairs for which in "ab"}
    worst = {f"m{n}" for n in range(14) if (n * 5) % 14 < 2}
    assert len(pairs) == 66 and shown == {f"m{n}" for n in range(14)} - worst


def test_images_of_a_patient_are_drawn_together() -> None:
    """Every image five times is no more than the images once; unlike images count in full."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 120)
    a, b = labels + rng.normal(size=120), labels + 1.6 * rng.normal(size=120)
    once = delong(labels, a, b)
    patients = np.repeat(np.arange(120), 5)
    five = delong(*(np.repeat(values, 5) for values in (labels, a, b)), patients)
    assert five.difference == pytest.approx(once.difference)
    assert five.standard_error == pytest.approx(once.standard_error, rel=0.02)
    alone = delong(*(np.repeat(values, 5) for values in (labels, a, b)))
    assert alone.standard_error == pytest.approx(once.standard_error / 5**0.5, rel=0.02)

    right = np.where(rng.random(400) < 0.85, 1, 0), np.where(rng.random(400) < 0.75, 1, 0)
    truth = np.ones(400, int)
    one = mcnemar(truth, *right)
    unlike = mcnemar(truth, *right, rng.permutation(400) // 4)
    assert unlike.p == pytest.approx(one.p, rel=0.6, abs=0.01)
    alike = mcnemar(*(np.repeat(v, 5) for v in (truth, *right)), np.repeat(np.arange(400), 5))
    assert alike.p == pytest.approx(one.p, rel=0.5)
    assert mcnemar(*(np.repeat(v, 5) for v in (truth, *right))).p < one.p**2
    assert (alike.both, alike.only_a) == (5 * one.both, 5 * one.only_a)
