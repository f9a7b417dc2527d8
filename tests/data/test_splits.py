import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from medexp.data.splits import grouped_split, stratified_split, stratified_subset
from medexp.errors import MedexpError

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [120, 60, 21]))
GROUPS = np.random.default_rng(1).integers(0, 30, len(LABELS)).astype(str)


def is_partition(first, second, count):
    return np.array_equal(np.sort(np.concatenate([first, second])), np.arange(count))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_stratified_split_is_scikit_learns_sorted(fraction, seed):
    first, second = stratified_split(LABELS, fraction, seed)
    oracle = train_test_split(
        np.arange(len(LABELS)),
        test_size=round(fraction * len(LABELS)),
        stratify=LABELS,
        random_state=seed,
    )
    assert np.array_equal(first, np.sort(oracle[0]))
    assert np.array_equal(second, np.sort(oracle[1]))


@pytest.mark.parametrize("seed", range(5))
def test_stratified_split_covers_all_and_keeps_proportions(seed):
    first, second = stratified_split(LABELS, 0.2, seed)
    assert is_partition(first, second, len(LABELS))
    assert np.all(np.abs(np.bincount(LABELS[second]) - 0.2 * np.bincount(LABELS)) <= 1)


def test_stratified_split_depends_on_the_seed():
    assert not np.array_equal(
        stratified_split(LABELS, 0.2, 0)[1], stratified_split(LABELS, 0.2, 1)[1]
    )


def test_stratified_split_refuses_a_class_of_one():
    with pytest.raises(MedexpError, match=r"every class on both sides.*class 0: 9, class 1: 1"):
        stratified_split(np.array([0] * 9 + [1]), 0.2, 0)


def test_stratified_split_refuses_a_part_smaller_than_the_classes():
    with pytest.raises(MedexpError, match=r"90%:10% split \(class 0: 4, class 1: 4\)"):
        stratified_split(np.array([0, 1] * 4), 0.1, 0)


@pytest.mark.parametrize("seed", range(5))
def test_groups_never_cross(seed):
    first, second = grouped_split(LABELS, GROUPS, 0.2, seed)
    assert is_partition(first, second, len(LABELS))
    assert not set(GROUPS[first]) & set(GROUPS[second])
    assert 0.1 < len(second) / len(LABELS) < 0.3


def test_grouped_split_with_fewer_groups_than_folds_takes_one_group():
    labels = np.array([0, 1] * 20)
    groups = np.repeat(["a", "b", "c", "d"], 10)
    _, second = grouped_split(labels, groups, 0.1, 0)
    assert len(set(groups[second])) == 1


def test_grouped_split_refuses_one_group():
    with pytest.raises(MedexpError, match=r"1 group .*needs at least 2"):
        grouped_split(np.array([0, 1, 0, 1]), np.array(["a"] * 4), 0.2, 0)


def test_grouped_split_refuses_groups_of_one_class():
    labels = np.repeat([0, 1], 10)
    with pytest.raises(MedexpError, match="too few images or groups"):
        grouped_split(labels, labels.astype(str), 0.5, 0)


def test_grouped_split_refuses_a_rare_class():
    labels = np.array([1] + [0] * 29)
    with pytest.raises(MedexpError, match="class 1: 1"):
        grouped_split(labels, GROUPS[:30], 0.2, 0)


def test_subsets_are_nested_and_stratified():
    larger = np.arange(len(LABELS))
    for size in range(len(LABELS), 2, -1):
        subset = stratified_subset(LABELS, size, seed=3)
        assert len(subset) == size
        assert np.all(np.diff(subset) > 0)
        assert np.isin(subset, larger).all()
        counts = np.bincount(LABELS[subset], minlength=3)
        # Within one of the exact share; with three classes the third may take what two leave.
        assert np.all(np.abs(counts - size * np.bincount(LABELS) / len(LABELS)) <= 2)
        assert counts.min() >= 1
        larger = subset


def test_two_classes_are_stratified_within_one():
    labels = LABELS[LABELS < 2]
    for size in range(2, len(labels) + 1):
        counts = np.bincount(labels[stratified_subset(labels, size, seed=0)])
        assert np.all(np.abs(counts - size * np.bincount(labels) / len(labels)) <= 1)


@pytest.mark.parametrize("size", [-1, 0, 2, 202])
def test_subset_refuses_impossible_sizes(size):
    with pytest.raises(MedexpError, match=rf"images={size}: need 3 \(one .*\) to 201 \(all\)"):
        stratified_subset(LABELS, size, 0, name="images")
