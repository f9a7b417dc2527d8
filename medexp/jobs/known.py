"""What weights were trained on: no image that they know passes as a test image unmarked."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from medexp.config.settings import Settings
from medexp.data.base import WHOLE, Dataset, Split
from medexp.jobs import binding
from medexp.jobs.binding import pixels_as_text
from medexp.runs.images import Images, Listed


def leak_of(settings: Settings, data: Dataset, run: binding.Run, part: str) -> dict[str, str]:
    """LEAKY and SELECTED ON TEST, with the shares of a split that a run's weights know already."""
    split = data.splits()[part]
    if run.images is None or not len(split):
        return {}
    same = binding.same_images(settings, data, run)
    trained = run.images.trained
    hit = _among(split, trained, same)
    if same:
        # An image of the run's own held-out parts may have equalled one of training all along:
        # `copies` notes that. One that has become such an image is as leaky as any.
        held_out = {
            (key, pixels)
            for name, one in run.images.parts.items()
            if name != "train"
            for key, pixels in zip(one.ids, one.pixels, strict=True)
        }
        now = zip(split.ids.tolist(), pixels_as_text(split), strict=True)
        own = np.array([(key, pixels) in held_out or (key, "") in held_out for key, pixels in now])
        hit &= ~own | np.isin(split.ids, list(trained.ids))
    found = {}
    words = "all images" if part == WHOLE else f"the {part} images"
    if hit.any():
        found["LEAKY"] = (
            f"{hit.mean():.1%} of {words} are among those that {run.name} was trained on"
        )
    elif same and split.groups is not None and any(trained.groups):
        known = np.isin(split.groups, [group for group in trained.groups if group])
        own = np.isin(split.ids, list(run.images.parts.get(part, Listed()).ids))
        if (known & ~own).any():
            found["LEAKY"] = (
                f"{(known & ~own).mean():.1%} of {words} are of patients or slides that "
                f"{run.name} was trained on"
            )
    if part in ("test", WHOLE) and same:
        test = set(run.images.parts.get("test", Listed()).ids)
        chosen = [key for key in run.images.parts.get("val", Listed()).ids if key not in test]
        if share := float(np.isin(split.ids, chosen).mean()):
            found["SELECTED ON TEST"] = (
                f"the best epoch of {run.name} was picked by {share:.1%} of the images that it is "
                "scored on"
            )
    return found


def _among(split: Split, listed: Listed, same: bool) -> np.ndarray:
    """(N,) bool: which images of a split are listed, by their pixels or, if `same`, their ids."""
    by_pixels = np.isin(pixels_as_text(split), [pixels for pixels in listed.pixels if pixels])
    return by_pixels | np.isin(split.ids, list(listed.ids)) if same else by_pixels


def with_leaks(
    settings: Settings, data: Dataset, run: binding.Run, parts: Collection[str]
) -> Dataset:
    """The data with the marks of what the run's weights know of some splits."""
    found: dict[str, list[str]] = {}
    for part in parts:
        for mark, reason in leak_of(settings, data, run, part).items():
            found.setdefault(mark, []).append(reason)
    own = dict(data.marks)
    for mark, reasons in found.items():
        own[mark] = "; ".join([*filter(None, [own.get(mark)]), *reasons])
    return replace(data, marks=own)


def images_of(data: Dataset, start: binding.Run | None) -> Images:
    """The images of a run that begins, and those that its first weights were trained on."""
    parts = {part: _listed(split) for part, split in data.splits().items()}
    seen = Listed()
    if start is not None and start.images is not None:
        seen = start.images.trained.less(parts["train"].ids)
    return Images(parts, seen)


def _listed(split: Split) -> Listed:
    groups = [""] * len(split) if split.groups is None else map(str, split.groups.tolist())
    return Listed(tuple(map(str, split.ids.tolist())), tuple(groups), tuple(pixels_as_text(split)))
