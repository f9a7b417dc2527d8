"""Pure functions of one image (H, W, C): what readers do to it before it is stored."""

import cv2
import numpy as np

from medexp.errors import MedexpError, one_of

INTERPOLATION = {
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "cubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST,
}


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
