"""Splits by whole groups against every choice there is, and against sums that can be reached."""

from itertools import product

import numpy as np
import pytest
from sklearn.model_selection import GroupShuffleSplit

from medexp.data.draw import grouped_split
from medexp.data.grouped import EXACT, nearest_groups
from medexp.errors import MedexpError


def drawn_counts(rng, groups, classes, alone):
    """Images of each group and class; `alone`: each group is of one class."""
    counts = rng.integers(0, 30, (groups, classes))
    if alone:
        counts *= np.arange(classes) == rng.integers(0, classes, groups)[:, None]
    counts[np.arange(groups), np.arange(groups) % classes] += 1
    return counts


@pytest.mark.parametrize("share", [0.1, 0.35, 0.4, 0.5, 0.67, 0.7, 0.9])
def test_one_image_a_patient_meets_any_share(share):
    labels, groups = np.arange(100) % 2, np.array([f"p{i:03d}" for i in range(100)])
    peer = next(GroupShuffleSplit(1, test_size=share, random_state=0).split(labels, groups=groups))
    for seed in range(3):
        first, second = grouped_split(labels, groups, share, seed)
        assert len(second) == len(peer[1]) == round(100 * share)
        assert abs(labels[second].sum() - share * 50) <= 0.5
        assert np.array_equal(np.sort(np.concatenate([first, second])), np.arange(100))


@pytest.mark.parametrize("alone", [False, True])
def test_no_choice_of_few_groups_is_nearer(alone):
    """Every choice, one by one: none is nearer the share, and none as near has better classes."""
    rng = np.random.default_rng(3)
    for trial in range(12):
        counts = drawn_counts(rng, 9, 2 + trial % 2, alone)
        totals, share = counts.sum(axis=0), float(rng.uniform(0.1, 0.9))

        def worth(chosen, counts=counts, totals=totals, share=share):
            held, rest = counts[chosen], counts[~chosen]
            if not (held.any(axis=0).all() and rest.any(axis=0).all()):
                return None
            off = held.sum(axis=0) - held.sum() * totals / totals.sum()
            return (
                round(abs(held.sum() - share * totals.sum()), 6),
                round(sum(d * d / n for d, n in zip(off, totals, strict=True)), 9),
            )

        values = (worth(np.array(bits, bool)) for bits in product([0, 1], repeat=9))
        best = min(value for value in values if value is not None)
        for seed in range(2):
            found = nearest_groups(counts, share, np.random.default_rng(seed))
            assert worth(found) == pytest.approx(best)


@pytest.mark.parametrize("alone", [False, True])
def test_many_groups_meet_what_sums_can_reach(alone):
    """Against all sums of group sizes, for groups too many to try every choice."""
    rng = np.random.default_rng(4)
    for trial in range(40):
        counts = drawn_counts(rng, EXACT + 1 + trial, 2, alone)
        sizes, share = counts.sum(axis=1).tolist(), float(rng.uniform(0.15, 0.85))
        sums = {0}
        for size in sizes:
            sums |= {total + size for total in sums}
        found = nearest_groups(counts, share, np.random.default_rng(trial))
        wanted = share * sum(sizes)
        reached = counts[found].sum()
        assert abs(reached - wanted) == pytest.approx(min(abs(total - wanted) for total in sums))
        classes = counts.sum(axis=0) / counts.sum()
        assert np.abs(counts[found].sum(axis=0) / reached - classes).max() < 0.2


def test_the_second_part_is_not_of_the_largest_groups():
    rng = np.random.default_rng(5)
    sizes = rng.integers(1, 200, 300)
    groups = np.repeat(np.arange(300), sizes)
    labels = rng.integers(0, 2, len(groups))
    taken = [len(np.unique(groups[grouped_split(labels, groups, 0.3, s)[1]])) for s in range(5)]
    assert 0.25 < np.mean(taken) / 300 < 0.35


def test_the_seed_decides():
    groups = np.repeat(np.arange(60), 5).astype(str)
    labels = np.random.default_rng(6).integers(0, 2, 300)
    parts = [grouped_split(labels, groups, 0.3, seed)[1].tolist() for seed in (0, 0, 1, 2)]
    assert parts[0] == parts[1] and len(set(map(tuple, parts))) == 3


def test_a_class_is_on_both_sides_though_the_share_is_then_missed():
    labels = np.repeat([0, 1], [40, 60])
    groups = np.array(["a"] * 20 + ["b"] * 20 + ["c"] * 30 + ["d"] * 30)
    _, second = grouped_split(labels, groups, 0.2, 0)  # "a" alone would be exact
    assert set(labels[second]) == {0, 1} and len(second) == 50


def test_too_few_groups_take_one():
    labels, groups = np.array([0, 1] * 20), np.repeat(["a", "b", "c", "d"], 10)
    for share in (0.1, 0.9):
        first, second = grouped_split(labels, groups, share, 0)
        assert {len(set(groups[first])), len(set(groups[second]))} == {1, 3}


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_no_share_is_refused(share):
    labels, groups = np.array([0, 1] * 20), np.repeat(["a", "b", "c", "d"], 10)
    with pytest.raises(MedexpError, match="need a share between 0 and 1. Change dataset.test"):
        grouped_split(labels, groups, share, 0)


def test_one_group_is_refused():
    with pytest.raises(MedexpError, match=r"1 group .*needs at least 2"):
        grouped_split(np.array([0, 1, 0, 1]), np.array(["a"] * 4), 0.2, 0)


def test_groups_of_one_class_are_refused_with_their_number():
    labels = np.repeat([0, 1], 10)
    with pytest.raises(MedexpError, match="too few images or groups.*slides: class 0: 1, class 1"):
        grouped_split(labels, labels.astype(str), 0.5, 0)
