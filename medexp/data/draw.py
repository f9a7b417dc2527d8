"""Images drawn at random: a part of a split, a fold, a subset; pure functions of labels and a seed.

Each kind of split draws as scikit-learn, Keras or a paper's listing does, image by image.
"""

import math
import random
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import (
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    train_test_split,
)

from medexp.data.base import Pool
from medexp.data.grouped import nearest_groups
from medexp.errors import ConfigError, MedexpError


@dataclass(frozen=True)
class Draw:
    """Draws rows of a pool. kind: stratified | patients | random."""

    pool: Pool
    kind: str
    seed: int

    def take(self, rows: np.ndarray, count: int, keep: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Take about `count` of the rows away: (the others, those taken), in the order drawn.

        keep: patients of each class that must be among the others, 2 where validation is drawn from
        them. Raises MedexpError where a class would be missing on one side.
        """
        labels = self.pool.labels[rows]
        if self.kind == "patients":
            assert self.pool.groups is not None
            groups = self.pool.groups[rows]
            first, second = grouped_split(labels, groups, count / len(rows), self.seed, keep)
            return rows[first], rows[second]
        if self.kind == "random":
            if not 0 < count < len(rows):
                raise MedexpError(too_few(labels, count / len(rows)))
            first, second = train_test_split(rows, test_size=count, random_state=self.seed)
            return first, second
        return stratified_split(rows, labels, count, self.seed)

    def take_val(self, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """`take` for the validation part, which is empty for a count of 0.

        At random it is the tail of the rows, as Keras' validation_split takes it.
        """
        if count == 0:
            return rows, np.empty(0, np.intp)
        return (rows[:-count], rows[-count:]) if self.kind == "random" else self.take(rows, count)

    def shuffled(self, rows: np.ndarray) -> np.ndarray:
        """The rows in the order whose tail becomes the validation part; only `random` needs one."""
        return np.random.default_rng(self.seed).permutation(rows) if self.kind == "random" else rows

    def fold(self, folds: int, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """(the others, the rows of fold number `fold`) of a cross-validation over the whole pool.

        Raises ConfigError for more folds than images or patients, and a fold without a class.
        """
        labels, groups = self.pool.labels, self.pool.groups if self.kind == "patients" else None
        classes, counts = np.unique(labels, return_counts=True)
        units = counts.min() if groups is None else len(np.unique(groups))
        if self.kind != "random" and min(units, counts.min()) < folds:
            raise ConfigError(
                f"dataset.folds={folds}: {self.pool.name} has too few images or patients for so "
                f"many ({count_per_class(labels)})"
            )
        makers = {"stratified": StratifiedKFold, "patients": StratifiedGroupKFold, "random": KFold}
        splitter = makers[self.kind](folds, shuffle=True, random_state=self.seed)
        rest, test = list(splitter.split(np.zeros(len(labels)), labels, groups))[fold]
        if len(np.unique(labels[test])) < len(classes):
            raise ConfigError(
                f"dataset.fold={fold}: a class has no image in this fold of whole patients. Take "
                "fewer folds or another dataset.split_seed"
            )
        return rest, test


def share_count(share: float, total: int) -> int:
    """scikit-learn's count of a share: rounded up, but not by the last bit of a product."""
    return math.ceil(round(share * total, 6))


def stratified_split(
    rows: np.ndarray, labels: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's train_test_split of the rows by label: (others, count of them).

    Raises MedexpError where a class has too few images to be on both sides.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2 or not len(classes) <= count <= len(rows) - len(classes):
        raise MedexpError(too_few(labels, count / len(rows)))
    first, second = train_test_split(rows, test_size=count, stratify=labels, random_state=seed)
    return first, second


def grouped_split(
    labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int, keep: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Split group by group (patient, slide): none has images on both sides.

    labels, groups: (n,). fraction: the share of the second part, met as nearly as whole groups
    allow, with the classes in the same proportion as nearly as possible; data/grouped.py says how.
    keep: groups of each class that the first part has at least.
    Returns (first, second): sorted indices, disjoint, together all of 0..n-1.
    Raises MedexpError for fewer than two groups, a fraction that is not between 0 and 1, and a
    class that is in too few groups to be on both sides.
    """
    names, group_of = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise MedexpError(f"{len(names)} group (patient, slide): a split by group needs at least 2")
    if not 0 < fraction < 1:
        raise MedexpError(
            f"{fraction:.0%} of the images by group (patient, slide): need a share between 0 and "
            "1. Change dataset.test_share or dataset.val_share"
        )
    classes, label_of = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(names), len(classes)))
    np.add.at(counts, (group_of, label_of), 1)
    chosen = nearest_groups(counts, fraction, np.random.default_rng(seed), keep)
    if chosen is None:
        owners = zip(classes, (counts > 0).sum(axis=0), strict=True)
        raise MedexpError(
            f"{too_few(labels, fraction)}; of patients or slides: "
            + ", ".join(f"class {label}: {number}" for label, number in owners)
        )
    second = chosen[group_of]
    return np.flatnonzero(~second), np.flatnonzero(second)


def per_class(
    pool: Pool, rows: np.ndarray, test_share: float, val_share: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each class sorted by file name, shuffled and cut: (train, val, test) rows.

    Python's `random` with the same seed for every class, and int() of the training share, as in
    the listing of Figure 9 of Mir and Nissa 2019.
    """
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for label in range(len(pool.classes)):
        of_class = rows[pool.labels[rows] == label].tolist()
        of_class.sort(key=lambda row: pool.files[row].name)
        random.Random(seed).shuffle(of_class)
        second = int((1 - test_share) * len(of_class))
        first = int((1 - test_share - val_share) * len(of_class)) if val_share else second
        parts[0].extend(of_class[:first])
        parts[1].extend(of_class[first:second])
        parts[2].extend(of_class[second:])
    train, val, test = (np.array(part, np.intp) for part in parts)
    return train, val, test


def stratified_subset(
    labels: np.ndarray, size: int, seed: int, *, name: str = "size"
) -> np.ndarray:
    """Choose `size` images, the classes in the same proportion as in all.

    Nested: with the same seed, a smaller subset lies within a larger one.
    Returns (size,) sorted indices. Raises ConfigError, which calls the size `name`, where it is
    smaller than the number of classes or larger than the number of images.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if not len(classes) <= size <= len(labels):
        raise ConfigError(
            f"{name}={size:,}: need {len(classes)} (one image a class) to {len(labels):,} (all)"
        )
    rng = np.random.default_rng(seed)
    place = np.empty(len(labels))
    for label, count in zip(classes, counts, strict=True):
        # Classes advance through their own shuffled order at the same relative speed.
        place[labels == label] = rng.permutation(count) / count
    return np.sort(np.argsort(place, kind="stable")[:size])


def too_few(labels: np.ndarray, fraction: float) -> str:
    return (
        f"too few images or groups to put every class on both sides of a "
        f"{1 - fraction:.0%}:{fraction:.0%} split ({count_per_class(labels)})"
    )


def count_per_class(labels: np.ndarray) -> str:
    classes, counts = np.unique(labels, return_counts=True)
    return ", ".join(f"class {c}: {n}" for c, n in zip(classes, counts, strict=True))
