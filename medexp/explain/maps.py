"""Saliency, Grad-CAM and feature maps as arrays.

The network is left as it was: no hook, no gradient, no changed flag stays.

- saliency: K. Simonyan, A. Vedaldi, A. Zisserman, "Deep Inside Convolutional Networks", 2014; the
  plain gradient, as in the cervix paper's Fig. 17.
- Grad-CAM: R. R. Selvaraju et al., "Grad-CAM", ICCV 2017.
- feature maps: those of each convolution, as in Mir and Nissa's Fig. 22.
"""

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medexp.errors import ConfigError, MedexpError

_CONVOLUTIONS = nn.modules.conv._ConvNd
# What may stand between a convolution and what a paper shows as its feature maps.
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm)


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
    of_maps = torch.cat(
        [
            torch.zeros_like(output) if gradient is None else gradient
            for gradient, output in zip(gradients, outputs, strict=True)
        ]
    )
    weights = of_maps.flatten(2).mean(dim=2)  # (rows, maps)
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
    last: list[str] = []
    pooled: list[Tensor] = []  # held, so that they can be told by identity
    of_convolution = False

    def note(name: str, module: nn.Module, x: Any, output: Any) -> None:
        nonlocal of_convolution
        if isinstance(module, _CONVOLUTIONS):
            of_convolution = True
        elif isinstance(module, (nn.Linear, nn.RNNBase)):
            of_convolution = False  # its axes are no longer (maps, rows, columns)
        if "Pool" in type(module).__name__ and isinstance(output, Tensor):
            pooled.append(output)
        elif of_convolution and _is_maps(output) and not any(output is p for p in pooled):
            last[:] = [name]

    _watch(network, x[:1], note)
    if not last:
        raise MedexpError(
            f"explain=gradcam: {type(network).__name__} has no convolution whose output is larger "
            "than one pixel. Use explain=saliency"
        )
    return last[0]


def feature_maps(network: nn.Module, x: Tensor) -> dict[str, np.ndarray]:
    """Of one image: the maps of each convolution, after the norm and activation that follow it.

    An activation that is called as a function, not as a module, is not seen. Of a volume the maps
    of its middle slice; of a convolution that is used several times, those of its first use.

    x: (1, C, H, W) or (1, C, D, H, W) float. Returns {dotted path of the convolution: (maps, h, w)}
    in forward order.
    """
    grids: dict[str, np.ndarray] = {}
    rows_before: dict[str, int] = {}
    held: list[Tensor] = []
    source: dict[int, tuple[str, int]] = {}  # id of a tensor -> its convolution, the row to keep
    wanted = x.shape[2] // 2 if x.ndim == 5 else 0

    def note(name: str, module: nn.Module, x: Any, output: Any) -> None:
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
        elif _follows(module) and id(x) in source:
            source[id(output)] = source[id(x)]
        else:
            return
        held.append(output)
        origin, row = source[id(output)]
        maps = output[row]
        maps = maps[:, maps.shape[1] // 2] if maps.ndim == 4 else maps
        grids[origin] = maps.float().cpu().numpy().copy()  # a later layer may work in place

    _watch(network, x, note)
    return grids


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
        def call(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            note(name, module, inputs[0] if inputs else None, output)

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
