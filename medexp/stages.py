"""Stages: a network's children by name (`features`, `head`, ...), each with its own recipe.

A stage can have another learning rate, an L2 term in the loss, or be frozen. L2 here is the papers'
and Keras' meaning, a term `l2 * sum(kernel ** 2)` of the loss, not decoupled weight decay.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from medexp.config import Stage, check_schema, nearest
from medexp.errors import ConfigError


def read_stages(network: nn.Module, node: Mapping[str, Mapping[str, Any]]) -> dict[str, Stage]:
    """The `model.stages` of a config; ConfigError where a stage is no child of the network."""
    children = dict(network.named_children())
    stages = {}
    for name, values in node.items():
        if name not in children:
            raise ConfigError(f"model.stages.{name}: no such stage. {nearest(name, children)}")
        check_schema(values, Stage, f"model.stages.{name}.")
        stage = Stage(**values)
        if stage.l2 < 0:
            raise ConfigError(f"model.stages.{name}.l2={stage.l2}: must be 0 or more")
        if stage.lr is not None and stage.lr < 0:
            raise ConfigError(f"model.stages.{name}.lr={stage.lr}: must be 0 or more, or null")
        stages[name] = stage
    if stages and all(name in stages and stages[name].frozen for name in children):
        raise ConfigError("model.stages: every stage is frozen, so nothing is left to train")
    return stages


def freeze(network: nn.Module, stages: Mapping[str, Stage]) -> None:
    """Parameters of frozen stages get no gradient; of all others they do."""
    for name, child in network.named_children():
        frozen = name in stages and stages[name].frozen
        child.requires_grad_(not frozen)


def parameter_groups(network: nn.Module, stages: Mapping[str, Stage]) -> list[dict[str, Any]]:
    """The optimizer's groups: one for each stage with a rate of its own, one for the rest.

    A frozen stage is in no group, so that momentum and weight decay leave it alone.
    """
    rated = {name: stage.lr for name, stage in stages.items() if stage.lr is not None}
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            stage = name.split(".")[0]
            groups.setdefault(stage if stage in rated else "", []).append(parameter)
    return [
        {"params": parameters, **({"lr": rated[name]} if name else {})}
        for name, parameters in groups.items()
    ]


def penalty(network: nn.Module, stages: Mapping[str, Stage]) -> Tensor | None:
    """Sum over stages of l2 * sum(kernel ** 2); None where no stage has L2.

    Kernels are the weights with two or more axes, as in Keras' kernel_regularizer: no biases and
    no scales of a normalisation.
    """
    terms = [
        stage.l2 * torch.stack([p.float().square().sum() for p in kernels]).sum()
        for name, stage in stages.items()
        if stage.l2 > 0
        and (kernels := [p for p in network.get_submodule(name).parameters() if p.ndim > 1])
    ]
    return torch.stack(terms).sum() if terms else None


def train_mode(network: nn.Module, stages: Mapping[str, Stage]) -> None:
    """Training mode, but for the BatchNorm layers of frozen stages, as Keras runs them.

    Their statistics stay as they are and are what normalises; dropout in a frozen stage goes on.
    """
    network.train()
    for name, stage in stages.items():
        if stage.frozen:
            for module in network.get_submodule(name).modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
