"""Layers of a network that trains on several devices, and yet see the whole batch: train/ranks.py.

Dropout draws for all its images; BatchNorm takes the statistics of all.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medexp.config.settings import Trainer
from medexp.errors import ConfigError
from medexp.models.inception_v2 import ShiftNorm2d
from medexp.train.ranks import Batch


class Summed(torch.autograd.Function):
    """The sum over ranks, on which the loss depends by every rank's rows."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        whole = own.clone()
        dist.all_reduce(whole, group=group)
        return whole

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        whole = grads[0].clone()
        dist.all_reduce(whole, group=ctx.group)
        return whole, None


class SyncBatchNorm(_BatchNorm):
    """BatchNorm with the statistics of all ranks' rows: torch's own is for GPUs alone.

    Two passes, mean and then deviations from it: E[x^2] - E[x]^2 cancels in float32.
    """

    group: dist.ProcessGroup

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        """input: (B, C) or (B, C, ..., H, W)."""
        if not self.training:
            return F.batch_norm(
                input,
                *(self.running_mean, self.running_var, self.weight, self.bias),
                training=self.running_mean is None,
                eps=self.eps,
            )
        x = input if input.dtype == torch.float64 else input.float()
        over = [0, *range(2, input.ndim)]
        per_channel = (1, -1, *[1] * (x.ndim - 2))
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = Summed.apply(torch.cat([x.sum(over), count]), self.group)
        count = sums[-1].detach()
        mean = sums[:-1] / count
        x = x - mean.view(per_channel)
        variance = Summed.apply(x.square().sum(over), self.group) / count
        if self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            weight = self.momentum
            if weight is None:
                weight = 1 / float(self.num_batches_tracked)
            with torch.no_grad():
                self.running_mean.lerp_(mean, weight)
                self.running_var.lerp_(variance * count / (count - 1), weight)
        x = x * (variance + self.eps).rsqrt().view(per_channel)
        if self.weight is not None:
            x = x * self.weight.view(per_channel)
        if self.bias is not None:
            x = x + self.bias.view(per_channel)
        made: Tensor = x.to(input.dtype)
        return made


class Dropout(nn.Module):
    """A dropout layer that draws for the whole batch, and takes this rank's rows of the draw.

    All ranks then draw the same, so their generators stay alike, and what one rank drops is what
    one process would drop in its rows. A layer may see several rows for each image.
    """

    def __init__(self, layer: nn.Module, batch: Batch) -> None:
        super().__init__()
        self.p, self.batch = float(layer.p), batch  # type: ignore[arg-type]
        self.drop = DROPOUTS[type(layer)]

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        rows = self.batch.shown
        each, rest = divmod(len(x), rows.stop - rows.start)
        if rest:
            raise ConfigError(
                f"trainer.devices: a dropout layer sees {len(x)} rows of "
                f"{rows.stop - rows.start} images, so that what it drops cannot be divided among "
                "devices. Set trainer.devices=1"
            )
        whole = torch.empty_permuted(
            (self.batch.total * each, *x.shape[1:]), layout(x), dtype=x.dtype, device=x.device
        ).fill_(1)
        return x * self.drop(whole, self.p, True)[rows.start * each : rows.stop * each]


DROPOUTS: dict[type, Callable[[Tensor, float, bool], Tensor]] = {
    nn.Dropout: F.dropout,
    nn.Dropout1d: F.dropout1d,
    nn.Dropout2d: F.dropout2d,
    nn.Dropout3d: F.dropout3d,
}


def layout(x: Tensor) -> list[int]:
    """The axes of a tensor from the slowest to the fastest in memory: draws follow the memory."""
    return [0, *sorted(range(1, x.ndim), key=lambda axis: (-x.stride()[axis], axis))]


@contextmanager
def prepared(network: nn.Module, batch: Batch, settings: Trainer) -> Iterator[None]:
    """Inside, dropout layers draw for the whole batch, and BatchNorm is synchronised if asked for.

    Parameters, statistics and their names stay the network's own.
    """
    replaced = []
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            other: nn.Module | None = None
            if type(child) in DROPOUTS:
                other = Dropout(child, batch)
            elif settings.sync_batchnorm and isinstance(child, _BatchNorm):
                other = synchronised(child, batch.ranks.group)
            if other is not None:
                replaced.append((parent, name, child))
                parent.add_module(name, other)
    try:
        yield
    finally:
        for parent, name, child in replaced:
            child.train(parent.get_submodule(name).training)
            parent.add_module(name, child)


def synchronised(layer: _BatchNorm, group: dist.ProcessGroup) -> nn.Module:
    """The same layer with the statistics of all ranks: torch's on a GPU, ours on a CPU.

    Ours too where a layer has a shift without a scale. Raises ConfigError for a layer that computes
    something else than these two.
    """
    if type(layer).forward is not _BatchNorm.forward and not isinstance(layer, ShiftNorm2d):
        raise ConfigError(
            f"trainer.sync_batchnorm=true: {type(layer).__name__} is a BatchNorm of its own kind, "
            "which cannot be synchronised. Set trainer.sync_batchnorm=false"
        )
    arguments = (
        *(layer.num_features, layer.eps, layer.momentum),
        *(layer.affine, layer.track_running_stats),
    )
    made: _BatchNorm
    if layer.affine and next(layer.parameters()).is_cuda:
        made = nn.SyncBatchNorm(*arguments, process_group=group)
    else:
        made = SyncBatchNorm(*arguments)
        made.group = group
    made._parameters, made._buffers = layer._parameters, layer._buffers
    return made.train(layer.training)
