import csv
import hashlib

import h5py
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medexp.data.phantom.pcam import CENTRE, slide, write, write_kaggle
from medexp.data.read.pcam import load

PARTS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def patches():
    slides = [slide(0, number) for number in range(24)]
    names = ("images", "labels", "tumour")
    return {name: np.concatenate([getattr(s, name) for s in slides]) for name in names}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    write(folder, size=80, seed=7)
    return folder


def test_pixels_are_the_same_on_every_machine():
    made = slide(7, 0)
    digest = hashlib.sha256(made.images.tobytes() + made.labels.tobytes()).hexdigest()
    assert digest == "06ea3883bfadf782f35e6a4eade5cc441b314b896324bbd42689db1f33352533"


def test_label_is_tumour_in_the_centre(patches):
    in_centre = patches["tumour"][:, CENTRE, CENTRE].any(axis=(1, 2))
    assert np.array_equal(patches["labels"] == 1, in_centre)


def test_negatives_hold_as_much_tumour_as_positives(patches):
    area = patches["tumour"].mean(axis=(1, 2))
    positive = patches["labels"] == 1
    assert patches["tumour"].any(axis=(1, 2)).all()
    assert area[positive].mean() == pytest.approx(area[~positive].mean(), rel=0.05)


def test_classes_are_balanced(patches):
    assert patches["labels"].mean() == 0.5


def test_colour_does_not_give_the_label_away(patches):
    pixels = patches["images"].reshape(len(patches["images"]), -1, 3)
    colour = np.hstack([pixels.mean(axis=1), pixels.std(axis=1)])
    model = make_pipeline(StandardScaler(), LogisticRegression())
    score = cross_val_predict(model, colour, patches["labels"], cv=5, method="decision_function")
    assert roc_auc_score(patches["labels"], score) < 0.65


def test_slides_differ_in_stain(patches):
    by_slide = patches["images"].reshape(24, 32, -1, 3).mean(axis=2)
    assert by_slide.mean(axis=1).std(axis=0).min() > 3


def decoded(pool):
    return np.stack([pool.decode(row)[0] for row in range(len(pool))])


def test_written_files_read_back(folder):
    pool = load(folder)
    images, parts = decoded(pool), pool.parts
    assert [int((parts == part).sum()) for part in ("train", "val", "test")] == [80, 64, 64]
    made = np.concatenate([slide(7, number).images for number in range(3)])[:80]
    assert np.array_equal(images[parts == "train"], made)
    last = np.concatenate([slide(7, n).images for n in (5, 6)])
    assert np.array_equal(images[parts == "test"], last)
    groups = [set(pool.groups[parts == part]) for part in ("train", "val", "test")]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert pool.groups[79] == "phantom_tumor_002"


def test_meta_has_the_public_columns(folder):
    for part in PARTS:
        stem = folder / f"camelyonpatch_level_2_split_{part}"
        with open(f"{stem}_meta.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["coord_y", "coord_x", "tumor_patch", "center_tumor_patch", "wsi"]
        with h5py.File(f"{stem}_y.h5") as file:
            labels = file["y"][:].ravel()
        assert [row["center_tumor_patch"] == "True" for row in rows] == (labels == 1).tolist()
        assert {row["tumor_patch"] for row in rows} == {"True"}


def test_a_smaller_size_is_the_start_of_a_larger_one(folder, tmp_path):
    write(tmp_path, size=10, seed=7)
    small, large = decoded(load(tmp_path)), decoded(load(folder))
    assert np.array_equal(small[:10], large[:10])


def test_kaggle_layout_reads_back(tmp_path):
    write_kaggle(tmp_path, size=40, seed=7)
    pool = load(tmp_path)
    place = {name: row for row, name in enumerate(pool.ids.tolist())}
    for number, i in ((0, 0), (0, 31), (1, 7)):
        row, made = place[f"phantom_{number * 32 + i:06d}"], slide(7, number)
        assert np.array_equal(pool.decode(row)[0], made.images[i])
        assert pool.labels[row] == made.labels[i]
