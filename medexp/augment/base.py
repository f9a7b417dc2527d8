"""What augmentations share: their form, their chain, the choice of images, draws to values."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from medexp.errors import ConfigError, one_of


@runtime_checkable
class Augment(Protocol):
    def draw(self, n: int, generator: Generator) -> Tensor: ...
    def __call__(self, images: Tensor, draws: Tensor) -> Tensor: ...


class Identity:
    """No augmentation."""

    def draw(self, n: int, generator: Generator) -> Tensor:
        return torch.empty(n, 0)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        return images


class Chain:
    """Several augmentations one after the other, each with columns of draws of its own."""

    def __init__(self, *, steps: Sequence[Augment]):
        if not steps:
            raise ConfigError("augment.steps=[]: nothing to do. Take augment=none for that")
        for position, step in enumerate(steps):
            if not isinstance(step, Augment):
                raise ConfigError(
                    f"augment.steps.{position}: {step!r} is no augmentation (it has no draw). Each "
                    "step is a node with a _target_ such as medexp.augment.FlipsTurns"
                )
        self.steps = list(steps)
        self.widths = [step.draw(0, Generator()).shape[1] for step in steps]
        if any(hasattr(step, "mix") for step in steps):
            # Only then: what has it gets targets that are shares of classes.
            self.mix = self._mix

    def draw(self, n: int, generator: Generator) -> Tensor:
        return torch.cat([step.draw(n, generator) for step in self.steps], dim=1)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        for step, columns in zip(self.steps, self.split(draws), strict=True):
            images = step(images, columns)
        return images

    def _mix(self, x: Tensor, target: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        for step, columns in zip(self.steps, self.split(draws), strict=True):
            if hasattr(step, "mix"):
                x, target = step.mix(x, target, columns)
        return x, target

    def split(self, draws: Tensor) -> tuple[Tensor, ...]:
        """The columns of each step."""
        return torch.split(draws, self.widths, dim=1)


def where(
    chosen: Tensor, images: Tensor, change: Callable[..., Tensor], *columns: Tensor
) -> Tensor:
    """`change` of the chosen images (B,), the others as they are.

    columns: (B, ...) each, further arguments of `change`, image by image. `change` makes new images
    and writes to none that it gets.

    On a CPU only those are touched, in place, which is several times faster; on a device all are
    changed and then selected, since asking it how many are chosen would stop it.
    """
    if images.device.type == "cpu":
        rows = chosen.nonzero().squeeze(1)
        chosen_columns = (column.index_select(0, rows) for column in columns)
        changed = change(images.index_select(0, rows), *chosen_columns)
        if not images.is_contiguous():
            return images.index_copy_(0, rows, changed)
        copy_rows(images, rows, dense(changed))
        return images
    changed = change(images, *columns)
    return torch.where(chosen.view(-1, *[1] * (images.ndim - 1)), changed, images)


def dense(images: Tensor) -> Tensor:
    """The images (B, ..., H, W, C) contiguous: channel by channel if they are not.

    A transposed image is thus copied in a third of the time that `contiguous()` takes.
    """
    if images.is_contiguous():
        return images
    out = images.new_empty(images.shape)
    for target, source in zip(out.unbind(-1), images.unbind(-1), strict=True):
        target.copy_(source)
    return out


def copy_rows(into: Tensor, rows: Tensor, images: Tensor) -> None:
    """Write the images over those rows of contiguous others, in 64-bit words where they are such.

    Torch copies a byte at a time otherwise, which takes ten times as long.
    """
    target, source = (x.view(len(x), math.prod(x.shape[1:])) for x in (into, images))
    size = into.element_size()
    bounds = (target.shape[1], into.storage_offset(), images.storage_offset())
    if into.dtype == images.dtype and not any(n * size % 8 for n in bounds):
        target, source = target.view(torch.int64), source.view(torch.int64)
    target.index_copy_(0, rows, source)


def pick(values: Sequence[float], draws: Tensor) -> Tensor:
    """The values that the draws (B,) in [0, 1) stand for, each equally likely."""
    index = (draws * len(values)).int()
    out = torch.full_like(draws, values[0])
    for position, value in enumerate(values):
        out = out.masked_fill(index == position, value)  # a table would have to be copied there
    return out


def between(ends: tuple[float | Tensor, float | Tensor], draws: Tensor) -> Tensor:
    """The draws (B,), uniform in [0, 1), as uniform between two ends."""
    low, high = ends
    return low + (high - low) * draws


def as_stored(images: Tensor, dtype: torch.dtype) -> Tensor:
    """float32 images in the stored dtype: bytes rounded and clipped."""
    return images.round_().clamp_(0, 255).to(dtype) if dtype == torch.uint8 else images.to(dtype)


def share(key: str, value: float) -> float:
    """The value; ConfigError where it is no share."""
    if not 0 <= value <= 1:
        raise ConfigError(f"augment.{key}={value}: must lie from 0 to 1")
    return value


def ends(key: str, values: Sequence[float], least: float) -> tuple[float, float]:
    """The two ends of a range; ConfigError where they are not two in order."""
    if len(values) != 2 or not least <= values[0] <= values[1]:
        above = f", from {least} on" if math.isfinite(least) else ""
        raise ConfigError(
            f"augment.{key}={list(values)}: must be [low, high], low not above high{above}"
        )
    return values[0], values[1]


def filling(fill: float | str) -> float | None:
    """The value, or None for the border's."""
    if isinstance(fill, str):
        one_of("augment.fill", fill, ("border",))
        return None
    return fill
