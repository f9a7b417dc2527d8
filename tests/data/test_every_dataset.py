"""Every data set, by glob: phantoms and the same files from disk train through the command line."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from medexp.config.compose import compose
from medexp.config.groups import options
from medexp.data.fresh import Item
from medexp.data.load import load_data, load_pool
from medexp.data.phantom.folders import write_folder
from medexp.jobs.apply import load
from medexp.report.table.load import read_predictions
from tests.conftest import read

# What keeps an epoch short; the network is one of the data set's paper where that is quick enough.
SMALL = {
    "all": ("native1", 60, "dataset.size=64"),
    "arrays": ("native3", 64),
    "cervix": ("cervixnet1", 60, "dataset.size=80"),
    "csv_table": ("native3", 64, "dataset.size=64"),
    "image_folder": ("native2", 64, "dataset.size=64"),
    "ldct": ("ldct_m4", 64, "dataset.size=40"),
    "medmnist": ("ldct_m4", 64),
    "pcam": ("native3", 64),
    "pcam_kaggle": ("native4", 64),
    "tbt": ("viptt", 24, "dataset.size=[3,32,32]", "model.chunk=3"),
    "ucf50": ("viptt", 40, "dataset.size=32", "dataset.frames=4", "model.chunk=4"),
}
PAPERS = {
    "all": ("allnet", "allnet_14", "alexnet", "vgg16", "resnet50", "inception_v3"),
    "cervix": ("cervixnet1", "cervixnet2", "inception_v2", "resnet101"),
    "ldct": ("ldct_m1", "ldct_m2", "ldct_m3", "ldct_m4"),
    "pcam": tuple(f"native{n}{kind}" for n in range(1, 5) for kind in ("", "_counted")),
    "tbt": ("viptt", "viptt_gru"),
    "ucf50": ("viptt",),
}
SIZES = {"all": 150, "alexnet": 224, "vgg16": 224, "resnet50": 224, "inception_v3": 299}


def test_every_data_set_is_tried():
    assert set(SMALL) == set(options("dataset"))


def train(medexp, *overrides):
    before = set(Path("outputs").glob("*/*"))
    code = medexp("train", "trainer.epochs=1", "trainer.resamples=0", *overrides)
    assert code == 0, medexp.err
    (run,) = set(Path("outputs").glob("*/*")) - before
    return run


@pytest.mark.parametrize("name", sorted(SMALL))
def test_phantoms_train_and_read_the_same_from_disk(medexp, workplace, name, caplog):
    model, size, *small = SMALL[name]
    chosen = [f"dataset={name}", f"model={model}", "trainer.batch_size=8", *small]
    chosen += ["trainer.monitor=val_loss"]  # an AUC needs every class in a small validation split
    run = train(medexp, *chosen, "source=phantom", f"source.size={size}")
    metrics = read(run / "metrics.json")
    assert "PHANTOM" in metrics["marks"] and "PHANTOM" in (run / "table.md").read_text()
    assert "Decoding" in medexp.err

    (root,) = (workplace / "cache" / "phantom").glob("[!.]*/")
    with caplog.at_level("INFO"):
        data = load_data(compose([*chosen, f"dataset.root={root}"]))
    assert "Decoding" not in caplog.text  # the very same bytes are in the cache already
    recorded = read(run / "provenance.json")["data"]
    assert pixels_of(data) == {part: one["blake2b"] for part, one in recorded.items()}

    # The split that was written can be replayed.
    listed = f"dataset.split_file={run}/split.csv"
    replayed = load_data(compose([*chosen, f"dataset.root={root}", listed]))
    assert pixels_of(replayed) == pixels_of(data)
    predicts_its_test_images_again(run, load_pool(compose([*chosen, f"dataset.root={root}"])))


def predicts_its_test_images_again(run, pool):
    """Files shown to the run without labels give the digits of predictions.csv."""
    scored = read_predictions(run / "predictions.csv")["test"]
    of_file = Counter(pool.files)
    number, seen = [], Counter()
    for file in pool.files:
        number.append(seen[file] if of_file[file] > 1 else None)
        seen[file] += 1
    row_of = {key: row for row, key in enumerate(pool.ids.tolist())}
    model = load(run)
    if set(of_file.values()) != {1}:  # the reader counts the images of a file as `load` does
        files = {str(file): file for file in pool.files}
        counted = Counter(item.shown for item in model.items(list(files.values()))())
        assert counted == Counter(map(str, pool.files))
    rows = [row_of[key] for key in scored.ids]
    items = [Item(str(pool.files[row]), Path(pool.files[row]), number[row]) for row in rows]
    found = list(model.stream_items(items))
    assert [one.error for one in found] == [""] * len(rows)
    np.testing.assert_array_equal([one.probabilities for one in found], scored.probabilities)
    assert {one.known for one in found} <= {"test", "val", "train"} and found[0].known


def pixels_of(data):
    return {part: split.fingerprint() for part, split in data.splits().items()}


def test_a_run_from_disk_replays_a_split(medexp, workplace):
    (workplace / "own").mkdir()
    write_folder(workplace / "own", size=64, seed=0)
    chosen = ("dataset=image_folder", f"dataset.root={workplace / 'own'}", "dataset.size=32")
    chosen += ("trainer.monitor=val_loss",)
    run = train(medexp, *chosen)
    assert "PHANTOM" not in read(run / "metrics.json")["marks"]
    replayed = train(medexp, *chosen, f"dataset.split_file={run}/split.csv")
    assert "Decoding" not in medexp.err
    assert ids_of(replayed) == ids_of(run)
    assert read(replayed / "metrics.json")["test"] == read(run / "metrics.json")["test"]


def ids_of(run):
    with open(run / "split.csv", newline="") as file:
        return [(row["id"], row["split"]) for row in csv.DictReader(file)]


def test_folds_through_the_command_line(medexp):
    folds = ["source=phantom", "source.size=64", "dataset.split=patients", "dataset.folds=3"]
    run = train(medexp, *folds, "dataset.fold=2", "trainer.monitor=val_loss")
    seen = [key for key, split in ids_of(run) if split == "test"]
    for fold in (0, 1):
        seen += load_data(compose([*folds, f"dataset.fold={fold}"])).test.ids.tolist()
    assert len(seen) == len(set(seen)) == 64 + 2 * 64
    assert "fold 2 of 3 is the test split" in (run / "table.md").read_text()


def test_an_unreadable_image_stops_a_run_or_is_listed(medexp, workplace):
    (workplace / "own").mkdir()
    write_folder(workplace / "own", size=64, seed=0)
    broken = sorted((workplace / "own").rglob("*.*"))[5]
    broken.write_bytes(broken.read_bytes()[:300])
    chosen = ("dataset=image_folder", f"dataset.root={workplace / 'own'}", "dataset.size=32")
    assert medexp("train", *chosen) == 1
    assert f"{broken.name} cannot be decoded" in medexp.err and "on_error=skip" in medexp.err
    run = train(medexp, *chosen, "dataset.on_error=skip", "trainer.monitor=val_loss")
    (name,) = read(run / "metrics.json")["skipped"]
    assert name.endswith(broken.name)
    assert "1 of 64 images cannot be read and are left out" in (run / "table.md").read_text()


def test_a_leak_is_refused_then_marked_in_the_table(medexp):
    leaky = ("source=phantom", "source.size=128", "dataset.split=stratified")
    assert medexp("train", *leaky, "trainer.epochs=1") == 1
    assert "dataset.allow_leak=true, which marks every table LEAKY" in medexp.err
    run = train(medexp, *leaky, "dataset.allow_leak=true")
    table = (run / "table.md").read_text()
    assert "LEAKY" in table.splitlines()[0] and "of the test images are of" in table


@pytest.mark.slow
@pytest.mark.parametrize("name, model", [(n, m) for n, models in PAPERS.items() for m in models])
def test_networks_of_a_paper_on_its_data(medexp, name, model):
    """At the paper's own size of image, but for the volumes."""
    small = SMALL[name][2:] if name in ("tbt", "ucf50") else ()
    if name == "all":
        small = (f"dataset.size={SIZES.get(model, 150)}", "dataset.max_train=8")
    if name == "cervix":
        small = (
            f"dataset.size={160 if model.startswith('cervix') else 224}",
            "dataset.max_train=8",
        )
    run = train(
        medexp, f"dataset={name}", f"model={model}", "source=phantom",
        f"source.size={SMALL[name][1]}", "trainer.batch_size=4", "trainer.monitor=val_loss", *small,
    )  # fmt: skip
    assert read(run / "status.json")["state"] == "done"


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("folder", "overrides"),
    [
        ("pcam", ("dataset=pcam",)),
        ("pcam_kaggle", ("dataset=pcam_kaggle",)),
        ("ldct", ("dataset=ldct", "model=ldct_m2", "dataset.max_train=64", "dataset.size=64")),
        ("cells", ("dataset=image_folder", "dataset.size=96")),
        (
            "pcam_kaggle",
            ("dataset=csv_table", "dataset.table=train_labels.csv", "dataset.path_column=id",
             "dataset.folder=train", "dataset.extension=.tif", "dataset.size=96"),
        ),
    ],
)  # fmt: skip
def test_real_files(medexp, real_data, folder, overrides):
    run = train(medexp, f"dataset.root={real_data / folder}", *overrides)
    assert "PHANTOM" not in read(run / "metrics.json")["marks"]
