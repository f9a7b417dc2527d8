"""Rows of the listings; their commands are run in test_cli.py."""

from medexp.cli import listing
from medexp.config.groups import options
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
    assert [listing.short(n) for n in (0, 999, 1000, 15_470_264_320)] == ["0", "999", "1k", "15.5G"]


def test_every_data_set_has_a_row():
    rows = {row["dataset"]: row for row in listing.dataset_rows([])}
    assert list(rows) == options("dataset")
    assert rows["pcam"]["counts"] == {"train": 262144, "val": 32768, "test": 32768}
    assert rows["pcam"]["phantom"] and not rows["pcam"]["found"]
