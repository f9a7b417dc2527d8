"""Images and tables that the tests of photographs write, and what they should become."""

import zlib

import cv2
import numpy as np
from PIL import Image


def pixels(seed, height=20, width=30, channels=3):
    """A smooth random image, (height, width[, 3]) uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, channels), dtype=np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return image.reshape(height, width, channels).squeeze()


def save(path, image=None, **options):
    """Write an image with Pillow, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if image is None:
        image = pixels(zlib.crc32(path.name.encode()))
    Image.fromarray(image).save(path, **options)
    return path


def table(folder, text, name="labels.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def expected(path, size=None, mode="RGB", square=False):
    """The image as medexp should have it, by Pillow, slicing and OpenCV alone."""
    image = np.asarray(Image.open(path).convert(mode))
    if square:
        height, width = image.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
    if size:
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    return image.reshape(*image.shape[:2], -1)


def decoded(pool):
    """Every image of a pool by its id."""
    return {str(key): pool.decode(row)[0] for row, key in enumerate(pool.ids)}
