"""What becomes of images in arrays: which axes are which, values, channels, size."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from medexp.data.npz import Stored
from medexp.data.pixels import INTERPOLATION, Scale, check_scale, resize, scaled, with_channels
from medexp.errors import ConfigError, MedexpError, one_of

LAYOUTS = {  # of the images' axes -> where (depth,) height, width and channels are found
    "nhw": (0, 1, None),
    "nhwc": (0, 1, 2),
    "nchw": (1, 2, 0),
    "ndhw": (0, 1, 2, None),
    "ndhwc": (0, 1, 2, 3),
    "ncdhw": (1, 2, 3, 0),
}
Layout = Literal["auto", "nhw", "nhwc", "nchw", "ndhw", "ndhwc", "ncdhw"]
Channels = Literal["auto", "rgb", "grey"]


@dataclass(frozen=True)
class Way:
    """How the images become what they should be: arguments of `load`."""

    layout: str
    size: int | list[int] | None
    channels: str
    interpolation: str
    scale: Scale | None

    def __post_init__(self) -> None:
        one_of("dataset.channels", self.channels, ("auto", "rgb", "grey"))
        one_of("dataset.interpolation", self.interpolation, list(INTERPOLATION))
        check_scale(self.scale)
        if self.sides is not None and (len(self.sides) != 2 or min(self.sides) < 1):
            raise ConfigError(
                f"dataset.size={self.size}: need a side, [height, width], or null for images as "
                "they are"
            )

    @property
    def sides(self) -> list[int] | None:
        return [self.size, self.size] if isinstance(self.size, int) else self.size

    def settings(self) -> dict[str, Any]:
        """What decides the pixels, JSON-ready."""
        scale = self.scale if self.scale is None or isinstance(self.scale, str) else [*self.scale]
        return {**vars(self), "size": self.sides, "scale": scale}


def axes_of(images: Stored, layout: str) -> tuple[int | None, ...]:
    """Where an image's axes are found, channels last; MedexpError where the shape does not say."""
    shape = images.shape
    if layout == "auto":
        layout = guess(shape)
    if len(layout) != len(shape):  # a letter an axis
        raise MedexpError(
            f"{images.name}: images of shape {shape}: which axes are they? Give dataset.layout= "
            f"one of {', '.join(LAYOUTS)}, with as many letters as axes"
        )
    if 0 in shape:
        raise MedexpError(f"{images.name}: no images, shape {shape}")
    return LAYOUTS[layout]


def guess(shape: tuple[int, ...]) -> str:
    """The layout that a shape tells; "" for none."""
    last, second = shape[-1] in (1, 3), len(shape) > 1 and shape[1] in (1, 3)
    if len(shape) == 3:
        return "nhw"
    if len(shape) == 4:
        four = {(True, False): "nhwc", (False, True): "nchw", (False, False): "ndhw"}
        return four.get((last, second), "")
    if len(shape) == 5:
        return {(True, False): "ndhwc", (False, True): "ncdhw"}.get((last, second), "")
    return ""


def ends_of(dtype: np.dtype) -> tuple[float, float]:
    """The least and greatest value of an integer type or of bool."""
    if dtype.kind == "b":
        return 0.0, 1.0
    return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)


def converter(
    images: Stored, places: tuple[int | None, ...], way: Way
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from a row as it is stored to the image: axes, values, channels, size."""
    volume = len(places) == 4
    order = [place for place in places if place is not None]
    dtype = images.dtype
    if volume and way.sides is not None:
        raise ConfigError(f"dataset.size={way.size}: volumes keep their size. Give null")
    if volume and way.channels != "auto":
        raise ConfigError(f"dataset.channels={way.channels}: volumes keep theirs. Give auto")
    if dtype.kind != "f" and dtype != np.uint8 and way.scale is None:
        raise MedexpError(
            f"{images.name}: images of {dtype}: which values are black and white? Give "
            "dataset.scale=full, percentile, or [low, high]"
        )
    real = dtype.kind == "f"
    ends = None if real else ends_of(dtype)

    def convert(row: np.ndarray) -> np.ndarray:
        image = row.transpose(order) if places[-1] is not None else row[..., None]
        if way.scale is not None:
            image = scaled(image, way.scale, ends)
        elif real:
            if not np.isfinite(image).all() or image.min() < 0 or image.max() > 1:
                raise MedexpError(
                    f"values {image.min():g} to {image.max():g}, not 0..1. Give dataset.scale=, "
                    "which says what they are"
                )
            image = image.astype(np.float32)
        if way.channels != "auto" and image.shape[2] not in (1, 3):
            raise MedexpError(f"{image.shape[2]} channels, which cannot be made {way.channels}")
        if way.channels != "auto":
            whole = image.dtype == np.uint8
            image = with_channels(image, {"rgb": "RGB", "grey": "L"}[way.channels])
            image = np.round(image).astype(np.uint8) if whole else image
        if way.sides is not None:
            height, width = way.sides
            image = resize(np.ascontiguousarray(image), height, width, way.interpolation)
            image = image if image.dtype == np.uint8 else np.clip(image, 0, 1)
        return np.ascontiguousarray(image)

    return convert
