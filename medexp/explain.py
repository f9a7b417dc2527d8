"""What a network looks at: saliency, Grad-CAM and feature maps of a few images, as PNG files.

`saliency`, `gradcam` and `features` are what conf/explain names; `*_maps` are the pure functions
behind them. The network is in evaluation mode and float32, and left as it was: no hook, no
gradient, no changed flag stays. Images go through it one by one, so that a CT volume fits.

- saliency: K. Simonyan, A. Vedaldi, A. Zisserman, "Deep Inside Convolutional Networks", 2014; the
  plain gradient, as in the cervix paper's Fig. 17.
- Grad-CAM: R. R. Selvaraju et al., "Grad-CAM", ICCV 2017.
- feature maps: a grid for each convolution, as in Mir and Nissa's Fig. 22.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medexp.config import one_of
from medexp.data.base import Split
from medexp.errors import ConfigError, MedexpError
from medexp.evaluate import predict, probabilities, to_input
from medexp.report import panels

PAGE = 6  # images on a page
_CONVOLUTIONS = nn.modules.conv._ConvNd
# What may stand between a convolution and what a paper shows as its feature maps.
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm)

Maps = Callable[[Tensor, Tensor], np.ndarray]


# ---------------------------------------------------------------- what conf/explain names


def saliency(
    network: nn.Module,
    images: np.ndarray,
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
    images: np.ndarray,
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
    images: np.ndarray,
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


# ---------------------------------------------------------------- maps


def saliency_maps(network: nn.Module, x: Tensor, target: Tensor) -> np.ndarray:
    """|d logit_target / dx|, the largest over the channels (Simonyan et al. 2014, section 3.1).

    x: (n, C, H, W) or (n, C, D, H, W) float; target: (n,) int64. Returns (n, H, W) or (n, D, H, W).
    """
    with _gradients_of_inputs(network):
        x = x.detach().clone().requires_grad_()
        # A layer that works in place must not meet a leaf.
        (gradient,) = torch.autograd.grad(_scores(network(x.clone()), target).sum(), x)
    return gradient.abs().amax(dim=1).cpu().numpy()


def gradcam_maps(
    network: nn.Module, x: Tensor, target: Tensor, layer: str | None = None
) -> np.ndarray:
    """Grad-CAM in [0, 1]: ReLU of the maps summed by their mean gradients, stretched to the image.

    The largest value of each image (of all slices of a volume) is 1, or all are 0. Slices that a
    network folds into the batch have weights of their own, so a slice without influence stays dark.

    Args:
        x: (n, C, H, W) or (n, C, D, H, W) float.
        target: (n,) int64, the class that is explained.
        layer: dotted path of the module whose output is taken; by default that of `last_maps`.

    Returns:
        (n, H, W) or (n, D, H, W).

    Raises:
        ConfigError: there is no such layer.
        MedexpError: the layer has no maps, or not those of every image.
    """
    layer = layer or last_maps(network, x)
    modules = dict(network.named_modules())
    if layer not in modules:
        # A network may have hundreds; `medexp models NAME` lists them.
        near = ", ".join(difflib.get_close_matches(layer, filter(None, modules), n=5, cutoff=0.0))
        raise ConfigError(f"explain.layer={layer}: no such layer. Nearest: {near}")
    calls: list[Any] = []
    with _gradients_of_inputs(network):
        handle = modules[layer].register_forward_hook(lambda *call: calls.append(call[2]))
        try:
            score = _scores(network(x.detach().clone().requires_grad_()), target).sum()
        finally:
            handle.remove()
        outputs = _of_all_images(calls, x, layer)
        gradients = torch.autograd.grad(score, outputs, allow_unused=True)
    maps = torch.cat([output.detach() for output in outputs])
    gradient = torch.cat(
        [
            torch.zeros_like(output) if found is None else found
            for found, output in zip(gradients, outputs, strict=True)
        ]
    )
    weights = gradient.flatten(2).mean(dim=2)  # (rows, maps)
    cam = torch.einsum("rm,rm...->r...", weights, maps).relu().unsqueeze(1)
    size = x.shape[-2:] if maps.ndim == 4 else x.shape[2:]
    mode = "bilinear" if maps.ndim == 4 else "trilinear"
    cam = F.interpolate(cam, size=size, mode=mode, align_corners=False)
    cam = cam.reshape(len(x), *x.shape[2:])
    high = cam.flatten(1).amax(dim=1).clamp_min(torch.finfo(cam.dtype).tiny)
    return (cam / high.view(-1, *[1] * (cam.ndim - 1))).cpu().numpy()


def last_maps(network: nn.Module, x: Tensor) -> str:
    """The layer that Grad-CAM takes by default: the last whose output is maps, and not pooled.

    Maps are 4D (or 5D, of a 3D network) with more than one pixel. So it is the last block of a
    ResNet or Inception, and the last activation of a VGG, before its pooling.

    Raises:
        MedexpError: the network has no such convolution.
    """
    found: list[str] = []
    pooled: list[Tensor] = []  # held, so that they can be told by identity
    of_convolution = False

    def note(name: str, module: nn.Module, given: Any, output: Any) -> None:
        nonlocal of_convolution
        if isinstance(module, _CONVOLUTIONS):
            of_convolution = True
        elif isinstance(module, (nn.Linear, nn.RNNBase)):
            of_convolution = False  # its axes are no longer (maps, rows, columns)
        if "Pool" in type(module).__name__ and isinstance(output, Tensor):
            pooled.append(output)
        elif of_convolution and _is_maps(output) and not any(output is p for p in pooled):
            found[:] = [name]

    _watch(network, x[:1], note)
    if not found:
        raise MedexpError(
            f"explain=gradcam: {type(network).__name__} has no convolution whose output is larger "
            "than one pixel. Use explain=saliency"
        )
    return found[0]


def feature_maps(network: nn.Module, x: Tensor) -> dict[str, np.ndarray]:
    """Of one image: the maps of each convolution, after the norm and activation that follow it.

    An activation that is called as a function, not as a module, is not seen. Of a volume the maps
    of its middle slice; of a convolution that is used several times, those of its first use.

    x: (1, C, H, W) or (1, C, D, H, W) float. Returns {dotted path of the convolution: (maps, h, w)}
    in forward order.
    """
    found: dict[str, np.ndarray] = {}
    rows_before: dict[str, int] = {}
    held: list[Tensor] = []
    source: dict[int, tuple[str, int]] = {}  # id of a tensor -> its convolution, the row to keep
    wanted = x.shape[2] // 2 if x.ndim == 5 else 0

    def note(name: str, module: nn.Module, given: Any, output: Any) -> None:
        if not _is_maps(output, least=1):
            return
        if isinstance(module, _CONVOLUTIONS):
            before = rows_before.get(name, 0)
            rows_before[name] = before + len(output)
            # A 3D convolution keeps the volume in one row.
            row = 0 if output.ndim == 5 else wanted - before
            if not 0 <= row < len(output) or (output.ndim == 5 and before):
                return
            source[id(output)] = (name, row)
        elif _follows(module) and id(given) in source:
            source[id(output)] = source[id(given)]
        else:
            return
        held.append(output)
        origin, row = source[id(output)]
        maps = output[row]
        maps = maps[:, maps.shape[1] // 2] if maps.ndim == 4 else maps
        found[origin] = maps.float().cpu().numpy().copy()  # a later layer may work in place

    _watch(network, x, note)
    return found


# ---------------------------------------------------------------- parts


def _follows(module: nn.Module) -> bool:
    activation = type(module).__module__ == nn.modules.activation.__name__
    return activation or isinstance(module, _NORMS)


def _is_maps(output: Any, least: int = 2) -> bool:
    """Whether it is (rows, maps, h, w) or (rows, maps, d, h, w) of at least so many pixels."""
    return isinstance(output, Tensor) and output.ndim in (4, 5) and output[0, 0].numel() >= least


def _scores(logits: Tensor, target: Tensor) -> Tensor:
    """(n, C) or (n, 1) logits -> (n,): those of the target classes.

    The pair (0, z) of a network with one output has a constant in it, so class 0 scores -z.
    """
    if logits.shape[1] == 1:
        return torch.where(target == 1, logits[:, 0], -logits[:, 0])
    return logits.gather(1, target[:, None])[:, 0]


@contextmanager
def _gradients_of_inputs(network: nn.Module) -> Iterator[None]:
    """Gradients flow through the network to its input, and none to its weights."""
    trained = [p for p in network.parameters() if p.requires_grad]
    # cuDNN differentiates an LSTM only in training mode, where only its dropout differs.
    recurrent = [(m, m.training, m.dropout) for m in network.modules() if isinstance(m, nn.RNNBase)]
    for parameter in trained:
        parameter.requires_grad_(False)
    for module, _, _ in recurrent:
        module.training, module.dropout = True, 0.0
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for module, training, dropout in recurrent:
            module.training, module.dropout = training, dropout


def _watch(network: nn.Module, x: Tensor, note: Callable[[str, nn.Module, Any, Any], None]) -> None:
    """One forward in which every call of every module is noted: name, module, input, output."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def call(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            note(name, module, given[0] if given else None, output)

        return call

    handles = [m.register_forward_hook(hook(name)) for name, m in network.named_modules()]
    try:
        with torch.no_grad():
            network(x.detach().clone())
    finally:
        for handle in handles:
            handle.remove()


def _of_all_images(calls: Sequence[Any], x: Tensor, layer: str) -> list[Tensor]:
    """The layer's outputs that together are of all images: one, or chunks of all slices.

    A module that a network uses several times counts with its last uses.
    """
    outputs: list[Tensor] = []
    rows = 0
    for output in reversed(calls):
        if not _is_maps(output, least=1) or not output.requires_grad:
            break
        wanted = len(x) * (x.shape[2] if x.ndim == 5 and output.ndim == 4 else 1)
        outputs.insert(0, output)
        rows += len(output)
        if rows >= wanted:
            break
    if not outputs or rows != wanted:
        shape = list(calls[-1].shape) if calls and isinstance(calls[-1], Tensor) else "no tensor"
        raise MedexpError(
            f"explain.layer={layer}: its output ({shape}) is not maps of every image "
            f"({list(x.shape)}). Name a convolution or a layer behind one"
        )
    return outputs


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
