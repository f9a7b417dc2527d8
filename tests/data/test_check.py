"""Planted faults are found, and sound splits have none."""

import numpy as np

from medexp.data.base import Dataset, Split
from medexp.data.check import check


def dataset(groups=True):
    rng = np.random.default_rng(0)

    def split(name, n):
        images = rng.integers(0, 256, (n, 5, 5, 3)).astype(np.uint8)
        ids = np.array([f"{name}/{i}" for i in range(n)])
        slides = np.array([f"{name}-{i % 3}" for i in range(n)], "U16") if groups else None
        return Split(images, np.arange(n) % 2, ids, slides)

    return Dataset("toy", ("a", "b"), split("train", 20), split("val", 8), split("test", 10))


def test_sound_splits_have_no_faults():
    done = []
    found = check(dataset(), done.append)
    assert found["faults"] == [] and sum(done) == 38
    assert found["splits"]["train"]["per_class"] == {"a": 10, "b": 10}
    assert found["splits"]["test"]["groups"] == 3
    assert found["shared_groups"]["train/test"] == {"groups": 0, "share_of_test": 0.0}
    assert check(dataset(groups=False))["shared_groups"] is None


def test_planted_faults_are_found():
    data = dataset()
    data.test.images[3] = data.train.images[5]  # same label, odd indices
    data.train.images[7] = data.train.images[5]
    data.val.images[0] = data.val.images[1]  # labels 0 and 1
    data.test.groups[:5] = "train-0"
    found = check(data)
    assert found["duplicates_across"] == {"train/test": 1}
    assert found["duplicates_within"] == {"train": 1, "val": 1, "test": 0}
    assert found["conflicting_labels"] == [["val/0", "val/1"]]
    assert found["shared_groups"]["train/test"] == {"groups": 1, "share_of_test": 0.5}
    text = "\n".join(found["faults"])
    assert "1 images stand in both train and test, byte for byte" in text
    assert "1 patients or slides stand in both train and test (50.0% of the test images)" in text
    assert "under different labels" in text and len(found["faults"]) == 3
