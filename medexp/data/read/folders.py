"""Data of a user's own, without a line of Python: a tree of class folders, or a table of labels.

`load_folder` reads ROOT/<class>/.../IMAGE and ROOT/{train,val,test}/<class>/.../IMAGE; `load_table`
reads a CSV or Parquet file that names images and their labels, and patients and parts where it
knows them. docs/your_own_data.md is written for users. There is no INFO: no public set is behind
them.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np

from medexp.data.base import Pool
from medexp.data.files import (
    IMAGES,
    MODES,
    csv_rows,
    find,
    folder,
    inside,
    read_image,
    reason,
    subfolders,
)
from medexp.data.pixels import INTERPOLATION, centre_square, resize
from medexp.data.segment import CLOSEST, KINDS, SEGMENTS, Segmenter
from medexp.data.segment import segmenter as make_segmenter
from medexp.errors import ConfigError, MedexpError, one_of

PARTS_OF = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
LAYOUT = (
    "Expected ROOT/<class>/IMAGE, or ROOT/train/<class>/IMAGE with test/ and perhaps val/ beside "
    "train/. For a table of labels take dataset=csv_table"
)
PARQUET = (".parquet", ".pq")
TRIED = 20  # images opened in search of the first that can be read

Channels = Literal["rgb", "grey", "auto"]
Crop = Literal["none", "square"]
Segment = Literal["none", "slic_knn"]


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
        if self.segmenter and self.channels != "rgb":
            raise ConfigError(
                f"dataset.channels={self.channels}: dataset.segment=slic_knn goes by colour and "
                "needs dataset.channels=rgb"
            )

    @property
    def sides(self) -> list[int] | None:
        """[height, width]."""
        return [self.size, self.size] if isinstance(self.size, int) else self.size

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
        }


def load_folder(
    root: str | Path,
    *,
    classes: list[str | int] | None = None,
    size: int | list[int] | None = 224,
    channels: Channels = "rgb",
    crop: Crop = "none",
    interpolation: str = "area",
    segment: Segment = "none",
    references: str | None = None,
    segments: int = SEGMENTS,
    closest: int = CLOSEST,
) -> Pool:
    """List the images of class folders: ROOT/<class>/ or ROOT/<part>/<class>/, at any depth below.

    Parts are folders named train, val, valid, validation or test (training, testing), in any case;
    without them the pool comes unsplit. Images are (H, W, 3) or (H, W, 1) uint8.

    classes: the class folders to read, in the order of their labels; None: all, sorted by name, or
        by number where all are numbers.
    size: side, or [height, width], that every image is resized to; None: images keep their size,
        which must be one and the same.
    channels: rgb; grey (Pillow's L, ITU-R 601 luma); auto: as the first image that can be read,
        where that is grey a coloured image is refused.
    crop: square takes the centred square of the shorter side before resizing.
    segment: slic_knn blacks out, after resizing, what medexp/data/segment.py finds to be unlike the
        colours of `references` (a folder of images with masks, or a CSV of r, g, b): of about
        `segments` patches the `closest` and those they enclose are kept.

    Raises ConfigError for values that do not exist; MedexpError for a root, part or class without
    images, one class only, a folder that cannot be listed, and links that lead out of root.
    """
    segmenter = segmenter_of(segment, references, segments, closest)
    pixels = Pixels(size, channels, crop, interpolation, segmenter)
    named = check_classes(classes)
    root = folder(Path(root), "it should hold a folder of images for each class")
    trees = part_folders(root)
    names = named or in_order({place.name for _, tree in trees for place in subfolders(tree)})
    if len(names) < 2:
        raise MedexpError(
            f"{root}: only one class folder, {names[0]}: need two or more. {LAYOUT}, and name that "
            "very ROOT with dataset.root="
        )
    files: list[Path] = []
    labels: list[int] = []
    parts: list[str] = []
    for part, tree in trees:
        for label, name in enumerate(names):
            found = class_images(root, tree, name, optional=part in ("val", "test"))
            files += found
            labels += [label] * len(found)
            parts += [part] * len(found)
    return make_pool(
        "image_folder",
        root,
        files,
        labels,
        names,
        pixels,
        parts=parts,
        notes=left_out(trees, names),
    )


def load_table(
    root: str | Path,
    *,
    table: str = "labels.csv",
    path_column: str = "path",
    label_column: str = "label",
    patient_column: str | None = "patient",
    split_column: str | None = "split",
    folder: str = "",
    extension: str = "",
    classes: list[str | int] | None = None,
    size: int | list[int] | None = 224,
    channels: Channels = "rgb",
    crop: Crop = "none",
    interpolation: str = "area",
    segment: Segment = "none",
    references: str | None = None,
    segments: int = SEGMENTS,
    closest: int = CLOSEST,
) -> Pool:
    """List the images that a table names: a row each, ROOT/<folder>/<path><extension>.

    table: CSV in UTF-8 with a header, or Parquet (needs pyarrow), below root or anywhere.
    patient_column, split_column: used where the table has them; a name other than the default must
        be there, null uses none. Parts are train, val, valid, validation, test (training, testing)
        in any case; an empty cell is still to be split.
    classes: the labels in their order; None: all, by number where all are integers, else by name.
    The other arguments are load_folder's.

    Raises ConfigError for values that do not exist; MedexpError, with the line, for a table that
    is missing, damaged, empty or lacks a column, and for a cell that cannot be used: an empty path
    or label, a path out of root or named twice, a part or class that does not exist. A file that
    is missing is decode's to report, so that dataset.on_error=skip can leave it out, but at least
    one must be there.
    """
    segmenter = segmenter_of(segment, references, segments, closest)
    pixels = Pixels(size, channels, crop, interpolation, segmenter)
    named = check_classes(classes)
    base = Path(root)
    columns = (path_column, label_column, patient_column, split_column)
    suffix = f".{extension.removeprefix('.')}" if extension else ""
    rows = table_rows(base, base / table, columns, folder, suffix, named)
    names = named or in_order({row.label for row in rows})
    if len(names) < 2:
        raise MedexpError(
            f"{base / table}: every row has the {label_column} {names[0]!r}: need two classes or "
            "more. Name another column with dataset.label_column="
        )
    files = [base / row.name for row in rows]
    if not any(map(os.path.exists, files)):
        raise MedexpError(
            f"{base / table} names {len(files):,} images and none is there, the first as "
            f"{files[0]}. Paths are dataset.root / dataset.folder / cell + dataset.extension"
        )
    number = {name: label for label, name in enumerate(names)}
    return make_pool(
        "csv_table",
        base,
        files,
        [number[row.label] for row in rows],
        names,
        pixels,
        parts=[row.part for row in rows],
        groups=[row.patient for row in rows] if rows[0].patient else None,
        places=[row.place for row in rows],
    )


# ---------------------------------------------------------------- arguments


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
    return make_segmenter(place.parent, references, segments=segments, closest=closest)


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


# ---------------------------------------------------------------- class folders


def part_folders(root: Path) -> list[tuple[str, Path]]:
    """The folders that hold class folders: (train | val | test, folder), or ("", root) alone."""
    below = subfolders(root)
    named = [(PARTS_OF[p.name.lower()], p) for p in below if p.name.lower() in PARTS_OF]
    trees = named or [("", root)]
    others = [p.name for p in below if p.name.lower() not in PARTS_OF]
    parts = [part for part, _ in named]
    if named and (others or len(set(parts)) < len(parts) or "train" not in parts):
        raise MedexpError(
            f"{root} holds {', '.join(p.name for p in below)}: neither class folders nor one each "
            f"of train, val and test. {LAYOUT}"
        )
    for part, tree in trees:
        inside(root, tree.relative_to(root).as_posix())
        folder(tree, LAYOUT)
        if not subfolders(tree):
            count = sum(place.is_file() for place in tree.iterdir())
            lead = f"Images of {part} without labels cannot be scored. " if part else ""
            raise MedexpError(
                f"{tree}: no class folders in it, only files ({count:,}). {lead}{LAYOUT}"
            )
    return trees


def class_images(root: Path, tree: Path, name: str, *, optional: bool) -> list[Path]:
    """The images of one class in one part; `optional`: the part may lack the class's folder."""
    place = inside(root, (tree / name).relative_to(root).as_posix())
    if not place.is_dir():
        if optional:
            return []
        raise MedexpError(
            f"{place}: no such class folder, where {tree} has "
            f"{', '.join(p.name for p in subfolders(tree))}. Each class needs images to train on"
        )
    found = find(place, within=root)
    if not found:
        others = Counter(p.suffix.lower() or "no suffix" for p in place.rglob("*") if p.is_file())
        held = ", ".join(f"{n:,} of {suffix}" for suffix, n in others.most_common(3))
        raise MedexpError(
            f"{place}: no image of {', '.join(IMAGES)} in it (files: {held or 'none'}). Convert "
            "them as docs/your_own_data.md says, or name the folders to read with dataset.classes="
        )
    return found


def left_out(trees: list[tuple[str, Path]], names: list[str]) -> tuple[str, ...]:
    """Notes on what lies in the tree but in no class that is read."""
    notes = []
    for part, tree in trees:
        where = part or "the root"
        loose = [p.name for p in tree.iterdir() if p.is_file() and p.suffix.lower() in IMAGES]
        others = [p.name for p in subfolders(tree) if p.name not in names]
        if loose:
            notes.append(f"images in no class folder of {where}, left out: {len(loose):,}")
        if others:
            notes.append(f"folders of {where} left out by dataset.classes: {', '.join(others)}")
    return tuple(notes)


# ---------------------------------------------------------------- tables


class Row(NamedTuple):
    """An image that a table names. place: the row in words; patient, part: "" where not known."""

    place: str
    name: str
    label: str
    patient: str
    part: str


def table_rows(
    root: Path,
    path: Path,
    columns: tuple[str, str, str | None, str | None],
    below: str,
    suffix: str,
    classes: Sequence[str],
) -> list[Row]:
    """Every row of a table, held against the classes (any, where there are none) and each other.

    columns: those of path, label, patient and part. Raises MedexpError, with the line.
    """
    found: dict[str, Row] = {}
    known: set[str] = set()
    rows, used = open_table(root, path, columns)
    for place, cells in rows:
        key, label, patient, part = (cells[column].strip() if column else "" for column in used)
        for cell, column in zip((key, label, patient), used, strict=False):
            if column and not cell:
                raise MedexpError(f"{place}: the cell of column {column} is empty. Fill it in")
        if classes and label not in classes:
            raise MedexpError(
                f"{place}: label {label!r} is not in dataset.classes ({', '.join(classes)}). Add "
                "it there, or take such rows out of the table"
            )
        if part and part.lower() not in PARTS_OF:
            raise MedexpError(
                f"{place}: {used[3]} {part!r}: need train, val, test or nothing. For another "
                "meaning of that column give dataset.split_column=null"
            )
        name = f"{PurePosixPath(below, key)}{suffix}"
        check_path(place, root, name, known)
        if name in found:
            raise MedexpError(
                f"{place}: {name} is named already, at {found[name].place}. Give each image one row"
            )
        found[name] = Row(place, name, label, patient, PARTS_OF.get(part.lower(), ""))
    return list(found.values())


def open_table(
    root: Path, path: Path, columns: tuple[str, str, str | None, str | None]
) -> tuple[Iterator[tuple[str, dict[str, str]]], tuple[str | None, ...]]:
    """The rows of a table, each with its place in words, and the columns that it has of those."""
    folder(root, "it should hold the table and the images that it names")
    if not path.is_file():
        there = [p.name for p in sorted(root.iterdir()) if p.suffix in (".csv", *PARQUET)]
        raise MedexpError(
            f"{path}: no such table (tables there: {', '.join(there) or 'none'}). Name it with "
            "dataset.table="
        )
    required = columns[:2]
    rows = parquet_rows(path, required) if path.suffix in PARQUET else comma_rows(path, required)
    first = next(rows, None)
    if first is None:
        raise MedexpError(f"{path} has a header and no rows: need a row for each image")
    header = list(first[1])
    patient = known_column(path, header, "patient_column", columns[2], ("patient", "subject"))
    part = known_column(path, header, "split_column", columns[3], ("split",))
    return chain([first], rows), (*required, patient, part)


def known_column(
    path: Path, header: list[str], key: str, column: str | None, words: tuple[str, ...]
) -> str | None:
    """An optional column, None where the table lacks it.

    Only the default name, words[0], may be lacking, and only where no other column looks like it:
    patients that are overlooked leak across a split.
    """
    if column is None or column in header:
        return column
    if column != words[0]:
        raise MedexpError(f"{path} has no column {column} in its header ({', '.join(header)})")
    similar = [name for name in header if any(word in name.lower() for word in words)]
    if similar:
        raise MedexpError(
            f"{path} has no column {column}, but {similar[0]}. If that is what it holds, give "
            f"dataset.{key}={similar[0]}, if not, dataset.{key}=null"
        )
    return None


def comma_rows(path: Path, required: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """csv_rows with its place in words, and every cell of the header there, no more, no less."""
    for line, cells in csv_rows(path, required):
        if None in cells or None in cells.values():
            raise MedexpError(
                f"{path}, line {line}: {'more' if None in cells else 'fewer'} cells than the "
                "header has. Put a cell that holds a comma in quotes"
            )
        yield f"{path}, line {line}", cells


def parquet_rows(path: Path, required: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a Parquet file, its cells as text ("" for null), counted from 1.

    Columns of anything but text, numbers and the like, such as images, are not read.
    """
    try:
        import pyarrow
        import pyarrow.parquet
        import pyarrow.types as kinds
    except ImportError:
        raise MedexpError(
            f'{path}: Parquet needs pyarrow: pip install "medexp[parquet]", or save it as CSV'
        ) from None
    try:
        file = pyarrow.parquet.ParquetFile(path)
        plain = [
            field.name
            for field in file.schema_arrow
            if not kinds.is_nested(field.type) and not kinds.is_binary(field.type)
        ]
        lacking = [column for column in required if column not in plain]
        if lacking:
            raise MedexpError(
                f"{path} has no column {', '.join(lacking)} in its header ({', '.join(plain)})"
            )
        number = 0
        for batch in file.iter_batches(columns=plain):
            for cells in batch.to_pylist():
                number += 1
                texts = {name: "" if cell is None else str(cell) for name, cell in cells.items()}
                yield f"{path}, row {number}", texts
    except (pyarrow.ArrowException, OSError) as error:
        raise MedexpError(f"{path} cannot be read as Parquet ({reason(error)})") from None


def check_path(place: str, root: Path, name: str, known: set[str]) -> None:
    """Raise MedexpError, with the row that gives it, for a name that leads out of root.

    known: folders that were looked at; for another file in one of them its own link is enough to
    look at, which is many times faster.
    """
    parent, _, last = name.rpartition("/")
    plain = last not in ("", "..") and "\\" not in last and "\0" not in last
    if plain and parent in known and not os.path.islink(root / name):
        return
    try:
        inside(root, name)
    except MedexpError as error:
        raise MedexpError(f"{place}: {error}") from None
    known.add(parent)


# ---------------------------------------------------------------- images


def make_pool(
    name: str,
    root: Path,
    files: list[Path],
    labels: list[int],
    classes: list[str],
    pixels: Pixels,
    *,
    parts: list[str],
    groups: list[str] | None = None,
    places: list[str] | None = None,
    notes: tuple[str, ...] = (),
) -> Pool:
    """A pool of these files; `places` are the rows of a table that name them."""
    ids = [file.relative_to(root).as_posix() for file in files]
    for key in ids:
        check_text(root, key)
    shape = shape_of(files, pixels)
    unsplit = set(parts) in ({""}, {"train"})
    return Pool(
        name=name,
        classes=tuple(classes),
        labels=np.array(labels, np.int64),
        ids=np.array(ids),
        files=files,
        shape=shape,
        dtype=np.uint8,
        decode=decoder(files, shape, pixels, places),
        settings=pixels.settings(),
        groups=None if groups is None else np.array(groups),
        parts=None if unsplit else np.array(parts),
        notes=(*notes, pixels.segmenter.note()) if pixels.segmenter else notes,
    )


def check_text(root: Path, key: str) -> None:
    """Raise MedexpError for a file name that no CSV of predictions could hold."""
    try:
        key.encode()
    except UnicodeEncodeError:
        raise MedexpError(f"{root}: the file name {key!a} is not UTF-8. Rename it") from None


def shape_of(files: Sequence[Path], pixels: Pixels) -> tuple[int, int, int]:
    """(H, W, C) of the decoded images; what the settings leave open, the first image says."""
    sides, depth = pixels.sides, {"rgb": 3, "grey": 1}.get(pixels.channels)
    if sides is None or depth is None:
        image = pixels.cut(first_readable(files))
        sides = sides or list(image.shape[:2])
        depth = depth or image.shape[2]
    return (sides[0], sides[1], depth)


def first_readable(files: Sequence[Path]) -> np.ndarray:
    failure = MedexpError("no images")
    for file in files[:TRIED]:
        try:
            return read_image(file)[0]
        except MedexpError as error:
            failure = error
    raise failure


def decoder(
    files: Sequence[Path],
    shape: tuple[int, int, int],
    pixels: Pixels,
    places: Sequence[str] | None,
) -> Callable[[int], tuple[np.ndarray, dict[str, Any]]]:
    """row -> (image of `shape`, uint8; {"size": [width, height], "mode": Pillow's} of the file)."""
    height, width, depth = shape

    def decode(row: int) -> tuple[np.ndarray, dict[str, Any]]:
        file = files[row]
        if places and not os.path.exists(file):
            raise MedexpError(
                f"{places[row]} names {file}, which cannot be found. Correct the row, or leave "
                "such images out with dataset.on_error=skip"
            )
        image, facts = read_image(file, "L" if depth == 1 else "RGB")
        if pixels.channels == "auto" and depth == 1 and MODES[facts["mode"]] != "L":
            raise MedexpError(
                f"{file} has colours, where dataset.channels=auto took grey from the first image. "
                "Give dataset.channels=rgb or grey"
            )
        image = pixels.cut(image)
        if pixels.sides is not None:
            image = resize(image, height, width, pixels.interpolation)
        elif image.shape != shape:
            raise MedexpError(
                f"{file} is {image.shape[1]}x{image.shape[0]} pixels, where the first image is "
                f"{width}x{height}. Give dataset.size= to bring all to one size"
            )
        return pixels.segmenter(image) if pixels.segmenter else image, facts

    return decode
