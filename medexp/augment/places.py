"""What moves pixels: rotation, scale, shift and crop as one resampling; whole-pixel crops."""

import math
from collections.abc import Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from medexp.augment.base import as_stored, between, ends, filling, pick, share, where
from medexp.errors import ConfigError, one_of


class Affine:
    """Random crop, rotation, scale and shift as one resampling of each image, size kept.

    degrees: rotation counter-clockwise, uniform in [-degrees, degrees] or in [low, high].
    angles: instead, a list of rotations, each equally likely.
    scale: [low, high] of the factor, uniform; above 1 zooms in.
    shift: up to this share of the width to the right or left, and of the height up or down.
    crop: share of each side that is kept, anywhere in the image, and resized back; applied first.
        [low, high]: what it enlarges by, 1 over the share, is drawn uniformly between the two.
    p: share of the images that are changed. Those, and any whose draws change nothing (a rotation
        by 0), keep their very pixels.
    interpolation: bilinear, or cubic: splines through the pixels, scipy.ndimage's order 3, clipped
        to the image's own range, since splines overshoot. Neither blurs first when it shrinks.
    fill: what lies outside, in the images' stored units (uint8: 0 to 255), or "border", the nearest
        pixel. Bilinear fades into a fill over one pixel as torchvision does; cubic ends at the
        outer pixels' centres as scipy's mode "constant" does.

    Raises ConfigError on construction where a value is out of range.
    """

    def __init__(
        self,
        *,
        degrees: float | Sequence[float] = 0.0,
        angles: Sequence[float] | None = None,
        scale: Sequence[float] = (1.0, 1.0),
        shift: float = 0.0,
        crop: float | Sequence[float] = 1.0,
        p: float = 1.0,
        interpolation: str = "bilinear",
        fill: float | str = 0.0,
    ):
        span = degrees if isinstance(degrees, Sequence) else (-degrees, degrees)
        if angles is not None and (not angles or any(span)):
            raise ConfigError(
                f"augment.angles={list(angles)}: give at least one, with augment.degrees=0: a "
                "rotation is drawn from the list or from the range"
            )
        least, most = ends("crop", crop if isinstance(crop, Sequence) else (crop, crop), -math.inf)
        if least == 0:
            raise ConfigError("augment.crop=0: keeps nothing. 1 is no crop")
        one_of("augment.interpolation", interpolation, ("bilinear", "cubic"))
        self.degrees = ends("degrees", span, -math.inf)
        self.angles = angles
        self.scale = ends("scale", scale, 1e-3)
        self.shift, self.crop, self.p = share("shift", shift), share("crop", most), share("p", p)
        self.enlarges = None if least == most else (1 / most, 1 / share("crop", least))
        self.cubic = interpolation == "cubic"
        self.fill = filling(fill)

    def draw(self, n: int, generator: Generator) -> Tensor:
        return torch.rand(n, 8 if self.enlarges else 7, generator=generator)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """images: (B, [D,] H, W, C) uint8 or float, draws: (B, 7), with a range of crops (B, 8).

        Returns the shape and dtype it got.
        """
        chance, turn, zoom, *places = draws[:, :7].unbind(1)
        crop = 1 / between(self.enlarges, draws[:, 7]) if self.enlarges else self.crop
        angle = pick(self.angles, turn) if self.angles else between(self.degrees, turn)
        step = crop / between(self.scale, zoom)  # in the stored image, of one pixel
        reach = 2 * [self.shift] + 2 * [(1 - crop) / 2]
        moves = [between((-far, far), place) for far, place in zip(reach, places, strict=True)]
        changes = torch.stack([torch.deg2rad(angle), step, *moves], dim=1)
        chosen = (chance < self.p) & ((angle != 0) | (step != 1) | (changes[:, 2:] != 0).any(1))
        return where(chosen, images, self.resample, changes)

    def resample(self, images: Tensor, changes: Tensor) -> Tensor:
        """changes: (B, 6), see `coordinates`."""
        planes = images.movedim(-1, -3)  # (B, [D,] C, H, W)
        flat = planes.flatten(1, -3).to(torch.float32, memory_format=torch.contiguous_format)
        x, y = coordinates(changes, *flat.shape[-2:])
        if self.cubic:
            out = cubic(flat, x, y, self.fill)
        elif self.fill is None:
            out = bilinear(flat, x, y, "border")
        else:  # what lies outside is 0 to grid_sample
            out = bilinear(flat - self.fill, x, y, "zeros").add_(self.fill)
        return as_stored(out, images.dtype).view(planes.shape).movedim(-3, -1).contiguous()


def coordinates(changes: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where the pixels of the output lie in the input: x and y, (B, H, W), in pixels.

    changes: (B, 6): the rotation counter-clockwise in radians, the length of a step of one pixel,
    the shift to the right and down and the place of the crop right and down of the centre, in
    shares of the sides.
    """
    angle, step, right, down, crop_right, crop_down = changes.view(-1, 6, 1, 1).unbind(1)
    cos, sin = step * angle.cos(), step * angle.sin()
    middle = (width - 1) / 2, (height - 1) / 2
    columns = torch.arange(width, device=changes.device).view(1, 1, -1)
    rows = torch.arange(height, device=changes.device).view(1, -1, 1)
    u = columns - middle[0] - right * width
    v = rows - middle[1] - down * height
    x = cos * u - sin * v + (middle[0] + crop_right * width)
    y = sin * u + cos * v + (middle[1] + crop_down * height)
    return x, y


def bilinear(planes: Tensor, x: Tensor, y: Tensor, outside: str) -> Tensor:
    """planes (B, C, H, W) at x, y (B, H, W) in pixels; outside: a padding mode of grid_sample."""
    height, width = planes.shape[-2:]
    grid = torch.stack([x * (2 / max(width - 1, 1)) - 1, y * (2 / max(height - 1, 1)) - 1], dim=-1)
    return F.grid_sample(planes, grid, padding_mode=outside, align_corners=True)


def cubic(planes: Tensor, x: Tensor, y: Tensor, fill: float | None) -> Tensor:
    """As bilinear, by the cubic spline through the pixels; beyond the outer ones `fill` or they.

    The four weights of a B-spline in one direction are two linear interpolations (Sigg and
    Hadwiger, GPU Gems 2, chapter 20), so four bilinear samples have all sixteen.
    """
    height, width = planes.shape[-2:]
    inner_x, inner_y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    least, most = planes.amin((1, 2, 3), keepdim=True), planes.amax((1, 2, 3), keepdim=True)
    spline = prefilter(height, planes.device) @ planes @ prefilter(width, planes.device).T
    out = torch.zeros_like(planes)
    across, down = halves(inner_x), halves(inner_y)
    for (weight_x, at_x), (weight_y, at_y) in product(across, down):
        weight = (weight_x * weight_y).unsqueeze(1)
        out.addcmul_(bilinear(spline, at_x, at_y, "reflection"), weight)
    out = torch.clamp(out, least, most)
    if fill is None:
        return out
    # Rounding must not cut the outer pixels off, as at a rotation by 90 degrees.
    near = 1e-6 * max(height, width)
    outside = ((x - inner_x).abs() > near) | ((y - inner_y).abs() > near)
    return out.masked_fill_(outside.unsqueeze(1), fill)


def halves(x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Weight and place of the two linear interpolations that make up a cubic B-spline at x."""
    whole = x.floor()
    far = x - whole
    near = 1 - far
    w0, w3 = near**3 / 6, far**3 / 6
    w1 = 2 / 3 - far**2 * (2 - far) / 2
    left, right = w0 + w1, 1 - w0 - w1
    return [(left, whole - 1 + w1 / left), (right, whole + 1 + w3 / right)]


def prefilter(n: int, device: torch.device) -> Tensor:
    """(n, n): the coefficients of the cubic B-spline through n values, mirrored at both ends.

    The inverse filter's response is -6z / (1 - z^2) z^|k| (Unser 1999), here summed over all
    images of a mirrored signal, whose period is 2n - 2.
    """
    if n == 1:
        return torch.ones(1, 1, device=device)
    z, period = math.sqrt(3) - 2, 2 * n - 2
    i = torch.arange(n, device=device).unsqueeze(1)
    j = i.T

    def response(k: Tensor) -> Tensor:
        # |z|^k z's sign: k and the period less k are both odd or both even.
        sizes = abs(z) ** k.float() + abs(z) ** (period - k).float()
        return sizes * (1 - 2 * (k % 2)) / (1 - z**period)

    matrix = (response((i - j).abs()) + response(i + j)) * (-6 * z / (1 - z**2))
    matrix[:, :: n - 1] /= 2  # the first and the last value are their own images
    return matrix


class PadCrop:
    """Pad by `padding` pixels on all sides and crop back to the size at a random place.

    Each shift of up to `padding` pixels in either direction is equally likely. fill: of the padding
    in the images' stored units, or "border", the nearest pixel. Nothing is interpolated.
    """

    def __init__(self, *, padding: int, fill: float | str = 0.0):
        if padding < 0:
            raise ConfigError(f"augment.padding={padding}: must be 0 or more pixels")
        self.padding, self.fill = padding, filling(fill)

    def draw(self, n: int, generator: Generator) -> Tensor:
        return torch.rand(n, 2, generator=generator)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """images: (B, [D,] H, W, C) of any dtype, draws: (B, 2); returns the shape it got."""
        batch, (height, width, channels) = len(images), images.shape[-3:]
        volumes = images.reshape(batch, -1, height, width, channels)
        around = 0 if self.fill is None else self.padding
        if around:
            volumes = F.pad(volumes, (0, 0, *4 * [around]), value=self.fill)
        tall, wide = volumes.shape[2:4]
        shift = (draws * (2 * self.padding + 1)).long().view(batch, 2, 1, 1) - self.padding
        row = torch.arange(around, around + height, device=images.device).view(-1, 1) + shift[:, 0]
        column = torch.arange(around, around + width, device=images.device) + shift[:, 1]
        pixel = row.clamp(0, tall - 1) * wide + column.clamp(0, wide - 1)  # (B, H, W)
        plane = torch.arange(batch * volumes.shape[1], device=images.device).view(batch, -1, 1, 1)
        index = plane * (tall * wide) + pixel.unsqueeze(1)
        return volumes.reshape(-1, channels).index_select(0, index.flatten()).view(images.shape)
