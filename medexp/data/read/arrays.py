"""Images and labels of a user's own in .npz or .npy files; docs/your_own_data.md.

One .npz of named arrays, or a folder of .npy files, which are then the arrays: `images` and
`labels` (and `groups`, whose images are), or the same of each part: `train_images`, `train_labels`,
`val_...`, `test_...`. MedMNIST's files are such (read/medmnist.py). There is no INFO: no public set
is behind them.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from medexp.data.axes import LAYOUTS, Channels, Layout, Way, axes_of, converter
from medexp.data.base import PARTS, NewFiles, Pool
from medexp.data.files import folder
from medexp.data.npz import Stored, find_arrays, stored_in
from medexp.data.pixels import Scale, scale_note
from medexp.errors import MedexpError, one_of


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


def load_new(
    shape: tuple[int, ...],
    *,
    images: str = "images",
    layout: Layout = "auto",
    size: int | list[int] | None = None,
    channels: Channels = "auto",
    interpolation: str = "area",
    scale: Scale | None = None,
) -> NewFiles:
    """How arrays without labels are read: an .npy of images, or an .npz.

    Of an .npz all arrays named as `load` says, parts one after the other, or else its only one.
    """
    return new_arrays(shape, images, Way(layout, size, channels, interpolation, scale))


def new_arrays(shape: tuple[int, ...], images: str, way: Way) -> NewFiles:
    """How arrays of images without labels become images of that shape."""

    @lru_cache(maxsize=1)  # the files come one after the other
    def opened(path: Path) -> list[tuple[int, Callable[[int], np.ndarray]]]:
        return [(array.shape[0], images_of(array, way)) for array in arrays_in(path, images)]

    def count(file: Path) -> int:
        return sum(number for number, _ in opened(file))

    def read(file: Path, number: int) -> tuple[np.ndarray, dict[str, Any]]:
        rest = number
        for held, image_of in opened(file):
            if rest < held:
                try:
                    return image_of(rest), {}
                except MedexpError as error:
                    raise MedexpError(f"{file}, row {number}: {error}") from None
            rest -= held
        raise MedexpError(f"{file}: no row {number}")

    return NewFiles((".npy", ".npz"), shape, None, read, count)


def images_of(array: Stored, way: Way) -> Callable[[int], np.ndarray]:
    """A function from the number of a row of an array to its image."""
    convert, row = converter(array, axes_of(array, way.layout), way), array.rows()
    return lambda number: convert(row(number))


def arrays_in(path: Path, images: str) -> list[Stored]:
    """The arrays of images of a file; MedexpError where it does not say which they are."""
    if path.suffix.lower() == ".npy":
        return [stored_in(path)]
    store = find_arrays(path.parent, path.name)
    found = [array for part in ("", *PARTS) if (array := named(store, part, images))]
    if not found and len(store) == 1:
        found = list(store.values())
    if not found:
        held = ", ".join(f"{name} {array.shape}" for name, array in store.items()) or "no arrays"
        raise MedexpError(
            f"{path}: no array {images} or test_{images} in it (it has: {held}). Save the images "
            "alone as .npy"
        )
    return found


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
