"""Synthetic chest CT patches in the LUNA16 patches' own file, for trials without the download.

Each patch shows lung with vessels and, in some, a piece of chest wall; a finding lies near its
centre. Label 1: a nodule with lobes and spicules and a mottled inside. Label 0: a smooth round
nodule, or a vessel that runs through the plane. Both kinds of finding have the same distribution of
area and brightness, and the patches around them are drawn alike, so that neither the grey level nor
the contrast gives the label away: a model has to learn outline and texture.

Patches come in scans of a few, which share the lung's grey level, the reconstruction's sharpness
and the noise, as slices of one patient do. Values are 0..255 (a CT window applied) in float32.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import numpy as np
from numpy.random import Generator

from medexp.data.phantom import kit

SIDE = 64
SHAPE = (SIDE, SIDE)
PUBLIC = (6691 - 2526, 2526)  # patches of label 0 and 1
PER_SCAN = 6
ZOOM = 3  # vessels are thinner than a pixel at their ends: drawn larger, then averaged
VESSEL_SHARE = 0.25  # of the benign: a vessel's bulge instead of a nodule
WALL_SHARE = 0.35  # patches with chest wall

Y, X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)


@dataclass(frozen=True)
class Scan:
    """What the patches of one scan share, in grey levels and pixels."""

    air: float
    tissue: float
    blur: float
    noise: float
    vessels: float  # expected number a patch


def write(folder: Path, *, size: int = 1500, seed: int = 0) -> None:
    """Write `size` patches as all_patches.hdf5: ct_slices (size, 64, 64) float32, slice_class
    (size, 1) int64, 37.8% of them 1 as in the public set.

    folder: an existing folder. Raises ConfigError for a size below 16 or a negative seed.
    """
    kit.check(size, seed)
    rng = np.random.default_rng([seed, size])
    labels = rng.permutation(np.arange(size) < kit.shares(size, PUBLIC)[1]).astype(np.int64)
    patches = np.empty((size, SIDE, SIDE), np.float32)
    for start in range(0, size, PER_SCAN):
        scan = _scan(rng)
        for row in range(start, min(start + PER_SCAN, size)):
            patches[row] = _patch(rng, scan, bool(labels[row]))
    with h5py.File(folder / "all_patches.hdf5", "w") as file:
        file.create_dataset(
            "ct_slices", data=patches, chunks=(16, SIDE, SIDE), compression="gzip",
            compression_opts=1,
        )  # fmt: skip
        file.create_dataset("slice_class", data=labels[:, None])


def _scan(rng: Generator) -> Scan:
    air = rng.uniform(25, 70)
    return Scan(
        air=air,
        tissue=air + rng.uniform(110, 165),
        blur=rng.uniform(0.55, 1.1),
        noise=rng.uniform(3, 11),
        vessels=rng.uniform(1.5, 5),
    )


def _patch(rng: Generator, scan: Scan, malignant: bool) -> np.ndarray:
    """One patch (64, 64) float32, whole numbers 0..255."""
    density = 0.06 * kit.clouds(rng, SHAPE, 8) + 0.04 * kit.clouds(
        rng, SHAPE, 3
    )  # 0: air, 1: soft tissue
    density = np.maximum(density, _vessels(rng, rng.poisson(scan.vessels)))
    density = np.maximum(density, _finding(rng, malignant))
    if rng.random() < WALL_SHARE:
        density = np.maximum(density, _wall(rng))
    image = scan.air + (scan.tissue - scan.air) * density
    image = cv2.GaussianBlur(image.astype(np.float32), (0, 0), scan.blur)
    # CT noise is correlated over about a pixel.
    noise = cv2.GaussianBlur(rng.standard_normal(SHAPE, np.float32), (0, 0), 0.6)
    image += scan.noise * 2 * noise
    pixels: np.ndarray = np.clip(np.rint(image), 0, 255)
    return pixels


def _finding(rng: Generator, malignant: bool) -> np.ndarray:
    """Density of the nodule or vessel near the centre.

    Area and mean density are drawn first and alike for both labels; the outline is then scaled, and
    the inside shifted, to meet them.
    """
    area = np.pi * np.exp(rng.uniform(np.log(4.0), np.log(10.5))) ** 2
    level = rng.uniform(0.72, 1.0)
    centre = SIDE / 2 + rng.normal(0, 2.5, 2)
    if malignant:
        outline = _outline(rng, lobes=rng.uniform(0.07, 0.16), spicules=int(rng.integers(4, 14)))
        mottle = 0.12
    elif rng.random() < VESSEL_SHARE:
        outline = _tube(rng)
        mottle = 0.03
    else:
        outline = _outline(rng, lobes=rng.uniform(0.0, 0.04), spicules=0)
        mottle = 0.03
    finding: np.ndarray = _filled(outline, centre, area) * (
        level + mottle * kit.clouds(rng, SHAPE, 4)
    )
    return finding


def _outline(rng: Generator, lobes: float, spicules: int) -> np.ndarray:
    """Points (n, 2) around the origin of a nodule's border, radius about one."""
    angle = np.linspace(0, 2 * np.pi, 256, endpoint=False)
    radius = np.ones_like(angle)
    for waves in (2, 3, 4, 5):
        radius += lobes * rng.normal() * np.cos(waves * angle + rng.uniform(0, 2 * np.pi))
    radius = np.maximum(radius, 0.5)
    for _ in range(spicules):
        away = np.angle(np.exp(1j * (angle - rng.uniform(0, 2 * np.pi))))
        radius += rng.uniform(0.15, 0.9) * np.exp(-np.abs(away) / rng.uniform(0.04, 0.12))
    stretch = rng.uniform(0.78, 1.0)
    points = np.stack([radius * np.cos(angle), radius * stretch * np.sin(angle)], axis=1)
    return _turned(rng, points)


def _tube(rng: Generator) -> np.ndarray:
    """The outline of a vessel that runs along the plane for a while: a bent, tapered band."""
    along = np.linspace(-1, 1, 64)
    middle = rng.uniform(-0.5, 0.5) * along**2
    width = rng.uniform(0.16, 0.3) * (1 - 0.3 * along) * np.sqrt(np.maximum(1 - along**6, 0))
    upper = np.stack([along, middle + width], axis=1)
    lower = np.stack([along, middle - width], axis=1)[::-1]
    return _turned(rng, np.concatenate([upper, lower]))


def _turned(rng: Generator, points: np.ndarray) -> np.ndarray:
    x, y = points.T
    return np.stack(kit.turned_by(x, y, -rng.uniform(0, 2 * np.pi)), axis=1)


def _filled(outline: np.ndarray, centre: np.ndarray, area: float) -> np.ndarray:
    """The outline scaled to an area in pixels and filled: (64, 64) in 0..1."""
    x, y = outline.T
    enclosed = 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
    points = outline * np.sqrt(area / enclosed) + centre
    mask = np.zeros(SHAPE, np.uint8)
    kit.polygon(mask, points, 255)
    return mask.astype(np.float32) / 255


def _vessels(rng: Generator, number: int) -> np.ndarray:
    """Tapering vessels that branch, across the patch: (64, 64) in 0..1."""
    canvas = np.zeros((ZOOM * SIDE, ZOOM * SIDE), np.uint8)
    for _ in range(number):
        start, angle = rng.uniform(-8, SIDE + 8, 2), rng.uniform(0, 2 * np.pi)
        _grow(rng, canvas, start, angle, rng.uniform(0.8, 3.0), rng.uniform(0.45, 0.95))
    small = cv2.resize(canvas, SHAPE, interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255


def _grow(
    rng: Generator, canvas: np.ndarray, at: np.ndarray, angle: float, width: float, level: float
) -> None:
    """Draw one vessel until it is too thin to be seen; each branch takes a part of its width."""
    curl = rng.normal(0, 0.08)
    while width > 0.5:
        ahead = at + 4 * np.array([np.cos(angle), np.sin(angle)])
        thick = max(round(ZOOM * width), 1)
        kit.line(canvas, at, ahead, round(255 * level), thick, zoom=ZOOM)
        if rng.random() < 0.15:
            side = angle + rng.choice([-1, 1]) * rng.uniform(0.5, 1.1)
            _grow(rng, canvas, ahead, side, 0.7 * width, level)
        at, angle, width = ahead, angle + curl + rng.normal(0, 0.12), width * 0.93


def _wall(rng: Generator) -> np.ndarray:
    """Chest wall with its pleura along one side: (64, 64), 1 inside and a brighter rib in some."""
    angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(14, 27)
    across, along = kit.turned_by(X - SIDE / 2, Y - SIDE / 2, angle)
    inside = across - depth + rng.uniform(0.0, 0.008) * along**2
    wall = np.clip(inside + 0.5, 0, 1) * rng.uniform(0.85, 1.05)
    rib = np.hypot((inside - 9) / 4, (along - rng.uniform(-20, 20)) / 9)
    both: np.ndarray = np.maximum(wall, 1.35 * np.clip(2.5 * (1 - rib), 0, 1))
    return both
