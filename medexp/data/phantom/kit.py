"""What every phantom is drawn and written with: refusals, shares, noise, strokes, covers, files.

A phantom's pixels depend on the size, the seed and its number alone: each draws from a generator
seeded by these, so that many are drawn side by side and yet come out the same.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.random import Generator

from medexp.data.progress import threads
from medexp.errors import ConfigError, MedexpError

Item = TypeVar("Item")
Made = TypeVar("Made")

SHIFT = 4  # OpenCV takes places in 1/16 of a pixel
FINE = 2**SHIFT


# ---------------------------------------------------------------- how many, and side by side


def check(size: int, seed: int, least: int = 16) -> None:
    """Raise ConfigError for a size below `least`, too few for every class, or a seed below 0."""
    if size < least:
        raise ConfigError(f"source.size={size}: need {least} or more, a few of each class")
    if seed < 0:
        raise ConfigError(f"source.seed={seed}: need 0 or more")


def shares(size: int, public: Sequence[int], least: int = 0) -> list[int]:
    """`size` dealt out in the proportions of the public set's classes.

    The largest class gets what the others leave, which are rounded and have `least` at least.
    """
    counts = [max(least, round(size * part / sum(public))) for part in public]
    largest = int(np.argmax(public))
    counts[largest] += size - sum(counts)
    return counts


def side_by_side(make: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
    """make(item) of each item, in order, from several threads; a few results wait at a time."""
    every = list(items)
    with ThreadPoolExecutor(threads()) as pool:
        for start in range(0, len(every), 4 * threads()):
            yield from pool.map(make, every[start : start + 4 * threads()])


# ---------------------------------------------------------------- files


def write_each(write: Callable[[Item], None], items: Iterable[Item]) -> None:
    """write(item) of each item, from several threads."""
    for _ in side_by_side(write, items):
        pass


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows(rows)


def save(path: Path, image: np.ndarray) -> None:
    """An RGB image (H, W, 3) or mask (H, W) as its suffix says, by OpenCV's encoders."""
    bgr = np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 else image
    if not cv2.imwrite(str(path), bgr):
        raise MedexpError(f"{path}: cannot be written; is the disk full?")


# ---------------------------------------------------------------- noise


def clouds(rng: Generator, shape: tuple[int, ...], wavelength: float) -> np.ndarray:
    """Smooth noise of unit variance, float32, `wavelength` in pixels."""
    noise = cv2.GaussianBlur(rng.standard_normal(shape, np.float32), (0, 0), wavelength / 2)
    smooth: np.ndarray = noise / noise.std()
    return smooth


# ---------------------------------------------------------------- places and covers


def turned(x: Any, y: Any, cos: Any, sin: Any) -> tuple[Any, Any]:
    """Coordinates along an axis of that direction, and across it."""
    return x * cos + y * sin, y * cos - x * sin


def turned_by(x: Any, y: Any, angle: float) -> tuple[Any, Any]:
    return turned(x, y, np.cos(angle), np.sin(angle))


def ramp(level: Any, softness: float = 1) -> np.ndarray:
    """0 below -softness/2, 1 above softness/2, straight between."""
    return np.clip(level / softness + 0.5, 0, 1)  # type: ignore[no-any-return]


def ease(t: Any) -> np.ndarray:
    """0..1 to 0..1, level at both ends."""
    return t * t * (3 - 2 * t)  # type: ignore[no-any-return]


def lay(canvas: np.ndarray, cover: np.ndarray, value: Any) -> None:
    """Mix a value, colour or picture into the canvas, in place, by a cover of 0..1.

    All broadcast, but for a cover (H, W) of a canvas (H, W, 3).
    """
    if cover.ndim == 2 and canvas.shape == (*cover.shape, 3):
        cover = cover[..., None]
    canvas += cover * (np.asarray(value, np.float32) - canvas)


# ---------------------------------------------------------------- strokes, (x, y) in pixels


def fine(point: np.ndarray, zoom: int = 1) -> list[int]:
    """Places in sixteenths of a pixel, as OpenCV takes them with SHIFT."""
    return np.rint(zoom * FINE * point).astype(int).tolist()  # type: ignore[no-any-return]


def line(
    picture: np.ndarray, start: np.ndarray, end: np.ndarray, colour: Any, thick: int, zoom: int = 1
) -> None:
    """zoom: pixels of the picture to one of the places'."""
    places = fine(start, zoom), fine(end, zoom)
    cv2.line(picture, *places, colour, thick, cv2.LINE_AA, SHIFT)


def disc(picture: np.ndarray, centre: np.ndarray, radius: float, colour: Any) -> None:
    cv2.circle(picture, fine(centre), round(FINE * radius), colour, -1, cv2.LINE_AA, SHIFT)


def polygon(picture: np.ndarray, points: np.ndarray, value: Any) -> None:
    """Fill a closed line of points (n, 2)."""
    cv2.fillPoly(picture, [np.array(fine(points), np.int32)], value, cv2.LINE_AA, SHIFT)
