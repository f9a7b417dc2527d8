"""Later commands are held against what a run was: its split, images, classes, scale and recipe.

The images are noise with a bright square, drawn here, so that an image is known by its content
whatever its file is called: that is the oracle of what was trained on.
"""

import csv
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from medexp.config.compose import compose, to_yaml
from medexp.config.settings import DatasetNode, EvalSettings, Settings
from medexp.config.tree import build, plain
from medexp.errors import MedexpError, RefusedError
from medexp.jobs.binding import changes_on_resume
from medexp.jobs.eval import evaluate
from medexp.jobs.train import train
from medexp.runs.files import write_status
from medexp.runs.images import read_images
from tests.conftest import MINE, OWN, read

CLASSES = ("benign", "malignant")


def image(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 120, (16, 16, 3)).astype(np.uint8)
    pixels[..., number % 2] += 100
    return pixels


def write_table(
    root: Path,
    numbers: list[int],
    name: str = "{:03d}",
    *,
    patients: int | None = None,
    labels: tuple[str, str] = CLASSES,
) -> Path:
    """A folder of images and its labels.csv; the number says content, label and patient."""
    (root / "img").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in numbers:
        path = f"img/{name.format(number)}.png"
        Image.fromarray(image(number)).save(root / path)
        patient = {} if patients is None else {"patient": f"p{number // 2 % patients:03d}"}
        rows.append({"path": path, "label": labels[number % 2], **patient})
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return root


SMALL = ("trainer.resamples=0", "trainer.device=cpu", "trainer.batch_size=16", "seed=1")


@pytest.fixture
def small(medexp):
    """A run of the out-of-tree network on a table: small(root, out, ...) -> the run directory."""

    def run(root, out, *overrides, code=0):
        chosen = ("dataset=csv_table", f"dataset.root={root}", "dataset.size=16", "model=toynet")
        more = ("augment=none", "trainer.epochs=1", f"hydra.run.dir={out}")
        got = medexp("train", "--config-dir", MINE, *chosen, *SMALL, *more, *overrides)
        assert got == code, medexp.err
        return Path(out)

    return run


def newest(run: Path) -> Path:
    return max(run.glob("eval/*"))


def ids_of(run: Path, part: str = "test") -> set[str]:
    images = read_images(run)
    assert images is not None
    return set(images.parts[part].ids)


def scored(run: Path) -> set[str]:
    with (run / "predictions.csv").open() as file:
        return {row["id"] for row in csv.DictReader(file) if row["split"] == "test"}


# ---------------------------------------------------------------- the split


def test_a_resume_with_another_split_is_refused_and_leaves_the_run_as_it_was(small, medexp):
    run = small(write_table(Path("d"), [*range(60)]), "o")
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    for change, had in (
        ("dataset.split_seed=5", "0"),
        ("dataset.test_share=0.3", "0.2"),
        ("trainer.batch_size=8", "16"),
        ("seed=7", "1"),
        ("trainer.monitor=val_loss", "val_auc"),
        ("model=native3", "toynet"),
        ("augment=flips_turns", ""),
    ):
        assert medexp("train", *OWN, f"resume={run}", "trainer.epochs=2", change) == 2, change
        key = change.split("=")[0]
        assert key in medexp.err and f"the run has {had}" in medexp.err, medexp.err
        assert f"medexp train init_from={run}" in medexp.err
        assert len(medexp.err.strip().splitlines()) == 1
        after = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
        after["run.log"] = before["run.log"]
        assert after == before, change
    assert medexp("train", *OWN, f"resume={run}", "trainer.epochs=2", "trainer.patience=9") == 0
    (stretch,) = read(run / "provenance.json")["resumed"]
    assert set(stretch["changes"]) == {"trainer.epochs", "trainer.patience"}
    assert read(run / "metrics.json")["epochs"] == 2


def test_images_that_were_added_stay_out_of_what_the_run_is_scored_on(small, medexp):
    root = write_table(Path("d"), [*range(60)], patients=20)
    run, other = small(root, "o"), small(root, "p")
    test = ids_of(run)
    write_table(root, [*range(100)], patients=34)
    assert medexp("eval", *OWN, f"run={run}") == 0, medexp.err
    assert scored(newest(run)) == test == scored(run)
    metrics = read(newest(run) / "metrics.json")
    assert set(metrics["marks"]) <= {"CONSTANT"}
    assert any("40 images that are new there" in note for note in metrics["notes"])
    assert medexp("train", *OWN, f"resume={other}", "trainer.epochs=2") == 0, medexp.err
    assert scored(other) == ids_of(other) == test
    # Asked for by name, another split is drawn, of the new images too.
    assert medexp("eval", *OWN, f"run={run}", "dataset.split_seed=3") == 0, medexp.err
    metrics = read(newest(run) / "metrics.json")
    share = len(scored(newest(run)) & ids_of(run, "train")) / len(scored(newest(run)))
    assert 0 < share < 1
    assert metrics["marks"]["LEAKY"].startswith(f"{share:.1%} of the test images are among those")
    assert "LEAKY" in medexp.out


def test_images_that_are_gone_are_named(small, medexp):
    root = write_table(Path("d"), [*range(60)])
    run = small(root, "o")
    gone = sorted(ids_of(run))[0]
    number = int(Path(gone).stem)
    write_table(root, [n for n in range(60) if n != number])
    assert medexp("eval", *OWN, f"run={run}") == 1
    assert (
        f"1 of the 12 test images of the run are not there any more, such as {gone}" in medexp.err
    )
    assert medexp("train", *OWN, f"resume={run}", "trainer.epochs=2") == 2
    assert gone in medexp.err
    lost = int(Path(sorted(ids_of(run, "train"))[0]).stem)
    write_table(root, [n for n in range(60) if n != lost])
    assert medexp("eval", *OWN, f"run={run}") == 0, medexp.err  # of training, which is not scored
    assert scored(newest(run)) == ids_of(run)


def test_changed_pixels_are_named(small, medexp):
    root = write_table(Path("d"), [*range(60)])
    run = small(root, "o")
    changed = sorted(ids_of(run))[0]
    Image.fromarray(255 - image(int(Path(changed).stem))).save(root / changed)
    assert medexp("eval", *OWN, f"run={run}") == 0, medexp.err
    mark = read(newest(run) / "metrics.json")["marks"]["CHANGED IMAGES"]
    assert mark == f"1 of 60 images have other pixels than {run} read: {changed}"
    assert medexp("train", *OWN, f"resume={run}", "trainer.epochs=2") == 2
    assert f"1 images have other pixels than when the run began: {changed}" in medexp.err
    assert read(run / "status.json")["state"] == "done"
    assert medexp("eval", *OWN, f"run={run}", "dataset.size=20") == 0, medexp.err
    notes = read(newest(run) / "metrics.json")["notes"]
    assert (
        f"dataset.size=20 here, 16 in training of {run}" in notes
    )  # every pixel is another: told, no mark


def test_a_test_image_that_became_one_of_training_is_leaky(small, medexp):
    root = write_table(Path("d"), [*range(60)])
    run = small(root, "o")
    test, trained = sorted(ids_of(run))[0], sorted(ids_of(run, "train"))[0]
    shutil.copy(root / trained, root / test)
    assert medexp("eval", *OWN, f"run={run}") == 0, medexp.err
    marks = read(newest(run) / "metrics.json")["marks"]
    assert (
        marks["LEAKY"].startswith(f"{1 / 12:.1%} of the test images") and "CHANGED IMAGES" in marks
    )


def test_a_part_of_the_images_stays_told_when_others_come(small, medexp):
    root = write_table(Path("d"), [*range(60)])
    run = small(root, "o", "dataset.max_train=20")
    assert "20 of 42 training images" in read(run / "metrics.json")["marks"]["PARTIAL"]
    write_table(root, [*range(90)])
    assert medexp("train", *OWN, f"resume={run}", "trainer.epochs=2") == 0, medexp.err
    assert (
        "20 training images (dataset.max_train)" in read(run / "metrics.json")["marks"]["PARTIAL"]
    )


def test_trained_images_are_known_by_their_pixels_under_another_name(small, medexp):
    run = small(write_table(Path("d"), [*range(60)]), "o")
    trained = [int(Path(key).stem) for key in ids_of(run, "train")]
    new = [*range(200, 240)]
    elsewhere = write_table(Path("e"), [*trained[:6], *new], "scan-{}")
    assert (
        medexp("eval", *OWN, f"run={run}", f"dataset.root={elsewhere}", "dataset.test_share=0.8")
        == 0
    )
    metrics = read(newest(run) / "metrics.json")
    numbers = [int(Path(key).stem.split("-")[1]) for key in scored(newest(run))]
    share = sum(number in trained for number in numbers) / len(numbers)
    assert share > 0
    assert metrics["marks"]["LEAKY"].startswith(f"{share:.1%} of the test images")
    # The same names elsewhere are other images if no pixel agrees.
    other = write_table(Path("f"), [n + 1000 for n in range(60)], "{:04d}")
    for path in (other / "img").iterdir():
        path.rename(path.with_name(f"{int(path.stem) - 1000:03d}.png"))
    text = (other / "labels.csv").read_text().replace("img/1", "img/")
    (other / "labels.csv").write_text(text)
    assert medexp("eval", *OWN, f"run={run}", f"dataset.root={other}") == 0, medexp.err
    assert set(read(newest(run) / "metrics.json")["marks"]) <= {"CONSTANT"}


# ---------------------------------------------------------------- classes, network, scale


def test_classes_are_mapped_by_name(small, medexp):
    root = write_table(Path("d"), [*range(60)])
    run = small(root, "o", "trainer.epochs=4", "optimizer.lr=0.1")
    turned = small(
        root, "t", "dataset.classes=[malignant,benign]", f"dataset.split_file={run}/split.csv"
    )
    auc = read(run / "metrics.json")["test"]["auc_binary"]
    for change in ([], ["dataset.classes=[malignant,benign]"]):
        assert medexp("eval", *OWN, f"run={run}", *change) == 0, medexp.err
        metrics = read(newest(run) / "metrics.json")
        assert metrics["classes"] == list(CLASSES)
        assert metrics["test"]["auc_binary"] == auc
    # The mean of two runs that have them in another order is of the same classes.
    assert medexp("eval", *OWN, f"run={run},{turned}") == 0, medexp.err
    (folder,) = Path("outputs/ensembles").iterdir()
    p = {one: probabilities(one) for one in (run, turned, folder)}
    expected = (p[run] + p[turned][:, ::-1]) / 2
    np.testing.assert_allclose(p[folder], expected)
    other = write_table(Path("e"), [*range(60)], labels=("cancer", "normal"))
    assert medexp("eval", *OWN, f"run={run}", f"dataset.root={other}") == 2
    assert "its classes are cancer, normal, and those of o benign, malignant" in medexp.err
    assert "Give them the run's names" in medexp.err


def probabilities(run: Path) -> np.ndarray:
    with (run / "predictions.csv").open() as file:
        rows = {r["id"]: [r["p_0"], r["p_1"]] for r in csv.DictReader(file) if r["split"] == "test"}
    return np.array([rows[key] for key in sorted(rows)], float)


def test_an_evaluation_has_the_network_that_was_trained(small, medexp):
    run = small(write_table(Path("d"), [*range(60)]), "o")
    for change in ("+model.normalise=true", "model.width=4"):
        assert medexp("eval", *OWN, f"run={run}", change) == 2
        assert (
            change.lstrip("+") in medexp.err.replace("True", "true")
            and "was trained with" in medexp.err
        )


@pytest.mark.parametrize("how", ["init_from={run}", "+model.weights={run}/checkpoints/best.pt"])
def test_the_scale_of_the_inputs_is_carried_over(small, medexp, how):
    root = write_table(Path("d"), [*range(60)])
    first = small(root, "a", "+model.normalise=true")
    frozen = ("optimizer.lr=1e-30", "+model.stages.features.frozen=true")
    second = small(root, "b", how.format(run=first), *frozen)
    assert read(second / "record.json")["normalised"] is True
    losses = [read(run / "metrics.json")["test"]["log_loss"] for run in (first, second)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)
    assert medexp("eval", *OWN, f"run={second}") == 0, medexp.err
    again = read(newest(second) / "metrics.json")["test"]
    assert again == read(second / "metrics.json")["test"]
    other = small(root, "c", how.format(run=first), *frozen, "+model.normalise=false")
    assert read(other / "metrics.json")["test"]["log_loss"] != pytest.approx(losses[0], abs=1e-3)


def test_a_run_from_trained_weights_says_what_they_know(small, medexp):
    root = write_table(Path("d"), [*range(60)])
    first = small(root, "a")
    second = small(root, "b", f"init_from={first}", "dataset.split_seed=9")
    share = len(ids_of(second) & ids_of(first, "train")) / len(ids_of(second))
    assert share > 0
    leaky = read(second / "metrics.json")["marks"]["LEAKY"]
    assert f"{share:.1%} of the test images are among those that {first} was trained on" in leaky
    # So does one that starts from that one, though the first is gone.
    shutil.rmtree(first)
    third = small(root, "c", f"init_from={second}", "dataset.split_seed=9")
    assert f"{share:.1%} of the test images" in read(third / "metrics.json")["marks"]["LEAKY"]
    assert medexp("eval", *OWN, f"run={third}") == 0, medexp.err
    assert "LEAKY" in read(newest(third) / "metrics.json")["marks"]


def test_lines_of_different_test_images_say_so(small, medexp):
    root = write_table(Path("d"), [*range(60)])
    runs = [small(root, "s/a"), small(root, "s/b", "optimizer.lr=0.1")]
    assert medexp("report", "s") == 0
    assert "DIFFERENT IMAGES" not in medexp.out
    runs.append(small(root, "s/c", "dataset.split_seed=2"))
    assert medexp("report", "s") == 0
    told = " ".join(medexp.out.split())
    assert "DIFFERENT IMAGES: these lines are not of the same test images of csv_table" in told


# ---------------------------------------------------------------- pairs of commands at random


@dataclass
class World:
    """Where the images are now, and which content each id of a root stands for."""

    settings: Settings
    patients: int | None
    content: dict[tuple[str, str], int]

    def move(self, root: Path, numbers: list[int], name: str) -> Settings:
        write_table(root, numbers, name, patients=self.patients)
        for number in numbers:
            self.content[str(root), f"img/{name.format(number)}.png"] = number
        dataset = DatasetNode({**self.settings.dataset.content, "root": str(root)})
        return replace(self.settings, dataset=dataset)

    def numbers(self, settings: Settings, ids: set[str]) -> set[int]:
        root = settings.dataset["root"]
        return {self.content[root, key] for key in ids}


def with_split(settings: Settings, **keys: object) -> Settings:
    return replace(settings, dataset=DatasetNode({**settings.dataset.content, **keys}))


def random_change(rng: np.random.Generator, world: World, settings: Settings, place: Path):
    """Settings of a later command: another split, fold, order of the classes, or other files."""
    kind = rng.choice(["nothing", "seed", "fold", "share", "classes", "added", "renamed", "moved"])
    numbers = [*range(60)]
    if kind == "seed":
        return kind, with_split(settings, split_seed=int(rng.integers(1, 9)))
    if kind == "fold":
        return kind, with_split(settings, folds=4, fold=int(rng.integers(4)))
    if kind == "share":
        return kind, with_split(settings, test_share=float(rng.choice([0.3, 0.4])))
    if kind == "classes":
        return kind, with_split(settings, classes=["malignant", "benign"])
    if kind == "added":
        root = Path(str(settings.dataset["root"]))
        world.move(root, [*numbers, *range(60, 80)], "{:03d}")
        return kind, settings
    if kind == "renamed":
        moved = world.move(place, [*numbers[:30], *range(300, 330)], "x{:04d}")
        return kind, moved
    if kind == "moved":
        return kind, world.move(place, numbers, "{:03d}")
    return kind, settings


def make(settings: Settings, folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(plain(settings)))
    train(settings, folder, resume=False)
    write_status(folder, "done")
    return folder


def trained_on(world: World, settings: Settings, run: Path, start: set[int]) -> set[int]:
    return world.numbers(settings, ids_of(run, "train")) | start


def one_pair(number: int, place: Path, base: Settings) -> str:
    """Train, change something, run a later command; the marks must say what was trained on."""
    rng = np.random.default_rng(number)
    place.mkdir(parents=True)
    world = World(base, 25 if rng.random() < 0.4 else None, {})
    settings = world.move(place / "d", [*range(60)], "{:03d}")
    if rng.random() < 0.3:
        settings = with_split(settings, folds=4, fold=0)
    run = make(settings, place / "run")
    knows = trained_on(world, settings, run, set())
    command = str(rng.choice(["eval", "init_from", "resume", "ensemble"]))
    other = make(replace(settings, seed=5), place / "other") if command == "ensemble" else run
    kind, later = random_change(rng, world, settings, place / "e")
    out = place / "out"
    try:
        if command == "init_from":
            make(replace(later, init_from=str(run)), out)
        elif command == "resume":
            again = replace(later, resume=str(run))
            changes_on_resume(
                build(Settings, yaml.safe_load((run / "config.yaml").read_text())), again
            )
            train(replace(again, trainer=replace(again.trainer, epochs=2)), run, resume=True)
            out = run
        else:
            node = plain(later) | {"run": str(run)}
            if command == "ensemble":
                node["ensemble"] = [str(run), str(other)]
            out.mkdir()
            evaluate(build(EvalSettings, node), out)
    except RefusedError:
        assert command == "resume", f"{command}, {kind}"
        return "refused"
    except MedexpError as error:
        assert kind in ("fold", "renamed"), f"{command}, {kind}: {error}"
        return "refused"
    test = {world.content[later.dataset["root"], key] for key in scored(out)}
    marked = json.loads((out / "metrics.json").read_text())["marks"]
    if command == "init_from":  # the epoch was chosen by validation
        test |= {world.content[later.dataset["root"], key] for key in ids_of(out, "val")}
    told = f"{number}: {command} with {kind}: {len(test & knows)} of {len(test)}"
    if test & knows:
        assert "LEAKY" in marked, told
    elif not world.patients or not {n // 2 % 25 for n in test} & {n // 2 % 25 for n in knows}:
        assert "LEAKY" not in marked, told
    return "leaky" if "LEAKY" in marked else "clean"


def pairs(numbers: range, place: Path) -> dict[str, int]:
    chosen = ("dataset=csv_table", "dataset.root=d", "dataset.size=16", "model=toynet")
    words = [*chosen, *SMALL, "augment=none", "trainer.epochs=1", "trainer.threads=1"]
    base = compose(words, ["--config-dir", str(MINE)])
    counts: dict[str, int] = {}
    for number in numbers:
        outcome = one_pair(number, place / str(number), base)
        counts[outcome] = counts.get(outcome, 0) + 1
    return counts


@pytest.fixture
def own_modules(workplace, monkeypatch):
    monkeypatch.syspath_prepend(str(MINE))
    monkeypatch.setenv("MEDEXP_CONFIG_DIR", str(MINE))
    return workplace


def test_no_pair_of_commands_scores_trained_images_unmarked(own_modules):
    counts = pairs(range(16), own_modules / "pairs")
    assert counts["leaky"] >= 2 and counts["clean"] >= 3 and counts["refused"] >= 1


@pytest.mark.slow
def test_of_four_hundred_pairs_none_scores_trained_images_unmarked(own_modules):
    counts = pairs(range(100, 500), own_modules / "pairs")
    assert sum(counts.values()) == 400 and min(counts.values()) > 40
