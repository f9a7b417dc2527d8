"""What a network looks at: saliency, Grad-CAM and feature maps of a few images, as PNG files.

conf/explain names the functions that make an Explainer; medexp/explain/maps.py has the maps. The
network is in evaluation mode and float32, and left as it was. Images go through it one by one, so
that a CT volume fits.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from medexp.data.base import Split
from medexp.errors import ConfigError, MedexpError, one_of
from medexp.explain.maps import feature_maps, gradcam_maps, last_maps, saliency_maps
from medexp.report.figure import panels
from medexp.score.predict import predict, probabilities, to_input

PAGE = 6  # images on a page

# (network, x (1, C, [D,] H, W), class (1,)) -> a map (1, [D,] H, W) in [0, 1] that is laid over the
# image, or layer -> feature maps (maps, h, w), each a grid of its own.
Maps = Callable[[nn.Module, Tensor, Tensor], np.ndarray | Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Subject:
    """The images that are explained.

    classes: their names. marks: PHANTOM, PARTIAL: shown on every page. predicted: (N, C) class
    probabilities of the split, computed where they are not given.
    """

    split: Split
    classes: Sequence[str]
    marks: Sequence[str] = ()
    predicted: np.ndarray | None = None


@dataclass(frozen=True)
class Explainer:
    """Makes maps of some images of a subject and draws them; another explainer is another `maps`.

    name: of the files; title: of the pages. n: images to show, spread over the classes and over
    right and wrong predictions. of: explain the `predicted` or the `true` class of each image.
    """

    name: str
    title: str
    maps: Maps
    n: int
    of: str = "predicted"

    def __post_init__(self) -> None:
        one_of("explain.of", self.of, ("predicted", "true"))
        if self.n < 1:
            raise ConfigError(f"explain.n={self.n}: must be 1 or more")

    def __call__(self, network: nn.Module, subject: Subject, folder: Path) -> list[Path]:
        """Draw into `folder`: pages of images, a page a volume, or a grid a layer. The files."""
        chosen, titles, guesses = choose(network, subject, self.n)
        targets = subject.split.labels[chosen] if self.of == "true" else guesses
        overlays, paths = [], []
        for number, (row, target) in enumerate(zip(chosen, targets, strict=True)):
            x = as_input(network, subject.split.images[row : row + 1])
            maps = self.maps(network, x, torch.tensor([target], device=x.device))
            if not isinstance(maps, Mapping):
                overlays.append(maps[0])
                continue
            for layer, grid in maps.items():
                path = folder / f"{self.name}-{number + 1}-{file_name(layer)}.png"
                heading = f"{layer}\n{titles[number]}"
                paths.append(panels.feature_grid(grid, heading, path, subject.marks))
        if overlays:
            paths += self.draw(subject.split.images[chosen], overlays, titles, folder, subject)
        return paths

    def draw(
        self,
        images: np.ndarray,
        maps: Sequence[np.ndarray],
        titles: Sequence[str],
        folder: Path,
        subject: Subject,
    ) -> list[Path]:
        """Image, map and overlay: pages of photographs, or a page a volume."""
        heading, paths = f"{self.title} of the {self.of} class", []
        if images.ndim == 5:
            for number, (volume, heat, title) in enumerate(zip(images, maps, titles, strict=True)):
                path = folder / f"{self.name}-{number + 1}.png"
                text = f"{heading}\n{title}"
                paths.append(panels.slice_montage(volume, heat, text, path, subject.marks))
            return paths
        for start in range(0, len(images), PAGE):
            page = slice(start, start + PAGE)
            path = folder / f"{self.name}-{start // PAGE + 1}.png"
            panel = images[page], np.stack(maps[page]), titles[page], path, subject.marks
            paths.append(panels.overlay_panel(*panel, heading=heading))
        return paths


def saliency(*, n: int, of: str = "predicted") -> Explainer:
    """How much each pixel moves the score of the class (Simonyan et al. 2014)."""

    def maps(network: nn.Module, x: Tensor, target: Tensor) -> np.ndarray:
        gradients = saliency_maps(network, x, target)
        # A few pixels hold the largest gradients; scaled to them, the rest would look black.
        high = np.quantile(gradients, 0.995)
        return np.clip(gradients / high, 0, 1) if high > 0 else gradients

    return Explainer("saliency", "saliency", maps, n, of)


def gradcam(*, n: int, of: str = "predicted", layer: str | None = None) -> Explainer:
    """Grad-CAM (Selvaraju et al. 2017); layer: a module's dotted path, by default `last_maps`'."""

    def maps(network: nn.Module, x: Tensor, target: Tensor) -> np.ndarray:
        nonlocal layer
        layer = layer or last_maps(network, x)  # the same for all images
        return gradcam_maps(network, x, target, layer)

    return Explainer("gradcam", "Grad-CAM", maps, n, of)


def features(*, n: int) -> Explainer:
    """A grid of feature maps for each convolution of each image; of a volume its middle slice."""

    def maps(network: nn.Module, x: Tensor, target: Tensor) -> Mapping[str, np.ndarray]:
        grids = feature_maps(network, x)
        if not grids:
            raise MedexpError(
                f"explain=features: {type(network).__name__} has no convolution. "
                "Use explain=saliency"
            )
        return grids

    return Explainer("features", "feature maps", maps, n)


def as_input(network: nn.Module, images: np.ndarray) -> Tensor:
    """Stored images as the network takes them, on its device."""
    device = next(network.parameters()).device
    return to_input(torch.from_numpy(np.ascontiguousarray(images)).to(device))


def choose(
    network: nn.Module, subject: Subject, n: int
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Indices of n images, their titles and their predicted classes."""
    split, classes, predicted = subject.split, subject.classes, subject.predicted
    if predicted is None:
        device = next(network.parameters()).device
        logits = predict(network, split, device=device, batch_size=1, channels_last=True)
        predicted = probabilities(logits)
    guesses = predicted.argmax(axis=1)
    chosen = spread(split.labels, guesses, n)
    titles = [
        f"{end_of(str(split.ids[i]))}\ntrue: {classes[split.labels[i]]}, predicted: "
        f"{classes[guesses[i]]} (p = {predicted[i, guesses[i]]:.3f})"
        for i in chosen
    ]
    return chosen, titles, guesses[chosen]


def spread(labels: np.ndarray, guesses: np.ndarray, n: int) -> np.ndarray:
    """Indices of n images, in order: as evenly as there are from (class, right or wrong).

    labels, guesses: (N,) int. Each group gives images evenly spaced in it, for neighbours are
    often of one patient. Fewer than n where the split has fewer.
    """
    groups = [
        members
        for right in (True, False)
        for label in np.unique(labels)
        if len(members := np.flatnonzero((labels == label) & ((guesses == labels) == right)))
    ]
    share = [0] * len(groups)
    while sum(share) < min(n, len(labels)):
        for i, members in enumerate(groups):
            if share[i] < len(members) and sum(share) < n:
                share[i] += 1
    picked = [
        members[np.linspace(0, len(members) - 1, count).astype(int)]
        for members, count in zip(groups, share, strict=True)
    ]
    return np.sort(np.concatenate(picked))


def end_of(text: str, width: int = 48) -> str:
    """The end of a long id: ids are paths, and the file says most."""
    return text if len(text) <= width else "…" + text[1 - width :]


def file_name(layer: str) -> str:
    return re.sub(r"[^\w.-]", "_", layer) or "network"
