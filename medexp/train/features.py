"""Features of a network's frozen leading part, computed once and read again in every epoch.

A network says how it divides: `leading` names the stages of its first part, `encode` is what they
make of an input and `classify` makes logits of that: network(x) is classify(encode(x)).
"""

import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from medexp.augment import Augment, Identity
from medexp.config.settings import Stage
from medexp.data.base import Split
from medexp.data.store import bar
from medexp.errors import ConfigError, one_of
from medexp.models.stages import train_mode
from medexp.score.predict import to_input
from medexp.train.device import generator_state

log = logging.getLogger(__name__)

CHOICES = ("auto", "on", "off")


class Shown(NamedTuple):
    """What the loop works on.

    train, val: the images, or in their place the kept features (N, 1, 1, F) float32. of: a network
    as it is called with a batch of them. seconds: what keeping them took.
    """

    train: Split
    val: Split
    of: Callable[[nn.Module], nn.Module]
    seconds: float = 0.0


class Rest(nn.Module):
    """A network behind its leading part: kept features (N, F, 1, 1) -> logits.

    shape, dtype: of an image's features as `encode` gives them in training.
    """

    def __init__(self, network: Any, shape: Sequence[int], dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.shape, self.dtype = network, tuple(shape), dtype

    def forward(self, x: Tensor) -> Any:
        if self.network.training:  # as autocast left them: dropout draws otherwise for another type
            x = x.to(self.dtype)
        return self.network.classify(x.reshape(len(x), *self.shape))


@contextmanager
def shown(
    choice: str,
    network: nn.Module,
    train: Split,
    val: Split,
    folder: Path,
    *,
    stages: Mapping[str, Stage],
    later: Mapping[str, Stage],
    augment: Augment,
    epochs: int,
    batch_sizes: tuple[int, int],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
    channels_last: bool,
) -> Iterator[Shown]:
    """Yield the images, or features of the frozen stages, kept in `folder` as long as they serve.

    choice: trainer.cache_features; `auto` keeps them where the epochs that are left are more than
    one and all would compute the same. stages, later: before and from the switch on. batch_sizes:
    of training and validation. Features are computed as the loop would, those of the training
    images under `autocast`, the others in float32.

    Raises ConfigError where they are asked for and cannot be kept.
    """
    one_of("trainer.cache_features", choice, CHOICES)
    images = Shown(train, val, lambda network: network)
    frozen = [name for name, s in stages.items() if s.frozen and later[name].frozen]
    if choice == "off" or (choice == "auto" and (epochs < 2 or not frozen)):
        yield images
        return
    began = time.perf_counter()
    train_mode(network, stages)
    leading = tuple(getattr(network, "leading", ()))
    encode = partial(encoded, network, device=device, channels_last=channels_last)
    first = train.images[: batch_sizes[0]]
    why = changing(network, leading, frozen, stages, augment) or unfit(
        partial(encode, first), device, folder, (len(train) + len(val)) / len(first)
    )
    if why:
        if choice == "on":
            raise ConfigError(f"trainer.cache_features=on: {why}")
        log.info("The frozen stages are computed anew in every epoch: %s", why)
        yield images
        return
    shutil.rmtree(folder, ignore_errors=True)  # of a session that was killed
    folder.mkdir(parents=True)
    try:
        with autocast():
            of_train, dtype = kept(encode, train, folder / "train.npy", batch_sizes[0])
        network.eval()
        of_val, _ = kept(encode, val, folder / "val.npy", batch_sizes[1])
        seconds = time.perf_counter() - began
        log.info(
            "Kept what the frozen %s make of an image: %s numbers, %.2f GB in all, in %.0f s",
            " and ".join(leading),
            f"{math.prod(of_train.shape[1:]):,}",
            (of_train.nbytes + of_val.nbytes) / 1e9,
            seconds,
        )
        yield Shown(
            replace(train, images=of_train.reshape(len(train), 1, 1, -1)),
            replace(val, images=of_val.reshape(len(val), 1, 1, -1)),
            partial(Rest, shape=of_train.shape[1:], dtype=dtype),
            seconds,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def changing(
    network: nn.Module,
    leading: Sequence[str],
    frozen: Sequence[str],
    stages: Mapping[str, Stage],
    augment: Augment,
) -> str | None:
    """Why an epoch could find other features than the one before; None where it cannot.

    frozen: the stages that never train.
    """
    if not leading:
        return f"{type(network).__name__} does not say how it divides (leading, encode, classify)"
    if trained := [name for name in leading if name not in frozen]:
        return f"{trained[0]} trains, and it is of the leading part ({', '.join(leading)})"
    if not isinstance(augment, Identity):
        return "the images are augmented anew in every epoch. Take augment=none"
    for name in leading:
        norms = nn.modules.batchnorm._BatchNorm
        layers = network.get_submodule(name).modules()
        if not stages[name].fixed_statistics and any(isinstance(m, norms) for m in layers):
            return f"BatchNorm's statistics change (model.stages.{name}.fixed_statistics=false)"
    return None


def unfit(
    encode: Callable[[], Tensor], device: torch.device, folder: Path, batches: float
) -> str | None:
    """Why so many batches like the one that `encode` makes features of cannot be kept, or None."""
    before = generator_state(device)
    need = 4 * encode().numel() * batches
    if not torch.equal(before, generator_state(device)):
        return "the frozen part draws at random in training (dropout)"
    free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free
    if need > free / 2:
        return f"its features take {need / 1e9:.1f} GB, and the disk has {free / 1e9:.1f} GB free"
    return None


@torch.inference_mode()
def encoded(
    network: Any, images: np.ndarray, *, device: torch.device, channels_last: bool
) -> Tensor:
    """The features (B, ...) of stored images (B, H, W, C)."""
    x = to_input(torch.from_numpy(images).to(device), channels_last)
    if hasattr(network, "input_mean"):
        # By hand: the hook of weights.normalise_input is on forward.
        x = (x - network.input_mean) / network.input_std
    found: Tensor = network.encode(x)
    return found


def kept(
    encode: Callable[[np.ndarray], Tensor], split: Split, path: Path, batch_size: int
) -> tuple[np.ndarray, torch.dtype]:
    """The features (N, ...) of a split as float32, mapped from the file that they are written to.

    With them the type that `encode` gave them.
    """
    array: Any = None
    with bar("computing features", len(split)) as advance:
        for start in range(0, len(split), batch_size):
            found = encode(split.images[start : start + batch_size])
            if array is None:
                shape = (len(split), *found.shape[1:])
                array = np.lib.format.open_memmap(path, "w+", np.float32, shape)
            array[start : start + batch_size] = found.float().cpu().numpy()
            advance(len(found))
    array.flush()
    # Copy on write: torch warns of an array that cannot be written to.
    return np.load(path, mmap_mode="c"), found.dtype
