"""Segmentation of an organ by superpixels and colour; everything else is blacked out.

H. Nguyen, T. Leavitt, Y. Laloudakis, Cervical Cancer Screening (CS231N, 2017), section 5.2: SLIC
(scikit-image) cuts an image into about K = 10 patches by colour and place; the M = 5 patches whose
mean RGB lies nearest to that of ten hand-segmented cervixes are taken, and any that these enclose,
since the middle of a cervix is often redder.

Stated: SLIC, K, M, mean RGB, the enclosed patches. Open, and chosen here: SLIC's compactness (20:
with scikit-image's 10, K = 10 leaves about 7 patches of a phantom, with 20 about 8), at what size
it is done (as stored), and what several reference colours mean: the paper speaks of one "average
color vector", so readers take the average; the functions here take any number and go by the
nearest of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from medexp.data.files import find, folder, read_image
from medexp.errors import ConfigError, MedexpError, one_of
from medexp.runs.files import csv_rows

KINDS = ("none", "slic_knn")
SEGMENTS, CLOSEST, COMPACTNESS = 10, 5, 20.0
MASK = "_mask.png"
# The paper's ten colours are not public. Ours: the phantoms' cervixes on average (the second), and
# pinks and reds of cervixes in better, worse and redder light.
OUR_COLOURS = ((208, 136, 130), (192, 119, 113), (168, 96, 92), (160, 104, 100))


class Panels(NamedTuple):
    """The steps of one segmentation, in the order of the paper's Figures 5 to 7.

    image: (H, W, 3) uint8. labels: (H, W) int64, the superpixels. nearest: (H, W) bool, the patches
    picked by colour. mask: (H, W) bool, those and what they enclose. segmented: (H, W, 3) uint8.
    """

    image: np.ndarray
    labels: np.ndarray
    nearest: np.ndarray
    mask: np.ndarray
    segmented: np.ndarray


# ---------------------------------------------------------------- one image


def superpixels(
    image: np.ndarray, *, segments: int = SEGMENTS, compactness: float = COMPACTNESS
) -> np.ndarray:
    """SLIC's patches of an (H, W, 3) uint8 image: (H, W) int64 labels from 0 without a gap.

    segments: about how many; compactness: what place weighs against colour (CIELAB).
    Raises MedexpError for an image that has no three channels of uint8.
    """
    # Imported here: scikit-image slows the start of every command.
    from skimage.segmentation import slic

    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
        raise MedexpError(
            f"image of shape {image.shape}, {image.dtype}: superpixels need colours, (H, W, 3) "
            "uint8. Take dataset.segment=none"
        )
    labels = slic(
        image, n_segments=segments, compactness=compactness, start_label=0, channel_axis=-1
    )
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape)


def patch_colours(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean RGB of each patch: (n, 3) float64."""
    flat = labels.ravel()
    sums = [np.bincount(flat, image[..., channel].ravel()) for channel in range(3)]
    colours: np.ndarray = np.stack(sums, axis=1) / np.bincount(flat)[:, None]
    return colours


def nearest_patches(colours: np.ndarray, references: np.ndarray, closest: int) -> np.ndarray:
    """The `closest` patches by distance in RGB to the nearest reference colour, nearest first.

    colours: (n, 3); references: (r, 3). Returns min(closest, n) indices; of patches equally near,
    the first.
    """
    # Imported here: scipy.spatial slows the start of every command.
    from scipy.spatial import cKDTree

    distances, _ = cKDTree(references).query(colours)
    return np.argsort(distances, kind="stable")[:closest]


def with_enclosed(labels: np.ndarray, picked: np.ndarray) -> np.ndarray:
    """(H, W) bool: the picked patches, and every patch that lies in a hole of them.

    A hole is what cannot reach the image's border by steps to the four neighbours.
    """
    # Imported here: scipy.ndimage slows the start of every command.
    from scipy.ndimage import binary_fill_holes

    outside = ~binary_fill_holes(np.isin(labels, picked))
    inside = np.bincount(labels.ravel(), outside.ravel()) == 0
    mask: np.ndarray = inside[labels]
    return mask


def panels(
    image: np.ndarray,
    references: np.ndarray | Sequence[Sequence[float]],
    *,
    segments: int = SEGMENTS,
    closest: int = CLOSEST,
    compactness: float = COMPACTNESS,
) -> Panels:
    """Segment an (H, W, 3) uint8 image by reference colours (r, 3), 0..255, and keep every step."""
    labels = superpixels(image, segments=segments, compactness=compactness)
    colours = patch_colours(image, labels)
    picked = nearest_patches(colours, np.asarray(references, float), closest)
    mask = with_enclosed(labels, picked)
    return Panels(image, labels, np.isin(labels, picked), mask, image * mask[..., None])


# ---------------------------------------------------------------- for a reader


@dataclass(frozen=True)
class Segmenter:
    """The segmentation of a data set: what a reader calls, keys its cache by, and notes.

    colours: r, g, b of each reference. origin: where they are from, in words.
    """

    colours: tuple[tuple[float, float, float], ...]
    origin: str
    segments: int = SEGMENTS
    closest: int = CLOSEST
    compactness: float = COMPACTNESS

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The image (H, W, 3) uint8 with everything outside the mask black."""
        return panels(
            image,
            self.colours,
            segments=self.segments,
            closest=self.closest,
            compactness=self.compactness,
        ).segmented

    def settings(self) -> dict[str, Any]:
        """What decides the pixels, JSON-ready."""
        return {
            "kind": "slic_knn",
            "colours": [list(colour) for colour in self.colours],
            "segments": self.segments,
            "closest": self.closest,
            "compactness": self.compactness,
        }

    def note(self) -> str:
        return (
            f"segmented: the {self.closest} of about {self.segments} SLIC patches nearest in "
            f"colour and those they enclose, the rest black; reference colours: {self.origin}"
        )


def segmenter(
    root: Path,
    references: str | None = None,
    *,
    colours: Literal["average", "each"] = "average",
    segments: int = SEGMENTS,
    closest: int = CLOSEST,
    compactness: float = COMPACTNESS,
) -> Segmenter:
    """The segmentation that `dataset.segment=slic_knn` asks for.

    references: as in `reference_colours`; None: `root`/references where there is such a folder,
        else OUR_COLOURS.
    colours: `average`, one colour for all of them, as in the paper; `each`, the nearest counts.
    Raises ConfigError for values out of range, MedexpError for references that cannot be read.
    """
    one_of("dataset.reference_colours", colours, ("average", "each"))
    if not 1 <= closest <= segments:
        raise ConfigError(
            f"dataset.closest={closest} of dataset.segments={segments}: need 1 or more, and no "
            "more patches than there are"
        )
    if compactness <= 0:
        raise ConfigError(f"dataset.compactness={compactness}: need more than 0")
    if references is None and (root / "references").is_dir():
        references = str(root / "references")
    if references is None:
        rgb, origin = np.array(OUR_COLOURS, float), "medexp's own, an assumption"
    else:
        rgb = reference_colours(Path(references))
        origin = f"{len(rgb)} in {Path(references).name}"
    if colours == "average":
        rgb, origin = rgb.mean(axis=0, keepdims=True), f"average of {origin}"
    listed = tuple((float(r), float(g), float(b)) for r, g, b in rgb)
    return Segmenter(listed, origin, segments, closest, compactness)


def reference_colours(path: Path) -> np.ndarray:
    """Mean RGB of each hand-segmented image: (r, 3) float64, 0..255.

    path: a folder of photographs, NAME.jpg (or .png, ...), each with NAME_mask.png of the same
        size, not 0 where the organ is; or a CSV with the columns r, g, b, a row a colour.
    Raises MedexpError, which names the file, for anything else.
    """
    if path.suffix.lower() == ".csv":
        return listed_colours(path)
    files = find(folder(path, "it should hold the reference images and masks"))
    masks = [file for file in files if file.name.endswith(MASK)]
    images = [file for file in files if file not in masks]
    if not images:
        raise MedexpError(f"{path}: no reference image. Put NAME.jpg and NAME{MASK} there")
    alone = {m.name.removesuffix(MASK) for m in masks} ^ {image.stem for image in images}
    if alone:
        name = min(alone)
        raise MedexpError(
            f"{path}: {name} is only one of a pair; each image NAME.jpg has its mask NAME{MASK}"
        )
    return np.stack([masked_mean(image, image.with_name(image.stem + MASK)) for image in images])


def masked_mean(image: Path, mask: Path) -> np.ndarray:
    """Mean RGB of the image's pixels where its mask is not 0: (3,) float64."""
    pixels, _ = read_image(image, "RGB")
    inside = read_image(mask, "L")[0][..., 0] > 0
    if inside.shape != pixels.shape[:2]:
        height, width = pixels.shape[:2]
        raise MedexpError(
            f"{mask}: {inside.shape[1]}x{inside.shape[0]} pixels, but {image.name} has "
            f"{width}x{height} (upright)"
        )
    if not inside.any():
        raise MedexpError(f"{mask}: nothing is marked, all pixels are 0")
    colour: np.ndarray = pixels[inside].mean(axis=0)
    return colour


def listed_colours(path: Path) -> np.ndarray:
    """The colours of a CSV with columns r, g, b: (r, 3) float64."""
    rows = []
    for line, cells in csv_rows(path, ("r", "g", "b")):
        try:
            row = [float(cells[channel]) for channel in "rgb"]
        except ValueError as error:
            raise MedexpError(f"{path}, line {line}: {error}. Give numbers 0 to 255") from None
        if not all(0 <= value <= 255 for value in row):
            raise MedexpError(f"{path}, line {line}: colour {row}: need numbers 0 to 255")
        rows.append(row)
    if not rows:
        raise MedexpError(f"{path}: no colour. Give a row r,g,b for each reference")
    return np.array(rows)
