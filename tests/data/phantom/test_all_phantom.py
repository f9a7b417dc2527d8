import csv
from collections import defaultdict

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medexp.config.settings import SplitSettings
from medexp.data.phantom import kit
from medexp.data.phantom.all import write
from medexp.data.read.all import PRELIM, load
from medexp.data.split import split_rows

SIZE = 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    write(folder, size=SIZE, seed=0)
    return folder


@pytest.fixture(scope="module")
def pool(folder):
    return load(str(folder), size=64)


@pytest.fixture(scope="module")
def images(pool):
    return np.stack([pool.decode(row)[0] for row in range(len(pool))])


def patients_of(pool):
    labels = defaultdict(set)
    for group, label in zip(pool.groups, pool.labels, strict=True):
        labels[group].add(int(label))
    return labels


# ---------------------------------------------------------------- files


def test_files_are_as_the_public_ones(folder):
    files = sorted((folder / "training_data").rglob("*.bmp"))
    assert len(files) == SIZE
    assert {file.stat().st_size for file in files} == {608_454}  # as in the public file list
    for file in files[::40]:
        image = Image.open(file)
        assert (image.format, image.mode, image.size) == ("BMP", "RGB", (450, 450))
        pixels = np.asarray(image)
        # One piece on black, around the centre, within what a crop to 400 keeps.
        count, _, boxes, _ = cv2.connectedComponentsWithStats(pixels.max(axis=2))
        assert count >= 2
        left, top, width, height, area = boxes[1:][boxes[1:, 4].argmax()]
        assert area > 0.98 * boxes[1:, 4].sum() and 20_000 < area < 80_000
        assert left > 25 and top > 25 and left + width < 425 and top + height < 425
        assert pixels[225, 225].min() > 0


def test_classes_patients_and_folds(pool):
    assert np.bincount(pool.labels).tolist() == [round(SIZE * 7_272 / 10_661), 64]
    patients = patients_of(pool)
    assert all(len(labels) == 1 for labels in patients.values())
    assert all((group[0] == "H") == (labels == {1}) for group, labels in patients.items())
    for fold in (0, 1, 2):
        assert set(pool.labels[pool.folds == fold]) == {0, 1}
    for group in patients:
        assert len(set(pool.folds[pool.groups == group])) == 1
    # One patient's names are in lower case, as in the public set.
    assert {key.split("_")[2] for key in pool.ids if "UID_h" in key} == {"h3"}


@pytest.mark.parametrize("size", [16, 600])
def test_every_size_has_patients_for_every_fold(tmp_path, monkeypatch, size):
    made = {}
    monkeypatch.setattr("medexp.data.phantom.all.cell", lambda seed, patient, number: None)
    monkeypatch.setattr(kit, "save", lambda path, image: made.update({path: 1}))
    write(tmp_path, size=size, seed=0)
    files = [path.relative_to(tmp_path).parts for path in made]
    training = [parts[1:] for parts in files if parts[0] == "training_data"]
    people = defaultdict(set)
    for fold, kind, name in training:
        people[fold, kind].add(name.split("_")[1])
    assert len(training) == size and len(people) == 6
    counts = {kind: sum(kind == name for _, name, _ in training) for kind in ("all", "hem")}
    assert min(counts.values()) >= 4
    total = {
        kind: sum(len(p) for (_, name), p in people.items() if name == kind) for kind in counts
    }
    assert total == ({"all": 3, "hem": 3} if size == 16 else {"all": 24, "hem": 15})


def test_preliminary_test_set(folder):
    pool = load(str(folder), test="prelim", size=32)
    test = pool.parts == "test"
    assert test.sum() == round(0.15 * SIZE)
    assert np.bincount(pool.labels[test]).tolist() == [20, 10]  # as 1,219 to 648
    assert not set(pool.groups[test]) & set(pool.groups[~test])
    with open(folder / "validation_data" / f"{PRELIM}_labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["Patient_ID", "new_names", "labels"]
    assert [row["new_names"] for row in rows] == [f"{n}.bmp" for n in range(1, len(rows) + 1)]
    for row in rows:
        assert row["labels"] == str(int(row["Patient_ID"].endswith("_all.bmp")))
    assert pool.decode(len(pool) - 1)[0].shape == (32, 32, 3)


# ---------------------------------------------------------------- difficulty


def test_colour_does_not_give_the_class_away(pool, images):
    pixels = images.reshape(len(images), -1, 3).astype(float)
    colour = np.hstack([pixels.mean(axis=1), pixels.std(axis=1)])
    model = make_pipeline(StandardScaler(), LogisticRegression())
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    score = cross_val_predict(
        model, colour, pool.labels, groups=pool.groups, cv=folds, method="decision_function"
    )
    assert roc_auc_score(pool.labels, score) < 0.65


def test_patients_differ_in_look(pool, images):
    """Most of the variance of colour and brightness lies between patients."""
    colour = np.stack([image[image.max(axis=2) > 0].mean(axis=0) for image in images])
    means = np.empty_like(colour)
    for group in np.unique(pool.groups):
        rows = pool.groups == group
        means[rows] = colour[rows].mean(axis=0)
    assert (means.var(axis=0) > 0.7 * colour.var(axis=0)).all()


def test_papers_split_scores_higher_than_one_of_whole_patients(pool, images):
    """The leak: a forest on 16x16 pixels knows the patients, and nothing that carries over.

    With the 13 patients here its AUC by patient is anywhere around chance.
    """
    pixels = images.reshape(len(images), 16, 4, 16, 4, 3).mean(axis=(2, 4)).reshape(len(images), -1)

    def auc(train, test):
        forest = RandomForestClassifier(60, random_state=0).fit(pixels[train], pool.labels[train])
        return roc_auc_score(pool.labels[test], forest.predict_proba(pixels[test])[:, 1])

    leaky = []
    for seed in (120, 121, 122):
        plan = SplitSettings(split="per_class", val_share=0, split_seed=seed, allow_leak=True)
        rows = split_rows(pool, plan).rows
        leaky.append(auc(rows["train"], rows["test"]))
    folds = StratifiedGroupKFold(3, shuffle=True, random_state=0)
    whole = [auc(*rows) for rows in folds.split(pixels, pool.labels, pool.groups)]
    print(f"AUC {np.mean(leaky):.3f} by image, {np.mean(whole):.3f} by patient")
    assert np.mean(leaky) > 0.8
    assert np.mean(leaky) > np.mean(whole) + 0.15
