"""Where the time of a training step goes: a trace and a short table (trainer.profile=true)."""

import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, record_function

from medexp.runs.files import write_text
from medexp.train.device import wait_for

log = logging.getLogger(__name__)

Batch = tuple[Tensor, Tensor]

PARTS = ("data", "augmentation", "forward", "backward", "optimizer")
WARM_UP, WATCHED = 5, 20  # steps, where an epoch has as many
TOP = 12  # operators in the table
NOTHING: AbstractContextManager[None] = nullcontext()


def untimed(part: str) -> AbstractContextManager[None]:
    return NOTHING


class Profile:
    """Context manager around the loop: `watch` looks at some steps of the first epoch it is shown.

    folder: gets trace.json (for chrome://tracing or ui.perfetto.dev) and profile.txt; None: nothing
    is watched, and nothing is paid for it.
    """

    def __init__(self, folder: Path | None, device: torch.device) -> None:
        self.folder, self.device = folder, device
        self.running: torch.profiler.profile | None = None

    def __enter__(self) -> "Profile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.running:  # the loop was left in the middle
            self.running.stop()

    def timed(self, part: str) -> AbstractContextManager[None]:
        """Name what is done inside as a part of the step, one of PARTS."""
        return self._timed(part) if self.running else NOTHING

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        with record_function(part):
            yield
            wait_for(self.device)  # so that its time is counted where it belongs

    def watch(self, batches: Iterator[Batch], steps: int) -> Iterator[Batch]:
        """Pass on the batches of an epoch of so many steps, watching what is done with them."""
        if self.folder is None or not steps:
            return batches
        folder, self.folder = self.folder, None
        return self._watched(batches, steps, folder)

    def _watched(self, batches: Iterator[Batch], steps: int, folder: Path) -> Iterator[Batch]:
        warm_up = min(WARM_UP, steps // 2)
        count = min(WATCHED, steps - warm_up)
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # it complains of a GPU that is not there
        cuda = self.device.type == "cuda"
        yield from islice(batches, warm_up)
        wait_for(self.device)
        images = 0
        self.running = torch.profiler.profile(
            activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * cuda]
        )
        self.running.start()
        began = time.perf_counter()
        for x, target in islice(batches, count):
            images += len(x)
            yield x, target
        wait_for(self.device)
        seconds = time.perf_counter() - began
        profiler, self.running = self.running, None
        profiler.stop()
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / "trace.tmp"
        profiler.export_chrome_trace(str(unfinished))
        unfinished.replace(folder / "trace.json")
        profile = shares(profiler.key_averages(), seconds, count, cuda=cuda)
        write_text(folder / "profile.txt", table(profile, count, warm_up, images, cuda=cuda))
        log.info("Profile of %d steps in %s", count, folder)
        yield from batches


class Operator(NamedTuple):
    """name, as in the trace; ms: of a step, in the operator itself; calls: of a step."""

    name: str
    ms: float
    calls: float


class Shares(NamedTuple):
    """step: milliseconds of a step; parts: part -> milliseconds of a step, `other` the rest."""

    step: float
    parts: Mapping[str, float]
    operators: list[Operator]


def shares(events: Iterable[Any], seconds: float, steps: int, *, cuda: bool) -> Shares:
    """Milliseconds of a step by part and by operator, the longest first.

    events: torch's averages by name, times in microseconds; seconds: of all steps together.
    """
    on_host = [event for event in events if event.device_type.name == "CPU"]
    step = 1e3 * seconds / steps
    parts = dict.fromkeys(PARTS, 0.0)
    for event in on_host:
        if event.key in parts and event.is_user_annotation:
            parts[event.key] += event.cpu_time_total / 1e3 / steps
    self_time = "self_device_time_total" if cuda else "self_cpu_time_total"
    operators = [
        Operator(event.key, getattr(event, self_time) / 1e3 / steps, event.count / steps)
        for event in on_host
        if not event.is_user_annotation
    ]
    operators.sort(key=lambda operator: -operator.ms)
    return Shares(step, parts | {"other": step - sum(parts.values())}, operators[:TOP])


def table(profile: Shares, steps: int, warm_up: int, images: int, *, cuda: bool) -> str:
    """profile.txt: the parts of a step, then the operators that take most of it."""
    each = profile.step
    lines = [
        f"Where the time of a training step goes: the mean of {steps} steps of",
        f"{images / steps:,.0f} images, behind {warm_up} of warm-up. `forward` has the loss,",
        "`optimizer` clipping and averaging. Being watched costs time: history.csv",
        "has the other epochs' images_per_s, which are without it.",
    ]
    if cuda:
        lines += ["The GPU is waited for behind each part, so that no two of them overlap."]
    lines += ["", f"{'part':<40}{'ms a step':>12}{'share':>9}"]
    for name, ms in [*profile.parts.items(), ("step", each)]:
        lines.append(f"{name:<40}{ms:>12.3f}{ms / each:>9.1%}")
    where = "on the GPU" if cuda else "in itself"
    lines += ["", f"{'operator, ' + where:<40}{'ms a step':>12}{'share':>9}{'calls':>9}"]
    for name, ms, calls in profile.operators:
        lines.append(f"{name[:39]:<40}{ms:>12.3f}{ms / each:>9.1%}{calls:>9.1f}")
    return "\n".join(lines) + "\n"
