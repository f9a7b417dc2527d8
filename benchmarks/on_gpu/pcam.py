"""PCam's size: epochs of 262,144 patches, against the bare step and against the loops beside.

    python -m benchmarks.on_gpu.pcam medexp|peers|profile

The patches are noise, written as the cached array is: one mapped file whose rows are the splits.
"""

import logging
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.on_gpu.figures import attempt, note, value_of
from benchmarks.on_gpu.sizes import DEVICE, EDGE, PATCHES, PEERS, SMALL
from benchmarks.speed import torch_peers
from medexp.config.compose import compose, instantiate
from medexp.config.settings import Settings
from medexp.config.tree import plain
from medexp.data.base import Dataset, Rows, Split, consecutive_rows
from medexp.train.device import pick_precision, wait_for
from medexp.train.epochs import Epochs, epoch_draws
from medexp.train.feed import Feed
from medexp.train.loop import Fitted, Parts, Session, fit
from medexp.train.state import set_seeds

STEP = "pcam"
BLOCK = 2048  # patches that a thread draws at a time
CASES = (("native3", 32), ("native3", 256), ("native1", 32), ("native1", 256))
WORK = Path(os.environ.get("WORK", "."))


class Said(logging.Handler):
    """What was said last."""

    text = "plain, nothing said"

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


SAID = Said()  # of graphs


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("medexp.train.graphs").addHandler(SAID)
    torch.backends.cudnn.benchmark = True  # as medexp train
    what = sys.argv[1]
    if what == "peers":
        peers()
        return
    if what == "profile":
        profile(*CASES[0], patches(PATCHES))
        return
    began = time.perf_counter()
    data = patches(PATCHES)
    note(STEP, f"{PATCHES:,} patches written", time.perf_counter() - began, "s")
    for model, batch in CASES:
        of_medexp(model, batch, data)


# ---------------------------------------------------------------- the patches


def patches(n: int) -> Dataset:
    """n training patches of noise, n / 8 for validation; written once."""
    path = WORK / "images.npy"
    sizes = {"train": n, "val": n // 8}
    if not path.exists():
        write(path, sum(sizes.values()))
    array = np.load(path, mmap_mode="r")
    splits = {part: split_of(array, rows) for part, rows in consecutive_rows(sizes).items()}
    return Dataset("noise", ("normal", "tumor"), **splits, test=splits["val"])


def write(path: Path, n: int) -> None:
    unfinished = path.with_name("unfinished.npy")
    array = np.lib.format.open_memmap(unfinished, "w+", np.uint8, (n, *EDGE))

    def fill(start: int) -> None:
        rows = array[start : start + BLOCK]
        rows[:] = np.random.default_rng(start).integers(0, 256, rows.shape, np.uint8)

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, range(0, n, BLOCK)))
    array.flush()
    unfinished.rename(path)


def split_of(array: np.ndarray, rows: np.ndarray) -> Split:
    return Split(Rows(array, rows), np.arange(len(rows)) % 2, rows.astype(str))


def part_of(data: Dataset, n: int) -> Dataset:
    """The first n training patches, and as many for validation as go with them."""

    def first(split: Split, n: int) -> Split:
        return Split(
            Rows(split.images.array, split.images.rows[:n]), split.labels[:n], split.ids[:n]
        )

    val = first(data.val, max(64, n // 8))
    return replace(data, train=first(data.train, n), val=val, test=val)


# ---------------------------------------------------------------- medexp


def of_medexp(model: str, batch: int, data: Dataset) -> None:
    """Epochs with graphs and without, the bare step, what the images alone take.

    A rate is of an image, so only the first case, which has a goal in seconds, is of all patches.
    """
    name, first = f"{model} at {batch}", (model, batch) == CASES[0]
    quarter = part_of(data, len(data.train) // 4)
    graphs = settings_of(model, batch, epochs=3, graphs="auto")
    with attempt(STEP, f"{name}, graphs"):
        SAID.text = Said.text
        own = data if first else quarter
        began = time.perf_counter()
        fitted = trained(graphs, own)
        taken = time.perf_counter() - began
        note(STEP, f"{name}, graphs: steps", SAID.text)
        whole, alone = seconds_of(fitted, len(own.train))
        if first:
            note(STEP, f"{name}, graphs: an epoch with validation", whole, "s", "<= 2")
            epochs = sum(row["seconds"] for row in fitted.history)
            note(STEP, f"{name}, graphs: before the epochs and behind", taken - epochs, "s")
        note(STEP, f"{name}, graphs: images/s with validation", len(own.train) / whole)
        note(STEP, f"{name}, graphs: images/s of training", len(own.train) / alone)
    with attempt(STEP, f"{name}, bare step"):
        rate = bare(settings_of(model, batch, epochs=2), len(data.train) // 4)
        note(STEP, f"{name}, bare graph: images/s", rate)
        reached = value_of(STEP, f"{name}, graphs: images/s of training")
        if reached:
            goal = ">= 0.9" if first else ""
            note(STEP, f"{name}: share of the bare graph", reached / rate, goal=goal)
    if first:
        with attempt(STEP, "images alone"):
            seconds = fed(graphs, quarter)
            note(STEP, "images alone, augmented: images/s", len(quarter.train) / seconds)
        with attempt(STEP, f"{name}, streamed"):
            streamed = settings_of(model, batch, "trainer.data=stream", epochs=2, graphs="auto")
            _, alone = seconds_of(trained(streamed, quarter), len(quarter.train))
            note(STEP, f"{name}, graphs, streamed: images/s", len(quarter.train) / alone)
    with attempt(STEP, f"{name}, no graphs"):
        part = part_of(data, len(data.train) // (8 if batch < 256 else 4))
        _, alone = seconds_of(trained(settings_of(model, batch), part), len(part.train))
        note(STEP, f"{name}, no graphs: images/s of training", len(part.train) / alone)


def settings_of(model: str, batch: int, *words: str, epochs: int = 2, graphs: str = "off") -> Any:
    own = [f"model={model}", f"trainer.batch_size={batch}", f"trainer.epochs={epochs}"]
    return compose([*own, f"trainer.graphs={graphs}", *words])


def trained(settings: Settings, data: Dataset) -> Fitted:
    """The loop as `medexp train` calls it."""
    folder = WORK / "fit"
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    set_seeds(0)
    *size, channels = data.image_shape
    network = instantiate(
        "model", settings.model, num_classes=2, in_channels=channels, image_size=tuple(size)
    )
    loss = instantiate("loss", settings.loss, class_counts=[1, 1])
    return fit(
        Session(folder, 0, DEVICE, pick_precision("auto", DEVICE)),
        network,
        data,
        Parts(
            instantiate("optimizer", settings.optimizer),
            instantiate("schedule", settings.schedule),
            loss,
            instantiate("augment", settings.augment),
        ),
        settings.trainer,
    )


def seconds_of(fitted: Fitted, images: int) -> tuple[float, float]:
    """Of the median epoch after the first: in all, and of its training alone."""
    rows = fitted.history[1:] or fitted.history
    return (
        statistics.median(row["seconds"] for row in rows),
        statistics.median(images / row["images_per_s"] for row in rows),
    )


def fed(settings: Settings, data: Dataset) -> float:
    """Seconds that an epoch's batches take where nothing is done with them."""
    augment = instantiate("augment", settings.augment)
    sampling = instantiate("sampling", settings.sampling)
    feed = Feed(data.train, DEVICE, augment, classes=2)
    cuts = Epochs.of(data.train.labels, sampling, settings.trainer).cuts
    seconds = []
    for epoch in range(2):
        began = time.perf_counter()
        order, draws = epoch_draws(data.train.labels, augment, sampling, seed=0, epoch=epoch)
        for _ in feed.batches(order, draws, cuts):
            pass
        wait_for(DEVICE)
        seconds.append(time.perf_counter() - began)
    return seconds[-1]


def profile(model: str, batch: int, data: Dataset) -> None:
    """Where 128 steps of each of two epochs spend the time: $OUT/profile.txt."""
    from torch.profiler import ProfilerActivity

    few = part_of(data, 128 * batch if not SMALL else 64)
    kinds = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (DEVICE.type == "cuda")]
    with torch.profiler.profile(activities=kinds) as watched:
        trained(settings_of(model, batch, epochs=2, graphs="auto"), few)
    orders = ["self_cpu_time_total", *["self_cuda_time_total"] * (DEVICE.type == "cuda")]
    found = watched.key_averages()
    with (Path(os.environ.get("OUT", ".")) / "profile.txt").open("a") as out:
        for order in orders:
            out.write(f"{model} at {batch}, 2 epochs of 128 steps, by {order}\n")
            out.write(found.table(sort_by=order, row_limit=25, max_name_column_width=70) + "\n")


# ---------------------------------------------------------------- the bare step and the loops


def job_of(settings: Settings, images: int) -> dict[str, Any]:
    """What benchmarks.speed's peers are told, for so many images."""
    precision = pick_precision("auto", DEVICE) or torch.float32
    return {
        "settings": plain(settings),
        "data": str(WORK),
        "augment": {"horizontal": True, "vertical": True, "turns": True},
        "epochs": settings.trainer.epochs,
        "workers": len(os.sched_getaffinity(0)),
        "precision": "float32",
        "own_precision": str(precision).removeprefix("torch."),
        "images": {"train": images},
        "shape": list(EDGE),
        "dtype": "uint8",
        "classes": 2,
        "device": str(DEVICE),
    }


def bare(settings: Settings, images: int) -> float:
    """Images a second of the step alone, replayed: the upper bound."""
    report = torch_peers.bare(job_of(settings, images))
    if DEVICE.type == "cuda" and report["extra"]["step"] != "graph":
        note(STEP, "bare step", "could not be captured, plain")
    return float(report["images"] / report["epoch_seconds"][-1])


class Mapped(torch_peers.Patches):
    """The loops' data set on the mapped file, in place of PCam's HDF5 files."""

    def __init__(
        self, folder: str | Path, part: str, transform: Callable[[Tensor], Tensor]
    ) -> None:
        data = part_of(patches(PATCHES), PEERS)
        split = data.train if part == "train" else data.val
        self.images = torch.from_numpy(np.asarray(split.images))
        self.labels = split.labels.tolist()
        self.transform = transform


def peers() -> None:
    """The loops' images a second; medexp's of the same network over theirs."""
    torch_peers.Patches = Mapped  # type: ignore[misc]
    job = job_of(settings_of("native3", 32, epochs=2), PEERS)
    own = value_of(STEP, "native3 at 32, graphs: images/s with validation")
    for precision in ("float32", job["own_precision"]):
        for name, peer in (("loop", torch_peers.loop), ("lightning", torch_peers.lightning)):
            with attempt(STEP, f"{name} in {precision}"):
                report = peer(job | {"precision": precision})
                rate = PEERS / report["epoch_seconds"][-1]
                note(STEP, f"{name} in {precision}: images/s", rate)
                if own:
                    what = f"medexp's speed over {name} in {precision}"
                    goal = ">= 10" if precision == "float32" else ""
                    note(STEP, what, own / rate, goal=goal)


if __name__ == "__main__":
    main()
