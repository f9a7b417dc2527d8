"""Which training images an epoch consists of, and in which order.

A sampling has `order(labels, generator) -> (M,) int64` rows of the training split, from its labels
(N,) and a CPU generator. M may differ from N, but is the same whenever it is called with the same
labels. `fixed` says when it is drawn, with its augmentation: false, anew in every epoch, from the
seed and the epoch; true, once from the seed, and epochs only shuffle it.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from medexp.errors import ConfigError


class Sampling(Protocol):
    fixed: bool

    def order(self, labels: np.ndarray, generator: Generator) -> Tensor: ...


class Shuffle:
    """Each image once, in random order."""

    fixed = False

    def order(self, labels: np.ndarray, generator: Generator) -> Tensor:
        return torch.randperm(len(labels), generator=generator)


class Balanced:
    """Draws with replacement: each class that has images equally likely, in it each image.

    size: images an epoch; None: as many as there are. Raises ConfigError where it is below 1.
    """

    fixed = False

    def __init__(self, *, size: int | None = None):
        check_size(size, "must be 1 or more, or null for as many as there are training images")
        self.size = size

    def order(self, labels: np.ndarray, generator: Generator) -> Tensor:
        chance = torch.from_numpy(1 / np.bincount(labels)[labels])
        size = len(labels) if self.size is None else self.size
        return torch.multinomial(chance, size, replacement=True, generator=generator)


class Offline:
    """`size` draws with replacement, each image equally likely, made once: a virtual folder.

    What Augmentor's `sample(size)` writes to disk (Mir and Nissa 2019, 3.3.2), without the files.
    Raises ConfigError where the size is below 1.
    """

    fixed = True

    def __init__(self, *, size: int = 20_000):
        check_size(size, "must be 1 or more; the paper's is 20000")
        self.size = size

    def order(self, labels: np.ndarray, generator: Generator) -> Tensor:
        return torch.randint(len(labels), (self.size,), generator=generator)


def check_size(size: int | None, remedy: str) -> None:
    if size is not None and size < 1:
        raise ConfigError(f"sampling.size={size}: {remedy}")
