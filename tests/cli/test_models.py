"""Rows of `medexp models`; the commands themselves are run in test_dispatch.py."""

from medexp.cli import models, terminal
from medexp.models import counts


def test_verdicts():
    assert counts.verdict(100, 100) == "agrees"
    assert counts.verdict(90, 1100) == "differs (-1,010)"
    assert counts.verdict(100, None) == "not reported"


def test_what_a_paper_counts_decides_what_is_compared():
    def both(**about):
        return counts.reported_count(about, 10, 12)

    assert both(reported_parameters=10, reported_total=12) == (10, 10)
    assert both(reported_parameters=None, reported_total=12) == (12, 12)
    assert both(reported_parameters=33, reported_includes_adam=True) == (33, 33)
    assert both() == (None, 10)


def test_short_numbers():
    shown = [models.short(n) for n in (0, 999, 1000, 999_500, 15_470_264_320)]
    assert shown == ["0", "999", "1k", "1M", "15.5G"]


def test_the_networks_of_a_paper_end_in_their_notes(capsys):
    facts = {"input": [3, 96, 96], "trainable": 1200, "total": 1300, "multiply_adds": 5_000_000}
    facts |= {"activation_bytes": 2_000_000, "verdict": "agrees", "where": "Table 2"}
    rows = [facts | {"model": name, "note": note} for name, note in
            (("a", "They share a typo."), ("b", "They share a typo."), ("c", None))]  # fmt: skip
    models.print_models("Doe 2020", rows)
    text = capsys.readouterr().out
    assert "Doe 2020" in text and text.count("a (Table 2); b (Table 2): They share a typo.") == 1
    for cell in ("3x96x96", "1,200", "1,300", "5M", "2MB", "agrees"):
        assert text.count(f" {cell} ") == 3, cell


def test_a_long_word_is_not_broken():
    address = "https://example.org/" + "a" * 90
    lines = terminal.wrapped(f"{'word ' * 20}{address}", 4, 2).splitlines()
    assert [len(line) - len(line.lstrip()) for line in lines] == [4, 6, 6]
    assert len(lines[0]) <= 80 and lines[-1].strip() == address
