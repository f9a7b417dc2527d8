"""A CT task made to share with video what a clip's class rests on: a thing that moves, told by how.

Chests of the tbt phantoms, each with the lesions of a type drawn at random, which tell nothing, and
one radio-opaque cord from the lowest slice to the highest. How the cord goes from slice to slice is
the class: straight, leaning over, swaying, trembling or winding. Its place, thickness, density and
phase, how far it goes aside and to which side are drawn for each volume. The layout is that of tbt
(NIfTI, and a CSV with types 1..5), so tbt's reader reads it: dataset=tbt
dataset.phantom=cord_phantom.write, with this folder on PYTHONPATH. The names that medexp then
prints for the classes are tbt's; COURSES are these.
"""

import csv
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.random import Generator, default_rng

from medexp.data.phantom.tbt import scan

nib: Any = nibabel  # most of what is used of it carries no types

COURSES = ("straight", "leaning", "swaying", "trembling", "winding")
TURNS = {"swaying": 1.3, "trembling": 3.0, "winding": 1.6}  # from the lowest slice to the highest
REACH = (45.0, 70.0)  # mm from the middle of the course to its side
RADIUS = (15.0, 22.0)  # mm
DENSITY = (1500.0, 2500.0)  # HU: a metal, denser than bone


def write(folder: Path, *, size: int = 400, seed: int = 0) -> None:
    """Write `size` volumes, the courses in turn, into folder/train, and their CSV."""
    (folder / "train").mkdir(parents=True)
    with open(folder / "TrainSet_metaData.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["FileName", "TypeOfTB"])
        for number in range(size):
            kind = number % len(COURSES)
            hu, affine = volume(default_rng([seed, number]), COURSES[kind])
            name = f"TRN_{number + 1:04}.nii.gz"
            nib.save(nib.Nifti1Image(hu, affine), folder / "train" / name)
            table.writerow([name, kind + 1])


def volume(rng: Generator, name: str) -> tuple[np.ndarray, np.ndarray]:
    """int16 HU (columns, rows, slices), stored LPS, and its affine."""
    chest, hu = scan(rng, int(rng.integers(5)))
    x, y, z = chest.x, chest.y, chest.z
    aside, back = course(rng, name, ((z - z.min()) / (z.max() - z.min())).ravel())
    aside, back = aside + rng.uniform(-40, 40), back + rng.uniform(-20, 20)
    off = np.hypot(x - aside[:, None, None], y - back[:, None, None])
    cover = np.clip(rng.uniform(*RADIUS) - off, 0, 3) / 3
    laid = hu + cover * (rng.uniform(*DENSITY) - hu)
    dz, dy, dx = chest.spacing
    return np.rint(laid).astype(np.int16).transpose(2, 1, 0), np.diag([-dx, -dy, dz, 1.0])


def course(rng: Generator, name: str, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cord at heights t (0 lowest, 1 highest): mm to the left and to the back of its middle."""
    reach, phase, side = rng.uniform(*REACH), rng.uniform(), rng.choice([-1, 1])
    angle = 2 * np.pi * (TURNS.get(name, 0.0) * rng.uniform(0.9, 1.1) * t + phase)
    still = np.zeros_like(t)
    if name == "straight":
        return still, still
    if name == "leaning":
        return side * reach * (2 * t - 1), still
    return reach * np.cos(angle), side * reach * np.sin(angle) if name == "winding" else still
