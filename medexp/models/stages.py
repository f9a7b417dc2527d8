"""Stages: a network's children by name (`features`, `head`, ...), each with its own recipe.

A stage can have another learning rate or weight decay, an L1 or L2 term in the loss, or be frozen,
from the start or from an iteration on. L2 here is the papers' and Keras' meaning, a term
`l2 * sum(kernel ** 2)` of the loss, not decoupled weight decay.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from medexp.config.settings import Stage
from medexp.errors import ConfigError, nearest


def named_stages(network: nn.Module, stages: Mapping[str, Stage]) -> dict[str, Stage]:
    """The `model.stages` of a config; ConfigError where a stage is no child of the network."""
    children = dict(network.named_children())
    for name in stages:
        if name not in children:
            raise ConfigError(f"model.stages.{name}: no such stage. {nearest(name, children)}")
    if stages and all(name in stages and stages[name].frozen for name in children):
        raise ConfigError("model.stages: every stage is frozen, so nothing is left to train")
    return dict(stages)


def freeze(network: nn.Module, stages: Mapping[str, Stage]) -> None:
    """Parameters of frozen stages get no gradient; of all others they do."""
    for name, child in network.named_children():
        frozen = name in stages and stages[name].frozen
        child.requires_grad_(not frozen)


def switched(
    network: nn.Module, stages: Mapping[str, Stage], trained: Sequence[str]
) -> dict[str, Stage]:
    """The stages from trainer.switch_at on: those named in switch_to train, all others are frozen.

    Raises ConfigError for a name that is no child of the network, and where none is left.
    """
    children = [name for name, _ in network.named_children()]
    for name in trained:
        if name not in children:
            raise ConfigError(f"trainer.switch_to: no stage '{name}'. {nearest(name, children)}")
    if not trained:
        raise ConfigError(
            "trainer.switch_to=[]: name the stages that train from trainer.switch_at on, of "
            + ", ".join(children)
        )
    return {
        name: replace(stages.get(name, Stage()), frozen=name not in trained) for name in children
    }


def parameter_groups(
    network: nn.Module, stages: Mapping[str, Stage], later: Mapping[str, Stage] | None = None
) -> list[dict[str, Any]]:
    """The optimizer's groups: one for each stage with a rate or decay of its own, one for the rest.

    A stage that is frozen throughout, before and after a switch (`later`), is in no group, so that
    momentum and weight decay leave it alone.
    """
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        child = name.split(".")[0]
        stage = stages.get(child, Stage())
        if stage.frozen and (later is None or later[child].frozen):
            continue
        options = {key: getattr(stage, key) for key in ("lr", "weight_decay")}
        options = {key: value for key, value in options.items() if value is not None}
        group = groups.setdefault(child if options else "", {"params": [], **options})
        group["params"].append(parameter)
    return list(groups.values())


def check_groups(optimizer: torch.optim.Optimizer) -> None:
    """Raise ConfigError where a stage has a weight_decay that the optimizer would pass over."""
    if "weight_decay" in optimizer.defaults:
        return
    if any("weight_decay" in group for group in optimizer.param_groups):
        raise ConfigError(
            f"model.stages.*.weight_decay: {type(optimizer).__name__} has none. Use the l2 of the "
            "stage, a term of the loss, or optimizer=sgd or adam_torch"
        )


def penalty(network: nn.Module, stages: Mapping[str, Stage]) -> Tensor | None:
    """Sum over stages of l2 * sum(kernel ** 2) + l1 * sum(|kernel|); None where there is no such.

    Kernels are the weights with two or more axes, as in Keras' kernel_regularizer: no biases and
    no scales of a normalisation.
    """
    terms = []
    for name, stage in stages.items():
        kernels = [p.float() for p in network.get_submodule(name).parameters() if p.ndim > 1]
        if stage.l2 > 0 and kernels:
            terms.append(stage.l2 * torch.stack([k.square().sum() for k in kernels]).sum())
        if stage.l1 > 0 and kernels:
            terms.append(stage.l1 * torch.stack([k.abs().sum() for k in kernels]).sum())
    return torch.stack(terms).sum() if terms else None


def train_mode(network: nn.Module, stages: Mapping[str, Stage]) -> None:
    """Freeze and train as the stages say; BatchNorm layers of frozen stages run as in Keras.

    Their statistics stay as they are and are what normalises, unless fixed_statistics is false;
    dropout in a frozen stage goes on.
    """
    freeze(network, stages)
    network.train()
    for name, stage in stages.items():
        if stage.frozen and stage.fixed_statistics:
            for module in network.get_submodule(name).modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
