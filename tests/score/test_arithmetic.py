"""Expressions of printed numbers, held against Python's own fractions and numbers drawn."""

from fractions import Fraction
from math import log
from random import Random

import pytest

from medexp.config.paper import Paper, parse_paper
from medexp.errors import MedexpError
from medexp.score.arithmetic import expression, overlap, shown, span_of

NODE = {
    "title": "T",
    "citation": "C",
    "table": "Table 1",
    "dataset": "d",
    "columns": [{"name": n, "metric": None, "digits": 2} for n in ("Accuracy (%)", "F1", "Kappa")],
    "rows": [
        {"label": "before a", "reported": {"Accuracy (%)": "80.0", "F1": "0.70"}},
        {"label": "before b", "reported": {"Accuracy (%)": "70.0", "F1": "0.80"}},
        {"label": "after a", "reported": {"Accuracy (%)": "85.5", "F1": "0.750"}},
        {"label": "after b", "reported": {"Accuracy (%)": "90.0", "F1": ".9"}},
    ],
}


@pytest.fixture
def paper() -> Paper:
    return parse_paper(NODE)


@pytest.mark.parametrize(
    "text",
    [
        "3*(7*7*3*32 + 7*7*32*16 + 2*(32+16) + 4096*1024+1024 + 1024*3+3) + 3",
        "451791 - (400*200+200 + 200*200+200 + 200+1)",
        "-5 + 7 - 3*(2 - 8)/4",
        "2526 + 4165",
    ],
)
def test_whole_numbers_are_exact(paper: Paper, text: str) -> None:
    found = expression(paper, text)
    exact = Fraction(eval(text.replace("/", "/ Fraction(1) /"), {"Fraction": Fraction}))
    assert found.value.low == found.value.middle == found.value.high == float(exact)
    assert found.text == text.replace("*", "·") and not found.plain


def test_all_that_rounds_to_the_printed_numbers_lies_in_the_span(paper: Paper) -> None:
    """True values are drawn, printed with two digits, and put into the formula both ways."""
    random = Random(0)
    for _ in range(300):
        a, b, c = (random.uniform(0.1, 1) for _ in range(3))
        printed = (
            f"2*{a:.2f}*{b:.2f}/({a:.2f}+{b:.2f}) - {c:.2f} + max({a:.2f}, mean({b:.2f}, {c:.2f}))"
        )
        true = 2 * a * b / (a + b) - c + max(a, (b + c) / 2)
        low, high, middle = expression(paper, printed).value
        assert low <= true <= high and low < middle < high
        assert high - low < 0.08


def test_the_point_says_where_a_number_is_rounded(paper: Paper) -> None:
    spans = [expression(paper, text).value.span for text in ("63.", "63", "0.880", "-.9")]
    expected = [(62.5, 63.5), (63, 63), (0.8795, 0.8805), (-0.95, -0.85)]
    assert spans == [pytest.approx(span) for span in expected]
    assert expression(paper, "63.").text == "63" and expression(paper, "12684876").plain
    assert expression(paper, 12684876).text == "12,684,876"


def test_numbers_of_the_table(paper: Paper) -> None:
    one = expression(paper, "at('after a', 'F1')")
    assert one.plain and one.text == "0.750"
    assert one.value.span == pytest.approx((0.7495, 0.7505))
    best = expression(paper, "max(column('Accuracy (%)'))/100")
    assert best.text == "max(80.0, 70.0, 85.5, 90.0)/100" and best.value.middle == 0.9
    gain = expression(paper, "mean(gains('F1', 'before ', 'after '))")
    assert gain.text == "mean(0.750 - 0.70, .9 - 0.80)"
    assert gain.value.middle == pytest.approx(0.075)
    assert gain.value.span == pytest.approx(((0.0445 + 0.045) / 2, (0.0555 + 0.155) / 2))


def test_a_logarithm_is_of_all_that_its_number_may_be(paper: Paper) -> None:
    one = expression(paper, "log(0.50)/2")
    assert one.value == pytest.approx((log(0.495) / 2, log(0.505) / 2, log(0.5) / 2))
    assert one.text == "log(0.50)/2" and not one.plain
    assert expression(paper, "log(100/10)").value.span == pytest.approx((log(10), log(10)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("log(0.4 - 0.4)", "'log\\(0.4 - 0.4\\)' is of what may be 0 or less"),
        ("log(1, 2)", "is none of: a number"),
        ("at('after c', 'F1')", "no row 'after c' in Table 1. Did you mean 'after "),
        ("at('after a', 'F')", "no column 'F' in Table 1. Did you mean 'F1'"),
        ("at('after a', 'Kappa')", "row 'after a' reports no 'Kappa'"),
        ("column('F1')", "is none of: a number"),
        ("max()", "is none of: a number"),
        ("1 +", "'1 \\+' cannot be read"),
        ("2**3", "is none of: a number"),
        ("__import__('os')", "is none of: a number"),
        ("'a'", "is none of: a number"),
        ("True", "is none of: a number"),
        ("1/(0.4 - 0.4)", "divides by what may be 0"),
    ],
)
def test_what_is_no_expression_is_refused(paper: Paper, text: str, message: str) -> None:
    with pytest.raises(MedexpError, match=message):
        expression(paper, text)


def test_spans_and_texts() -> None:
    assert span_of("93.02%") == pytest.approx((0.93015, 0.93025))
    assert span_of("0.89") == pytest.approx((0.885, 0.895))
    assert overlap((0, 1), (1, 2)) and overlap((0, 3), (1, 2)) and not overlap((0, 1), (1.001, 2))
    assert overlap((0, 0.1 + 0.2), (0.3, 1))  # .1 + .2 is a bit more than .3
    assert [shown(x) for x in (1484.0, 33.09758, 0.5, 123456.789)] == [
        "1,484", "33.098", "0.5", "123,456.8",
    ]  # fmt: skip
