"""Phantoms for the two readers of a user's own data: PCam's synthetic patches as plain files.

The patches are those of medexp/data/phantom/pcam.py, labelled normal and tumor; its slides, which
differ in stain and illumination, serve as the patients. A patch of an even patient is a PNG, of an
odd one a JPEG, so that both decoders are at work.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from medexp.data.phantom import kit
from medexp.data.phantom.pcam import PER_SLIDE, slide

CLASSES = ("normal", "tumor")
LEAST_PATIENTS = 8  # of 16 images: enough to keep some for validation and test


def write_folder(folder: Path, *, size: int = 1000, seed: int = 0) -> None:
    """Write `size` images in all as `<class>/patient_007_12.png`, half of them of each class.

    folder: an existing folder. Raises ConfigError for a size below 16 or a negative seed.
    """
    kit.check(size, seed)
    for name in CLASSES:
        (folder / name).mkdir()
    write_patches(size, seed, lambda kind, name: folder / kind / name)


def write_table(folder: Path, *, size: int = 1000, seed: int = 0) -> None:
    """Write `size` images in all below `images/`, and `labels.csv` with path, label and patient.

    folder: an existing folder. Raises ConfigError for a size below 16 or a negative seed.
    """
    kit.check(size, seed)
    (folder / "images").mkdir()
    rows = write_patches(size, seed, lambda kind, name: folder / "images" / name)
    table = [(f"images/{path.name}", kind, path.name.rsplit("_", 1)[0]) for path, kind in rows]
    kit.write_csv(folder / "labels.csv", ("path", "label", "patient"), table)


def write_patches(
    size: int, seed: int, place: Callable[[str, str], Path]
) -> list[tuple[Path, str]]:
    """Write `size` images to place(class, file name); their paths and classes.

    The images are dealt out evenly in pairs, of which one is positive, so the classes are equal but
    for an odd last image.
    """
    patients = max(LEAST_PATIENTS, -(-(size + 1) // PER_SLIDE))
    pairs = np.arange(patients + 1) * (size // 2) // patients
    counts = 2 * np.diff(pairs)
    counts[0] += size % 2  # floors make the first patient's share the smallest

    def write(patient: int) -> list[tuple[Path, str]]:
        made = slide(seed, patient)
        rows = []
        for number in range(counts[patient]):
            kind = CLASSES[made.labels[number]]
            name = f"patient_{patient:03d}_{number:02d}.{'jpg' if patient % 2 else 'png'}"
            kit.save(place(kind, name), made.images[number])
            rows.append((place(kind, name), kind))
        return rows

    return [row for rows in kit.side_by_side(write, range(patients)) for row in rows]
