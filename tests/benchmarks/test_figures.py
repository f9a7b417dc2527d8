"""The arithmetic, on made-up numbers."""

import pytest

from benchmarks.speed import figures
from benchmarks.speed.figures import Spread

REPORT = {
    "images": 1000,
    "epoch_seconds": [9.0, 2.0, 4.0, 2.5],
    "train_seconds": [8.0, 1.0, 2.0, 1.25],
    "first_step": 107.5,
    "precision": "float32",
    "device_memory": None,
    "versions": {"torch": "2.9.1"},
}


def test_spread_is_median_and_extremes():
    assert Spread.of([3.0, 1.0, 10.0]) == Spread(3.0, 1.0, 10.0)
    assert Spread.of(iter([4.0, 2.0])) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


def test_the_first_epoch_is_not_counted():
    one = figures.measured(REPORT, started=100.0, memory=5)
    assert one.images_per_s == 1000 / 2.5  # the median of 2, 4 and 2.5 seconds
    assert one.training_images_per_s == 1000 / 1.25
    assert (one.first_step, one.memory, one.device_memory) == (7.5, 5, None)
    assert one.extra == {}


def test_what_a_report_says_itself_of_its_memory_and_first_step():
    report = REPORT | {"memory": 3, "first_step": None, "extra": {"step": "eager"}}
    one = figures.measured(report, started=100.0, memory=5)
    assert (one.first_step, one.memory, one.extra) == (None, 3, {"step": "eager"})


def test_ratios_are_taken_round_by_round():
    """The machine is half as fast in the second round, for both: the ratio does not see it."""
    assert figures.ratios([300.0, 150.0, 300.0], [100.0, 50.0, 120.0]) == Spread(3.0, 2.5, 3.0)
    with pytest.raises(ValueError, match="shorter"):
        figures.ratios([1.0, 2.0], [1.0])


def test_time_left():
    assert figures.seconds_left({}, ["a"]) is None
    assert figures.seconds_left({"a": 4.0, "b": 8.0}, ["a", "b", "b"]) == 20.0
    assert figures.seconds_left({"a": 4.0, "b": 8.0}, ["c"]) == 6.0, "like the others"
    assert figures.seconds_left({"a": 4.0}, []) == 0.0


def test_bytes_moved_and_rates():
    assert figures.bytes_moved(100, 0, 32, 2) == 5 * 100 * 2
    assert figures.bytes_moved(0, 64, 32, 2) == 6 * 4 * 64 / 32
    image = {"multiply_adds": 20, "bytes": 7.0}
    assert figures.of_ceilings(3.0, image) == {"flops": 120.0, "bytes": 21.0}
