"""Pretrained weights: torchvision's by its own registry, or a file's, matched by name and shape.

Nothing is half loaded: the new state is put together and checked first, then loaded at once.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from medexp.errors import ConfigError, MedexpError
from medexp.models.standard import IMAGENET_STATISTICS
from medexp.runs import checkpoint
from medexp.runs.guard import refuse_special

# What training code wraps networks in: DataParallel, Lightning modules, torch.compile.
WRAPPERS = ("module.", "model.", "net.", "network.", "backbone.", "encoder.", "_orig_mod.")
DEPTH = 3  # wrappers one in another: _orig_mod.module.model.
# Under which key checkpoints keep their state dict.
STATE = ("model", "state_dict", "model_state_dict", "model_state", "net", "network")


@dataclass(frozen=True)
class Loaded:
    """What became of each tensor: names in the network, but `unused`, names in the file.

    prefix: that of the wrapper which the file's names were freed of.
    """

    source: str
    matched: tuple[str, ...]
    grey: tuple[str, ...]
    other_shape: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    prefix: str = ""

    def text(self) -> str:
        """A line a kind, with the first names."""
        lines = [f"Weights from {self.source}: {len(self.matched)} tensors loaded"]
        if self.prefix:
            lines.append(f"  names in the file begin with {self.prefix}, which was cut off")
        for label, names in (
            ("summed over RGB for one channel", self.grey),
            ("left as drawn, other shape", self.other_shape),
            ("left as drawn, not in the file", self.missing),
            ("in the file, not in the network", self.unused),
        ):
            if names:
                more = f" and {len(names) - 4} more" if len(names) > 4 else ""
                lines.append(f"  {label}: {', '.join(names[:4])}{more}")
        return "\n".join(lines)


def load_weights(network: nn.Module, source: str) -> Loaded:
    """Load `imagenet` (the network's torchvision weights) or a file into a network on any device.

    A file is a torchvision or medexp checkpoint (`weights_only`) or .safetensors; its names are
    those of the network or of torchvision's network of the same kind, perhaps behind the prefix of
    a wrapper such as DataParallel. A tensor of another shape,
    such as a head for other classes, stays as it was drawn. A first convolution for RGB goes into
    one for grey images summed over its inputs, which equals feeding the image three times.

    Raises:
        ConfigError: the network has no ImageNet weights.
        MedexpError: the file is missing, damaged, no checkpoint, or of another network.
    """
    path = imagenet_file(network) if source == "imagenet" else Path(source).expanduser()
    tensors, prefix = unwrapped(read_tensors(path), network)
    state = network.state_dict()
    taken: dict[str, Tensor] = {}
    grey, other_shape, unused = [], [], []
    for name, tensor in tensors.items():
        if name not in state:
            unused.append(name)
        elif tensor.shape == state[name].shape:
            taken[name] = tensor
        elif _sums_to_grey(tensor, state[name]):
            taken[name] = tensor.sum(1, keepdim=True)
            grey.append(name)
        else:
            other_shape.append(name)
    # Biases fit by chance: AlexNet's and VGG's have names and lengths in common.
    kernels = {name for name, parameter in network.named_parameters() if parameter.ndim > 1}
    fitting = len(kernels & set(taken))
    if 2 * fitting < max(1, min(len(kernels), sum(t.ndim > 1 for t in tensors.values()))):
        raise MedexpError(
            f"model.weights={source}: {fitting or 'none'} of its {len(tensors)} tensors fits as a "
            f"kernel of {type(network).__name__} (the file has {', '.join(list(tensors)[:3])}, "
            f"...; the network {', '.join(list(state)[:3])}, ...). It is of another network"
        )
    network.load_state_dict(state | taken)
    missing = [name for name in state if name not in tensors]
    return Loaded(
        str(path),
        tuple(taken),
        tuple(grey),
        tuple(other_shape),
        tuple(missing),
        tuple(unused),
        prefix,
    )


def unwrapped(tensors: Mapping[str, Tensor], network: nn.Module) -> tuple[dict[str, Tensor], str]:
    """The tensors under the network's names, and the prefix of a wrapper that was cut off for it.

    The shortest prefix is taken without which most of the names are the network's.
    """
    names = set(network.state_dict())
    prefixes = getattr(network, "renames", {})
    found = rename(tensors, prefixes, network)
    known, cut = len(names & set(found)), ""
    for depth in range(1, DEPTH + 1):
        if 2 * known >= min(len(names), len(tensors)):
            break
        for wrappers in product(WRAPPERS, repeat=depth):
            prefix = "".join(wrappers)
            if not any(name.startswith(prefix) for name in tensors):
                continue
            bare = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
            renamed = rename(bare, prefixes, network)
            if (count := len(names & set(renamed))) > known:
                found, known, cut = renamed, count, prefix
    return found, cut


def rename(
    tensors: Mapping[str, Tensor], prefixes: Mapping[str, str], network: nn.Module
) -> dict[str, Tensor]:
    """torchvision's names as ours, where the file has torchvision's."""
    names = set(network.state_dict())
    renamed = {}
    for name, tensor in tensors.items():
        old = max((p for p in prefixes if name.startswith(p)), key=len, default=None)
        ours = name if old is None else prefixes[old] + name.removeprefix(old)
        renamed[ours if ours in names else name] = tensor
    return renamed


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU; no code in the file is run."""
    if path.is_dir() or not path.exists():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise MedexpError(f"model.weights={path}: {what}. Name a .pt, .pth or .safetensors file")
    refuse_special(path)
    if path.suffix == ".safetensors":
        content = _read_safetensors(path)
    else:
        try:
            content = checkpoint.read_tensors(path)
        except Exception as error:
            raise MedexpError(
                f"model.weights={path}: cannot be read ({_first_line(error)}). It is "
                "truncated, no checkpoint, or holds more than tensors, which medexp does not run"
            ) from error
    for key in STATE:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise MedexpError(f"model.weights={path}: holds no tensors by name (a state dict)")
    wrong = [
        name
        for name, value in content.items()
        if not isinstance(value, Tensor) or value.layout is not torch.strided
    ]
    if wrong:
        raise MedexpError(
            f"model.weights={path}: '{wrong[0]}' is no tensor, or a sparse one, so it is no state "
            "dict"
        )
    return {str(name): value for name, value in content.items()}


def _read_safetensors(path: Path) -> Any:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise MedexpError(
            f"model.weights={path}: needs the package safetensors: pip install safetensors"
        ) from error
    try:
        return load_file(path)
    except Exception as error:
        raise MedexpError(
            f"model.weights={path}: cannot be read ({_first_line(error)}). It is truncated "
            "or no .safetensors file"
        ) from error


def imagenet_file(network: nn.Module) -> Path:
    """torchvision's ImageNet weights for a network, in torch's cache, downloaded where absent.

    The file's name ends in the first digits of its SHA-256, which are checked each time.
    """
    from torchvision.models import get_weight

    name = getattr(network, "imagenet", None)
    if name is None:
        raise ConfigError(
            f"model.weights=imagenet: torchvision has none for {type(network).__name__}. Networks "
            "that have: alexnet, vgg16, resnet50, resnet101, inception_v3, viptt. Else name a file"
        )
    weights: Any = get_weight(name)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path: Path = folder / weights.url.rpartition("/")[2]
    if not path.exists():
        try:
            weights.get_state_dict(progress=True, check_hash=True)
        except (URLError, OSError, RuntimeError) as error:
            raise MedexpError(
                f"model.weights=imagenet: {path.name} cannot be fetched ({error}).\n"
                f"Download {weights.url}\nand put it into {folder}"
            ) from error
    digest = re.search(r"-([0-9a-f]{8,})\.pth$", path.name)
    if digest and not _sha256(path).startswith(digest.group(1)):
        raise MedexpError(
            f"{path}: damaged: its SHA-256 does not begin with {digest.group(1)}. Remove it, so "
            f"that it is fetched again from {weights.url}"
        )
    return path


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sums_to_grey(tensor: Tensor, target: Tensor) -> bool:
    return (
        tensor.ndim >= 4
        and tensor.shape[1] == 3
        and target.shape == (tensor.shape[0], 1, *tensor.shape[2:])
    )


def normalise_input(network: nn.Module, in_channels: int) -> None:
    """Make a network take [0, 1] images as its ImageNet weights expect them, in every forward.

    (x - mean) / std by channel, with the `statistics` of the network's class, or ImageNet's own;
    for one channel the means of the three. The two constants are no part of the state dict: the
    config says whether they apply, at evaluation too.
    """
    if hasattr(network, "input_mean"):
        return
    statistics = getattr(network, "statistics", IMAGENET_STATISTICS)
    mean, std = (torch.tensor(values) for values in statistics)
    if in_channels == 1:
        mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
    elif in_channels != 3:
        raise ConfigError(
            f"model.normalise=true: the images have {in_channels} channels, ImageNet's have 3 "
            "(1 is taken for grey). Set model.normalise=false"
        )
    network.register_buffer("input_mean", mean.view(-1, 1, 1), persistent=False)
    network.register_buffer("input_std", std.view(-1, 1, 1), persistent=False)
    network.register_forward_pre_hook(_normalise)


def _normalise(network: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
    mean, std = network.get_buffer("input_mean"), network.get_buffer("input_std")
    return ((arguments[0] - mean) / std,)
