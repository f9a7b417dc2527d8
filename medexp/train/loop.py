"""fit(): the one training loop, read from top to bottom."""

import inspect
import logging
import math
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medexp.augment import Augment
from medexp.config.settings import Stage
from medexp.data.base import Dataset, Split
from medexp.errors import ConfigError, Interrupted, MedexpError, one_of
from medexp.models.stages import check_groups, parameter_groups, switched, train_mode
from medexp.runs import checkpoint
from medexp.runs.files import write_csv
from medexp.score import metrics
from medexp.score.predict import predict, probabilities
from medexp.train import features, progress, schedules
from medexp.train.device import generator_state, set_generator_state
from medexp.train.feed import Feed
from medexp.train.graphs import of_choice, own_stream
from medexp.train.profile import Profile
from medexp.train.pruning import hopeless
from medexp.train.sampling import Sampling, Shuffle
from medexp.train.step import Step, set_rate

log = logging.getLogger(__name__)
CLOCK = ("epoch", "iteration", "epochs", "steps", "history")  # what a schedule may ask for
log_file = logging.getLogger("medexp.file")  # run.log only: the terminal has the bar or the line


@dataclass(frozen=True)
class Fitted:
    """What is left of the training: the network holds the best epoch's weights.

    pruned: why it ended before its time, as pruning.hopeless says; None: it did not.
    """

    best_epoch: int
    best_value: float
    history: list[dict[str, Any]]
    seconds: float
    pruned: str | None = None


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
    sampling: Sampling | None = None,
    place: str = "auto",
    cache_features: str = "auto",
    stages: Mapping[str, Stage] | None = None,
    switch_at: int | None = None,
    switch_to: Sequence[str] = (),
    max_steps: int | None = None,
    patience: int | None = None,
    min_delta: float = 0.0,
    prune_after: int | None = None,
    clip_norm: float | None = None,
    accumulate: int = 1,
    ema: float = 0.0,
    compile: bool = False,
    graphs: str = "auto",
    profile: bool = False,
    earlier: Sequence[dict[str, Any]] = (),
    resume: bool = False,
) -> Fitted:
    """Train, keep the best epoch by `monitor`, and leave its weights in the network.

    optimizer: called with the parameters; schedule: called before every step with the initial rate
    and those of epoch, iteration (both from 0), epochs, steps (of an epoch) and history (val_loss
    of the epochs before) that it takes; loss: (logits, labels) -> mean over the batch.
    precision: the autocast dtype, None for float32. Parameters stay float32.
    sampling: which images an epoch consists of; None: each once. place: where the images live, as
    feed.Feed says; cache_features: whether what frozen stages make of them is, as features.shown
    says.
    stages: learning rate, L1, L2 and freezing by stage; from iteration switch_at on only the stages
    in switch_to train. The reported loss is `loss` alone; L1 and L2, which have a column of their
    own, and auxiliary heads are part of what is minimised only.
    max_steps: iterations in all, the last epoch is cut short; patience: epochs without a gain of
    min_delta in the monitor after which it ends; prune_after: epochs after which a job of a sweep
    ends where pruning.hopeless says so. clip_norm: of all gradients together. accumulate: parts
    that a batch is computed in. ema: decay of an exponential moving average of the weights, which
    then is what is validated and kept. compile: train by torch.compile. graphs: whether steps are
    replays of CUDA graphs, as graphs.of_choice says. profile: write profile/ of some steps.
    earlier: rows of the history of a stage of training before this one.

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
    later = stages if switch_at is None else switched(network, stages, switch_to)
    optim = optimizer(parameter_groups(network, stages, later))
    check_groups(optim)
    initial_rate = [group["lr"] for group in optim.param_groups]
    autocast = partial(torch.autocast, device.type, dtype=precision, enabled=precision is not None)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    average = averaged(network, ema) if ema else None
    if clip_norm is not None and not clip_norm > 0:
        raise ConfigError(f"trainer.clip_norm={clip_norm}: must be above 0, or null for no limit")
    # Class weights are of the training loss alone, as in Keras: val_loss is without them.
    plain = getattr(loss, "unweighted", loss)
    better = {"max": float.__gt__, "min": float.__lt__}[metrics.direction(monitor)]

    sampling = sampling or Shuffle()
    n = len(sampling.order(data.train.labels, torch.Generator()))
    cuts = batch_cuts(n, batch_size)
    steps = len(cuts)
    epochs = epochs_within(epochs, max_steps, steps)
    losses, hits = torch.zeros(steps, device=device), torch.zeros((), device=device)
    penalties = torch.zeros((), device=device)
    history: list[dict[str, Any]] = []
    best: dict[str, Any] = {"epoch": 0, "value": None}
    first_epoch = first_step = 0
    pruned: str | None = None
    seconds = 0.0  # of training and validation, over all sessions of the run
    last_path, best_path = run / "checkpoints/last.pt", run / "checkpoints/best.pt"

    if resume:
        state = checkpoint.load(last_path, device)
        network.load_state_dict(state["model"])
        own = [{k: v for k, v in g.items() if k != "params"} for g in optim.param_groups]
        optim.load_state_dict(state["optimizer"])
        for group, values in zip(optim.param_groups, own, strict=True):
            group.update(values)  # the config's, which may be for another device by now
        scaler.load_state_dict(state["scaler"])
        if average:
            average.load_state_dict(state["average"])
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
            penalties = state["penalties"].to(device)
        log.info("Resumed at epoch %d, step %d of %d", first_epoch + 1, first_step, steps)

    def save_last(epoch: int, step: int) -> None:
        state = {
            "model": network.state_dict(),
            "optimizer": optim.state_dict(),
            "scaler": scaler.state_dict(),
            "average": average.state_dict() if average else {},
            "epoch": epoch,
            "step": step,
            "history": history,
            "best": best,
            "seconds": seconds,
            "losses": losses,
            "hits": hits,
            "penalties": penalties,
            "random": random_state(device),
        }
        checkpoint.save(state, last_path)

    with (
        features.shown(
            cache_features,
            network,
            data.train,
            data.val,
            run / "features",
            stages=stages,
            later=later,
            augment=augment,
            epochs=epochs - first_epoch,
            batch_sizes=(batch_size, eval_batch_size),
            device=device,
            autocast=autocast,
            channels_last=channels_last,
        ) as given,
        stop_requested() as stop,
        progress.Training(
            epochs=len(earlier) + epochs, images_per_epoch=n, done=len(earlier) + first_epoch
        ) as shown,
        Profile(run / "profile" if profile else None, device) as profiler,
        own_stream(device),
    ):
        seconds += given.seconds
        feed = Feed(
            given.train,
            device,
            augment,
            classes=len(data.classes),
            place=place,
            channels_last=channels_last,
        )
        plain_step = Step(
            network,
            compiled(given.of(network)) if compile else given.of(network),
            loss,
            optim,
            autocast=autocast,
            scaler=scaler,
            accumulate=accumulate,
            clip_norm=clip_norm,
            timed=profiler.timed,
        )
        train_on = of_choice(graphs, plain_step, device, compiled=compile, profiled=profile)
        for epoch in range(first_epoch, epochs):
            if patience and stopped(history, monitor, patience, min_delta):
                log.info("Ended after epoch %d: no gain in %d epochs", epoch, patience)
                break
            if prune_after and len(history) >= prune_after:
                pruned = hopeless(run, joined(earlier, history), monitor)
                if pruned:
                    log.info("Pruned: %s", pruned)
                    break
            began = time.perf_counter()
            order, draws = epoch_draws(data.train.labels, augment, sampling, seed=seed, epoch=epoch)
            set_seeds(seed, epoch)
            step_from = first_step if epoch == first_epoch else 0
            if step_from:
                set_random_state(state["random"], device)
            else:
                losses.zero_()
                hits.zero_()
                penalties.zero_()
            until = steps if max_steps is None else min(steps, max_steps - epoch * steps)
            began_at = epoch * steps + step_from
            now = later if switch_at is not None and began_at >= switch_at else stages
            train_mode(network, now)
            clock = {
                "epoch": epoch,
                "epochs": epochs,
                "steps": steps,
                "history": [row["val_loss"] for row in history],
            }

            batches = feed.batches(order, draws, cuts[step_from:until], profiler.timed)
            batches = profiler.watch(batches, until - step_from)
            for step, (x, target) in enumerate(batches, start=step_from):
                iteration = epoch * steps + step
                if iteration == switch_at:
                    now = later
                    train_mode(network, now)
                for group, rate in zip(optim.param_groups, initial_rate, strict=True):
                    set_rate(group, rate_at(schedule, rate, iteration=iteration, **clock))
                totals = train_on(x, target, now)
                # Sums stay on the device: reading one here would make every step wait for it.
                losses[step] = totals.loss
                hits += totals.hits
                penalties += totals.penalty
                if average:
                    average.update_parameters(network)
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
                lr = rate_at(schedule, initial_rate[0], iteration=epoch * steps + bad, **clock)
                raise MedexpError(
                    f"The loss is {losses[bad].item()} at epoch {epoch + 1}, step {bad + 1} of "
                    f"{steps} (learning rate {lr:g}). "
                    f"Lower optimizer.lr or set trainer.amp=off. "
                    + (
                        f"{last_path} holds the last good epoch, {epoch}"
                        if last_path.exists()
                        else "No epoch was finished before"
                    )
                )
            trained = time.perf_counter() - began
            end = cuts[until - 1][1]
            last = epoch * steps + until - 1
            kept = average.module if average else network
            row = {
                **({"stage": 2} if earlier else {}),
                "epoch": len(earlier) + epoch + 1,
                "lr": rate_at(schedule, initial_rate[0], iteration=last, **clock),
                "train_loss": losses.cpu().double().sum().item() / end,
                "train_accuracy": hits.item() / end,
                **({"train_penalty": penalties.item() / end} if penalized(stages) else {}),
                **validate(
                    given.of(kept), given.val, plain, device, eval_batch_size, channels_last
                ),
                "seconds": time.perf_counter() - began,
                "images_per_s": (end - cuts[step_from][0] if step_from < until else 0) / trained,
            }
            current = monitored(row, monitor)
            history.append(row)
            seconds += time.perf_counter() - began
            if best["value"] is None or better(current, best["value"]):
                best = {"epoch": row["epoch"], "value": current}
                checkpoint.save({"model": kept.state_dict(), **best}, best_path)
            save_last(epoch + 1, 0)
            write_csv(run / "history.csv", joined(earlier, history))
            log_file.info(progress.line(row, monitor, len(earlier) + epochs))
            shown.epoch(row, monitor)

    network.load_state_dict(checkpoint.load(best_path, device)["model"])
    return Fitted(best["epoch"], best["value"], history, seconds, pruned)


def epochs_within(epochs: int, max_steps: int | None, steps: int) -> int:
    """The epochs that max_steps iterations begin, `epochs` at most; steps: of an epoch."""
    return epochs if max_steps is None else min(epochs, -(-max_steps // steps))


def rate_at(schedule: Callable[..., float], rate: float, **clock: Any) -> float:
    """The schedule's rate, given those of the loop's clocks that its signature takes."""
    taken = parameters_of(schedule)
    return schedule(rate, **{name: value for name, value in clock.items() if name in taken})


@cache
def parameters_of(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def compiled(network: nn.Module) -> Callable[[Tensor], Any]:
    """The network's forward pass by torch.compile; parameters and their names stay as they are.

    Every batch size and every choice of stages that train is compiled once, when it first comes.
    Dropout draws what it draws without. Raises ConfigError where it cannot be compiled.
    """
    from torch._dynamo.exc import TorchDynamoException  # here: importing it takes seconds

    torch.compiler.reset()  # else the jobs of a sweep count as one network that changes too often
    run = torch.compile(network, dynamic=False, options={"fallback_random": True})

    def forward(x: Tensor) -> Any:
        try:
            return run(x)
        except TorchDynamoException as error:
            raise ConfigError(
                f"trainer.compile=true: {type(network).__name__} cannot be compiled here "
                f"({str(error).splitlines()[0]}). It needs a C++ compiler and Python's headers, on "
                "a GPU Triton too. Install them, or set trainer.compile=false"
            ) from error

    return forward


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of all weights and statistics of a network."""
    if not 0 < decay < 1:
        raise ConfigError(f"trainer.ema={decay}: must lie between 0 and 1, or be 0 for none")
    mean: Any = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=mean, use_buffers=True)


def penalized(stages: Mapping[str, Stage]) -> bool:
    return any(stage.l1 or stage.l2 for stage in stages.values())


def stopped(
    history: Sequence[dict[str, Any]], monitor: str, patience: int, min_delta: float
) -> bool:
    """Whether the monitor has had its last gain of min_delta `patience` epochs ago."""
    sign = {"min": 1.0, "max": -1.0}[metrics.direction(monitor)]
    values = [sign * monitored(row, monitor) for row in history]
    return bool(schedules.early_stop(values, patience=patience, min_delta=min_delta))


def joined(
    earlier: Sequence[dict[str, Any]], history: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Both stages' rows under the same columns; None where a stage has no such column."""
    rows = [*earlier, *history]
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in columns} for row in rows]


def validate(
    network: nn.Module,
    val: Split,
    loss: Callable[[Tensor, Tensor], Tensor],
    device: torch.device,
    batch_size: int,
    channels_last: bool,
) -> dict[str, float | None]:
    """val_loss and the headline metrics of the validation split, as columns of the history."""
    logits = predict(
        network, val, device=device, batch_size=batch_size, channels_last=channels_last
    )
    scores = metrics.quick(val.labels, probabilities(logits))
    value = loss(torch.from_numpy(logits), torch.from_numpy(val.labels)).item()
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
    return {one.type: generator_state(one) for one in (torch.device("cpu"), device)}


def set_random_state(states: Mapping[str, Tensor], device: torch.device) -> None:
    for one in (torch.device("cpu"), device):
        if one.type in states:
            set_generator_state(one, states[one.type])


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
