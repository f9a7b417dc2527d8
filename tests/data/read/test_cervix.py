"""The reader of the cervix set against Pillow, on files written here."""

import io
import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from medexp.config.settings import SplitSettings
from medexp.data.read.cervix import INFO, load
from medexp.data.segment import OUR_COLOURS, panels
from medexp.data.split import split_rows
from medexp.data.store import stored
from medexp.errors import ConfigError, MedexpError

RNG = np.random.default_rng(0)
SIZES = ((50, 37), (37, 50), (64, 64), (41, 90))  # width, height


def picture(width, height, mode="RGB"):
    """A photograph without symmetry, smooth enough that JPEG hardly changes it."""
    small = RNG.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    pixels = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return Image.fromarray(pixels).convert(mode)


def jpeg(path, width=50, height=37, mode="RGB", orientation=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation:
        exif[274] = orientation
    picture(width, height, mode).save(path, format="JPEG", quality=95, exif=exif)
    return path


@pytest.fixture
def root(tmp_path):
    """Two photographs a type."""
    root = tmp_path / "cervix"
    for kind in INFO.classes:
        for number, size in enumerate(SIZES[:2]):
            jpeg(root / kind / f"{number}.jpg", *size)
    return root


def decoded(root, name, **settings):
    pool = load(root, **settings)
    return pool.decode(pool.ids.tolist().index(name))


def upright(path):
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def averaged(image, side):
    """Each pixel the average of the area it covers: the weights are overlaps of intervals."""
    height, width = image.shape[:2]

    def weights(length):
        edges = np.arange(side + 1) * length / side
        pixel = np.arange(length)
        low = np.maximum(edges[:-1, None], pixel)
        return np.maximum(np.minimum(edges[1:, None], pixel + 1) - low, 0) * side / length

    return np.einsum("ay,yxc,bx->abc", weights(height), image.astype(float), weights(width))


def png_header(width, height):
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0"))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def jpeg_header(width, height):
    """A JPEG whose frame header claims a size."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format="JPEG")
    content = bytearray(buffer.getvalue())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(content)


# ---------------------------------------------------------------- what is found


def test_photographs_are_listed_by_type(root):
    pool = load(root)
    assert pool.ids.tolist() == [f"Type_{k}/{i}.jpg" for k in (1, 2, 3) for i in (0, 1)]
    assert pool.labels.tolist() == [0, 0, 1, 1, 2, 2] and pool.labels.dtype == np.int64
    assert pool.classes == ("Type_1", "Type_2", "Type_3") and pool.public == 1481
    assert pool.shape == (160, 160, 3) and pool.dtype == np.uint8
    assert [f.relative_to(root).as_posix() for f in pool.files] == pool.ids.tolist()
    assert pool.groups is None and pool.parts is None


@pytest.mark.parametrize("nested", ["train", "train/train"])
def test_nested_folders_give_the_same_ids_and_pixels(root, tmp_path, nested):
    flat = load(root)
    shutil.copytree(root, tmp_path / "again" / nested)
    (tmp_path / "again" / "test").mkdir()
    again = load(tmp_path / "again")
    assert again.ids.tolist() == flat.ids.tolist()
    assert np.array_equal(again.decode(3)[0], flat.decode(3)[0])


def test_other_files_and_hidden_ones_are_left_alone(root):
    (root / "Type_1" / "Thumbs.db").write_bytes(b"x")
    (root / "Type_1" / "._0.jpg").write_bytes(b"x")
    (root / "sample_submission.csv").write_text("x")
    jpeg(root / "test" / "0.jpg")
    jpeg(root / "Type_1" / "UPPER.JPG")
    jpeg(root / "Type_1" / "long.jpeg")
    assert len(load(root)) == 8


def test_what_the_tables_must_say(root):
    first, second = load(root).notes
    assert "Kaggle's 512" in first and "our choice" in first
    assert second.startswith("centred square resized to 160, our choice")
    assert "resized to 200" in load(root, resize=200).notes[1]
    assert "full resolution, section 5.1 taken literally" in load(root, resize=0, size=9).notes[1]
    assert "reference colours: average of medexp's own" in load(root, segment="slic_knn").notes[2]


def test_settings_hold_all_that_decides_the_pixels(root):
    seen = [
        json.dumps(load(root, **settings).settings, sort_keys=True)
        for settings in (
            {}, {"size": 100}, {"resize": 200}, {"interpolation": "linear"},
            {"segment": "slic_knn"}, {"segment": "slic_knn", "closest": 4},
            {"segment": "slic_knn", "segments": 12}, {"segment": "slic_knn", "compactness": 3.0},
        )
    ]  # fmt: skip
    assert len(set(seen)) == len(seen)


# ---------------------------------------------------------------- pixels


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("resize", [0, None, 30])
def test_pixels_against_averages_worked_out(root, size, resize):
    path = jpeg(root / "Type_1" / "x.jpg", *size)
    image, facts = decoded(root, "Type_1/x.jpg", size=20, resize=resize)
    assert image.shape == (20, 20, 3) and image.dtype == np.uint8
    assert facts == {"size": list(size), "mode": "RGB"}
    pixels, side = upright(path), min(size)
    top, left = (size[1] - side) // 2, (size[0] - side) // 2
    expected = pixels[top : top + side, left : left + side].astype(float)
    if resize != 0:
        expected = averaged(expected, resize or 20)
    edge = (len(expected) - 20) // 2
    expected = expected[edge : edge + 20, edge : edge + 20]
    assert np.abs(image - expected).max() <= (0 if resize == 0 else 0.51)


@pytest.mark.parametrize("size", [(60, 60), (77, 60), (60, 101)])
def test_pixels_against_pillows_box_filter(root, size):
    """Which is area averaging where the size is divided by a whole number."""
    path = jpeg(root / "Type_1" / "x.jpg", *size)
    image, _ = decoded(root, "Type_1/x.jpg", size=20, resize=30)
    left, top = (size[0] - 60) // 2, (size[1] - 60) // 2
    with Image.open(path) as photograph:
        square = photograph.crop((left, top, left + 60, top + 60))
        expected = square.resize((30, 30), Image.Resampling.BOX).crop((5, 5, 25, 25))
    assert np.abs(image.astype(int) - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize("interpolation", ["area", "linear", "cubic", "nearest"])
@pytest.mark.parametrize("resize", [None, 30, 120])
def test_pixels_against_pillow_and_opencv(root, interpolation, resize):
    path = jpeg(root / "Type_1" / "x.jpg", 53, 41, orientation=6)
    image, _ = decoded(root, "Type_1/x.jpg", size=20, resize=resize, interpolation=interpolation)
    square = upright(path)[6 : 6 + 41]  # 53 high, 41 wide
    side = resize or 20
    method = getattr(cv2, f"INTER_{interpolation.upper()}")
    whole = cv2.resize(square, (side, side), interpolation=method)
    edge = (side - 20) // 2
    assert np.array_equal(image, whole[edge : edge + 20, edge : edge + 20])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_exif_orientations(root, orientation):
    """Against numpy's turns of the pixels as stored, for a square cut out at full resolution."""
    path = jpeg(root / "Type_2" / "x.jpg", 50, 37, orientation=orientation)
    with Image.open(path) as image:
        raw = np.asarray(image)
    turn = {
        1: raw, 2: raw[:, ::-1], 3: raw[::-1, ::-1], 4: raw[::-1],
        5: raw.swapaxes(0, 1), 6: np.rot90(raw, -1), 7: np.rot90(raw, -1)[:, ::-1][::-1, ::-1],
        8: np.rot90(raw, 1),
    }[orientation]  # fmt: skip
    top, left = (turn.shape[0] - 37) // 2, (turn.shape[1] - 37) // 2
    square = turn[top : top + 37, left : left + 37]
    assert np.array_equal(decoded(root, "Type_2/x.jpg", size=37, resize=0)[0], square)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_become_rgb(root, mode):
    path = jpeg(root / "Type_3" / "x.jpg", 40, 40, mode=mode)
    image, facts = decoded(root, "Type_3/x.jpg", size=40)
    with Image.open(path) as stored_:
        assert stored_.mode == mode == facts["mode"]
        assert np.array_equal(image, np.asarray(stored_.convert("RGB")))


def test_a_small_photograph_is_enlarged(root):
    jpeg(root / "Type_1" / "x.jpg", 12, 9)
    image, _ = decoded(root, "Type_1/x.jpg", size=32)
    assert image.shape == (32, 32, 3) and image.std() > 5


def test_without_resizing_a_small_photograph_is_refused(root):
    with pytest.raises(MedexpError, match=r"Type_1/0\.jpg: image of 37x37: smaller than a crop of "
                       r"64x64\. Set dataset\.resize=null"):  # fmt: skip
        load(root, size=64, resize=0).decode(0)


def test_segmented_pixels_are_the_image_with_the_rest_black(root):
    plain, _ = load(root, size=48).decode(1)
    cut, _ = load(root, size=48, segment="slic_knn", closest=3).decode(1)
    average = np.mean(OUR_COLOURS, axis=0, keepdims=True)
    expected = panels(plain, average, closest=3)
    assert np.array_equal(cut, expected.segmented) and 0 < expected.mask.mean() < 1


def test_references_beside_the_photographs_are_used(root):
    folder = root / "references"
    folder.mkdir()
    picture(20, 20).save(folder / "a.png")
    Image.new("L", (20, 20), 255).save(folder / "a_mask.png")
    pool = load(root, segment="slic_knn")
    mean = np.asarray(Image.open(folder / "a.png")).reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(pool.settings["segment"]["colours"], [mean])
    assert len(pool) == 6, "references are no images of the set"
    with pytest.raises(MedexpError, match="nowhere: no such folder"):
        load(root, segment="slic_knn", references=str(root / "nowhere"))


# ---------------------------------------------------------------- additional images


@pytest.fixture
def more(root):
    jpeg(root / "additional_Type_1_v2" / "Type_1" / "0.jpg")
    jpeg(root / "additional_Type_3_v2" / "Type_3" / "7.jpg")
    jpeg(root / "additional" / "Type_2" / "0.jpg")
    jpeg(root / "additional" / "additional_Type_2_v2" / "Type_2" / "0.jpg")
    return root


def test_additional_images_are_left_out(more):
    assert len(load(more)) == 6


def test_additional_images_go_into_the_training_part(more):
    pool = load(more, additional="train")
    assert pool.ids[6:].tolist() == [
        "additional/Type_2/0.jpg",
        "additional/additional_Type_2_v2/Type_2/0.jpg",
        "additional_Type_1_v2/Type_1/0.jpg",
        "additional_Type_3_v2/Type_3/7.jpg",
    ]
    assert pool.labels[6:].tolist() == [1, 1, 0, 2]
    assert pool.parts.tolist() == [""] * 6 + ["train"] * 4
    assert pool.public == 1481 + 6734
    assert pool.notes[2].startswith("4 of Kaggle's additional images are in the training part")
    rows = split_rows(pool, SplitSettings(split="random", test_share=0.34, val_share=0.34)).rows
    assert {6, 7, 8, 9} <= set(rows["train"].tolist())
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(10))


def test_additional_images_that_are_not_there(root):
    (root / "additional").mkdir()
    with pytest.raises(MedexpError, match=r"dataset\.additional=train: .* has no additional\*/"
                       r"Type_1.*additional_Type_1_v2\.7z"):  # fmt: skip
        load(root, additional="train")


def test_an_empty_additional_folder(more):
    (more / "additional_Type_3_v2" / "Type_3" / "7.jpg").unlink()
    with pytest.raises(MedexpError, match=r"additional_Type_3_v2/Type_3: no JPEG"):
        load(more, additional="train")


# ---------------------------------------------------------------- what can be wrong


def test_no_such_folder(tmp_path):
    with pytest.raises(MedexpError, match=r"nowhere: no such folder.*dataset\.root="):
        load(tmp_path / "nowhere")


def test_nothing_of_the_set(tmp_path):
    with pytest.raises(
        MedexpError, match=r"missing Type_1/, Type_2/, Type_3/\n.*kaggle\.com/c/intel"
    ):
        load(tmp_path)


@pytest.mark.parametrize("nested", [".", "train"])
def test_a_missing_class_folder(root, tmp_path, nested):
    shutil.copytree(root, tmp_path / "again" / nested, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "again" / nested / "Type_2")
    with pytest.raises(MedexpError, match=r"not found in .*again.*: missing Type_2/\n"):
        load(tmp_path / "again")


def test_an_empty_class_folder(root):
    for path in (root / "Type_3").iterdir():
        path.unlink()
    picture(9, 9).save(root / "Type_3" / "0.png")
    with pytest.raises(MedexpError, match=r"Type_3: no JPEG \(\.jpg, \.jpeg\) in it"):
        load(root)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda good: good[: len(good) // 2], r" cannot be decoded \(.*truncated"),
        (lambda good: b"", r" cannot be decoded \(an empty file"),
        (lambda good: b"<html>sign in first</html>", r" cannot be decoded \(no image of BMP"),
        (lambda good: png_header(60_000, 60_000), r": 60000x60000 pixels, more than .*bomb"),
        (lambda good: jpeg_header(60_000, 60_000), r": 60000x60000 pixels, more than .*bomb"),
        (lambda good: jpeg_header(13_000, 13_000), r": 13000x13000 pixels, more than .*bomb"),
    ],
    ids=["truncated", "zero bytes", "no image", "PNG bomb", "JPEG bomb", "below Pillow's limit"],
)
def test_a_damaged_photograph_is_named_and_only_it(root, content, reason):
    path = root / "Type_2" / "0.jpg"
    path.write_bytes(content(path.read_bytes()))
    pool = load(root, size=20)
    with pytest.raises(MedexpError, match=r"Type_2/0\.jpg" + reason) as raised:
        pool.decode(2)
    assert len(str(raised.value).splitlines()) <= 3
    assert pool.decode(3)[0].shape == (20, 20, 3)


def test_the_bombs_are_small_files_that_pillow_takes_for_large_images(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    for content in (png_header(60_000, 60_000), jpeg_header(60_000, 60_000)):
        assert len(content) < 1000
        with Image.open(io.BytesIO(content)) as image:
            assert image.size == (60_000, 60_000)


def test_a_link_out_of_the_tree(root, tmp_path):
    outside = jpeg(tmp_path / "outside.jpg")
    (root / "Type_1" / "link.jpg").symlink_to(outside)
    with pytest.raises(MedexpError, match=r"link\.jpg: a symbolic link that leads out of"):
        load(root)


def test_a_class_folder_that_is_a_link_out_of_the_tree(root, tmp_path):
    shutil.move(root / "Type_1", tmp_path / "elsewhere")
    (root / "Type_1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MedexpError, match=r"Type_1: a symbolic link that leads out of"):
        load(root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_photograph_that_may_not_be_read(root):
    (root / "Type_1" / "0.jpg").chmod(0)
    with pytest.raises(MedexpError, match=r"Type_1/0\.jpg cannot be decoded \(Permission denied\)"):
        load(root).decode(0)


def test_a_photograph_that_may_not_be_read_whoever_asks(root, monkeypatch):
    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    pool = load(root)
    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(MedexpError, match=r"Type_1/0\.jpg cannot be decoded \(Permission denied\)"):
        pool.decode(0)


def test_a_class_folder_that_may_not_be_listed(root, monkeypatch):
    listed = Path.iterdir

    def refuse(path):
        if path.name == "Type_2":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(MedexpError, match=r"Type_2: cannot be listed \(Permission denied\)"):
        load(root)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 0}, r"dataset\.size=0: need 1 or more"),
        ({"size": 160, "resize": 100}, r"dataset\.resize=100: smaller than dataset\.size=160"),
        ({"resize": -1}, r"dataset\.resize=-1: smaller than"),
        ({"interpolation": "bicubic"}, r"dataset\.interpolation=bicubic: .*Did you mean 'cubic'"),
        ({"additional": "test"}, r"dataset\.additional=test: no such choice.*no, train"),
        ({"segment": "slic"}, r"dataset\.segment=slic: no such choice.*none, slic_knn"),
        ({"segment": "slic_knn", "closest": 11}, r"dataset\.closest=11 of dataset\.segments=10"),
    ],
)
def test_values_out_of_range(root, values, message):
    with pytest.raises(ConfigError, match=message):
        load(root, **values)


# ---------------------------------------------------------------- with the rest of medexp


def test_decoded_once_in_parallel_and_kept(root, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDEXP_CACHE", str(tmp_path / "cache"))
    pool = load(root, size=24, segment="slic_knn")
    first = np.array(stored(pool).array)
    assert np.array_equal(first, np.stack([pool.decode(row)[0] for row in range(6)]))
    assert len(list((tmp_path / "cache" / "arrays").glob("cervix-*"))) == 1
    stored(load(root, size=24, segment="slic_knn"))
    assert len(list((tmp_path / "cache" / "arrays").glob("cervix-*"))) == 1
    stored(load(root, size=24))
    assert len(list((tmp_path / "cache" / "arrays").glob("cervix-*"))) == 2
