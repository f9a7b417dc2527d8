"""Work on many images at once: the threads that do it, and the bar that shows how far it is."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

S = TypeVar("S")
T = TypeVar("T")


def threads() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(work: Callable[[S], T], items: Iterable[S], workers: int) -> Iterator[T]:
    """work(item) of every item in so many threads: results in order, few waiting at a time."""
    with ThreadPoolExecutor(workers) as executor:
        waiting: deque[Future[T]] = deque()
        try:
            for item in items:
                waiting.append(executor.submit(work, item))
                if len(waiting) > 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def bar(
    text: str, total: float, *, done: float = 0, shown: bool = True, unit: float = 1
) -> Iterator[Callable[[float], None]]:
    """A progress bar with time left on a terminal; `unit` is what one step on it counts for."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )  # fmt: skip
    hidden = not (shown and console.is_terminal)
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(text, total=int(total / unit), completed=int(done / unit))
        yield lambda steps: progress.advance(task, steps / unit)
