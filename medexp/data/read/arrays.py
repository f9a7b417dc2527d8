"""Images and labels of a user's own in .npz or .npy files; docs/your_own_data.md.

One .npz of named arrays, or a folder of .npy files, which are then the arrays: `images` and
`labels` (and `groups`, whose images are), or the same of each part: `train_images`, `train_labels`,
`val_...`, `test_...`. MedMNIST's files are such (read/medmnist.py). There is no INFO: no public set
is behind them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medexp.data.base import PARTS, Pool
from medexp.data.files import folder
from medexp.data.npz import Stored, find_arrays
from medexp.data.pixels import (
    INTERPOLATION,
    Scale,
    check_scale,
    resize,
    scale_note,
    scaled,
    with_channels,
)
from medexp.errors import ConfigError, MedexpError, one_of

LAYOUTS = {  # of the images' axes -> where (depth,) height, width and channels are found
    "nhw": (0, 1, None),
    "nhwc": (0, 1, 2),
    "nchw": (1, 2, 0),
    "ndhw": (0, 1, 2, None),
    "ndhwc": (0, 1, 2, 3),
    "ncdhw": (1, 2, 3, 0),
}
Layout = Literal["auto", "nhw", "nhwc", "nchw", "ndhw", "ndhwc", "ncdhw"]
Channels = Literal["auto", "rgb", "grey"]


def load(
    root: str | Path,
    *,
    file: str | None = None,
    images: str = "images",
    labels: str = "labels",
    groups: str | None = "groups",
    classes: list[str | int] | None = None,
    layout: Layout = "auto",
    size: int | list[int] | None = None,
    channels: Channels = "auto",
    interpolation: str = "area",
    scale: Scale | None = None,
) -> Pool:
    """List the images of arrays, in their order; ids are their numbers, or part and number.

    file: an .npz below root; None: the only one there, or else the .npy files of root.
    images, labels, groups: the arrays' names, alone or as train_NAME or NAME_train, and so of val
        and test. Labels are integers or text, (N,) or (N, 1), or one column a class with a single
        1 in each row. groups need not be there, unless an array looks like them; None uses none.
    classes: of integer labels the names, from 0; of text labels these, in their order. None: the
        labels themselves.
    layout: the images' axes, of n, d, h, w and c. auto: three are nhw, five ndhwc (or ncdhw); four
        are nhwc or nchw where one of them has 1 or 3 places there, else ndhw.
    size: side or [height, width] that images are resized to; None: as they are, and so for volumes.
    channels: auto (as they are), rgb or grey.
    scale: as of read/image_folder.py. None: uint8 and real numbers of 0..1 as they are.

    Images are (H, W, C) or (D, H, W, C), uint8, or float32 in 0..1. Raises ConfigError for values
    that do not exist; MedexpError for files and arrays that are missing, damaged, of other shapes
    or types, and for labels that are none. Pickled objects are never loaded.
    """
    base = folder(Path(root), "it should hold an .npz, or .npy files")
    one_of("dataset.layout", layout, ("auto", *LAYOUTS))
    way = Way(layout, size, channels, interpolation, scale)
    store = find_arrays(base, file)
    parts = find_parts(store, base, images, labels)
    return pool_of(
        "arrays",
        [(part, *pair) for part, pair in parts.items()],
        way,
        classes,
        find_groups(store, base, list(parts), groups),
    )


@dataclass(frozen=True)
class Way:
    """How the images become what they should be: arguments of `load`."""

    layout: str
    size: int | list[int] | None
    channels: str
    interpolation: str
    scale: Scale | None

    def __post_init__(self) -> None:
        one_of("dataset.channels", self.channels, ("auto", "rgb", "grey"))
        one_of("dataset.interpolation", self.interpolation, list(INTERPOLATION))
        check_scale(self.scale)
        if self.sides is not None and (len(self.sides) != 2 or min(self.sides) < 1):
            raise ConfigError(
                f"dataset.size={self.size}: need a side, [height, width], or null for images as "
                "they are"
            )

    @property
    def sides(self) -> list[int] | None:
        return [self.size, self.size] if isinstance(self.size, int) else self.size

    def settings(self) -> dict[str, Any]:
        """What decides the pixels, JSON-ready."""
        scale = self.scale if self.scale is None or isinstance(self.scale, str) else [*self.scale]
        return {**vars(self), "size": self.sides, "scale": scale}


# ---------------------------------------------------------------- the arrays


def named(store: dict[str, Stored], part: str, name: str) -> Stored | None:
    """The array of that name in a part; part "": of the whole."""
    names = [f"{part}_{name}", f"{name}_{part}"] if part else [name]
    return next((store[key] for key in names if key in store), None)


def find_parts(
    store: dict[str, Stored], root: Path, images: str, labels: str
) -> dict[str, tuple[Stored, Stored]]:
    """part -> its images and labels; part "" alone where the arrays are not split."""
    pairs = {
        part: (named(store, part, images), named(store, part, labels)) for part in ("", *PARTS)
    }
    found = {part: pair for part, pair in pairs.items() if pair[0] is not None}
    held = ", ".join(f"{name} {array.shape}" for name, array in store.items()) or "no arrays"
    if not found or ("" not in found and "train" not in found):
        raise MedexpError(
            f"{root}: no array {images} or train_{images} in it (it has: {held}). Name the arrays "
            "with dataset.images= and dataset.labels="
        )
    if "" in found and len(found) > 1:
        raise MedexpError(
            f"{root}: both {images} and {' and '.join(f'{p}_{images}' for p in found if p)} are "
            "there. Keep the one or the others"
        )
    for part, (_, wanted) in found.items():
        if wanted is None:
            name = f"{part}_{labels}" if part else labels
            raise MedexpError(
                f"{root}: no array {name} in it (it has: {held}). Images without labels cannot be "
                "trained on or scored; name them with dataset.labels="
            )
    return found  # type: ignore[return-value]


def find_groups(
    store: dict[str, Stored], root: Path, parts: Sequence[str], groups: str | None
) -> list[Stored]:
    """The groups of each part, [] where there are none.

    Raises MedexpError where some parts lack them, and where there are none of that name but an
    array looks like them: patients that are overlooked leak across a split.
    """
    if groups is None:
        return []
    found = [array for part in parts if (array := named(store, part, groups))]
    if found and len(found) < len(parts):
        raise MedexpError(f"{root}: {groups} are there for some of {', '.join(parts)}, not for all")
    similar = [n for n in store if any(word in n.lower() for word in ("patient", "subject"))]
    if not found and (similar or groups != "groups"):
        held = f"but {similar[0]}. If that is what it holds, give" if similar else "give"
        raise MedexpError(
            f"{root}: no array {groups} in it, {held} its name as dataset.groups=, if not, "
            "dataset.groups=null"
        )
    return found


# ---------------------------------------------------------------- labels


def labels_of(array: Stored, count: int) -> np.ndarray:
    """(N,) int64 or text; MedexpError where it is not a label an image."""
    values = array.whole()
    if len(values) != count:
        raise MedexpError(f"{array.name}: {len(values):,} labels for {count:,} images")
    values = values.reshape(count, -1)
    if values.shape[1] > 1:  # one column a class
        numbers = values.dtype.kind in "iubf"
        if not numbers or not (np.isin(values, (0, 1)).all() and (values.sum(axis=1) == 1).all()):
            raise MedexpError(
                f"{array.name}: {values.shape[1]} labels an image, and not a single 1 among them: "
                "several labels an image (multi-label) cannot be trained. Give one"
            )
        return np.asarray(values.argmax(axis=1), np.int64)
    values = values[:, 0]
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values % 1 == 0).all():
        values = values.astype(np.int64)
    if values.dtype.kind in "US":
        return values.astype(str)
    if values.dtype.kind not in "iub":
        raise MedexpError(f"{array.name}: labels of type {values.dtype}: need integers or text")
    return values.astype(np.int64)


def numbered(
    labels: np.ndarray, classes: Sequence[str | int] | None, where: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as 0..classes-1, and the names of the classes."""
    found, index = np.unique(labels, return_inverse=True)
    if classes is None:
        return index.astype(np.int64), tuple(map(str, found))
    names = tuple(map(str, classes))
    if labels.dtype.kind == "i":
        odd = found[(found < 0) | (found >= len(names))]
        place: dict[Any, int] = {number: number for number in range(len(names))}
    else:
        odd = found[~np.isin(found, names)]
        place = {name: number for number, name in enumerate(names)}
    if len(odd):
        raise MedexpError(
            f"{where}: label {odd[0]} has no place in dataset.classes ({', '.join(names)})"
        )
    return np.array([place[value.item()] for value in found], np.int64)[index], names


# ---------------------------------------------------------------- the pool


def pool_of(
    name: str,
    parts: Sequence[tuple[str, Stored, Stored]],
    way: Way,
    classes: Sequence[str | int] | None,
    groups: Sequence[Stored] = (),
    public: dict[str, int] | None = None,
) -> Pool:
    """A pool of (part, images, labels), and perhaps the groups of each.

    Raises MedexpError for shapes and types that do not fit.
    """
    first = parts[0][1]
    places = axes_of(first, way.layout)
    for _, images, _ in parts:
        if images.shape[1:] != first.shape[1:] or images.dtype != first.dtype:
            raise MedexpError(
                f"{images.name} holds {images.shape[1:]} {images.dtype}, where {first.name} holds "
                f"{first.shape[1:]} {first.dtype}. All parts need one shape and type"
            )
    if first.dtype.kind not in "iubf":
        raise MedexpError(f"{first.name}: images of type {first.dtype}: need numbers")
    counts = [images.shape[0] for _, images, _ in parts]
    starts = np.cumsum([0, *counts])
    labels = np.concatenate(
        [labels_of(array, n) for (_, _, array), n in zip(parts, counts, strict=True)]
    )
    numbers, names = numbered(labels, classes, parts[0][2].name)
    readers = [images.rows() for _, images, _ in parts]
    convert = converter(first, places, way)

    def decode(row: int) -> tuple[np.ndarray, dict[str, Any]]:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        number = row - int(starts[part])
        try:
            return convert(readers[part](number)), {}
        except MedexpError as error:
            where = parts[part][1].name
            raise MedexpError(f"{where}, row {number}: {error}") from None

    keys = [
        f"{part}/{i:06d}" if part else f"{i:06d}"
        for (part, *_), n in zip(parts, counts, strict=True)
        for i in range(n)
    ]
    return Pool(
        name=name,
        classes=names,
        labels=numbers,
        ids=np.array(keys),
        files=[
            images.path for (_, images, _), n in zip(parts, counts, strict=True) for _ in range(n)
        ],
        shape=convert(np.zeros(first.shape[1:], first.dtype)).shape,
        dtype=np.uint8 if first.dtype == np.uint8 and way.scale is None else np.float32,
        decode=decode,
        settings={**way.settings(), "arrays": [[i.path.name, i.member] for _, i, _ in parts]},
        groups=groups_of(groups, counts) if groups else None,
        parts=np.repeat([part for part, *_ in parts], counts) if parts[0][0] else None,
        public=public,
        notes=scale_note(way.scale),
    )


def groups_of(arrays: Sequence[Stored], counts: Sequence[int]) -> np.ndarray:
    for array, count in zip(arrays, counts, strict=True):
        if array.shape not in ((count,), (count, 1)):
            raise MedexpError(f"{array.name}: shape {array.shape}, but {count:,} images")
    return np.concatenate([array.whole().reshape(-1).astype(str) for array in arrays])


def axes_of(images: Stored, layout: str) -> tuple[int | None, ...]:
    """Where an image's axes are found, channels last; MedexpError where the shape does not say."""
    shape = images.shape
    if layout == "auto":
        layout = guess(shape)
    if len(layout) != len(shape):  # a letter an axis
        raise MedexpError(
            f"{images.name}: images of shape {shape}: which axes are they? Give dataset.layout= "
            f"one of {', '.join(LAYOUTS)}, with as many letters as axes"
        )
    if 0 in shape:
        raise MedexpError(f"{images.name}: no images, shape {shape}")
    return LAYOUTS[layout]


def guess(shape: tuple[int, ...]) -> str:
    """The layout that a shape tells; "" for none."""
    last, second = shape[-1] in (1, 3), len(shape) > 1 and shape[1] in (1, 3)
    if len(shape) == 3:
        return "nhw"
    if len(shape) == 4:
        four = {(True, False): "nhwc", (False, True): "nchw", (False, False): "ndhw"}
        return four.get((last, second), "")
    if len(shape) == 5:
        return {(True, False): "ndhwc", (False, True): "ncdhw"}.get((last, second), "")
    return ""


def ends_of(dtype: np.dtype) -> tuple[float, float]:
    """The least and greatest value of an integer type or of bool."""
    if dtype.kind == "b":
        return 0.0, 1.0
    return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)


def converter(
    images: Stored, places: tuple[int | None, ...], way: Way
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from a row as it is stored to the image: axes, values, channels, size."""
    volume = len(places) == 4
    order = [place for place in places if place is not None]
    dtype = images.dtype
    if volume and way.sides is not None:
        raise ConfigError(f"dataset.size={way.size}: volumes keep their size. Give null")
    if volume and way.channels != "auto":
        raise ConfigError(f"dataset.channels={way.channels}: volumes keep theirs. Give auto")
    if dtype.kind != "f" and dtype != np.uint8 and way.scale is None:
        raise MedexpError(
            f"{images.name}: images of {dtype}: which values are black and white? Give "
            "dataset.scale=full, percentile, or [low, high]"
        )
    real = dtype.kind == "f"
    ends = None if real else ends_of(dtype)

    def convert(row: np.ndarray) -> np.ndarray:
        image = row.transpose(order) if places[-1] is not None else row[..., None]
        if way.scale is not None:
            image = scaled(image, way.scale, ends)
        elif real:
            if not np.isfinite(image).all() or image.min() < 0 or image.max() > 1:
                raise MedexpError(
                    f"values {image.min():g} to {image.max():g}, not 0..1. Give dataset.scale=, "
                    "which says what they are"
                )
            image = image.astype(np.float32)
        if way.channels != "auto" and image.shape[2] not in (1, 3):
            raise MedexpError(f"{image.shape[2]} channels, which cannot be made {way.channels}")
        if way.channels != "auto":
            whole = image.dtype == np.uint8
            image = with_channels(image, {"rgb": "RGB", "grey": "L"}[way.channels])
            image = np.round(image).astype(np.uint8) if whole else image
        if way.sides is not None:
            height, width = way.sides
            image = resize(np.ascontiguousarray(image), height, width, way.interpolation)
            image = image if image.dtype == np.uint8 else np.clip(image, 0, 1)
        return np.ascontiguousarray(image)

    return convert
