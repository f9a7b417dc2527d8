"""MedMNIST: eighteen sets of small medical images in 2D and 3D, each an .npz with its own split.

J. Yang et al., MedMNIST v2: a large-scale lightweight benchmark for 2D and 3D biomedical image
classification, Scientific Data 10, 41 (2023). Names, classes and counts are those of the authors'
package medmnist 3.0, whose arrays are read as they are.
"""

from pathlib import Path
from typing import Literal

from medexp.data.axes import Way
from medexp.data.base import PARTS, NewFiles, Pool
from medexp.data.npz import find_arrays
from medexp.data.read.arrays import find_parts, new_arrays, pool_of
from medexp.errors import ConfigError, MedexpError, one_of

URL = "https://zenodo.org/records/10519652"
SIZES_2D, SIZES_3D = (28, 64, 128, 224), (28, 64)
ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver",
    "lung-left", "lung-right", "pancreas", "spleen",
)  # fmt: skip
CLASSES = {
    "pathmnist": (
        "adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle",
        "normal colon mucosa", "cancer-associated stroma", "colorectal adenocarcinoma epithelium",
    ),
    "dermamnist": (
        "actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma",
        "benign keratosis-like lesions", "dermatofibroma", "melanoma", "melanocytic nevi",
        "vascular lesions",
    ),
    "octmnist": (
        "choroidal neovascularization", "diabetic macular edema", "drusen", "normal",
    ),
    "pneumoniamnist": ("normal", "pneumonia"),
    "retinamnist": ("0", "1", "2", "3", "4"),
    "breastmnist": ("malignant", "normal, benign"),
    "bloodmnist": (
        "basophil", "eosinophil", "erythroblast",
        "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)", "lymphocyte",
        "monocyte", "neutrophil", "platelet",
    ),
    "tissuemnist": (
        "Collecting Duct, Connecting Tubule", "Distal Convoluted Tubule",
        "Glomerular endothelial cells", "Interstitial endothelial cells", "Leukocytes",
        "Podocytes", "Proximal Tubule Segments", "Thick Ascending Limb",
    ),
    "organamnist": ORGANS,
    "organcmnist": ORGANS,
    "organsmnist": ORGANS,
    "organmnist3d": (
        "liver", "kidney-right", "kidney-left", "femur-right", "femur-left", "bladder", "heart",
        "lung-right", "lung-left", "spleen", "pancreas",
    ),
    "nodulemnist3d": ("benign", "malignant"),
    "adrenalmnist3d": ("normal", "hyperplasia"),
    "fracturemnist3d": (
        "buckle rib fracture", "nondisplaced rib fracture", "displaced rib fracture",
    ),
    "vesselmnist3d": ("vessel", "aneurysm"),
    "synapsemnist3d": ("inhibitory synapse", "excitatory synapse"),
}  # fmt: skip
COUNTS = {  # train, val, test
    "pathmnist": (89996, 10004, 7180), "dermamnist": (7007, 1003, 2005),
    "octmnist": (97477, 10832, 1000), "pneumoniamnist": (4708, 524, 624),
    "retinamnist": (1080, 120, 400), "breastmnist": (546, 78, 156),
    "bloodmnist": (11959, 1712, 3421), "tissuemnist": (165466, 23640, 47280),
    "organamnist": (34561, 6491, 17778), "organcmnist": (12975, 2392, 8216),
    "organsmnist": (13932, 2452, 8827), "organmnist3d": (971, 161, 610),
    "nodulemnist3d": (1158, 165, 310), "adrenalmnist3d": (1188, 98, 298),
    "fracturemnist3d": (1027, 103, 240), "vesselmnist3d": (1335, 191, 382),
    "synapsemnist3d": (1230, 177, 352),
}  # fmt: skip
Subset = Literal[
    "pathmnist", "dermamnist", "octmnist", "pneumoniamnist", "retinamnist", "breastmnist",
    "bloodmnist", "tissuemnist", "organamnist", "organcmnist", "organsmnist", "organmnist3d",
    "nodulemnist3d", "adrenalmnist3d", "fracturemnist3d", "vesselmnist3d", "synapsemnist3d",
    "chestmnist",
]  # fmt: skip


def load(
    root: str | Path,
    *,
    subset: Subset = "pneumoniamnist",
    size: int = 28,
    channels: Literal["auto", "rgb", "grey"] = "auto",
    file: str | None = None,
) -> Pool:
    """The images of one of MedMNIST's sets, in the file's order and with its split.

    size: the side of the images in the file, 28 in SUBSET.npz and others in SUBSET_<size>.npz.
    channels: auto (1 or 3, as the file has), rgb or grey; of 2D sets. file: another name below
    root. Images are (size, size, 1 or 3), of 3D sets (size, size, size, 1), uint8. Raises
    ConfigError for a set or size that does not exist, and for chestmnist, whose images have several
    labels; MedexpError for a file that is missing, damaged or not that set's.
    """
    if subset == "chestmnist":
        raise ConfigError(
            "dataset.subset=chestmnist: its images have 14 labels each (multi-label), which "
            "medexp does not train. Choose another"
        )
    one_of("dataset.subset", subset, list(CLASSES))
    volume = subset.endswith("3d")
    sizes = SIZES_3D if volume else SIZES_2D
    if size not in sizes:
        raise ConfigError(f"dataset.size={size}: {subset} comes in {', '.join(map(str, sizes))}")
    name = file or f"{subset}{'' if size == 28 else f'_{size}'}.npz"
    path = Path(root) / name
    if not path.is_file():
        raise MedexpError(
            f"MedMNIST's {subset} not found: missing {path.absolute()}\n"
            f"The public file: {URL}/files/{name}\n"
            "Put it there, name its folder with dataset.root=, or try without it: source=phantom"
        )
    parts = find_parts(find_arrays(Path(root), name), path, "images", "labels")
    if list(parts) != list(PARTS):
        raise MedexpError(f"{path}: need {', '.join(f'{part}_images' for part in PARTS)}")
    for images, _ in parts.values():
        side = (size,) * (3 if volume else 2)
        if images.shape[1:] not in (side, (*side, 3)) or images.dtype != "uint8":
            raise MedexpError(
                f"{images.name}: {images.shape} {images.dtype}: need uint8 images of "
                f"{'x'.join(map(str, side))} for dataset.size={size}"
            )
    layout = "ndhw" if volume else "nhwc" if parts["train"][0].shape[3:] else "nhw"
    counts = dict(zip(PARTS, COUNTS[subset], strict=True))
    return pool_of(
        f"medmnist_{subset}" if size == 28 else f"medmnist_{subset}_{size}",
        [(part, *pair) for part, pair in parts.items()],
        Way(layout, None, channels, "area", None),
        CLASSES[subset],
        public=counts,
    )


def load_new(
    shape: tuple[int, ...], *, channels: Literal["auto", "rgb", "grey"] = "auto"
) -> NewFiles:
    """How images without labels are read, of .npy files and of .npz files such as MedMNIST's."""
    return new_arrays(shape, "images", Way("auto", None, channels, "area", None))
