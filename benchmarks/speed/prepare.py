"""What happens once before the rounds, in a process of its own: files, cache, facts.

    python -m benchmarks.speed.prepare JOB.json

Writes the files that all contestants read, fills medexp's cache, and reports what is measured: the
number of images, the device, the precision, what training one image costs by count.
"""

import json
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from benchmarks.speed.ceilings import training_counts
from medexp.config.compose import instantiate
from medexp.config.settings import Settings
from medexp.config.tree import build
from medexp.data.base import Split
from medexp.data.load import load_data
from medexp.errors import ConfigError, MedexpError
from medexp.models import summary
from medexp.train import device as devices

SHAPE = (96, 96, 3)  # of random patches: PCam's
BLOCK = 512  # images in memory at a time
STEM = "camelyonpatch_level_2_split_"  # of PCam's files


def main() -> int:
    try:
        print(json.dumps(prepare(json.loads(Path(sys.argv[1]).read_text()))))
    except MedexpError as error:
        print(f"medexp: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    return 0


def prepare(job: dict[str, Any]) -> dict[str, Any]:
    """job: settings of a run, folder of the files, patches (None: the user's own data)."""
    settings, folder = job["settings"], Path(job["data"])
    run = build(Settings, settings)
    if job["patches"]:
        write_random(folder, job["patches"])
    data = load_data(run)
    if not job["patches"]:
        write_splits(folder, {"train": data.train, "valid": data.val})
    device = devices.pick_device(run.trainer.device)
    precision = devices.pick_precision(run.trainer.amp, device)
    return {
        "images": {name: len(split) for name, split in data.splits().items()},
        "shape": list(data.image_shape),
        "dtype": str(data.train.images[:1].dtype),
        "classes": len(data.classes),
        "counts": counted(settings["model"], data.image_shape, len(data.classes)),
        "device": str(device),
        "machine": f"{devices.device_name(device)}; {platform.platform()}",
        "precision": str(precision or torch.float32).removeprefix("torch."),
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "torchvision", "numpy")},
            **({"cuda": torch.version.cuda} if torch.version.cuda else {}),
        },
    }


def counted(node: dict[str, Any], shape: tuple[int, ...], classes: int) -> dict[str, Any]:
    *size, channels = shape
    with torch.device("meta"):
        network = instantiate(
            "model", node, num_classes=classes, in_channels=channels, image_size=tuple(size)
        )
        return training_counts(summary.layers(network, (channels, *size)))


def write_random(folder: Path, n: int) -> None:
    """PCam's six HDF5 files with n training patches of noise, n / 8 for validation and for test."""
    rng = np.random.default_rng(0)
    for part, count in (("train", n), ("valid", n // 8), ("test", n // 8)):
        blocks = (
            rng.integers(0, 256, (min(BLOCK, count - start), *SHAPE), np.uint8)
            for start in range(0, count, BLOCK)
        )
        write_part(folder, part, blocks, SHAPE, np.uint8, np.arange(count) % 2)


def write_splits(folder: Path, splits: dict[str, Split]) -> None:
    """The same two files a part of the user's own images, decoded as medexp decodes them."""
    for part, split in splits.items():
        blocks = (split.images[start : start + BLOCK] for start in range(0, len(split), BLOCK))
        first = split.images[:1]
        write_part(folder, part, blocks, first.shape[1:], first.dtype, split.labels)


def write_part(
    folder: Path,
    part: str,
    blocks: Iterator[np.ndarray],
    shape: tuple[int, ...],
    dtype: Any,
    labels: np.ndarray,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    n = len(labels)
    with h5py.File(folder / f"{STEM}{part}_x.h5", "w") as file:
        x = file.create_dataset("x", (n, *shape), dtype, chunks=(min(64, n), *shape))
        start = 0
        for block in blocks:
            x[start : start + len(block)] = block
            start += len(block)
    with h5py.File(folder / f"{STEM}{part}_y.h5", "w") as file:
        file["y"] = labels.astype(np.uint8).reshape(-1, 1, 1, 1)


if __name__ == "__main__":
    sys.exit(main())
