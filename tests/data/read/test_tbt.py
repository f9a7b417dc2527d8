import csv
import gzip
import itertools
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from medexp.data.base import Pool
from medexp.data.nifti import read_volume, turn
from medexp.data.read.tbt import INFO, load, zoomed
from medexp.errors import ConfigError, MedexpError

REAL = ("ct_aorta", "ct_pulmonary", "example_ct", "example_ct_sm")
SIZE = [6, 9, 10]
LAS = np.diag([-1.0, 2.0, 3.0, 1.0])


def hounsfield(shape=(7, 8, 5), seed=0):
    return np.random.default_rng(seed).integers(-1200, 700, shape).astype(np.int16)


def table(root, rows, header=("FileName", "TypeOfTB"), name="x_TrainSet_metaData.csv"):
    with open(root / name, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def root(tmp_path):
    """Five volumes, one of each type, in two folders, and an unlabelled one."""
    for number in range(1, 7):
        folder = tmp_path / ("CT_1" if number < 4 else "CT_2")
        folder.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(hounsfield(seed=number), LAS), folder / f"TRN_{number:04}.nii.gz")
    table(tmp_path, [(f"TRN_{number:04}.nii.gz", number) for number in range(1, 6)])
    return tmp_path


def bad(root, name="TRN_0001.nii.gz"):
    """The path of the first volume, gone, under another name if need be."""
    (root / "CT_1" / "TRN_0001.nii.gz").unlink()
    table(root, [(name, 1), *((f"TRN_{number:04}", number) for number in range(2, 6))])
    return root / "CT_1" / name


def expected(path, size, order=1, window=(-1000, 400), inside=None):
    """nibabel's canonical orientation, then scipy's map_coordinates at evenly spaced places."""
    image = nib.as_closest_canonical(nib.load(path))
    hu = image.get_fdata().reshape(image.shape[:3])
    if inside is not None:
        hu[~inside] = window[0]
    scaled = (np.clip(hu, *window) - window[0]) / (window[1] - window[0])
    upright = scaled[::-1, ::-1].transpose(2, 1, 0)
    places = [np.linspace(0, old - 1, new) for old, new in zip(upright.shape, size, strict=True)]
    grid = np.meshgrid(*places, indexing="ij")
    made = ndimage.map_coordinates(upright, grid, order=order, mode="mirror")
    return np.clip(made, 0, 1)[..., None]


def refuse(root, match, **arguments):
    with pytest.raises(MedexpError, match=match) as caught:
        load(root, size=SIZE, **arguments)
    assert len(str(caught.value).splitlines()) <= 3
    return caught.value


def refuse_image(root, match, row=0, **arguments):
    pool = load(root, size=SIZE, **arguments)
    with pytest.raises(MedexpError, match=match) as caught:
        pool.decode(row)
    assert len(str(caught.value).splitlines()) <= 3
    assert "TRN_" in str(caught.value)


# ---------------------------------------------------------------- the pool


def test_pool_lists_the_labelled_volumes(root):
    pool = load(str(root))
    assert isinstance(pool, Pool) and pool.name == "tbt" and pool.public == 917
    assert pool.classes == INFO.classes and pool.labels.tolist() == [0, 1, 2, 3, 4]
    assert pool.ids.tolist() == [f"TRN_{number:04}" for number in range(1, 6)]
    assert pool.files[3] == root / "CT_2" / "TRN_0004.nii.gz"
    assert pool.shape == (70, 224, 224, 1) and pool.dtype == np.float32
    assert pool.groups.tolist() == pool.ids.tolist() and pool.parts is None
    assert "one volume a patient" in pool.notes[0]
    assert pool.notes[1] == "unlabelled volumes left out: 1"


def test_settings_hold_what_decides_the_pixels(root):
    one = load(root).settings
    assert one == load(root).settings
    others = ({"size": SIZE}, {"order": 3}, {"window": [-900, 400]}, {"dtype": "float16"},
              {"frame": "stored"})  # fmt: skip
    for arguments in others:
        assert load(root, **arguments).settings != one


def test_order_of_the_csv_does_not_matter(root):
    table(root, [(f"TRN_{number:04}", number) for number in (4, 2, 5, 1, 3)])
    pool = load(root)
    assert pool.ids.tolist() == sorted(pool.ids.tolist()) and pool.labels.tolist() == list(range(5))


@pytest.mark.parametrize(
    "header", [("filename", "TB_Type"), ("id", "label"), ("File Name", "TYPE")]
)
def test_columns_are_found_by_their_names(root, header):
    table(root, [(f"TRN_{number:04}", number) for number in range(1, 6)], header)
    assert load(root).labels.tolist() == [0, 1, 2, 3, 4]


def test_csv_and_columns_can_be_named(root):
    rows = [(6 - number, f" TRN_{number:04}.nii.gz", f"P{number // 2}") for number in range(1, 6)]
    (root / "mine").mkdir()
    table(root, rows, ("a", "b", "c"), "mine/own.csv")
    pool = load(root, labels="mine/own.csv", file_column="b", type_column="a",
                patient_column="c")  # fmt: skip
    assert pool.labels.tolist() == [4, 3, 2, 1, 0]
    assert pool.groups.tolist() == ["P0", "P1", "P1", "P2", "P2"]
    assert pool.notes == ("unlabelled volumes left out: 1",)


def test_other_csv_files_are_passed_over(root):
    table(root, [("TRN_0001.nii.gz", 41)], ("FileName", "Age"), "x_TrainSet_add_metaData.csv")
    assert len(load(root)) == 5


def test_a_path_tells_two_files_of_one_name_apart(root):
    other = root / "CT_2" / "TRN_0001.nii.gz"
    other.write_bytes((root / "CT_1" / "TRN_0001.nii.gz").read_bytes())
    rows = [(f"TRN_{number:04}", number) for number in range(2, 6)]
    table(root, [("TRN_0001.nii.gz", 1), *rows])
    refuse(root, r"line 2: TRN_0001.nii.gz is .*CT_1.* and .*CT_2.*Keep one of them")
    table(root, [("CT_2/TRN_0001.nii.gz", 1), *rows])
    pool = load(root)
    assert pool.files[0] == other and pool.ids[0] == "CT_2/TRN_0001"


# ---------------------------------------------------------------- pixels


@pytest.mark.parametrize("order", [1, 3])
def test_pixels_are_those_of_an_independent_reading(root, order):
    pool = load(root, size=SIZE, order=order, window=[-900, 300])
    for row in range(5):
        image, facts = pool.decode(row)
        assert image.shape == (6, 9, 10, 1) and image.dtype == np.float32
        want = expected(pool.files[row], SIZE, order, (-900, 300))
        assert np.allclose(image, want, rtol=0, atol=2e-6)
        assert image.min() >= 0 and image.max() <= 1
        assert facts == {
            "size": [7, 8, 5],
            "spacing": [1.0, 2.0, 3.0],
            "orientation": "LAS",
            "range": [float(hounsfield(seed=row + 1).min()), float(hounsfield(seed=row + 1).max())],
        }


@pytest.mark.real_data
@pytest.mark.parametrize("order", [1, 3])
def test_real_volumes_are_read_as_nibabel_and_scipy_read_them(real_data, tmp_path, order):
    for number in range(1, 6):
        data = (real_data / "ct_nifti" / f"{REAL[number % 4]}.nii.gz").read_bytes()
        (tmp_path / f"{number}.nii.gz").write_bytes(data)
    table(tmp_path, [(f"{number}.nii.gz", number) for number in range(1, 6)])
    pool = load(tmp_path, size=[12, 32, 40], order=order)
    for row in range(4):
        image, facts = pool.decode(row)
        own = nib.load(pool.files[row])
        assert np.allclose(image, expected(pool.files[row], [12, 32, 40], order), rtol=0, atol=3e-6)
        assert facts["size"] == list(own.shape)
        assert facts["spacing"] == [float(mm) for mm in own.header.get_zooms()]
        assert facts["orientation"] == "".join(nib.aff2axcodes(own.affine))
        hu = own.get_fdata()
        assert facts["range"] == [hu.min(), hu.max()]


@pytest.mark.real_data
def test_a_real_volume_at_the_papers_size(real_data, tmp_path):
    for number in range(1, 6):
        data = (real_data / "ct_nifti" / "ct_pulmonary.nii.gz").read_bytes()
        (tmp_path / f"{number}.nii.gz").write_bytes(data)
    table(tmp_path, [(f"{number}.nii.gz", number) for number in range(1, 6)])
    pool = load(tmp_path)
    image, _ = pool.decode(0)
    assert image.shape == pool.shape == (70, 224, 224, 1)
    assert np.allclose(image, expected(pool.files[0], [70, 224, 224]), rtol=0, atol=3e-6)


def stored(ras, order, signs, spacing=(1.0, 2.0, 3.0)):
    """A RAS array stored with its axes in another order and direction, by hand."""
    array, affine = ras.transpose(order), np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        affine[world, axis] = sign * spacing[world]
        if sign < 0:
            array = np.flip(array, axis)
    return nib.Nifti1Image(np.ascontiguousarray(array), affine)


def test_all_48_orientations_give_the_same_upright_array(root):
    ras = hounsfield((10, 9, 6), seed=9)
    path, seen = root / "CT_1" / "TRN_0001.nii.gz", set()
    pool = load(root, size=[6, 9, 10])
    want = (np.clip(ras[::-1, ::-1].transpose(2, 1, 0), -1000, 400).astype(float) + 1000) / 1400
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            nib.save(stored(ras, order, signs), path)
            image, facts = pool.decode(0)
            assert np.allclose(image[..., 0], want, rtol=0, atol=1e-6), facts["orientation"]
            assert sorted(facts["spacing"]) == [1, 2, 3]
            seen.add((facts["orientation"], image.tobytes()))
    assert len({orientation for orientation, _ in seen}) == 48
    assert len({pixels for _, pixels in seen}) == 1


def test_head_is_last_front_is_up_and_the_patients_right_is_on_the_left():
    ras = np.zeros((3, 3, 3))
    ras[2, 1, 1], ras[1, 2, 1], ras[1, 1, 2] = 1, 2, 3  # right, front, head
    upright = turn(ras, np.eye(4))
    assert upright[1, 1, 0] == 1 and upright[1, 0, 1] == 2 and upright[2, 1, 1] == 3


def test_an_oblique_volume_is_turned_by_its_nearest_axes():
    ras = np.arange(24.0).reshape(2, 3, 4)
    angle = np.deg2rad(20)
    tilted = np.eye(4)
    tilted[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    assert np.array_equal(turn(ras, tilted), turn(ras, np.eye(4)))


def test_stored_frame_is_the_authors_turn_by_90_degrees(root):
    hu = hounsfield((9, 9, 6), seed=3)
    for affine, same in ((LAS, True), (np.diag([-1.0, -1, 1, 1]), False)):
        nib.save(nib.Nifti1Image(hu, affine), root / "CT_1" / "TRN_0001.nii.gz")
        image, _ = load(root, size=[6, 9, 9], frame="stored").decode(0)
        scaled = (np.clip(hu, -1000, 400) + 1000.0) / 1400
        theirs = np.moveaxis(ndimage.rotate(scaled, 90, reshape=False), -1, 0)
        assert np.allclose(image[:, 1:-1, 1:-1, 0], theirs[:, 1:-1, 1:-1], rtol=0, atol=1e-5)
        upright, _ = load(root, size=[6, 9, 9]).decode(0)
        assert np.array_equal(image, upright) is same


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("old", [32, 120, 511, 512])
def test_zoom_is_scipys_but_leaves_no_black_border(old, order):
    new = 224 if old > 224 else 70
    volume = np.random.default_rng(0).random((3, 4, old)).astype(np.float32)
    ours = zoomed(volume, (5, 3, new), order)
    theirs = ndimage.zoom(volume, (5 / 3, 3 / 4, new / old), order=order)
    assert ours.shape == (5, 3, new) and ours.dtype == np.float32
    inside = np.s_[:-1, :-1, :-1]
    assert np.allclose(ours[inside], np.clip(theirs[inside], 0, 1), rtol=0, atol=2e-6)
    assert np.allclose(ours[0, 0, -1], volume[0, 0, -1], rtol=0, atol=1e-5)
    if old in (120, 512):
        assert not theirs[..., -1].any()


def test_size_of_the_array_is_exact_whatever_the_volumes():
    for old in range(1, 130):
        assert zoomed(np.ones((old, 1, 2), np.float32), (70, 7, 9)).shape == (70, 7, 9)


def test_float16_is_float32_rounded(root):
    image, _ = load(root, size=SIZE).decode(2)
    half, _ = load(root, size=SIZE, dtype="float16").decode(2)
    assert half.dtype == np.float16 and np.array_equal(half, image.astype(np.float16))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64, ">i2"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_types_byte_orders_and_scaling(root, dtype, kind):
    raw = np.random.default_rng(0).integers(0, 250, (7, 8, 5)).astype(dtype)
    path = bad(root, "TRN_0001.nii")
    header = kind.header_class(endianness=">" if dtype == ">i2" else "<")
    image = kind(raw, LAS, header)
    image.header.set_data_dtype(dtype)
    image.header.set_slope_inter(5.5, -1024)
    nib.save(image, path)
    made, facts = load(root, size=SIZE).decode(0)
    assert facts["range"] == [float(raw.min()) * 5.5 - 1024, float(raw.max()) * 5.5 - 1024]
    assert np.allclose(made, expected(path, SIZE), rtol=0, atol=2e-6)


def test_a_last_axis_of_one_is_dropped(root):
    nib.save(nib.Nifti1Image(hounsfield()[..., None], LAS), bad(root))
    image, facts = load(root, size=SIZE).decode(0)
    assert facts["size"] == [7, 8, 5]
    assert np.allclose(image, expected(root / "CT_1/TRN_0001.nii.gz", SIZE), rtol=0, atol=2e-6)


def test_threads_decode_what_one_decodes(root):
    pool = load(root, size=SIZE, order=3)
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda row: pool.decode(row)[0], list(range(5)) * 4))
    for row, image in enumerate(together):
        assert np.array_equal(image, pool.decode(row % 5)[0])


@pytest.mark.parametrize(("order", "copies"), [(1, 1.6), (3, 2.1)])
def test_no_more_than_two_copies_of_a_volume_are_held(root, order, copies):
    nib.save(nib.Nifti1Image(hounsfield((160, 160, 80)), LAS), bad(root))
    pool = load(root, size=SIZE, order=order)
    tracemalloc.start()
    pool.decode(0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < copies * 160 * 160 * 80 * 4 + 2**20


# ---------------------------------------------------------------- masks


@pytest.fixture
def masked(root):
    (root / "masks1").mkdir()
    for number in range(1, 6):
        lungs = np.random.default_rng(number).random((7, 8, 5)) < 0.6
        name = f"TRN_{number:04}{('', '_mask', '_regsegm_py')[number % 3]}.nii.gz"
        nib.save(nib.Nifti1Image(lungs.astype(np.uint8), LAS), root / "masks1" / name)
    return root


def test_masks_blacken_what_is_not_lung(masked):
    pool = load(masked, size=SIZE, masks=True)
    for row in range(5):
        image, facts = pool.decode(row)
        lungs = np.random.default_rng(row + 1).random((7, 8, 5)) < 0.6
        want = expected(pool.files[row], SIZE, inside=lungs[::-1])  # as_closest_canonical: RAS
        assert np.allclose(image, want, rtol=0, atol=2e-6)
        assert facts["mask_share"] == round(lungs.mean(), 4)


def test_masks_are_no_volumes_and_change_nothing_unless_asked_for(masked):
    pool = load(masked, size=SIZE)
    assert len(pool) == 5 and pool.settings["masks"] is None
    image, facts = pool.decode(0)
    assert np.allclose(image, expected(pool.files[0], SIZE), rtol=0, atol=2e-6)
    assert "mask_share" not in facts


def test_a_changed_mask_changes_the_settings(masked):
    before = load(masked, masks=True).settings
    assert before == load(masked, masks=True).settings
    lungs = np.ones((7, 8, 5), np.uint8)
    nib.save(nib.Nifti1Image(lungs, LAS), masked / "masks1" / "TRN_0003.nii.gz")
    assert load(masked, masks=True).settings != before


def test_missing_masks(masked):
    (masked / "masks1" / "TRN_0003.nii.gz").unlink()
    refuse_image(masked, "TRN_0003.nii.gz: no lung mask of that name", row=2, masks=True)
    load(masked, size=SIZE, masks=True).decode(1)


def test_no_folder_of_masks(root):
    refuse(root, "dataset.masks=true: no lung masks", masks=True)


def test_two_folders_of_masks(masked):
    (masked / "masks2").mkdir()
    lungs = np.ones((7, 8, 5), np.uint8)
    nib.save(nib.Nifti1Image(lungs, LAS), masked / "masks2" / "TRN_0001.nii.gz")
    refuse(masked, "masks in .*masks1 and .*masks2. Name one with dataset.mask_folder=", masks=True)
    pool = load(masked, size=SIZE, masks=True, mask_folder="masks2")
    assert pool.decode(0)[1]["mask_share"] == 1


@pytest.mark.parametrize(
    ("lungs", "affine", "match"),
    [
        (np.ones((7, 8, 6), np.uint8), LAS, "7x8x6 voxels, but TRN_0003.nii.gz has 7x8x5"),
        (np.ones((7, 8, 5), np.uint8), np.eye(4), "stored RAS, but TRN_0003.nii.gz is stored LAS"),
        (np.zeros((7, 8, 5), np.uint8), LAS, "empty, nothing would be left of TRN_0003.nii.gz"),
    ],
)
def test_masks_that_do_not_fit(masked, lungs, affine, match):
    nib.save(nib.Nifti1Image(lungs, affine), masked / "masks1" / "TRN_0003.nii.gz")
    refuse_image(masked, match, row=2, masks=True)


# ---------------------------------------------------------------- what can be wrong with the folder


def test_missing_folder(tmp_path):
    error = refuse(tmp_path / "nowhere", "not found in .*nowhere: missing TRN_0001.nii.gz")
    assert "source=phantom" in str(error) and "dataset.root=" in str(error)


def test_no_volumes(tmp_path):
    table(tmp_path, [("TRN_0001", 1)])
    refuse(tmp_path, "not found in .*: missing TRN_0001.nii.gz")


def test_no_csv(root):
    (root / "x_TrainSet_metaData.csv").unlink()
    refuse(root, "no CSV of labels below it.*dataset.labels=")


def test_csv_without_the_columns(root):
    table(root, [("TRN_0001", 1)], ("FileName", "Age"))
    refuse(root, r"no CSV with a column .*FileName, Age\)\nName the columns with dataset.file_col")
    refuse(root, "no CSV with a column", type_column="Kind")
    table(root, [("TRN_0001", 1)])
    refuse(root, "has no column Patient", patient_column="Patient")


def test_csv_without_rows(root):
    table(root, [])
    refuse(root, r"x_TrainSet_metaData.csv: no rows\)")


def test_two_csv_files(root):
    table(root, [("TRN_0001", 1)], name="other.csv")
    refuse(root, "other.csv and .*could both hold the labels. Name one with dataset.labels=")
    assert len(load(root, labels="x_TrainSet_metaData.csv")) == 5


def test_csv_that_is_not_utf8(root):
    path = root / "x_TrainSet_metaData.csv"
    path.write_bytes(path.read_bytes() + "TRN_0006,1,Übersicht\n".encode("latin-1"))
    refuse(root, "is not UTF-8 text")


@pytest.mark.parametrize("kind", ["0", "6", "", "1.5", "focal", "-1"])
def test_types_out_of_range(root, kind):
    table(root, [("TRN_0001", 1), ("TRN_0002", kind)])
    refuse(root, f"line 3: TypeOfTB is '{kind}': must be 1, 2, 3, 4 or 5")


def test_csv_that_names_missing_files(root):
    table(root, [("TRN_0001", 1), ("TRN_0009.nii.gz", 2), ("TRN_0010.nii.gz", 2)])
    refuse(root, r"names 2 volumes that are not below .*, the first TRN_0009.nii.gz \(line 3\)")


@pytest.mark.parametrize("name", ["../TRN_0001.nii.gz", "/etc/passwd", "CT_1/../../a", ""])
def test_csv_that_leads_out_of_the_root(root, name):
    table(root, [("TRN_0001", 1), (name, 2)])
    refuse(root, "line 3: .*not a plain path below")


def test_a_volume_that_stands_twice(root):
    table(root, [("TRN_0001", 1), ("TRN_0002", 1), ("TRN_0001.nii.gz", 2)])
    refuse(root, "line 4: TRN_0001.nii.gz stands in line 2 already")


def test_a_row_without_a_patient(root):
    table(root, [("TRN_0001", 1, "P1"), ("TRN_0002", 2, "")], ("FileName", "TypeOfTB", "Patient"))
    refuse(root, "line 3: Patient is empty", patient_column="Patient")


def test_a_class_without_volumes(root):
    table(root, [(f"TRN_{number:04}", min(number, 4)) for number in range(1, 6)])
    refuse(root, "no image of class fibro_cavernous")


def test_links_out_of_the_root(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "TRN_0001.nii.gz"
    path = bad(root)
    nib.save(nib.Nifti1Image(hounsfield(), LAS), outside)
    path.symlink_to(outside)
    refuse(root, "TRN_0001.nii.gz: a symbolic link that leads out of")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"size": [70, 224]}, r"dataset.size=\[70, 224\]: must be \[D, H, W\]"),
        ({"size": [0, 224, 224]}, r"dataset.size=\[0, 224, 224\]"),
        ({"order": 6}, r"dataset.order=6: must be 0..5"),
        ({"window": [400, -1000]}, r"dataset.window=\[400, -1000\]: must be \[low, high\]"),
        ({"frame": "upside"}, "dataset.frame=upside: no such choice"),
        ({"dtype": "int8"}, "dataset.dtype=int8: no such choice"),
    ],
)
def test_arguments_that_cannot_be(root, arguments, match):
    with pytest.raises(ConfigError, match=match):
        load(root, **arguments)


# ---------------------------------------------------------------- what can be wrong with a file


@pytest.mark.parametrize(
    ("shape", "match"),
    [((4, 5, 6, 2), "4x5x6x2 voxels, 4 axes: need one volume"), ((4, 5), "4x5 voxels, 2 axes")],
)
def test_volumes_of_two_or_four_axes(root, shape, match):
    nib.save(nib.Nifti1Image(hounsfield(shape), LAS), bad(root))
    refuse_image(root, match)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers(root, value):
    hu = hounsfield().astype(np.float32)
    hu[3, 4, 2] = hu[0, 0, 0] = value
    nib.save(nib.Nifti1Image(hu, LAS), bad(root))
    refuse_image(root, "2 of 280 voxels are NaN or infinite.*on_error=skip")


def test_colours_for_voxels(root):
    colours = np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colours, LAS), bad(root))
    refuse_image(root, "voxels of type .*need integers or real numbers")


def header(shape, dtype=np.int16):
    """The 352 bytes before the voxels of a single NIfTI-1 file."""
    made = nib.Nifti1Header()
    made.set_data_dtype(dtype)
    made["dim"] = [len(shape), *shape, *[1] * (7 - len(shape))]
    made["vox_offset"], made["magic"] = 352, b"n+1"
    made.set_sform(LAS, 1)
    return made.binaryblock + bytes(4)


def test_a_volume_without_voxels(root):
    bad(root, "TRN_0001.nii").write_bytes(header((4, 0, 6)))
    refuse_image(root, r"no voxels \(4x0x6\)")


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_an_absurd_header_is_refused_before_memory_is_asked_for(root, suffix):
    data = header((30000, 30000, 30000), np.float64) + bytes(1000)
    path = bad(root, f"TRN_0001.{suffix}")
    path.write_bytes(gzip.compress(data) if suffix == "nii.gz" else data)
    tracemalloc.start()
    refuse_image(root, "30000x30000x30000 voxels by its header, more than 536,870,912")
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_a_header_that_promises_more_than_the_file_holds(root, suffix):
    data = header((40, 50, 60)) + bytes(1000)
    path = bad(root, f"TRN_0001.{suffix}")
    path.write_bytes(gzip.compress(data) if suffix == "nii.gz" else data)
    refuse_image(root, "cut short: 1,000 of the 240,000 bytes of voxels")


def test_a_nii_that_is_cut_short(root):
    path = bad(root, "TRN_0001.nii")
    nib.save(nib.Nifti1Image(hounsfield(), LAS), path)
    path.write_bytes(path.read_bytes()[:-7])
    refuse_image(root, "cut short: 553 of the 560 bytes of voxels")


@pytest.mark.parametrize("kept", [0, 5, 40, 300, -9, -3])
def test_a_nii_gz_that_is_cut_short(root, kept):
    path = root / "CT_1" / "TRN_0001.nii.gz"
    path.write_bytes(path.read_bytes()[:kept])
    refuse_image(root, "TRN_0001.nii.gz cannot be read as NIfTI .*damaged or cut short")


def test_a_nii_gz_with_a_damaged_stream(root):
    path = root / "CT_1" / "TRN_0001.nii.gz"
    nib.save(nib.Nifti1Image(hounsfield((30, 30, 30)), LAS), path)
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # of the checksum, which stands behind all voxels
    path.write_bytes(data)
    refuse_image(root, r"cannot be read as NIfTI \(CRC check failed")


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_name_that_says_another_packing(root, kind):
    path = bad(root, "TRN_0001.nii")
    nib.save(kind(hounsfield(), LAS), path)
    plain = path.read_bytes()
    path.write_bytes(gzip.compress(plain))
    refuse_image(root, r"TRN_0001.nii: a gzip file whose .* Rename it to TRN_0001.nii.gz")
    path = root / "CT_2" / "other.nii.gz"
    path.write_bytes(plain)
    message = r"other.nii.gz: no gzip file: it is named .gz, but .* NIfTI. Rename it to other.nii,"
    with pytest.raises(MedexpError, match=message):
        read_volume(path)


@pytest.mark.parametrize("error", [KeyError("magic"), IndexError(), MemoryError()])
def test_whatever_nibabel_raises_is_that_files_fault(root, monkeypatch, error):
    def fail(path):
        raise error

    monkeypatch.setattr(nib, "load", fail)
    refuse_image(
        root, r"TRN_0001.nii.gz cannot be read as NIfTI \(.+\): it is damaged or cut short"
    )


@pytest.mark.parametrize("data", [b"", b"no NIfTI at all", bytes(400), bytes(range(256)) * 8])
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_a_file_that_is_no_nifti(root, data, suffix):
    bad(root, f"TRN_0001.{suffix}").write_bytes(data)
    refuse_image(root, "cannot be read as NIfTI")


def spaced(path, spacing, *, sform, qform=0, affine=LAS):
    image = nib.Nifti1Image(hounsfield(), LAS)
    image.set_sform(affine, sform)
    image.set_qform(LAS, qform)
    image.header["pixdim"][1:4] = spacing
    data = image.header.binaryblock
    path.write_bytes(data + bytes(4) + hounsfield().tobytes(order="F"))


@pytest.mark.parametrize("spacing", [(0, 2, 3), (1, np.nan, 3)])
def test_a_spacing_that_cannot_be_is_a_warning_where_the_orientation_is_known(root, spacing):
    path = bad(root, "TRN_0001.nii")
    spaced(path, spacing, sform=1)
    image, facts = load(root, size=SIZE).decode(0)
    wrong = ", ".join(str(float(mm)) for mm in spacing)
    assert facts["spacing"] is None
    assert facts["warnings"] == [f"spacing of {wrong} mm in the header"]
    assert np.allclose(image, expected(path, SIZE), rtol=0, atol=2e-6)


@pytest.mark.parametrize(("spacing", "sform"), [((1, np.nan, 3), 0), ((1, 2, 3), 1)])
def test_a_header_that_leaves_the_orientation_open(root, spacing, sform):
    flat = np.diag([-1.0, 2, 0, 1])  # K leads nowhere
    spaced(bad(root, "TRN_0001.nii"), spacing, sform=sform, qform=1 - sform, affine=flat)
    refuse_image(root, "its header does not say which way the patient lies")


def test_a_header_without_orientation_is_taken_for_las_with_a_warning(root):
    path = bad(root, "TRN_0001.nii")
    spaced(path, (1, 2, 3), sform=0)
    image, facts = load(root, size=SIZE).decode(0)
    assert facts["orientation"] == "LAS" and facts["spacing"] == [1, 2, 3]
    assert facts["warnings"] == ["no orientation in the header; LAS is assumed"]
    assert np.allclose(image, expected(path, SIZE), rtol=0, atol=2e-6)
