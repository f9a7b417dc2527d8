"""fit(): the one training loop, read from top to bottom."""

import logging
import math
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from medexp import checkpoint, metrics, progress
from medexp.config import Stage, one_of
from medexp.data.base import Dataset
from medexp.errors import ConfigError, Interrupted, MedexpError
from medexp.evaluate import predict, probabilities
from medexp.feed import Augment, Feed
from medexp.losses import class_logits
from medexp.runs import write_csv
from medexp.stages import freeze, parameter_groups, penalty, train_mode

log = logging.getLogger(__name__)
log_file = logging.getLogger("medexp.file")  # run.log only: the terminal has the bar or the line


@dataclass(frozen=True)
class Fitted:
    """What is left of the training: the network holds the best epoch's weights."""

    best_epoch: int
    best_value: float
    epochs: int
    seconds: float


def fit(
    network: nn.Module,
    data: Dataset,
    run: Path,
    *,
    optimizer: Callable[..., Optimizer],
    schedule: Callable[..., float],
    loss: Callable[[Tensor, Tensor], Tensor],
    augment: Augment,
    epochs: int,
    batch_size: int,
    eval_batch_size: int,
    monitor: str,
    device: torch.device,
    precision: torch.dtype | None,
    channels_last: bool,
    seed: int,
    place: str = "auto",
    stages: Mapping[str, Stage] | None = None,
    resume: bool = False,
) -> Fitted:
    """Train, keep the best epoch by `monitor`, and leave its weights in the network.

    optimizer: called with the parameters; schedule: called with the initial rate, epoch and
    iteration (both from 0) before every step; loss: (logits, labels) -> mean over the batch.
    precision: the autocast dtype, None for float32. Parameters stay float32.
    place: where the images live, as feed.Feed says.
    stages: learning rate, L2 and freezing by stage. The reported loss is `loss` alone; L2 and
    auxiliary heads are part of what is minimised only.

    All that chance decides in an epoch follows from (seed, epoch), and all else that a resumed run
    needs is in checkpoints/last.pt, so resumed equals uninterrupted, to the bit on a CPU.

    Raises MedexpError on a loss that is no number (names the step; last.pt is the last good
    epoch), and Interrupted on Ctrl-C or SIGTERM, after the state of the very step is saved.
    """
    columns = [f"val_{short}" for short in metrics.headline(data.classes)]
    one_of("trainer.monitor", monitor, ["val_loss", *columns])
    network.to(device)
    if channels_last:
        network.to(memory_format=torch.channels_last)
    stages = stages or {}
    freeze(network, stages)
    optim = optimizer(parameter_groups(network, stages))
    initial_rate = [group["lr"] for group in optim.param_groups]
    aux_weight = getattr(network, "aux_weight", 0.0)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    better = {"max": float.__gt__, "min": float.__lt__}[metrics.direction(monitor)]

    feed = Feed(data.train, device, augment, place=place, channels_last=channels_last)
    n = len(feed)
    cuts = batch_cuts(n, batch_size)
    steps = len(cuts)
    losses, hits = torch.zeros(steps, device=device), torch.zeros((), device=device)
    history: list[dict[str, Any]] = []
    best: dict[str, Any] = {"epoch": 0, "value": None}
    first_epoch = first_step = 0
    seconds = 0.0  # of training and validation, over all sessions of the run
    last_path, best_path = run / "checkpoints/last.pt", run / "checkpoints/best.pt"

    if resume:
        state = checkpoint.load(last_path, device)
        network.load_state_dict(state["model"])
        optim.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        first_epoch, first_step = state["epoch"], state["step"]
        history, best, seconds = state["history"], state["best"], state["seconds"]
        if first_step:
            if len(state["losses"]) != steps:
                raise ConfigError(
                    f"trainer.batch_size={batch_size}: epoch {first_epoch + 1} was begun with "
                    f"batches that make {len(state['losses'])} steps, not {steps}. Resume with "
                    "the same batch size and data; change them at the end of an epoch"
                )
            losses, hits = state["losses"].to(device), state["hits"].to(device)
        log.info("Resumed at epoch %d, step %d of %d", first_epoch + 1, first_step, steps)

    def save_last(epoch: int, step: int) -> None:
        state = {
            "model": network.state_dict(),
            "optimizer": optim.state_dict(),
            "scaler": scaler.state_dict(),
            "epoch": epoch,
            "step": step,
            "history": history,
            "best": best,
            "seconds": seconds,
            "losses": losses,
            "hits": hits,
            "random": random_state(device),
        }
        checkpoint.save(state, last_path)

    with (
        stop_requested() as stop,
        progress.Training(epochs=epochs, images_per_epoch=n, done=first_epoch) as shown,
    ):
        for epoch in range(first_epoch, epochs):
            began = time.perf_counter()
            order, draws = epoch_draws(n, augment, seed=seed, epoch=epoch)
            set_seeds(seed, epoch)
            step_from = first_step if epoch == first_epoch else 0
            if step_from:
                set_random_state(state["random"], device)
            else:
                losses.zero_()
                hits.zero_()
            train_mode(network, stages)

            batches = feed.batches(order, draws, cuts[step_from:])
            for step, (x, target) in enumerate(batches, start=step_from):
                for group, rate in zip(optim.param_groups, initial_rate, strict=True):
                    group["lr"] = schedule(rate, epoch=epoch, iteration=epoch * steps + step)
                with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
                    output = network(x)
                # A network with an auxiliary head (Inception) returns its logits too in training.
                logits, *auxiliary = output if isinstance(output, tuple) else (output,)
                value = objective = loss(logits, target)
                for extra in auxiliary:
                    objective = objective + aux_weight * loss(extra, target)
                if (l2 := penalty(network, stages)) is not None:
                    objective = objective + l2
                optim.zero_grad(set_to_none=True)
                torch.autograd.backward(scaler.scale(objective))
                scaler.step(optim)
                scaler.update()
                # Sums stay on the device: reading one here would make every step wait for it.
                losses[step] = value.detach() * len(target)
                hits += (class_logits(logits.detach()).argmax(1) == target).sum()
                shown.step(len(target))
                if stop():
                    seconds += time.perf_counter() - began
                    save_last(epoch, step + 1)
                    raise Interrupted(
                        f"Interrupted in epoch {epoch + 1} at step {step + 1} of {steps}; the "
                        f"state is saved.\nGo on with: medexp train resume={run}"
                    )

            finite = torch.isfinite(losses)
            if not finite.all():
                bad = int((~finite).int().argmax())
                raise MedexpError(
                    f"The loss is {losses[bad].item()} at epoch {epoch + 1}, step {bad + 1} of "
                    f"{steps} (learning rate {optim.param_groups[0]['lr']:g}). "
                    f"Lower optimizer.lr or set trainer.amp=off. "
                    + (
                        f"{last_path} holds the last good epoch, {epoch}"
                        if last_path.exists()
                        else "No epoch was finished before"
                    )
                )
            trained = time.perf_counter() - began
            seen = n - cuts[step_from][0] if step_from < steps else 0
            row = {
                "epoch": epoch + 1,
                "lr": float(optim.param_groups[0]["lr"]),
                "train_loss": losses.cpu().double().sum().item() / n,
                "train_accuracy": hits.item() / n,
                **validate(network, data, loss, device, eval_batch_size, channels_last),
                "seconds": time.perf_counter() - began,
                "images_per_s": seen / trained,
            }
            current = monitored(row, monitor)
            history.append(row)
            seconds += time.perf_counter() - began
            if best["value"] is None or better(current, best["value"]):
                best = {"epoch": epoch + 1, "value": current}
                checkpoint.save({"model": network.state_dict(), **best}, best_path)
            save_last(epoch + 1, 0)
            write_csv(run / "history.csv", history)
            log_file.info(progress.line(row, monitor, epochs))
            shown.epoch(row, monitor)

    network.load_state_dict(checkpoint.load(best_path, device)["model"])
    return Fitted(best["epoch"], best["value"], len(history), seconds)


def validate(
    network: nn.Module,
    data: Dataset,
    loss: Callable[[Tensor, Tensor], Tensor],
    device: torch.device,
    batch_size: int,
    channels_last: bool,
) -> dict[str, float | None]:
    """val_loss and the headline metrics of the validation split, as columns of the history."""
    logits = predict(
        network, data.val, device=device, batch_size=batch_size, channels_last=channels_last
    )
    scores = metrics.quick(data.val.labels, probabilities(logits))
    value = loss(torch.from_numpy(logits), torch.from_numpy(data.val.labels)).item()
    return {"val_loss": value} | {f"val_{short}": score for short, score in scores.items()}


def monitored(row: dict[str, Any], monitor: str) -> float:
    """The value that picks the best epoch; MedexpError where it is undefined."""
    value = row[monitor]
    if value is None or not math.isfinite(value):
        raise MedexpError(
            f"trainer.monitor={monitor}: undefined on this validation split (one class only, or "
            "the network's outputs are no numbers). Set trainer.monitor=val_accuracy, or change "
            "the split"
        )
    return float(value)


def batch_cuts(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Start and end of each batch. A last batch of one image joins the one before it.

    BatchNorm over a single image's dense features has no variance, and torch refuses it.
    """
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and batch_size > 1 and n - starts[-1] == 1:
        starts.pop()
    return list(pairwise([*starts, n]))


def epoch_draws(n: int, augment: Augment, *, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
    """The order of the n images and their augmentation draws: functions of seed and epoch alone."""
    generator = torch.Generator().manual_seed(mixed_seed(seed, epoch))
    return torch.randperm(n, generator=generator), augment.draw(n, generator)


def mixed_seed(*numbers: int) -> int:
    """One well-mixed 64-bit seed of several numbers, so that (0, 1) and (1, 0) share no stream."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def set_seeds(*numbers: int) -> None:
    """Seed Python, NumPy and torch on every device: initial weights and dropout."""
    seed = mixed_seed(*numbers)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The generators that dropout draws from, for a resume in the middle of an epoch."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_state(states: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"].cpu())
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether Ctrl-C or SIGTERM came; a second Ctrl-C stops at once.

    A step is never cut in two: the loop asks between steps and saves a whole state.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    try:
        before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals go to whoever has it
        yield lambda: False
        return
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
