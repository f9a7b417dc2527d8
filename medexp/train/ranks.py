"""One run on several devices: what its processes, the ranks, do together (torch.distributed).

Every rank goes through the same code with the same epochs, order and draws, and takes consecutive
rows of each batch. The logits of all ranks are put together before the loss, so that loss and
gradient are those of the whole batch, whatever a loss divides by; DistributedDataParallel adds the
gradients up. Dropout draws for the whole batch (whole_batch.py). So training is that of one process
but for the order in which floats are summed; with BatchNorm, if trainer.sync_batchnorm is on.
"""

import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from medexp.config.settings import Trainer
from medexp.data.base import Split
from medexp.errors import ConfigError
from medexp.train.feed import Feed

Cuts = Sequence[tuple[int, int]]
Timed = Callable[[str], Any]


@dataclass(frozen=True)
class Ranks:
    """This process among those of its run.

    rank: from 0; rank 0 writes. group: of the device, for gradients and statistics. control: of the
    hosts (gloo), for what is agreed upon without waiting for a device.
    """

    rank: int
    count: int
    group: dist.ProcessGroup
    control: dist.ProcessGroup

    def share(self, n: int) -> tuple[int, int]:
        """Start and end of this rank's of n things in a row; the first ranks take one more."""
        each, more = divmod(n, self.count)
        start = self.rank * each + min(self.rank, more)
        return start, start + each + (self.rank < more)

    def over(
        self, split: Split, batch_size: int, predict: Callable[[Split], np.ndarray]
    ) -> np.ndarray:
        """What `predict` gives for all images of a split, of which each rank does some batches.

        A batch is never divided, so that every image is computed beside the same others as by one
        process: equal to the bit.
        """
        start, end = self.share(-(-len(split) // batch_size))
        own = None
        if start < end:
            own = predict(split.part(start * batch_size, end * batch_size))
        parts: list[np.ndarray | None] = [None] * self.count
        dist.all_gather_object(parts, own, group=self.control)
        return np.concatenate([part for part in parts if part is not None])

    def take_buffers(self, network: nn.Module) -> None:
        """The statistics of rank 0 for all, as the checkpoints have them."""
        for buffer in network.buffers():
            dist.broadcast(buffer, 0, group=self.group)

    def meet(self) -> None:
        """Wait for all: what rank 0 wrote before is there for the others."""
        dist.barrier(self.control)


def adapted(trainer: Trainer, count: int, key: str = "trainer") -> Trainer:
    """The settings as several devices can follow them: what `auto` would choose is switched off.

    Raises ConfigError for what is asked for and cannot be; key: where the settings stand.
    """
    refused = {
        "graphs": (trainer.graphs == "on", "off", "gradients are exchanged within a step"),
        "cache_features": (trainer.cache_features == "on", "off", "each would keep all features"),
        "compile": (trainer.compile, "false", "the exchange of gradients is not compiled"),
        "accumulate": (trainer.accumulate > 1, "1", "a batch is divided among the devices already"),
        "prune_after": (trainer.prune_after is not None, "null", "a job of a sweep has one device"),
        "profile": (trainer.profile, "false", "one device's time says little of the others"),
    }
    for name, (asked, remedy, why) in refused.items():
        if asked:
            value = str(getattr(trainer, name)).lower()
            raise ConfigError(
                f"{key}.{name}={value}: not with trainer.devices={count}: {why}. Set "
                f"{key}.{name}={remedy}, or trainer.devices=1"
            )
    return replace(trainer, graphs="off", cache_features="off")


def normalises(network: nn.Module) -> bool:
    """Whether a network takes statistics of a batch (BatchNorm)."""
    return any(isinstance(module, _BatchNorm) for module in network.modules())


def check_batches(cuts: Cuts, network: nn.Module, ranks: Ranks, settings: Trainer) -> None:
    """Raise ConfigError where a device's share of a batch has no statistics."""
    if not normalises(network):
        return
    least = ranks.count if settings.sync_batchnorm else 2 * ranks.count
    smallest = min(end - start for start, end in cuts)
    if smallest < least:
        other = "" if settings.sync_batchnorm else ", set trainer.sync_batchnorm=true"
        raise ConfigError(
            f"trainer.batch_size={settings.batch_size}: an epoch has a batch of {smallest}, and "
            f"BatchNorm on {ranks.count} devices needs {least} images. Choose another "
            f"trainer.batch_size{other}, or fewer trainer.devices"
        )


class Batch:
    """The batch that is being computed: which of its rows are this rank's.

    total: its images; start, end: this rank's. A batch of fewer images than ranks leaves some with
    none: these compute the row at `start` for company, as DDP expects all, and it counts nowhere.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.begin(0)

    def begin(self, total: int) -> None:
        self.total = total
        self.start, self.end = self.ranks.share(total)
        self.shown = slice(*shown(self.start, self.end, total))


def shown(start: int, end: int, total: int) -> tuple[int, int]:
    """The rows that are computed where those from start to end are a rank's own."""
    return (start, end) if start < end else (min(start, total - 1), min(start, total - 1) + 1)


def batches(
    feed: Feed, batch: Batch, order: Tensor, draws: Tensor, cuts: Cuts, timed: Timed
) -> Iterator[tuple[Tensor, Tensor]]:
    """(x of this rank's rows, target of the whole batch) of each cut."""
    if not cuts:
        return
    if hasattr(feed.augment, "mix"):  # an image is mixed with its neighbours: all are needed
        for x, target in feed.batches(order, draws, cuts, timed):
            batch.begin(len(target))
            yield x[batch.shown], target
        return
    rows, own, taken = [], [], 0
    for start, end in cuts:
        low, high = shown(*batch.ranks.share(end - start), end - start)
        rows.append(torch.arange(start + low, start + high))
        own.append((taken, taken + high - low))
        taken += high - low
    index = torch.cat(rows)
    labels = feed.labels[order.to(feed.device)]
    mine = feed.batches(order[index], draws[index], own, timed)
    for (x, _), (start, end) in zip(mine, cuts, strict=True):
        batch.begin(end - start)
        yield x, labels[start:end]


class Forward:
    """A network's forward pass: this rank's rows of a batch in, the logits of the whole batch out.

    The gradient reaches the network by this rank's rows alone, and DDP then adds up the ranks'. DDP
    is made anew when other stages train: it waits for the gradients it was made for.
    """

    def __init__(self, network: nn.Module, batch: Batch) -> None:
        self.network, self.batch = network, batch
        self.trained: list[bool] | None = None
        self.parallel: nn.Module | None = None

    def __call__(self, x: Tensor) -> Any:
        trained = [parameter.requires_grad for parameter in self.network.parameters()]
        if trained != self.trained:
            self.parallel = None
            gc.collect()  # the one before hangs on to the parameters until it is gone
            with warnings.catch_warnings():
                # Its successor is not in the oldest torch that we take.
                warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)
                self.parallel = DistributedDataParallel(
                    self.network, process_group=self.batch.ranks.group, broadcast_buffers=False
                )
            self.trained = trained
        assert self.parallel is not None
        try:
            output = self.parallel(x)
        except RuntimeError as error:
            if "not used in producing loss" not in str(error):
                raise
            raise ConfigError(
                f"trainer.devices={self.batch.ranks.count}: {type(self.network).__name__} has "
                "parameters that its logits do not depend on, and DDP waits for their gradients. "
                "Freeze them (model.stages), or set trainer.devices=1"
            ) from error
        parts = output if isinstance(output, tuple) else (output,)
        own = torch.cat([part.float() for part in parts], 1)[: self.batch.end - self.batch.start]
        whole: Tensor = Whole.apply(own, self.batch)
        made = torch.split(whole, [part.shape[1] for part in parts], 1)
        return made if isinstance(output, tuple) else made[0]


class Whole(torch.autograd.Function):
    """Rows (own, C) of each rank -> (B, C) of all, on each; differentiable by a rank's own rows."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, batch: Batch) -> Tensor:
        ctx.rows, ctx.count = slice(batch.start, batch.end), batch.ranks.count
        whole = own.new_zeros(batch.total, own.shape[1])
        whole[ctx.rows] = own
        dist.all_reduce(whole, group=batch.ranks.group)
        return whole

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        # DDP divides by the number of ranks; a sum is meant, for each has some rows of the batch.
        return grads[0][ctx.rows] * ctx.count, None


class Agreed:
    """Whether any rank was asked to stop: the same answer on all, a step later.

    The question goes from host to host while the step is computed, so that no device is waited for.
    """

    def __init__(self, asked: Callable[[], bool], ranks: Ranks) -> None:
        self.asked, self.ranks = asked, ranks
        self.flag = torch.zeros(1)
        self.pending: Any = None

    def __call__(self) -> bool:
        if self.answer():
            return True
        self.flag = torch.tensor([float(self.asked())])
        self.pending = dist.all_reduce(self.flag, group=self.ranks.control, async_op=True)
        return False

    def answer(self) -> bool:
        """Of the question that is on its way; False where none is."""
        if self.pending is None:
            return False
        self.pending.wait()
        self.pending = None
        return bool(self.flag.item())
