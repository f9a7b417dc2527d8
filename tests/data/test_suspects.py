"""Names shared across a split, facts that give the class away, copies mirrored and turned."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageOps

from medexp.data.base import Dataset, Split
from medexp.data.check import check
from medexp.data.names import alike, bare, masks
from medexp.data.suspects import telltale
from tests.data.read.kit import pixels


def dataset(ids, labels=None, images=None, **facts):
    """A data set of 60 training, 20 validation and 20 test images that are all different."""
    sizes = {"train": 60, "val": 20, "test": 20}
    images = np.stack([pixels(i, 32, 32) for i in range(100)]) if images is None else images
    labels = np.arange(100) % 2 if labels is None else labels
    parts, start = {}, 0
    for part, size in sizes.items():
        rows = slice(start, start + size)
        parts[part] = Split(images[rows], labels[rows], np.array(ids[rows]))
        start += size
    return Dataset("toy", ("benign", "malignant"), **parts, **facts)


PLAIN = [f"x{i:03d}.png" for i in range(100)]


def test_plain_names_and_files_are_no_suspects():
    facts = {key: {"size": [450 + i % 3, 450], "mode": "RGB"} for i, key in enumerate(PLAIN)}
    found = check(dataset(PLAIN, facts=facts))
    assert found["warnings"] == [] and found["faults"] == [] and found["telltales"] == []


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "names, same",
    [
        (["P1", "p1", "p2"], [["P1", "p1"]]),
        (["007", "7", "70"], [["007", "7"]]),
        (["p 01", "p1", "p10", "p100"], [["p 01", "p1"]]),
        (["12", "12.0", "1.20"], [["12", "12.0"]]),
        (["a0", "a00", "a1"], [["a0", "a00"]]),
        (["a1b02", "a01b2", "a1b20"], [["a01b2", "a1b02"]]),
        (["x", "y"], []),
    ],
)
def test_names_that_are_one_but_for_their_writing(names, same):
    assert alike(names) == same
    assert len({bare(name) for name in names}) == len(names) - len(same)


def test_masks_are_of_an_image_that_is_there():
    found = masks(["a/1.png", "a/1_mask.png", "a/1_Mask_2.png", "a/2_mask.png", "b/1-seg.tif",
                   "b/images/3.png", "b/masks/3.png", "b/masks/4.png", "mask/5.png"])  # fmt: skip
    assert found == {"a/1_mask.png": "a/1.png", "a/1_Mask_2.png": "a/1.png",
                     "b/masks/3.png": "b/images/3.png"}  # fmt: skip


def test_pictures_with_copies_on_both_sides_are_named():
    """Five copies of each of 20 sources, in turn: every test image's source is in training too."""
    ids = [f"{('benign', 'malignant')[i % 2]}/{i % 20:09d}-{i % 7}-001_{i}.png" for i in range(100)]
    (text,) = [t for t in check(dataset(ids))["warnings"] if "beginning of the file name" in t]
    assert text.startswith("20 of 20 test images (100.0%) share their beginning of the file name")
    assert "dataset.patient=" in text


def test_cases_in_sub_folders_on_both_sides_are_named():
    kinds = ("benign", "malignant")
    ids = [f"{kinds[i % 2]}/case_{(i // 2) % 25}/{i}.jpg" for i in range(100)]
    (text,) = check(dataset(ids))["warnings"]
    # 25 cases of two images, twice; the training part ends within the second time.
    case = [key.split("/")[1] for key in ids]
    both = sum(name in case[:60] for name in case[80:])
    assert text.startswith(f"{both} of 20 test images") and "share their sub-folder" in text
    assert "dataset.patient=folder keeps them on one side" in text
    apart = [f"{kinds[i % 2]}/case_{i // 4}/{i}.jpg" for i in range(100)]
    assert check(dataset(apart))["warnings"] == []


def test_classes_and_patients_of_doubtful_names_are_warned_of():
    data = replace(dataset(PLAIN), classes=("Benign", "benign"))
    (text,) = check(data)["warnings"]
    assert "'Benign' and 'benign'" in text
    groups = {part: np.array([f"{part}{i}" for i in range(len(split))], "U9")
              for part, split in data.splits().items()}  # fmt: skip
    groups["train"][0], groups["test"][0] = "p07", "P7"
    parts = {p: replace(s, groups=groups[p]) for p, s in data.splits().items()}
    (text,) = check(replace(dataset(PLAIN), **parts))["warnings"]
    assert text.startswith("patients or slides whose names differ") and "'P7' and 'p07'" in text


# ---------------------------------------------------------------- facts


def test_a_size_that_gives_the_class_away_is_warned_of():
    facts = {key: {"size": [224, 224] if i % 2 else [640, 480], "mode": "RGB"}
             for i, key in enumerate(PLAIN)}  # fmt: skip
    found = check(dataset(PLAIN, facts=facts))
    (text,) = found["warnings"]
    assert text.startswith("the size of the files alone predicts the class with accuracy 1.000")
    assert "640x480 in 50 of benign" in text and found["telltales"][0]["commonest"] == 0.5


def test_a_suffix_that_gives_the_class_away_is_warned_of():
    ids = [f"{i}.{('png', 'jpg')[i % 2 if i < 90 else 0]}" for i in range(100)]
    (text,) = check(dataset(ids))["warnings"]
    # 50 of benign and 5 of malignant are png, 45 of malignant jpg: 95 right.
    assert text.startswith("the suffix of the files alone predicts the class with accuracy 0.950")


def test_values_that_stand_once_or_by_chance_say_nothing():
    labels = np.random.default_rng(0).integers(0, 2, 200)
    once = list(map(str, range(200)))
    assert telltale(once, labels, ("a", "b")) is None
    chance = [str(i % 40) for i in range(200)]
    assert telltale(chance, labels, ("a", "b")) is None
    assert telltale(["x", "y"] * 10, np.arange(20) % 2, ("a", "b")) is None  # too few to say


# ---------------------------------------------------------------- mirrored and turned copies


TURNS = [
    Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270, Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
]  # fmt: skip


def test_copies_under_all_symmetries_are_found_by_pillows_turns():
    images = np.stack([pixels(i, 32, 32) for i in range(100)])
    for place, turn in enumerate(TURNS):
        turned = Image.fromarray(images[place]).transpose(turn)
        images[80 + place] = np.asarray(ImageOps.autocontrast(turned, cutoff=1))
    found = check(dataset(PLAIN, images=images))
    across = found["turned_copies"]["across"]["train/test"]
    assert across["images_of_test"] == 7 and across["share_of_test"] == 0.35
    pairs = {(one["first"]["id"], one["second"]["id"]) for one in across["examples"]}
    assert pairs == {(PLAIN[place], PLAIN[80 + place]) for place in range(7)}
    (text,) = found["faults"]
    assert text.startswith("7 test images (35.0%) are a training image mirrored or turned")
    assert set(found["turned_copies"]["across"]) == {"train/test"}


def test_symmetric_images_are_no_turned_copies():
    """Discs, and other discs: alike as they stand, so near duplicates if anything."""
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    rng = np.random.default_rng(0)
    discs = np.stack([(x**2 + y**2 < r) * 200 for r in rng.uniform(0.2, 0.8, 100)])
    images = (discs + rng.integers(0, 20, discs.shape)).astype(np.uint8)[..., None]
    assert check(dataset(PLAIN, images=images))["turned_copies"]["across"] == {}
