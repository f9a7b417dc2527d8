"""What a network looks at: saliency, Grad-CAM and feature maps of a few images, as PNG files.

These are what conf/explain names; medexp/explain/maps.py has the functions behind them. The network
is in evaluation mode and float32, and left as it was. Images go through it one by one, so that a CT
volume fits.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from medexp.data.base import Rows, Split
from medexp.errors import ConfigError, MedexpError, one_of
from medexp.explain.maps import feature_maps, gradcam_maps, last_maps, saliency_maps
from medexp.report.figure import panels
from medexp.score.predict import predict, probabilities, to_input

PAGE = 6  # images on a page

Maps = Callable[[Tensor, Tensor], np.ndarray]


def saliency(
    network: nn.Module,
    images: np.ndarray | Rows,
    labels: np.ndarray,
    classes: Sequence[str],
    ids: np.ndarray,
    folder: Path,
    *,
    n: int,
    of: str = "predicted",
    marks: Sequence[str] = (),
    predicted: np.ndarray | None = None,
) -> list[Path]:
    """Pages of image, saliency map and overlay; a page a volume. Returns the files written.

    Args:
        images, labels, ids: a split as stored, see `medexp.data.base.Split`.
        n: images to show, spread over the classes and over right and wrong predictions.
        of: explain the `predicted` or the `true` class of each image.
        marks: PHANTOM, PARTIAL: shown on every page.
        predicted: (N, C) class probabilities of the split, computed here if they are not given.
    """

    def maps(x: Tensor, target: Tensor) -> np.ndarray:
        found = saliency_maps(network, x, target)
        # A few pixels hold the largest gradients; scaled to them, the rest would look black.
        high = np.quantile(found, 0.995)
        return np.clip(found / high, 0, 1) if high > 0 else found

    split = Split(images, labels, ids)
    return _draw("saliency", maps, network, split, classes, folder, n, of, marks, predicted)


def gradcam(
    network: nn.Module,
    images: np.ndarray | Rows,
    labels: np.ndarray,
    classes: Sequence[str],
    ids: np.ndarray,
    folder: Path,
    *,
    n: int,
    of: str = "predicted",
    layer: str | None = None,
    marks: Sequence[str] = (),
    predicted: np.ndarray | None = None,
) -> list[Path]:
    """Pages of image, Grad-CAM and overlay; a page a volume. Returns the files written.

    Arguments as in `saliency`; `layer` is the dotted path of a module, by default that of
    `last_maps`.
    """

    def maps(x: Tensor, target: Tensor) -> np.ndarray:
        nonlocal layer
        layer = layer or last_maps(network, x)
        return gradcam_maps(network, x, target, layer)

    split = Split(images, labels, ids)
    return _draw("gradcam", maps, network, split, classes, folder, n, of, marks, predicted)


def features(
    network: nn.Module,
    images: np.ndarray | Rows,
    labels: np.ndarray,
    classes: Sequence[str],
    ids: np.ndarray,
    folder: Path,
    *,
    n: int,
    marks: Sequence[str] = (),
    predicted: np.ndarray | None = None,
) -> list[Path]:
    """A grid of feature maps for each convolution of each image; of a volume its middle slice.

    Arguments as in `saliency`. Returns the files written: features-<image>-<layer>.png.
    """
    split = Split(images, labels, ids)
    chosen, titles, _ = _choose(network, split, classes, n, predicted)
    paths = []
    for number, (index, title) in enumerate(zip(chosen, titles, strict=True), start=1):
        found = feature_maps(network, _input(network, images[index : index + 1]))
        if not found:
            raise MedexpError(
                f"explain=features: {type(network).__name__} has no convolution. "
                "Use explain=saliency"
            )
        for name, maps in found.items():
            path = Path(folder) / f"features-{number}-{_file_name(name)}.png"
            paths.append(panels.feature_grid(maps, f"{name}\n{title}", path, marks))
    return paths


def _draw(
    kind: str,
    maps: Maps,
    network: nn.Module,
    split: Split,
    classes: Sequence[str],
    folder: Path,
    n: int,
    of: str,
    marks: Sequence[str],
    predicted: np.ndarray | None,
) -> list[Path]:
    """Choose images, make a map of each, draw them: pages of photographs, or a page a volume."""
    one_of("explain.of", of, ("predicted", "true"))
    chosen, titles, guesses = _choose(network, split, classes, n, predicted)
    targets = split.labels[chosen] if of == "true" else guesses
    found = []
    for index, target in zip(chosen, targets, strict=True):
        x = _input(network, split.images[index : index + 1])
        found.append(maps(x, torch.tensor([target], device=x.device))[0])
    name = {"saliency": "saliency", "gradcam": "Grad-CAM"}[kind] + f" of the {of} class"
    images, paths = split.images[chosen], []
    if images.ndim == 5:
        for number, (volume, heat, title) in enumerate(zip(images, found, titles, strict=True), 1):
            path = Path(folder) / f"{kind}-{number}.png"
            heading = f"{name}\n{title}"
            paths.append(panels.slice_montage(volume, heat, heading, path, marks))
        return paths
    for number, start in enumerate(range(0, len(images), PAGE), start=1):
        page = slice(start, start + PAGE)
        path = Path(folder) / f"{kind}-{number}.png"
        heat = np.stack(found[page])
        paths.append(
            panels.overlay_panel(images[page], heat, titles[page], path, marks, heading=name)
        )
    return paths


def _input(network: nn.Module, images: np.ndarray) -> Tensor:
    device = next(network.parameters()).device
    return to_input(torch.from_numpy(np.ascontiguousarray(images)).to(device))


def _choose(
    network: nn.Module,
    split: Split,
    classes: Sequence[str],
    n: int,
    predicted: np.ndarray | None,
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Indices of n images, their titles and their predicted classes."""
    if n < 1:
        raise ConfigError(f"explain.n={n}: must be 1 or more")
    if predicted is None:
        device = next(network.parameters()).device
        logits = predict(network, split, device=device, batch_size=1, channels_last=True)
        predicted = probabilities(logits)
    guesses = predicted.argmax(axis=1)
    chosen = spread(split.labels, guesses, n)
    titles = [
        f"{_end(str(split.ids[i]))}\ntrue: {classes[split.labels[i]]}, predicted: "
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


def _end(text: str, width: int = 48) -> str:
    """The end of a long id: ids are paths, and the file says most."""
    return text if len(text) <= width else "…" + text[1 - width :]


def _file_name(layer: str) -> str:
    return re.sub(r"[^\w.-]", "_", layer) or "network"
