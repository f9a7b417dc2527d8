"""Draw what an augmentation makes of images: the sheet of examples of `plot_augment=true`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from medexp.report.figure.panels import Array, Floats, _figure, _save, _show
from medexp.report.figure.plots import BLUE

_CELL = 1.25  # inches
_LEAST = 7.0  # of a page, for its heading


def draw_sheet(
    originals: Array,
    variants: Array,
    path: str | Path,
    *,
    titles: Sequence[str],
    marks: Sequence[str] = (),
    heading: str = "",
) -> Path:
    """A row an image: the image as stored, framed, and its variants. Returns `path`, a PNG.

    originals: (n, H, W, C) uint8 or float; variants: (n, m, H, W, C) of the same kind. Volumes,
    (n, D, H, W, C) and (n, m, D, H, W, C), are shown by their middle slice. A row has one grey
    scale, float images' from the least to the greatest value of the original's slice, so that a
    change of brightness is seen.
    titles: one a row; marks: PHANTOM and the like; heading: of the page.
    """
    if originals.ndim == 5:
        middle = originals.shape[1] // 2
        originals, variants = originals[:, middle], variants[:, :, middle]
    rows, columns = variants.shape[0], variants.shape[1] + 1
    cell = max(_CELL, _LEAST / columns)
    tall = originals.shape[1] / originals.shape[2]
    figure = _figure((columns * cell, rows * (cell * tall + 0.25) + 0.75))
    grid = figure.subplots(rows, columns, squeeze=False)
    for line, original, made, title in zip(grid, originals, variants, titles, strict=True):
        for axes, picture in zip(line, on_one_scale(original, made), strict=True):
            _show(axes, picture)
            axes.set_xticks([])
            axes.set_yticks([])
        frame(line[0])
        line[0].set_title(title, fontsize=9.5, loc="left")
    for axes, name in zip(grid[-1], ("as stored", *map(str, range(1, columns))), strict=True):
        axes.set_xlabel(name, fontsize=11)
    return _save(figure, path, marks, heading)


def on_one_scale(original: Array, variants: Array) -> Floats:
    """(H, W, C) and (m, H, W, C) -> (1 + m, H, W, 3 or 1) float32 in [0, 1], the original first."""
    shown: Floats = np.concatenate([original[None], variants]).astype(np.float32)
    low, high = (0, 255) if original.dtype == np.uint8 else (shown[0].min(), shown[0].max())
    shown = ((shown - low) / max(high - low, 1e-12)).clip(0, 1)
    return shown if shown.shape[-1] == 3 else shown[..., :1]


def frame(axes: Axes) -> None:
    for side in axes.spines.values():
        side.set(color=BLUE, linewidth=2.5)
