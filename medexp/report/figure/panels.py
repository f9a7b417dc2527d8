"""Draw what a network looks at: maps beside and over their images, grids of feature maps, slices.

Plain arrays in, PNG files out, without torch. Maps are drawn from 0 to 1 in one colour scale
(inferno, whose brightness rises evenly), so panels of a page compare. Images are shown as stored;
float images, which may be of any unit, from their smallest to their largest value.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from medexp.report.figure.watermark import watermark

DPI = 150
MAX_MAPS = 64  # of a layer, as an 8 x 8 grid
SLICES = 12  # of a volume, in two pairs of rows
_COLUMNS = 6
_CMAP = "inferno"

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.floating]


def overlay_panel(
    images: Array,
    maps: Floats,
    titles: Sequence[str],
    path: str | Path,
    marks: Sequence[str] = (),
    *,
    heading: str = "",
) -> Path:
    """A row an image: the image, its map, and the map over the image. Returns `path`.

    images: (n, H, W, C) uint8 or float; maps: (n, H, W) in [0, 1]; titles: one a row;
    heading: of the page.
    """
    rows = len(images)
    figure = _figure((7.0, 2.4 * rows + 0.8))
    grid = figure.subplots(rows, 3, squeeze=False)
    for line, image, heat, title in zip(grid, images, maps, titles, strict=True):
        shown = _displayed(image)
        _show(line[0], shown)
        line[1].imshow(heat, cmap=_CMAP, vmin=0, vmax=1)
        _show(line[2], _grey(shown))
        _lay_over(line[2], heat)
        for axes in line:
            axes.set_xticks([])
            axes.set_yticks([])
        line[0].set_title(title, fontsize=9.5, loc="left")
    for axes, name in zip(grid[-1], ("image", "map", "overlay"), strict=True):
        axes.set_xlabel(name, fontsize=11)
    _colour_bar(figure, grid.ravel().tolist(), shrink=min(1.0, 2 / rows))
    return _save(figure, path, marks, heading)


def feature_grid(maps: Floats, title: str, path: str | Path, marks: Sequence[str] = ()) -> Path:
    """The first 64 feature maps of a layer as a square grid, each from its least to its greatest.

    maps: (maps, h, w). A map that is the same everywhere is dark. Returns `path`.
    """
    shown = maps[:MAX_MAPS]
    side = math.ceil(math.sqrt(len(shown)))
    rows = math.ceil(len(shown) / side)
    tall = maps.shape[1] / maps.shape[2]
    figure = _figure((7.0, rows * tall * min(7.0 / side, 2.4) + 0.9))
    grid = figure.subplots(rows, side, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for axes, one in zip(grid.ravel(), shown, strict=False):
        axes.imshow(one, cmap="viridis", vmin=one.min(), vmax=max(one.max(), one.min() + 1e-12))
    part = f"{len(shown)} of {len(maps)} maps" if len(shown) < len(maps) else f"{len(maps)} maps"
    size = "x".join(map(str, maps.shape[1:]))
    return _save(figure, path, marks, f"{title}\n{part} of {size}")


def slice_montage(
    volume: Array, maps: Floats, title: str, path: str | Path, marks: Sequence[str] = ()
) -> Path:
    """Up to 12 slices from the first to the last, each above itself with its map laid over.

    volume: (D, H, W, C) uint8 or float; maps: (D, H, W) in [0, 1]. Returns `path`.
    """
    shown = _displayed(volume)
    chosen = np.linspace(0, len(volume) - 1, min(SLICES, len(volume))).round().astype(int)
    columns = min(_COLUMNS, len(chosen))
    pairs = math.ceil(len(chosen) / columns)
    tall = shown.shape[1] / shown.shape[2]
    figure = _figure((max(1.75 * columns + 0.8, 7.0), pairs * (3.5 * tall + 0.25) + 0.6))
    grid = figure.subplots(2 * pairs, columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for position, index in enumerate(chosen):
        pair, column = divmod(position, columns)
        plain, laid = grid[2 * pair][column], grid[2 * pair + 1][column]
        _show(plain, shown[index])
        plain.set_title(f"slice {index + 1} of {len(volume)}", fontsize=9)
        _show(laid, _grey(shown[index]))
        _lay_over(laid, maps[index])
    _colour_bar(figure, grid.ravel().tolist(), shrink=min(1.0, 1 / pairs))
    return _save(figure, path, marks, title)


def _figure(size: tuple[float, float]) -> Figure:
    """A figure with a canvas of its own instead of pyplot's global state, as in `plots`."""
    figure = Figure(figsize=size, layout="compressed")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: str | Path, marks: Sequence[str], title: str = "") -> Path:
    """Write the figure with its title and its marks: named above and laid across."""
    heading = "\n".join(part for part in (title, " · ".join(marks)) if part)
    if heading:
        figure.suptitle(heading, fontsize=11)
    # The maps are of the same warm colours.
    halo = [withStroke(linewidth=3, foreground="white", alpha=0.3)]
    watermark(figure, marks, path_effects=halo)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    return path


def _displayed(image: Array) -> Floats:
    """(..., H, W, C) as stored -> (..., H, W, 3) or (..., H, W, 1) float32 in [0, 1]."""
    shown: Floats = image.astype(np.float32)
    if image.dtype == np.uint8:
        shown = shown / 255
    else:
        low, high = shown.min(), shown.max()
        shown = (shown - low) / max(high - low, 1e-12)
    return shown if image.shape[-1] == 3 else shown[..., :1]


def _grey(shown: Floats) -> Floats:
    """(H, W, 3 or 1) -> (H, W, 1): under a coloured map only the lightness may speak."""
    grey: Floats = shown.mean(axis=-1, keepdims=True)
    return grey


def _show(axes: Axes, shown: Floats) -> None:
    image = shown[..., 0] if shown.shape[-1] == 1 else shown
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)


def _lay_over(axes: Axes, heat: Floats) -> None:
    """Opaque where the map is high: what is not looked at keeps the image's look."""
    axes.imshow(heat, cmap=_CMAP, vmin=0, vmax=1, alpha=0.75 * np.clip(heat, 0, 1) ** 0.5)


def _colour_bar(figure: Figure, axes: list[Axes], shrink: float) -> None:
    scale = ScalarMappable(norm=Normalize(0, 1), cmap=_CMAP)
    bar = figure.colorbar(scale, ax=axes, shrink=shrink, pad=0.02, aspect=30)
    bar.set_ticks([0, 0.5, 1])
    bar.ax.tick_params(labelsize=9)
