import h5py
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medexp.data.phantom import ldct
from medexp.data.phantom.ldct import write
from medexp.data.read.ldct import load


def read(folder):
    with h5py.File(folder / "all_patches.hdf5") as file:
        return file["ct_slices"][:], file["slice_class"][:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    write(folder, size=600)
    return folder


def test_layout_and_balance_are_the_public_ones(folder):
    slices, labels = read(folder)
    assert slices.shape == (600, 64, 64) and slices.dtype == np.float32
    assert slices.min() >= 0 and slices.max() <= 255 and np.array_equal(slices, np.rint(slices))
    assert labels.shape == (600, 1) and labels.dtype == np.int64
    assert labels.sum() == round(600 * 2526 / 6691)


def test_reader_reads_it_without_a_note_on_the_range(folder):
    pool = load(folder)
    assert len(pool) == 600 and pool.notes == ()
    assert pool.decode(0)[0].max() <= 1


@pytest.mark.parametrize("part", [slice(None), slice(20, 44)])
def test_grey_level_and_contrast_do_not_give_the_label_away(folder, part):
    slices, labels = read(folder)
    patch = slices[:, part, part]
    features = np.stack([patch.mean(axis=(1, 2)), patch.std(axis=(1, 2))], axis=1)
    model = make_pipeline(StandardScaler(), LogisticRegression())
    score = cross_val_predict(model, features, labels[:, 0], cv=5, method="decision_function")
    assert 0.38 < roc_auc_score(labels[:, 0], score) < 0.65


def test_findings_have_equal_area_and_brightness_but_other_outlines():
    rng = np.random.default_rng(0)
    findings = [[ldct._finding(rng, malignant) for _ in range(300)] for malignant in (False, True)]
    area, mean, rim = (
        [[measure(each) for each in kind] for kind in findings]
        for measure in (lambda f: (f > 0.3).sum(), lambda f: f[f > 0.3].mean(), perimeter)
    )
    assert np.median(area[0]) == pytest.approx(np.median(area[1]), rel=0.15)
    assert np.mean(mean[0]) == pytest.approx(np.mean(mean[1]), rel=0.05)
    assert np.median(rim[1]) > 1.2 * np.median(rim[0])


def perimeter(finding):
    """The border's length against that of a disc of the same area."""
    inside = (finding > 0.3).astype(float)
    length = sum(np.abs(np.diff(inside, axis=axis)).sum() for axis in (0, 1))
    return length / np.sqrt(inside.sum())


def test_scans_differ_in_grey_level_and_noise(folder):
    slices, _ = read(folder)
    scans = slices[:, ::4, ::4].reshape(100, ldct.PER_SCAN, -1)
    assert np.median(scans, axis=(1, 2)).std() > 5
    noise = np.abs(np.diff(slices, axis=2)).reshape(100, -1)
    assert np.median(noise, axis=1).std() > 1


def test_smallest_set_has_both_classes(tmp_path):
    write(tmp_path, size=16)
    assert np.bincount(load(tmp_path).labels).tolist() == [10, 6]
