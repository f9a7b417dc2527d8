"""What the networks refuse, in one wording; every refusal is a `ConfigError`."""

from collections.abc import Sequence

from medexp.errors import ConfigError


def require_data(num_classes: int, in_channels: int, image_size: Sequence[int]) -> None:
    """Refuse what no data set of 2D images has."""
    require_sizes("num_classes", [num_classes], least=2)
    require_sizes("in_channels", [in_channels])
    require_image(image_size)


def require_image(image_size: Sequence[int], smallest: int = 1) -> None:
    """Refuse anything but (height, width) in pixels, both integers of at least `smallest`."""
    if isinstance(image_size, Sequence) and len(image_size) == 3:
        raise ConfigError(
            f"image_size={image_size}: this network takes 2D images (height, width), not volumes"
        )
    require_sizes("image_size", image_size, length=2)
    if min(image_size) < smallest:
        raise too_small(image_size, smallest)


def too_small(image_size: Sequence[int], smallest: int, setting: str = "") -> ConfigError:
    """The refusal of a small image, for networks that compute the smallest side themselves.

    Args:
        setting: what the smallest side depends on, as in "model.padding=valid".
    """
    works = f"works with {setting}" if setting else "works"
    return ConfigError(
        f"image_size={image_size}: too small for this network; the smallest that {works} is "
        f"{smallest}x{smallest}"
    )


def require_sizes(name: str, sizes: Sequence[int], length: int | None = 1, least: int = 1) -> None:
    """Refuse anything but `length` integers (None: any number) of at least `least`."""
    if (
        not isinstance(sizes, Sequence)
        or (length is not None and len(sizes) != length)
        or any(type(size) is not int or size < least for size in sizes)
    ):
        shown = sizes[0] if length == 1 else sizes
        wanted = {1: "an integer", None: "a list of integers"}.get(length, f"{length} integers")
        raise ConfigError(f"{name}={shown}: must be {wanted} of at least {least}")


def require_rates(
    name: str, rates: Sequence[float], length: int = 1, of: str = "activations dropped"
) -> None:
    """Refuse anything but `length` shares in [0, 1); `of` says what they are shares of."""
    if (
        not isinstance(rates, Sequence)
        or len(rates) != length
        or any(type(rate) not in (int, float) or not 0 <= rate < 1 for rate in rates)
    ):
        shown = rates[0] if length == 1 else rates
        wanted = "at least 0 and below 1, the share"
        if length != 1:
            wanted = f"{length} numbers, each {wanted}s"
        raise ConfigError(f"{name}={shown}: must be {wanted} of {of}")


def require_booleans(name: str, values: Sequence[bool], length: int, each: str) -> None:
    """Refuse anything but `length` booleans; `each` says what one of them is for."""
    if not isinstance(values, Sequence) or [type(value) for value in values] != [bool] * length:
        raise ConfigError(f"{name}={values}: must be {length} booleans, one for each {each}")
