"""Pictures of a data set's images, as pages and figures show them."""

from collections.abc import Callable, Mapping

import numpy as np

from medexp.data import Dataset
from medexp.data.base import PARTS_IN_WORDS
from medexp.report.page.datapage import Picture, displayed

SAMPLES = 8  # of each class on the page

Draw = Callable[[Mapping[str, str]], Picture]


def artist(data: Dataset, shown: tuple[float, float]) -> Draw:
    """Makes the picture of an image that a finding names by split, id and class.

    shown: what is black and white in images of float.
    """

    def draw(named: Mapping[str, str]) -> Picture:
        split = data.splits()[named["split"]]
        row = int(np.flatnonzero(split.ids == named["id"])[0])
        text = f"{PARTS_IN_WORDS[named['split']]}, {named['class']}"
        return Picture(displayed(split.images[row], *shown), named["id"], text)

    return draw


def class_samples(data: Dataset, draw: Draw, count: int = SAMPLES) -> dict[str, list[Picture]]:
    """Class -> pictures of training images, evenly through their order."""
    split = data.train
    return {
        name: [
            draw({"split": "train", "id": str(split.ids[row]), "class": name})._replace(text="")
            for row in spread(split.labels, label, count)
        ]
        for label, name in enumerate(data.classes)
    }


def spread(labels: np.ndarray, label: int, count: int) -> list[int]:
    """Rows of a class, evenly from the first to the last of them."""
    of_class = np.flatnonzero(labels == label)
    at = np.linspace(0, len(of_class) - 1, min(count, len(of_class))).round().astype(int)
    rows: list[int] = of_class[at].tolist()
    return rows
