"""One training step: forward, backward, optimizer. Its sums stay on the device."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from medexp.config.settings import Stage, Trainer
from medexp.models.stages import penalty
from medexp.score.predict import class_logits
from medexp.train.profile import untimed


class Totals(NamedTuple):
    """Sums over a step's images, 0-dim float32 on the device: to read one is to wait for it."""

    loss: Tensor
    hits: Tensor  # images whose class is right
    penalty: Tensor


class Step:
    """What a step does with a batch: to the network, the gradients, the optimizer and the scaler.

    forward: what stands for the network, compiled or behind kept features; loss: (logits, labels)
    -> mean over the batch; autocast: a context for the forward pass. Of the settings it takes
    accumulate, the parts that a batch is computed in, and clip_norm, the limit of all gradients'
    norm. timed: as profile.Profile's.
    """

    def __init__(
        self,
        network: nn.Module,
        forward: Callable[[Tensor], Any],
        loss: Callable[[Tensor, Tensor], Tensor],
        optimizer: Optimizer,
        settings: Trainer,
        *,
        autocast: Callable[[], AbstractContextManager[Any]],
        scaler: torch.amp.GradScaler,
        timed: Callable[[str], AbstractContextManager[None]] = untimed,
    ) -> None:
        self.network, self.forward, self.loss, self.optimizer = network, forward, loss, optimizer
        self.autocast, self.scaler, self.timed = autocast, scaler, timed
        self.accumulate, self.clip_norm = settings.accumulate, settings.clip_norm
        self.aux_weight = getattr(network, "aux_weight", 0.0)

    def __call__(self, x: Tensor, target: Tensor, stages: Mapping[str, Stage]) -> Totals:
        """x: (B, C, [D,] H, W) float32; target: (B,) int64 or (B, classes) float32."""
        self.optimizer.zero_grad(set_to_none=True)
        sums = Totals(*(torch.zeros((), device=x.device) for _ in Totals._fields))
        parts = zip(x.chunk(self.accumulate), target.chunk(self.accumulate), strict=True)
        for part, wanted in parts:
            with self.timed("forward"):
                with self.autocast():
                    output = self.forward(part)
                # A network with an auxiliary head (Inception) returns its logits too.
                logits, *auxiliary = output if isinstance(output, tuple) else (output,)
                value = objective = self.loss(logits, wanted)
                for extra in auxiliary:
                    objective = objective + self.aux_weight * self.loss(extra, wanted)
                if (extra_term := penalty(self.network, stages)) is not None:
                    objective = objective + extra_term
                    sums.penalty.add_(extra_term.detach() * len(wanted))
            with self.timed("backward"):
                share = len(wanted) / len(target)
                torch.autograd.backward(self.scaler.scale(objective * share))
            sums.loss.add_(value.detach() * len(wanted))
            sums.hits.add_(correct(logits.detach(), wanted))
        with self.timed("optimizer"):
            if self.clip_norm is not None:
                self.scaler.unscale_(self.optimizer)
                nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_norm)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return sums


def correct(logits: Tensor, target: Tensor) -> Tensor:
    """How many of the batch are right, a 0-dim tensor; of a mixed target its largest class."""
    wanted = target.argmax(1) if target.ndim == 2 else target
    return (class_logits(logits).argmax(1) == wanted).sum()


def set_rate(group: dict[str, Any], rate: float) -> None:
    """The learning rate of a group of an optimizer: a number, or a tensor that a graph reads."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate
