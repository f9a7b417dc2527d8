import importlib.util

import nibabel as nib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from medexp.data.read.tbt import load
from tests.conftest import ROOT

SPEC = importlib.util.spec_from_file_location("cord", ROOT / "benchmarks" / "cord_phantom.py")
cord = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(cord)
HEIGHTS = np.linspace(0, 1, 200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cord")
    cord.write(folder, size=40)
    return folder


def test_the_reader_of_tbt_reads_it_upright_with_as_many_of_each_course(folder):
    pool = load(folder, size=[12, 32, 32], window=[-3000, 3000])
    assert np.bincount(pool.labels).tolist() == [8] * 5
    image, facts = pool.decode(0)
    assert facts["orientation"] == "LPS" and image.shape == (12, 32, 32, 1)


def test_the_cord_is_where_the_course_says_in_every_slice():
    for name in cord.COURSES:
        hu, affine = cord.volume(np.random.default_rng(3), name)
        bright = hu > 1000
        assert bright.any(axis=(0, 1)).all()
        left = [np.argwhere(part).mean(0)[0] * -affine[0, 0] for part in bright.transpose(2, 0, 1)]
        spread = np.ptp(left)
        assert spread < 5 if name == "straight" else spread > 60


@pytest.mark.parametrize("name", cord.COURSES)
def test_courses_stay_within_their_reach_and_turn_as_often_as_stated(name):
    for seed in range(20):
        aside, back = cord.course(np.random.default_rng(seed), name, HEIGHTS)
        assert np.hypot(aside, back).max() <= cord.REACH[1] + 1e-9
        turning = np.count_nonzero(np.diff(np.sign(np.diff(aside))))
        least, most = {"straight": (0, 0), "leaning": (0, 0), "swaying": (2, 3),
                       "trembling": (5, 7), "winding": (2, 4)}[name]  # fmt: skip
        assert least <= turning <= most
        assert np.any(back) == (name == "winding")


def test_same_seed_same_volumes(folder, tmp_path):
    cord.write(tmp_path / "again", size=5)
    for path in sorted((tmp_path / "again" / "train").iterdir()):
        again = nib.load(path).get_fdata()
        assert np.array_equal(again, nib.load(folder / "train" / path.name).get_fdata())


def test_brightness_does_not_give_the_course_away(folder):
    pool = load(folder, size=[12, 32, 32], window=[-3000, 3000])
    volumes = np.stack([pool.decode(row)[0].ravel() for row in range(40)])
    features = np.stack([volumes.mean(1), volumes.std(1)], axis=1)
    features = (features - features.mean(0)) / features.std(0)
    predicted = cross_val_predict(LogisticRegression(), features, pool.labels, cv=4)
    assert (predicted == pool.labels).mean() < 0.45
