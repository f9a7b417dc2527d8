"""Pure functions of one image (H, W, C): what readers do to it before it is stored."""

from collections.abc import Sequence
from typing import Any, Literal

import cv2
import numpy as np

from medexp.errors import ConfigError, MedexpError, one_of

INTERPOLATION = {
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "cubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST,
}
SCALES = ("full", "percentile")
Scale = Literal["full", "percentile"] | Sequence[float]
PERCENTILES = (1, 99)  # of an image's own values: what becomes black and white
BACKGROUNDS = {"black": 0.0, "white": 1.0}
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, as Pillow's L


def centre_crop(image: np.ndarray, size: int) -> np.ndarray:
    """The centred (size, size, C) of an (H, W, C) image, the odd pixel to the bottom right.

    Raises MedexpError where the image is smaller.
    """
    height, width = image.shape[:2]
    if min(height, width) < size:
        raise MedexpError(f"image of {width}x{height}: smaller than a crop of {size}x{size}")
    top, left = (height - size) // 2, (width - size) // 2
    return image[top : top + size, left : left + size]


def centre_square(image: np.ndarray) -> np.ndarray:
    """The centred square of the shorter side."""
    return centre_crop(image, min(image.shape[:2]))


def resize(image: np.ndarray, height: int, width: int, interpolation: str = "area") -> np.ndarray:
    """cv2.resize to (height, width, C), dtype kept. `area` averages when it shrinks an image.

    Raises ConfigError for an interpolation that does not exist.
    """
    one_of("dataset.interpolation", interpolation, list(INTERPOLATION))
    made = cv2.resize(image, (width, height), interpolation=INTERPOLATION[interpolation])
    return made.reshape(height, width, -1)


# ---------------------------------------------------------------- values


def check_scale(scale: Scale | None) -> None:
    """Raise ConfigError for a scale that does not exist."""
    if scale is None:
        return
    if isinstance(scale, str):
        one_of("dataset.scale", scale, SCALES)
        return
    numbers: list[Any] = list(scale) if isinstance(scale, Sequence) else [scale]
    real = all(isinstance(n, (int, float)) and np.isfinite(n) for n in numbers)
    if not real or len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise ConfigError(
            f"dataset.scale={scale}: need full, percentile, or [low, high] with low < high: the "
            "values that become 0 and 1"
        )


def scaled(values: np.ndarray, scale: Scale, ends: tuple[float, float] | None) -> np.ndarray:
    """Stored values to float32 in 0..1.

    full: from the least to the greatest value that the type can hold, `ends`. percentile: from the
    image's own 1st to its 99th percentile, over all its samples; an image of one value becomes 0.
    [low, high]: those. What lies beyond is clipped. Raises MedexpError for NaN or infinity, and
    for full where the type has no ends.
    """
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = values.size - np.count_nonzero(np.isfinite(values))
        raise MedexpError(f"{bad:,} of {values.size:,} values are NaN or infinite")
    if not isinstance(scale, str):
        low, high = (float(end) for end in scale)
    elif scale == "percentile":
        low, high = (float(end) for end in np.percentile(values.astype(np.float64), PERCENTILES))
    elif ends is None:
        raise MedexpError(
            "real numbers have no full range. Give dataset.scale=percentile, or [low, high]"
        )
    else:
        low, high = ends
    if low == high:
        return np.zeros(values.shape, np.float32)
    unit = (values.astype(np.float64) - low) / (high - low)
    return np.clip(unit, 0, 1).astype(np.float32)


def scale_note(scale: Scale | None) -> tuple[str, ...]:
    """What a scale does, for the notes of a data set; () for none."""
    if scale is None:
        return ()
    if scale == "full":
        return ("pixels: the full range of each file's type becomes 0..1",)
    if scale == "percentile":
        span = "{}% to {}%".format(*PERCENTILES)
        return (f"pixels: of each image on its own, the percentiles {span} become 0..1",)
    return ("pixels: the files' values {:g} to {:g} become 0..1".format(*scale),)


def laid_over(unit: np.ndarray, alpha: np.ndarray, level: float, multiplied: bool) -> np.ndarray:
    """Colours (H, W, C) in 0..1, with their opacity (H, W, 1), over a background of one level.

    multiplied: the colours are multiplied by the opacity already.
    """
    colour = unit if multiplied else unit * alpha
    return np.clip(colour + (1 - alpha) * np.float32(level), 0, 1).astype(np.float32)


def with_channels(image: np.ndarray, mode: str | None) -> np.ndarray:
    """An image (H, W, 1 or 3) as L (luma) or RGB; None: as it is."""
    if mode == "RGB" and image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    if mode == "L" and image.shape[2] == 3:
        return (image @ LUMA)[..., None].astype(np.float32)
    return image
