"""Augmentation: per-sample, batched on the device, drawn ahead from the seed and the epoch.

An augmentation has `draw(n, generator) -> (n, k) float32 in [0, 1)`, called once an epoch on the
CPU, and `__call__(images, draws)` on a batch of the stored images (B, H, W, C) with its rows of
draws; the batch is a copy that it may write to. A sample's draws depend on nothing but seed, epoch
and position, so a resumed run, another device or another data path sees the same images.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from medexp.errors import MedexpError


class Identity:
    """No augmentation."""

    def draw(self, n: int, generator: Generator) -> Tensor:
        return torch.empty(n, 0)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        return images


class FlipsTurns:
    """Flips at p = 0.5 each and turns by 0, 90, 180 or 270 degrees, each equally likely.

    The PCam paper augments "by flipping and rotating" (Johny et al., section 4) without saying by
    how much; right angles keep every pixel of a patch and its centre in the centre.
    """

    def __init__(self, *, horizontal: bool = True, vertical: bool = True, turns: bool = True):
        self.horizontal, self.vertical, self.turns = horizontal, vertical, turns

    def draw(self, n: int, generator: Generator) -> Tensor:
        return torch.rand(n, 3, generator=generator)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """images: (B, H, W, C) of any dtype, draws: (B, 3); returns the shape it got.

        Volumes (B, D, H, W, C) are flipped and turned in the plane of their slices.
        """
        if self.horizontal:
            images = where(draws[:, 0] < 0.5, images, lambda x: x.flip(-2))
        if self.vertical:
            images = where(draws[:, 1] < 0.5, images, lambda x: x.flip(-3))
        if self.turns:
            height, width = images.shape[-3:-1]
            if height != width:
                raise MedexpError(
                    f"augment.turns=true: images are {height}x{width}, and a turn by 90 degrees "
                    "needs square ones. Set augment.turns=false"
                )
            quarter = (draws[:, 2] * 4).int()
            quarter_turn = (quarter & 1).bool()
            images = where(quarter_turn, images, lambda x: x.transpose(-3, -2).flip(-3))
            images = where((quarter & 2).bool(), images, lambda x: x.flip(-3, -2))
        return images


def where(chosen: Tensor, images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """`change` of the chosen images (B,), the others as they are.

    On a CPU only those are touched, in place, which is several times faster; on a device all are
    changed and then selected, since asking it how many are chosen would stop it.
    """
    if images.device.type == "cpu":
        rows = chosen.nonzero().squeeze(1)
        return images.index_copy_(0, rows, change(images.index_select(0, rows)))
    return torch.where(chosen.view(-1, *[1] * (images.ndim - 1)), change(images), images)
