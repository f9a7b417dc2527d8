"""What a person sees while a run trains: a bar on a terminal, a plain line an epoch elsewhere."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from medexp.runs.files import writes


class Training:
    """Context manager around the loop. `step()` is host work only: no device is waited for."""

    def __init__(self, *, epochs: int, images_per_epoch: int, done: int):
        self.epochs = epochs
        self.images_per_epoch = images_per_epoch
        self.console = Console(stderr=True)
        self.bar: Progress | None = None
        self.silent = not writes()  # another process of the same run speaks
        self.pending, self.shown = 0, 0.0  # images not yet on the bar; when it was last drawn
        if self.console.is_terminal and not self.silent:
            self.bar = Progress(
                TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
                BarColumn(bar_width=None),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[latest]}"),
                console=self.console,
                expand=True,
            )
            self.task = self.bar.add_task(
                "train",
                total=epochs * images_per_epoch,
                completed=done * images_per_epoch,
                epoch=min(done + 1, epochs),
                epochs=epochs,
                rate="",
                latest="",
            )

    def __enter__(self) -> "Training":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar:
            self.bar.stop()

    def step(self, images: int) -> None:
        self.pending += images
        now = time.monotonic()
        # Ten times a second is what an eye can follow, and the bar costs more than a small step.
        if self.bar and now - self.shown >= 0.1:
            self.flush()
            self.shown = now

    def flush(self) -> None:
        if self.bar:
            self.bar.advance(self.task, self.pending)
            speed = self.bar.tasks[0].speed
            self.bar.update(self.task, rate=f"{speed:,.0f} img/s" if speed else "")
        self.pending = 0

    def epoch(self, row: Mapping[str, Any], monitor: str) -> None:
        """`row` is the epoch's line of history.csv."""
        done = int(row["epoch"])
        self.flush()
        if self.bar:
            latest = f"loss {row['train_loss']:.3f} {monitor} {row[monitor]:.3f}"
            self.bar.update(self.task, epoch=min(done + 1, self.epochs), latest=latest)
        elif not self.silent:
            print(line(row, monitor, self.epochs), file=sys.stderr, flush=True)


def line(row: Mapping[str, Any], monitor: str, epochs: int) -> str:
    """An epoch in one line of at most 80 columns."""
    text = f"epoch {row['epoch']}/{epochs}  loss {row['train_loss']:.4f}"
    text += f"  val_loss {row['val_loss']:.4f}"
    if monitor != "val_loss":
        text += f"  {monitor} {row[monitor]:.4f}"
    return text + f"  {row['images_per_s']:,.0f} img/s"
