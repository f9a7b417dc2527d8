import cv2
import h5py
import numpy as np
import pytest

from medexp.data.base import Pool
from medexp.data.read.ldct import INFO, load
from medexp.errors import ConfigError, MedexpError

FILE = "all_patches.hdf5"


def write(folder, slices, labels, **options):
    with h5py.File(folder / FILE, "w") as file:
        file.create_dataset("ct_slices", data=slices, **options)
        file.create_dataset("slice_class", data=labels)
    return folder


@pytest.fixture
def slices():
    return np.random.default_rng(0).uniform(0, 255, (40, 64, 64)).astype(np.float32)


@pytest.fixture
def labels():
    return (np.arange(40) % 3 == 0).astype(np.int64)[:, None]


@pytest.fixture
def root(tmp_path, slices, labels):
    return write(tmp_path, slices, labels, chunks=(16, 64, 64), compression="gzip")


def decoded(pool):
    return np.stack([pool.decode(row)[0] for row in range(len(pool))])


# Reading


@pytest.mark.real_data
def test_real_slices_equal_h5py_and_cv2(real_data):
    folder = real_data / "ldct"
    pool = load(folder)
    with h5py.File(folder / FILE) as file:
        slices, labels = file["ct_slices"][:], file["slice_class"][:]
    assert len(pool) == 600 and np.array_equal(pool.labels, labels[:, 0])
    for row, image in enumerate(slices):
        expected = cv2.resize(image, (120, 120)) / np.float32(255)
        assert np.array_equal(pool.decode(row)[0], expected[:, :, None])
    assert pool.notes == ()  # the values are 0..255


def test_pool_is_listed_as_the_file_has_it(root, labels):
    pool = load(root, size=96)
    assert isinstance(pool, Pool)
    assert pool.classes == ("non-cancerous", "cancerous")
    assert np.array_equal(pool.labels, labels[:, 0]) and pool.labels.dtype == np.int64
    assert pool.ids[[0, 39]].tolist() == ["slice_0000", "slice_0039"]
    assert set(pool.files) == {root / FILE} and len(pool.files) == 40
    assert (pool.shape, pool.dtype) == ((96, 96, 1), np.float32)
    assert pool.settings == {"size": 96, "scale": "255"}
    assert pool.groups is None and pool.parts is None and pool.public == 6691
    image, facts = pool.decode(7)
    assert image.shape == pool.shape and image.dtype == np.float32 and facts == {}


@pytest.mark.parametrize("size", [1, 64, 100, 120])
def test_slices_equal_cv2(root, slices, size):
    expected = np.stack([cv2.resize(image, (size, size)) / np.float32(255) for image in slices])
    assert np.array_equal(decoded(load(root, size=size)), expected[..., None])


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f2", "f4", "f8", ">i2"])
def test_any_number_is_read_as_float32(tmp_path, slices, labels, dtype):
    stored = slices.astype(dtype)
    write(tmp_path, stored, labels)
    for row, image in enumerate(stored):
        expected = cv2.resize(image.astype(np.float32), (120, 120)) / np.float32(255)
        assert np.array_equal(load(tmp_path).decode(row)[0][..., 0], expected)


def test_rows_are_found_across_blocks(tmp_path):
    # 1,100 slices, each of one grey level: three blocks of 512, read in any order.
    levels = np.arange(1100, dtype=np.float32) % 251
    write(tmp_path, np.broadcast_to(levels[:, None, None], (1100, 8, 8)), np.arange(1100) % 2)
    pool = load(tmp_path, size=8)
    rows = np.random.default_rng(1).permutation(1100)
    assert np.array_equal([pool.decode(row)[0][0, 0, 0] for row in rows], levels[rows] / 255)


@pytest.mark.parametrize("form", ["(N,)", "floats", "booleans", "bytes"])
def test_labels_in_other_forms(tmp_path, slices, labels, form):
    made = {"(N,)": labels[:, 0], "floats": labels.astype("f8"), "booleans": labels.astype(bool),
            "bytes": labels.astype("u1")}[form]  # fmt: skip
    pool = load(write(tmp_path, slices, made))
    assert np.array_equal(pool.labels, labels[:, 0]) and pool.labels.dtype == np.int64


# The scale


def test_hounsfield_units_are_mapped_to_one(tmp_path, labels):
    units = np.random.default_rng(2).integers(-1024, 1500, (40, 64, 64)).astype(np.int16)
    pool = load(write(tmp_path, units, labels), scale="hu")
    expected = np.stack([cv2.resize(image.astype(np.float32), (120, 120)) for image in units])
    expected = (np.clip(expected.astype(np.float64), -1000, 400) + 1000) / 1400
    assert np.allclose(decoded(pool)[..., 0], expected, atol=1e-6)
    assert pool.settings["scale"] == "hu" and pool.notes == ()


def test_hounsfield_units_under_255_are_divided_and_noted(tmp_path, slices, labels):
    units = slices * 5 - 1000
    units[3, 4, 5], units[30, 6, 7] = -1024, 3071
    pool = load(write(tmp_path, units, labels))
    assert pool.notes[0] == (
        "the slices' values run from -1024 to 3071, not 0..255: they look like Hounsfield units, "
        "and scale=255 divides them by 255 as the paper states; dataset.scale=hu maps -1000..400 "
        "HU to 0..1 instead"
    )
    assert np.array_equal(pool.decode(3)[0][..., 0], cv2.resize(units[3], (120, 120)) / 255)


def test_grey_levels_under_hu_are_noted(root):
    note = load(root, scale="hu").notes[0]
    assert "do not look like Hounsfield units" in note and "dataset.scale=255" in note


@pytest.mark.parametrize(
    ("scale", "low", "high", "noted"),
    [("255", 0, 300, True), ("255", -3, 200, True), ("hu", 0, 300, False), ("hu", -3, 200, False)],
)
def test_either_end_of_the_values_tells_the_unit(tmp_path, slices, labels, scale, low, high, noted):
    values = np.clip(slices.astype(np.float32), 1, 200)
    values[3, 4, 5], values[6, 7, 8], values[9, 1, 1] = low, high, np.nan
    notes = load(write(tmp_path, values, labels), scale=scale).notes
    assert bool(notes) == noted
    assert not notes or notes[0].startswith(f"the slices' values run from {min(low, 1)} to")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_of_0_to_1_are_not_divided_again(tmp_path, slices, labels, dtype):
    shares = (slices / 255).astype(dtype)
    folder = write(tmp_path, shares, labels)
    message = r"all_patches.hdf5: .* are 0..1 already, .* once more. Give dataset.scale=none"
    with pytest.raises(MedexpError, match=message):
        load(folder)
    pool = load(folder, scale="none")
    expected = np.stack([cv2.resize(image.astype(np.float32), (120, 120)) for image in shares])
    assert np.array_equal(decoded(pool)[..., 0], expected) and pool.notes == ()
    assert "dataset.scale=none takes them as they are" in load(folder, scale="hu").notes[0]


def test_values_beyond_0_to_1_under_none_are_noted(root):
    (note,) = load(root, scale="none").notes
    assert note.endswith(
        "not 0..1: scale=none takes them as they are, where the paper divides by 255"
    )


def test_number_255_is_the_word_255(root):
    # What the command line's dataset.scale=255 gives.
    assert load(root, scale=255).settings == load(root, scale="255").settings


def test_values_at_both_ends_of_0_to_255_are_no_reason_for_a_note(tmp_path, slices, labels):
    slices[0, 0, :2] = 0, 255
    assert load(write(tmp_path, slices, labels)).notes == ()


# Wrong arguments


def test_unknown_scale_is_refused_with_the_nearest(root):
    with pytest.raises(ConfigError, match=r"dataset.scale=huu: no such choice. Did you mean 'hu'"):
        load(root, scale="huu")


@pytest.mark.parametrize("size", [0, -120])
def test_impossible_size_is_refused(root, size):
    with pytest.raises(ConfigError, match=rf"dataset.size={size}: need 1 or more"):
        load(root, size=size)


# Damaged or missing files


@pytest.mark.parametrize("folder", ["", "gone"])
def test_missing_file_names_all_that_a_user_needs(tmp_path, folder):
    with pytest.raises(MedexpError) as error:
        load(tmp_path / folder)
    text = str(error.value)
    for part in (f"missing {FILE}", str(tmp_path / folder), INFO.url, "CC BY 3.0", "MEDEXP_DATA=",
                 "source=phantom"):  # fmt: skip
        assert part in text
    assert len(text.splitlines()) <= 3


@pytest.mark.parametrize("key", ["ct_slices", "slice_class"])
def test_missing_key_is_named(root, key):
    with h5py.File(root / FILE, "a") as file:
        del file[key]
        left = next(iter(file))
    with pytest.raises(MedexpError, match=rf"{FILE} has no dataset '{key}' \(it has: {left}\)"):
        load(root)


GOOD = np.zeros((4, 64, 64), np.float32)
LABELS = np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("slices", "labels", "message"),
    [
        (GOOD[:3], LABELS, "3 ct_slices but 4 slice_class"),
        (GOOD, LABELS[:3], "4 ct_slices but 3 slice_class"),
        (GOOD.astype("S3"), LABELS, r"ct_slices is \|S3: need integers or floats"),
        (GOOD.astype("c8"), LABELS, "ct_slices is complex64: need integers or floats"),
        (GOOD[..., None], LABELS, r"ct_slices has shape \(4, 64, 64, 1\): need \(N, side, side\)"),
        (GOOD[0], LABELS, r"ct_slices has shape \(64, 64\): need \(N, side, side\)"),
        (GOOD[:, :, :60], LABELS, r"ct_slices has shape \(4, 64, 60\): need \(N, side, side\)"),
        (GOOD[:0], LABELS[:0], r"ct_slices is empty, shape \(0, 64, 64\)"),
        (GOOD, LABELS[:0], r"slice_class is empty, shape \(0,\)"),
        (GOOD, np.eye(4)[:, :2], r"slice_class has shape \(4, 2\): need \(N,\) or \(N, 1\)"),
        (GOOD, LABELS.astype("S1"), r"slice_class is \|S1: need integers 0 and 1"),
        (GOOD, LABELS.astype("c8"), "slice_class is complex64: need integers 0 and 1"),
        (GOOD, LABELS + 1, r"slice_class is 2 at row 1: need 0 \(non-cancerous\) or 1"),
        (GOOD, LABELS - 1, "slice_class is -1 at row 0: need 0"),
        (GOOD, LABELS * 0.5, "slice_class is 0.5 at row 1: need 0"),
        (GOOD, np.where(LABELS, np.nan, 0), "slice_class is nan at row 1: need 0"),
        (GOOD, LABELS * 0, "ldct: no image of class cancerous"),
    ],
)
def test_wrong_contents_are_named(tmp_path, slices, labels, message):
    write(tmp_path, slices, labels)
    with pytest.raises(MedexpError, match=message) as error:
        load(tmp_path)
    assert len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixel_that_is_no_number_fails_its_slice_alone(tmp_path, slices, labels, value):
    slices[5, 6, 7] = value
    pool = load(write(tmp_path, slices, labels))
    message = rf"{FILE}: ct_slices, row 5 holds values that are not finite .*dataset.on_error=skip"
    with pytest.raises(MedexpError, match=message):
        pool.decode(5)
    assert np.isfinite(pool.decode(4)[0]).all()
    if np.isnan(value):
        assert pool.notes == ()  # a NaN says nothing about the range


def test_value_beyond_float32_is_no_number(tmp_path, slices, labels):
    wide = slices.astype(np.float64)
    wide[2, 0, 0] = 1e300
    with pytest.raises(MedexpError, match="ct_slices, row 2 holds values that are not finite"):
        load(write(tmp_path, wide, labels)).decode(2)


@pytest.mark.parametrize("keep", [0, 100, 30_000])
def test_truncated_file_is_named(root, keep):
    path = root / FILE
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(MedexpError, match=f"{path} cannot be read as HDF5, it may be cut short"):
        load(root)


def test_damaged_chunk_is_named(root):
    path = root / FILE
    with h5py.File(path) as file:
        chunk = file["ct_slices"].id.get_chunk_info(1)
    with open(path, "r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(bytes(1000))
    with pytest.raises(MedexpError, match=f"{path} cannot be read as HDF5"):
        load(root)


def test_info_names_the_public_set():
    assert INFO.counts == {"all": 6691} and INFO.files == (FILE,)
