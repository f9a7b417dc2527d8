"""Rows of the listings; their commands are run in test_cli.py."""

from medexp import compose, listing


def test_verdicts():
    assert listing.verdict(100, 100) == "agrees"
    assert listing.verdict(90, 1100) == "differs (-1,010)"
    assert listing.verdict(100, None) == "not reported"


def test_every_option_of_the_groups_has_a_row():
    names = [row["model"] for row in listing.model_rows([])]
    assert names == compose.options("model") and len(names) >= 8
    rows = {row["dataset"]: row for row in listing.dataset_rows([])}
    assert list(rows) == compose.options("dataset")
    assert rows["pcam"]["counts"] == {"train": 262144, "val": 32768, "test": 32768}
    assert rows["pcam"]["phantom"] and not rows["pcam"]["found"]
