import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medexp.data.phantom import ucf50
from medexp.data.phantom.ucf50 import MOTIONS, write
from medexp.data.read.ucf50 import PAPER, load
from medexp.errors import MedexpError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    write(folder, size=60)
    return folder


def test_layout_is_the_public_one(folder):
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.avi"))
    assert len(names) == 60 and set(MOTIONS) == set(PAPER)
    assert [n for n in names if n.startswith("Rowing")] == [
        f"Rowing/v_Rowing_g{group:02d}_c{clip:02d}.avi" for group in (1, 2, 3) for clip in (1, 2)
    ]
    video = cv2.VideoCapture(str(folder / names[0]))
    assert video.get(cv2.CAP_PROP_FPS) == 25
    assert video.read()[1].shape == (120, 160, 3)


def test_reader_reads_it_and_drops_a_few_short_clips(folder):
    pool = load(folder, size=32)
    assert len(pool) == 57 and len(np.unique(pool.groups)) == 30
    assert pool.notes == ("3 clips shorter than 70 frames dropped",)
    assert all(pool.decode(row)[0].shape == (70, 32, 32, 1) for row in range(0, 57, 8))


def test_brightness_and_contrast_do_not_give_the_class_away(folder):
    pool = load(folder, size=40, frames=8, sampling="even", short="pad")
    clips = np.stack([pool.decode(row)[0] for row in range(60)]).astype(np.float32)
    features = np.stack([clips.mean(axis=(1, 2, 3, 4)), clips.std(axis=(1, 2, 3, 4))], axis=1)
    model = make_pipeline(StandardScaler(), LogisticRegression())
    score = cross_val_predict(
        model, features, pool.labels, groups=pool.groups, cv=GroupKFold(3), method="predict_proba"
    )
    assert 0.35 < roc_auc_score(pool.labels, score, multi_class="ovr") < 0.65


def test_clips_of_one_group_share_their_scenery(folder):
    pool = load(folder, size=16, frames=1, short="pad")
    first = np.stack([pool.decode(row)[0].ravel() for row in range(60)]).astype(np.float32)
    apart = np.abs(first[:, None] - first).mean(axis=2)
    same = pool.groups[:, None] == pool.groups
    assert apart[same & ~np.eye(60, dtype=bool)].mean() < 0.5 * apart[~same].mean()


def test_motions_differ_in_how_figure_and_ball_go():
    """Speeds over one second, whatever phase a clip starts with, tell the ten motions apart."""
    speeds = []
    for period, move in MOTIONS.values():
        each = []
        for start in np.linspace(0, 1, 8, endpoint=False):
            motion = move(start + np.arange(72) / period, 1)
            parts = (motion.hip[:, 0], motion.hip[:, 1], motion.ball[:, 0], motion.ball[:, 1],
                     motion.arms, motion.legs)  # fmt: skip
            each.append([np.abs(np.diff(part)).mean() for part in parts])
        speeds.append(np.array(each))
    for one in range(10):
        for other in range(one):
            gap = np.abs(speeds[one].mean(axis=0) - speeds[other].mean(axis=0))
            spread = speeds[one].std(axis=0) + speeds[other].std(axis=0) + 1e-4
            assert (gap / spread).max() > 3, (list(MOTIONS)[one], list(MOTIONS)[other])


def test_smallest_set_has_every_class(tmp_path):
    write(tmp_path, size=16)
    assert np.bincount(load(tmp_path, size=16).labels, minlength=10).min() >= 1


def test_opencv_that_cannot_write_is_named(tmp_path, monkeypatch):
    # A writer that was never opened is what OpenCV returns where the codec is missing.
    shut = cv2.VideoWriter()
    monkeypatch.setattr(ucf50, "_open", lambda path: shut)
    with pytest.raises(MedexpError, match=r"g01_c01.avi cannot be written: .* no Motion JPEG"):
        write(tmp_path, size=16)
