"""Pictures in class folders and a small run trained on them: what finished runs are tested with."""

import sys

import cv2
import numpy as np
import pytest

from medexp.cli import dispatch as cli
from tests.conftest import MINE

CLASSES = ("benign", "malignant")
SMALL = ("--config-dir", MINE, "model=toynet", "trainer.resamples=20", "trainer.epochs=2")


def picture(label, rng, side=20):
    """(side, side, 3) uint8 noise; the class is the place of a bright square."""
    image = rng.integers(0, 150, (side, side, 3)).astype(np.uint8)
    image[4 * label : 4 * label + 4, 4:8] += 100
    return image


def write_folders(root, counts, seed=0, side=20):
    """PNG files ROOT/<class>/NAME.png, so many of each class."""
    rng = np.random.default_rng(seed)
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            cv2.imwrite(str(root / name / f"{number:03d}.png"), picture(label, rng, side))


def train_once(folder, *words):
    """`medexp train` in a folder, from a fixture of a module's own; returns the folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", "")
        patch.setenv("MEDEXP_CONFIG_DIR", "")
        patch.setenv("MEDEXP_CACHE", str(folder / "cache"))
        patch.setattr("medexp.report.figure.plots.write_plots", lambda run: None)
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(sys, "argv", list(sys.argv))
        assert cli.run(["train", *map(str, (*SMALL, *words))]) == 0
    return folder
