"""fit(): the one training loop, read from top to bottom."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from medexp.augment import Augment
from medexp.config.settings import Stage, Trainer
from medexp.data.base import Dataset
from medexp.errors import Interrupted, MedexpError, one_of
from medexp.models.stages import check_groups, parameter_groups, penalty, switched, train_mode
from medexp.runs import checkpoint
from medexp.runs.files import write_csv
from medexp.score import metrics
from medexp.score.predict import probabilities
from medexp.train import progress, schedules
from medexp.train.epochs import Epochs, epoch_draws, rate_at
from medexp.train.pruning import hopeless
from medexp.train.ranks import Ranks
from medexp.train.sampling import Sampling, Shuffle
from medexp.train.state import Row, State, set_seeds
from medexp.train.step import set_rate
from medexp.train.work import Work, working

log = logging.getLogger(__name__)
log_file = logging.getLogger("medexp.file")  # run.log only: the terminal has the bar or the line


@dataclass(frozen=True)
class Session:
    """Where and how a run is trained.

    folder: the run directory. precision: the autocast dtype, None for float32; parameters stay
    float32. earlier: rows of the history of a phase of training before this one. resume: go on
    from checkpoints/last.pt. ranks: the processes that train it together; None: this one alone.
    """

    folder: Path
    seed: int
    device: torch.device
    precision: torch.dtype | None = None
    earlier: tuple[Row, ...] = ()
    resume: bool = False
    ranks: Ranks | None = None


@dataclass(frozen=True)
class Parts:
    """What the loop calls.

    optimizer: called with the parameters. schedule: called before every step with the initial rate
    and those of epochs.CLOCK that it takes. loss: (logits, labels) -> mean over the batch.
    sampling: which images an epoch consists of. stages: learning rate, L1, L2 and freezing by stage
    of the network.
    """

    optimizer: Callable[..., Optimizer]
    schedule: Callable[..., float]
    loss: Callable[[Tensor, Tensor], Tensor]
    augment: Augment
    sampling: Sampling = field(default_factory=Shuffle)
    stages: Mapping[str, Stage] = field(default_factory=dict)


@dataclass(frozen=True)
class Fitted:
    """The result of a training; the network holds the best epoch's weights.

    pruned: the reason for ending it early, from pruning.hopeless; None: it was not pruned.
    """

    best_epoch: int
    best_value: float
    history: list[Row]
    seconds: float
    pruned: str | None = None


# Called after every epoch with its row of history.csv and the state, such as by a tracker.
Observer = Callable[[Row, State], None]


def fit(
    session: Session,
    network: nn.Module,
    data: Dataset,
    parts: Parts,
    settings: Trainer,
    observers: Sequence[Observer] = (),
) -> Fitted:
    """Train, keep the best epoch by `settings.monitor`, and leave its weights in the network.

    The reported loss is `parts.loss` alone; L1 and L2, which have a column of their own, and
    auxiliary heads are part of what is minimised only, but that val_loss holds L1 and L2 too with
    `val_penalty`. Class weights are of the training loss
    alone, as in Keras: val_loss is without them. From step `switch_at` on only the stages in
    `switch_to` train. With `ema`, the averaged weights are what is validated and kept.

    Everything random in an epoch follows from (seed, epoch), and all else that a resumed run needs
    is in checkpoints/last.pt, so a resumed run equals an uninterrupted one, to the bit on a CPU.

    Raises MedexpError on a loss that is no number (names the step; last.pt is the last good
    epoch), and Interrupted on Ctrl-C or SIGTERM, after the state of the very step is saved.
    """
    run, device, monitor = session.folder, session.device, settings.monitor
    columns = [f"val_{short}" for short in metrics.headline(data.classes)]
    one_of("trainer.monitor", monitor, ["val_loss", *columns])
    epochs = Epochs.of(data.train.labels, parts.sampling, settings)
    state, later = start(session, network, parts, settings, epochs.steps)
    stages, optimizer = parts.stages, state.optimizer
    before, pruned = len(session.earlier), None

    with working(session, data, parts, settings, state, later, epochs) as work:
        for epoch in range(state.epoch, epochs.count):
            if ended_early(state.history, settings):
                log.info("Ended after epoch %d: no gain in %d epochs", epoch, settings.patience)
                break
            if settings.prune_after and len(state.history) >= settings.prune_after:
                pruned = hopeless(run, joined(session.earlier, state.history), monitor)
                if pruned:
                    log.info("Pruned: %s", pruned)
                    break
            began = time.perf_counter()
            order, draws = epoch_draws(
                data.train.labels, parts.augment, parts.sampling, seed=session.seed, epoch=epoch
            )
            set_seeds(session.seed, epoch)
            state.begin_epoch()
            first, until = state.step, epochs.until(epoch)
            rate = partial(rate_at, parts.schedule, epochs=epochs, history=state.history)
            stages_now: Mapping[str, Stage] | None = None
            for x, target in work.batches(order, draws, epochs.cuts[first:until]):
                step = epoch * epochs.steps + state.step
                switch = settings.switch_at is not None and step >= settings.switch_at
                wanted = later if switch else stages
                if wanted is not stages_now:
                    stages_now = wanted
                    train_mode(network, stages_now)
                for group, initial in zip(optimizer.param_groups, state.rates, strict=True):
                    set_rate(group, rate(initial, epoch, step))
                state.add(work.train_on(x, target, wanted))
                work.bar.step(len(target))
                if work.stop_requested():
                    state.seconds += time.perf_counter() - began
                    interrupt(state, run)
            check_finite(
                state, rate(state.rates[0], epoch, epoch * epochs.steps + bad_step(state)), run
            )
            trained = time.perf_counter() - began
            row = {
                **({"phase": 2} if session.earlier else {}),
                "epoch": before + epoch + 1,
                "lr": rate(state.rates[0], epoch, epoch * epochs.steps + until - 1),
                **sums_of(state, epochs.images(0, until), penalized(stages)),
                **validate(work, state.kept, parts, device, settings),
                "seconds": time.perf_counter() - began,
                "images_per_s": epochs.images(first, until) / trained,
            }
            best = state.end_epoch(row, monitored(row, monitor), monitor)
            state.seconds += time.perf_counter() - began
            if best:
                state.save_best(run)
            state.save_last(run)
            write_csv(run / "history.csv", joined(session.earlier, state.history))
            log_file.info(progress.line(row, monitor, before + epochs.count))
            work.bar.epoch(row, monitor)
            for observe in observers:
                observe(row, state)

    network.load_state_dict(checkpoint.load(run / "checkpoints" / "best.pt", device)["model"])
    return Fitted(state.best["epoch"], state.best["value"], state.history, state.seconds, pruned)


def start(
    session: Session, network: nn.Module, parts: Parts, settings: Trainer, steps: int
) -> tuple[State, Mapping[str, Stage]]:
    """The state at the beginning, or where last.pt left it; and the stages after a switch.

    steps: of an epoch.
    """
    device = session.device
    network.to(device)
    if settings.channels_last:
        network.to(memory_format=torch.channels_last)
    later = parts.stages
    if settings.switch_at is not None:
        later = switched(network, parts.stages, settings.switch_to)
    optimizer = parts.optimizer(parameter_groups(network, parts.stages, later))
    check_groups(optimizer)
    scaler = torch.amp.GradScaler(device.type, enabled=session.precision == torch.float16)
    state = State(network, optimizer, scaler, steps=steps, device=device, ema=settings.ema)
    if session.resume:
        saved = checkpoint.load(session.folder / "checkpoints" / "last.pt", device)
        state.load_state_dict(saved, settings.batch_size)
        log.info("Resumed at epoch %d, step %d of %d", state.epoch + 1, state.step, steps)
    return state, later


def interrupt(state: State, run: Path) -> NoReturn:
    """Save the state of this very step, and raise Interrupted with the way to go on."""
    state.save_last(run)
    raise Interrupted(
        f"Interrupted in epoch {state.epoch + 1} at step {state.step} of {len(state.losses)}; "
        f"the state is saved.\nGo on with: medexp train resume={run}"
    )


def sums_of(state: State, images: int, penalty: bool) -> Row:
    """The training columns of an epoch's row, over so many images."""
    return {
        "train_loss": state.losses.cpu().double().sum().item() / images,
        "train_accuracy": state.hits.item() / images,
        **({"train_penalty": state.penalties.item() / images} if penalty else {}),
    }


def bad_step(state: State) -> int:
    """The first step of the epoch whose loss is no number; 0 where all are."""
    return int((~torch.isfinite(state.losses)).int().argmax())


def check_finite(state: State, rate: float, run: Path) -> None:
    """Raise MedexpError where a loss of the epoch is no number; rate: of the first such step."""
    if torch.isfinite(state.losses).all():
        return
    bad = bad_step(state)
    last = run / "checkpoints" / "last.pt"
    raise MedexpError(
        f"The loss is {state.losses[bad].item()} at epoch {state.epoch + 1}, step {bad + 1} of "
        f"{len(state.losses)} (learning rate {rate:g}). "
        f"Lower optimizer.lr or set trainer.amp=off. "
        + (
            f"{last} holds the last good epoch, {state.epoch}"
            if last.exists()
            else "No epoch was finished before"
        )
    )


def penalized(stages: Mapping[str, Stage]) -> bool:
    return any(stage.l1 or stage.l2 for stage in stages.values())


def ended_early(history: Sequence[Row], settings: Trainer) -> bool:
    """Whether the monitor has not gained more than min_delta in the last `patience` epochs."""
    if not settings.patience:
        return False
    sign = {"min": 1.0, "max": -1.0}[metrics.direction(settings.monitor)]
    values = [sign * monitored(row, settings.monitor) for row in history]
    return bool(
        schedules.early_stop(values, patience=settings.patience, min_delta=settings.min_delta)
    )


def joined(earlier: Sequence[Row], history: Sequence[Row]) -> list[Row]:
    """The rows of both phases under the same columns; None where a phase has no such column."""
    rows = [*earlier, *history]
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in columns} for row in rows]


def validate(
    work: Work, network: nn.Module, parts: Parts, device: torch.device, settings: Trainer
) -> dict[str, float | None]:
    """val_loss and the headline metrics of the validation split, as columns of the history.

    val_loss is without L1 and L2, but for `val_penalty`.
    """
    logits = work.logits(network, settings, device)
    plain = getattr(parts.loss, "unweighted", parts.loss)
    value = plain(torch.from_numpy(logits), torch.from_numpy(work.val.labels)).item()
    if settings.val_penalty and (term := penalty(network, parts.stages)) is not None:
        value += term.item()
    scores = metrics.quick(work.val.labels, probabilities(logits))
    return {"val_loss": value} | {f"val_{short}": score for short, score in scores.items()}


def monitored(row: Row, monitor: str) -> float:
    """The value that picks the best epoch; MedexpError where it is undefined."""
    value = row[monitor]
    if value is None or not math.isfinite(value):
        raise MedexpError(
            f"trainer.monitor={monitor}: undefined on this validation split (one class only, or "
            "the network's outputs are no numbers). Set trainer.monitor=val_accuracy, or change "
            "the split"
        )
    return float(value)
