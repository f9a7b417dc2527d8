"""Every kind of split against scikit-learn called by hand, or against its definition."""

import csv
import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import (
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    train_test_split,
)

from medexp.config.settings import SplitSettings
from medexp.data.base import Pool
from medexp.data.draw import share_count, stratified_subset
from medexp.data.leak import shared_groups
from medexp.data.split import resolve, split_rows
from medexp.errors import ConfigError, MedexpError

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [120, 60, 21]))
GROUPS = np.random.default_rng(1).integers(0, 30, len(LABELS)).astype(str)
N = len(LABELS)


def pool(labels=LABELS, **facts):
    """A pool of files without pixels, as a list of files gives."""
    n = len(labels)
    given = {
        "name": "mine",
        "classes": ("a", "b", "c")[: labels.max() + 1],
        "labels": labels,
        "ids": np.array([f"x/{i:03d}.png" for i in range(n)]),
        # Sorted by name is another order than that of the rows.
        "files": [Path(f"x/{(i * 77) % n:03d}.png") for i in range(n)],
        "shape": (4, 4, 1),
        "dtype": np.uint8,
        "decode": None,
        "settings": {},
    }
    return Pool(**given | facts)


def rows_of(settings, **facts):
    return split_rows(pool(**facts), settings).rows


def is_partition(rows, count=N):
    return np.array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(count))


def same(found, *oracle):
    return all(
        np.array_equal(rows, np.sort(wanted))
        for rows, wanted in zip(found.values(), oracle, strict=True)
    )


# ---------------------------------------------------------------- kinds


@pytest.mark.parametrize("seed", [0, 42])
def test_stratified_is_scikit_learn_called_twice(seed):
    settings = SplitSettings(split="stratified", test_share=0.25, val_share=0.1, split_seed=seed)
    everything = np.arange(N)
    rest, test = train_test_split(everything, test_size=0.25, stratify=LABELS, random_state=seed)
    train, val = train_test_split(
        rest, test_size=math.ceil(0.1 * N), stratify=LABELS[rest], random_state=seed
    )
    assert same(rows_of(settings), train, val, test)


def test_the_ldct_papers_sizes():
    labels = np.repeat([0, 1], [4165, 2526])
    settings = SplitSettings(split="stratified", test_share=0.25, val_share=0.1, split_seed=42)
    rows = rows_of(settings, labels=labels)
    assert [len(r) for r in rows.values()] == [4348, 670, 1673]
    assert np.bincount(labels[rows["test"]]).tolist() == [1041, 632]  # the dossier's count


def test_random_is_the_video_papers_split():
    """1,366 clips: 80/20 by scikit-learn unstratified, then Keras' validation_split=0.2."""
    labels = np.arange(1366) % 3
    rest, test = train_test_split(np.arange(1366), test_size=0.2, random_state=0)
    cut = int(len(rest) * (1 - 0.2))
    settings = SplitSettings(split="random", test_share=0.2, val_share=0.16)
    rows = rows_of(settings, labels=labels)
    assert same(rows, rest[:cut], rest[cut:], test)
    assert [len(r) for r in rows.values()] == [873, 219, 274]


def test_per_class_is_the_listing_of_the_leukaemia_paper():
    settings = SplitSettings(split="per_class", test_share=0.2, val_share=0, split_seed=120)
    made = pool()
    wanted = {"train": [], "test": []}
    for label in range(3):
        names = sorted(f.name for f, own in zip(made.files, LABELS, strict=True) if own == label)
        random.seed(120)
        random.shuffle(names)
        wanted["train"] += names[: int(0.8 * len(names))]
        wanted["test"] += names[int(0.8 * len(names)) :]
    rows = split_rows(made, settings).rows
    for part, names in wanted.items():
        assert sorted(made.files[row].name for row in rows[part]) == sorted(names)
    assert np.array_equal(rows["val"], rows["test"])
    three = split_rows(made, replace(settings, val_share=0.1)).rows
    assert is_partition(three) and np.array_equal(three["test"], rows["test"])


@pytest.mark.parametrize("seed", range(3))
def test_patients_never_cross(seed):
    rows = rows_of(SplitSettings(split="patients", split_seed=seed), groups=GROUPS)
    assert is_partition(rows) and not any(n for n, _ in shared_groups(GROUPS, rows).values())
    # 30 patients of some seven images each: the counts of a split image by image can be met.
    assert [len(rows["val"]), len(rows["test"])] == [share_count(0.1, N), share_count(0.2, N)]
    assert all(set(LABELS[part]) == {0, 1, 2} for part in rows.values())


@pytest.mark.parametrize(
    ("kind", "splitter"),
    [("stratified", StratifiedKFold), ("patients", StratifiedGroupKFold), ("random", KFold)],
)
def test_folds_are_scikit_learns(kind, splitter):
    oracle = splitter(4, shuffle=True, random_state=7)
    groups = GROUPS if kind == "patients" else None
    parts = [test for _, test in oracle.split(LABELS, LABELS, groups)]
    for fold, test in enumerate(parts):
        settings = SplitSettings(split=kind, folds=4, fold=fold, split_seed=7, allow_leak=True)
        rows = rows_of(settings, groups=GROUPS)
        assert np.array_equal(rows["test"], np.sort(test)) and is_partition(rows)
        assert len(rows["val"]) == share_count(0.1, N) or kind == "patients"
        if kind == "patients":
            assert not any(n for n, _ in shared_groups(GROUPS, rows).values())


def test_given_parts_are_kept():
    parts = np.array((["train"] * 3 + ["val", "test"]) * 41)[:N]
    rows = rows_of(SplitSettings(), parts=parts)  # auto is given where there are parts
    assert all((parts[rows[part]] == part).all() for part in rows) and is_partition(rows)
    pooled = rows_of(SplitSettings(split="stratified"), parts=parts)
    assert not (parts[pooled["test"]] == "test").all()


def test_what_given_parts_lack_is_drawn():
    parts = np.array((["train"] * 3 + ["test"]) * 51)[:N]
    made = split_rows(pool(parts=parts), SplitSettings())
    assert np.array_equal(made.rows["test"], np.flatnonzero(parts == "test"))
    assert len(made.rows["val"]) == share_count(0.1, (parts == "train").sum())
    assert is_partition(made.rows) and "validation is drawn from the given" in made.notes[0]
    parts = np.where(parts == "test", "val", parts)  # train/ and val/ only, as ImageNet has it
    made = split_rows(pool(parts=parts), SplitSettings())
    assert np.array_equal(made.rows["test"], np.flatnonzero(parts == "val"))
    assert "the validation part serves as test split" in made.notes[0] and is_partition(made.rows)


@pytest.mark.parametrize("kind", ["stratified", "random", "per_class", "patients"])
def test_images_with_a_part_of_their_own_stay_in_it(kind):
    for own in ("train", "val", "test"):
        parts = np.where(np.arange(N) % 4 == 0, own, "")
        rows = rows_of(SplitSettings(split=kind, allow_leak=True), parts=parts, groups=GROUPS)
        fixed = np.flatnonzero(parts == own)
        assert np.isin(fixed, rows[own]).all() and is_partition(rows)
        assert own == "train" or len(rows[own]) == len(fixed)


def test_random_validation_beside_a_given_test_part_is_not_the_end_of_the_list():
    labels = np.repeat([0, 1], 100)  # listed class by class, as folders are
    parts = np.where(np.arange(200) % 4 == 0, "test", "")
    val = rows_of(SplitSettings(split="random", val_share=0.2), labels=labels, parts=parts)["val"]
    assert len(val) == 30 and 5 < labels[val].sum() < 25


def test_own_folds():
    folds = np.arange(N) % 3
    rows = rows_of(SplitSettings(split="given", fold=1, val_share=0), folds=folds)
    assert np.array_equal(rows["test"], np.flatnonzero(folds == 1))
    assert np.array_equal(rows["train"], np.flatnonzero(folds != 1))
    outside = np.where(np.arange(N) < 9, -1, folds)  # of no fold: left out
    rest = rows_of(SplitSettings(split="given", fold=1, val_share=0), folds=outside)["train"]
    assert rest.tolist() == [row for row in range(9, N) if folds[row] != 1]
    rows = rows_of(SplitSettings(split="given", fold=1), folds=folds)
    assert is_partition(rows) and len(rows["val"]) == share_count(0.1, (folds != 1).sum())
    with pytest.raises(ConfigError, match=r"dataset.fold=3: mine has the folds \[0, 1, 2\]"):
        rows_of(SplitSettings(split="given", fold=3), folds=folds)
    with pytest.raises(ConfigError, match=r"comes without a split. Its folds: give dataset.fold=0"):
        rows_of(SplitSettings(split="given"), folds=folds)


def test_auto():
    parts = np.array(["train", "test", "val"] * 67)
    assert resolve(pool(), SplitSettings()) == "stratified"
    assert resolve(pool(groups=GROUPS), SplitSettings()) == "patients"
    assert resolve(pool(groups=GROUPS, parts=parts), SplitSettings()) == "given"
    assert resolve(pool(groups=GROUPS, parts=parts), SplitSettings(folds=3, fold=0)) == "patients"
    assert resolve(pool(folds=np.arange(N) % 2), SplitSettings(fold=1)) == "given"
    assert resolve(pool(groups=GROUPS), SplitSettings(split="random")) == "random"


def test_the_note_tells_the_shares_of_whole_patients_that_came_out():
    single = {"groups": np.arange(N).astype(str)}
    notes = split_rows(pool(**single), SplitSettings(test_share=0.4)).notes
    # 81 and 21 of 201: a count is rounded up, as scikit-learn does.
    assert notes[0].endswith("40.3% test and 10.4% validation (asked for: 40% test and 10% "
                             "validation)")  # fmt: skip
    hundred = {"labels": LABELS[:100], "groups": np.arange(100).astype(str)}
    exact = split_rows(pool(**hundred), SplitSettings(test_share=0.35)).notes[0]
    assert exact == "split: whole patients or slides, seed 0, 35% test and 10% validation"
    large = {"labels": np.arange(40) % 2, "groups": np.repeat(list("abcd"), 10)}
    made = split_rows(pool(**large), SplitSettings(test_share=0.1, val_share=0, max_train=6))
    assert made.notes[0].endswith("25% test and 0% validation (asked for: 10% test and 0% "
                                  "validation)")  # fmt: skip


def test_a_patient_of_each_class_is_left_for_validation():
    """A test part of two of a class's three patients would leave none for validation."""
    labels = np.repeat([0, 1], [300, 30])
    groups = np.concatenate([np.arange(300) // 3, 900 + np.arange(30) // 10]).astype(str)
    for seed in range(5):
        settings = SplitSettings(test_share=0.6, val_share=0.1, split_seed=seed)
        rows = rows_of(settings, labels=labels, groups=groups)
        assert all(set(labels[part]) == {0, 1} for part in rows.values())
    with pytest.raises(MedexpError, match="of patients or slides: class 0: 100, class 1: 2"):
        rows_of(settings, labels=labels[:320], groups=groups[:320])


# ---------------------------------------------------------------- fixed lists


def write_list(path, lines):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("id", "split"), *lines])
    return str(path)


def test_a_list_is_replayed(tmp_path):
    made = pool()
    first = split_rows(made, SplitSettings(split="stratified", val_share=0)).rows
    lines = [(made.ids[row], part) for part, rows in first.items() for row in rows]
    again = split_rows(made, SplitSettings(split_file=write_list(tmp_path / "s.csv", lines)))
    assert all(np.array_equal(first[part], again.rows[part]) for part in first)
    assert "SELECTED ON TEST" in again.marks and "fixed list" in again.notes[0]
    fewer = write_list(tmp_path / "f.csv", lines[3:])
    notes = split_rows(made, SplitSettings(split_file=fewer)).notes
    assert "3 of 201 images are not in the list" in notes
    assert not any("patients unknown" in note for note in notes)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([("x/001.png", "training")], "line 2: split 'training': need train, val or test"),
        ([("y.png", "train")], "mine has no image 'y.png'. Its ids are like 'x/000.png'"),
        (
            [("x/001.png", "train"), ("x/001.png", "test")],
            "line 3: id x/001.png is in train already",
        ),
        (
            [("x/001.png", "train"), ("x/001.png", "train")],
            "line 3: id x/001.png is in train already",
        ),
        ([("x/001.png", "train")], "no image for the test split"),
        ([("x/001.png", "test")], "no image for the train split"),
    ],
)
def test_a_list_that_is_wrong_is_named(tmp_path, lines, message):
    with pytest.raises(MedexpError, match=message):
        rows_of(SplitSettings(split_file=write_list(tmp_path / "s.csv", lines)))


def test_a_list_that_is_missing_or_has_other_columns(tmp_path):
    with pytest.raises(MedexpError, match="nowhere.csv cannot be read"):
        rows_of(SplitSettings(split_file=str(tmp_path / "nowhere.csv")))
    (tmp_path / "s.csv").write_text("name,part\n")
    with pytest.raises(MedexpError, match="has no column id, split in its header"):
        rows_of(SplitSettings(split_file=str(tmp_path / "s.csv")))
    with pytest.raises(ConfigError, match="name the list with dataset.split_file"):
        rows_of(SplitSettings(split="file"))


# ---------------------------------------------------------------- leaks and marks


def test_a_leak_is_refused_or_marked_with_its_share():
    settings = SplitSettings(split="stratified")
    with pytest.raises(
        MedexpError, match=r"(?s)patients or slides stand on both sides.*allow_leak=t"
    ):
        rows_of(settings, groups=GROUPS)
    made = split_rows(pool(groups=GROUPS), replace(settings, allow_leak=True))
    train, test = made.rows["train"], made.rows["test"]
    share = np.mean([g in set(GROUPS[train]) for g in GROUPS[test]])
    assert f"{share:.1%} of the test images are of" in made.marks["LEAKY"] and share > 0.9
    assert "LEAKY" not in split_rows(pool(groups=GROUPS), SplitSettings(allow_leak=True)).marks


def test_shared_groups_by_hand():
    rows = {"train": np.array([0, 1]), "val": np.array([2]), "test": np.array([3, 4, 5, 6])}
    found = shared_groups(np.array(list("aabacdb")), rows)
    assert found == {
        ("train", "val"): (0, 0.0), ("train", "test"): (1, 0.25), ("val", "test"): (1, 0.25)
    }  # fmt: skip
    assert shared_groups(None, rows) == {}


def test_validation_on_the_test_split_is_marked():
    made = split_rows(pool(groups=GROUPS), SplitSettings(split="patients", val_share=0))
    assert np.array_equal(made.rows["val"], made.rows["test"])
    assert list(made.marks) == ["SELECTED ON TEST"]
    assert split_rows(pool(), SplitSettings()).marks == {}


def test_unknown_patients_are_noted_where_the_split_is_drawn():
    notes = split_rows(pool(), SplitSettings()).notes
    assert any("patients unknown" in note for note in notes)
    parts = np.array(["train", "test", "val"] * 67)
    notes = split_rows(pool(parts=parts), SplitSettings()).notes
    assert not any("patients unknown" in note for note in notes)


# ---------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (SplitSettings(split="patients"), "mine does not say which patient an image is of"),
        (SplitSettings(split="given"), "mine comes without a split"),
        (SplitSettings(test_share=0.6, val_share=0.4), "leave nothing to train on"),
        (SplitSettings(fold=2), r"dataset.fold=2: of how many\? Give dataset.folds=5"),
        (
            SplitSettings(folds=5),
            "dataset.folds=5 dataset.fold=None: need the test fold, from 0 to 4",
        ),
        (SplitSettings(folds=5, fold=5), "fold=5: need the test fold, from 0 to 4"),
        (
            SplitSettings(folds=3, fold=0, split="per_class"),
            "dataset.split=per_class has no folds to draw",
        ),
        (SplitSettings(folds=22, fold=0), "too few images or patients for so many .*class 2: 21"),
        (
            SplitSettings(test_share=0.005),
            "too few images or groups to put every class on both sides",
        ),
        (SplitSettings(split="random", test_share=0.0), "too few images"),
        (SplitSettings(max_train=2), r"dataset.max_train=2: need 3 \(one image a class\) to 139"),
        (SplitSettings(max_train=140), "dataset.max_train=140: need 3"),
    ],
)
def test_a_split_that_cannot_be_made(settings, message):
    with pytest.raises((ConfigError, MedexpError), match=message):
        rows_of(settings)


def test_one_image_of_a_class():
    with pytest.raises(MedexpError, match=r"every class on both sides.*class 0: 9, class 1: 1"):
        rows_of(SplitSettings(split="stratified"), labels=np.array([0] * 9 + [1]))


def test_folds_of_whole_patients_that_cannot_be():
    settings = SplitSettings(folds=3, fold=0, split="patients")
    few = {"labels": np.repeat([0, 1], [20, 2]), "groups": np.arange(22).astype(str)}
    with pytest.raises(ConfigError, match="too few images or patients for so many .*class 1: 2"):
        rows_of(settings, **few)
    together = {"labels": np.repeat([0, 1], [20, 6]), "groups": np.minimum(np.arange(26), 20)}
    refused = 0
    for fold in range(3):
        try:
            rows_of(replace(settings, fold=fold), **together)
        except (ConfigError, MedexpError) as error:
            refused += f"dataset.fold={fold}: a class has no image in this fold" in str(error)
    assert refused == 2  # the class of one patient is in one fold only


def test_share_is_scikit_learns_ceiling():
    for total in range(5, 400, 7):
        for share in (0.1, 0.2, 0.25, 0.08):
            second = train_test_split(np.arange(total), test_size=share)[1]
            assert share_count(share, total) == len(second)
    assert 0.07 * 100 > 7 and share_count(0.07, 100) == 7  # but not by the last bit of a product


# ---------------------------------------------------------------- subsets


def test_max_train_keeps_the_other_parts():
    settings = SplitSettings(max_train=50)
    full, limited = rows_of(SplitSettings()), rows_of(settings)
    assert len(limited["train"]) == 50 and np.isin(limited["train"], full["train"]).all()
    for part in ("val", "test"):
        assert np.array_equal(full[part], limited[part])


def test_subsets_are_nested_and_stratified():
    larger = np.arange(len(LABELS))
    for size in range(len(LABELS), 2, -1):
        subset = stratified_subset(LABELS, size, seed=3)
        assert len(subset) == size
        assert np.all(np.diff(subset) > 0)
        assert np.isin(subset, larger).all()
        counts = np.bincount(LABELS[subset], minlength=3)
        # Within one of the exact share; with three classes the third may take what two leave.
        assert np.all(np.abs(counts - size * np.bincount(LABELS) / len(LABELS)) <= 2)
        assert counts.min() >= 1
        larger = subset


def test_two_classes_are_stratified_within_one():
    labels = LABELS[LABELS < 2]
    for size in range(2, len(labels) + 1):
        counts = np.bincount(labels[stratified_subset(labels, size, seed=0)])
        assert np.all(np.abs(counts - size * np.bincount(labels) / len(labels)) <= 1)
