"""One pass gives what NumPy, hashlib and Split.fingerprint give of the whole array."""

import numpy as np
import pytest

from medexp.data import measure as module
from medexp.data.base import Rows, Split
from medexp.data.measure import histogram, measure, percentiles


def split(images):
    n = len(images)
    return Split(images, np.arange(n) % 2, np.array([f"i{i}" for i in range(n)]))


def made(dtype, shape=(50, 6, 5, 3)):
    rng = np.random.default_rng(0)
    if dtype == np.uint8:
        return rng.integers(0, 256, shape).astype(dtype)
    return rng.normal(-300, 400, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
@pytest.mark.parametrize("shape", [(50, 6, 5, 3), (50, 3, 6, 5, 1)])
@pytest.mark.parametrize("size", [1, 500, 2**25])
def test_one_pass_agrees_with_the_whole_array(monkeypatch, dtype, shape, size):
    monkeypatch.setattr(module, "BLOCK_BYTES", size)
    images = made(dtype, shape)
    data = split(Rows(images, np.arange(50)[::-1]))
    done: list[int] = []
    found = measure(data, {}, done.append)
    assert sum(done) == 50 and found.blake2b == data.fingerprint()
    numbers, exact = found.intensity(), images.astype(np.float64)
    assert numbers["min"] == exact.min() and numbers["max"] == exact.max()
    assert numbers["mean"] == pytest.approx(exact.mean(), rel=1e-9)
    assert numbers["std"] == pytest.approx(exact.std(), rel=1e-7)
    assert found.values.sum() == images.size
    np.testing.assert_array_equal(found.low, exact[::-1].min(axis=tuple(range(1, len(shape)))))
    assert len(np.unique(found.contents)) == 50 and not found.blank.any()


def test_equal_images_share_a_number_across_splits_and_blank_ones_have_none():
    images = made(np.uint8)
    images[3], images[7] = images[1], 9
    contents = {}
    first = measure(split(images), contents, lambda n: None)
    second = measure(split(images[[5, 3, 7]]), contents, lambda n: None)
    assert first.contents[3] == first.contents[1] == second.contents[1]
    assert first.contents[5] == second.contents[0]
    assert first.contents[7] == second.contents[2] == -1 and first.blank.sum() == 1


def test_images_with_numbers_that_are_none_count_apart():
    images = made(np.float32)
    images[2, 0, 0, 0], images[4, 1, 1, 1] = np.nan, np.inf
    found = measure(split(images), {}, lambda n: None)
    assert np.flatnonzero(found.broken).tolist() == [2, 4] and not found.blank.any()
    whole = np.delete(images, [2, 4], axis=0).astype(np.float64)
    assert found.intensity()["mean"] == pytest.approx(whole.mean())
    images[:] = np.nan
    found = measure(split(images), {}, lambda n: None)
    assert found.intensity() is None and histogram({"train": found}) is None


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_histogram(dtype):
    one, two = made(dtype), made(dtype)[:20]
    found = histogram(
        {n: measure(split(i), {}, lambda n: None) for n, i in (("train", one), ("test", two))}
    )
    edges = np.array(found["edges"])
    assert edges[0] == one.min() and edges[-1] == one.max() and len(edges) == module.BINS + 1
    expected = np.histogram(one, edges)[0]
    counts = np.array(found["counts"]["train"])
    assert counts.sum() == one.size and sum(found["counts"]["test"]) == two.size
    # float16 may put a number on the other side of an edge.
    assert np.abs(counts - expected).sum() <= (0 if dtype == np.uint8 else 0.01 * one.size)
    if dtype == np.float32:
        np.testing.assert_allclose(found["shown"], np.percentile(one, [0.5, 99.5]), rtol=0.05)
    else:
        assert found["shown"] == [0.0, 255.0]


def test_histogram_of_one_value():
    found = histogram(
        {"train": measure(split(np.full((4, 3, 3, 1), 0.5, np.float32)), {}, lambda n: 0)}
    )
    assert sum(found["counts"]["train"]) == 36 and found["edges"][0] == 0.5
    for value in np.linspace(0.1, 0.9, 40, dtype=np.float32):  # rounding must not make it negative
        one = measure(split(np.full((4, 3, 3, 1), value)), {}, lambda n: 0)
        assert one.intensity()["std"] == pytest.approx(0, abs=1e-6)


def test_percentiles():
    assert percentiles(np.array([3.0, 1.0, 2.0]), np.array([1, 1, 998])) == (2.0, 2.0)
