"""Phantoms for the readers of arrays: PCam's synthetic patches, shrunk, in .npz files.

The patches are those of medexp/data/phantom/pcam.py, labelled 1 where there is a tumour; its slides
serve as the groups, and each lies in one part.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from medexp.data.phantom import kit
from medexp.data.phantom.pcam import PER_SLIDE, slide

SIDE = 32  # of the arrays' images
MEDMNIST = 28  # of MedMNIST's smallest
LEAST_SLIDES = 10


def write(folder: Path, *, size: int = 1000, seed: int = 0) -> None:
    """Write `size` images in all as arrays.npz with images, labels and groups.

    folder: an existing folder. Raises ConfigError for a size below 16 or a negative seed.
    """
    kit.check(size, seed)
    images, labels, groups = patches(size, seed, SIDE)
    np.savez(folder / "arrays.npz", images=images, labels=labels, groups=groups)


def write_medmnist(folder: Path, *, size: int = 1000, seed: int = 0) -> None:
    """Write `size` images in all as pneumoniamnist.npz, in about PneumoniaMNIST's shares.

    folder: an existing folder. Raises ConfigError for a size below 16 or a negative seed.
    """
    kit.check(size, seed)
    images, labels, _ = patches(size, seed, MEDMNIST)
    grey = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images])
    ends = [0, size * 6 // 10, size * 8 // 10, size]
    arrays: dict[str, Any] = {}
    for part, start, end in zip(("train", "val", "test"), ends, ends[1:], strict=False):
        arrays[f"{part}_images"] = grey[start:end]
        arrays[f"{part}_labels"] = labels[start:end, None]
    np.savez(folder / "pneumoniamnist.npz", **arrays)


def patches(size: int, seed: int, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`size` images (N, side, side, 3), labels (N,) uint8 and slides (N,) text."""
    slides = max(LEAST_SLIDES, -(-size // PER_SLIDE))
    each = -(-size // slides)
    made = list(kit.side_by_side(lambda number: slide(seed, number), range(slides)))
    chosen = [(number, row) for number in range(slides) for row in range(each)][:size]
    images = [
        cv2.resize(made[number].images[row], (side, side), interpolation=cv2.INTER_AREA)
        for number, row in chosen
    ]
    labels = np.array([made[number].labels[row] for number, row in chosen], np.uint8)
    return np.stack(images), labels, np.array([f"slide_{number:03d}" for number, _ in chosen])
