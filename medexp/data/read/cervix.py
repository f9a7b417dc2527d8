"""Kaggle's Intel & MobileODT set: photographs of the cervix, by type of its transformation zone.

H. Nguyen, T. Leavitt, Y. Laloudakis, Cervical Cancer Screening (CS231N, 2017), sections 4 and 5.
Type 1: the zone lies outside the canal and is seen; 2: partly in the canal, seen; 3: not wholly
seen. The paper's Table 1 counts 251, 782 and 451 images; the folders hold one less each.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medexp.data import pixels
from medexp.data.base import Info, NewFiles, Pool
from medexp.data.files import IMAGES, find, folder, inside, not_found, read_image, subfolders
from medexp.data.segment import (
    CLOSEST,
    COMPACTNESS,
    KINDS,
    SEGMENTS,
    Segmenter,
    segmenter,
)
from medexp.errors import ConfigError, MedexpError, one_of

INFO = Info(
    title="Cervix types (Intel & MobileODT Cervical Cancer Screening)",
    url="https://www.kaggle.com/c/intel-mobileodt-cervical-cancer-screening/data",
    licence="the competition's rules, to be accepted at Kaggle",
    size="1,481 photographs of 8 to 13 megapixels",
    classes=("Type_1", "Type_2", "Type_3"),
    counts={"all": 1481},
    files=("Type_1/*.jpg", "Type_2/*.jpg", "Type_3/*.jpg"),
)
ADDITIONAL = 6734  # images of additional_Type_*_v2, as its users count them
JPEG = (".jpg", ".jpeg")
NESTED = (".", "train", "train/train")  # train.7z unpacked here; in train/; Kaggle's zip
NO_TEST = (
    "the test split is our choice: the paper's test images, Kaggle's 512, came without labels, so "
    "its test losses are of other photographs"
)


def load(
    root: str | Path,
    *,
    size: int = 160,
    resize: int | None = None,
    interpolation: str = "area",
    additional: Literal["no", "train"] = "no",
    segment: Literal["none", "slic_knn"] = "none",
    references: str | None = None,
    reference_colours: Literal["average", "each"] = "average",
    segments: int = SEGMENTS,
    closest: int = CLOSEST,
    compactness: float = COMPACTNESS,
) -> Pool:
    """List the photographs: (size, size, 3) uint8 RGB, labels 0..2 for Type_1 to Type_3.

    root: holds Type_1/, Type_2/, Type_3/, or train/ or train/train/ with them.
    size: side of the image; 160 and 224 in the paper.
    resize: side to which the centred square of the shorter side is resized before its centre is
        cut out; None: `size`, so that nothing is cut off; 0: no resizing, the centre of the full
        resolution, which is the paper's wording (section 5.1) taken literally.
    additional: `train` adds Kaggle's additional images to the training part, from root's folders
        additional*/Type_*/ or additional*/*/Type_*/; the paper leaves them out.
    segment: slic_knn blacks out what medexp.data.segment takes for no cervix, in the image of
        `size`; the arguments from `references` on are its own.

    Raises MedexpError for folders that are missing or empty, links that lead out of root, and
    references that cannot be read; ConfigError for values out of range.
    """
    prepare = Preparation(size, resize, interpolation)
    one_of("dataset.additional", additional, ("no", "train"))
    one_of("dataset.segment", segment, KINDS)
    root = folder(Path(root), "it should hold Type_1, Type_2 and Type_3")
    base = base_of(root)
    listed = [
        (file, label)
        for label, kind in enumerate(INFO.classes)
        for file in photographs(base, base / kind)
    ]
    ids = [file.relative_to(base).as_posix() for file, _ in listed]
    notes = [NO_TEST, prepare.note()]

    parts, public = None, INFO.counts["all"]
    if additional == "train":
        more = additional_photographs(root)
        parts = np.array([""] * len(listed) + ["train"] * len(more))
        listed += more
        ids += [file.relative_to(root).as_posix() for file, _ in more]
        public += ADDITIONAL
        notes.append(
            f"{len(more):,} of Kaggle's additional images are in the training part, where patients "
            "of the other parts, duplicates and wrong labels are known to be"
        )

    cut = None
    if segment == "slic_knn":
        cut = segmenter(
            root,
            references,
            colours=reference_colours,
            segments=segments,
            closest=closest,
            compactness=compactness,
        )
        notes.append(cut.note())

    def decode(row: int) -> tuple[np.ndarray, dict[str, Any]]:
        return prepared(listed[row][0], prepare, cut)

    return Pool(
        name="cervix",
        classes=INFO.classes,
        labels=np.array([label for _, label in listed], np.int64),
        ids=np.array(ids),
        files=[file for file, _ in listed],
        shape=(size, size, 3),
        dtype=np.uint8,
        decode=decode,
        settings=asdict(prepare) | {"segment": cut.settings() if cut else None},
        parts=parts,
        public=public,
        notes=tuple(notes),
    )


def load_new(
    shape: tuple[int, ...],
    *,
    root: str | Path,
    size: int = 160,
    resize: int | None = None,
    interpolation: str = "area",
    segment: Literal["none", "slic_knn"] = "none",
    references: str | None = None,
    reference_colours: Literal["average", "each"] = "average",
    segments: int = SEGMENTS,
    closest: int = CLOSEST,
    compactness: float = COMPACTNESS,
) -> NewFiles:
    """How photographs without labels are read; the arguments are those of `load`.

    root: where references of the run's own are.
    """
    prepare = Preparation(size, resize, interpolation)
    cut = None
    if segment == "slic_knn":
        cut = segmenter(
            Path(root),
            references,
            colours=reference_colours,
            segments=segments,
            closest=closest,
            compactness=compactness,
        )

    def read(file: Path, number: int) -> tuple[np.ndarray, dict[str, Any]]:
        return prepared(file, prepare, cut)

    return NewFiles(IMAGES, (size, size, 3), np.uint8, read)


def prepared(
    file: Path, prepare: "Preparation", cut: Segmenter | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """A photograph as (size, size, 3) uint8, and what its file says of itself."""
    photograph, facts = read_image(file, "RGB")
    try:
        image = prepare(photograph)
    except MedexpError as error:
        raise MedexpError(f"{file}: {error}. Set dataset.resize=null") from None
    return (cut(image) if cut else image), facts


@dataclass(frozen=True)
class Preparation:
    """Section 5.1: what becomes of a photograph before segmentation; arguments of `load`."""

    size: int
    resize: int | None
    interpolation: str

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"dataset.size={self.size}: need 1 or more pixels")
        if self.resize is not None and self.resize != 0 and self.resize < self.size:
            raise ConfigError(
                f"dataset.resize={self.resize}: smaller than dataset.size={self.size}, which is "
                "cut from it. null: as large; 0: no resizing"
            )
        one_of("dataset.interpolation", self.interpolation, list(pixels.INTERPOLATION))

    def __call__(self, photograph: np.ndarray) -> np.ndarray:
        """(H, W, 3) -> centred square -> resized -> centred (size, size, 3).

        A photograph smaller than `resize` is enlarged. Raises MedexpError where, without resizing,
        it is smaller than `size`.
        """
        image = pixels.centre_square(photograph)
        if self.resize != 0:
            side = self.resize or self.size
            image = pixels.resize(image, side, side, self.interpolation)
        return pixels.centre_crop(image, self.size)

    def note(self) -> str:
        """What section 5.1 leaves open."""
        area = f"{self.size}x{self.size}"
        if self.resize == 0:
            return f"the centre {area} pixels at full resolution, section 5.1 taken literally"
        return (
            f"centred square resized to {self.resize or self.size}, our choice as the paper does "
            f"not say, then its centre {area}"
        )


def base_of(root: Path) -> Path:
    """The folder at or below root that holds all three class folders."""
    for nested in NESTED:
        base = root / nested
        missing = [f"{kind}/" for kind in INFO.classes if not (base / kind).is_dir()]
        if not missing:
            return base
        if len(missing) < len(INFO.classes):
            raise not_found(INFO, base, missing)
    raise not_found(INFO, root, missing)


def photographs(root: Path, place: Path) -> list[Path]:
    """The JPEG files of a class folder below root; MedexpError where there are none."""
    inside(root, place.relative_to(root).as_posix())
    files = find(folder(place, "a class folder"), JPEG)
    if not files:
        raise MedexpError(
            f"{place}: no JPEG (.jpg, .jpeg) in it. Unpack Kaggle's archive again, or take the "
            "empty folder away"
        )
    return files


def additional_photographs(root: Path) -> list[tuple[Path, int]]:
    """Kaggle's additional images with their labels, wherever its archives were unpacked."""
    tops = [top for top in subfolders(root) if top.name.lower().startswith("additional")]
    places = [
        (place / kind, label)
        for top in tops
        for place in (top, *subfolders(top))
        for label, kind in enumerate(INFO.classes)
        if (place / kind).is_dir()
    ]
    if not places:
        raise MedexpError(
            f"dataset.additional=train: {root.absolute()} has no additional*/Type_1/ and so on. "
            "Unpack Kaggle's additional_Type_1_v2.7z to additional_Type_3_v2.7z there"
        )
    return [(file, label) for place, label in places for file in photographs(root, place)]
