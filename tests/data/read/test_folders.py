import os
import re
import struct
import sys
import warnings
import zlib

import cv2
import nibabel
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from scipy import ndimage

from medexp.config import compose
from medexp.config.settings import SplitSettings
from medexp.config.targets import check_node
from medexp.data.load import load_data
from medexp.data.read.csv_table import load as load_table
from medexp.data.read.image_folder import load as load_folder
from medexp.data.segment import panels
from medexp.data.split import split_rows
from medexp.errors import ConfigError, MedexpError
from tests.conftest import ROOT


def pixels(seed, height=20, width=30, channels=3):
    """A smooth random image, (height, width[, 3]) uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, channels), dtype=np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return image.reshape(height, width, channels).squeeze()


def save(path, image=None, **options):
    """Write an image with Pillow, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if image is None:
        image = pixels(zlib.crc32(path.name.encode()))
    Image.fromarray(image).save(path, **options)
    return path


def table(folder, text, name="labels.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def expected(path, size=None, mode="RGB", square=False):
    """The image as medexp should have it, by Pillow, slicing and OpenCV alone."""
    image = np.asarray(Image.open(path).convert(mode))
    if square:
        height, width = image.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
    if size:
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    return image.reshape(*image.shape[:2], -1)


def decoded(pool):
    """Every image of a pool by its id."""
    return {str(key): pool.decode(row)[0] for row, key in enumerate(pool.ids)}


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


@pytest.fixture
def listed(tmp_path):
    """Three images and their table; returns the root."""
    for name in "abc":
        save(tmp_path / "images" / f"{name}.png")
    text = "path,label\nimages/a.png,sick\nimages/b.png,well\nimages/c.png,sick\n"
    return table(tmp_path, text)


# ---------------------------------------------------------------- class folders


@pytest.mark.real_data
@pytest.mark.parametrize("channels, mode", [("rgb", "RGB"), ("grey", "L")])
@pytest.mark.parametrize("crop", ["none", "square"])
def test_real_cells_equal_pillow_and_opencv(real_data, channels, mode, crop):
    root = real_data / "cells"
    pool = load_folder(root, size=[100, 140], channels=channels, crop=crop)
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
    pool = load_folder(real_data / "cells", size=None)
    assert pool.shape == (360, 360, 3)
    image, facts = pool.decode(0)
    assert np.array_equal(image, expected(pool.files[0]))
    assert facts == {"size": [360, 360], "mode": "RGB"}


def test_every_format_and_depth(tree):
    pool = load_folder(tree, size=[16, 24])
    ids = ["benign/2019/deep/c.tif", "benign/UPPER.JPG", "benign/b.png", "malign/a.bmp"]
    assert pool.ids.tolist() == ids
    assert pool.labels.tolist() == [0, 0, 0, 1] and pool.labels.dtype == np.int64
    assert pool.groups is None and pool.parts is None and pool.notes == ()
    for name, image in decoded(pool).items():
        assert np.array_equal(image, expected(tree / name, (16, 24))), name


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_other_modes_become_colours_or_grey(tmp_path, mode):
    suffix = "tif" if mode == "CMYK" else "png"
    for name in "ab":
        image = Image.fromarray(pixels(ord(name))).convert(mode)
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / f"x.{suffix}")
    coloured, grey = load_folder(tmp_path, size=12), load_folder(tmp_path, size=12, channels="grey")
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
    pool = load_folder(tmp_path, size=None)
    assert pool.shape == (30, 20, 3)
    assert np.array_equal(pool.decode(0)[0], np.rot90(image, -1))


def test_auto_takes_the_first_images_channels(tmp_path):
    save(tmp_path / "a" / "x.png", pixels(1, channels=1))
    save(tmp_path / "b" / "y.png", pixels(2))
    pool = load_folder(tmp_path, size=8, channels="auto")
    assert pool.shape == (8, 8, 1)
    with pytest.raises(MedexpError, match=r"b/y.png has colours, where dataset.channels=auto took"):
        pool.decode(1)
    (tmp_path / "a" / "a.png").write_bytes(b"")  # one that cannot be read decides nothing
    assert load_folder(tmp_path, size=8, channels="auto").shape == (8, 8, 1)
    save(tmp_path / "a" / "a.png")
    assert load_folder(tmp_path, size=8, channels="auto").shape == (8, 8, 3)


def test_without_a_size_another_size_is_refused(tmp_path):
    save(tmp_path / "a" / "x.png")
    save(tmp_path / "b" / "y.png", pixels(2, 20, 31))
    pool = load_folder(tmp_path, size=None)
    with pytest.raises(MedexpError, match=r"b/y.png is 31x20 pixels, .* first image is 30x20"):
        pool.decode(1)
    squares = load_folder(tmp_path, size=None, crop="square")
    assert squares.shape == (20, 20, 3)
    assert np.array_equal(squares.decode(1)[0], expected(tmp_path / "b" / "y.png", square=True))


def test_whatever_changes_pixels_is_in_the_settings(tree):
    base = load_folder(tree).settings
    for other in ({"size": 96}, {"channels": "grey"}, {"crop": "square"}, {"size": [224, 225]},
                  {"interpolation": "linear"}):  # fmt: skip
        assert load_folder(tree, **other).settings != base, other


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
    assert load_folder(tmp_path).classes == classes


def test_given_classes_set_order_and_choice(tree):
    save(tree / "docs" / "logo.png")
    save(tree / "overview.png")
    pool = load_folder(tree, classes=["malign", "benign"])
    assert pool.classes == ("malign", "benign") and pool.labels.tolist() == [0, 1, 1, 1]
    assert pool.notes == (
        "images in no class folder of the root, left out: 1",
        "folders of the root left out by dataset.classes: docs",
    )


def test_numbers_as_given_classes(tmp_path):
    for name in "012":
        save(tmp_path / name / "x.png")
    assert load_folder(tmp_path, classes=[2, 0]).classes == ("2", "0")


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
    pool = load_folder(parted(tmp_path, *names))
    assert pool.classes == ("a", "b") and len(pool) == 12
    kept = dict(zip(names, ("train", "val", "test"), strict=True))
    assert pool.parts.tolist() == [kept[str(key).split("/")[0]] for key in pool.ids]
    assert str(pool.ids[0]).endswith("/a/0.png")
    rows = split_rows(pool, SplitSettings()).rows
    assert [len(rows[part]) for part in ("train", "val", "test")] == [4, 4, 4]


def test_a_missing_val_is_drawn_from_train(tmp_path):
    parted(tmp_path, "train", n=20)
    pool = load_folder(parted(tmp_path, "test"))
    rows = split_rows(pool, SplitSettings()).rows
    assert [len(rows[part]) for part in ("train", "val", "test")] == [36, 4, 4]
    assert {str(key).split("/")[0] for key in pool.ids[rows["test"]]} == {"test"}


def test_train_alone_is_unsplit(tmp_path):
    assert load_folder(parted(tmp_path, "train")).parts is None


def test_a_part_may_lack_a_class_but_not_train(tmp_path):
    parted(tmp_path, "train", classes="abc")
    pool = load_folder(parted(tmp_path, "test"))
    assert pool.classes == ("a", "b", "c")
    assert sorted(set(pool.labels[pool.parts == "test"].tolist())) == [0, 1]
    parted(tmp_path, "test", classes="d")
    with pytest.raises(MedexpError, match=r"train/d: no such class folder, where .* has a, b, c"):
        load_folder(tmp_path)


def test_unlabelled_test_images_are_refused(tmp_path):
    parted(tmp_path, "train")
    save(tmp_path / "test" / "1.png")
    with pytest.raises(
        MedexpError, match=r"test: no class folders in it, only files \(1\). Images"
    ):
        load_folder(tmp_path)


@pytest.mark.parametrize("names", [("val", "test"), ("train", "val", "valid"), ("train", "other")])
def test_half_a_split_is_refused(tmp_path, names):
    with pytest.raises(MedexpError, match=r"holds .*: neither class folders nor one each of train"):
        load_folder(parted(tmp_path, *names))


# ---------------------------------------------------------------- wrong trees


def test_missing_root(tmp_path):
    with pytest.raises(MedexpError, match=r"nowhere: no such folder; it should hold a folder of"):
        load_folder(tmp_path / "nowhere")


def test_no_class_folders(tmp_path):
    save(tmp_path / "x.png")
    with pytest.raises(
        MedexpError, match=r"no class folders in it, only files \(1\). Expected ROOT"
    ):
        load_folder(tmp_path)
    (tmp_path / "x.png").unlink()
    with pytest.raises(MedexpError, match=r"no class folders in it, only files \(0\)"):
        load_folder(tmp_path)


def test_one_class_only(tmp_path):
    save(tmp_path / "a" / "x.png")
    with pytest.raises(MedexpError, match=r"only one class folder, a: need two or more. Expected"):
        load_folder(tmp_path)


def test_empty_class(tree):
    (tree / "unsure").mkdir()
    with pytest.raises(MedexpError, match=r"unsure: no image of .bmp, .* in it \(files: none\)"):
        load_folder(tree)


def test_class_of_dicom_only(tree):
    (tree / "unsure").mkdir()
    for i in range(3):
        (tree / "unsure" / f"{i}.dcm").write_bytes(b"")
    message = r"in it \(files: 3 of .dcm\). Convert them as docs/your_own_data.md says"
    with pytest.raises(MedexpError, match=message):
        load_folder(tree)


def test_given_class_without_a_folder(tree):
    with pytest.raises(MedexpError, match=r"malignant: no such class folder, .* benign, malign"):
        load_folder(tree, classes=["benign", "malignant"])
    with pytest.raises(MedexpError, match=r"not a plain path below"):
        load_folder(tree, classes=["benign", "../malign"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folder_without_permission(tree):
    closed = tree / "benign" / "2019"
    closed.chmod(0)
    try:
        with pytest.raises(MedexpError, match=r"2019: cannot be listed \(Permission denied\)"):
            load_folder(tree)
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
        load_folder(tree)


@pytest.mark.parametrize("name", ["malign/link.png", "malign/link", "linked"])
def test_links_out_of_the_tree_are_refused(tree, tmp_path_factory, name):
    outside = tmp_path_factory.mktemp("outside")
    target = save(outside / "x.png")
    (tree / name).symlink_to(target if name.endswith("png") else outside)
    with pytest.raises(MedexpError, match=rf"{name}: a symbolic link that leads out of"):
        load_folder(tree)


def test_links_within_the_tree_are_read(tree):
    (tree / "malign" / "link.png").symlink_to(tree / "benign" / "b.png")
    pool = load_folder(tree)
    images = decoded(pool)
    assert np.array_equal(images["malign/link.png"], images["benign/b.png"])


def test_file_name_that_is_no_utf8(tree):
    image = (tree / "benign" / "b.png").read_bytes()
    with open(os.fsencode(tree / "benign") + b"/\xff.png", "wb") as file:
        file.write(image)
    with pytest.raises(MedexpError, match=r"file name 'benign/.udcff.png' is not UTF-8. Rename it"):
        load_folder(tree)


# ---------------------------------------------------------------- wrong images


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.tif", "x.bmp"])
@pytest.mark.parametrize("keep", [0, 0.6])
def test_file_cut_short(tree, name, keep):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tree / "benign" / name, noise)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    pool = load_folder(tree)  # listing opens no file
    (row,) = np.flatnonzero(pool.ids == f"benign/{name}")
    with pytest.raises(MedexpError, match=rf"benign/{name} cannot be decoded \(.*damaged, cut s"):
        pool.decode(row)
    others = [r for r in range(len(pool)) if r != row]
    assert all(pool.decode(r)[0].shape == (224, 224, 3) for r in others)


def test_sixteen_bits_are_refused(tree):
    deep = (np.arange(400, dtype=np.uint16) * 100).reshape(20, 20)
    cv2.imwrite(str(tree / "benign" / "a.png"), deep)
    pool = load_folder(tree)
    (row,) = np.flatnonzero(pool.ids == "benign/a.png")
    with pytest.raises(MedexpError, match=r"a.png: pixels of mode I;16 .*Save it with 8 bits"):
        pool.decode(row)


@pytest.mark.parametrize("side, message", [(60000, "decompression bomb"), (12000, "no photograph")])
def test_decompression_bombs_are_refused(tree, side, message):
    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )  # fmt: skip

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    (tree / "benign" / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )
    pool = load_folder(tree)
    (row,) = np.flatnonzero(pool.ids == "benign/a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(MedexpError, match=rf"a.png.*{message}"):
            pool.decode(row)


def test_an_image_without_any_readable_one(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(b"")
    with pytest.raises(MedexpError, match=r"b/x.png cannot be decoded"):
        load_folder(tmp_path, size=None)


# ---------------------------------------------------------------- tables


@pytest.mark.real_data
def test_kaggles_table_equals_pillow(real_data):
    root = real_data / "pcam_kaggle"
    pool = load_table(
        root, table="train_labels.csv", path_column="id", folder="train", extension=".tif", size=96
    )
    lines = (root / "train_labels.csv").read_text().splitlines()[1:]
    assert pool.ids.tolist() == [f"train/{line.split(',')[0]}.tif" for line in lines]
    assert pool.labels.tolist() == [int(line.split(",")[1]) for line in lines]
    assert pool.classes == ("0", "1") and pool.groups is None and pool.parts is None
    for name, image in decoded(pool).items():
        assert np.array_equal(image, expected(root / name)), name


def test_labels_by_name(listed):
    pool = load_table(listed, size=[16, 24], crop="square", channels="grey")
    assert pool.classes == ("sick", "well") and pool.labels.tolist() == [0, 1, 0]
    assert pool.ids.tolist() == ["images/a.png", "images/b.png", "images/c.png"]
    for name, image in decoded(pool).items():
        assert np.array_equal(image, expected(listed / name, (16, 24), "L", square=True))


def test_labels_by_number(listed):
    table(listed, "path,label\nimages/a.png,10\nimages/b.png,9\nimages/c.png,-1\n")
    pool = load_table(listed)
    assert pool.classes == ("-1", "9", "10") and pool.labels.tolist() == [2, 1, 0]
    pool = load_table(listed, classes=[10, -1, 9])
    assert pool.classes == ("10", "-1", "9") and pool.labels.tolist() == [0, 2, 1]


def test_patients_and_parts(listed):
    table(listed, "split,path,patient,label\nTrain,images/a.png,7,x\nvalid, images/b.png ,7,y\n"
                  "test,./images/c.png,8,x\n")  # fmt: skip
    pool = load_table(listed)
    assert pool.groups.tolist() == ["7", "7", "8"]
    assert pool.parts.tolist() == ["train", "val", "test"]
    assert pool.ids.tolist() == ["images/a.png", "images/b.png", "images/c.png"]
    pool = load_table(listed, patient_column=None, split_column=None)
    assert pool.groups is None and pool.parts is None


def test_patients_stay_on_one_side(tmp_path):
    lines = ["path,label,patient"]
    for i in range(60):
        save(tmp_path / f"{i}.png", pixels(i, 8, 8))
        lines.append(f"{i}.png,{i % 2},p{i // 4}")
    pool = load_table(table(tmp_path, "\n".join(lines)))
    rows = split_rows(pool, SplitSettings()).rows
    sides = [set(pool.groups[rows[part]].tolist()) for part in ("train", "val", "test")]
    assert all(sides) and not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


def test_empty_split_cells_are_still_to_be_split(tmp_path):
    lines = ["path,label,split"]
    for i in range(40):
        save(tmp_path / f"{i}.png", pixels(i, 8, 8))
        lines.append(f"{i}.png,{i % 2},{'test' if i < 10 else ''}")
    pool = load_table(table(tmp_path, "\n".join(lines)))
    assert pool.parts.tolist() == ["test"] * 10 + [""] * 30
    rows = split_rows(pool, SplitSettings()).rows
    assert rows["test"].tolist() == list(range(10))
    assert len(rows["val"]) and not set(rows["val"]) & set(rows["train"])


def test_table_outside_the_root(listed, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("tables") / "mine.csv"
    (listed / "labels.csv").rename(elsewhere)
    assert len(load_table(listed, table=str(elsewhere))) == 3


def test_byte_order_mark_and_quotes(listed):
    rows = '"images/a.png","x, y"\r\nimages/b.png,z\r\n'
    (listed / "labels.csv").write_bytes(b"\xef\xbb\xbfpath,label\r\n" + rows.encode())
    assert load_table(listed).classes == ("x, y", "z")


@pytest.mark.parametrize("extension", [".png", "png"])
def test_folder_and_extension_are_joined(listed, extension):
    table(listed, "path,label\na,1\nb.c,0\n")
    save(listed / "images" / "b.c.png")
    pool = load_table(listed, folder="images", extension=extension)
    assert pool.ids.tolist() == ["images/a.png", "images/b.c.png"]
    assert all(file.exists() for file in pool.files)


def test_missing_file_is_the_decoders(listed):
    (listed / "images" / "b.png").unlink()
    pool = load_table(listed)
    assert len(pool) == 3 and pool.decode(0)[0].shape == (224, 224, 3)
    with pytest.raises(
        MedexpError, match=r"labels.csv, line 3 names .*b.png, which cannot be found"
    ):
        pool.decode(1)


def test_no_file_there_at_all(listed):
    message = r"names 3 images and none is there, the first as .*images/a.png.png. Paths are dat"
    with pytest.raises(MedexpError, match=message):
        load_table(listed, extension=".png")


# ---------------------------------------------------------------- wrong tables


def test_missing_table_names_those_there(listed):
    table(listed, "path,label\n", "more.csv")
    message = r"train.csv: no such table \(tables there: labels.csv, more.csv\)"
    with pytest.raises(MedexpError, match=message):
        load_table(listed, table="train.csv")
    with pytest.raises(MedexpError, match=r"nowhere: no such folder; it should hold the table"):
        load_table(listed / "nowhere")


@pytest.mark.parametrize(
    "content, message",
    [
        ("", r"labels.csv has no column path, label in its header \(empty file\)"),
        ("path,label\n", r"labels.csv has a header and no rows: need a row for each image"),
        ("file,label\nx,1\n", r"has no column path in its header \(file, label\)"),
        ("path;label\nx;1\n", r"has no column path, label in its header \(path;label\)"),
        ("path,label\nimages/a.png\n", r"line 2: too few cells: need path, label"),
        ("path,label,age\nimages/a.png,1\n", r"line 2: fewer cells than the header has"),
        ("path,label\nimages/a.png,1, severe\n", r"line 2: more cells than the header has. Put"),
        ("path,label\nimages/a.png, \n", r"line 2: the cell of column label is empty. Fill it in"),
        ("path,label\n,1\n", r"line 2: the cell of column path is empty"),
        ("path,label,patient\nimages/a.png,1,\n", r"line 2: the cell of column patient is empty"),
        ("path,label\n../a.png,1\n", r"line 2: '../a.png': not a plain path below"),
        ("path,label\nimages/a.png,1\nimages/..,1\n", r"line 3: 'images/..': not a plain path"),
        ("path,label\nimages\\a.png,1\n", r"line 2: .* not a plain path below .*Give paths rel"),
        ("path,label\n/etc/a.png,1\n", r"line 2: '/etc/a.png': not a plain path below"),
        (
            "path,label\nimages/a.png,1\nimages/b.png,0\nimages//a.png,0\n",
            r"line 4: images/a.png is named already, at .*labels.csv, line 2. Give each image one",
        ),
        ("path,label,split\nimages/a.png,1,dev\n", r"line 2: split 'dev': need train, val, test"),
        ("path,label\nimages/a.png,1\nimages/b.png,1\n", r"every row has the label '1': need two"),
        (
            "path,label,patient_id\nimages/a.png,1,7\n",
            r"has no column patient, but patient_id. If that is what it holds, give "
            r"dataset.patient_column=patient_id, if not, dataset.patient_column=null",
        ),
        (
            "path,label,Split\nimages/a.png,1,test\n",
            r"no column split, but Split. .*column=S",
        ),
    ],
)
def test_wrong_csv(listed, content, message):
    table(listed, content)
    with pytest.raises(MedexpError, match=message):
        load_table(listed)


def test_optional_columns_under_other_names_must_be_there(listed):
    for key in ("patient_column", "split_column"):
        with pytest.raises(MedexpError, match=r"has no column case in its header \(path, label\)"):
            load_table(listed, **{key: "case"})


def test_label_that_classes_lack(listed):
    message = r"line 3: label 'well' is not in dataset.classes \(sick, healthy\). Add it there"
    with pytest.raises(MedexpError, match=message):
        load_table(listed, classes=["sick", "healthy"])


def test_class_that_no_row_has(listed):
    with pytest.raises(MedexpError, match=r"no image of class unsure"):
        load_table(listed, classes=["sick", "well", "unsure"])


def test_csv_that_is_no_utf8(listed):
    (listed / "labels.csv").write_bytes("path,label\nimages/a.png,gr\xfcn\n".encode("latin-1"))
    with pytest.raises(MedexpError, match=r"labels.csv is not UTF-8 text .* save it as UTF-8"):
        load_table(listed)


@pytest.mark.parametrize("name", ["images/link.png", "link/x.png"])
def test_links_that_a_table_names(listed, tmp_path_factory, name):
    outside = tmp_path_factory.mktemp("outside")
    target = save(outside / "x.png")
    (listed / name.split("/x")[0]).symlink_to(target if name.startswith("images") else outside)
    table(listed, f"path,label\nimages/a.png,1\n{name},0\n")
    with pytest.raises(MedexpError, match=rf"line 3: .*{name}: a symbolic link that leads out of"):
        load_table(listed)


# ---------------------------------------------------------------- Parquet


def parquet(folder, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "labels.parquet")
    return folder


def test_parquet_reads_as_the_csv(listed):
    columns = {
        "path": [f"images/{name}.png" for name in "abc"],
        "label": [10, 9, 10],
        "patient": [1, 2, 1],
        "split": ["train", None, "test"],
        "image": [b"\x00", b"\xff", b""],
        "box": [[1, 2], [3], []],
    }
    parquet(listed, **columns)
    table(listed, "path,label,patient,split\nimages/a.png,10,1,train\nimages/b.png,9,2,\n"
                  "images/c.png,10,1,test\n")  # fmt: skip
    one, two = load_table(listed, table="labels.parquet"), load_table(listed)
    assert one.classes == two.classes == ("9", "10") and one.settings == two.settings
    for name in ("labels", "ids", "groups", "parts"):
        assert getattr(one, name).tolist() == getattr(two, name).tolist(), name
    assert one.files == two.files
    assert np.array_equal(one.decode(1)[0], two.decode(1)[0])


def test_wrong_parquet(listed):
    parquet(listed, path=["images/a.png", "images/b.png"], label=["x", None])
    with pytest.raises(MedexpError, match=r"labels.parquet, row 2: the cell of column label is em"):
        load_table(listed, table="labels.parquet")
    with pytest.raises(MedexpError, match=r"has no column id in its header \(path, label\)"):
        load_table(listed, table="labels.parquet", path_column="id")
    whole = (listed / "labels.parquet").read_bytes()
    for broken in (b"", b"no parquet", whole[:100], whole[:4] + bytes(len(whole) - 8) + whole[-4:]):
        (listed / "labels.parquet").write_bytes(broken)
        with pytest.raises(MedexpError, match=r"labels.parquet cannot be read as Parquet \("):
            load_table(listed, table="labels.parquet")


def test_parquet_without_pyarrow(listed, monkeypatch):
    parquet(listed, path=["images/a.png"], label=["x"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MedexpError, match=r'pip install "medexp\[parquet\]", or save it as CSV'):
        load_table(listed, table="labels.parquet")


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"size": 0}, r"dataset.size=0: need a side, \[height, width\], or null"),
        ({"size": [224]}, r"dataset.size=\[224\]: need a side"),
        ({"size": [224, -1]}, r"dataset.size=\[224, -1\]: need a side"),
        ({"channels": "gray"}, r"dataset.channels=gray: no such choice. Did you mean 'grey'\?"),
        ({"crop": "centre"}, r"dataset.crop=centre: no such choice"),
        ({"interpolation": "bicubic"}, r"dataset.interpolation=bicubic: .*'cubic'"),
        ({"classes": ["a"]}, r"dataset.classes=\['a'\]: need two different names or more"),
        ({"classes": ["a", "b", "a"]}, r"need two different names or more, or null for all"),
        ({"segment": "otsu"}, r"dataset.segment=otsu: no such choice"),
        ({"segment": "slic_knn"}, r"slic_knn: which colours has the organ\? .*dataset.references="),
    ],
)
@pytest.mark.parametrize("load", [load_folder, load_table])
def test_impossible_arguments(tmp_path, load, arguments, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, **arguments)


# ---------------------------------------------------------------- segmentation


def test_segmentation_blacks_out_what_is_unlike_the_references(tmp_path):
    for i, name in enumerate("ab"):
        image = np.full((60, 80, 3), (40, 90, 160), np.uint8)
        cv2.circle(image, (30 + 20 * i, 30), 18, (200, 60, 60), -1)
        save(tmp_path / "data" / name / "x.png", image)
    colours = table(tmp_path, "r,g,b\n200,60,60\n", "colours.csv") / "colours.csv"
    options = {"segment": "slic_knn", "references": str(colours), "segments": 20, "closest": 3}
    pool = load_folder(tmp_path / "data", size=[60, 80], **options)
    assert pool.settings["segment"] and pool.notes[-1].startswith("segmented: ")
    for row, file in enumerate(pool.files):
        plain = expected(file, (60, 80))
        mask = panels(plain, [(200, 60, 60)], segments=20, closest=3).mask
        assert 0 < mask.mean() < 0.5
        assert np.array_equal(pool.decode(row)[0], plain * mask[..., None])
    with pytest.raises(ConfigError, match=r"channels=grey: .* needs dataset.channels=rgb"):
        load_folder(tmp_path / "data", channels="grey", **options)


# ---------------------------------------------------------------- through the configuration


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDEXP_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", ["image_folder", "csv_table"])
def test_phantoms_through_the_config(cache, name):
    overrides = [f"dataset={name}", "source=phantom", "source.size=64", "dataset.size=32"]
    data = load_data(compose.compose(overrides))
    assert data.classes == ("normal", "tumor") and data.image_shape == (32, 32, 3)
    assert sum(map(len, data.splits().values())) == 64
    assert (data.test.groups is not None) == (name == "csv_table")


def test_skip_leaves_missing_and_damaged_files_out(cache, tmp_path):
    lines = ["path,label"]
    for i in range(40):
        save(tmp_path / "x" / f"{i}.png", pixels(i, 8, 8))
        lines.append(f"{i}.png,{i % 2}")
    table(tmp_path / "x", "\n".join(lines))
    (tmp_path / "x" / "3.png").unlink()
    (tmp_path / "x" / "5.png").write_bytes(b"")
    overrides = ["dataset=csv_table", f"dataset.root={tmp_path / 'x'}", "dataset.size=8"]
    with pytest.raises(MedexpError, match=r"2 of 40 images cannot be read. .*line 5 names"):
        load_data(compose.compose(overrides))
    data = load_data(compose.compose([*overrides, "dataset.on_error=skip"]))
    assert sorted(data.skipped) == ["3.png", "5.png"]
    assert sum(map(len, data.splits().values())) == 38


CALL = re.compile(r"medexp (?:train|data check)((?: -m| [\w.]+=[^\s`;]+)+)")


@pytest.mark.parametrize(
    "file",
    ["conf/dataset/image_folder.yaml", "conf/dataset/csv_table.yaml", "docs/your_own_data.md"],
)
def test_every_command_that_is_shown_composes(file):
    calls = CALL.findall((ROOT / file).read_text(encoding="utf-8"))
    assert len(calls) >= 4
    for call in calls:
        overrides = [o if "[" in o else o.split(",")[0] for o in call.replace(" -m", "").split()]
        settings = compose.compose(overrides)
        check_node("dataset", settings.dataset, {"root": ""})


def test_the_volume_reader_of_the_docs_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/your_own_data.md").read_text(), re.S)
    (code,) = [block for block in blocks if "def load" in block]
    written = np.linspace(-1400, 800, 24 * 20 * 10, dtype=np.float32).reshape(24, 20, 10)
    for name in "ab":
        nibabel.save(nibabel.Nifti1Image(written, np.eye(4)), tmp_path / f"{name}.nii.gz")
    table(tmp_path, "path,label,patient\na.nii.gz,sick,1\nb.nii.gz,well,2\n")
    module = {}
    exec(code, module)
    pool = module["load"](str(tmp_path), size=16)
    image, facts = pool.decode(1)
    assert image.shape == pool.shape == (16, 16, 16, 1) and image.dtype == np.float32
    assert facts == {"spacing": [1.0, 1.0, 1.0]}
    zoomed = ndimage.zoom(np.clip((written.T + 1000) / 1400, 0, 1), (1.6, 0.8, 16 / 24), order=1)
    assert np.allclose(image[..., 0], zoomed)
