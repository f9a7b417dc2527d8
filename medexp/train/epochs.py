"""The epochs of a training: their batches, what chance draws for them, their learning rates."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medexp.augment import Augment
from medexp.config.settings import Trainer
from medexp.train.sampling import Sampling
from medexp.train.state import Row, mixed_seed

CLOCK = ("epoch", "iteration", "epochs", "steps", "history")  # what a schedule may ask for


@dataclass(frozen=True)
class Epochs:
    """count: how many there are; cuts: start and end of each batch in the order of an epoch.

    max_steps: steps in all, so that the last epoch may be cut short.
    """

    count: int
    cuts: list[tuple[int, int]]
    max_steps: int | None = None

    @classmethod
    def of(cls, labels: np.ndarray, sampling: Sampling, settings: Trainer) -> "Epochs":
        """The epochs of training images with these labels (N,)."""
        images = len(sampling.order(labels, torch.Generator()))
        cuts = batch_cuts(images, settings.batch_size)
        count = epochs_within(settings.epochs, settings.max_steps, len(cuts))
        return cls(count, cuts, settings.max_steps)

    @property
    def steps(self) -> int:
        """Steps of a whole epoch."""
        return len(self.cuts)

    def until(self, epoch: int) -> int:
        """The step before which an epoch ends."""
        if self.max_steps is None:
            return self.steps
        return min(self.steps, self.max_steps - epoch * self.steps)

    def images(self, first: int, until: int) -> int:
        """The images of the steps from `first` to the one before `until`."""
        return self.cuts[until - 1][1] - self.cuts[first][0] if first < until else 0


def epochs_within(epochs: int, max_steps: int | None, steps: int) -> int:
    """The epochs that max_steps iterations begin, `epochs` at most; steps: of an epoch."""
    return epochs if max_steps is None else min(epochs, -(-max_steps // steps))


def rate_at(
    schedule: Callable[..., float],
    initial: float,
    epoch: int,
    iteration: int,
    *,
    epochs: Epochs,
    history: Sequence[Row],
) -> float:
    """The schedule's rate before a step, given those of CLOCK that its signature takes.

    epoch, iteration: from 0; the latter counts steps over all epochs.
    """
    taken = parameters_of(schedule)
    clock: dict[str, Any] = {
        "epoch": epoch,
        "iteration": iteration,
        "epochs": epochs.count,
        "steps": epochs.steps,
    }
    if "history" in taken:
        clock["history"] = [row["val_loss"] for row in history]
    return schedule(initial, **{name: value for name, value in clock.items() if name in taken})


@cache
def parameters_of(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def batch_cuts(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Start and end of each batch. A last batch of one image joins the one before it.

    BatchNorm over a single image's dense features has no variance, and torch refuses it.
    """
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and batch_size > 1 and n - starts[-1] == 1:
        starts.pop()
    return list(pairwise([*starts, n]))


def epoch_draws(
    labels: np.ndarray, augment: Augment, sampling: Sampling, *, seed: int, epoch: int
) -> tuple[Tensor, Tensor]:
    """The order of an epoch's images and their augmentation draws: of seed and epoch alone.

    A fixed sampling is drawn once, from the seed, with its augmentation; epochs only shuffle it.
    """
    generator = torch.Generator().manual_seed(mixed_seed(seed, epoch))
    once = torch.Generator().manual_seed(mixed_seed(seed)) if sampling.fixed else generator
    order = sampling.order(labels, once)
    draws = augment.draw(len(order), once)
    if sampling.fixed:
        shuffled = torch.randperm(len(order), generator=generator)
        return order[shuffled], draws[shuffled]
    return order, draws
