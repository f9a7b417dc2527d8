"""Training steps as replays of CUDA graphs: one launch in place of hundreds (trainer.graphs).

Launching a small network's kernels takes longer than running them. A graph holds all of a step's,
with the addresses of what they read and write; so a batch is copied to where it reads, and the
learning rate is a tensor. What Python does in a step is done when it is captured, and never again.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from medexp.config.settings import Stage
from medexp.errors import ConfigError
from medexp.train.device import generator_state, set_generator_state, wait_for
from medexp.train.step import Step, Totals

log = logging.getLogger(__name__)

WARM_UP = 3  # steps in a row of a kind before it is captured: kernels are tuned, state is made
LONGEST = 0.03  # seconds of a step: beyond it launching is no matter, and a graph takes memory
TOLERANCE = 0.05  # of the first replay, relative to the change that a plain step makes

Run = Callable[[Tensor, Tensor, Mapping[str, Stage]], Totals]


def of_choice(
    choice: str, step: Step, device: torch.device, *, compiled: bool, profiled: bool
) -> Run:
    """The step, replayed where trainer.graphs and the run allow it.

    Raises ConfigError where graphs are asked for and cannot be.
    """
    if choice == "off":
        return step
    why = None
    if device.type != "cuda":
        why = "graphs are CUDA's, and this run is on another device"
    elif step.scaler.is_enabled():
        why = "trainer.amp=fp16 scales the loss, which the host decides on. Take bf16 or off"
    elif compiled or profiled:
        why = "not with trainer.compile or trainer.profile"
    if why is None:
        return Replayed(step, required=choice == "on")
    if choice == "on":
        raise ConfigError(f"trainer.graphs=on: {why}")
    return step


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """On CUDA what is inside runs on a stream of its own: the default one cannot be captured."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        torch.cuda.current_stream(device).wait_stream(stream)


@dataclass(frozen=True)
class Recorded:
    """A step of one kind: where it reads its batch, its replay, where it leaves its sums."""

    x: Tensor
    target: Tensor
    replay: Callable[[], None]
    totals: Totals

    def __call__(self, x: Tensor, target: Tensor) -> Totals:
        self.x.copy_(x)
        self.target.copy_(target)
        self.replay()
        return self.totals


class Replayed:
    """A step that is replayed, once WARM_UP of its kind came in a row; others are run plainly.

    A kind is a batch's shape and which stages train, so an epoch's odd last batch is never
    captured. The first replay is held against the plain step from the same state: a network that
    does not give the same is run plainly from then on, as is one that cannot be captured or whose
    step takes too long for it to pay. required: in these cases raise ConfigError.
    """

    def __init__(self, step: Step, *, required: bool) -> None:
        self.step, self.required = step, required
        self.known: dict[Any, Recorded] = {}
        self.latest: Any = None
        self.seen = 0
        self.given_up = False
        prepare(step.optimizer)

    def __call__(self, x: Tensor, target: Tensor, stages: Mapping[str, Stage]) -> Totals:
        if self.given_up:
            return self.step(x, target, stages)
        kind = (x.shape, target.shape, target.dtype, id(stages))
        if kind in self.known:
            return self.known[kind](x, target)
        self.seen = self.seen + 1 if kind == self.latest else 1
        self.latest = kind
        if self.seen < WARM_UP:
            return self.step(x, target, stages)
        if self.seen == WARM_UP:
            wait_for(x.device)
            began = time.perf_counter()
            totals = self.step(x, target, stages)
            wait_for(x.device)
            taken = time.perf_counter() - began
            if taken > LONGEST and not self.required:
                self.give_up(f"a step takes {1e3 * taken:.0f} ms, so that it would not pay")
            return totals
        return self.first(kind, x, target, stages)

    def first(self, kind: Any, x: Tensor, target: Tensor, stages: Mapping[str, Stage]) -> Totals:
        """Capture, and hold the first replay against the plain step, whose state is what stays."""
        before = Snapshot(self.changed(), x.device)
        try:
            recorded = capture(self.step, x, target, stages)
        except RuntimeError as error:
            before.put_back()
            reset_generator(x.device)
            self.give_up(f"it cannot be captured ({str(error).splitlines()[0]})")
            return self.step(x, target, stages)
        replayed = recorded(x, target)
        of_replay = Snapshot(self.changed(), x.device)
        loss = replayed.loss.clone()
        before.put_back()
        totals = self.step(x, target, stages)
        of_step = Snapshot(self.changed(), x.device)
        far = distance(before, of_step, of_replay)
        off = (loss - totals.loss).abs() / totals.loss.abs().clamp_min(1e-12)
        if far <= TOLERANCE and off.item() <= TOLERANCE:
            self.known[kind] = recorded
            log.info("Steps of %s images are replays of a CUDA graph", len(x))
        else:
            self.give_up(f"its first replay differs from the step itself by {far:.0%} of it")
        return totals

    def changed(self) -> Iterable[Tensor]:
        """All tensors that a step writes to."""
        yield from self.step.network.parameters()
        yield from self.step.network.buffers()  # those too that are not saved
        for state in self.step.optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))

    def give_up(self, why: str) -> None:
        if self.required:
            raise ConfigError(f"trainer.graphs=on: {why}")
        log.info("Steps are not replays of a CUDA graph: %s", why)
        self.given_up = True
        self.known.clear()
        for group in self.step.optimizer.param_groups:
            group["lr"] = float(group["lr"])


class Snapshot:
    """Copies of tensors and of the generator's state, to go back to."""

    def __init__(self, tensors: Iterable[Tensor], device: torch.device) -> None:
        self.tensors = list(tensors)
        self.copies = [tensor.detach().clone() for tensor in self.tensors]
        self.device, self.random = device, generator_state(device)

    def put_back(self) -> None:
        with torch.no_grad():
            for tensor, copy in zip(self.tensors, self.copies, strict=True):
                tensor.copy_(copy)
        set_generator_state(self.device, self.random)


def distance(before: Snapshot, one: Snapshot, other: Snapshot) -> float:
    """How far the change to `other` is from the change to `one`, relative to the latter."""
    changes = [
        torch.stack([(a - b).float().norm() for a, b in zip(first, second, strict=True)]).norm()
        for first, second in ((one.copies, before.copies), (one.copies, other.copies))
    ]
    change, far = (float(value) for value in changes)
    return far / change if change else float(far != 0)


def prepare(optimizer: Optimizer) -> None:
    """Let the optimizer be captured: rates that a graph reads, and what torch's own have for it."""
    torchs = isinstance(optimizer, (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW))
    for group in optimizer.param_groups:
        device = group["params"][0].device
        group["lr"] = torch.tensor(float(group["lr"]), device=device)
        if "capturable" in group:
            group["capturable"] = True
        if torchs:  # fused they take a rate that is a tensor; SGD's other forms would read it
            group["fused"], group["foreach"] = True, False


def capture(step: Step, x: Tensor, target: Tensor, stages: Mapping[str, Stage]) -> Recorded:
    """Record the step; nothing is computed. Raises RuntimeError where it cannot be."""
    own_x, own_target = x.clone(), target.clone()
    replay, totals = record(lambda: step(own_x, own_target, stages))
    return Recorded(own_x, own_target, replay, totals)


def record(work: Callable[[], Totals]) -> tuple[Callable[[], None], Totals]:
    """What `work` launches on the current stream: its replay, and where it leaves its result."""
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.current_stream()
    # thread_local: the feed's thread may pin memory meanwhile, which else spoils the capture.
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        totals = work()
    return graph.replay, totals


def reset_generator(device: torch.device) -> None:
    """A generator that was captured in vain believes that it still is: give it a new state."""
    if device.type == "cuda":
        fresh = torch.Generator(device)
        fresh.set_state(torch.cuda.get_rng_state(device))
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].graphsafe_set_state(fresh)
