"""Images of a user's own in class folders, without a line of Python; docs/your_own_data.md.

ROOT/<class>/.../IMAGE, ROOT/{train,val,test}/<class>/.../IMAGE or ROOT/<class>/{train,val,test}/
.../IMAGE. There is no INFO: no public set is behind them.
"""

from collections import Counter
from pathlib import Path
from typing import Literal, NamedTuple

from medexp.data import names as by_name
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
from medexp.errors import MedexpError, one_of

LAYOUT = (
    "Expected ROOT/<class>/IMAGE, or ROOT/train/<class>/IMAGE with test/ and perhaps val/ beside "
    "train/. For a table of labels take dataset=csv_table"
)
Masks = Literal["skip", "read"]


class Found(NamedTuple):
    """An image of a class. folder: below the class's own (and its part's), "" for none."""

    file: Path
    label: int
    part: str
    folder: str


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
    patient: str | None = None,
    masks: Masks = "skip",
    follow_links: bool = False,
) -> Pool:
    """List the images of class folders, at any depth: ROOT/<class>/, ROOT/<part>/<class>/ or
    ROOT/<class>/<part>/.

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
    patient: folder takes the first folder below the class as the patient (or slide, or source);
        else a regular expression that finds the patient in the path below root; None: unknown.
    masks: read takes files such as NAME_mask.png beside NAME.png as images too.
    follow_links: symbolic links may lead out of root.

    Raises ConfigError for values that do not exist; MedexpError for a root, part or class without
    images, one class only, a folder that cannot be listed, and links that lead out of root.
    """
    segmenter = segmenter_of(segment, references, segments, closest)
    pixels = Pixels(size, channels, crop, interpolation, segmenter, scale, background)
    one_of("dataset.masks", masks, ("skip", "read"))
    chosen = check_classes(classes)
    root = folder(Path(root), "it should hold a folder of images for each class")
    trees = part_folders(root, follow_links)
    names = chosen or in_order(
        {place.name for _, tree in trees for place in subfolders(tree, follow=follow_links)}
    )
    if len(names) < 2:
        raise MedexpError(
            f"{root}: only one class folder, {names[0]}: need two or more. {LAYOUT}, and name that "
            "very ROOT with dataset.root="
        )
    others: Counter[str] = Counter()
    listed = [
        found
        for part, tree in trees
        for label, name in enumerate(names)
        for found in class_images(root, (part, tree), (label, name), others, follow=follow_links)
    ]
    notes = [*left_out(trees, names, others, follow_links), *by_name.doubtful_classes(names)]
    if masks == "skip":
        listed, of_masks = without_masks(root, listed)
        notes += of_masks
    if not trees[0][0]:
        listed = with_own_parts(root, listed, names)
    ids = [found.file.relative_to(root).as_posix() for found in listed]
    groups = None
    if patient is not None:
        groups = by_name.patients_by(patient, ids, [found.folder for found in listed])
        notes += [f"patients: by dataset.patient={patient}", *by_name.doubtful_patients(groups)]
    else:
        notes += by_name.suggestion([f"{one.folder}/{one.file.name}" for one in listed])
    images = Photographs(
        [found.file for found in listed],
        [found.label for found in listed],
        [found.part for found in listed],
        groups,
        notes=tuple(notes),
    )
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


def without_masks(root: Path, listed: list[Found]) -> tuple[list[Found], list[str]]:
    """The images less the masks of others among them, and the note that says so."""
    ids = [found.file.relative_to(root).as_posix() for found in listed]
    masks = by_name.masks(ids)
    if not masks:
        return listed, []
    first, image = next(iter(masks.items()))
    note = (
        f"{len(masks):,} files are named as masks of others, such as {first} of {image}, and are "
        "left out (dataset.masks=read takes them as images)"
    )
    return [one for one, key in zip(listed, ids, strict=True) if key not in masks], [note]


def with_own_parts(root: Path, listed: list[Found], names: list[str]) -> list[Found]:
    """The images with the parts that ROOT/<class>/{train,val,test}/ give them, if any.

    Raises MedexpError where some classes have such folders and others have not, or an image lies in
    none of them.
    """
    first = [found.folder.partition("/")[0] for found in listed]
    parts = [PARTS_OF.get(name.lower(), "") for name in first]
    split = {
        label: {part for part, found in zip(parts, listed, strict=True) if found.label == label}
        for label in range(len(names))
    }
    if not any({"train"} < own for own in split.values()):  # one lone `test` may be a patient
        return listed
    for label, own in split.items():
        if "" in own or "train" not in own:
            raise MedexpError(
                f"{root / names[label]}: no train/, or images outside of train/, val/ and test/, "
                "where other classes come split into these. Split every class so, or none"
            )
    return [
        found._replace(part=part, folder=found.folder.partition("/")[2])
        for part, found in zip(parts, listed, strict=True)
    ]


def part_folders(root: Path, follow: bool) -> list[tuple[str, Path]]:
    """The folders that hold class folders: (train | val | test, folder), or ("", root) alone."""
    below = subfolders(root, follow=follow)
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
        if not follow:
            inside(root, tree.relative_to(root).as_posix())
        folder(tree, LAYOUT)
        if not subfolders(tree, follow=follow):
            count = sum(place.is_file() for place in tree.iterdir())
            lead = f"Images of {part} without labels cannot be scored. " if part else ""
            raise MedexpError(
                f"{tree}: no class folders in it, only files ({count:,}). {lead}{LAYOUT}"
            )
    return trees


def class_images(
    root: Path,
    tree: tuple[str, Path],
    named: tuple[int, str],
    others: Counter[str],
    *,
    follow: bool,
) -> list[Found]:
    """The images of one class, (label, name), in one part, (part, its folder).

    A validation or test part may lack the class's folder. others: counts the files that are left
    out, by their suffix.
    """
    (part, above), (label, name) = tree, named
    place = above / name
    if not follow:
        inside(root, place.relative_to(root).as_posix())
    if not place.is_dir():
        if part in ("val", "test"):
            return []
        raise MedexpError(
            f"{place}: no such class folder, where {above} has "
            f"{', '.join(p.name for p in subfolders(above, follow=follow))}. Each class needs "
            "images to train on"
        )
    here: Counter[str] = Counter()
    files = find(place, within=root, others=here, follow=follow)
    if not files:
        raise MedexpError(
            f"{place}: no image of {', '.join(IMAGES)} in it (files: {counted(here) or 'none'}). "
            "Convert them as docs/your_own_data.md says, or name the folders to read with "
            "dataset.classes="
        )
    others.update(here)
    below = (file.parent.relative_to(place).as_posix() for file in files)
    return [
        Found(file, label, part, "" if at == "." else at)
        for file, at in zip(files, below, strict=True)
    ]


def left_out(
    trees: list[tuple[str, Path]], names: list[str], others: Counter[str], follow: bool
) -> tuple[str, ...]:
    """Notes on what lies in the tree and is not read."""
    notes = []
    if others:
        notes.append(f"files of other kinds in the class folders, left out: {counted(others)}")
    for part, tree in trees:
        where = part or "the root"
        loose = [p.name for p in tree.iterdir() if p.is_file() and p.suffix.lower() in IMAGES]
        folders = [p.name for p in subfolders(tree, follow=follow) if p.name not in names]
        if loose:
            notes.append(f"images in no class folder of {where}, left out: {len(loose):,}")
        if folders:
            notes.append(f"folders of {where} left out by dataset.classes: {', '.join(folders)}")
    return tuple(notes)
