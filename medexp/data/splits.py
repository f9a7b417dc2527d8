"""Which images go where: pure functions from labels and groups to sorted index arrays."""

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from medexp.errors import MedexpError


def stratified_split(
    labels: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split image by image, every class in the same proportion on both sides.

    labels: (n,) integers. fraction: the share of the second part, 0..1.
    Returns (first, second): sorted indices, disjoint, together all of 0..n-1.
    Raises MedexpError where a class has too few images to be on both sides.
    """
    size = round(fraction * len(labels))
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2 or not len(classes) <= size <= len(labels) - len(classes):
        raise MedexpError(_too_few(labels, fraction))
    first, second = train_test_split(
        np.arange(len(labels)), test_size=size, stratify=labels, random_state=seed
    )
    return _checked(labels, np.sort(first), np.sort(second), fraction)


def grouped_split(
    labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split group by group (patient, slide): none has images on both sides.

    labels, groups: (n,). fraction: the share of the second part, met as nearly as whole groups
    allow, with the classes in the same proportion as nearly as possible.
    Returns (first, second): sorted indices, disjoint, together all of 0..n-1.
    Raises MedexpError for fewer than two groups, or where one side would lack a class.
    """
    count = len(np.unique(groups))
    if count < 2:
        raise MedexpError(f"{count} group (patient, slide): a split by group needs at least 2")
    # Of 1/fraction folds of whole groups, one is the second part.
    folds = min(round(1 / fraction), count)
    smallest = np.unique(labels, return_counts=True)[1].min()
    if smallest < folds:
        raise MedexpError(_too_few(labels, fraction))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    first, second = next(splitter.split(np.zeros(len(labels)), labels, groups))
    return _checked(labels, np.sort(first), np.sort(second), fraction)


def stratified_subset(
    labels: np.ndarray, size: int, seed: int, *, name: str = "size"
) -> np.ndarray:
    """Choose `size` images, the classes in the same proportion as in all.

    Nested: with the same seed, a smaller subset lies within a larger one.
    Returns (size,) sorted indices. Raises MedexpError, which calls the size `name`, where it is
    smaller than the number of classes or larger than the number of images.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if not len(classes) <= size <= len(labels):
        raise MedexpError(
            f"{name}={size:,}: need {len(classes)} (one image a class) to {len(labels):,} (all)"
        )
    rng = np.random.default_rng(seed)
    place = np.empty(len(labels))
    for label, count in zip(classes, counts, strict=True):
        # Classes advance through their own shuffled order at the same relative speed.
        place[labels == label] = rng.permutation(count) / count
    return np.sort(np.argsort(place, kind="stable")[:size])


def _checked(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    classes = np.unique(labels)
    if any(len(np.unique(labels[part])) < len(classes) for part in (first, second)):
        raise MedexpError(_too_few(labels, fraction))
    return first, second


def _too_few(labels: np.ndarray, fraction: float) -> str:
    classes, counts = np.unique(labels, return_counts=True)
    held = ", ".join(f"class {c}: {n}" for c, n in zip(classes, counts, strict=True))
    return (
        f"too few images or groups to put every class on both sides of a "
        f"{1 - fraction:.0%}:{fraction:.0%} split ({held})"
    )
