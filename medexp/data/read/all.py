"""C-NMC 2019: single white blood cells, leukaemic blasts (all) or normal lymphoid cells (hem).

Mir and Nissa 2019, sections 3.2 and 3.3: 450x450 images, centre crop to 400x400, resized.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medexp.data.base import Info, NewFiles, Pool
from medexp.data.files import IMAGES, find, folder, inside, not_found, read_image, subfolders
from medexp.data.pixels import INTERPOLATION, centre_crop, resize
from medexp.errors import ConfigError, MedexpError, one_of
from medexp.runs.files import csv_rows

# hem is class 1 and so the positive one: the paper's precision .887 and recall .895 are of hem.
CLASSES = ("all", "hem")
PRELIM = "C-NMC_test_prelim_phase_data"
INFO = Info(
    title="C-NMC 2019 (ALL challenge of ISBI 2019)",
    url="https://www.cancerimagingarchive.net/collection/c-nmc-2019/ "
    "(https://doi.org/10.7937/tcia.2019.dc64i46r)",
    licence="CC BY 3.0",
    size="10.4 GB unpacked, 6.5 GB of it labelled training images",
    classes=CLASSES,
    counts={"all": 10_661, "prelim": 1_867},
    files=("training_data/fold_0..2/{all,hem}/*.bmp", f"validation_data/{PRELIM}/*.bmp"),
)

ARCHIVES = ("C-NMC_Leukemia", "PKG - C-NMC 2019")  # the folder inside Kaggle's and TCIA's download
TRAINING = ("training_data", "C-NMC_training_data", "")
# UID_<patient>_<photograph>_<cell>_<class>.bmp. One patient's 36 names have a small h, UID_h3_;
# no name has UID_H3_, and with him there are the 73 people, 26 of them healthy, that the challenge
# states.
NAME = re.compile(r"UID_(H?\d+)_\d+_\d+_(all|hem)\.\w+", re.IGNORECASE)
LISTED = re.compile(r"(?:(?:.*/)?fold_(\d+)/|.*/|)(all|hem)/([^/]+)")


@dataclass(frozen=True)
class Cell:
    """One image as it is listed. fold: -1 where there is none; id: the path in fold and class."""

    file: Path
    id: str
    kind: str
    patient: str | None
    fold: int = -1
    part: str = ""
    digest: str = ""


def load(
    root: str,
    *,
    crop: int | None = 400,
    size: int = 150,
    interpolation: str = "area",
    test: Literal["split", "prelim"] = "split",
    file_list: str | None = None,
) -> Pool:
    """List the cells below root; images are (size, size, 3) uint8 RGB.

    root: holds training_data/fold_*/{all,hem} (or C-NMC_training_data/..., or fold_*/... itself),
    or plain folders all and hem. crop: side of the centred square that is cut out before resizing;
    None: the whole image, stretched where it is not square. test: `split`, the training images are
    all there is; `prelim`, the challenge's preliminary test set is the test part, and the training
    images are still to be split into train and val. file_list: CSV of path,bytes,sha256_16: the
    pool is made of it alone, without pixels, to look at a split.

    Groups are patients, where the files are named as C-NMC's; folds are the challenge's. Raises
    ConfigError for a value that cannot be, MedexpError for folders, files or tables that are
    missing, empty or at odds with one another.
    """
    check(crop, size, interpolation, test, file_list)
    top = Path(root)
    top = next((top / name for name in ARCHIVES if (top / name).is_dir()), top)
    cells = list(training_files(top) if file_list is None else listed(top, Path(file_list)))
    public = INFO.counts["all"]
    if test == "prelim":
        cells += prelim(top)
        public += INFO.counts["prelim"]

    def decode(row: int) -> tuple[np.ndarray, dict[str, Any]]:
        return prepared(cells[row].file, crop, size, interpolation)

    folds = [cell.fold for cell in cells]
    return Pool(
        name="all",
        classes=CLASSES,
        labels=np.array([CLASSES.index(cell.kind) for cell in cells], np.int64),
        ids=np.array([cell.id for cell in cells]),
        files=[cell.file for cell in cells],
        shape=(size, size, 3),
        dtype=np.uint8,
        decode=decode if file_list is None else None,
        settings={"crop": crop, "size": size, "interpolation": interpolation},
        groups=patients(cells),
        parts=np.array([cell.part for cell in cells]) if test == "prelim" else None,
        folds=np.array(folds, np.int64) if max(folds) >= 0 else None,
        digests=None if file_list is None else np.array([cell.digest for cell in cells]),
        public=public,
    )


def load_new(
    shape: tuple[int, ...],
    *,
    crop: int | None = 400,
    size: int = 150,
    interpolation: str = "area",
) -> NewFiles:
    """How cells without labels are read; the arguments are those of `load`."""
    check(crop, size, interpolation, "split", None)

    def read(file: Path, number: int) -> tuple[np.ndarray, dict[str, Any]]:
        return prepared(file, crop, size, interpolation)

    return NewFiles(IMAGES, (size, size, 3), np.uint8, read)


def prepared(
    file: Path, crop: int | None, size: int, interpolation: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """A cell as (size, size, 3) uint8, and what its file says of itself."""
    image, facts = read_image(file, "RGB")
    if crop is not None:
        height, width = image.shape[:2]
        if min(height, width) < crop:
            raise MedexpError(
                f"{file}: {width}x{height} pixels, smaller than dataset.crop={crop}. Take "
                f"dataset.crop={min(height, width)}, or null for the whole image"
            )
        image = centre_crop(image, crop)
    return resize(image, size, size, interpolation), facts


def check(
    crop: int | None, size: int, interpolation: str, test: str, file_list: str | None
) -> None:
    """Raise ConfigError for a value of `load` that cannot be."""
    for key, value in (("crop", crop), ("size", size)):
        if value is not None and value < 1:
            raise ConfigError(f"dataset.{key}={value}: need 1 or more pixels")
    one_of("dataset.interpolation", interpolation, list(INTERPOLATION))
    one_of("dataset.test", test, ("split", "prelim"))
    if test == "prelim" and file_list is not None:
        raise ConfigError(
            f"dataset.test=prelim: a file list has no labels of those images (dataset.file_list="
            f"{file_list}). Take dataset.test=split"
        )


# ---------------------------------------------------------------- the training images


def training_files(top: Path) -> Iterator[Cell]:
    """The images of every class folder, fold by fold; MedexpError where one is missing or empty."""
    for parent, fold in class_parents(top):
        for kind in CLASSES:
            where = inside(top, (parent / kind).relative_to(top).as_posix())
            files = find(folder(where, f"{parent.name or parent} needs both, all and hem"))
            if not files:
                raise MedexpError(f"{where.absolute()}: no image in it. Unpack the download again")
            for file in files:
                yield training_cell(file, file.relative_to(where).as_posix(), kind, fold)


def class_parents(top: Path) -> list[tuple[Path, int]]:
    """The folders that hold all and hem, with their folds: the challenge's, or one of no fold."""
    for base in (top / name for name in TRAINING if (top / name).is_dir()):
        folds = [(path, re.fullmatch(r"fold_(\d+)", path.name)) for path in subfolders(base)]
        if parents := [(path, int(match[1])) for path, match in folds if match]:
            return parents
        if any((base / kind).is_dir() for kind in CLASSES):
            return [(base, -1)]
    raise not_found(INFO, top, INFO.files[:1])


def listed(top: Path, table: Path) -> Iterator[Cell]:
    """The training images that a CSV of path,bytes,sha256_16 names."""
    empty = True
    for line, row in csv_rows(table, ("path", "bytes", "sha256_16")):
        if match := LISTED.fullmatch(row["path"]):
            empty = False
            file = inside(top, row["path"], f"{table}, line {line}")
            digest = f"{row['sha256_16']}-{row['bytes']}"
            yield training_cell(file, match[3], match[2], int(match[1] or -1), digest)
    if empty:
        raise MedexpError(f"{table}: no path in it ends in all/NAME or hem/NAME")


def training_cell(file: Path, name: str, kind: str, fold: int, digest: str = "") -> Cell:
    key = f"{kind}/{name}" if fold < 0 else f"fold_{fold}/{kind}/{name}"
    return Cell(file, key, kind, patient(file.name, kind, str(file)), fold, digest=digest)


# ---------------------------------------------------------------- the preliminary test images


def prelim(top: Path) -> Iterator[Cell]:
    """The images of the CSV of Patient_ID (the original file name), new_names and labels."""
    name = f"{PRELIM}_labels.csv"
    holders = (top / "validation_data", top / PRELIM, top / "validation_data" / PRELIM, top)
    table = next((path / name for path in holders if (path / name).is_file()), None)
    if table is None:
        raise not_found(INFO, top, [f"validation_data/{name}"])
    where = table.parent / PRELIM
    if not where.is_dir():
        where = table.parent
    rows = list(csv_rows(table, ("Patient_ID", "new_names", "labels")))
    if not rows:
        raise MedexpError(f"{table} names no image. Unpack the download again")
    for line, row in rows:
        source = f"{table}, line {line}"
        if row["labels"] not in ("0", "1"):
            raise MedexpError(f"{source}: label {row['labels']!r}: need 1 (ALL) or 0 (HEM)")
        kind = "all" if row["labels"] == "1" else "hem"  # not the index of the class here
        file = inside(where, row["new_names"], source)
        if not file.is_file():
            raise MedexpError(f"{source}: no file {file}. Unpack the download again")
        person = patient(row["Patient_ID"], kind, source)
        yield Cell(file, f"{PRELIM}/{row['new_names']}", kind, person, part="test")


# ---------------------------------------------------------------- patients


def patient(name: str, kind: str, source: str) -> str | None:
    """The patient of a C-NMC file name, in capitals; None where it is no such name.

    Raises MedexpError where the name says another class.
    """
    match = NAME.fullmatch(name)
    if match is None:
        return None
    if match[2].lower() != kind:
        raise MedexpError(
            f"{source}: {name} is named as {match[2].lower()} but stands as {kind}. Put it right"
        )
    return match[1].upper()


def patients(cells: list[Cell]) -> np.ndarray | None:
    """(N,) patients; None where no file says whose it is. MedexpError where only some do."""
    unnamed = [cell for cell in cells if cell.patient is None]
    if len(unnamed) == len(cells):
        return None
    if unnamed:
        raise MedexpError(
            f"{unnamed[0].file}: not named UID_<patient>_<photograph>_<cell>_<class>.bmp as "
            f"{len(cells) - len(unnamed):,} others are, so its patient is unknown. Take it out"
        )
    return np.array([cell.patient for cell in cells])
