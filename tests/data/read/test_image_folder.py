"""Images in class folders: against Pillow and OpenCV alone, and every tree that is wrong."""

import os
import re
from itertools import product

import cv2
import numpy as np
import pytest
from PIL import Image

from medexp.config.settings import SplitSettings
from medexp.data.read.image_folder import load
from medexp.data.segment import panels
from medexp.data.split import split_rows
from medexp.errors import ConfigError, MedexpError
from tests.data.read.kit import decoded, expected, pixels, save, table


@pytest.fixture
def tree(tmp_path):
    """Two classes of four images in all the ways that files lie; returns the root."""
    save(tmp_path / "benign" / "b.png")
    save(tmp_path / "benign" / "2019" / "deep" / "c.tif")
    save(tmp_path / "benign" / "UPPER.JPG", quality=90)
    save(tmp_path / "malign" / "a.bmp")
    save(tmp_path / "malign" / ".hidden.png")
    save(tmp_path / "malign" / "__MACOSX" / "x.png")
    (tmp_path / "malign" / "notes.txt").write_text("no image")
    (tmp_path / "malign" / "folder.png").mkdir()
    (tmp_path / ".git").mkdir()
    return tmp_path


@pytest.mark.real_data
@pytest.mark.parametrize("channels, mode", [("rgb", "RGB"), ("grey", "L")])
@pytest.mark.parametrize("crop", ["none", "square"])
def test_real_cells_equal_pillow_and_opencv(real_data, channels, mode, crop):
    root = real_data / "cells"
    pool = load(root, size=[100, 140], channels=channels, crop=crop)
    assert pool.classes == ("aml", "apl") and len(pool) == 40
    assert pool.shape == (100, 140, len(mode))
    names = sorted(f"{p.parent.name}/{p.name}" for p in root.rglob("*.jpg"))
    assert pool.ids.tolist() == names
    assert [pool.classes[label] for label in pool.labels] == [n.split("/")[0] for n in names]
    for name, image in decoded(pool).items():
        want = expected(root / name, (100, 140), mode, square=crop == "square")
        assert image.dtype == np.uint8 and np.array_equal(image, want), name


@pytest.mark.real_data
def test_real_cells_keep_their_size(real_data):
    pool = load(real_data / "cells", size=None)
    assert pool.shape == (360, 360, 3)
    image, facts = pool.decode(0)
    assert np.array_equal(image, expected(pool.files[0]))
    assert facts == {"size": [360, 360], "mode": "RGB"}


def test_every_format_and_depth(tree):
    pool = load(tree, size=[16, 24])
    ids = ["benign/2019/deep/c.tif", "benign/UPPER.JPG", "benign/b.png", "malign/a.bmp"]
    assert pool.ids.tolist() == ids
    assert pool.labels.tolist() == [0, 0, 0, 1] and pool.labels.dtype == np.int64
    assert pool.groups is None and pool.parts is None
    assert pool.notes == ("files of other kinds in the class folders, left out: 1 of .txt",)
    for name, image in decoded(pool).items():
        assert np.array_equal(image, expected(tree / name, (16, 24))), name


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_other_modes_become_colours_or_grey(tmp_path, mode):
    suffix = "tif" if mode == "CMYK" else "png"
    for name in "ab":
        image = Image.fromarray(pixels(ord(name))).convert(mode)
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / f"x.{suffix}")
    coloured, grey = load(tmp_path, size=12), load(tmp_path, size=12, channels="grey")
    assert coloured.shape == (12, 12, 3) and grey.shape == (12, 12, 1)
    for row, file in enumerate(coloured.files):
        assert np.array_equal(coloured.decode(row)[0], expected(file, (12, 12)))
        assert np.array_equal(grey.decode(row)[0], expected(file, (12, 12), "L"))


def test_photographs_stand_upright(tmp_path):
    image = pixels(1)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it turned by 90 degrees clockwise
    save(tmp_path / "a" / "x.png", image, exif=exif)
    save(tmp_path / "b" / "x.png", np.rot90(image, -1).copy())
    pool = load(tmp_path, size=None)
    assert pool.shape == (30, 20, 3)
    assert np.array_equal(pool.decode(0)[0], np.rot90(image, -1))


def test_auto_takes_the_first_images_channels(tmp_path):
    save(tmp_path / "a" / "x.png", pixels(1, channels=1))
    save(tmp_path / "b" / "y.png", pixels(2))
    pool = load(tmp_path, size=8, channels="auto")
    assert pool.shape == (8, 8, 1)
    with pytest.raises(MedexpError, match=r"b/y.png has colours, where dataset.channels=auto took"):
        pool.decode(1)
    (tmp_path / "a" / "a.png").write_bytes(b"")  # one that cannot be read decides nothing
    assert load(tmp_path, size=8, channels="auto").shape == (8, 8, 1)
    save(tmp_path / "a" / "a.png")
    pool = load(tmp_path, size=8, channels="auto")
    assert pool.shape == (8, 8, 3) and pool.decode(2)[0].shape == (8, 8, 3)


def test_without_a_size_another_size_is_refused(tmp_path):
    save(tmp_path / "a" / "x.png")
    save(tmp_path / "b" / "y.png", pixels(2, 20, 31))
    pool = load(tmp_path, size=None)
    with pytest.raises(MedexpError, match=r"b/y.png is 31x20 pixels, .* first image is 30x20"):
        pool.decode(1)
    squares = load(tmp_path, size=None, crop="square")
    assert squares.shape == (20, 20, 3)
    assert np.array_equal(squares.decode(1)[0], expected(tmp_path / "b" / "y.png", square=True))


def test_whatever_changes_pixels_is_in_the_settings(tree):
    base = load(tree).settings
    for other in ({"size": 96}, {"channels": "grey"}, {"crop": "square"}, {"size": [224, 225]},
                  {"interpolation": "linear"}):  # fmt: skip
        assert load(tree, **other).settings != base, other


@pytest.mark.parametrize(
    "folders, classes",
    [
        (["b", "a", "C"], ("C", "a", "b")),
        (["10", "9", "2"], ("2", "9", "10")),
        (["10", "9", "x"], ("10", "9", "x")),
    ],
)
def test_order_of_classes(tmp_path, folders, classes):
    for name in folders:
        save(tmp_path / name / "x.png")
    assert load(tmp_path).classes == classes


def test_given_classes_set_order_and_choice(tree):
    save(tree / "docs" / "logo.png")
    save(tree / "overview.png")
    pool = load(tree, classes=["malign", "benign"])
    assert pool.classes == ("malign", "benign") and pool.labels.tolist() == [0, 1, 1, 1]
    assert pool.notes == (
        "files of other kinds in the class folders, left out: 1 of .txt",
        "images in no class folder of the root, left out: 1",
        "folders of the root left out by dataset.classes: docs",
    )


def test_kinds_that_are_not_read_are_counted(tmp_path):
    for name in "ab":
        for suffix in ("gif", "JFIF", "ppm", "jp2", "tga"):
            save(tmp_path / name / f"x.{suffix}")
        for other in ("1.dcm", "2.DCM", "3.heic", "README"):
            (tmp_path / name / other).write_bytes(b"")
    pool = load(tmp_path, size=8)
    assert len(pool) == 10 and all(pool.decode(row)[0].any() for row in range(10))
    assert pool.notes == (
        "files of other kinds in the class folders, left out: 4 of .dcm, 2 of .heic, 2 of no "
        "suffix",
    )


def test_numbers_as_given_classes(tmp_path):
    for name in "012":
        save(tmp_path / name / "x.png")
    assert load(tmp_path, classes=[2, 0]).classes == ("2", "0")


# ---------------------------------------------------------------- parts of class folders


def parted(root, *parts, classes="ab", n=2):
    for part in parts:
        for name in classes:
            for i in range(n):
                save(root / part / name / f"{i}.png", pixels(i))
    return root


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("Train", "Valid", "TEST"),
        ("Training", "validation", "Testing"),
    ],
)
def test_folders_of_parts(tmp_path, names):
    pool = load(parted(tmp_path, *names))
    assert pool.classes == ("a", "b") and len(pool) == 12
    kept = dict(zip(names, ("train", "val", "test"), strict=True))
    assert pool.parts.tolist() == [kept[str(key).split("/")[0]] for key in pool.ids]
    assert str(pool.ids[0]).endswith("/a/0.png")
    rows = split_rows(pool, SplitSettings()).rows
    assert [len(rows[part]) for part in ("train", "val", "test")] == [4, 4, 4]


def test_a_missing_val_is_drawn_from_train(tmp_path):
    parted(tmp_path, "train", n=20)
    pool = load(parted(tmp_path, "test"))
    rows = split_rows(pool, SplitSettings()).rows
    assert [len(rows[part]) for part in ("train", "val", "test")] == [36, 4, 4]
    assert {str(key).split("/")[0] for key in pool.ids[rows["test"]]} == {"test"}


def test_train_alone_is_unsplit(tmp_path):
    assert load(parted(tmp_path, "train")).parts is None


def test_a_part_may_lack_a_class_but_not_train(tmp_path):
    parted(tmp_path, "train", classes="abc")
    pool = load(parted(tmp_path, "test"))
    assert pool.classes == ("a", "b", "c")
    assert sorted(set(pool.labels[pool.parts == "test"].tolist())) == [0, 1]
    parted(tmp_path, "test", classes="d")
    with pytest.raises(MedexpError, match=r"train/d: no such class folder, where .* has a, b, c"):
        load(tmp_path)


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "valid", "Testing")])
def test_parts_below_the_classes_are_taken_as_given(tmp_path, names):
    for name, kind, i in product(names, "ab", range(3)):
        save(tmp_path / kind / name / "deep" / f"{kind}{i}.png")
    pool = load(tmp_path, size=8)
    known = {"train": "train", "training": "train", "valid": "val"}
    want = [known.get(key.split("/")[1].lower(), "test") for key in pool.ids]
    assert pool.parts.tolist() == want and pool.classes == ("a", "b")
    assert split_rows(pool, SplitSettings(val_share=0.4)).kind == "given"
    save(tmp_path / "b" / "loose.png")
    with pytest.raises(MedexpError, match=r"/b: no train/, or images outside of train/.* or none"):
        load(tmp_path, size=8)


def test_a_folder_named_test_alone_is_no_part(tmp_path):
    for kind, name in product("ab", ("case1", "test")):
        save(tmp_path / kind / name / "0.png")
    assert load(tmp_path, size=8).parts is None


def test_folders_of_patients(tmp_path):
    for kind, case, i in product("ab", range(6), range(3)):
        save(tmp_path / kind / f"case{case if kind == 'a' else case + 5}" / "left" / f"{i}.png")
    pool = load(tmp_path, size=8)
    assert pool.groups is None
    assert "sub-folders, 11 of them, such as 'case5'" in pool.notes[0]
    pool = load(tmp_path, size=8, patient="folder")
    assert pool.groups.tolist() == [key.split("/")[1] for key in pool.ids]
    assert pool.notes == ("patients: by dataset.patient=folder",)
    made = split_rows(pool, SplitSettings(test_share=0.25, val_share=0.25))
    sides = [set(pool.groups[made.rows[part]].tolist()) for part in ("train", "val", "test")]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    save(tmp_path / "a" / "loose.png")
    message = r"1 of 37 images have no patient, as a/loose.png lies in no folder of a patient"
    with pytest.raises(MedexpError, match=message):
        load(tmp_path, size=8, patient="folder")


def test_beginnings_of_file_names_are_suggested_and_the_suggestion_works(tmp_path):
    for kind, i in product("ab", range(24)):
        save(tmp_path / kind / f"{kind}-{i // 3:03d}_{('', 'flip', 'rot90')[i % 3]}.png")
    (note,) = load(tmp_path, size=8).notes
    assert "images share beginnings of file names, 16 of them" in note
    rule = re.search(r"""'dataset.patient="(.*)"'""", note)[1]
    assert len(set(load(tmp_path, size=8, patient=rule).groups)) == 16


def test_long_numbers_are_identities_whatever_stands_before_them(tmp_path):
    """As AML_LY_13828388_110.jpg: one person's cells of two kinds are one person's."""
    for kind, i in product("ab", range(24)):
        save(tmp_path / kind / f"{kind}_{('LY', 'MO', 'BL')[i % 3]}_{13800000 + i // 4}_{i}.png")
    (note,) = load(tmp_path, size=8).notes
    assert "images share numbers in file names, 6 of them, such as '13800000'" in note
    rule = re.search(r"""'dataset.patient="(.*)"'""", note)[1]
    groups = load(tmp_path, size=8, patient=rule).groups
    assert sorted(set(groups)) == [f"{13800000 + i}" for i in range(6)]


@pytest.mark.parametrize(
    "name", ["IMG_{0:04d}", "benign ({0})", "{0:08x}-0", "x{0}", "{0:05d}_{1}", "cell_{2}_{0}"]
)
def test_numbers_alone_suggest_nothing(tmp_path, name):
    for kind, i in product("ab", range(12)):
        number = i + 12 * (kind == "b")
        save(tmp_path / kind / f"{name.format(number, i % 6, 'uvwxyz'[i % 6])}.png")
    assert load(tmp_path, size=8).notes == ()


def test_masks_beside_images_are_left_out_and_said(tmp_path):
    for kind, i in product("ab", range(4)):
        save(tmp_path / kind / f"{kind} ({i}).png")
        save(tmp_path / kind / f"{kind} ({i})_mask.png")
    save(tmp_path / "a" / "a (0)_mask_1.png")
    save(tmp_path / "b" / "masks" / "b (1).png")
    save(tmp_path / "b" / "lonely_mask.png")  # of no image: it may be a picture of a mask
    pool = load(tmp_path, size=8)
    assert len(pool) == 9 and "b/lonely_mask.png" in pool.ids
    assert (
        "10 files are named as masks of others, such as a/a (0)_mask.png of a/a (0).png"
        in (pool.notes[0])
    )
    assert len(load(tmp_path, size=8, masks="read")) == 19
    with pytest.raises(ConfigError, match="dataset.masks=drop: no such choice"):
        load(tmp_path, size=8, masks="drop")


def test_unlabelled_test_images_are_refused(tmp_path):
    parted(tmp_path, "train")
    save(tmp_path / "test" / "1.png")
    with pytest.raises(
        MedexpError, match=r"test: no class folders in it, only files \(1\). Images"
    ):
        load(tmp_path)


@pytest.mark.parametrize("names", [("val", "test"), ("train", "val", "valid"), ("train", "other")])
def test_half_a_split_is_refused(tmp_path, names):
    with pytest.raises(MedexpError, match=r"holds .*: neither class folders nor one each of train"):
        load(parted(tmp_path, *names))


# ---------------------------------------------------------------- wrong trees


def test_missing_root(tmp_path):
    with pytest.raises(MedexpError, match=r"nowhere: no such folder; it should hold a folder of"):
        load(tmp_path / "nowhere")


def test_no_class_folders(tmp_path):
    save(tmp_path / "x.png")
    with pytest.raises(
        MedexpError, match=r"no class folders in it, only files \(1\). Expected ROOT"
    ):
        load(tmp_path)
    (tmp_path / "x.png").unlink()
    with pytest.raises(MedexpError, match=r"no class folders in it, only files \(0\)"):
        load(tmp_path)


def test_one_class_only(tmp_path):
    save(tmp_path / "a" / "x.png")
    with pytest.raises(MedexpError, match=r"only one class folder, a: need two or more. Expected"):
        load(tmp_path)


def test_empty_class(tree):
    (tree / "unsure").mkdir()
    with pytest.raises(MedexpError, match=r"unsure: no image of .bmp, .* in it \(files: none\)"):
        load(tree)


def test_class_of_dicom_only(tree):
    (tree / "unsure").mkdir()
    for i in range(3):
        (tree / "unsure" / f"{i}.dcm").write_bytes(b"")
    message = r"in it \(files: 3 of .dcm\). Convert them as docs/your_own_data.md says"
    with pytest.raises(MedexpError, match=message):
        load(tree)


def test_given_class_without_a_folder(tree):
    with pytest.raises(MedexpError, match=r"malignant: no such class folder, .* benign, malign"):
        load(tree, classes=["benign", "malignant"])
    with pytest.raises(MedexpError, match=r"not a plain path below"):
        load(tree, classes=["benign", "../malign"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folder_without_permission(tree):
    closed = tree / "benign" / "2019"
    closed.chmod(0)
    try:
        with pytest.raises(MedexpError, match=r"2019: cannot be listed \(Permission denied\)"):
            load(tree)
    finally:
        closed.chmod(0o755)


@pytest.mark.parametrize("closed", ["benign", "benign/2019"])
def test_folder_that_cannot_be_listed(tree, monkeypatch, closed):
    scandir = os.scandir

    def refusing(path="."):
        if str(path) == str(tree / closed):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    message = rf"{closed}: cannot be listed \(Permission denied\). Make it readable"
    with pytest.raises(MedexpError, match=message):
        load(tree)


@pytest.mark.parametrize("name", ["malign/link.png", "malign/link", "linked"])
def test_links_out_of_the_tree_are_refused(tree, tmp_path_factory, name):
    outside = tmp_path_factory.mktemp("outside")
    target = save(outside / "x.png")
    (tree / name).symlink_to(target if name.endswith("png") else outside)
    with pytest.raises(MedexpError, match=rf"{name}: a symbolic link that leads out of"):
        load(tree)


def test_links_are_followed_where_that_is_asked_for(tree, tmp_path_factory):
    """Clusters link data into place: a file, a class, and a folder into itself."""
    away = tmp_path_factory.mktemp("store")
    save(away / "far.png")
    save(away / "whole" / "w.png")
    (tree / "benign" / "far.png").symlink_to(away / "far.png")
    (tree / "third").symlink_to(away / "whole")
    (tree / "malign" / "loop").symlink_to(tree / "malign")
    with pytest.raises(MedexpError, match="leads out of .*dataset.follow_links=true"):
        load(tree, size=8)
    pool = load(tree, size=8, follow_links=True)
    assert pool.classes == ("benign", "malign", "third")
    assert {"benign/far.png", "third/w.png", "malign/a.bmp"} < set(pool.ids.tolist())
    assert sum(key.startswith("malign/") for key in pool.ids) == 1
    assert all(pool.decode(row)[0].shape == (8, 8, 3) for row in range(len(pool)))


def test_links_within_the_tree_are_read(tree):
    (tree / "malign" / "link.png").symlink_to(tree / "benign" / "b.png")
    pool = load(tree)
    images = decoded(pool)
    assert np.array_equal(images["malign/link.png"], images["benign/b.png"])


def test_file_name_that_is_no_utf8(tree):
    image = (tree / "benign" / "b.png").read_bytes()
    with open(os.fsencode(tree / "benign") + b"/\xff.png", "wb") as file:
        file.write(image)
    with pytest.raises(MedexpError, match=r"file name 'benign/.udcff.png' is not UTF-8. Rename it"):
        load(tree)


# ---------------------------------------------------------------- wrong images


def test_file_cut_short(tree):
    path = save(tree / "benign" / "x.jpg", pixels(0, 64, 64))
    path.write_bytes(path.read_bytes()[:-500])
    pool = load(tree)  # listing opens no file
    (row,) = np.flatnonzero(pool.ids == "benign/x.jpg")
    with pytest.raises(MedexpError, match=r"benign/x.jpg cannot be decoded \(.*damaged, cut s"):
        pool.decode(row)
    others = [r for r in range(len(pool)) if r != row]
    assert all(pool.decode(r)[0].shape == (224, 224, 3) for r in others)


def test_an_image_without_any_readable_one(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(b"")
    with pytest.raises(MedexpError, match=r"b/x.png cannot be decoded"):
        load(tmp_path, size=None)


# ---------------------------------------------------------------- segmentation


def test_segmentation_blacks_out_what_is_unlike_the_references(tmp_path):
    for i, name in enumerate("ab"):
        image = np.full((60, 80, 3), (40, 90, 160), np.uint8)
        cv2.circle(image, (30 + 20 * i, 30), 18, (200, 60, 60), -1)
        save(tmp_path / "data" / name / "x.png", image)
    colours = table(tmp_path, "r,g,b\n200,60,60\n", "colours.csv") / "colours.csv"
    options = {"segment": "slic_knn", "references": str(colours), "segments": 20, "closest": 3}
    pool = load(tmp_path / "data", size=[60, 80], **options)
    assert pool.settings["segment"] and pool.notes[-1].startswith("segmented: ")
    for row, file in enumerate(pool.files):
        plain = expected(file, (60, 80))
        mask = panels(plain, [(200, 60, 60)], segments=20, closest=3).mask
        assert 0 < mask.mean() < 0.5
        assert np.array_equal(pool.decode(row)[0], plain * mask[..., None])
    with pytest.raises(ConfigError, match=r"channels=grey: .* needs dataset.channels=rgb"):
        load(tmp_path / "data", channels="grey", **options)
