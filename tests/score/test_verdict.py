"""Verdicts: exact replications are seldom called different, real differences are seen."""

import numpy as np
import pytest
from scipy import stats

from medexp.score.intervals import share_interval
from medexp.score.verdict import (
    Compared,
    Ours,
    compare,
    explained,
    indistinguishable,
    reported_error,
    settled,
)


def accuracy(value: float, n: int, runs: int = 1, sd: float | None = None) -> Ours:
    low, high = share_interval(value * n, n)
    return Ours(value, (low, high), n, runs, sd)


@pytest.mark.parametrize(("runs", "n"), [(1, 24), (1, 2121), (2, 500), (3, 149), (10, 1673)])
def test_an_exact_replication_differs_in_at_most_5_of_100(runs: int, n: int) -> None:
    """The paper's run and ours are draws of one lottery: seeds of 1.5 points, n images each."""
    rng = np.random.default_rng(runs)
    differs, trials = 0, 600
    for _ in range(trials):
        chances = np.clip(0.9 + rng.normal(0, 0.015, runs + 1), 0, 1)
        scores = rng.binomial(n, chances) / n
        sd = float(np.std(scores[1:], ddof=1)) if runs > 1 else None
        mean = float(scores[1:].mean())
        cell = compare(
            f"{100 * scores[0]:.2f}", accuracy(mean, n, runs, sd), "accuracy", scale=100, images=n
        )
        differs += cell.verdict == "differs"
    assert differs / trials <= 0.05


def test_more_seeds_and_images_tell_a_difference_of_three_points() -> None:
    def verdict(n: int, runs: int, sd: float | None) -> str | None:
        return compare("0.90", accuracy(0.87, n, runs, sd), "accuracy", images=n).verdict

    assert verdict(149, 1, None) == "cannot tell"
    assert verdict(30_000, 1, None) == "within"  # a seed may do as much
    assert verdict(30_000, 5, 0.004) == "differs"
    assert verdict(30_000, 2, 0.004) == "cannot tell"  # two seeds tell little of their spread


def test_within_and_cannot_tell_are_apart_by_a_margin_that_matters() -> None:
    for n, expected in ((149, "cannot tell"), (5_000, "within")):
        cell = compare("0.90", accuracy(0.9, n), "accuracy", images=n)
        assert cell.verdict == expected
        assert cell.spread is not None and (cell.spread <= 0.05) == (expected == "within")
    wide = Ours(0.5, (0.47, 0.53), 5_000)  # of kappa and log loss a tenth matters
    assert compare("0.50", wide, "kappa").verdict == "within"
    assert compare("0.50", wide, "f1_macro").verdict == "cannot tell"


def test_the_three_chances_are_added_as_squares() -> None:
    n, runs, sd = 1000, 4, 0.01
    cell = compare("0.80", accuracy(0.85, n, runs, sd), "accuracy", images=500)
    own = 0.85 - share_interval(850, n)[0]
    other = share_interval(400, 500)[1] - 0.8
    training = stats.t.ppf(0.975, 3) * sd * np.sqrt(1 + 1 / 4)
    assert cell.spread == pytest.approx(np.sqrt(own**2 + other**2 + training**2))
    assert cell.error == pytest.approx(share_interval(400, 500))
    assert (cell.difference, cell.sd) == (pytest.approx(0.05), sd)


def test_the_p_value_is_the_level_at_which_the_spread_is_the_difference() -> None:
    for value in (0.80, 0.84, 0.87, 0.92):
        cell = compare("0.9000", accuracy(value, 2000, 5, 0.004), "accuracy", images=2000)
        assert cell.p is not None and cell.spread is not None
        assert (cell.p < 0.05) == (abs(value - 0.9) - 0.00005 > cell.spread)
    alone = Ours(0.80, (0.78, 0.82), 10_000, 2, 0.001)  # all but the images is small
    far = compare("0.90", alone, "accuracy", images=10**9)
    assert far.p is not None and far.p < 0.01


def test_what_a_number_was_rounded_by_is_given_away() -> None:
    ours = Ours(0.874, (0.8735, 0.8745), 10**6, 5, 0.0001)
    assert compare("0.88", ours, "auc_binary").verdict == "differs"
    assert compare("0.87", ours, "auc_binary").p == 1.0
    assert compare("0.9", Ours(0.94, (0.93, 0.95), 50), "auc_binary").p == 1.0


def test_an_unknown_test_set_is_taken_to_be_as_large_as_ours() -> None:
    ours = Ours(0.8, (0.77, 0.83), 400, 5, 0.001)
    unknown, same, larger = (
        compare("0.85", ours, "f1_binary", images=n).spread for n in (None, 400, 40_000)
    )
    assert unknown == same and larger is not None and same is not None and larger < same


def test_many_cells_are_held_to_one_error_rate() -> None:
    """Twenty exact replications: alone one in twenty differs, together seldom any does."""
    rng = np.random.default_rng(0)
    alone = together = 0
    for _ in range(60):
        cells = []
        for _ in range(20):
            a, b = rng.binomial(400, 0.85, 2) / 400
            # Seeds that agree leave the images alone as chance.
            cells.append(compare(str(a), accuracy(b, 400, 50, 1e-6), "accuracy", images=400))
        alone += sum(cell.verdict == "differs" for cell in cells)
        together += any(cell.verdict == "differs" for cell in settled(cells))
    assert 0.01 < alone / 1200 < 0.07
    assert together / 60 <= 0.05
    one = compare("0.5", accuracy(0.9, 400), "accuracy", images=400)
    crowd = [compare("0.9", accuracy(0.9, 400), "accuracy", images=400)] * 9
    assert settled([one, *crowd])[0].verdict == "differs"  # 40 points are no matter of chance
    weak = compare("0.85", accuracy(0.905, 1500, 60, 0.015), "accuracy", images=1500)
    assert weak.verdict == "differs" and weak.p is not None and weak.p > 0.005
    assert settled([weak] * 9)[0].verdict == "cannot tell"


# ---------------------------------------------------------------- the reported numbers alone


def test_a_reported_accuracy_has_the_error_of_its_images() -> None:
    low, high = reported_error("62.3", "accuracy", 149, 100) or (0, 0)
    assert (low, high) == pytest.approx((54.0, 70.1), abs=0.1)  # about eight points either way
    assert reported_error("0.9", "auc_binary", 149) is None
    assert reported_error("0.9", "accuracy", None) is None


def test_rows_that_their_images_cannot_tell_apart_are_found() -> None:
    rows = [("A", "61.7"), ("B", "62.3"), ("C", "65.1"), ("D", "95.0"), ("E", "95.0")]
    found = indistinguishable(rows, 149, 100)
    assert found == [("A", "B"), ("A", "C"), ("B", "C")]
    assert indistinguishable(rows, 10**7, 100) == []


# ---------------------------------------------------------------- what is not compared


def test_what_may_not_be_compared_is_not() -> None:
    ours = Ours(0.88, (0.8, 0.9))
    cell = compare("0.88", ours, "accuracy", reasons=["PHANTOM", "unclear column"])
    assert cell.verdict == "not comparable" and cell.p is None
    assert cell.words == "not comparable (PHANTOM, unclear column)"
    assert cell.difference == 0
    assert compare("0.88", Ours(0.9), None, reasons=["PARTIAL"]).verdict == "not comparable"


def test_without_an_interval_nothing_is_said() -> None:
    assert compare("0.88", Ours(0.88), "accuracy").verdict == "no interval"


def test_without_both_numbers_there_is_no_verdict() -> None:
    for reported, ours in ((None, Ours(0.5)), ("0.5", None), (None, None)):
        cell = compare(reported, ours, "accuracy", reasons=["PHANTOM"])
        assert (cell.verdict, cell.difference, cell.words) == (None, None, "")


def test_the_footnote_explains_the_words_that_are_there() -> None:
    marks = ("PHANTOM", "LEAKY", "PHANTOM")
    cells = [compare("0.5", Ours(0.5), "accuracy", reasons=[mark]) for mark in marks]
    assert explained(cells) == ["Verdict: n/c = not comparable (LEAKY, PHANTOM)."]
    cells += [compare("0.5", accuracy(0.5, 9), "accuracy"), compare("0.5", Ours(0.5), None)]
    note, chance = explained(cells)
    words = ("cannot tell =", "n/c =", "no CI =", "differs =", "within =")
    assert [word in note for word in words] == [1, 1, 1, 0, 0]
    assert "1 cells at 5%" in chance or "1 cell at 5%" in chance
    assert explained([Compared(), Compared("0.5")]) == []
