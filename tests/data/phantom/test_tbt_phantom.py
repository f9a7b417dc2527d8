import csv

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medexp.data.phantom import tbt
from medexp.data.phantom.tbt import LESIONS, SHARES, counts, scan, write
from medexp.data.read.tbt import load, windowed, zoomed

SMALL = [12, 40, 40]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    write(folder, size=40)
    return folder


@pytest.fixture(scope="module")
def lesions():
    """What each type adds to the lungs of one chest: (added HU, voxels in ml, HU after)."""
    changes = []
    for lesion in LESIONS:
        rng = np.random.default_rng(5)
        chest = tbt.healthy(rng)
        before = chest.hu.copy()
        lesion(rng, chest)
        changes.append((chest.hu - before, np.prod(chest.spacing) / 1000, chest.hu, chest.lungs))
    return changes


def test_layout_is_the_public_one(folder):
    with open(folder / "TrainSet_metaData.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["FileName", "TypeOfTB"] and len(rows) == 40
    assert [row["FileName"] for row in rows] == [f"TRN_{n:04}.nii.gz" for n in range(1, 41)]
    kinds = [int(row["TypeOfTB"]) for row in rows]
    assert np.bincount(kinds).tolist() == [0, *counts(40)] and kinds != sorted(kinds)
    names = sorted(path.name for path in (folder / "train").iterdir())
    assert names == [row["FileName"] for row in rows]
    masks = sorted(path.name for path in (folder / "masks1").iterdir())
    assert masks == [f"TRN_{n:04}_mask.nii.gz" for n in range(1, 41)]


def test_volumes_differ_in_shape_spacing_orientation_and_storage(folder):
    images = [nib.load(path) for path in sorted((folder / "train").iterdir())]
    for image in images:
        assert image.get_data_dtype() == np.int16 and image.ndim == 3
        assert 96 <= image.shape[0] == image.shape[1] <= 128 and 24 <= image.shape[2] <= 60
        pixel, _, slices = image.header.get_zooms()
        assert 2.2 < pixel < 4.9 and 4.3 < slices < 13.8
    assert len({image.shape for image in images}) > 30
    assert {"".join(nib.aff2axcodes(image.affine)) for image in images} == set(tbt.STORED)
    assert {image.dataobj.inter for image in images} == {0, -1024}


def test_every_volume_is_read_upright_and_as_drawn(folder):
    pool = load(folder, size=SMALL)
    for row in range(12):
        rng = np.random.default_rng([0, 40, row])
        _, hu = scan(rng, int(pool.labels[row]))
        want = zoomed(windowed(hu.astype(np.float32), -1000, 400), SMALL)
        image, facts = pool.decode(row)
        assert np.array_equal(image[..., 0], want)
        assert facts["size"] == [hu.shape[2], hu.shape[1], hu.shape[0]]
    assert "warnings" not in facts


def test_masks_hold_the_lungs(folder):
    pool = load(folder, size=SMALL, masks=True)
    for row in range(4):
        image, facts = pool.decode(row)
        assert 0.05 < facts["mask_share"] < 0.35
        plain = nib.load(pool.files[row]).get_fdata()
        lungs = nib.load(folder / "masks1" / f"{pool.ids[row]}_mask.nii.gz").get_fdata() == 1
        assert np.median(plain[lungs]) < -700
        assert image[:, :2].max() == 0 and image.max() > 0.2


def test_types_come_in_the_real_shares_with_a_least_number():
    assert counts(732) == list(SHARES)
    for size in range(16, 130):
        made = counts(size)
        assert sum(made) == size and min(made) >= min(5, size // 5)
        assert made == sorted(made, reverse=True)


@pytest.mark.parametrize("size", [24, 25, 30, 33, 40, 47, 60, 80, 100, 200])
def test_a_stratified_split_has_every_type_on_both_sides(size):
    labels = np.repeat(range(5), counts(size))
    for part in train_test_split(labels, test_size=round(0.2 * size), stratify=labels):
        assert set(part) == set(range(5))


def test_brightness_and_contrast_do_not_give_the_type_away(folder):
    pool = load(folder, size=SMALL)
    volumes = np.stack([pool.decode(row)[0].ravel() for row in range(40)])
    features = np.stack([volumes.mean(axis=1), volumes.std(axis=1)], axis=1)
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    score = cross_val_predict(model, features, pool.labels, cv=5, method="predict_proba")
    assert 0.3 < roc_auc_score(pool.labels, score, multi_class="ovr") < 0.65


def parts(added, least):
    """Volumes in ml of the connected parts where more than `least` HU was added, largest first."""
    change, millilitres, _, _ = added
    label, count = ndimage.label(change > least)
    sizes = ndimage.sum_labels(np.ones(label.shape), label, range(1, count + 1)) * millilitres
    return np.sort(sizes)[::-1]


def test_infiltrative_clouds_cover_much_and_hide_little(lesions):
    change, _, _, lungs = lesions[0]
    assert 0.06 < (change > 150).sum() / lungs.sum() < 0.5
    assert np.quantile(change[change > 150], 0.9) < 750


def test_focal_is_one_large_dense_part(lesions):
    sizes = parts(lesions[1], 400)
    assert sizes[0] > 30 and sizes[0] > 0.8 * sizes.sum()


def test_tuberculoma_is_one_nodule_of_2_to_4_cm(lesions):
    sizes = parts(lesions[2], 450)
    assert len(sizes) == 1
    assert 2 < 2 * (sizes[0] * 3 / (4 * np.pi)) ** (1 / 3) < 4.2


def test_miliary_dots_are_many_and_small_in_both_lungs(lesions):
    sizes = parts(lesions[3], 250)
    assert len(sizes) > 300 and np.median(sizes) <= 3 * lesions[3][1]
    left = lesions[3][0][:, :, : lesions[3][0].shape[2] // 2]
    assert 0.3 < (left > 250).sum() / (lesions[3][0] > 250).sum() < 0.7


def test_fibro_cavernous_is_air_in_a_thick_wall(lesions):
    change, millilitres, hu, lungs = lesions[4]
    wall = change > 400
    air = (hu < -930) & (lungs > 0.9)
    assert wall.sum() * millilitres > 15 and air.sum() * millilitres > 5
    label, _ = ndimage.label(air)
    largest = label == np.bincount(label[air]).argmax()
    shell = ndimage.binary_dilation(largest, iterations=2) & ~ndimage.binary_dilation(largest)
    assert wall[shell].mean() > 0.6
