"""Phantoms for the two readers of a user's own data: PCam's synthetic patches as plain files.

The patches are those of medexp/data/phantom/pcam.py, labelled normal and tumor; its slides, which
differ in stain and illumination, serve as the patients. A patch of an even patient is a PNG, of an
odd one a JPEG, so that both decoders are at work.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from medexp.data.phantom.pcam import PER_SLIDE, slide
from medexp.errors import ConfigError

CLASSES = ("normal", "tumor")
LEAST_PATIENTS = 8  # of 16 images: enough to keep some for validation and test


def write_folder(folder: Path, *, size: int = 1000, seed: int = 0) -> None:
    """Write `size` images in all as `<class>/patient_007_12.png`, half of them of each class.

    folder: an existing folder. Raises ConfigError for a size below 16 or a negative seed.
    """
    check(size, seed)
    for name in CLASSES:
        (folder / name).mkdir()
    for patient, number, image, label in patches(size, seed):
        save(folder / CLASSES[label] / file_name(patient, number), image)


def write_table(folder: Path, *, size: int = 1000, seed: int = 0) -> None:
    """Write `size` images in all below `images/`, and `labels.csv` with path, label and patient.

    folder: an existing folder. Raises ConfigError for a size below 16 or a negative seed.
    """
    check(size, seed)
    (folder / "images").mkdir()
    with open(folder / "labels.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "patient"])
        for patient, number, image, label in patches(size, seed):
            name = f"images/{file_name(patient, number)}"
            save(folder / name, image)
            table.writerow([name, CLASSES[label], f"patient_{patient:03d}"])


def check(size: int, seed: int) -> None:
    if size < 16:
        raise ConfigError(f"source.size={size}: must be 16 or more")
    if seed < 0:
        raise ConfigError(f"source.seed={seed}: must be 0 or more")


def patches(size: int, seed: int) -> Iterator[tuple[int, int, np.ndarray, int]]:
    """(patient, number of the patient's image, (96, 96, 3) uint8, label) of each of `size` images.

    The images are dealt out evenly in pairs, of which one is positive, so the classes are equal but
    for an odd last image.
    """
    patients = max(LEAST_PATIENTS, -(-(size + 1) // PER_SLIDE))
    pairs = np.arange(patients + 1) * (size // 2) // patients
    for patient in range(patients):
        made = slide(seed, patient)
        count = 2 * int(pairs[patient + 1] - pairs[patient])
        if patient == 0:
            count += size % 2  # floors make the first patient's share the smallest
        for number in range(count):
            yield patient, number, made.images[number], int(made.labels[number])


def file_name(patient: int, number: int) -> str:
    return f"patient_{patient:03d}_{number:02d}.{'jpg' if patient % 2 else 'png'}"


def save(path: Path, image: np.ndarray) -> None:
    """An RGB image as PNG or JPEG, by OpenCV's encoders at their defaults."""
    if not cv2.imwrite(str(path), np.ascontiguousarray(image[..., ::-1])):
        raise OSError(f"{path}: cannot be written")
