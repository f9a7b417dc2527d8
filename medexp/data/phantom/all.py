"""Synthetic single cells in C-NMC 2019's own folders, for trials without the download.

A leukaemic blast (`all`) has a larger nucleus for its cell, finer chromatin, more nucleoli and a
less regular outline than a normal lymphoid cell (`hem`), which is rounder, a little smaller and
has clumped chromatin. No trait decides alone, and all overlap. Each patient has one class, as in
the real set, and a look (stain, light, focus) and a level of every trait that are his. So a
network that has seen a patient knows his other cells, and a split that puts one patient on both
sides scores higher than one of whole patients: the leak in the paper's split, to be tried out.

How much stain a cell takes up does not depend on its class, so the mean colour tells nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator, default_rng

from medexp.data.phantom import kit

SIDE = 450
FOLDS = 3
PUBLIC = (7_272, 3_389)  # labelled images, all and hem,
PATIENTS = (47, 26)  # of so many patients
PUBLIC_PRELIM = (1_219, 648)
PRELIM_SHARE = 0.15  # preliminary test images, besides `size`
KINDS = ("all", "hem")  # in the order of the labels

WINDOW = 330  # side of the square that holds the cell
# Optical density of R, G, B: nucleus, cytoplasm.
STAINS = np.array([[0.80, 1.40, 0.55], [0.34, 0.55, 0.20]], np.float32)
OWN = 0.75  # share of a trait's variance that lies between patients


@dataclass(frozen=True)
class Trait:
    """A normal distribution, cut off at both ends; class means are `apart` deviations apart."""

    mean: float
    deviation: float
    apart: float  # all - hem
    limits: tuple[float, float]


# These numbers make the difficulty; tests/data/phantom/test_all_phantom.py holds what follows.
TRAITS = {
    "radius": Trait(112, 11, 0.4, (84, 145)),  # of the cell, pixels
    "nucleus": Trait(0.83, 0.05, 0.9, (0.66, 0.95)),  # its radius / the cell's
    "chromatin": Trait(17, 5, -1.0, (7, 34)),  # distance of clumps, pixels
    "clumping": Trait(0.30, 0.10, -0.8, (0.06, 0.6)),  # relative swing of the density
    "nucleoli": Trait(1.4, 1.1, 0.9, (0, 5)),
    "lobes": Trait(0.055, 0.022, 0.9, (0.01, 0.13)),  # of the outline, relative to the radius
}
# A patient's look: each uniform between two ends, in the same distribution for both classes.
LOOKS = {
    "density": (0.72, 1.35),  # of the stain,
    "red": (0.82, 1.22),  # and of its absorption in one channel
    "blue": (0.72, 1.40),
    "light": (0.84, 1.06),
    "contrast": (0.26, 0.46),  # deviation of the stain within a cell, relative to its mean
    "focus": (0.6, 1.9),  # deviation of the blur, pixels
}


@dataclass(frozen=True)
class Patient:
    """One person, of one class.

    number: a seed for his cells. name: as in file names. traits: his own level of each of TRAITS,
    in deviations from the mean of his class. look: his value of each of LOOKS.
    """

    number: int
    name: str
    label: int
    traits: dict[str, float]
    look: dict[str, float]


def write(folder: Path, *, size: int = 600, seed: int = 0) -> None:
    """Write `size` labelled images, and about 15% more as the preliminary test set.

    folder: an existing folder; gets training_data/fold_0..2/{all,hem}/UID_*.bmp (450x450 RGB, 608
    kB each) and validation_data with its CSV. Classes as 7,272 to 3,389; 18 and 12 patients at size
    600, 3 and 3 at least, so that each fold has both. Raises ConfigError for a size below 16 or a
    negative seed.
    """
    kit.check(size, seed)
    jobs = []
    for label, count in enumerate(kit.shares(size, PUBLIC)):
        patients = draw_patients(seed, label, patient_count(size, label), first=1)
        for fold in range(FOLDS):
            (folder / "training_data" / f"fold_{fold}" / KINDS[label]).mkdir(parents=True)
        for index, one in enumerate(with_counts(seed, label, patients, count)):
            place = folder / "training_data" / f"fold_{index % FOLDS}" / KINDS[label]
            jobs += [(place / name, patient, i) for name, patient, i in cells(*one)]
    jobs += prelim(folder / "validation_data", max(4, round(PRELIM_SHARE * size)), seed)
    kit.write_each(lambda job: kit.save(job[0], cell(seed, *job[1:])), jobs)


def prelim(folder: Path, size: int, seed: int) -> list[tuple[Path, Patient, int]]:
    """The cells of the preliminary test set, of other patients and numbered; writes their CSV."""
    stem = "C-NMC_test_prelim_phase_data"
    (folder / stem).mkdir(parents=True)
    made = []
    for label, count in enumerate(kit.shares(size, PUBLIC_PRELIM)):
        patients = draw_patients(seed, label, min(count, 2 + size // 40), first=60)
        made += [
            cell for one in with_counts(seed, 2 + label, patients, count) for cell in cells(*one)
        ]
    order = [made[row] for row in default_rng([seed, 9]).permutation(len(made))]
    rows = [(name, f"{n}.bmp", 1 - patient.label) for n, (name, patient, _) in enumerate(order, 1)]
    kit.write_csv(folder / f"{stem}_labels.csv", ("Patient_ID", "new_names", "labels"), rows)
    return [(folder / stem / f"{n}.bmp", *cell) for n, (_, *cell) in enumerate(order, 1)]


# ---------------------------------------------------------------- patients


def patient_count(size: int, label: int) -> int:
    """Fewer than in the real set, but with some cells each: 18 and 12 of 600."""
    return int(np.clip(size // (25, 40)[label], 3, PATIENTS[label]))


def with_counts(
    seed: int, stream: int, patients: list[Patient], total: int
) -> Iterator[tuple[Patient, int]]:
    """Patients and their numbers of cells, 1 or more, the largest several times the smallest."""
    parts = len(patients)
    weight = 0.3 + default_rng([seed, 1, stream]).random(parts)
    edges = np.round(np.cumsum(weight) / weight.sum() * (total - parts)).astype(int)
    return zip(patients, (np.diff(edges, prepend=0) + 1).tolist(), strict=True)


def draw_patients(seed: int, label: int, count: int, *, first: int) -> list[Patient]:
    """Patients of a class, numbered from `first`.

    Looks are spread more evenly than by chance: a few dozen patients would else differ by class.
    """
    rng = default_rng([seed, 2, label, first])
    looks = {}
    for key, (low, high) in LOOKS.items():
        place = np.abs(rng.permutation(count) + rng.uniform(-3, 4, count)) / count % 2
        looks[key] = low + (high - low) * np.where(place > 1, 2 - place, place)
    levels = {key: OWN**0.5 * rng.standard_normal(count) for key in TRAITS}
    # One patient's names are in lower case in the real set.
    return [
        Patient(
            number=2 * (first + i) + label,
            name=("h" if first + i == 3 else "H") * label + str(first + i),
            label=label,
            traits={key: float(level[i]) for key, level in levels.items()},
            look={key: float(look[i]) for key, look in looks.items()},
        )
        for i in range(count)
    ]


def cells(patient: Patient, count: int) -> Iterator[tuple[str, Patient, int]]:
    """File names, UID_<patient>_<photograph>_<cell>_<class>.bmp, patient and number of cells."""
    for i in range(count):
        name = f"UID_{patient.name}_{i // 3 + 1}_{i % 3 + 1}_{KINDS[patient.label]}.bmp"
        yield name, patient, i


# ---------------------------------------------------------------- one cell


def cell(seed: int, patient: Patient, number: int) -> np.ndarray:
    """One segmented cell on black: (450, 450, 3) uint8 RGB."""
    rng = default_rng([seed, 3, patient.number, number])
    traits = {}
    for key, trait in TRAITS.items():
        level = patient.traits[key] + (1 - OWN) ** 0.5 * rng.standard_normal()
        level += (0.5 - patient.label) * trait.apart
        traits[key] = float(np.clip(trait.mean + trait.deviation * level, *trait.limits))
    look = {key: level * (1 + 0.03 * rng.standard_normal()) for key, level in patient.look.items()}

    at = np.arange(WINDOW, dtype=np.float32) - WINDOW / 2
    x, y = at[None, :], at[:, None]
    radius = traits["radius"]
    # Off the centre, as far as the cytoplasm allows.
    shift = 0.7 * (1 - traits["nucleus"]) * radius * rng.uniform(-0.7, 0.7, 2).astype(np.float32)
    outside = outline(rng, x, y, radius, 0.4 * traits["lobes"] + 0.01)
    u, v = x - shift[0], y - shift[1]  # from the nucleus' centre
    inside = outline(rng, u, v, radius * traits["nucleus"], traits["lobes"])
    # Segmented with a ragged edge.
    mask = (outside + 0.012 * noise(rng, 9) < 1).astype(np.uint8)
    cover = np.clip((1 - inside) * radius / 4, 0, 1)

    cytoplasm = 1 + 0.25 * noise(rng, 34) + 0.15 * noise(rng, 11)
    nucleus = chromatin(rng, traits, u, v, inside)
    density = (
        STAINS[0] * (cover * nucleus)[..., None]
        + STAINS[1] * (cytoplasm * (1 - 0.6 * cover))[..., None]
    )
    image = expose(rng, density, mask, look)
    whole = np.zeros((SIDE, SIDE, 3), np.uint8)
    top, left = (SIDE - WINDOW) // 2 + rng.integers(-4, 5, 2)
    whole[top : top + WINDOW, left : left + WINDOW] = image
    return whole


def expose(
    rng: Generator, density: np.ndarray, mask: np.ndarray, look: dict[str, float]
) -> np.ndarray:
    """Light through the stain, as the patient's slide and the camera give it: 0..255, not rounded.

    How much stain a cell has taken up, and how unevenly, is the patient's and not the class'.
    """
    mean, deviation = cv2.meanStdDev(density, mask=mask)
    tint = np.array([0.62 * look["red"], 1.05, 0.44 * look["blue"]], np.float32) * look["density"]
    factor = tint * look["contrast"] / deviation[:, 0].astype(np.float32)
    density = density * factor + (tint - factor * mean[:, 0].astype(np.float32))
    across = np.linspace(-0.5, 0.5, WINDOW, dtype=np.float32)
    slope = 0.06 * rng.standard_normal(2).astype(np.float32)
    light = 240 * look["light"] * (1 + slope[0] * across + slope[1] * across[:, None])
    sharp = np.exp(-np.maximum(density, 0.03)) * light[..., None]
    image: np.ndarray = cv2.GaussianBlur(sharp, (0, 0), look["focus"])
    image += 2.5 * rng.standard_normal((WINDOW, WINDOW, 1), dtype=np.float32) + 0.5
    image *= mask[..., None]
    return image.clip(0, 255)


def outline(
    rng: Generator, x: np.ndarray, y: np.ndarray, radius: float, lobes: float
) -> np.ndarray:
    """(WINDOW, WINDOW) distances from the centre, 1 on a closed line of about that radius."""
    stretch = 1 + rng.uniform(-1, 1) * (0.03 + lobes)
    cos, sin = direction(rng)
    along, across = kit.turned(x, y, cos, sin)
    p, q = along * stretch / radius, across / stretch / radius
    distance = np.sqrt(p * p + q * q) + np.float32(1e-6)
    unit_x, unit_y = p / distance, q / distance
    # Waves of 2 to 5 a turn: z = exp(it) of the pixel's angle t, and its powers.
    wave, power_x, power_y = 0.0, unit_x, unit_y
    for amplitude in lobes * np.array([1.0, 1.0, 0.8, 0.6], np.float32):
        power_x, power_y = (
            power_x * unit_x - power_y * unit_y,
            power_x * unit_y + power_y * unit_x,
        )
        a, b = direction(rng)
        wave = wave + amplitude * (a * power_x + b * power_y)
    return np.asarray(distance / (1 + wave))


def chromatin(
    rng: Generator, traits: dict[str, float], x: np.ndarray, y: np.ndarray, inside: np.ndarray
) -> np.ndarray:
    """(WINDOW, WINDOW) relative density within the nucleus: clumps, a rim, pale nucleoli."""
    clumps = np.tanh(2.5 * noise(rng, traits["chromatin"]))
    fine = noise(rng, 0.45 * traits["chromatin"])
    density = 1 + traits["clumping"] * (clumps + 0.6 * fine)
    density += 0.25 * np.clip(inside - 0.8, 0, 0.2) / 0.2
    reach = 0.6 * traits["nucleus"] * traits["radius"]
    for _ in range(rng.poisson(traits["nucleoli"])):
        cos, sin = direction(rng)
        away = reach * rng.random() ** 0.5
        dx, dy = x - away * cos, y - away * sin
        spot = np.sqrt(dx * dx + dy * dy) / rng.uniform(8, 15)
        # Pale, with a ring of condensed chromatin around it.
        density -= 0.45 * np.clip(2 * (1 - spot), 0, 1)
        density += 0.25 * np.clip(1 - 4 * np.abs(spot - 1.1), 0, 1)
    return np.maximum(density, 0.15)


def noise(rng: Generator, wavelength: float) -> np.ndarray:
    """Smooth noise over the window, (WINDOW, WINDOW), within about -1..1."""
    side = int(WINDOW / wavelength * 2) + 4
    lattice = rng.uniform(-1.6, 1.6, (side, side)).astype(np.float32)
    grown = cv2.resize(
        lattice, None, fx=wavelength / 2, fy=wavelength / 2, interpolation=cv2.INTER_CUBIC
    )
    return grown[:WINDOW, :WINDOW]


def direction(rng: Generator) -> tuple[np.float32, np.float32]:
    angle = rng.uniform(0, 2 * np.pi)
    return np.float32(np.cos(angle)), np.float32(np.sin(angle))
