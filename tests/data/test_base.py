"""The invariants that every data set is held to."""

import numpy as np
import pytest

from medexp.data.base import Dataset, Split
from medexp.errors import MedexpError


def split(n=6, labels=None, shape=(4, 4, 3), dtype=np.uint8):
    labels = np.arange(n) % 2 if labels is None else np.asarray(labels)
    return Split(np.zeros((n, *shape), dtype), labels, np.array([str(i) for i in range(n)]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: split(6, labels=[0, 1]), "6 images but 2 labels"),
        (lambda: split(shape=(4, 4)), r"need \(N, H, W, C\)"),
        (lambda: split(dtype=np.int32), "images are int32: need uint8 or float32"),
        (lambda: split(2, labels=[0.0, 1.0]), "labels are float64: need integers"),
        (lambda: Dataset("x", ("a", "b"), split(), split(0), split()), "the val split is empty"),
        (
            lambda: Dataset("x", ("a", "b"), split(2, [0, 2]), split(), split()),
            "labels of the train split run from 0 to 2, but there are 2 classes",
        ),
        (
            lambda: Dataset("x", ("a", "b"), split(), split(shape=(5, 4, 3)), split()),
            "val images have shape",
        ),
    ],
)
def test_broken_data_are_refused(make, message):
    with pytest.raises(MedexpError, match=message):
        make()


def test_fingerprint_changes_with_every_pixel_and_label_and_nothing_else():
    images = np.random.default_rng(0).integers(0, 256, (3000, 4, 4, 1)).astype(np.uint8)
    ids, labels = np.arange(3000).astype(str), np.zeros(3000, np.int64)
    first = Split(images, labels, ids).fingerprint()
    assert Split(images.copy(), labels.astype(np.int32), ids[::-1]).fingerprint() == first
    changed = images.copy()
    changed[2999, 3, 3, 0] ^= 1
    assert Split(changed, labels, ids).fingerprint() != first
    other = labels.copy()
    other[5] = 1
    assert Split(images, other, ids).fingerprint() != first
