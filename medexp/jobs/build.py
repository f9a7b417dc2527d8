"""From settings to objects: the machine, the network, the weights that it starts from."""

import gc
import logging
import os
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from medexp.config.compose import instantiate
from medexp.config.settings import ModelNode, Trainer
from medexp.errors import ConfigError
from medexp.models.stages import freeze, named_stages
from medexp.models.weights import Loaded, load_weights, normalise_input
from medexp.runs.files import write_text
from medexp.runs.guard import refuse_ways_out
from medexp.train import device as devices

log = logging.getLogger(__name__)


def release_memory() -> None:
    """Give back what the last job of a sweep held, so that the next starts from a clean device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def set_machine(trainer: Trainer) -> tuple[torch.device, torch.dtype | None]:
    """Device and autocast dtype of the settings; threads and determinism are set on the way."""
    device = devices.pick_device(trainer.device)
    precision = devices.pick_precision(trainer.amp, device)
    torch.set_num_threads(trainer.threads or devices.THREADS)
    if device.type == "cpu":
        devices.keep_freed_memory()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(trainer.deterministic)
    torch.backends.cudnn.benchmark = not trainer.deterministic
    return device, precision


class Kind(Protocol):
    """What a network must know of its data: a Dataset is such, and what a run's record says."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def image_shape(self) -> tuple[int, ...]: ...


def build_network(node: ModelNode, data: Kind) -> nn.Module:
    """The network of a config, with the channels, classes and image size of the data set.

    Raises ConfigError where the target returns no network, or a stage is no child of it.
    """
    *size, channels = data.image_shape
    network = instantiate(
        "model",
        node,
        num_classes=len(data.classes),
        in_channels=channels,
        image_size=tuple(size),
    )
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"model._target_={node.target}: returned {type(network).__name__}, not a "
            "torch.nn.Module"
        )
    if normalised(node, network):
        normalise_input(network, channels)
    freeze(network, named_stages(network, node.stages))
    return network


def normalised(node: ModelNode, network: nn.Module) -> bool:
    """Whether the network's inputs are normalised as ImageNet's: as said, else by its weights."""
    if node.normalise is not None:
        return bool(node.normalise)
    return node.weights == "imagenet" and hasattr(network, "statistics")


def parameter_counts(network: nn.Module) -> dict[str, int]:
    """trainable: weights that are trained; total: with the statistics that BatchNorm keeps.

    Keras counts so: its non-trainable parameters are the moving means and variances.
    """
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in network.parameters() if not p.requires_grad)
    weights = {name for name, _ in network.named_parameters()}
    kept = [t for name, t in network.state_dict().items() if name not in weights]
    buffers = sum(tensor.numel() for tensor in kept if tensor.is_floating_point())
    return {"trainable": trainable, "total": trainable + frozen + buffers}


# ---------------------------------------------------------------- the weights it starts from


def run_folder(key: str, folder: str) -> Path:
    """A run's folder; ConfigError where it holds no best weights, MedexpError for a way out."""
    path = Path(folder)
    if path.is_dir():
        refuse_ways_out(path)
    if not (path / "checkpoints" / "best.pt").is_file():
        raise ConfigError(
            f"{key}={folder}: no checkpoints/best.pt there. Give the folder of a run, which "
            "`medexp train` named at its end"
        )
    return path


def start_weights(
    network: nn.Module, weights: str | None, start: Path | None, folder: Path
) -> None:
    """Load what the training starts from: model.weights, or the best weights of a run.

    transferred.txt in `folder` then says what became of each tensor.
    """
    if start is not None:
        weights = str(start / "checkpoints" / "best.pt")
    if not weights:
        return
    loaded = load_weights(network, weights)
    log.info(loaded.text())
    write_text(folder / "transferred.txt", transferred(network, loaded))
    imagenet = start is None and hasattr(network, "statistics")
    if imagenet and not hasattr(network, "input_mean"):
        log.info(
            "The network sees pixels in [0, 1]. If these weights were trained on ImageNet's "
            "normalisation, set model.normalise=true"
        )


def transferred(network: nn.Module, loaded: Loaded) -> str:
    """A line a tensor of the network: name, shape, carried over or drawn anew and why."""
    fates = {
        **dict.fromkeys(loaded.matched, "carried over"),
        **dict.fromkeys(loaded.grey, "carried over, summed over RGB"),
        **dict.fromkeys(loaded.other_shape, "drawn anew: has another shape there"),
        **dict.fromkeys(loaded.missing, "drawn anew: is not there"),
    }
    state = network.state_dict()
    numbers = {name: tensor.numel() for name, tensor in state.items()}
    carried = sum(numbers[name] for name in loaded.matched)
    width = max(map(len, state)) + 2
    lines = [
        f"From {loaded.source}:",
        f"{len(loaded.matched)} of {len(state)} tensors, {carried:,} of "
        f"{sum(numbers.values()):,} numbers",
        "",
    ]
    for name, tensor in state.items():
        shape = "x".join(map(str, tensor.shape)) or "1"
        lines.append(f"{name:<{width}}{shape:<18}{fates[name]}")
    lines += [f"{name:<{width}}{'':<18}there, not in this network" for name in loaded.unused]
    return "\n".join(lines) + "\n"
