"""The invariants that every data set is held to."""

import numpy as np
import pytest

from medexp.data.base import Dataset, Pool, Rows, Split
from medexp.errors import MedexpError


def split(n=6, labels=None, shape=(4, 4, 3), dtype=np.uint8):
    labels = np.arange(n) % 2 if labels is None else np.asarray(labels)
    return Split(np.zeros((n, *shape), dtype), labels, np.array([str(i) for i in range(n)]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: split(6, labels=[0, 1]), "6 images but 2 labels"),
        (lambda: split(shape=(4, 4)), r"need \(N, H, W, C\)"),
        (lambda: split(dtype=np.int32), "images are int32: need uint8, float16 or float32"),
        (lambda: split(2, labels=[0.0, 1.0]), "labels are float64: need integers"),
        (lambda: Dataset("x", ("a", "b"), split(), split(0), split()), "the val split is empty"),
        (
            lambda: Dataset("x", ("a", "b"), split(2, [0, 2]), split(), split()),
            "x, train split: labels run from 0 to 2, but there are 2 classes",
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


def pool(**facts):
    labels = np.array([0, 1, 0, 1])
    given = {
        "name": "mine", "classes": ("a", "b"), "labels": labels, "ids": np.array(list("wxyz")),
        "files": list("wxyz"), "shape": (4, 4, 1), "dtype": np.uint8, "decode": None,
        "settings": {},
    }  # fmt: skip
    return Pool(**given | facts)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"ids": np.array(["w"])}, "mine: 4 labels but 1 ids"),
        ({"groups": np.array(["p"])}, "mine: 4 labels but 1 groups"),
        ({"ids": np.array(list("wxyx"))}, "mine: id x stands 2 times; ids are unique"),
        ({"labels": np.array([0, 1, 2, 1])}, "labels run from 0 to 2, but there are 2 classes"),
        ({"labels": np.array([0, 1, -1, 1])}, "labels run from -1 to 1"),
        ({"classes": ("a", "b", "c")}, "mine: no image of class c"),
        ({"shape": (4, 4)}, r"images of shape \(4, 4\), uint8: need"),
        ({"dtype": np.float64}, "float64: need .* uint8, float16 or float32"),
        (
            {"parts": np.array(["train", "test", "", "valid"])},
            "part 'valid': need train, val or test",
        ),
    ],
)
def test_a_broken_pool_is_refused(facts, message):
    with pytest.raises(MedexpError, match=message):
        pool(**facts)


def test_no_images_at_all():
    none = np.empty(0, np.int64)
    with pytest.raises(MedexpError, match="mine: no images"):
        pool(labels=none, ids=none.astype(str), files=[])


def test_rows_are_the_array_at_those_rows(tmp_path):
    array = np.arange(60, dtype=np.float32).reshape(10, 2, 3, 1)
    rows = np.array([7, 0, 9, 3])
    view = Rows(array, rows)
    assert len(view) == 4 and view.shape == (4, 2, 3, 1) and view.dtype == np.float32
    assert view.ndim == 4 and view.nbytes == 4 * 24
    for index in (slice(None), slice(1, 3), np.array([3, 3, 0]), 2):
        assert np.array_equal(view[index], array[rows][index])
    assert np.array_equal(np.asarray(view), array[rows])
    np.save(tmp_path / "a.npy", array)
    mapped = Rows(np.load(tmp_path / "a.npy", mmap_mode="r"), rows)
    assert mapped[:2].flags.writeable  # a copy of what was asked for, not of the rest


def test_fingerprint_of_mapped_rows_is_that_of_the_images():
    images = np.random.default_rng(0).integers(0, 256, (300, 4, 4, 1)).astype(np.uint8)
    rows = np.random.default_rng(1).permutation(300)[:200]
    labels, ids = np.zeros(200, np.int64), np.arange(200).astype(str)
    view = Split(Rows(images, rows), labels, ids)
    assert view.fingerprint() == Split(images[rows], labels, ids).fingerprint()
