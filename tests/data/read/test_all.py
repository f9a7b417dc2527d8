import csv
import random
import re
import shutil
from collections import Counter, defaultdict

import cv2
import numpy as np
import pytest
from PIL import Image

from medexp.config.settings import SplitSettings
from medexp.data.read.all import PRELIM, load
from medexp.data.split import split_rows
from medexp.errors import ConfigError, MedexpError

NAMES = (  # fold, class, file
    (0, "all", "UID_11_10_2_all.bmp"),
    (0, "all", "UID_11_1_1_all.bmp"),
    (0, "hem", "UID_H12_4_1_hem.bmp"),
    (1, "all", "UID_2_7_1_all.bmp"),
    (1, "hem", "UID_H10_3_1_hem.bmp"),
    (2, "all", "UID_21_5_9_all.bmp"),
    (2, "hem", "UID_h3_3_1_hem.bmp"),
)
PRELIM_ROWS = (  # as the first rows of the real CSV
    ("UID_57_29_1_all.bmp", "1.bmp", "1"),
    ("UID_57_22_2_all.bmp", "2.bmp", "1"),
    ("UID_H49_35_1_hem.bmp", "3.bmp", "0"),
)
HEADER = ("Patient_ID", "new_names", "labels")


def save(path, seed, width=450, height=450):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def save_training(folder):
    for seed, (fold, kind, name) in enumerate(NAMES):
        save(folder / f"fold_{fold}" / kind / name, seed)


def save_table(path, rows, header=HEADER):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def root(tmp_path):
    """The layout of Kaggle's copy, with the preliminary test set."""
    save_training(tmp_path / "training_data")
    for seed, (_, name, _) in enumerate(PRELIM_ROWS):
        save(tmp_path / "validation_data" / PRELIM / name, 100 + seed)
    save_table(tmp_path / "validation_data" / f"{PRELIM}_labels.csv", PRELIM_ROWS)
    return tmp_path


def independent(path, crop, size, interpolation):
    """Pillow's pixels, cut and resized without medexp."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    if crop is not None:
        top, left = (pixels.shape[0] - crop) // 2, (pixels.shape[1] - crop) // 2
        pixels = pixels[top : top + crop, left : left + crop]
    return cv2.resize(pixels, (size, size), interpolation=interpolation)


# ---------------------------------------------------------------- pixels


@pytest.mark.parametrize(
    ("crop", "size", "name", "flag"),
    [
        (400, 150, "area", cv2.INTER_AREA),
        (None, 224, "linear", cv2.INTER_LINEAR),
        (401, 299, "cubic", cv2.INTER_CUBIC),
        (450, 450, "nearest", cv2.INTER_NEAREST),
    ],
)
def test_pixels_are_pillows_cropped_and_resized(root, crop, size, name, flag):
    pool = load(str(root), crop=crop, size=size, interpolation=name)
    assert pool.shape == (size, size, 3) and pool.dtype is np.uint8
    for row, file in enumerate(pool.files):
        image, facts = pool.decode(row)
        assert image.dtype == np.uint8
        assert np.array_equal(image, independent(file, crop, size, flag))
        assert facts == {"size": [450, 450], "mode": "RGB"}
    assert pool.settings == {"crop": crop, "size": size, "interpolation": name}


@pytest.mark.real_data
def test_real_cells_in_plain_folders(real_data, tmp_path):
    for source, kind in (("aml", "all"), ("apl", "hem")):
        shutil.copytree(real_data / "cells" / source, tmp_path / kind)
    pool = load(str(tmp_path), crop=360, size=120)
    assert len(pool) == 40 and np.bincount(pool.labels).tolist() == [20, 20]
    assert pool.groups is None and pool.folds is None
    for row in range(0, 40, 7):
        want = independent(tmp_path / pool.ids[row], 360, 120, cv2.INTER_AREA)
        assert np.array_equal(pool.decode(row)[0], want)
    with pytest.raises(MedexpError, match=r"360x360 pixels, smaller than dataset\.crop=400"):
        load(str(tmp_path)).decode(0)


# ---------------------------------------------------------------- lists


@pytest.mark.parametrize(
    "place",
    ["training_data", "C-NMC_training_data", "", "C-NMC_Leukemia/training_data",
     "PKG - C-NMC 2019/C-NMC_training_data"],
)  # fmt: skip
def test_every_copy_of_the_download_gives_the_same_list(tmp_path, place):
    save_training(tmp_path / place)
    (tmp_path / place / "fold_1" / "all" / "._UID_2_7_1_all.bmp").write_bytes(b"macOS")
    pool = load(str(tmp_path))
    assert pool.ids.tolist() == [f"fold_{fold}/{kind}/{name}" for fold, kind, name in NAMES]
    assert pool.labels.tolist() == [kind == "hem" for _, kind, _ in NAMES]
    assert pool.folds.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert pool.groups.tolist() == ["11", "11", "H12", "2", "H10", "21", "H3"]
    assert pool.files[3] == tmp_path / place / "fold_1" / "all" / "UID_2_7_1_all.bmp"
    assert pool.classes == ("all", "hem") and pool.public == 10_661
    assert pool.parts is None and pool.digests is None


def test_plain_folders_of_c_nmc_names_know_the_patients(tmp_path):
    for seed, (_, kind, name) in enumerate(NAMES):
        save(tmp_path / kind / name, seed)
    pool = load(str(tmp_path))
    assert pool.folds is None
    assert set(pool.groups) == {"11", "2", "21", "H10", "H12", "H3"}
    assert pool.ids[0] == "all/UID_11_10_2_all.bmp"


def test_plain_folders_of_other_names_have_no_patients(tmp_path):
    for kind in ("all", "hem"):
        save(tmp_path / kind / "1.png", 0)
        save(tmp_path / kind / "more" / "1.jpg", 1)
    pool = load(str(tmp_path))
    assert pool.groups is None and pool.folds is None
    assert pool.ids.tolist() == ["all/1.png", "all/more/1.jpg", "hem/1.png", "hem/more/1.jpg"]


def test_preliminary_test_set(root):
    """Its CSV calls ALL 1 and HEM 0; the classes here are all, hem."""
    pool = load(str(root), test="prelim")
    assert pool.parts.tolist() == [""] * 7 + ["test"] * 3
    assert pool.labels[7:].tolist() == [0, 0, 1]
    assert pool.groups[7:].tolist() == ["57", "57", "H49"]
    assert pool.folds[7:].tolist() == [-1] * 3
    assert pool.ids[7] == f"{PRELIM}/1.bmp"
    assert pool.public == 10_661 + 1_867
    file = root / "validation_data" / PRELIM / "3.bmp"
    assert pool.files[9] == file
    assert np.array_equal(pool.decode(9)[0], independent(file, 400, 150, cv2.INTER_AREA))


@pytest.mark.parametrize(
    ("images", "table"),
    [(f"{PRELIM}/{PRELIM}", PRELIM), (PRELIM, PRELIM), (PRELIM, ""), 
     (f"validation_data/{PRELIM}", f"validation_data/{PRELIM}")],
)  # fmt: skip
def test_preliminary_test_set_where_other_copies_have_it(root, images, table):
    shutil.move(root / "validation_data", root / "old")
    (root / images).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(root / "old" / PRELIM, root / images)
    shutil.move(root / "old" / f"{PRELIM}_labels.csv", root / table)
    assert load(str(root), test="prelim").files[9] == root / images / "3.bmp"


def test_preliminary_test_set_stays_the_test_part(root):
    pool = load(str(root), test="prelim")
    rows = split_rows(pool, SplitSettings(split="given", val_share=0)).rows
    assert rows["test"].tolist() == [7, 8, 9] and rows["train"].tolist() == list(range(7))


def test_file_list_lists_as_the_files_do(root, tmp_path):
    rows = [
        [path.relative_to(root).as_posix(), path.stat().st_size, f"{n:016x}"]
        for n, path in enumerate(sorted(root.rglob("*_*.bmp")))
    ]
    table = tmp_path / "list.csv"
    save_table(table, rows, ("path", "bytes", "sha256_16"))
    here, listed = load(str(root)), load(str(root), file_list=str(table))
    for name in ("ids", "labels", "groups", "folds"):
        assert np.array_equal(getattr(listed, name), getattr(here, name)), name
    assert list(listed.files) == list(here.files)
    assert listed.decode is None and here.decode is not None
    assert listed.digests.tolist() == [f"{n:016x}-608454" for n in range(7)]


# ---------------------------------------------------------------- the public list


def read_list(path):
    """The training images of the list, by plain string operations: (fold, class, name), digest."""
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["path"].startswith("training_data/")]
    return {tuple(row["path"].split("/")[1:]): (row["sha256_16"], row["bytes"]) for row in rows}


@pytest.mark.real_data
def test_public_file_list(real_data):
    path = real_data / "cnmc2019_filelist.csv"
    pool, want = load("data/all", file_list=str(path)), read_list(path)
    assert len(pool) == len(want) == pool.public == 10_661
    assert np.bincount(pool.labels).tolist() == [7_272, 3_389]
    for row, key in enumerate(pool.ids):
        fold, kind, name = key.split("/")
        assert (fold, kind, name) in want
        assert pool.folds[row] == int(fold[-1])
        assert pool.classes[pool.labels[row]] == kind
        assert pool.groups[row].lower() == name.lower().split("_")[1]
    # 73 people, 26 healthy, as the challenge states. UID_h3_ is H3, for no name has UID_H3_.
    people = {kind: set(pool.groups[pool.labels == n]) for n, kind in enumerate(pool.classes)}
    assert len(people["all"]) == 47 and len(people["hem"]) == 26
    assert not people["all"] & people["hem"]
    names = [key.split("/")[2] for key in pool.ids]
    assert sum(name.startswith("UID_h") for name in names) == 36 == (pool.groups == "H3").sum()
    assert not any(name.startswith("UID_H3_") for name in names)


@pytest.mark.real_data
def test_public_folds_share_no_patient_but_share_images(real_data):
    pool = load("data/all", file_list=str(real_data / "cnmc2019_filelist.csv"))
    folds_of = defaultdict(set)
    for group, fold in zip(pool.groups, pool.folds, strict=True):
        folds_of[group].add(fold)
    assert {len(folds) for folds in folds_of.values()} == {1}
    twins = defaultdict(list)
    for row, digest in enumerate(pool.digests):
        twins[digest].append(row)
    twins = [rows for rows in twins.values() if len(rows) > 1]
    assert len(twins) == 104 and {len(rows) for rows in twins} == {2}
    across = [rows for rows in twins if len(set(pool.folds[rows])) == 2]
    pairs = Counter(tuple(sorted(pool.groups[rows])) for rows in across)
    assert len(across) == 94
    assert pairs == {("20", "21"): 71, ("51", "78"): 11, ("51", "75"): 10, ("H2", "H6"): 1,
                     ("H10", "H3"): 1}  # fmt: skip


@pytest.mark.real_data
def test_papers_split_of_the_public_list(real_data):
    """Figure 9 by itself, on the names alone; every test image is of a patient in training."""
    path = real_data / "cnmc2019_filelist.csv"
    pool = load("data/all", file_list=str(path))
    plan = SplitSettings(
        split="per_class", test_share=0.2, val_share=0, split_seed=120, allow_leak=True
    )
    made = split_rows(pool, plan)
    for kind in pool.classes:
        names = sorted(name for _, own, name in read_list(path) if own == kind)
        random.seed(120)
        random.shuffle(names)
        cut = int(0.8 * len(names))
        for part, want in (("train", names[:cut]), ("test", names[cut:])):
            rows = made.rows[part]
            got = [pool.ids[r].split("/")[2] for r in rows if pool.ids[r].split("/")[1] == kind]
            assert sorted(got) == sorted(want)
    assert "100.0% of the test images are of 72 patients" in made.marks["LEAKY"]
    assert not split_rows(pool, SplitSettings(split="patients")).marks


# ---------------------------------------------------------------- what is refused


def test_missing_root(tmp_path):
    with pytest.raises(MedexpError, match="C-NMC 2019 .* not found in .*nowhere") as error:
        load(str(tmp_path / "nowhere"))
    assert "CC BY 3.0" in str(error.value) and "source=phantom" in str(error.value)


def test_root_of_something_else(tmp_path):
    save(tmp_path / "aml" / "1.bmp", 0)
    with pytest.raises(MedexpError, match=r"missing training_data/fold_0\.\.2"):
        load(str(tmp_path))


def test_missing_class_folder(root):
    shutil.rmtree(root / "training_data" / "fold_1" / "hem")
    with pytest.raises(MedexpError, match="fold_1/hem: no such folder; fold_1 needs both"):
        load(str(root))


def test_empty_class_folder(root):
    (root / "training_data" / "fold_1" / "hem" / NAMES[4][2]).unlink()
    with pytest.raises(MedexpError, match="fold_1/hem: no image in it"):
        load(str(root))


def test_truncated_bmp(root):
    file = root / "training_data" / "fold_0" / "all" / NAMES[0][2]
    file.write_bytes(file.read_bytes()[:300_000])
    with pytest.raises(MedexpError, match=r"UID_11_10_2_all\.bmp cannot be decoded .*truncated"):
        load(str(root)).decode(0)


def test_not_an_image(root):
    (root / "training_data" / "fold_0" / "all" / NAMES[0][2]).write_text("<html>not found</html>")
    with pytest.raises(MedexpError, match=r"UID_11_10_2_all\.bmp cannot be decoded"):
        load(str(root)).decode(0)


def test_image_smaller_than_the_crop(root):
    save(root / "training_data" / "fold_0" / "all" / NAMES[0][2], 0, width=450, height=360)
    match = (
        r"UID_11_10_2_all\.bmp: 450x360 pixels, smaller than dataset\.crop=400\. "
        r"Take dataset\.crop=360, or null"
    )
    with pytest.raises(MedexpError, match=match):
        load(str(root)).decode(0)


def test_link_out_of_the_tree(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    save(outside / "cell.bmp", 0)
    link = root / "training_data" / "fold_0" / "all" / "UID_11_2_1_all.bmp"
    link.symlink_to(outside / "cell.bmp")
    with pytest.raises(MedexpError, match=r"UID_11_2_1_all\.bmp: a symbolic link that leads out"):
        load(str(root))
    link.unlink()
    shutil.move(root / "training_data" / "fold_0" / "all", outside / "all")
    (root / "training_data" / "fold_0" / "all").symlink_to(outside / "all")
    with pytest.raises(MedexpError, match="fold_0/all: a symbolic link that leads out"):
        load(str(root))


def test_name_of_the_other_class(root):
    save(root / "training_data" / "fold_0" / "all" / "UID_H12_9_1_hem.bmp", 0)
    with pytest.raises(MedexpError, match=r"H12_9_1_hem\.bmp is named as hem but stands as all"):
        load(str(root))


def test_capitals_in_names_and_images_narrower_than_the_crop(root):
    folder = root / "training_data" / "fold_0" / "all"
    (folder / "UID_H99_1_1_ALL.BMP").write_bytes(next(folder.glob("*.bmp")).read_bytes())
    assert "H99" in load(str(root)).groups
    narrow = np.zeros((450, 390, 3), np.uint8)
    Image.fromarray(narrow).save(folder / "UID_H99_1_1_ALL.BMP")
    pool = load(str(root))
    (row,) = np.flatnonzero(pool.groups == "H99")
    with pytest.raises(MedexpError, match=r"390x450 pixels, smaller than dataset\.crop=400"):
        pool.decode(row)


def test_some_names_without_a_patient(root):
    save(root / "training_data" / "fold_0" / "all" / "cell (1).bmp", 0)
    with pytest.raises(MedexpError, match=r"cell \(1\)\.bmp: not named UID_<patient>_"):
        load(str(root))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("UID_57_1_1_all.bmp", "9.bmp", "1"), r"line 2: no file .*9\.bmp"),
        (("UID_57_1_1_all.bmp", "../1.bmp", "1"), r"line 2: '\.\./1\.bmp': not a plain path"),
        (("UID_57_1_1_all.bmp", "/etc/1.bmp", "1"), r"line 2: '/etc/1\.bmp': not a plain path"),
        (("UID_57_1_1_all.bmp", "1.bmp", "2"), r"line 2: label '2': need 1 \(ALL\) or 0 \(HEM\)"),
        (("UID_57_1_1_all.bmp", "1.bmp", ""), r"line 2: label '': need 1"),
        (("UID_57_1_1_all.bmp", "1.bmp", "0"), "line 2: UID_57_1_1_all.bmp is named as all but"),
        (("someone", "1.bmp", "1"), r"1\.bmp: not named UID_<patient>_"),
        (("UID_57_1_1_all.bmp", "1.bmp"), "line 2: too few cells"),
    ],
)
def test_rows_of_the_preliminary_csv_that_are_wrong(root, row, message):
    table = root / "validation_data" / f"{PRELIM}_labels.csv"
    save_table(table, [row])
    with pytest.raises(MedexpError, match=message):
        load(str(root), test="prelim")


def test_preliminary_csv_that_is_wrong_as_a_whole(root):
    table = root / "validation_data" / f"{PRELIM}_labels.csv"
    table.write_bytes("Patient_ID,new_names,labels\nJosé,1.bmp,1\n".encode("latin-1"))
    with pytest.raises(MedexpError, match=r"_labels\.csv is not UTF-8 text"):
        load(str(root), test="prelim")
    save_table(table, PRELIM_ROWS, ("Patient_ID", "names", "labels"))
    with pytest.raises(MedexpError, match=r"_labels\.csv has no column new_names"):
        load(str(root), test="prelim")
    save_table(table, [])
    with pytest.raises(MedexpError, match=r"_labels\.csv names no image"):
        load(str(root), test="prelim")
    table.unlink()
    with pytest.raises(MedexpError, match=rf"missing validation_data/{PRELIM}_labels\.csv"):
        load(str(root), test="prelim")


def test_preliminary_images_linked_from_elsewhere(root, tmp_path_factory):
    image = root / "validation_data" / PRELIM / "1.bmp"
    outside = tmp_path_factory.mktemp("outside") / "1.bmp"
    shutil.move(image, outside)
    image.symlink_to(outside)
    with pytest.raises(MedexpError, match=r"line 2: .*1\.bmp: a symbolic link that leads out"):
        load(str(root), test="prelim")


def test_file_lists_that_are_wrong(root, tmp_path):
    table = tmp_path / "list.csv"
    with pytest.raises(MedexpError, match=r"list\.csv cannot be read"):
        load(str(root), file_list=str(table))
    save_table(table, [("training_data/fold_0/all/UID_1_1_1_all.bmp", "ab")], ("path", "sha"))
    with pytest.raises(MedexpError, match=r"list\.csv has no column bytes, sha256_16"):
        load(str(root), file_list=str(table))
    columns = ("path", "bytes", "sha256_16")
    save_table(table, [("testing_data/1.bmp", "9", "ab")], columns)
    with pytest.raises(MedexpError, match=r"list\.csv: no path in it ends in all/NAME"):
        load(str(root), file_list=str(table))
    save_table(table, [("../fold_0/all/UID_1_1_1_all.bmp", "9", "ab")], columns)
    with pytest.raises(MedexpError, match=r"list\.csv, line 2: '\.\./fold_0.*not a plain path"):
        load(str(root), file_list=str(table))
    save_table(table, [("fold_0/all/UID_1_1_1_all.bmp", "9", "ab")], columns)
    with pytest.raises(MedexpError, match="no image of class hem"):
        load(str(root), file_list=str(table))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": 0}, "dataset.crop=0: need 1 or more"),
        ({"size": -1}, "dataset.size=-1: need 1 or more"),
        ({"interpolation": "bilinear"}, "dataset.interpolation=bilinear: no such choice"),
        ({"test": "final"}, "dataset.test=final: no such choice"),
        ({"test": "prelim", "file_list": "list.csv"}, "dataset.test=prelim: a file list has no"),
    ],
)
def test_values_that_cannot_be(root, options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load(str(root), **options)
