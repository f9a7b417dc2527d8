"""`medexp predict` and `medexp.load`: new images through finished runs."""

import csv
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import medexp as package
from medexp.data.fresh import Item
from tests.conftest import MINE, OWN, ROOT, read
from tests.jobs.kit import picture, train_once, write_folders

OF_FOLDERS = ("dataset=image_folder", "dataset.root=own", "dataset.size=16")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two runs of one data set, of other seeds."""
    folder = tmp_path_factory.mktemp("predicted")
    write_folders(folder / "own", {"benign": 30, "malignant": 30})
    train_once(folder, *OF_FOLDERS, "hydra.run.dir=run")
    return train_once(folder, *OF_FOLDERS, "seed=1", "hydra.run.dir=other")


@pytest.fixture
def place(workplace, trained):
    """A copy of it all to work in, with new images of which one cannot be read."""
    shutil.copytree(trained, workplace, dirs_exist_ok=True)
    write_folders(workplace / "new", {"x": 5, "y": 4}, seed=7)
    (workplace / "new/x/002.png").write_bytes(b"no picture")
    return workplace


def table_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def p_of(rows):
    return np.array([[float(row["p_benign"]), float(row["p_malignant"])] for row in rows])


def scored(run, part="test"):
    return [row for row in table_of(Path(run) / "predictions.csv") if row["split"] == part]


def write_list(path, names, column="path"):
    Path(path).write_text("\n".join([column, *names]) + "\n")


# ---------------------------------------------------------------- what it says


def test_the_digits_are_those_of_predictions_csv(place, medexp):
    """The run's own test images, by a list of their ids, from files and without labels."""
    rows = scored("run")
    write_list("list.csv", [row["id"] for row in rows], "id")  # found below the run's own root
    assert medexp("predict", *OWN, "run=run", "images=list.csv", "out=a.csv") == 0, medexp.err
    found = table_of("a.csv")
    assert [row["path"] for row in found] == [row["id"] for row in rows]
    for number, kind in enumerate(("benign", "malignant")):
        assert [row[f"p_{kind}"] for row in found] == [row[f"p_{number}"] for row in rows]
    assert {row["known"] for row in found} == {"test"}


def test_every_image_has_a_row_and_its_class(place, medexp):
    assert medexp("predict", *OWN, "run=run", "images=new", "out=a.csv") == 0, medexp.err
    rows = table_of("a.csv")
    files = sorted(Path("new").rglob("*.png"))
    assert [row["path"] for row in rows] == list(map(str, files))
    (bad,) = (row for row in rows if row["error"])
    assert bad["path"] == "new/x/002.png" and "cannot be decoded" in bad["error"]
    assert bad["class"] == bad["p_benign"] == ""
    good = [row for row in rows if not row["error"]]
    p = p_of(good)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-12)
    assert [row["class"] for row in good] == [
        ("benign", "malignant")[int(b)] for b in p[:, 1] > 0.5
    ]
    facts = read("a.json")
    assert (facts["predicted"], facts["unreadable"], facts["known"]) == (8, 1, {})
    assert sum(facts["counts"].values()) == 8 and facts["runs"] == ["run"]
    assert "8 of 9 images predicted" in medexp.out and "1 cannot be read" in medexp.out
    assert medexp.out.splitlines()[-1] == "a.csv"
    assert max(map(len, medexp.out.splitlines())) <= 80


def test_by_hand(place):
    """The same by plain torch: the stored weights on the resized picture."""
    sys.path.insert(0, str(ROOT / "tests/mine"))
    import toy

    network = toy.Net(num_classes=2, in_channels=3)
    weights = torch.load("run/checkpoints/best.pt", weights_only=True)["model"]
    network.load_state_dict(weights)
    image = cv2.imread("new/y/001.png")[..., ::-1]
    small = cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    with torch.no_grad():
        x = torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1)))[None]
        expected = network.eval()(x).softmax(1)[0].double().numpy()
    (found,) = package.load("run", config_dir=MINE).predict("new/y/001.png")
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)


def test_images_that_the_run_knows_are_said_to_be_so(place, medexp):
    """By their pixels under another name, and by their names where the pixels have changed."""
    part_of = {row["id"]: row["split"] for row in table_of("run/split.csv")}
    one = {part: next(key for key in part_of if part_of[key] == part) for part in ("train", "val")}
    shutil.copy(f"own/{one['train']}", "new/x/000.png")
    shutil.copy(f"own/{one['val']}", "new/x/001.png")
    assert medexp("predict", *OWN, "run=run", "images=new", "out=a.csv") == 0, medexp.err
    assert [row["known"] for row in table_of("a.csv")[:2]] == ["train", "val"]
    assert {row["known"] for row in table_of("a.csv")[2:]} == {""}
    assert read("a.json")["known"] == {"train": 1, "val": 1}
    assert "1 is among those that run trained on" in medexp.out

    cv2.imwrite(f"own/{one['train']}", picture(0, np.random.default_rng(99)))
    assert medexp("predict", *OWN, "run=run", "images=own", "out=b.csv") == 0, medexp.err
    found = {row["path"].removeprefix("own/"): row["known"] for row in table_of("b.csv")}
    assert found == part_of


def test_of_several_runs_the_mean_and_whatever_one_of_them_knows(place, medexp):
    for name in ("run", "other"):
        assert medexp("predict", *OWN, f"run={name}", "images=new", f"out={name}.csv") == 0, (
            medexp.err
        )
    assert medexp("predict", *OWN, "run=run,other", "images=new") == 0, medexp.err
    (written,) = Path("outputs/predict").glob("*/predictions.csv")
    single = [[r for r in table_of(f"{n}.csv") if not r["error"]] for n in ("run", "other")]
    both = [row for row in table_of(written) if not row["error"]]
    np.testing.assert_array_equal(p_of(both), np.mean([p_of(rows) for rows in single], axis=0))
    assert medexp("eval", *OWN, "run=run,other") == 0, medexp.err
    rows = scored(next(Path("outputs/ensembles").iterdir()))
    write_list("list.csv", [row["id"] for row in rows])
    assert medexp("predict", *OWN, "run=run,other", "images=list.csv", "out=a.csv") == 0, medexp.err
    assert [r["p_malignant"] for r in table_of("a.csv")] == [row["p_1"] for row in rows]


def test_tta_is_that_of_eval(place, medexp):
    given = ("tta=flips", "tta.vertical=false")
    assert medexp("eval", *OWN, "run=run", *given) == 0, medexp.err
    rows = scored(next(Path("run/eval").iterdir()))
    write_list("list.csv", [row["id"] for row in rows])
    assert medexp("predict", *OWN, "run=run", "images=list.csv", "out=a.csv", *given) == 0, (
        medexp.err
    )
    assert [r["p_malignant"] for r in table_of("a.csv")] == [row["p_1"] for row in rows]
    assert [r["p_malignant"] for r in table_of("a.csv")] != [row["p_1"] for row in scored("run")]
    assert read("a.json")["views"] == 2


@pytest.mark.real_data
def test_real_patches_are_known_in_another_format(medexp, real_data, monkeypatch):
    """Kaggle's TIFF files here are patches of PCam's HDF5 files, under names of their own."""
    monkeypatch.setenv("MEDEXP_DATA", str(real_data))
    words = ("dataset=pcam", "model=native3", "trainer.epochs=1", "trainer.resamples=0")
    assert medexp("train", *words, "hydra.run.dir=run") == 0, medexp.err
    folder = real_data / "pcam_kaggle" / "train"
    assert medexp("predict", "run=run", f"images={folder}", "out=tiff.csv") == 0, medexp.err
    found = table_of("tiff.csv")
    assert len(found) == 24 and all(row["known"] for row in found)
    file = real_data / "pcam" / "camelyonpatch_level_2_split_test_x.h5"
    assert medexp("predict", "run=run", f"images={file}", "out=h5.csv") == 0, medexp.err
    rows = table_of("h5.csv")
    assert [row["row"] for row in rows] == list(map(str, range(24)))
    assert [row["p_tumor"] for row in rows] == [row["p_1"] for row in scored("run")]


# ---------------------------------------------------------------- which images


def test_a_file_a_pattern_a_table_and_a_list_of_paths(place, medexp):
    model = package.load("run", config_dir=MINE)
    folder = {one.path: one.probabilities for one in model.predict("new")}
    write_list("new/list.csv", ["y/000.png", "nowhere.png", "x/001.png"], "File Name")
    for images, names in (
        ("new/y/003.png", ["new/y/003.png"]),
        ("new/*/001.png", ["new/x/001.png", "new/y/001.png"]),
        ("new/**/*3.png", ["new/x/003.png", "new/y/003.png"]),
        (["new/y/000.png", Path("new/x/000.png")], ["new/y/000.png", "new/x/000.png"]),
    ):
        found = model.predict(images)
        assert [one.path for one in found] == names
        for one in found:
            np.testing.assert_allclose(one.probabilities, folder[one.path], atol=1e-6)
    of_table = model.predict("new/list.csv")
    assert [one.path for one in of_table] == ["y/000.png", "nowhere.png", "x/001.png"]
    assert "no such file" in of_table[1].error
    assert medexp("predict", *OWN, "run=run", "images=new/*/001.png") == 0, medexp.err
    assert "new/y/001.png" in medexp.out, "few are shown one by one, by what tells them apart"
    assert medexp("predict", *OWN, "run=run", "images=new/y/*1.png") == 0, medexp.err
    assert " 001.png " in medexp.out


def test_parquet(place, medexp):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert medexp("predict", *OWN, "run=run", "images=new", "out=a.parquet") == 0, medexp.err
    assert medexp("predict", *OWN, "run=run", "images=new", "out=b.csv") == 0, medexp.err
    rows = parquet.read_table("a.parquet").to_pylist()
    text = table_of("b.csv")
    assert [row["path"] for row in rows] == [row["path"] for row in text]
    assert [repr(r["p_benign"]) for r in rows if not r["error"]] == [
        r["p_benign"] for r in text if not r["error"]
    ]
    assert rows[2]["class"] is None and rows[2]["row"] is None


def test_wrong_usage_is_told_with_its_remedy(place, medexp):
    Path("empty").mkdir()
    Path("empty/notes.txt").write_text("")
    Path("there.csv").write_text("")
    Path("odd.csv").write_text("a,b\n1,2\n")
    for words, code, message in (
        (["images=new"], 2, "run: missing"),
        (["run=run"], 2, "images: missing"),
        (["run=nowhere", "images=new"], 2, "run=nowhere: no config.yaml there"),
        (["run=run", "images=nowhere"], 2, "images=nowhere: no such file or folder"),
        (["run=run", "images=no*.png"], 2, "images=no*.png: no file of"),
        (["run=run", "images=empty/notes.txt"], 2, "the run reads files of .bmp"),
        (["run=run", "images=empty"], 1, "(files: 1 of .txt)"),
        (["run=run", "images=odd.csv"], 1, "odd.csv: which column holds the paths? It has a, b"),
        (["run=run", "images=new", "out=there.csv"], 2, "there.csv is there already"),
        (["run=run", "images=new", "out=a.txt"], 2, "name a file that ends in .csv or .parquet"),
        (["run=run", "images=new", "dataset.size=32"], 2, "images are read and seen as in the run"),
        (["run=run", "images=new", "trainer.epochs=3"], 2, "not a key of predict"),
        (["run=run", "images=new", "imagse=3"], 2, "Did you mean 'images'?"),
        (["run=run", "images=new", "tta=flips", "tta.odd=1"], 2, "tta.odd: not of tta=flips"),
        (["run=run", "images=new", "trainer.eval_batch_size=0"], 2, "trainer.eval_batch_size=0"),
        (["run=run,run", "images=new"], 2, "name each run of an ensemble once"),
        (["run=run", "images=new/x/002.png"], 1, "none of 1 images can be read"),
    ):
        assert medexp("predict", *OWN, *words) == code, (words, medexp.err)
        assert message in medexp.err, (words, medexp.err)
    assert not list(Path().glob("run/predict/*/*")), "nothing half is left"


def test_a_reader_of_ones_own_without_load_new_says_what_it_lacks(toy, medexp):
    run = toy("trainer.epochs=1")
    Path("new").mkdir()
    assert medexp("predict", *OWN, f"run={run}", "images=new") == 2
    assert "A function load_new beside it says how a file without one is read" in medexp.err


# ---------------------------------------------------------------- in Python, and its cost


def test_load_gives_network_preprocessing_and_classes(place):
    model = package.load("run", config_dir=MINE)
    assert model.classes == ("benign", "malignant") and model.image_shape == (16, 16, 3)
    image = model.read("new/y/000.png")
    assert image.shape == (16, 16, 3) and image.dtype == np.uint8
    (one,) = model.predict("new/y/000.png")
    np.testing.assert_array_equal(model.probabilities(image[None])[0], one.probabilities)
    with torch.no_grad():
        logits = model.network(torch.from_numpy(image / np.float32(255)).permute(2, 0, 1)[None])
    np.testing.assert_allclose(logits.softmax(1).double()[0], one.probabilities, atol=1e-6)
    pair = package.load(["run", Path("other")], config_dir=MINE, tta="flips", batch_size=2)
    assert len(pair.networks) == 2 and len(pair.views) == 4
    assert len(pair.predict("new")) == 9


def test_importing_it_is_light():
    script = (
        "import sys, medexp; assert callable(medexp.load)\n"
        "heavy = {'torch', 'numpy', 'hydra', 'rich', 'cv2'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_memory_does_not_grow_with_the_number_of_images(place):
    model = package.load("run", config_dir=MINE, batch_size=8)

    def peak(count):
        items = (Item("one", Path("new/y/000.png")) for _ in range(count))
        tracemalloc.start()
        assert sum(one.label is not None for one in model.stream_items(items)) == count
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(50)  # what is imported on first use
    few, many = peak(200), peak(2000)
    held = 2000 * 16 * 16 * 3  # the pixels alone, were they kept
    assert many < few + held / 10
