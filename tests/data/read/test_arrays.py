"""Images and labels in .npz and .npy files, held against the arrays that were written."""

import cv2
import numpy as np
import pytest

from medexp.config import compose
from medexp.data import npz
from medexp.data.load import load_data
from medexp.data.read.arrays import load
from medexp.errors import ConfigError, MedexpError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 9, 14)).astype(np.uint8)
LABELS = np.arange(12) % 3


def save(folder, name="x.npz", /, *, packed=True, **arrays):
    (np.savez_compressed if packed else np.savez)(folder / name, **arrays)
    return folder


def decoded(pool):
    return np.stack([pool.decode(row)[0] for row in range(len(pool))])


# ---------------------------------------------------------------- element for element


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("block", [1, 9 * 14 * 5, 2**23])
def test_rows_are_those_that_were_written(tmp_path, monkeypatch, packed, block):
    monkeypatch.setattr(npz, "BLOCK", block)
    pool = load(save(tmp_path, images=IMAGES, labels=LABELS, packed=packed))
    assert pool.shape == (9, 14, 1) and pool.dtype == np.uint8 and pool.classes == ("0", "1", "2")
    assert np.array_equal(pool.labels, LABELS) and pool.parts is None and pool.groups is None
    assert pool.ids[[0, 11]].tolist() == ["000000", "000011"]
    for row in (11, 0, 5, 6, 4, 10, 0):  # back as well as on
        assert np.array_equal(pool.decode(row)[0][..., 0], IMAGES[row])


def test_npy_files_and_fortrans_order(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    np.save(tmp_path / "labels.npy", LABELS[:, None])
    assert np.array_equal(decoded(load(tmp_path))[..., 0], IMAGES)
    np.save(tmp_path / "images.npy", np.asfortranarray(IMAGES))
    assert np.array_equal(decoded(load(tmp_path))[..., 0], IMAGES)
    save(tmp_path, images=np.asfortranarray(IMAGES), labels=LABELS)
    assert np.array_equal(decoded(load(tmp_path))[..., 0], IMAGES)


@pytest.mark.parametrize(
    "layout, shape, order",
    [
        ("nhwc", (12, 9, 14, 3), (0, 1, 2, 3)),
        ("nchw", (12, 3, 9, 14), (0, 2, 3, 1)),
        ("ndhw", (12, 5, 9, 14), (0, 1, 2, 3)),
        ("ndhwc", (12, 5, 9, 14, 1), (0, 1, 2, 3, 4)),
        ("ncdhw", (12, 1, 5, 9, 14), (0, 2, 3, 4, 1)),
    ],
)
def test_layouts_are_guessed_and_given(tmp_path, layout, shape, order):
    images = RNG.integers(0, 256, shape).astype(np.uint8)
    save(tmp_path, images=images, labels=LABELS)
    wanted = images.transpose(order)
    wanted = wanted[..., None] if layout == "ndhw" else wanted
    for given in ("auto", layout):
        pool = load(tmp_path, layout=given)
        assert pool.shape == wanted.shape[1:] and np.array_equal(decoded(pool), wanted)


def test_a_shape_that_leaves_the_layout_open(tmp_path):
    save(tmp_path, images=np.zeros((12, 3, 9, 3), np.uint8), labels=LABELS)
    with pytest.raises(MedexpError, match=r"x.npz, images: images of shape \(12, 3, 9, 3\): which"):
        load(tmp_path)
    assert load(tmp_path, layout="nchw").shape == (9, 3, 3)
    with pytest.raises(MedexpError, match="as many letters as axes"):
        load(tmp_path, layout="nhw")


@pytest.mark.parametrize("names", ["{part}_images {part}_labels", "images_{part} labels_{part}"])
def test_parts_are_taken_as_they_are(tmp_path, names):
    arrays, ends = {}, {"train": (0, 6), "val": (6, 9), "test": (9, 12)}
    for part, (start, end) in ends.items():
        image, label = names.format(part=part).split()
        arrays |= {image: IMAGES[start:end], label: LABELS[start:end]}
    pool = load(save(tmp_path, **arrays))
    assert pool.parts.tolist() == ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    assert pool.ids[[0, 6, 11]].tolist() == ["train/000000", "val/000000", "test/000002"]
    assert np.array_equal(decoded(pool)[..., 0], IMAGES) and np.array_equal(pool.labels, LABELS)


def test_other_names_and_groups(tmp_path):
    save(tmp_path, x_train=IMAGES[:9], y_train=LABELS[:9], x_test=IMAGES[9:], y_test=LABELS[9:])
    assert load(tmp_path, images="x", labels="y").parts.tolist() == ["train"] * 9 + ["test"] * 3
    save(tmp_path, images=IMAGES, labels=LABELS, groups=np.arange(12) // 4)
    assert load(tmp_path).groups.tolist() == [str(i // 4) for i in range(12)]
    save(tmp_path, images=IMAGES, labels=LABELS, patient=np.array(list("aabbccddeeff")))
    with pytest.raises(MedexpError, match=r"no array groups in it, but patient. If .*groups=null"):
        load(tmp_path)
    assert load(tmp_path, groups=None).groups is None
    assert load(tmp_path, groups="patient").groups.tolist() == list("aabbccddeeff")
    with pytest.raises(MedexpError, match="no array case in it, but patient"):
        load(tmp_path, groups="case")
    save(tmp_path, train_images=IMAGES, train_labels=LABELS, train_groups=LABELS,
         test_images=IMAGES, test_labels=LABELS)  # fmt: skip
    with pytest.raises(MedexpError, match="groups are there for some of train, test, not for all"):
        load(tmp_path)
    save(tmp_path, images=IMAGES, labels=LABELS, groups=LABELS[:5])
    with pytest.raises(MedexpError, match=r"groups: shape \(5,\), but 12 images"):
        load(tmp_path)


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize(
    "labels, classes, names",
    [
        (LABELS, None, ("0", "1", "2")),
        (LABELS[:, None].astype(np.uint8), None, ("0", "1", "2")),
        (LABELS * 10 - 5, None, ("-5", "5", "15")),
        (LABELS.astype(np.float32), ["x", "y", "z"], ("x", "y", "z")),
        (np.eye(3)[LABELS], None, ("0", "1", "2")),
        (np.array(list("abc"))[LABELS], None, ("a", "b", "c")),
        (np.array([b"a", b"b", b"c"])[LABELS], None, ("a", "b", "c")),
    ],
)
def test_labels_in_all_their_forms(tmp_path, labels, classes, names):
    pool = load(save(tmp_path, images=IMAGES, labels=labels), classes=classes)
    assert pool.classes == names and np.array_equal(pool.labels, LABELS)


def test_text_labels_in_a_given_order(tmp_path):
    save(tmp_path, images=IMAGES, labels=np.array(["a", "b", "c"])[LABELS])
    pool = load(tmp_path, classes=["c", "a", "b"])
    assert pool.classes == ("c", "a", "b") and np.array_equal(pool.labels, (LABELS + 1) % 3)


@pytest.mark.parametrize(
    "labels, classes, message",
    [
        (LABELS[:5], None, "x.npz, labels: 5 labels for 12 images"),
        (RNG.integers(0, 2, (12, 4)), None, r"4 labels an image, .*\(multi-label\) cannot be"),
        (LABELS + 0.5, None, "labels of type float64: need integers or text"),
        (np.array([None] * 12), None, "Python objects, which are not loaded"),
        (LABELS, ["x", "y"], r"label 2 has no place in dataset.classes \(x, y\)"),
        (np.array(list("abc"))[LABELS], ["a", "b"], r"label c has no place in dataset.classes"),
    ],
)
def test_labels_that_are_none(tmp_path, labels, classes, message):
    save(tmp_path, images=IMAGES, labels=labels)
    with pytest.raises(MedexpError, match=message):
        load(tmp_path, classes=classes)


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int8, np.uint32, np.bool_])
def test_types_of_more_than_a_byte_need_a_scale(tmp_path, dtype):
    ends = (0, 1) if dtype == np.bool_ else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    images = RNG.integers(*ends, (12, 9, 14), endpoint=True).astype(dtype)
    save(tmp_path, images=images, labels=LABELS)
    message = rf"images of {np.dtype(dtype)}: which values are black and white\? Give dataset.scale"
    with pytest.raises(MedexpError, match=message):
        load(tmp_path)
    pool = load(tmp_path, scale="full")
    wanted = (images.astype(np.float64) - ends[0]) / (float(ends[1]) - ends[0])
    assert pool.dtype == np.float32 and np.allclose(decoded(pool)[..., 0], wanted, atol=1e-6)
    assert pool.notes == ("pixels: the full range of each file's type becomes 0..1",)
    assert pool.settings != load(tmp_path, scale=[0, 1]).settings


def test_real_numbers_of_0_to_1_are_taken_as_they_are(tmp_path):
    images = RNG.random((12, 9, 14))
    images[3, 4, 5] = 1.5
    pool = load(save(tmp_path, images=images, labels=LABELS))
    assert np.array_equal(pool.decode(2)[0][..., 0], images[2].astype(np.float32))
    with pytest.raises(
        MedexpError, match=r"x.npz, images, row 3: values .* to 1.5, not 0..1. Give"
    ):
        pool.decode(3)
    images[3, 4, 5] = np.nan
    pool = load(save(tmp_path, images=images, labels=LABELS), scale=[0, 2])
    assert np.allclose(pool.decode(2)[0][..., 0], images[2] / 2)
    with pytest.raises(MedexpError, match="row 3: 1 of 126 values are NaN or infinite"):
        pool.decode(3)


def test_size_and_channels(tmp_path):
    save(tmp_path, images=IMAGES, labels=LABELS)
    pool = load(tmp_path, size=[6, 7], channels="rgb")
    wanted = cv2.resize(IMAGES[4], (7, 6), interpolation=cv2.INTER_AREA)
    assert pool.shape == (6, 7, 3) and (pool.decode(4)[0] == wanted[..., None]).all()
    colours = RNG.integers(0, 256, (12, 9, 14, 3)).astype(np.uint8)
    pool = load(save(tmp_path, images=colours, labels=LABELS), channels="grey")
    luma = colours @ (0.299, 0.587, 0.114)
    assert pool.dtype == np.uint8 and np.abs(decoded(pool)[..., 0] - luma).max() <= 0.51
    save(tmp_path, images=RNG.integers(0, 9, (12, 5, 9, 14)).astype(np.uint8), labels=LABELS)
    for key, value in (("size", 8), ("channels", "rgb")):
        with pytest.raises(ConfigError, match=rf"dataset.{key}={value}: volumes keep"):
            load(tmp_path, **{key: value})


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"layout": "nwh"}, "dataset.layout=nwh: no such choice"),
        ({"channels": "gray"}, "dataset.channels=gray: no such choice"),
        ({"size": [1, 2, 3]}, r"dataset.size=\[1, 2, 3\]: need a side"),
        ({"scale": "ful"}, "dataset.scale=ful: no such choice"),
        ({"interpolation": "liner"}, "dataset.interpolation=liner: no such choice"),
    ],
)
def test_impossible_arguments(tmp_path, arguments, message):
    save(tmp_path, images=IMAGES, labels=LABELS)
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, **arguments)


# ---------------------------------------------------------------- what can be wrong


def test_missing_files_and_arrays(tmp_path):
    with pytest.raises(MedexpError, match="nowhere: no such folder; it should hold an .npz"):
        load(tmp_path / "nowhere")
    with pytest.raises(MedexpError, match=r"no array images .* \(it has: no arrays\)"):
        load(tmp_path)
    with pytest.raises(MedexpError, match="y.npz: no such file. Name an .npz"):
        load(tmp_path, file="y.npz")
    with pytest.raises(MedexpError, match="not a plain path below"):
        load(tmp_path, file="../y.npz")
    save(tmp_path, x=IMAGES, y=LABELS)
    with pytest.raises(MedexpError, match=r"it has: x \(12, 9, 14\), y \(12,\)\). Name the arrays"):
        load(tmp_path)
    save(tmp_path, images=IMAGES)
    with pytest.raises(MedexpError, match=r"no array labels in it .*dataset.labels="):
        load(tmp_path)
    save(tmp_path, images=IMAGES, labels=LABELS, train_images=IMAGES, train_labels=LABELS)
    with pytest.raises(MedexpError, match="both images and train_images are there"):
        load(tmp_path)
    save(tmp_path, "z.npz", images=IMAGES, labels=LABELS)
    with pytest.raises(MedexpError, match=r"holds x.npz, z.npz. Name one with dataset.file="):
        load(tmp_path)
    assert len(load(tmp_path, file="z.npz")) == 12


def test_parts_of_two_shapes(tmp_path):
    save(tmp_path, train_images=IMAGES, train_labels=LABELS, test_images=IMAGES[:, 1:],
         test_labels=LABELS)  # fmt: skip
    with pytest.raises(MedexpError, match=r"test_images holds \(8, 14\) uint8, where .*\(9, 14\)"):
        load(tmp_path)


@pytest.mark.parametrize("keep", [0, 30, 200, -40])
def test_damaged_files_are_named(tmp_path, keep):
    path = save(tmp_path, images=IMAGES, labels=LABELS) / "x.npz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(MedexpError, match=r"x.npz cannot be read as a NumPy array \(.*damaged or"):
        load(tmp_path)
    path.unlink()
    np.save(tmp_path / "images.npy", IMAGES)
    np.save(tmp_path / "labels.npy", LABELS)
    data = (tmp_path / "images.npy").read_bytes()
    (tmp_path / "images.npy").write_bytes(data[:keep])
    with pytest.raises(MedexpError, match=r"images.npy cannot be read as a NumPy array"):
        load(tmp_path)


def test_pickles_are_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    images = np.empty(12, object)
    images[:] = [Bomb()] * 12
    for arrays in ({"images": images, "labels": LABELS}, {"images": IMAGES, "labels": images}):
        np.savez(tmp_path / "x.npz", **arrays)
        with pytest.raises(MedexpError):
            load(tmp_path)
    assert not (tmp_path / "made").exists()


def test_through_the_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDEXP_CACHE", str(tmp_path / "cache"))
    images = RNG.integers(0, 4096, (60, 8, 8)).astype(np.uint16)
    (tmp_path / "x").mkdir()
    save(tmp_path / "x", images=images, labels=np.arange(60) % 2, groups=np.arange(60) // 3)
    overrides = ["dataset=arrays", f"dataset.root={tmp_path / 'x'}", "dataset.scale=[0,4095]"]
    data = load_data(compose.compose(overrides))
    assert sum(map(len, data.splits().values())) == 60 and data.test.groups is not None
    for split in data.splits().values():
        rows = split.ids.astype(int)
        assert np.allclose(split.images[:][..., 0], images[rows] / 4095, atol=1e-6)
        assert np.array_equal(split.labels, rows % 2)
