"""Flips and turns by right angles, which keep every pixel."""

import torch
from torch import Generator, Tensor

from medexp.augment.base import share, where
from medexp.errors import MedexpError


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


class RightAngles:
    """Augmentor's rotate90, rotate270, flip_left_right and flip_top_bottom in turn, each at p.

    As Mir and Nissa (3.3.2) have it. At p = 0.5 all eight symmetries of a square are equally
    likely; at another p they are not, and rotate270 may undo rotate90.
    """

    def __init__(self, *, p: float = 0.5):
        self.p = share("p", p)

    def draw(self, n: int, generator: Generator) -> Tensor:
        return torch.rand(n, 4, generator=generator)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """images: (B, [D,] S, S, C) of any dtype, draws: (B, 4); returns the shape it got."""
        height, width = images.shape[-3:-1]
        if height != width:
            raise MedexpError(
                f"augment=right_angles: images are {height}x{width}, and a turn by 90 degrees "
                "needs square ones. Take augment=flips_turns augment.turns=false"
            )
        left, right, mirrored, upside_down = (draws < self.p).unbind(1)
        half = right & ~left  # a turn to the right is one to the left and both flips
        images = where(left ^ right, images, lambda x: x.transpose(-3, -2).flip(-3))
        images = where(mirrored ^ half, images, lambda x: x.flip(-2))
        return where(upside_down ^ half, images, lambda x: x.flip(-3))
