"""All that a resumed run needs, as one object: what checkpoints/last.pt holds."""

import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medexp.errors import ConfigError
from medexp.runs import checkpoint
from medexp.score import metrics
from medexp.train.device import generator_state, set_generator_state
from medexp.train.step import Totals

Row = dict[str, Any]  # of history.csv


class State:
    """Where a training stands: network, optimizer, scaler, average, epoch, step, sums, history.

    epoch, step: the next to be done, both from 0. best: the best epoch so far and its value.
    seconds: of training and validation, over all sessions of the run. losses: of each step of the
    epoch, times its images; hits, penalties: sums over the epoch. They stay on the device.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        scaler: torch.amp.GradScaler,
        *,
        steps: int,
        device: torch.device,
        ema: float = 0.0,
    ) -> None:
        self.network, self.optimizer, self.scaler = network, optimizer, scaler
        self.average = averaged(network, ema) if ema else None
        self.device = device
        self.rates = [group["lr"] for group in optimizer.param_groups]  # the initial ones
        self.epoch = self.step = 0
        self.history: list[Row] = []
        self.best: dict[str, Any] = {"epoch": 0, "value": None}
        self.seconds = 0.0
        self.losses = torch.zeros(steps, device=device)
        self.hits, self.penalties = (torch.zeros((), device=device) for _ in range(2))
        self.random: dict[str, Tensor] | None = None

    @property
    def kept(self) -> nn.Module:
        """The network that is validated and saved: the average where there is one."""
        return self.average.module if self.average else self.network

    def begin_epoch(self) -> None:
        """Zero the sums; or, in an interrupted epoch, set the generators to where it was left."""
        if self.step:
            assert self.random is not None
            for device in (torch.device("cpu"), self.device):
                if device.type in self.random:
                    set_generator_state(device, self.random[device.type])
            return
        for sums in (self.losses, self.hits, self.penalties):
            sums.zero_()

    def add(self, totals: Totals) -> None:
        """Add the sums of a completed step, and update the average of the weights."""
        # Sums stay on the device: reading one here would make every step wait for it.
        self.losses[self.step] = totals.loss
        self.hits += totals.hits
        self.penalties += totals.penalty
        if self.average:
            self.average.update_parameters(self.network)
        self.step += 1

    def end_epoch(self, row: Row, value: float, monitor: str) -> bool:
        """Record a completed epoch; returns whether it is the best so far.

        Of epochs with the same value of the monitor the one with the lower val_loss is better, of
        those with the same loss too the later one: on an easy set val_auc is 1 from the first
        epoch on, when the network has hardly begun to learn.
        """
        self.history.append(row)
        self.epoch, self.step = self.epoch + 1, 0
        sign = {"max": -1.0, "min": 1.0}[metrics.direction(monitor)]
        if self.best["value"] is not None:
            kept = (sign * self.best["value"], self._loss_of(self.best["epoch"]))
            if (sign * value, loss_of(row)) > kept:
                return False
        self.best = {"epoch": row["epoch"], "value": value}
        return True

    def _loss_of(self, epoch: int) -> float:
        return next(loss_of(row) for row in self.history if row["epoch"] == epoch)

    def state_dict(self) -> dict[str, Any]:
        """What last.pt holds: tensors, numbers, strings and containers of them."""
        return {
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average else {},
            "epoch": self.epoch,
            "step": self.step,
            "history": self.history,
            "best": self.best,
            "seconds": self.seconds,
            "losses": self.losses,
            "hits": self.hits,
            "penalties": self.penalties,
            "random": {
                device.type: generator_state(device)
                for device in (torch.device("cpu"), self.device)
            },
        }

    def load_state_dict(self, saved: Mapping[str, Any], batch_size: int) -> None:
        """Go on from `saved`; ConfigError where it is within an epoch of other batches."""
        self.network.load_state_dict(saved["model"])
        settings = [
            {key: value for key, value in group.items() if key != "params"}
            for group in self.optimizer.param_groups
        ]
        self.optimizer.load_state_dict(saved["optimizer"])
        for group, values in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(values)  # the config's, which may be for another device by now
        self.scaler.load_state_dict(saved["scaler"])
        if self.average:
            self.average.load_state_dict(saved["average"])
        for name in ("epoch", "step", "history", "best", "seconds", "random"):
            setattr(self, name, saved[name])
        if not self.step:
            return
        if len(saved["losses"]) != len(self.losses):
            raise ConfigError(
                f"trainer.batch_size={batch_size}: epoch {self.epoch + 1} was begun with "
                f"batches that make {len(saved['losses'])} steps, not {len(self.losses)}. Resume "
                "with the same batch size and data; change them at the end of an epoch"
            )
        for name in ("losses", "hits", "penalties"):
            setattr(self, name, saved[name].to(self.device))

    def save_last(self, run: Path) -> None:
        checkpoint.save(self.state_dict(), run / "checkpoints" / "last.pt")

    def save_best(self, run: Path) -> None:
        weights = {"model": self.kept.state_dict(), **self.best}
        checkpoint.save(weights, run / "checkpoints" / "best.pt")


def loss_of(row: Row) -> float:
    """An epoch's val_loss, to be compared: infinite where it is no number."""
    loss = float(row["val_loss"])
    return loss if math.isfinite(loss) else math.inf


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of all weights and statistics of a network."""
    mean: Any = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=mean, use_buffers=True)


def mixed_seed(*numbers: int) -> int:
    """One well-mixed 64-bit seed of several numbers, so that (0, 1) and (1, 0) share no stream."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def set_seeds(*numbers: int) -> None:
    """Seed Python, NumPy and torch on every device: initial weights and dropout."""
    seed = mixed_seed(*numbers)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
