"""predict(): a network over a whole split, as arrays. Scores are metrics.score() of its result."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor, nn

from medexp.data.base import Split
from medexp.errors import ConfigError, MedexpError

# What test-time augmentation shows of stored images ([...,] H, W, C): one of equal content.
View = Callable[[Tensor], Tensor]


def to_input(images: Tensor, channels_last: bool = True) -> Tensor:
    """Stored images (B, H, W, C) uint8 or float -> network input (B, C, H, W) float32.

    uint8 becomes [0, 1] by division by 255. The permuted view is channels_last already.
    """
    x = images.float().div_(255) if images.dtype == torch.uint8 else images.float()
    x = x.movedim(-1, 1)
    return x if channels_last else x.contiguous()


def predict(
    network: nn.Module, split: Split, *, device: torch.device, batch_size: int, channels_last: bool
) -> np.ndarray:
    """Logits of every image of a split in order: (N, outputs) float32.

    Always float32 arithmetic, whatever precision trained the network: bf16 logits have 8 bits,
    which ties scores and moves the AUC. The network is left in evaluation mode.
    """
    logits: np.ndarray = predict_views(
        network,
        split,
        (as_stored,),
        device=device,
        batch_size=batch_size,
        channels_last=channels_last,
    )[0]
    return logits


@torch.inference_mode()
def predict_views(
    network: nn.Module,
    split: Split,
    views: Sequence[View],
    *,
    device: torch.device,
    batch_size: int,
    channels_last: bool,
) -> np.ndarray:
    """Logits of every view of every image, as `predict` makes them: (V, N, outputs) float32.

    An image is read and moved to the device once, whatever the number of views. Raises MedexpError
    where a batch does not fit in the device's memory.
    """
    network.eval()
    logits: list[list[Tensor]] = [[] for _ in views]
    try:
        with whole_float32():
            for start in range(0, len(split), batch_size):
                batch = torch.from_numpy(split.images[start : start + batch_size]).to(device)
                for view, kept in zip(views, logits, strict=True):
                    kept.append(network(to_input(view(batch), channels_last)))
    except torch.OutOfMemoryError as error:
        raise MedexpError(
            f"The device's memory is too small to predict {batch_size} images at once: "
            f"{asked_for(error)}. Lower trainer.eval_batch_size"
        ) from error
    return np.stack([torch.cat(kept).float().cpu().numpy() for kept in logits])


@contextmanager
def whole_float32() -> Iterator[None]:
    """cuDNN computes float32 with all its bits; else it takes TF32, whose numbers have 11."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def asked_for(error: torch.OutOfMemoryError) -> str:
    """What there was no memory for, of torch's long text: `Tried to allocate 20.00 GiB`."""
    found = re.search(r"Tried to allocate [\d.]+ \w+", str(error))
    return found.group() if found else str(error).partition("\n")[0]


def probabilities(logits: np.ndarray) -> np.ndarray:
    """(N, C) float64 class probabilities of (N, C) logits, or of (N, 1) of a sigmoid output."""
    columns = class_logits(torch.from_numpy(logits)).numpy()
    return np.asarray(softmax(columns.astype(np.float64), axis=1))


# ---------------------------------------------------------------- test-time augmentation


def as_stored(images: Tensor) -> Tensor:
    return images


def views(*, horizontal: bool, vertical: bool, turns: bool) -> tuple[View, ...]:
    """The distinct views of an image under flips and turns by right angles, the image itself first.

    Of a volume the slices are flipped and turned. A vertical flip is a horizontal one and a turn by
    180 degrees, so with turns either flip gives all 8 views of the square.
    """
    if turns:
        flips = [(), (-2,)] if horizontal or vertical else [()]
        return tuple(partial(turned, flips=axes, quarters=q) for axes in flips for q in range(4))
    flips = [(), *[(-2,)] * horizontal, *[(-3,)] * vertical, *[(-3, -2)] * (horizontal * vertical)]
    return tuple(partial(turned, flips=axes) for axes in flips)


def turned(images: Tensor, *, flips: tuple[int, ...], quarters: int = 0) -> Tensor:
    """Flip stored images ([...,] H, W, C) along axes, then turn them by quarters of a turn."""
    height, width = images.shape[-3:-1]
    if quarters and height != width:
        raise ConfigError(
            f"tta.turns=true: images are {height}x{width}, and a turn by 90 degrees needs square "
            "ones. Take tta=flips"
        )
    # Contiguous, so that the network finds every view in the same memory layout.
    return images.flip(flips).rot90(quarters, (-3, -2)).contiguous()


def class_logits(logits: Tensor) -> Tensor:
    """(N, C) logits of the classes; one column z, a sigmoid output, becomes the two columns (0, z).

    softmax(0, z)[1] = sigmoid(z), so the cross-entropy of the pair is the binary cross-entropy of
    z, and everything downstream knows one form only.
    """
    if logits.shape[1] > 1:
        return logits
    return torch.cat([torch.zeros_like(logits), logits], dim=1)
