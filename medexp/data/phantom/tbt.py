"""Synthetic chest CT with the five types of tuberculosis, in ImageCLEF 2021's own layout.

Each volume is a chest drawn in millimetres: body, ribs, spine, heart, airways, two lungs with
vessels. What is laid into the lungs decides the type: clouds (infiltrative), one consolidation
(focal), one dense round nodule (tuberculoma), dots everywhere (miliary), a thick-walled cavity with
bands (fibro-cavernous). The lungs' other tissue is raised by as much as it takes for the density in
sum to follow one distribution whatever the type, so that no mean gives the type away. Patients
differ in build, pose, breath, contrast medium and small scars, scanners in noise, field of view,
slice thickness, padding and the axes in which they store.

Deterministic in (size, seed) on one machine; library functions may round otherwise on another.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.random import Generator, default_rng
from scipy import ndimage

from medexp.data.phantom import kit

nib: Any = nibabel  # most of what is used of it carries no types

SHARES = (335, 180, 81, 80, 56)  # training volumes a type, from the authors' code
STORED = ("LPS", "LAS", "RAS", "RPS", "LPI")  # where a file's axes lead
MASS = (35.0, 70.0)  # HU that lesions and haze add to the lungs, on average over their voxels
GAIN = 12.0  # HU, standard deviation of a scanner's offset


@dataclass(frozen=True)
class Chest:
    """A chest, arrays (D, H, W): slices to the head, rows to the back, columns to the left.

    hu: float32. lungs: 0..1, how much of a voxel is lung. x, y, z: mm to the left, back and head
    from the centre, each an axis that broadcasts; a, b: x and y along the patient's own axes, who
    lies shifted and turned. spacing: mm of z, y, x. wide, deep: half the chest's; base, apex: z of
    the lungs' ends; mm.
    """

    hu: np.ndarray
    lungs: np.ndarray
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    a: np.ndarray
    b: np.ndarray
    spacing: tuple[float, float, float]
    wide: float
    deep: float
    base: float
    apex: float

    def lay(self, cover: np.ndarray, density: float) -> None:
        """Mix `density` HU into the volume, in place, by a cover of 0..1 that broadcasts."""
        kit.lay(self.hu, cover, density)

    def lay_inside(self, cover: np.ndarray, density: float) -> None:
        self.lay(cover * self.lungs, density)

    def carve(self, cover: np.ndarray, density: float) -> None:
        """Lay an organ and take it out of the lungs."""
        self.lay(cover, density)
        self.lungs[...] *= 1 - cover

    def noise(self, rng: Generator, cells: int) -> np.ndarray:
        return _noise(rng, self.hu.shape, cells)

    def distance(self, centre: np.ndarray) -> np.ndarray:
        """mm from a place (z, y, x mm)."""
        z, y, x = centre.astype(np.float32)
        square = (self.z - z) ** 2 + (self.y - y) ** 2 + (self.x - x) ** 2
        return np.asarray(np.sqrt(square, dtype=np.float32))


def write(folder: Path, *, size: int = 60, seed: int = 0) -> None:
    """Write `size` volumes to folder/train, their lung masks to masks1, and TrainSet_metaData.csv.

    Volumes are int16 `TRN_0001.nii.gz` of 96..128 pixels a side and 24..60 slices, masks uint8
    `TRN_0001_mask.nii.gz`. Types come in the real set's shares, but each at least size // 5 times,
    five at most. Raises ConfigError for a size below 16 or a negative seed.
    """
    kit.check(size, seed)
    (folder / "train").mkdir(parents=True)
    (folder / "masks1").mkdir()
    kinds = default_rng([seed, size]).permutation(np.repeat(range(5), counts(size))).tolist()
    names = [f"TRN_{number + 1:04}" for number in range(size)]

    def write_volume(number: int) -> None:
        rng = default_rng([seed, size, number])
        chest, hu = scan(rng, kinds[number])
        lungs = (chest.lungs > rng.uniform(0.3, 0.7)).astype(np.uint8)
        axes = STORED[rng.integers(len(STORED))]
        inter = -1024 * int(rng.random() < 0.5)
        image = folder / "train" / f"{names[number]}.nii.gz"
        _save(image, hu, chest.spacing, axes, inter)
        _save(folder / "masks1" / f"{names[number]}_mask.nii.gz", lungs, chest.spacing, axes)

    kit.write_each(write_volume, range(len(kinds)))
    rows = [(f"{name}.nii.gz", kind + 1) for name, kind in zip(names, kinds, strict=False)]
    kit.write_csv(folder / "TrainSet_metaData.csv", ("FileName", "TypeOfTB"), rows)


def counts(size: int) -> list[int]:
    """Volumes a type: the real shares, each at least size // 5, five at most."""
    least = min(5, size // 5)
    exact = np.array(SHARES) / sum(SHARES) * size
    made = np.maximum(np.floor(exact).astype(int), least)
    while made.sum() != size:
        step = 1 if made.sum() < size else -1
        gap = np.where((made > least) | (step > 0), step * (exact - made), -np.inf)
        made[gap.argmax()] += step
    return list(map(int, made))


def scan(rng: Generator, kind: int) -> tuple[Chest, np.ndarray]:
    """A patient of type `kind` (0..4): the chest, and int16 HU as a scanner gives them."""
    chest = healthy(rng)
    before, hu = chest.hu.copy(), chest.hu
    for _ in range(rng.integers(3)):  # small old scars, whatever the type
        _blob(rng, chest, _spot(rng, chest), rng.uniform(3, 6), -100, edge=2)
    LESIONS[kind](rng, chest)
    total = float(chest.lungs.sum())
    lack = rng.uniform(*MASS) - float((hu - before).sum()) / total
    # More haze below, where the blood of a lying patient is.
    weight = np.clip(1 + chest.y / 120, 0.2, 1.8) * chest.lungs
    weight = weight * (hu < -500)
    hu += weight * (lack * total / float(weight.sum()))

    noise = rng.standard_normal(hu.shape, dtype=np.float32)
    noise = ndimage.uniform_filter(noise, (1, 2, 2)) * 2
    hu += noise * rng.uniform(12, 35) + rng.normal(0, GAIN)
    if rng.random() < 0.5:  # nothing is measured outside the scanner's circle
        reach = (len(chest.x.ravel()) / 2 * chest.spacing[2]) ** 2
        hu[:, (chest.x**2 + chest.y**2)[0] > reach] = rng.choice([-3024, -2000])
    return chest, np.clip(np.rint(hu), -3024, 3071).astype(np.int16)


# ---------------------------------------------------------------- the healthy chest


def healthy(rng: Generator) -> Chest:
    side, slices = int(rng.integers(96, 129)), int(rng.integers(24, 61))
    wide, deep = rng.uniform(140, 178), rng.uniform(90, 124)
    field, tall = wide * rng.uniform(2.08, 2.6), rng.uniform(260, 330)
    x, y, z = (
        ((np.arange(n) - (n - 1) / 2) * (mm / n)).astype(np.float32)
        for n, mm in ((side, field), (side, field), (slices, tall))
    )
    x, y, z = x[None, None, :], y[None, :, None], z[:, None, None]
    spacing = (tall / slices, field / side, field / side)
    turn = np.deg2rad(rng.normal(0, 5))
    along, across = x - np.float32(rng.normal(0, 8)), y - np.float32(rng.normal(0, 14))
    a, b = (axis.astype(np.float32) for axis in kit.turned_by(along, across, turn))
    fat = rng.uniform(0.06, 0.16)
    contrast = rng.choice([0, 0, rng.uniform(60, 160)])

    shoulders = 1 + 0.08 * np.tanh((z - 0.25 * tall) / 30)
    rim = np.sqrt((a / (wide * shoulders)) ** 2 + (b / deep) ** 2)
    hu = np.full((slices, side, side), -1000, np.float32)
    couch = np.abs(b - deep - 14 - 0.0008 * a**2) < 4
    hu[:, couch[0]] = -400
    kit.lay(hu, _within(rim, 1, 30), -100)
    kit.lay(hu, _within(rim, 1 - fat, 30), 45)
    _ribs(rng, hu, rim / (1 - fat), np.arctan2(b / deep, a / wide), z)

    base, apex = -tall / 2 + rng.uniform(5, 60), tall / 2 - rng.uniform(5, 40)
    lungs = _lungs(rng, a, b, z, (wide * (1 - fat), deep * (1 - fat), base, apex))
    chest = Chest(hu, lungs, x, y, z, a, b, spacing, wide, deep, base, apex)
    chest.lay(lungs, rng.uniform(-880, -820))
    heart = np.array([rng.uniform(15, 38), rng.uniform(-38, -18), base + 0.3 * (apex - base)])
    round_ = (
        ((a - heart[0]) / rng.uniform(45, 68)) ** 2
        + ((b - heart[1]) / rng.uniform(38, 48)) ** 2
        + ((z - heart[2]) / rng.uniform(48, 62)) ** 2
    )
    chest.carve(_within(np.sqrt(round_), 1, 12), 45 + contrast)
    _mediastinum(rng, chest, contrast)
    _vessels(rng, chest)
    return chest


def _lungs(
    rng: Generator, a: np.ndarray, b: np.ndarray, z: np.ndarray, frame: tuple[float, ...]
) -> np.ndarray:
    """0..1 (D, H, W): two cones with round tops on the domes of the diaphragm."""
    wide, deep, base, apex = frame
    lungs = np.zeros(np.broadcast_shapes(a.shape, z.shape), np.float32)
    u = (z - base) / (apex - base)
    taper = np.sqrt(np.clip(1 - np.clip((u - 0.3) / 0.7, 0, 1) ** 2.6, 0, 1))
    for sign in (-1, 1):
        half = 0.41 * wide * rng.uniform(0.94, 1.02)
        centre = sign * (0.46 * wide) * (0.6 + 0.4 * taper)
        level = (np.abs(a - centre) / (half * taper + 1)) ** 2.4
        level = level + (np.abs(b + 2) / (0.86 * deep * (0.35 + 0.65 * taper))) ** 2.4
        # The diaphragm bulges most in front and near the middle; behind, the lung goes deepest.
        bulge = ((a - 0.5 * centre) / (0.8 * wide)) ** 2 + ((b + 0.35 * deep) / (1.25 * deep)) ** 2
        dome = base + rng.uniform(50, 70) * (1 - 1.6 * bulge) * (1.15 if sign < 0 else 1)
        floor = np.clip((z - dome) / 8 + 0.5, 0, 1)
        lungs = np.maximum(lungs, _within(level ** (1 / 2.4), 1, 14) * floor * (u < 1))
    return lungs


def _ribs(
    rng: Generator, hu: np.ndarray, rim: np.ndarray, angle: np.ndarray, z: np.ndarray
) -> None:
    """Slanting arcs in the chest wall: in a slice, a ring of short pieces."""
    shell = np.clip(1 - np.abs(rim - 0.93) / 0.045, 0, 1)
    phase = z / rng.uniform(24, 30) + 1.4 * np.sin(angle) + rng.random()
    piece = np.clip(np.cos(2 * np.pi * phase) * 3 - 0.6, 0, 1)
    front = np.clip((np.sin(angle) + 0.97) * 12, 0, 1)
    kit.lay(hu, np.minimum(shell * 1.6, 1) * piece * front, rng.uniform(250, 420))


def _mediastinum(rng: Generator, chest: Chest, contrast: float) -> None:
    """Spine, aorta, sternum, windpipe with its two branches."""
    a, b, z = chest.a, chest.b, chest.z
    back = 0.5 * chest.deep
    chest.carve(_within(np.hypot(a / 1.25, b - back), 19, 0.4), 160)
    disc = np.clip(np.cos(2 * np.pi * z / rng.uniform(26, 32)) * 4, 0, 1)
    chest.lay(_within(np.hypot(a / 1.25, b - back), 18, 0.4) * disc, 280)
    chest.lay(_within(np.hypot(a, b - back - 27), 8, 0.5), 30)
    chest.lay(_within(np.hypot(a / 0.4, (b - back - 50) / 1.6), 10, 0.4) * disc, 260)
    chest.carve(_within(np.hypot(a - 24, b - back + 12), 12, 0.4), 45 + contrast)
    chest.lay(_within(np.hypot(a / 2.2, b + 0.86 * chest.deep), 8, 0.4), 220)
    down = np.maximum(chest.base + 0.58 * (chest.apex - chest.base) - z, 0)
    for sign in (-1, 1):
        off = np.hypot(a - sign * 0.9 * down, b - 8 + 0.15 * down)
        stem = _within(off, 9.5 - 0.06 * np.minimum(down, 70), 0.5)
        chest.lay(stem * (down < 55), -980)


def _vessels(rng: Generator, chest: Chest) -> None:
    """Where two smooth noises are both zero there are lines; they are thicker near the hilum."""
    rise = 0.8 * (chest.z - (chest.base + 0.5 * (chest.apex - chest.base)))
    near = np.sqrt((np.abs(chest.a) - 40) ** 2 + (chest.b - 5) ** 2 + rise**2)
    for cells, strength in ((11, 1.0), (19, 0.7)):
        one, two = chest.noise(rng, cells), chest.noise(rng, cells)
        thick = strength * (0.06 + 0.24 * np.exp(-near / 38))
        chest.lay_inside(np.clip(1.4 - np.sqrt(one * one + two * two) / thick, 0, 1), 30)


# ---------------------------------------------------------------- lesions


def _infiltrative(rng: Generator, chest: Chest) -> None:
    """Clouds without borders, patch beside patch, in one or more places."""
    cover: np.ndarray = np.zeros(chest.hu.shape, np.float32)
    for _ in range(rng.integers(3, 6)):
        near = np.exp(-((chest.distance(_spot(rng, chest)) / rng.uniform(35, 50)) ** 2))
        cover = np.maximum(cover, near)
    cloud = 0.7 * chest.noise(rng, 12) + 0.5 * chest.noise(rng, 24)
    cover = np.clip((cover + 0.8 * cloud - 0.55) * 2.2, 0, 1) * (cover > 0.12)
    chest.lay(cover * chest.lungs * rng.uniform(0.5, 0.8), -60)


def _focal(rng: Generator, chest: Chest) -> None:
    """One consolidation: large, dense, of no regular outline, fading into the lung."""
    _blob(rng, chest, _spot(rng, chest, 14), rng.uniform(26, 36), 20, edge=12, lobes=0.45)


def _tuberculoma(rng: Generator, chest: Chest) -> None:
    """One round nodule of 2 to 4 cm with a sharp border; in half of them a chalky centre."""
    centre, radius = _spot(rng, chest, 14), rng.uniform(13, 20)
    _blob(rng, chest, centre, radius, rng.uniform(40, 90), edge=1.5)
    if rng.random() < 0.5:
        _blob(rng, chest, centre, 0.4 * radius, rng.uniform(200, 400), edge=3)


def _miliary(rng: Generator, chest: Chest) -> None:
    """Dots of one to three voxels, all through both lungs."""
    shape = chest.hu.shape
    seeds = rng.random(shape, dtype=np.float32) < rng.uniform(0.018, 0.028)
    dots = seeds.copy()
    dots[:, 1:] |= seeds[:, :-1] & (rng.random((1, shape[1] - 1, 1)) < 0.5)
    dots[:, :, 1:] |= seeds[:, :, :-1] & (rng.random((1, 1, shape[2] - 1)) < 0.5)
    chest.lay(dots * chest.lungs * rng.uniform(0.6, 0.85), 0)


def _fibro_cavernous(rng: Generator, chest: Chest) -> None:
    """A cavity of air in a thick uneven wall, bands of scar running from it, foci around it."""
    centre, radius = _spot(rng, chest, 20), rng.uniform(24, 34)
    for _ in range(rng.integers(5, 9)):
        to = rng.normal(size=3) * (0.7, 1, 1)
        _band(chest, centre, to / np.linalg.norm(to) * rng.uniform(45, 75), rng.uniform(2, 3.5))
    for _ in range(rng.integers(2, 5)):
        away = centre + rng.normal(0, 22, 3)
        _blob(rng, chest, away, rng.uniform(3, 6), -40, edge=2)
    wall = rng.uniform(7, 11)
    distance = chest.distance(centre) * (1 + 0.22 * chest.noise(rng, 10))
    chest.lay_inside(_within(distance, radius, 0.4), rng.uniform(0, 50))
    chest.lay_inside(_within(distance, radius - wall, 0.4), -960)


LESIONS = (_infiltrative, _focal, _tuberculoma, _miliary, _fibro_cavernous)


def _spot(rng: Generator, chest: Chest, margin: float = 0) -> np.ndarray:
    """A place in the lungs (z, y, x mm), rather high up, `margin` mm from their border."""
    deep = chest.lungs
    if margin:
        steps = [2 * int(margin / mm) + 1 for mm in chest.spacing]
        deep = ndimage.uniform_filter(deep, steps)
    places = np.argwhere(deep > 0.92 * deep.max())
    heights = places[:, 0]
    upper = places[heights >= np.quantile(heights, 0.35)]
    at = upper[rng.integers(len(upper))]
    return np.array([chest.z[at[0], 0, 0], chest.y[0, at[1], 0], chest.x[0, 0, at[2]]])


def _blob(
    rng: Generator, chest: Chest, centre: np.ndarray, radius: float, density: float, *,
    edge: float, lobes: float = 0.0,
) -> None:  # fmt: skip
    """A ball whose border is `edge` mm soft and, with lobes, uneven."""
    distance = chest.distance(centre)
    if lobes:
        distance = distance + lobes * radius * chest.noise(rng, 12)
    chest.lay_inside(_within(distance, radius, 1 / edge), density)


def _band(chest: Chest, start: np.ndarray, along: np.ndarray, half: float) -> None:
    """A straight strand from `start` to `start + along` (z, y, x mm)."""
    offset = [axis - s for axis, s in zip((chest.z, chest.y, chest.x), start, strict=True)]
    length = float(along @ along)
    (z, y, x), (dz, dy, dx) = offset, along.astype(np.float32)
    t = np.clip((z * dz + y * dy + x * dx) / length, 0, 1)
    square = (z - t * dz) ** 2 + (y - t * dy) ** 2 + (x - t * dx) ** 2
    chest.lay_inside(_within(np.sqrt(square), half, 0.35), -20)


# ---------------------------------------------------------------- drawing


def _within(distance: np.ndarray, radius: Any, sharpness: float) -> np.ndarray:
    """1 inside, 0 outside, and a ramp of 1 / sharpness between: a voxel's share."""
    return kit.ramp((radius - distance) * sharpness)


def _noise(rng: Generator, shape: tuple[int, ...], cells: int) -> np.ndarray:
    """Smooth noise, about -1..1, `cells` bumps along rows and columns, three quarters in slices."""
    lattice = rng.standard_normal((cells * 3 // 4 + 3, cells + 3, cells + 3), dtype=np.float32)
    for axis, n in enumerate(shape):
        at = np.linspace(0, lattice.shape[axis] - 1.001, n)
        low = at.astype(int)
        part = (at - low).astype(np.float32)
        part = kit.ease(part).reshape([-1 if i == axis else 1 for i in range(3)])
        first, second = lattice.take(low, axis), lattice.take(low + 1, axis)
        lattice = first + part * (second - first)
    return lattice


def _save(
    path: Path,
    volume: np.ndarray,
    spacing: tuple[float, float, float],
    axes: str,
    inter: int = 0,
) -> None:
    """Store (D, H, W) with its axes leading where `axes` says; HU as HU - inter."""
    dz, dy, dx = spacing
    affine = np.array([[0, 0, -dx, 0], [0, -dy, 0, 0], [dz, 0, 0, 0], [0, 0, 0, 1]])
    upright = nib.Nifti1Image((volume - inter).astype(volume.dtype), affine)
    wanted = nib.orientations.axcodes2ornt(tuple(axes))
    image = upright.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(affine), wanted)
    )
    if inter:
        image.header.set_slope_inter(1, inter)
    nib.save(image, path)
