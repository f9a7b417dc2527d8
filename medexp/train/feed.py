"""Batches for the loop: where a split's images live, and how they get to the device."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from medexp.augment import Augment
from medexp.data.base import Split
from medexp.errors import ConfigError
from medexp.score.predict import to_input
from medexp.train.profile import untimed

log = logging.getLogger(__name__)

UPLOAD_BYTES = 2**26  # copied to the device at a time
# Gathered and augmented at once on a GPU, where launching takes longer than a batch's own work. A
# CPU works on what its caches hold.
BLOCK_BYTES = {"cuda": 2**24}


class Feed:
    """The training images of a split as network inputs on the device, batch by batch.

    place: `device`, all of them live there as stored and a batch is an index select; `stream`, they
    stay where the split has them, in memory or mapped from a file that all jobs share, and for a
    GPU a thread gathers the next batches; `auto`, device on CUDA where they fit in half the memory
    that is free, else stream. The batches are the same to the bit, whichever is taken.

    Raises ConfigError where the images do not fit on the device that was asked to hold them.
    """

    def __init__(
        self,
        split: Split,
        device: torch.device,
        augment: Augment,
        *,
        classes: int,
        place: str = "auto",
        channels_last: bool = True,
    ):
        self.split, self.device, self.augment = split, device, augment
        self.channels_last = channels_last
        self.place = pick_place(split, device, place)
        self.labels = torch.from_numpy(split.labels).to(device)
        self.classes = classes
        self.resident = upload(split, device) if self.place == "device" else None
        held = isinstance(split.images, np.ndarray)
        self.held = torch.from_numpy(split.images) if held else None

    def __len__(self) -> int:
        return len(self.split)

    def batches(
        self,
        order: Tensor,
        draws: Tensor,
        cuts: Sequence[tuple[int, int]],
        timed: Callable[[str], AbstractContextManager[None]] = untimed,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(x, target) of each cut (start, end) of the epoch's order (N,), with its draws (N, k).

        x: (B, C, [D,] H, W) float32; target: (B,) int64; both on the device. timed:
        profile.Profile's, around the parts of the work.
        """
        on_device, draws = order.to(self.device), draws.to(self.device)
        blocks = in_blocks(cuts, self.batches_of_block(cuts))
        held = order if self.resident is None else on_device
        stored = self.stored(held, [(block[0][0], block[-1][1]) for block in blocks])
        for block in blocks:
            first, last = block[0][0], block[-1][1]
            with timed("data"):
                images = next(stored)
            with timed("augmentation"):
                images = self.augment(images, draws[first:last])
            for start, end in block:
                with timed("augmentation"):
                    x = to_input(images[start - first : end - first], self.channels_last)
                    batch = self.mixed(x, on_device[start:end], draws[start:end])
                yield batch

    def batches_of_block(self, cuts: Sequence[tuple[int, int]]) -> int:
        """How many batches are gathered and augmented together."""
        if not cuts:
            return 1
        images = self.split.images
        batch = (cuts[0][1] - cuts[0][0]) * images.nbytes // len(images)
        return max(1, BLOCK_BYTES.get(self.device.type, 0) // batch)

    def stored(self, order: Tensor, cuts: Sequence[tuple[int, int]]) -> Iterator[Tensor]:
        """The stored images (B, H, W, C) of each cut on the device: copies."""
        parts = [order[start:end] for start, end in cuts]
        if self.resident is not None:
            for index in parts:
                yield self.resident.index_select(0, index)
        elif self.device.type == "cpu":
            # No thread ahead here: it would take the cores that the step computes on.
            yield from map(self.gather, parts)
        else:
            with ThreadPoolExecutor(1) as thread:
                ahead = [thread.submit(self.pinned, index) for index in parts[:1]]
                for following in range(1, len(parts) + 1):
                    images = ahead.pop().result()
                    ahead = [
                        thread.submit(self.pinned, index)
                        for index in parts[following : following + 1]
                    ]
                    yield images.to(self.device, non_blocking=True)

    def pinned(self, index: Tensor) -> Tensor:
        return self.gather(index).pin_memory()

    def mixed(self, x: Tensor, index: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """The batch with its targets, which an augmentation that mixes images turns into shares."""
        target = self.labels[index]
        mix = getattr(self.augment, "mix", None)
        if mix is None:
            return x, target
        shares = torch.nn.functional.one_hot(target, self.classes).float()
        mixed: tuple[Tensor, Tensor] = mix(x, shares, draws)
        return mixed

    def gather(self, index: Tensor) -> Tensor:
        """The stored images of an index on the CPU: a copy."""
        if self.held is not None:
            return self.held.index_select(0, index)
        return torch.from_numpy(self.split.images[index.numpy()])


def in_blocks(cuts: Sequence[tuple[int, int]], count: int) -> list[Sequence[tuple[int, int]]]:
    """The cuts, `count` at a time."""
    return [cuts[start : start + count] for start in range(0, len(cuts), count)]


def pick_place(split: Split, device: torch.device, place: str) -> str:
    """`auto` resolved by the memory that is free now; see Feed."""
    need = split.images.nbytes
    if device.type != "cuda":
        # On a CPU the mapped file is in its memory already: a copy would be a second one.
        return "stream" if place == "auto" else place
    free = torch.cuda.mem_get_info(device)[0]
    fits = need < free / 2
    if place == "device" and not fits:
        raise ConfigError(
            f"trainer.data=device: the training images take {need / 1e9:.1f} GB, and half of the "
            f"device's free {free / 1e9:.1f} GB is left for the network. Take trainer.data=stream"
        )
    chosen = ("device" if fits else "stream") if place == "auto" else place
    log.info("%.1f GB of training images, %.1f GB free: %s", need / 1e9, free / 1e9, chosen)
    return chosen


def upload(split: Split, device: torch.device) -> Tensor:
    """All images as stored on the device, block by block."""
    images = split.images
    resident = torch.empty(images.shape, dtype=torch.from_numpy(images[:1]).dtype, device=device)
    step = max(1, UPLOAD_BYTES * len(images) // images.nbytes)
    for start in range(0, len(images), step):
        block = np.ascontiguousarray(images[start : start + step])
        resident[start : start + step] = torch.from_numpy(block)
    return resident
