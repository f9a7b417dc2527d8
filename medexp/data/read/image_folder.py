"""Images of a user's own in class folders, without a line of Python; docs/your_own_data.md.

ROOT/<class>/.../IMAGE, or ROOT/{train,val,test}/<class>/.../IMAGE. There is no INFO: no public set
is behind them.
"""

from collections import Counter
from pathlib import Path

from medexp.data.base import NewFiles, Pool
from medexp.data.files import IMAGES, counted, find, folder, inside, subfolders
from medexp.data.photographs import (
    PARTS_OF,
    Background,
    Channels,
    Crop,
    Photographs,
    Pixels,
    Segment,
    check_classes,
    in_order,
    make_pool,
    new_photographs,
    segmenter_of,
)
from medexp.data.pixels import Scale
from medexp.data.segment import CLOSEST, SEGMENTS
from medexp.errors import MedexpError

LAYOUT = (
    "Expected ROOT/<class>/IMAGE, or ROOT/train/<class>/IMAGE with test/ and perhaps val/ beside "
    "train/. For a table of labels take dataset=csv_table"
)


def load(
    root: str | Path,
    *,
    classes: list[str | int] | None = None,
    size: int | list[int] | None = 224,
    channels: Channels = "rgb",
    crop: Crop = "none",
    interpolation: str = "area",
    scale: Scale | None = None,
    background: Background = "black",
    segment: Segment = "none",
    references: str | None = None,
    segments: int = SEGMENTS,
    closest: int = CLOSEST,
) -> Pool:
    """List the images of class folders: ROOT/<class>/ or ROOT/<part>/<class>/, at any depth below.

    Parts are folders named train, val, valid, validation or test (training, testing), in any case;
    without them the pool comes unsplit. Images are (H, W, 3) or (H, W, 1), uint8, or with a scale
    float32 in 0..1.

    classes: the class folders to read, in the order of their labels; None: all, sorted by name, or
        by number where all are numbers.
    size: side, or [height, width], that every image is resized to; None: images keep their size,
        which must be one and the same.
    channels: rgb; grey (Pillow's L, ITU-R 601 luma); auto: as the first image that can be read,
        where that is grey a coloured image is refused.
    scale: which stored values become 0 and 1, for files of more than 8 bits a sample, signed or of
        real numbers, which are refused without one. full: the ends of the file's type; percentile:
        the image's own 1% and 99%; [low, high]. It holds for files of 8 bits too.
    background: black or white, which pixels that are transparent show.
    crop: square takes the centred square of the shorter side before resizing.
    segment: slic_knn blacks out, after resizing, what medexp/data/segment.py finds to be unlike the
        colours of `references` (a folder of images with masks, or a CSV of r, g, b): of about
        `segments` patches the `closest` and those they enclose are kept.

    Raises ConfigError for values that do not exist; MedexpError for a root, part or class without
    images, one class only, a folder that cannot be listed, and links that lead out of root.
    """
    segmenter = segmenter_of(segment, references, segments, closest)
    pixels = Pixels(size, channels, crop, interpolation, segmenter, scale, background)
    chosen = check_classes(classes)
    root = folder(Path(root), "it should hold a folder of images for each class")
    trees = part_folders(root)
    names = chosen or in_order({place.name for _, tree in trees for place in subfolders(tree)})
    if len(names) < 2:
        raise MedexpError(
            f"{root}: only one class folder, {names[0]}: need two or more. {LAYOUT}, and name that "
            "very ROOT with dataset.root="
        )
    others: Counter[str] = Counter()
    listed = [
        (file, label, part)
        for part, tree in trees
        for label, name in enumerate(names)
        for file in class_images(root, tree, name, others, optional=part in ("val", "test"))
    ]
    files, labels, parts = (list(column) for column in zip(*listed, strict=True))
    images = Photographs(files, labels, parts, notes=left_out(trees, names, others))
    return make_pool("image_folder", root, names, images, pixels)


def load_new(
    shape: tuple[int, ...],
    *,
    size: int | list[int] | None = 224,
    channels: Channels = "rgb",
    crop: Crop = "none",
    interpolation: str = "area",
    scale: Scale | None = None,
    background: Background = "black",
    segment: Segment = "none",
    references: str | None = None,
    segments: int = SEGMENTS,
    closest: int = CLOSEST,
) -> NewFiles:
    """How images without labels are read; the arguments are those of `load`."""
    segmenter = segmenter_of(segment, references, segments, closest)
    pixels = Pixels(size, channels, crop, interpolation, segmenter, scale, background)
    return new_photographs(shape, pixels)


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


def class_images(
    root: Path, tree: Path, name: str, others: Counter[str], *, optional: bool
) -> list[Path]:
    """The images of one class in one part; `optional`: the part may lack the class's folder.

    others: counts the files that are left out, by their suffix.
    """
    place = inside(root, (tree / name).relative_to(root).as_posix())
    if not place.is_dir():
        if optional:
            return []
        raise MedexpError(
            f"{place}: no such class folder, where {tree} has "
            f"{', '.join(p.name for p in subfolders(tree))}. Each class needs images to train on"
        )
    here: Counter[str] = Counter()
    files = find(place, within=root, others=here)
    if not files:
        raise MedexpError(
            f"{place}: no image of {', '.join(IMAGES)} in it (files: {counted(here) or 'none'}). "
            "Convert them as docs/your_own_data.md says, or name the folders to read with "
            "dataset.classes="
        )
    others.update(here)
    return files


def left_out(
    trees: list[tuple[str, Path]], names: list[str], others: Counter[str]
) -> tuple[str, ...]:
    """Notes on what lies in the tree and is not read."""
    notes = []
    if others:
        notes.append(f"files of other kinds in the class folders, left out: {counted(others)}")
    for part, tree in trees:
        where = part or "the root"
        loose = [p.name for p in tree.iterdir() if p.is_file() and p.suffix.lower() in IMAGES]
        folders = [p.name for p in subfolders(tree) if p.name not in names]
        if loose:
            notes.append(f"images in no class folder of {where}, left out: {len(loose):,}")
        if folders:
            notes.append(f"folders of {where} left out by dataset.classes: {', '.join(folders)}")
    return tuple(notes)
