"""A data set and a network of a user's own, out of the tree: what docs/extending.md shows."""

import numpy as np
import torch
from torch import nn

from medexp.data import Dataset, Split


def load(root: str, *, n: int = 96, size: int = 16, classes: int = 2) -> Dataset:
    """Noise; the class is the place of a bright square."""
    rng = np.random.default_rng(0)

    def split(n: int, name: str) -> Split:
        labels = np.arange(n) % classes
        images = rng.integers(0, 150, (n, size, size, 3)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[4 * label : 4 * label + 4, 4:8] += 100
        return Split(images, labels.astype(np.int64), np.array([f"{name}{i}" for i in range(n)]))

    names = tuple("abcdefgh"[:classes])
    return Dataset("toy", names, split(n, "train"), split(n // 2, "val"), split(n // 2, "test"))


def volumes(root: str, *, n: int = 8) -> Dataset:
    """Volumes of noise (4, 32, 32, 1); class b is bright in its third slice."""
    rng = np.random.default_rng(0)

    def split(name: str) -> Split:
        labels = np.arange(n) % 2
        images = rng.integers(0, 100, (n, 4, 32, 32, 1)).astype(np.uint8)
        images[labels == 1, 2, 8:24, 8:24] += 150
        return Split(images, labels.astype(np.int64), np.array([f"{name}{i}" for i in range(n)]))

    return Dataset("volumes", ("a", "b"), split("train"), split("val"), split("test"))


class Net(nn.Module):
    """A small convolutional network with dropout."""

    def __init__(self, *, num_classes: int, in_channels: int, width: int = 8, rate: float = 0.2):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, width, 3), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Dropout(rate),
            nn.Linear(16 * width, num_classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))


class Slices(nn.Module):
    """Volumes (N, C, D, H, W): a small network of slices, and the mean over them."""

    def __init__(self, *, num_classes: int, in_channels: int, image_size: tuple[int, ...]):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(in_channels, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, num_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        slices = x.transpose(1, 2).flatten(0, 1)
        return self.head(self.features(slices)).view(len(x), x.shape[2], -1).mean(1)


class Exploding(Net):
    """Its loss is no number from the third forward pass in training on."""

    passes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = super().forward(x)
        self.passes += self.training
        return logits * float("nan") if self.passes > 15 else logits
