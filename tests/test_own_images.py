"""A newcomer's way: a folder of one's own images, by the first command of docs/your_own_data.md."""

import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from sklearn.datasets import load_digits

from tests.conftest import ROOT, read


def first_command(folder):
    """The words of the first command of the guide's chapter on training, for this folder."""
    text = (ROOT / "docs/your_own_data.md").read_text(encoding="utf-8")
    chapter = text.partition("## 3. Train")[2]
    line = re.search(r"```sh\nmedexp (train .*)\n", chapter)[1]
    return [word.replace("FOLDER", str(folder)) for word in shlex.split(line)]


def write(images, labels, folder):
    """Grey images (N, H, W) uint8 as PNG files in folders of their labels."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        file = Path(folder, str(label), f"{number:04d}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(file), image)


def test_the_help_and_the_headers_suggest_what_the_guide_does(medexp):
    words = first_command("FOLDER")
    assert words[0] == "train" and "model=native3" in words
    assert medexp("train", "--help") == 0
    assert shlex.join(["medexp", *words]) in " ".join(medexp.out.replace("\\\n", "").split())
    for dataset in ("image_folder", "csv_table"):
        head = (ROOT / f"conf/dataset/{dataset}.yaml").read_text(encoding="utf-8")
        said = [words[0], f"dataset={dataset}", *words[2:]]
        first = next(line for line in head.splitlines() if "medexp train" in line)
        assert first.removeprefix("#   medexp ") == shlex.join(said)


def test_images_that_are_not_square_train_by_default(medexp):
    """PCam's turns by right angles, which need square ones, were everybody's augmentation."""
    small = ("source=phantom", "source.size=64", "trainer.epochs=1", "trainer.resamples=0")
    words = ("dataset=image_folder", "model=native3", "dataset.size=[64,96]")
    assert medexp("train", *words, *small) == 0, medexp.err


@pytest.mark.slow
def test_digits_are_told_apart_by_the_guides_own_command(medexp):
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels: 360 are tested, .95 are right."""
    digits = load_digits()
    write(np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target, "digits")
    assert medexp(*first_command("digits"), "hydra.run.dir=run") == 0, medexp.err
    content = read("run/metrics.json")
    assert content["test"]["n"] == 360 and content["test"]["accuracy"] > 0.95
    assert content["applied"]["augment"] == "none" and content["marks"] == {}
    assert yaml.safe_load(Path("run/config.yaml").read_text())["optimizer"]["lr"] == 0.001


@pytest.mark.slow
@pytest.mark.real_data
def test_chest_radiographs_are_told_apart_where_the_pcam_recipe_does_not(medexp, real_data):
    """PneumoniaMNIST's part, with nothing chosen, beside what everybody's data once were given."""
    words = ("dataset=medmnist", f"dataset.root={real_data}/medmnist", "model=native3")
    words += ("dataset.file=pneumoniamnist_part.npz", "trainer.resamples=0")
    pcam = ("optimizer=sgd", "augment=flips_turns")
    found = {}
    for name, more in {"ours": (), "pcam": pcam}.items():
        assert medexp("train", *words, *more, f"hydra.run.dir={name}") == 0, medexp.err
        found[name] = read(f"{name}/metrics.json")
    assert found["ours"]["test"]["auc_binary"] > 0.85 > found["pcam"]["test"]["auc_binary"]
    assert "CONSTANT" in found["pcam"]["marks"] and "CONSTANT" not in found["ours"]["marks"]
