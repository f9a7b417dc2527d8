import csv
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from medexp.config.settings import SplitSettings
from medexp.data.files import hdf5_rows
from medexp.data.load import split_pool
from medexp.data.read.pcam import INFO, load
from medexp.errors import ConfigError, MedexpError

STEM = "camelyonpatch_level_2_split_"
REAL = Path(__file__).resolve().parents[3].parent / "shared" / "data"
COUNTS = {"train": 60, "valid": 20, "test": 20}


def real(name):
    folder = REAL / name
    if not folder.exists():
        pytest.skip(f"no real patches: {folder} does not exist")
    return folder


def write_part(folder, part, x, y, slides=None):
    with h5py.File(folder / f"{STEM}{part}_x.h5", "w") as file:
        file["x"] = x
    with h5py.File(folder / f"{STEM}{part}_y.h5", "w") as file:
        file["y"] = y
    if slides is not None:
        with open(folder / f"{STEM}{part}_meta.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["", "coord_y", "wsi"])
            table.writerows([i, 0, slide] for i, slide in enumerate(slides))


@pytest.fixture
def root(tmp_path):
    """PCam's layout with 60/20/20 random patches, five to a slide; returns the folder."""
    rng = np.random.default_rng(0)
    for part, n in COUNTS.items():
        x = rng.integers(0, 256, (n, 96, 96, 3), dtype=np.uint8)
        y = (np.arange(n) % 2).astype(np.uint8).reshape(n, 1, 1, 1)
        write_part(tmp_path, part, x, y, [f"{part}_{i // 5}" for i in range(n)])
    return tmp_path


@pytest.fixture
def kaggle(tmp_path):
    """Kaggle's layout with 40 random patches; returns the folder."""
    rng = np.random.default_rng(0)
    (tmp_path / "train").mkdir()
    lines = ["id,label"]
    for i in range(40):
        pixels = rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "train" / f"p{i}.tif")
        lines.append(f"p{i},{i % 2}")
    (tmp_path / "train_labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def stored(root, part, key):
    with h5py.File(root / f"{STEM}{part}_{key}.h5") as file:
        return file[key][:]


def pooled(root):
    """Every image by its id, read independently."""
    return {
        f"{part}/{i:06d}": image
        for part in COUNTS
        for i, image in enumerate(stored(root, part, "x"))
    }


# Reading


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("MEDEXP_CACHE", str(tmp_path_factory.mktemp("cache")))


def split(folder, layout="auto", **plan):
    return split_pool(load(folder, layout=layout), SplitSettings(**{"split": "given"} | plan))


@pytest.mark.real_data
def test_own_split_equals_h5py_on_real_patches():
    folder = real("pcam")
    data = split(folder)
    for part, own in zip(COUNTS, data.splits().values(), strict=True):
        assert np.array_equal(own.images[:], stored(folder, part, "x"))
        assert np.array_equal(own.labels, stored(folder, part, "y").ravel())
    assert data.partial == (
        "72 of 262,144 training images",
        "24 of 32,768 validation images",
        "24 of 32,768 test images",
    )
    assert data.train.groups is None
    assert data.notes == ("split: as pcam comes, its own parts",)


@pytest.mark.real_data
def test_kaggle_equals_pillow_on_real_patches():
    folder = real("pcam_kaggle")
    data = split(folder, split="stratified")
    with open(folder / "train_labels.csv", newline="") as file:
        labels = {row["id"]: int(row["label"]) for row in csv.DictReader(file)}
    seen = []
    for part in data.splits().values():
        for image, label, name in zip(part.images[:], part.labels, part.ids, strict=True):
            assert np.array_equal(image, np.asarray(Image.open(folder / "train" / f"{name}.tif")))
            assert label == labels[name]
            seen.append(name)
    assert sorted(seen) == sorted(labels)
    assert data.partial == ("24 of 220,025 images",)


def test_own_split_keeps_file_order(root):
    data = split(root)
    for part, own in zip(COUNTS, data.splits().values(), strict=True):
        assert np.array_equal(own.images[:], stored(root, part, "x"))
        assert own.ids.tolist() == [f"{part}/{i:06d}" for i in range(COUNTS[part])]
        assert own.groups.tolist() == [f"{part}_{i // 5}" for i in range(COUNTS[part])]
        assert own.labels.dtype == np.int64


def test_blocks_of_any_size_give_the_same_patches(root):
    whole = split(root).train.images[:]
    for block in (1, 7, 60, 1000):
        row = hdf5_rows(root / f"{STEM}train_x.h5", "x", block)
        assert all(np.array_equal(row(i), whole[i]) for i in (0, 59, 6, 7, 30))


@pytest.mark.parametrize("kind", ["stratified", "patients"])
def test_pooled_splits_hold_every_image_once_in_80_20(root, kind):
    data = split(root, split=kind, val_share=0.08, allow_leak=True)
    images = pooled(root)
    seen = []
    for part in data.splits().values():
        assert all(
            np.array_equal(image, images[name])
            for image, name in zip(part.images[:], part.ids, strict=True)
        )
        seen += part.ids.tolist()
    assert sorted(seen) == sorted(images)
    assert len(data.test) == 20
    assert len(data.val) == pytest.approx(8, abs=2)
    assert data.partial == ("100 of 327,680 images",)


def test_slides_are_the_groups(root):
    with pytest.raises(MedexpError, match="slides stand on both sides of the split"):
        split(root, split="stratified")
    assert "LEAKY" in split(root, split="stratified", allow_leak=True).marks
    assert split(root, split="patients").marks == {}
    meta = root / f"{STEM}test_meta.csv"
    meta.write_text(meta.read_text().replace("test_0", "train_0"))
    with pytest.raises(MedexpError, match="25.0% of the test images are of 1 patients or slides"):
        split(root)


def test_max_train_limits_training_alone(root):
    small, full = split(root, max_train=10), split(root)
    assert len(small.train) == 10 and set(small.train.ids) < set(full.train.ids)
    assert np.array_equal(small.test.images[:], full.test.images[:])
    assert "10 of 60 training images" in small.partial


def test_full_set_is_not_partial(root, monkeypatch):
    for part, count in zip(("train", "val", "test"), COUNTS.values(), strict=True):
        monkeypatch.setitem(INFO.counts, part, count)
    assert split(root).partial == split(root, max_train=60).partial == ()
    assert split(root, split="patients").partial == ()
    assert split(root, max_train=12).partial == ("12 of 60 training images",)


def test_memory_holds_no_copy_of_the_set(tmp_path):
    for part, n in (("train", 4000), ("valid", 2), ("test", 2)):
        y = (np.arange(n) % 2).astype(np.uint8).reshape(n, 1, 1, 1)
        write_part(tmp_path, part, np.zeros((n, 96, 96, 3), np.uint8), y)
    tracemalloc.start()
    data = split(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert data.train.images.shape == (4000, 96, 96, 3)
    # At most five blocks of 512 patches on their way; nothing that grows with the set.
    assert peak < 5.5 * 512 * 96 * 96 * 3 < 4000 * 96 * 96 * 3


# Damaged or missing files


def test_missing_files_name_all_that_a_user_needs(tmp_path):
    with pytest.raises(MedexpError) as error:
        load(tmp_path / "pcam")
    text = str(error.value)
    for part in (f"{STEM}train_x.h5", str(tmp_path / "pcam"), "zenodo.org/record/2546921", "7.7 GB",
                 "CC0", "source=phantom", "MEDEXP_DATA=", "dataset.root="):  # fmt: skip
        assert part in text
    assert len(text.splitlines()) <= 3


def test_one_missing_file_is_named_alone(root):
    (root / f"{STEM}valid_y.h5").unlink()
    with pytest.raises(MedexpError, match=f"missing {STEM}valid_y.h5\n"):
        load(root)


def test_packed_file_names_the_command(root):
    path = root / f"{STEM}test_x.h5"
    path.rename(f"{path}.gz")
    with pytest.raises(MedexpError, match=f"still packed: run  gunzip -k {path}.gz"):
        load(root)


GOOD_X = np.zeros((4, 96, 96, 3), np.uint8)
GOOD_Y = np.array([0, 1, 0, 1], np.uint8).reshape(4, 1, 1, 1)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (GOOD_X[..., :2], GOOD_Y, r"valid_x.h5: x has shape \(4, 96, 96, 2\): need \(N, 96, 96, 3"),
        (GOOD_X[..., 0], GOOD_Y, r"valid_x.h5: x has shape \(4, 96, 96\): need \(N, 96, 96, 3"),
        (GOOD_X, GOOD_Y[:, 0, 0], r"valid_y.h5: y has shape \(4, 1\): need \(N, 1, 1, 1\)"),
        (GOOD_X.astype("f4"), GOOD_Y, "valid_x.h5: x is float32: need uint8"),
        (GOOD_X, GOOD_Y.astype("i8"), "valid_y.h5: y is int64: need uint8"),
        (GOOD_X[:3], GOOD_Y, "valid_x.h5 holds 3 patches, .*valid_y.h5 4 labels"),
        (GOOD_X, GOOD_Y + 1, "valid_y.h5: label 2 at row 1: need 0 or 1"),
        (GOOD_X[:0], GOOD_Y[:0], r"valid_y.h5: y is empty, shape \(0, 1, 1, 1\)"),
    ],
)
def test_wrong_contents_are_named(root, x, y, message):
    write_part(root, "valid", x, y)
    with pytest.raises(MedexpError, match=message):
        load(root)


@pytest.mark.parametrize("key", ["x", "y"])
def test_missing_key_is_named(root, key):
    path = root / f"{STEM}train_{key}.h5"
    with h5py.File(path, "w") as file:
        file["z"] = [1]
    with pytest.raises(MedexpError, match=rf"{path.name} has no dataset '{key}' \(it has: z\)"):
        load(root)


@pytest.mark.parametrize("keep", [0, 100, 1_000_000])
def test_truncated_file_is_named(root, keep):
    path = root / f"{STEM}train_x.h5"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(MedexpError, match=f"{path} cannot be read as HDF5, it may be cut short"):
        load(root)


def test_damaged_chunk_is_named(root):
    path = root / f"{STEM}train_x.h5"
    with h5py.File(path, "w") as file:
        pixels = np.random.default_rng(0).integers(0, 256, (60, 96, 96, 3), dtype=np.uint8)
        x = file.create_dataset("x", data=pixels, chunks=(1, 96, 96, 3), compression="gzip")
        chunk = x.id.get_chunk_info(30)
    with open(path, "r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(bytes(1000))
    with pytest.raises(MedexpError, match=f"{path} cannot be read as HDF5"):
        split(root)


def test_meta_of_wrong_length(root):
    meta = root / f"{STEM}train_meta.csv"
    meta.write_text("".join(meta.read_text().splitlines(keepends=True)[:-2]))
    with pytest.raises(MedexpError, match=f"{meta} has 58 rows for 60 patches"):
        load(root)


def test_meta_without_slides(root):
    meta = root / f"{STEM}train_meta.csv"
    meta.write_text(meta.read_text().replace("wsi", "slide"))
    with pytest.raises(MedexpError, match="has no column wsi in its header"):
        load(root)


def test_without_all_slides_none_are_known(root):
    (root / f"{STEM}valid_meta.csv").unlink()
    assert load(root).groups is None
    with pytest.raises(ConfigError, match="pcam does not say which patient an image is of"):
        split(root, split="patients")


# Damaged Kaggle folders


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("gone,1", r"line 42: .*gone.tif does not exist"),
        ("p3,1", "line 42: id p3 appears twice"),
        ("p3,2", "label '2' of p3: need 0 or 1"),
        ("p3,", "label '' of p3: need 0 or 1"),
        ("p3", "line 42: too few cells: need id, label"),
        ("../p3,1", "id '../p3' is not a plain file name"),
        ("a/p3,1", "id 'a/p3' is not a plain file name"),
        ("a\\p3,1", "is not a plain file name"),
        ("..,1", r"id '\.\.' is not a plain file name"),
        (",1", "id '' is not a plain file name"),
    ],
)
def test_wrong_line_is_named(kaggle, line, message):
    with open(kaggle / "train_labels.csv", "a") as file:
        file.write(line + "\n")
    with pytest.raises(MedexpError, match=message):
        load(kaggle)


def test_kaggles_copy_is_held_against_its_own_count(kaggle):
    assert load(kaggle).public == 220_025


def test_broken_header(kaggle):
    table = kaggle / "train_labels.csv"
    table.write_text(table.read_text().replace("id,label", "name,target"))
    message = r"has no column id, label in its header \(name, target\)"
    with pytest.raises(MedexpError, match=message):
        load(kaggle)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", r"no column id, label in its header \(empty file\)"), ("id,label\n", "names no images")],
)
def test_empty_table(kaggle, text, message):
    (kaggle / "train_labels.csv").write_text(text)
    with pytest.raises(MedexpError, match=message):
        load(kaggle)


def test_table_that_is_not_utf8(kaggle):
    (kaggle / "train_labels.csv").write_bytes(b"id,label\np\xe9,1\n")
    with pytest.raises(MedexpError, match=r"train_labels.csv is not UTF-8 text \(.* at byte 10\)"):
        load(kaggle)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("RGB", (95, 96)), "p5.tif is a RGB image of 95x96: need RGB of 96x96"),
        (Image.new("L", (96, 96)), "p5.tif is a L image of 96x96: need RGB of 96x96"),
    ],
)
def test_wrong_image_is_named(kaggle, image, message):
    image.save(kaggle / "train" / "p5.tif")
    with pytest.raises(MedexpError, match=message):
        split(kaggle, split="stratified")


@pytest.mark.parametrize("keep", [0, 4, 200, 20_000])
def test_truncated_image_is_named(kaggle, keep):
    path = kaggle / "train" / "p5.tif"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(MedexpError, match=f"{path} cannot be decoded"):
        split(kaggle, split="stratified")


def test_kaggle_without_its_folder(kaggle):
    (kaggle / "train").rename(kaggle / "test")
    with pytest.raises(MedexpError, match=r"needs train_labels\.csv and the folder train/"):
        load(kaggle)


def test_kaggles_copy_has_no_split_of_its_own(kaggle):
    with pytest.raises(ConfigError, match="pcam comes without a split"):
        split(kaggle)


def test_options_that_do_not_exist(root):
    with pytest.raises(ConfigError, match=r"dataset\.layout=png: no such choice"):
        load(root, layout="png")


def test_info_names_the_public_set():
    assert sum(INFO.counts.values()) == 327_680
    assert len(INFO.files) == 6 and INFO.classes[1] == "tumor"
