"""Draw a segmentation by superpixels step by step, as Nguyen et al. 2017 do in Figures 5 to 7."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from medexp.data.segment import Panels
from medexp.report.figure.panels import Array, Floats, _figure, _save, _show
from medexp.report.figure.plots import BLUE

STEPS = ("image", "superpixels", "mask", "segmented")
_LINE = "#F0E442"  # between superpixels
_ENCLOSED = BLUE
_WIDTH = 9.0  # inches


def four_panels(
    rows: Sequence[Panels],
    titles: Sequence[str],
    path: str | Path,
    marks: Sequence[str] = (),
    *,
    heading: str = "",
) -> Path:
    """A row an image: the image, its superpixels, the mask, and what the mask leaves of it.

    In the mask, patches picked by colour are white and those only enclosed by them blue.
    titles: one a row; marks: PHANTOM and the like; heading: of the page. Returns `path`, a PNG.
    """
    tall = max(row.image.shape[0] / row.image.shape[1] for row in rows)
    figure = _figure((_WIDTH, len(rows) * (_WIDTH / len(STEPS) * tall + 0.3) + 0.9))
    grid = figure.subplots(len(rows), len(STEPS), squeeze=False)
    for line, row, title in zip(grid, rows, titles, strict=True):
        for axes, picture in zip(line, pictures(row), strict=True):
            _show(axes, picture)
            axes.set_xticks([])
            axes.set_yticks([])
        outline(line[1], row.labels)
        line[0].set_title(title, fontsize=9.5, loc="left")
    for axes, name in zip(grid[-1], STEPS, strict=True):
        axes.set_xlabel(name, fontsize=11)
    figure.legend(
        handles=[
            Patch(facecolor="white", edgecolor="black", label="nearest in colour"),
            Patch(facecolor=_ENCLOSED, edgecolor="black", label="enclosed by them"),
            Patch(facecolor="black", edgecolor="black", label="blacked out"),
        ],
        loc="outside lower center",
        ncols=3,
        fontsize=9.5,
        frameon=False,
    )
    return _save(figure, path, marks, heading)


def pictures(row: Panels) -> tuple[Floats, Floats, Floats, Floats]:
    """The four pictures, (H, W, 3) float32 in [0, 1]; the second still without its lines."""
    image = row.image.astype(np.float32) / 255
    mask = np.zeros_like(image)
    mask[row.mask] = to_rgb(_ENCLOSED)
    mask[row.nearest] = 1
    return image, image, mask, row.segmented.astype(np.float32) / 255


def outline(axes: Axes, labels: Array) -> None:
    """Lines between the superpixels, along the edges of pixels; as thick for any size of image."""
    height, width = labels.shape
    across = np.argwhere(labels[1:] != labels[:-1])
    down = np.argwhere(labels[:, 1:] != labels[:, :-1])
    axes.hlines(across[:, 0] + 0.5, across[:, 1] - 0.5, across[:, 1] + 0.5, _LINE, linewidth=1)
    axes.vlines(down[:, 1] + 0.5, down[:, 0] - 0.5, down[:, 0] + 0.5, _LINE, linewidth=1)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
