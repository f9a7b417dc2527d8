"""What surrounds the loop: set up before it, taken down after it, however it is left."""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from medexp.config.settings import Stage, Trainer
from medexp.data.base import Dataset, Split
from medexp.errors import ConfigError, MedexpError
from medexp.score.predict import asked_for, predict
from medexp.train import features, progress, ranks, whole_batch
from medexp.train.epochs import Epochs
from medexp.train.feed import Feed
from medexp.train.graphs import of_choice, own_stream
from medexp.train.profile import Profile
from medexp.train.state import State
from medexp.train.step import Step, Totals

if TYPE_CHECKING:
    from medexp.train.loop import Parts, Session


@dataclass(frozen=True)
class Work:
    """What the loop works with.

    train_on: does a step with a batch, (x, target, stages) -> its sums. of: a network as it is
    called with the validation images of `val`, which may be kept features in their place. shared:
    on several devices, which rows of a batch are this one's.
    """

    train_on: Callable[[Tensor, Tensor, Mapping[str, Stage]], Totals]
    of: Callable[[nn.Module], nn.Module]
    val: Split
    feed: Feed
    profiler: Profile
    bar: progress.Training
    stop_requested: Callable[[], bool]
    shared: ranks.Batch | None = None

    def batches(
        self, order: Tensor, draws: Tensor, cuts: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(x, target) of each cut of an epoch's order, as Feed.batches says."""
        if self.shared:  # x is then of this device's rows
            timed = self.profiler.timed
            return ranks.batches(self.feed, self.shared, order, draws, cuts, timed)
        batches = self.feed.batches(order, draws, cuts, self.profiler.timed)
        return self.profiler.watch(batches, len(cuts))

    def logits(self, network: nn.Module, settings: Trainer, device: torch.device) -> np.ndarray:
        """What a network gives for every image of `val`: (N, outputs) float32."""
        size = settings.eval_batch_size
        predicted = partial(
            predict,
            self.of(network),
            device=device,
            batch_size=size,
            channels_last=settings.channels_last,
        )
        if self.shared is None:
            return predicted(self.val)
        self.shared.ranks.take_buffers(network)
        return self.shared.ranks.over(self.val, size, predicted)


@contextmanager
def working(
    session: "Session",
    data: Dataset,
    parts: "Parts",
    settings: Trainer,
    state: State,
    later: Mapping[str, Stage],
    epochs: Epochs,
) -> Iterator[Work]:
    """Yield what the loop works with: kept features, signals, bar, profiler, stream, step.

    Here it is decided whether a step is plain, compiled, or the replay of a CUDA graph, and
    whether it is of images or of features of frozen stages, of a whole batch or of one device's
    share. later: the stages after a switch.
    """
    device, network, run = session.device, state.network, session.folder
    autocast = partial(
        torch.autocast, device.type, dtype=session.precision, enabled=session.precision is not None
    )
    before = len(session.earlier)
    with ExitStack() as stack:
        stack.enter_context(enough_memory())
        shown = stack.enter_context(
            features.shown(
                settings,
                network,
                data,
                run / "features",
                frozen=features.Frozen(parts.stages, later),
                augment=parts.augment,
                epochs=epochs.count - state.epoch,
                autocast=autocast,
            )
        )
        stop = stack.enter_context(stop_requested())
        bar = stack.enter_context(
            progress.Training(
                epochs=before + epochs.count,
                images_per_epoch=epochs.images(0, epochs.steps),
                done=before + state.epoch,
            )
        )
        profiler = stack.enter_context(
            Profile(run / "profile" if settings.profile else None, device)
        )
        stack.enter_context(own_stream(device))
        state.seconds += shown.seconds
        feed = Feed(
            shown.train,
            device,
            parts.augment,
            classes=len(data.classes),
            place=settings.data,
            channels_last=settings.channels_last,
        )
        forward: Callable[[Tensor], Any] = shown.of(network)
        if settings.compile:
            forward = compiled(shown.of(network))
        shared = None
        if session.ranks:
            ranks.check_batches(epochs.cuts, network, session.ranks, settings)
            shared = ranks.Batch(session.ranks)
            stack.enter_context(whole_batch.prepared(network, shared, settings))
            forward = ranks.Forward(network, shared)
            stop = agreed = ranks.Agreed(stop, session.ranks)
        plain_step = Step(
            network,
            forward,
            parts.loss,
            state.optimizer,
            settings,
            autocast=autocast,
            scaler=state.scaler,
            timed=profiler.timed,
        )
        train_on = of_choice(
            settings.graphs,
            plain_step,
            device,
            compiled=settings.compile,
            profiled=settings.profile,
        )
        yield Work(train_on, shown.of, shown.val, feed, profiler, bar, stop, shared)
        if session.ranks:
            agreed.answer()
            session.ranks.meet()  # what is read after the loop is written


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


@contextmanager
def enough_memory() -> Iterator[None]:
    """Where the device's memory does not suffice, say what would make it do: raise MedexpError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MedexpError(
            f"The device's memory is too small for a step: {asked_for(error)}. Set "
            "trainer.accumulate=2 or more (the same step, computed in parts), or lower "
            "trainer.batch_size;\ntrainer.data=stream keeps the images off the device, "
            "model.checkpointing=true (viptt) the activations"
        ) from error


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether Ctrl-C or SIGTERM came; a second one stops at once.

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
