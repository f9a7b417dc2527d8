"""Verdicts: against every number that is printed like the reported one."""

import numpy as np
import pytest

from medexp.score.verdict import Compared, compare, explained


@pytest.mark.parametrize("seed", range(4))
def test_within_is_that_some_number_in_the_interval_is_printed_so(seed: int) -> None:
    """The oracle prints numbers on a fine grid over the interval."""
    rng = np.random.default_rng(seed)
    verdicts = set()
    for _ in range(200):
        digits = int(rng.integers(0, 4))
        unit = 10.0**-digits
        low = rng.uniform(5, 30) * unit
        high = low + rng.uniform(0, 3) * unit
        reported = f"{low + rng.uniform(-2, 4) * unit:.{digits}f}"
        printed = {f"{x:.{digits}f}" for x in np.linspace(low, high, 400)}
        found = compare(reported, low, (low, high)).verdict
        assert found == ("within interval" if reported in printed else "differs")
        verdicts.add(found)
    assert verdicts == {"within interval", "differs"}


def test_a_shorter_number_stands_for_more() -> None:
    interval = (0.874, 0.879)
    assert compare("0.880", 0.8765, interval).verdict == "differs"
    cell = compare("0.88", 0.8765, interval, sd=0.002)
    assert (cell.verdict, cell.sd, cell.interval) == ("within interval", 0.002, interval)
    assert cell.difference == pytest.approx(-0.0035)  # ours less the paper's


def test_what_may_not_be_compared_is_not() -> None:
    cell = compare("0.88", 0.88, (0.8, 0.9), reasons=["PHANTOM", "unclear column"])
    assert cell.verdict == "not comparable"
    assert cell.words == "not comparable (PHANTOM, unclear column)"
    assert cell.difference == 0
    assert compare("0.88", 0.9, None, reasons=["PARTIAL"]).verdict == "not comparable"


def test_without_an_interval_nothing_is_said() -> None:
    assert compare("0.88", 0.88, None).verdict == "no interval"


@pytest.mark.parametrize(("reported", "ours"), [(None, 0.5), ("0.5", None), (None, None)])
def test_without_both_numbers_there_is_no_verdict(reported: str | None, ours: float | None) -> None:
    cell = compare(reported, ours, None, reasons=["PHANTOM"])
    assert (cell.verdict, cell.difference, cell.words) == (None, None, "")


def test_the_footnote_explains_the_words_that_are_there() -> None:
    cells = [compare("0.5", 0.5, None, reasons=[mark]) for mark in ("PHANTOM", "LEAKY", "PHANTOM")]
    assert explained(cells) == ["Verdict: n/c = not comparable (LEAKY, PHANTOM)."]
    (note,) = explained([*cells, compare("0.5", 0.5, (0, 1)), compare("0.5", 0.5, None)])
    assert [word in note for word in ("within =", "n/c =", "no CI =", "differs")] == [1, 1, 1, 0]
    assert explained([Compared(), Compared("0.5")]) == []
