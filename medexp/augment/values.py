"""What changes values: brightness and contrast, blur, cutout, mixup."""

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from scipy.special import betaincinv
from torch import Generator, Tensor

from medexp.augment.base import as_stored, between, ends, share, where
from medexp.errors import ConfigError


class BrightnessContrast:
    """Brightness: a factor on the values; contrast: a factor on their distance from their mean.

    brightness, contrast: the factors are uniform in [1 - it, 1 + it]; p: share of the images that
    are changed. Both are one linear map, x -> c b x + (1 - c) b mean, as torchvision's
    adjust_brightness and then adjust_contrast, with the mean of an image's grey values. uint8 is
    clipped to 0..255; float images, which may be of any unit, are not clipped.
    """

    def __init__(self, *, brightness: float = 0.0, contrast: float = 0.0, p: float = 1.0):
        self.brightness = share("brightness", brightness)
        self.contrast = share("contrast", contrast)
        self.p = share("p", p)

    def draw(self, n: int, generator: Generator) -> Tensor:
        return torch.rand(n, 3, generator=generator)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """images: (B, [D,] H, W, C) uint8 or float, draws: (B, 3); the shape and dtype it got."""
        b, c = (
            between((1 - far, 1 + far), draw)
            for far, draw in zip((self.brightness, self.contrast), draws.T[1:], strict=True)
        )
        chosen = (draws[:, 0] < self.p) & ((b != 1) | (c != 1))
        return where(chosen, images, mapped, c * b, (1 - c) * b)


def mapped(images: Tensor, factor: Tensor, of_mean: Tensor) -> Tensor:
    """factor * image + of_mean * (mean of its grey values), both (B,)."""
    inner = tuple(range(1, images.ndim - 1))
    # Sums of bytes are exact, whatever the order.
    dtype = torch.int64 if images.dtype == torch.uint8 else torch.float32
    means = images.sum(inner, dtype=dtype) / math.prod(images.shape[1:-1])  # (B, C)
    if images.shape[-1] == 3:
        grey = 0.2989 * means[:, 0] + 0.587 * means[:, 1] + 0.114 * means[:, 2]  # ITU-R 601
    else:
        grey = means.mean(1)
    per_image = (-1, *[1] * (images.ndim - 1))
    out = images.to(torch.float32, copy=True).mul_(factor.view(per_image))
    out.add_((of_mean * grey).view(per_image))
    return as_stored(out, images.dtype)


class Blur:
    """Gaussian blur in the plane of the image; beyond the border its nearest pixel goes on.

    sigma: [low, high] of the standard deviation in pixels, uniform; p: share of the images that are
    changed. The bell is cut at three times `high`.
    """

    def __init__(self, *, sigma: Sequence[float] = (0.5, 1.5), p: float = 1.0):
        self.sigma, self.p = ends("sigma", sigma, 0.0), share("p", p)
        self.radius = math.ceil(3 * self.sigma[1])

    def draw(self, n: int, generator: Generator) -> Tensor:
        return torch.rand(n, 2, generator=generator)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """images: (B, [D,] H, W, C) uint8 or float, draws: (B, 2); the shape and dtype it got."""
        sigma = between(self.sigma, draws[:, 1])
        chosen = (draws[:, 0] < self.p) & (sigma > 0)
        return where(chosen, images, partial(blurred, radius=self.radius), sigma)


def blurred(images: Tensor, sigma: Tensor, *, radius: int) -> Tensor:
    """sigma: (B,) in pixels; one direction after the other, by 2 radius + 1 weights each."""
    taps = torch.arange(-radius, radius + 1, device=images.device)
    weights = torch.exp(-0.5 * (taps / sigma.clamp(min=1e-6).unsqueeze(1)) ** 2)  # (B, taps)
    weights /= weights.sum(1, keepdim=True)
    planes = images.movedim(-1, -3)  # (B, [D,] C, H, W)
    flat = planes.flatten(1, -3).to(torch.float32, memory_format=torch.contiguous_format)
    for axis, around in ((-1, (radius, radius, 0, 0)), (-2, (0, 0, radius, radius))):
        padded, length = F.pad(flat, around, mode="replicate"), flat.shape[axis]
        flat = torch.zeros_like(flat)
        for place, weight in enumerate(weights.unbind(1)):
            flat.addcmul_(padded.narrow(axis, place, length), weight.view(-1, 1, 1, 1))
    return as_stored(flat, images.dtype).view(planes.shape).movedim(-3, -1).contiguous()


class Cutout:
    """A square of each image blanked, at a place of its own (DeVries and Taylor 2017).

    size: side of the square as a share of the image's shorter side. Its centre is any pixel, so it
    may reach over the border. p: share of the images; fill: in the images' stored units.
    """

    def __init__(self, *, size: float = 0.25, p: float = 0.5, fill: float = 0.0):
        self.size, self.p, self.fill = share("size", size), share("p", p), fill

    def draw(self, n: int, generator: Generator) -> Tensor:
        return torch.rand(n, 3, generator=generator)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """images: (B, [D,] H, W, C) of any dtype, draws: (B, 3); returns the shape it got."""
        height, width = images.shape[-3:-1]
        side = round(self.size * min(height, width))
        cut = (draws[:, 0] < self.p).view(-1, 1, 1)
        for place, length, shape in ((1, height, (-1, 1)), (2, width, (1, -1))):
            start = (draws[:, place] * length).int().view(-1, 1, 1) - side // 2
            at = torch.arange(length, device=images.device).view(shape)
            cut = cut & (at >= start) & (at < start + side)
        middle = [1] * (images.ndim - 4)
        return images.masked_fill_(cut.view(len(images), *middle, height, width, 1), self.fill)


class Mixup:
    """Each image and target mixed with its neighbour's in the batch (Zhang et al. 2018).

    The image's own share is from Beta(alpha, alpha), each image its own. The order is shuffled, so
    the neighbour is any image.
    """

    def __init__(self, *, alpha: float = 0.2):
        if alpha <= 0:
            raise ConfigError(f"augment.alpha={alpha}: must be above 0; 0.1 to 0.4 are common")
        self.alpha = alpha

    def draw(self, n: int, generator: Generator) -> Tensor:
        uniform = torch.rand(n, 1, generator=generator).double()
        return torch.from_numpy(betaincinv(self.alpha, self.alpha, uniform.numpy())).float()

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        return images

    def mix(self, x: Tensor, target: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """x: network input (B, C, [D,] H, W) float32; target: (B, classes) float32; draws: (B, 1).

        Returns new tensors of the same shapes and memory layout.
        """
        return (
            x.lerp(torch.cat([x[-1:], x[:-1]]), 1 - draws.view(-1, *[1] * (x.ndim - 1))),
            target.lerp(target.roll(1, 0), 1 - draws),
        )
