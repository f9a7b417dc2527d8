"""Features of a network's frozen leading part, computed once and read back in every epoch.

A network says how it divides: `leading` names the stages of its first part, `encode` computes
their features of an input and `classify` turns these into logits: network(x) is
classify(encode(x)).
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
from medexp.config.settings import Stage, Trainer
from medexp.data.base import Dataset, Split
from medexp.data.progress import bar
from medexp.errors import ConfigError
from medexp.models.stages import train_mode
from medexp.score.predict import to_input
from medexp.train.device import generator_state

log = logging.getLogger(__name__)


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


class Frozen(NamedTuple):
    """The stages of a network before and after a switch (trainer.switch_at)."""

    stages: Mapping[str, Stage]
    later: Mapping[str, Stage]

    def names(self) -> list[str]:
        """The stages that are frozen throughout."""
        return [name for name, s in self.stages.items() if s.frozen and self.later[name].frozen]


@contextmanager
def shown(
    settings: Trainer,
    network: nn.Module,
    data: Dataset,
    folder: Path,
    *,
    frozen: Frozen,
    augment: Augment,
    epochs: int,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Iterator[Shown]:
    """Yield the images, or the features that frozen stages compute from them, kept in `folder`.

    settings.cache_features: `auto` keeps features where more than one epoch is left and all epochs
    would compute the same. They are computed as the loop would: those of the training images under
    `autocast`, the others in float32. The folder is removed at the end.

    Raises ConfigError where they are asked for and cannot be kept.
    """
    choice, train, val = settings.cache_features, data.train, data.val
    images = Shown(train, val, lambda network: network)
    if choice == "off" or (choice == "auto" and (epochs < 2 or not frozen.names())):
        yield images
        return
    began = time.perf_counter()
    train_mode(network, frozen.stages)
    leading = tuple(getattr(network, "leading", ()))
    encode = partial(encoded, network, channels_last=settings.channels_last)
    first = train.images[: settings.batch_size]
    device = next(network.parameters()).device
    why = changing(network, leading, frozen, augment) or unfit(
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
            of_train, dtype = kept(encode, train, folder / "train.npy", settings.batch_size)
        network.eval()
        of_val, _ = kept(encode, val, folder / "val.npy", settings.eval_batch_size)
        seconds = time.perf_counter() - began
        log.info(
            "The features that the frozen %s compute of each image are kept: %s numbers an image, "
            "%.2f GB in all, computed in %.0f s",
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
    network: nn.Module, leading: Sequence[str], frozen: Frozen, augment: Augment
) -> str | None:
    """Why the features of an epoch could differ from those of the one before; None: they cannot."""
    if not leading:
        return f"{type(network).__name__} does not say how it divides (leading, encode, classify)"
    if trained := [name for name in leading if name not in frozen.names()]:
        return f"{trained[0]} trains, and it is of the leading part ({', '.join(leading)})"
    if not isinstance(augment, Identity):
        return "the images are augmented anew in every epoch. Take augment=none"
    for name in leading:
        norms = nn.modules.batchnorm._BatchNorm
        layers = network.get_submodule(name).modules()
        if not frozen.stages[name].fixed_statistics and any(isinstance(m, norms) for m in layers):
            return f"BatchNorm's statistics change (model.stages.{name}.fixed_statistics=false)"
    return None


def unfit(
    encode: Callable[[], Tensor], device: torch.device, folder: Path, batches: float
) -> str | None:
    """Why the features of so many batches cannot be kept; None: they can. encode: of one batch."""
    before = generator_state(device)
    need = 4 * encode().numel() * batches
    if not torch.equal(before, generator_state(device)):
        return "the frozen part draws at random in training (dropout)"
    free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free
    if need > free / 2:
        return f"its features take {need / 1e9:.1f} GB, and the disk has {free / 1e9:.1f} GB free"
    return None


@torch.inference_mode()
def encoded(network: Any, images: np.ndarray, *, channels_last: bool) -> Tensor:
    """The features (B, ...) of stored images (B, H, W, C), on the network's device."""
    device = next(network.parameters()).device
    x = to_input(torch.from_numpy(images).to(device), channels_last)
    if hasattr(network, "input_mean"):
        # By hand: the hook of weights.normalise_input is on forward.
        x = (x - network.input_mean) / network.input_std
    features: Tensor = network.encode(x)
    return features


def kept(
    encode: Callable[[np.ndarray], Tensor], split: Split, path: Path, batch_size: int
) -> tuple[np.ndarray, torch.dtype]:
    """The features (N, ...) of a split as float32, mapped from the file they are written to.

    The second value is the dtype that `encode` returned.
    """
    array: Any = None
    with bar("computing features", len(split)) as advance:
        for start in range(0, len(split), batch_size):
            features = encode(split.images[start : start + batch_size])
            if array is None:
                shape = (len(split), *features.shape[1:])
                array = np.lib.format.open_memmap(path, "w+", np.float32, shape)
            array[start : start + batch_size] = features.float().cpu().numpy()
            advance(len(features))
    array.flush()
    # Copy on write: torch warns of an array that cannot be written to.
    return np.load(path, mmap_mode="c"), features.dtype
