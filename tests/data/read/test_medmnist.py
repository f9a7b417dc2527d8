"""MedMNIST's files: the arrays of the package, its names, counts and splits."""

import numpy as np
import pytest

from medexp.data.read import medmnist
from medexp.data.read.medmnist import load
from medexp.errors import ConfigError, MedexpError

RNG = np.random.default_rng(0)
SIZES = {"train": 10, "val": 4, "test": 6}


def write(folder, name="pneumoniamnist.npz", shape=(28, 28), classes=2, **other):
    arrays = {}
    for part, count in SIZES.items():
        arrays[f"{part}_images"] = RNG.integers(0, 256, (count, *shape)).astype(np.uint8)
        arrays[f"{part}_labels"] = (np.arange(count) % classes).astype(np.uint8)[:, None]
    arrays |= other
    np.savez_compressed(folder / name, **arrays)
    return arrays


@pytest.mark.parametrize(
    "subset, size, shape",
    [("pneumoniamnist", 28, (28, 28)), ("pathmnist", 28, (28, 28, 3)),
     ("bloodmnist", 64, (64, 64, 3)), ("nodulemnist3d", 28, (28, 28, 28)),
     ("synapsemnist3d", 64, (64, 64, 64))],
)  # fmt: skip
def test_the_arrays_of_a_file_as_it_has_them(tmp_path, subset, size, shape):
    classes = medmnist.CLASSES[subset]
    name = f"{subset}.npz" if size == 28 else f"{subset}_{size}.npz"
    arrays = write(tmp_path, name, shape, len(classes))
    pool = load(tmp_path, subset=subset, size=size)
    assert pool.classes == classes and pool.dtype == np.uint8 and pool.notes == ()
    assert pool.parts.tolist() == [part for part, n in SIZES.items() for _ in range(n)]
    images = np.concatenate([arrays[f"{part}_images"] for part in SIZES])
    labels = np.concatenate([arrays[f"{part}_labels"] for part in SIZES])[:, 0]
    assert np.array_equal(pool.labels, labels)
    found = np.stack([pool.decode(row)[0] for row in range(len(pool))])
    assert np.array_equal(found.reshape(images.shape), images)
    assert found.shape[1:] == (shape if shape[-1] == 3 else (*shape, 1)) == pool.shape


@pytest.mark.parametrize("name", ["PneumoniaMNIST", "PathMNIST", "NoduleMNIST3D"])
def test_the_arrays_are_the_packages(tmp_path, name):
    package = pytest.importorskip("medmnist")
    shape = {"PneumoniaMNIST": (28, 28), "PathMNIST": (28, 28, 3)}.get(name, (28, 28, 28))
    subset = name.lower()
    write(tmp_path, f"{subset}.npz", shape, len(medmnist.CLASSES[subset]))
    pool = load(tmp_path, subset=subset)
    start = 0
    for part, count in SIZES.items():
        theirs = getattr(package, name)(split=part, root=str(tmp_path))
        rows = range(start, start + count)
        found = np.stack([pool.decode(row)[0] for row in rows])
        assert np.array_equal(found.reshape(theirs.imgs.shape), theirs.imgs)
        assert np.array_equal(pool.labels[rows], theirs.labels[:, 0])
        assert set(pool.parts[rows]) == {part}
        start += count


def test_names_and_counts_are_the_packages():
    info = pytest.importorskip("medmnist").INFO
    assert set(info) == {*medmnist.CLASSES, "chestmnist"}
    for subset, names in medmnist.CLASSES.items():
        assert names == tuple(info[subset]["label"].values())
        assert medmnist.COUNTS[subset] == tuple(info[subset]["n_samples"].values())


def test_counts_add_up_to_the_papers_totals():
    """Yang et al. 2023, abstract: 708,069 images in 2D and 9,998 in 3D, ChestMNIST's among them.

    Of these the files of 2024, which the package 3.0 reads, lack 107 of the organs' slices, one
    volume of organs and one of vessels.
    """
    sums = {"2d": 78_468 + 11_219 + 22_433, "3d": 0}
    for subset, counts in medmnist.COUNTS.items():
        sums["3d" if subset.endswith("3d") else "2d"] += sum(counts)
    assert sums == {"2d": 708_069 - 107, "3d": 9_998 - 2}
    assert set(medmnist.COUNTS) == set(medmnist.CLASSES) and len(medmnist.CLASSES) == 17


@pytest.mark.real_data
def test_real_images_of_pneumoniamnist(real_data):
    path = real_data / "medmnist" / "pneumoniamnist_part.npz"
    pool = load(path.parent, file=path.name)
    with np.load(path) as file:
        images = np.concatenate([file[f"{part}_images"] for part in SIZES])
        labels = np.concatenate([file[f"{part}_labels"] for part in SIZES])
    assert len(pool) == len(images) == 1400 and np.array_equal(pool.labels, labels[:, 0])
    for row, image in enumerate(images):
        assert np.array_equal(pool.decode(row)[0][..., 0], image)
    assert pool.public == {"train": 4708, "val": 524, "test": 624}


def test_grey_sets_as_colours(tmp_path):
    arrays = write(tmp_path)
    pool = load(tmp_path, channels="rgb")
    assert pool.shape == (28, 28, 3)
    assert (pool.decode(3)[0] == arrays["train_images"][3][..., None]).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"subset": "chestmnist"}, r"dataset.subset=chestmnist: .* 14 labels each \(multi-label\)"),
        ({"subset": "pneumonia"}, r"dataset.subset=pneumonia: .* Did you mean 'pneumoniamnist'"),
        ({"size": 32}, "dataset.size=32: pneumoniamnist comes in 28, 64, 128, 224"),
        ({"subset": "nodulemnist3d", "size": 128}, "nodulemnist3d comes in 28, 64$"),
        ({"channels": "gray"}, "dataset.channels=gray: no such choice"),
    ],
)
def test_impossible_arguments(tmp_path, arguments, message):
    write(tmp_path)
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, **arguments)


def test_a_file_that_is_missing_or_another(tmp_path):
    with pytest.raises(MedexpError, match=r"missing .*pneumoniamnist_64.npz\n.*zenodo.*_64.npz"):
        load(tmp_path, size=64)
    write(tmp_path, shape=(32, 32))
    with pytest.raises(
        MedexpError, match=r"train_images: \(10, 32, 32\) uint8: need uint8 images o"
    ):
        load(tmp_path)
    write(tmp_path, classes=3)
    with pytest.raises(MedexpError, match=r"label 2 has no place in dataset.classes \(normal, pn"):
        load(tmp_path)
    arrays = write(tmp_path)
    np.savez(tmp_path / "pneumoniamnist.npz", **{k: v for k, v in arrays.items() if "val" not in k})
    with pytest.raises(MedexpError, match="need train_images, val_images, test_images"):
        load(tmp_path)
