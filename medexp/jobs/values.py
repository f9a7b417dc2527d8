"""Values that a target refuses: told by key and value, as wrong settings and not as a defect.

What torch and torchvision refuse is a ValueError, an assertion or a RuntimeError of their own, some
of it in the first step only. Each setting is therefore tried before anything is trained.
"""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from medexp.config.compose import instantiate
from medexp.config.settings import FACTS
from medexp.config.tree import Node
from medexp.data.base import Dataset
from medexp.errors import ConfigError, MedexpError

# What is raised of values that somebody gave; anything else is a defect.
REFUSALS = (ValueError, TypeError, IndexError, AssertionError, RuntimeError, NotImplementedError)
HYDRA = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")

T = TypeVar("T")
Build = Callable[[Mapping[str, Any]], T]


def built(key: str, node: Mapping[str, Any], make: Build[T]) -> T:
    """What `make` makes of the node of a group; ConfigError where its target refuses a value.

    The keys that are named are those without which it would work. A number that is infinite or
    none is refused whatever the target says, as a run's record cannot hold it.
    """
    for name, value in node.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{key}.{name}={value}: need a finite number")
    try:
        return make(node)
    except REFUSALS as error:
        logging.getLogger("medexp.file").exception("%s cannot be built", key)
        raise ConfigError(refusal(key, node, make, error)) from error


def refusal(key: str, node: Mapping[str, Any], make: Build[Any], error: Exception) -> str:
    """KEY=VALUE, whose target refuses it, and what that says."""
    given = {
        name: value
        for name, value in node.items()
        if name not in HYDRA and name not in FACTS.get(key, ())
    }
    to_blame = {name: value for name, value in given.items() if works_without(make, node, name)}
    named = ", ".join(f"{key}.{name}={value}" for name, value in (to_blame or given).items())
    said = f"{type(error).__name__}: {error}".splitlines()[0]
    return (
        f"{named or key}: {node.get('_target_')} does not take that ({said}). Change the value; "
        "the traceback is in run.log"
    )


def works_without(make: Build[Any], node: Mapping[str, Any], name: str) -> bool:
    content = {key: value for key, value in node.items() if key != name}
    try:
        make(type(node)(content) if isinstance(node, Node) else content)
    except (MedexpError, *REFUSALS):
        return False
    return True


def optimizer_of(node: Mapping[str, Any], device: torch.device) -> Callable[..., Any]:
    """The optimizer of a config, which has made a step of nothing on the device."""

    def build(content: Mapping[str, Any]) -> Callable[..., Any]:
        make: Callable[..., Any] = instantiate("optimizer", content)
        weight = nn.Parameter(torch.zeros(2, 2, device=device))
        weight.grad = torch.zeros_like(weight)
        make([weight]).step()
        return make

    return built("optimizer", node, build)


def loss_of(node: Mapping[str, Any], counts: list[int]) -> Callable[..., Tensor]:
    """The loss of a config, of training images of so many a class; it has been called once."""

    def build(content: Mapping[str, Any]) -> Callable[..., Tensor]:
        loss: Callable[..., Tensor] = instantiate("loss", content, class_counts=counts)
        loss(torch.zeros(len(counts), len(counts)), torch.arange(len(counts)))
        return loss

    return built("loss", node, build)


def try_network(network: nn.Module, target: str, data: Dataset) -> None:
    """Raise ConfigError unless the network takes an image of the data and has its classes.

    One image of zeros, on the CPU, in evaluation: it leaves nothing behind.
    """
    *sides, channels = data.image_shape
    shown = "x".join(map(str, (*sides, channels)))
    training = network.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            output = network.eval()(torch.zeros(1, channels, *sides))
    except REFUSALS as error:
        logging.getLogger("medexp.file").exception("The network cannot be called")
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ConfigError(
            f"model._target_={target}: does not take images of {shown} ({said}). Change "
            "dataset.size, the data set's channels or the arguments of the network; the traceback "
            "is in run.log"
        ) from error
    finally:
        network.train(training)
    classes = len(data.classes)
    fitting = {(1, classes), (1, 1)} if classes == 2 else {(1, classes)}
    if isinstance(output, Tensor) and tuple(output.shape) not in fitting:
        raise ConfigError(
            f"model._target_={target}: gives {tuple(output.shape)} for one image, where "
            f"{classes} classes need (1, {classes}): take num_classes as its number of outputs"
        )
