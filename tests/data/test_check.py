"""Planted faults are found, and sound splits have none."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from medexp.config.settings import SplitSettings
from medexp.data.base import Dataset, Pool, Split
from medexp.data.check import (
    CHECKS,
    Facts,
    blank_images,
    check,
    check_list,
    copies_across_groups,
    near_duplicates,
    percent,
)
from medexp.data.describe import facts_summary
from medexp.data.split import split_rows


def dataset(groups=True, size=5):
    rng = np.random.default_rng(0)

    def split(name, n):
        coarse = rng.integers(0, 256, (n, 5, 5, 3)).astype(np.uint8)
        images = np.stack([np.asarray(Image.fromarray(c).resize((size, size))) for c in coarse])
        ids = np.array([f"{name}/{i}" for i in range(n)])
        slides = np.array([f"{name}-{i % 3}" for i in range(n)], "U16") if groups else None
        return Split(images, np.arange(n) % 2, ids, slides)

    return Dataset("toy", ("a", "b"), split("train", 20), split("val", 8), split("test", 10))


def test_sound_splits_have_no_faults():
    done: list[int] = []
    data = dataset()
    found = check(data, done.append)
    assert found["faults"] == [] and found["warnings"] == [] and sum(done) == 38
    train = found["splits"]["train"]
    assert train["per_class"] == {"a": 10, "b": 10}
    assert train["share_of_class"] == {"a": 0.5, "b": 0.5}
    assert found["splits"]["test"]["groups"] == 3
    assert found["splits"]["test"]["images_per_group"] == {"min": 3, "median": 3.0, "max": 4}
    assert found["shared_groups"]["train/test"] == {"groups": 0, "share_of_test": 0.0}
    assert {p: s["blake2b"] for p, s in found["splits"].items()} == {
        p: s.fingerprint() for p, s in data.splits().items()
    }
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    unknown = check(dataset(groups=False))
    assert unknown["shared_groups"] is None and unknown["duplicates_across_groups"] is None
    assert "no patient or slide is known" in unknown["notes"][-1]


def test_planted_faults_are_found():
    data = dataset()
    data.test.images[3] = data.train.images[5]  # same label, odd indices
    data.train.images[7] = data.train.images[5]
    data.val.images[0] = data.val.images[1]  # labels 0 and 1
    data.test.groups[:5] = "train-0"
    found = check(data)
    assert found["duplicates_across"] == {
        "train/test": {"contents": 1, "images_of_test": 1, "share_of_test": 0.1}
    }
    assert found["duplicates_within"] == {"train": 1, "val": 1, "test": 0}
    assert found["duplicate_groups"] == 2 and found["conflicting_labels"] == 1
    assert [[one["id"] for one in group] for group in found["duplicates"]] == [
        ["val/0", "val/1"],
        ["train/5", "train/7", "test/3"],
    ]
    assert found["duplicates"][0][1] == {"split": "val", "id": "val/1", "class": "b"}
    assert found["near_duplicates"]["pairs"] == 0, "copies are not counted again"
    assert found["shared_groups"]["train/test"] == {"groups": 1, "share_of_test": 0.5}
    text = "\n".join(found["faults"])
    assert "1 image stands in both train and test, pixel for pixel (10.0% of the test" in text
    assert "1 patient or slide stands in both train and test (50.0% of the test images)" in text
    assert (
        "1 image stands twice under different labels, pixel for pixel; the first: val/0 (a), "
        in (text)
    )
    assert len(found["faults"]) == 3
    warned = "\n".join(found["warnings"])
    assert "1 image of the train split repeats another of it" in warned
    assert "so they may be one: train-0 and train-1 (1), train-0 and train-2 (1)" in warned


def test_near_duplicates_between_training_and_test_are_a_fault():
    data = dataset(size=64)
    darker = ImageEnhance.Brightness(Image.fromarray(data.train.images[4])).enhance(0.9)
    data.test.images[2] = data.val.images[1] = np.asarray(darker)
    data.train.images[9] = data.train.images[4]  # a copy: compared once
    near = check(data)["near_duplicates"]
    assert near["across"] == {
        "train/val": {"pairs": 1, "images_of_val": 1, "share_of_val": 1 / 8},
        "train/test": {"pairs": 1, "images_of_test": 1, "share_of_test": 0.1},
    }
    assert near["within"] == {"train": 0, "val": 0, "test": 0} and near["compared"] == 37
    first = near["examples"][0]
    assert (first["first"]["id"], first["second"]["id"]) == ("train/4", "test/2")
    assert first["correlation"] > 0.95 and first["bits"] <= 4
    found = check(data)
    assert "1 test image (10.0%) looks nearly the same as a training image" in found["faults"]
    assert (
        "1 validation image (12.5%) looks nearly the same as a training image"
        in (found["warnings"])
    )


def test_few_near_duplicates_are_a_warning(monkeypatch):
    monkeypatch.setattr("medexp.data.check.NEAR_FAULT", 0.2)
    data = dataset(size=64)
    data.test.images[2] = np.asarray(
        ImageEnhance.Brightness(Image.fromarray(data.train.images[5])).enhance(0.9)
    )
    data.train.images[6] = data.test.images[2] // 2 * 2
    found = check(data)
    assert found["faults"] == []
    assert found["warnings"] == [
        "1 test image (10.0%) looks nearly the same as a training image",
        "1 pair within a split looks nearly the same",
        "2 pairs of near duplicates have two labels",
    ]


def test_blank_images_are_no_copies():
    data = dataset()
    data.train.images[:3], data.test.images[0] = 255, 255
    found = check(data)
    assert found["duplicates_across"] == {}
    assert found["splits"]["train"]["blank"] == 3
    assert found["warnings"] == []
    assert found["faults"] == [
        "3 images of the train split (15.0%) are blank: one value everywhere",
        "1 image of the test split (10.0%) is blank: one value everywhere",
    ]


def test_one_blank_image_of_a_hundred_is_a_warning():
    counted = {"images": 100, "blank": 1, "per_class": {"a": 100}}
    facts = Facts({"train": counted, "test": counted | {"blank": 2}}, {}, None, "")
    assert [(one.fault, one.text[:32]) for one in blank_images(facts)] == [
        (False, "1 image of the train split (1.0%"),
        (True, "2 images of the test split (2.0%"),
    ]


def test_missing_classes_unreadable_files_and_numbers_that_are_none():
    data = dataset()
    data.val.labels[:] = 1
    found = check(replace(data, skipped={"x.png": "x.png cannot be decoded (cut short)"}))
    assert found["unreadable"] == {"x.png": "x.png cannot be decoded (cut short)"}
    assert found["faults"] == [
        "1 image cannot be read: dataset.on_error=fail stops a run there, dataset.on_error=skip "
        "leaves them out. The first: x.png cannot be decoded (cut short)",
        "the val split has no image of class a",
    ]
    images = data.train.images.astype(np.float32)
    images[3, 0, 0, 0] = np.nan
    others = {p: replace(s, images=s.images.astype(np.float32)) for p, s in data.splits().items()}
    broken = Dataset("toy", ("a", "b"), **{**others, "train": replace(data.train, images=images)})
    found = check(broken)
    assert "1 image of the train split has NaN or infinite pixels" in found["faults"]
    json.dumps(found, allow_nan=False)


def test_validation_that_is_the_test_split_is_looked_at_once():
    data = dataset()
    done: list[int] = []
    found = check(replace(data, val=data.test), done.append)
    assert sum(done) == 30 and list(found["splits"]) == ["train", "test"]
    assert found["faults"] == [] and list(found["shared_groups"]) == ["train/test"]


def test_the_worst_copies_are_named_first():
    data = dataset()
    data.val.images[2] = data.train.images[2]
    data.test.images[4] = data.train.images[4]
    report = check(replace(data, marks={"LEAKY": "a fault here", "OTHER": "kept"}))
    assert [group[1]["id"] for group in report["duplicates"]] == ["test/4", "val/2"]
    assert report["marks"] == {"OTHER": "kept"}


def facts(**changed):
    none = {"duplicates_across": {}, "duplicates_within": {}, "conflicting_labels": 0}
    copies = none | {"duplicates_across_groups": None}
    return Facts(**({"splits": {}, "copies": copies, "shared_groups": None, "equal": ""} | changed))


def test_findings_name_four_pairs_of_groups():
    pairs = [[f"a{i}", f"b{i}", 9 - i] for i in range(6)]
    for count, end in ((4, "a3 and b3 (6)"), (5, "and 1 more pair"), (6, "and 2 more pairs")):
        found = copies_across_groups(facts(copies={"duplicates_across_groups": pairs[:count]}))
        assert [finding.fault for finding in found] == [False] and found[0].text.endswith(end)


def test_pairs_that_were_not_compared_are_a_warning():
    near = {"across": {}, "within": {}, "under_different_labels": 0, "complete": False}
    (found,) = near_duplicates(facts(near_duplicates=near))
    assert "not every pair was compared" in found.text and not found.fault
    assert near_duplicates(facts(near_duplicates=near | {"complete": True})) == []


def test_every_check_is_silent_where_nothing_is_wrong():
    assert not any(one(facts()) for one in CHECKS)


def test_none_and_all_are_said_of_nothing_else():
    shares = {0: "0.0%", 0.0004: "under 0.1%", 0.5: "50.0%", 0.9996: "over 99.9%", 1: "100.0%"}
    assert {share: percent(share) for share in shares} == shares


def test_facts_of_the_files_are_summed_up():
    facts = {
        "a": {"size": [4, 9], "mode": "RGB", "spacing": 1.5, "odd": [1]},
        "b": {"size": [5, 7], "mode": "RGB", "spacing": float("nan"), "odd": [1, 2]},
        "c": {"size": [4, 9], "mode": "L", "odd": {"x": 1}},
    }
    found = facts_summary(facts)
    assert found["size"] == {
        "known": 3, "distinct": 2, "commonest": [[[4, 9], 2], [[5, 7], 1]], "min": [4, 7],
        "max": [5, 9],
    }  # fmt: skip
    assert found["mode"] == {"known": 3, "distinct": 2, "commonest": [["RGB", 2], ["L", 1]]}
    assert found["spacing"]["known"] == 2 and "min" not in found["spacing"]
    assert found["odd"]["distinct"] == 3 and "min" not in found["odd"]
    assert found["spacing"]["commonest"] == [[1.5, 1], ["nan", 1]]
    json.dumps(found, allow_nan=False)
    assert facts_summary({}) == {}


def listed(**changed):
    """Twelve files of six patients in three folds, one file twice."""
    n = 12
    given = dict(
        name="list", classes=("a", "b"), labels=np.arange(n) % 2, shape=(4, 4, 3), dtype=np.uint8,
        ids=np.array([f"f{i}" for i in range(n)]), files=[Path(f"f{i}") for i in range(n)],
        decode=None, settings={}, groups=np.array([f"p{i // 2}" for i in range(n)]),
        folds=np.arange(n) // 4, digests=np.array([f"d{i}" for i in range(n)]),
    )  # fmt: skip
    return Pool(**(given | changed))


def rows(train, val, test):
    return {"train": np.array(train), "val": np.array(val), "test": np.array(test)}


def test_a_list_of_files():
    pool = listed(digests=np.array(["d0"] * 2 + [f"d{i}" for i in range(2, 11)] + ["d0"]))
    found = check_list(pool, rows([0, 1, 2, 3, 4, 6], [8, 9], [5, 7, 10, 11]))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["duplicates_within"] == {"train": 1, "val": 0, "test": 0}
    assert found["duplicates_across_groups"] == [["p0", "p5", 1]]
    assert found["folds"]["folds"]["1"] == {"images": 4, "per_class": {"a": 2, "b": 2}, "groups": 2}
    assert found["folds"]["shared_groups"] == {"0/1": 0, "0/2": 0, "1/2": 0}
    assert found["folds"]["shared_copies"] == {"0/1": 0, "0/2": 1, "1/2": 0}
    assert found["patients"]["p2"] == {
        "images": 2, "per_class": {"a": 1, "b": 1}, "train": 1, "val": 0, "test": 1
    }  # fmt: skip
    assert found["faults"] == [
        "1 image stands in both train and test, byte for byte (25.0% of the test images)",
        "1 image stands twice under different labels, byte for byte; the first: f0 (a), f1 (b), "
        "f11 (b)",
        "2 patients or slides stand in both train and test (50.0% of the test images)",
    ]


def test_a_list_that_says_little():
    pool = listed(groups=None, digests=None, folds=None)
    found = check_list(pool, rows([0, 1, 2, 3], [4, 5], [4, 5]))
    assert found["faults"] == [] and list(found["splits"]) == ["train", "test"]
    assert found["folds"] is None and found["patients"] is None
    assert "no digests are listed, so no copies could be looked for" in found["notes"]


@pytest.mark.real_data
def test_the_papers_split_of_cnmc_shares_every_patient(real_data):
    """Counted independently in DOSSIER.md: 104 groups of equal files, no patient in two folds."""
    found = []
    with open(real_data / "cnmc2019_filelist.csv") as file:
        for row in csv.DictReader(file):
            if m := re.search(r"fold_(\d)/(all|hem)/UID_(h?\d+)_", row["path"], re.IGNORECASE):
                found.append((row["path"], int(m[1]), m[2], m[3].upper(), row["sha256_16"]))
    ids, folds, classes, groups, digests = map(np.array, zip(*found, strict=True))
    pool = listed(
        labels=(classes == "hem").astype(int), ids=ids, files=list(map(Path, ids)), groups=groups,
        folds=folds, digests=digests, classes=("all", "hem"),
    )  # fmt: skip
    plan = SplitSettings(split="per_class", allow_leak=True)
    leaky = check_list(pool, split_rows(pool, plan).rows)
    assert leaky["shared_groups"]["train/test"]["share_of_test"] == 1.0
    assert leaky["duplicate_groups"] == 104 and leaky["conflicting_labels"] == 0
    plan = SplitSettings(split="given", fold=2, allow_leak=True)
    apart = check_list(pool, split_rows(pool, plan).rows)
    assert {pair: one["groups"] for pair, one in apart["shared_groups"].items()} == {
        "train/val": 0, "train/test": 0, "val/test": 0
    }  # fmt: skip
    assert set(apart["folds"]["shared_groups"].values()) == {0}
    # But files of two folds are equal: what the list calls two patients may be one.
    assert apart["folds"]["shared_copies"] == {"0/1": 0, "0/2": 72, "1/2": 22}
    assert apart["duplicates_across_groups"][0] == ["20", "21", 71]
