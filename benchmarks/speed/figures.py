"""The arithmetic of the benchmark, pure: speeds, ratios and their spread, shares of a ceiling."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

WARM_UP = 1  # epochs of a run that are not counted: they compile, tune and fill caches


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of some rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        known = list(values)
        return cls(median(known), min(known), max(known))


@dataclass(frozen=True)
class Measured:
    """One run of one contestant.

    images_per_s: training images of an epoch over its seconds, training and validation together;
        the median of the epochs after the warm-up. training_images_per_s: over the seconds of the
        training alone.
    first_step: seconds from the start of the process to the end of its first step; None if unknown.
    memory: peak resident bytes of the process or of the largest of its workers, whichever is more.
    device_memory: peak bytes on the accelerator, None without one.
    versions: of the packages that the contestant is made of.
    extra: what else its process reports.
    """

    images_per_s: float
    training_images_per_s: float
    first_step: float | None
    memory: int
    device_memory: int | None
    precision: str
    versions: Mapping[str, str]
    extra: Mapping[str, Any]


def measured(report: Mapping[str, Any], *, started: float, memory: int) -> Measured:
    """What a process reports, with what was seen from outside.

    report: images (an epoch's), epoch_seconds and train_seconds (one an epoch, the warm-up first),
    first_step (seconds since 1970, as `started`), precision, device_memory, versions; memory where
    the process held more later, for other ends.
    """
    images, first = report["images"], report["first_step"]
    return Measured(
        images / median(report["epoch_seconds"][WARM_UP:]),
        images / median(report["train_seconds"][WARM_UP:]),
        None if first is None else first - started,
        report.get("memory", memory),
        report["device_memory"],
        report["precision"],
        report["versions"],
        report.get("extra", {}),
    )


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Our speed over theirs, round by round: what slows the machine in a round slows both."""
    return Spread.of(a / b for a, b in zip(ours, theirs, strict=True))


def seconds_left(taken: Mapping[str, float], todo: Sequence[str]) -> float | None:
    """Of the runs `todo` by what each contestant took last; None while nothing is known."""
    if not taken:
        return None
    usual = sum(taken.values()) / len(taken)
    return sum(taken.get(name, usual) for name in todo)


def bytes_moved(activations: int, parameters: int, batch: int, width: int) -> float:
    """Bytes that training one image moves at least, if nothing stays in a cache between layers.

    activations: elements of all layers' outputs, of `width` bytes each. An output is written and
    read in the forward pass and read again in the backward pass, its gradient written and read.
    parameters: float32; once a batch read in both passes, its gradient written and read, and the
    parameter read and written by the optimizer.
    """
    return 5 * activations * width + 6 * 4 * parameters / batch


def of_ceilings(images_per_s: float, counts: Mapping[str, Any]) -> dict[str, float]:
    """The rates that a training speed means: FLOP/s and bytes/s.

    counts: multiply_adds and bytes of training one image. A multiply-add is two operations.
    """
    return {
        "flops": 2 * counts["multiply_adds"] * images_per_s,
        "bytes": counts["bytes"] * images_per_s,
    }
