"""Photographs of a user's own: how one becomes an array, and the pool of many.

What the readers of class folders (read/image_folder.py) and of tables (read/csv_table.py) share.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medexp.data.base import NewFiles, Pool
from medexp.data.files import IMAGES, is_grey, read_image
from medexp.data.pixels import (
    BACKGROUNDS,
    INTERPOLATION,
    Scale,
    centre_square,
    check_scale,
    resize,
    scale_note,
)
from medexp.data.segment import KINDS, Segmenter, segmenter
from medexp.errors import ConfigError, MedexpError, one_of

# A part of the split, by the names that folders and cells of tables have for it in any case.
PARTS_OF = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
TRIED = 20  # images opened in search of the first that can be read

Channels = Literal["rgb", "grey", "auto"]
Crop = Literal["none", "square"]
Segment = Literal["none", "slic_knn"]
Background = Literal["black", "white"]


@dataclass(frozen=True)
class Pixels:
    """How a photograph becomes an array: the arguments that both readers share.

    Raises ConfigError for a size that is none, or a choice that does not exist.
    """

    size: int | list[int] | None
    channels: str
    crop: str
    interpolation: str
    segmenter: Segmenter | None
    scale: Scale | None = None
    background: str = "black"

    def __post_init__(self) -> None:
        sides = self.sides
        if sides is not None and (len(sides) != 2 or min(sides) < 1):
            raise ConfigError(
                f"dataset.size={self.size}: need a side, [height, width], or null for images that "
                "all have one size"
            )
        one_of("dataset.channels", self.channels, ("rgb", "grey", "auto"))
        one_of("dataset.crop", self.crop, ("none", "square"))
        one_of("dataset.interpolation", self.interpolation, list(INTERPOLATION))
        one_of("dataset.background", self.background, list(BACKGROUNDS))
        check_scale(self.scale)
        if self.segmenter and self.scale is not None:
            raise ConfigError(
                f"dataset.scale={self.scale}: dataset.segment=slic_knn compares colours of 8 bits "
                "with its references, and takes no scale. Leave one of the two out"
            )
        if self.segmenter and self.channels != "rgb":
            raise ConfigError(
                f"dataset.channels={self.channels}: dataset.segment=slic_knn goes by colour and "
                "needs dataset.channels=rgb"
            )

    @property
    def sides(self) -> list[int] | None:
        """[height, width]."""
        return [self.size, self.size] if isinstance(self.size, int) else self.size

    @property
    def dtype(self) -> Any:
        """Of the images: a scale's result is not rounded to 8 bits again."""
        return np.uint8 if self.scale is None else np.float32

    def read(self, file: Path, mode: str | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        return read_image(file, mode, scale=self.scale, background=self.background)

    def notes(self) -> tuple[str, ...]:
        """What is done to the pixels' values, in words."""
        return (*scale_note(self.scale), *([self.segmenter.note()] if self.segmenter else []))

    def cut(self, image: np.ndarray) -> np.ndarray:
        return centre_square(image) if self.crop == "square" else image

    def settings(self) -> dict[str, Any]:
        """What decides the pixels, JSON-ready."""
        return {
            "size": self.size,
            "channels": self.channels,
            "crop": self.crop,
            "interpolation": self.interpolation,
            "segment": self.segmenter.settings() if self.segmenter else None,
            "scale": list(self.scale) if isinstance(self.scale, (list, tuple)) else self.scale,
            "background": self.background,
        }


def segmenter_of(
    segment: str, references: str | None, segments: int, closest: int
) -> Segmenter | None:
    """The segmentation asked for, None for none; ConfigError where it lacks its references."""
    one_of("dataset.segment", segment, KINDS)
    if segment == "none":
        return None
    if references is None:
        raise ConfigError(
            "dataset.segment=slic_knn: which colours has the organ? Name a folder of images with "
            "masks, or a CSV of r,g,b, with dataset.references="
        )
    place = Path(references)
    return segmenter(place.parent, references, segments=segments, closest=closest)


def check_classes(classes: Sequence[str | int] | None) -> list[str]:
    """The names given for the classes, [] for None; ConfigError unless they are two or more."""
    if classes is None:
        return []
    names = [str(name) for name in classes]
    if len(set(names)) < max(2, len(names)):
        raise ConfigError(
            f"dataset.classes={list(classes)}: need two different names or more, or null for all"
        )
    return names


def in_order(names: Iterable[str]) -> list[str]:
    """Sorted by number where all are integers, else by name."""
    numbers = all(re.fullmatch(r"-?\d+", name) for name in names)
    return sorted(names, key=lambda name: (int(name) if numbers else 0, name))


# ---------------------------------------------------------------- the pool


@dataclass(frozen=True)
class Photographs:
    """The images that a reader lists, one entry of each an image.

    parts: "" for an image that is still to be split. groups: patients; None: unknown. places: the
    rows of a table that name the files, in words; None where the files were found.
    """

    files: list[Path]
    labels: list[int]
    parts: list[str]
    groups: list[str] | None = None
    places: list[str] | None = None
    notes: tuple[str, ...] = field(default=())


def make_pool(
    name: str, root: Path, classes: Sequence[str], images: Photographs, pixels: Pixels
) -> Pool:
    """The pool of these images; ids are the files' paths below root.

    Raises MedexpError for a file name that no CSV of predictions could hold, and where the shape
    follows from the images and none of the first can be read.
    """
    ids = [file.relative_to(root).as_posix() for file in images.files]
    for key in ids:
        try:
            key.encode()
        except UnicodeEncodeError:
            raise MedexpError(f"{root}: the file name {key!a} is not UTF-8. Rename it") from None
    shape = shape_of(images.files, pixels)
    unsplit = set(images.parts) in ({""}, {"train"})
    return Pool(
        name=name,
        classes=tuple(classes),
        labels=np.array(images.labels, np.int64),
        ids=np.array(ids),
        files=images.files,
        shape=shape,
        dtype=pixels.dtype,
        decode=decoder(images, shape, pixels),
        settings=pixels.settings(),
        groups=None if images.groups is None else np.array(images.groups),
        parts=None if unsplit else np.array(images.parts),
        notes=(*images.notes, *pixels.notes()),
    )


def shape_of(files: Sequence[Path], pixels: Pixels) -> tuple[int, int, int]:
    """(H, W, C) of the decoded images; what the settings leave open, the first image says."""
    sides, depth = pixels.sides, {"rgb": 3, "grey": 1}.get(pixels.channels)
    if sides is None or depth is None:
        image = pixels.cut(first_readable(files, pixels))
        sides = sides or list(image.shape[:2])
        depth = depth or image.shape[2]
    return (sides[0], sides[1], depth)


def first_readable(files: Sequence[Path], pixels: Pixels) -> np.ndarray:
    failure = MedexpError("no images")
    for file in files[:TRIED]:
        try:
            return pixels.read(file)[0]
        except MedexpError as error:
            failure = error
    raise failure


def decoder(
    images: Photographs, shape: tuple[int, int, int], pixels: Pixels
) -> Callable[[int], tuple[np.ndarray, dict[str, Any]]]:
    """row -> (image of `shape` and the pixels' dtype; what files.read_image says of the file)."""

    def decode(row: int) -> tuple[np.ndarray, dict[str, Any]]:
        file = images.files[row]
        if images.places and not os.path.exists(file):
            raise MedexpError(
                f"{images.places[row]} names {file}, which cannot be found. Correct the row, or "
                "leave such images out with dataset.on_error=skip"
            )
        return photograph(file, shape, pixels)

    return decode


def new_photographs(shape: tuple[int, ...], pixels: Pixels) -> NewFiles:
    """How photographs without labels are read: as those of a pool of that shape."""
    height, width, depth = shape

    def read(file: Path, number: int) -> tuple[np.ndarray, dict[str, Any]]:
        return photograph(file, (height, width, depth), pixels)

    return NewFiles(IMAGES, (height, width, depth), pixels.dtype, read)


def photograph(
    file: Path, shape: tuple[int, int, int], pixels: Pixels
) -> tuple[np.ndarray, dict[str, Any]]:
    """A file's image of that shape and the pixels' dtype, and what the file says of itself."""
    height, width, depth = shape
    image, facts = pixels.read(file, "L" if depth == 1 else "RGB")
    if pixels.channels == "auto" and depth == 1 and not is_grey(facts["mode"]):
        raise MedexpError(
            f"{file} has colours, where dataset.channels=auto took grey from the first image. "
            "Give dataset.channels=rgb or grey"
        )
    image = pixels.cut(image)
    if pixels.sides is not None:
        image = resize(image, height, width, pixels.interpolation)
        if image.dtype != np.uint8:
            image = np.clip(image, 0, 1)  # cubic leaves the range, as it cannot with 8 bits
    elif image.shape != shape:
        raise MedexpError(
            f"{file} is {image.shape[1]}x{image.shape[0]} pixels, where the first image is "
            f"{width}x{height}. Give dataset.size= to bring all to one size"
        )
    return pixels.segmenter(image) if pixels.segmenter else image, facts
