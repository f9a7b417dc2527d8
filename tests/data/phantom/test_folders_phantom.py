import csv

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medexp.data.phantom.folders import write_folder, write_table
from medexp.data.phantom.pcam import slide
from medexp.data.read.csv_table import load as load_table
from medexp.data.read.image_folder import load as load_folder

WRITERS = [write_folder, write_table]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    write_table(folder, size=320, seed=1)
    return folder


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_table_names_every_file_and_its_patient(table):
    with open(table / "labels.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "patient"] and len(rows) == 320
    assert {row["path"] for row in rows} == {
        f"images/{p.name}" for p in (table / "images").iterdir()
    }
    assert all(row["patient"] in row["path"] for row in rows)


def test_pngs_are_the_pcam_phantoms_patches(table):
    made = {patient: slide(1, patient) for patient in (0, 2)}
    pool = load_table(table, size=None)
    compared = 0
    for row, file in enumerate(pool.files):
        _, patient, number = file.stem.split("_")
        if file.suffix == ".png" and int(patient) in made:
            patch = made[int(patient)]
            assert np.array_equal(pool.decode(row)[0], patch.images[int(number)])
            assert pool.classes[pool.labels[row]] == ("normal", "tumor")[patch.labels[int(number)]]
            compared += 1
    assert compared >= 50


def test_half_of_the_files_are_jpegs(table):
    kinds = [Image.open(path).format for path in (table / "images").iterdir()]
    assert 120 < kinds.count("JPEG") < 200 and kinds.count("JPEG") + kinds.count("PNG") == 320


def test_colour_does_not_give_the_label_away(table):
    pool = load_table(table, size=None)
    images = np.stack([pool.decode(row)[0] for row in range(len(pool))]).reshape(len(pool), -1, 3)
    colour = np.hstack([images.mean(axis=1), images.std(axis=1)])
    model = make_pipeline(StandardScaler(), LogisticRegression())
    score = cross_val_predict(
        model, colour, pool.labels, groups=pool.groups, cv=GroupKFold(5), method="decision_function"
    )
    assert 0.4 < roc_auc_score(pool.labels, score) < 0.65


@pytest.mark.parametrize("size", [16, 33, 257])
def test_counts_of_images_classes_and_patients(tmp_path, size):
    write_table(tmp_path, size=size, seed=0)
    pool = load_table(tmp_path)
    counts = np.bincount(pool.labels)
    assert counts.sum() == size and abs(counts[0] - counts[1]) <= 1
    assert len(set(pool.groups.tolist())) >= 8


def test_folders_hold_the_tables_images(tmp_path, table):
    write_folder(tmp_path, size=320, seed=1)
    pool, listed = load_folder(tmp_path), load_table(table)
    label = {file.name: number for file, number in zip(listed.files, listed.labels, strict=True)}
    assert pool.classes == listed.classes and len(pool) == 320
    for file, number in zip(pool.files, pool.labels, strict=True):
        assert label[file.name] == number
        assert file.read_bytes() == (table / "images" / file.name).read_bytes()
