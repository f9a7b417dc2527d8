"""What both readers of photographs take, through the config and the docs."""

import re
import shlex
import shutil
from itertools import product

import cv2
import nibabel
import numpy as np
import pytest
from scipy import ndimage

from medexp.config import compose
from medexp.config.targets import check_node
from medexp.data.base import Dataset, Split
from medexp.data.check import check
from medexp.data.load import load_data
from medexp.data.names import Source, patients_by, setting, sources
from medexp.data.read.csv_table import load as load_table
from medexp.data.read.image_folder import load as load_folder
from medexp.data.split import refuse_missing_classes
from medexp.errors import ConfigError, MedexpError
from tests.conftest import ROOT
from tests.data.read.kit import pixels, save, table


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
        ({"scale": "ful"}, r"dataset.scale=ful: no such choice. Did you mean 'full'"),
        ({"scale": [1, 1]}, r"dataset.scale=\[1, 1\]: need full, percentile, or \[low, high\]"),
        ({"scale": [0, 1, 2]}, r"dataset.scale=\[0, 1, 2\]: need full, percentile"),
        ({"scale": [0, float("nan")]}, r"need full, percentile, or \[low, high\] with low < high"),
        ({"background": "grey"}, r"dataset.background=grey: no such choice"),
        ({"segment": "otsu"}, r"dataset.segment=otsu: no such choice"),
        ({"segment": "slic_knn"}, r"slic_knn: which colours has the organ\? .*dataset.references="),
    ],
)
@pytest.mark.parametrize("load", [load_folder, load_table])
def test_impossible_arguments(tmp_path, load, arguments, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, **arguments)


def test_a_scale_and_colours_of_references_exclude_each_other(tmp_path):
    table(tmp_path, "r,g,b\n200,60,60\n", "colours.csv")
    options = {"segment": "slic_knn", "references": str(tmp_path / "colours.csv")}
    with pytest.raises(ConfigError, match=r"dataset.scale=full: .* takes no scale. Leave one"):
        load_folder(tmp_path, scale="full", **options)


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


@pytest.mark.parametrize("name", ["image_folder", "csv_table"])
@pytest.mark.parametrize(
    "scale, note",
    [
        ("full", "pixels: the full range of each file's type becomes 0..1"),
        ("percentile", "pixels: of each image on its own, the percentiles 1% to 99% become 0..1"),
        ("[0,4095]", "pixels: the files' values 0 to 4095 become 0..1"),
    ],
)
def test_twelve_bits_in_sixteen_through_the_config(cache, tmp_path, name, scale, note):
    """Case: colours of 0..4095 came as 0..15 and looked all but black."""
    lines, stored = ["path,label"], {}
    for label, number in product("ab", range(10)):
        stored[f"{label}/{number}.png"] = image = pixels(number, 8, 8).astype(np.uint16) * 16
        (tmp_path / "x" / label).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "x" / label / f"{number}.png"), image[..., ::-1])
        lines.append(f"{label}/{number}.png,{label}")
    table(tmp_path / "x", "\n".join(lines))
    overrides = [f"dataset={name}", f"dataset.root={tmp_path / 'x'}", "dataset.size=8"]
    with pytest.raises(MedexpError, match=r"png: a 16-bit RGB PNG: which values are black"):
        load_data(compose.compose(overrides))
    data = load_data(compose.compose([*overrides, f"dataset.scale={scale}"]))
    assert note in data.notes and data.train.images.dtype == np.float32
    for split in data.splits().values():
        for key, found in zip(split.ids, split.images, strict=True):
            image = stored[str(key)].astype(np.float64)
            ends = {"full": (0, 65535), "[0,4095]": (0, 4095)}
            low, high = ends[scale] if scale in ends else np.percentile(image, (1, 99))
            assert np.allclose(found, np.clip((image - low) / (high - low), 0, 1), atol=1e-6)


def test_transparent_files_are_counted_among_the_facts(cache, tmp_path):
    for name, number in product("ab", range(10)):
        image = np.full((8, 8, 4), 255, np.uint8)
        image[..., :3] = pixels(number, 8, 8)
        image[:4, :, 3] = 0 if number < 3 else 255
        save(tmp_path / "x" / name / f"{number}.png", image)
    overrides = ["dataset=image_folder", f"dataset.root={tmp_path / 'x'}", "dataset.size=8"]
    report = check(load_data(compose.compose(overrides)))
    assert report["files"]["transparent"]["commonest"] == [["laid over black", 6]]
    data = load_data(compose.compose([*overrides, "dataset.background=white"]))
    for split in data.splits().values():
        for key, image in zip(split.ids, split.images, strict=True):
            assert (image[:4] == 255).all() == (str(key)[2] in "012")


def test_what_a_file_holds_is_part_of_the_cache(tmp_path):
    save(tmp_path / "a" / "x.png")
    save(tmp_path / "b" / "x.png")
    base = load_folder(tmp_path).settings
    for other in ({"scale": "full"}, {"scale": [0, 9]}, {"background": "white"}):
        assert load_folder(tmp_path, **other).settings != base


CALL = re.compile(r"medexp (?:train|data check)((?: -m| [\w.]+=[^\s`;]+)+)")


@pytest.mark.parametrize(
    "file",
    [
        "conf/dataset/arrays.yaml",
        "conf/dataset/csv_table.yaml",
        "conf/dataset/image_folder.yaml",
        "conf/dataset/medmnist.yaml",
        "docs/your_own_data.md",
    ],
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


# ---------------------------------------------------------------- told before anything is trained


TINY = ("trainer.device=cpu", "trainer.epochs=1", "trainer.resamples=0", "dataset.size=32",
        "model=ldct_m4", "augment=none")  # fmt: skip


def class_folders(root, parts=("train", "val", "test"), each=6):
    """`each` noisy images of the classes a and b in each part."""
    for seed, (part, name, i) in enumerate(product(parts, "ab", range(each))):
        save(root / part / name / f"{i}.png", pixels(seed, 32, 32))
    return root


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_class_that_a_split_lacks_is_told_before_the_first_epoch(medexp, tmp_path, part):
    root = class_folders(tmp_path / "mine")
    shutil.rmtree(root / part / "b")
    arguments = ("train", "dataset=image_folder", f"dataset.root={root}", *TINY)
    assert medexp(*arguments, "hydra.run.dir=o") == 1
    text = " ".join(medexp.err.split())
    assert f"the {part} split has no image of class b (it has 6 of a), so that scores" in text
    assert "dataset.split=stratified" in text
    assert not (tmp_path / "o" / "history.csv").exists()
    assert medexp(*arguments, "dataset.split=stratified", "hydra.run.dir=p") == 0, medexp.err


def test_few_phantoms_may_lack_a_class_where_the_monitor_does_not_need_it():
    labels = np.array([0, 1, 2])
    images = np.zeros((3, 4, 4, 1), np.uint8)
    whole = Split(images, labels, labels.astype(str))
    fewer = Split(images[:2], labels[:2], labels[:2].astype(str))
    data = Dataset("mine", ("a", "b", "c"), whole, fewer, fewer)
    refuse_missing_classes(data, synthetic=True, monitor="val_accuracy")
    with pytest.raises(MedexpError, match="the val split has no image of class c.*source.size="):
        refuse_missing_classes(data, synthetic=True, monitor="val_auc")
    with pytest.raises(MedexpError, match="dataset.classes="):
        refuse_missing_classes(data, synthetic=False, monitor="val_accuracy")


def test_the_expressions_of_the_docs_and_of_the_suggestion_pass_the_command_line(tmp_path):
    """As the shell hands them to Hydra, whose grammar knows brackets, quotes and dollars."""
    text = (ROOT / "docs/your_own_data.md").read_text(encoding="utf-8")
    calls = [line for line in text.splitlines() if line.startswith("medexp train") and "'" in line]
    assert len(calls) == 2
    suggested = [setting(Source("", "", [], rule)) for rule in ("folder", r"([^/_.() -]+)[^/]*$")]
    many = sources([f"img_{i // 3:04d}-{i % 3}.png" for i in range(30)])
    for call in [*calls, *suggested, setting(many[0])]:
        words = [word for word in shlex.split(call) if word.startswith("dataset")]
        rule = compose.compose(["dataset=csv_table", *words]).dataset["patient"]
        assert rule == words[-1].partition("=")[2].strip('"')
    paths = ["images/p01_left.png", "images/p01_right.png", "images/p2_left.png"]
    assert patients_by(rule_of(calls[1]), paths, ["images"] * 3) == ["p01", "p01", "p2"]
    assert patients_by(rule_of(calls[0]), ["a/P012_l.png", "b/P7.png"], ["", ""]) == ["P012", "P7"]
    found = patients_by(many[0].rule, [f"a/img_{i // 3:04d}-{i % 3}.png" for i in range(30)], [])
    assert found == [f"img_{i // 3:04d}" for i in range(30)]


def rule_of(call):
    return shlex.split(call)[-1].partition("=")[2].strip('"')
