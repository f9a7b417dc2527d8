"""Figures of a data set before any training: PCA, t-SNE, classes per split, samples.

As Figures 3 and 4 of Nguyen, Leavitt and Laloudakis (CS231N, 2017), but that theirs are of "the raw
images values" and of three (section 4) or four (Figure 4) components: a side of 0 and so many
components. Plain arrays in, PNG files out, without torch. Classes differ in colour (Okabe and Ito
2008) and in the shape of their points.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from medexp.data.near import slices, to_bytes
from medexp.data.pixels import resize
from medexp.report.figure.plots import COLOURS, SHAPES
from medexp.report.figure.watermark import watermark

DPI = 200
SIDE = 32  # pixels of the images that are projected, unless another is asked for
COMPONENTS = 50  # principal components that t-SNE works on, likewise
HALO = [withStroke(linewidth=3, foreground="white", alpha=0.3)]
NAMES = {"train": "training", "val": "validation", "test": "test"}

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Bytes = npt.NDArray[np.uint8]


class Projected(NamedTuple):
    """points: (n, 2), the first two components; kept: (n, components), what t-SNE gets; shares:
    of the variance, one a component."""

    points: Floats
    kept: Floats
    shares: Floats


# ---------------------------------------------------------------- the projections


def features(image: npt.NDArray[np.generic], low: float, high: float, side: int = SIDE) -> Floats:
    """A stored image as one row of numbers in [0, 1]: side x side pixels of each channel.

    side 0: all its pixels. Of a volume three slices, at a quarter, half and three quarters of its
    depth. low, high: what counts as 0 and 1 in images of float.
    """
    planes = [image[i] for i in slices(len(image))] if image.ndim == 4 else [image]
    shown = [plane if plane.dtype == np.uint8 else to_bytes(plane, low, high) for plane in planes]
    small = [(resize(plane, side, side) if side else plane).ravel() for plane in shown]
    return np.concatenate(small).astype(np.float32) / 255


def principal_components(rows: Floats, seed: int, components: int = COMPONENTS) -> Projected:
    """PCA of (n, features) rows by scikit-learn; components: at most so many, 2 or more."""
    from sklearn.decomposition import PCA

    count = min(components, *rows.shape)
    pca = PCA(count, svd_solver="randomized", random_state=seed)
    with np.errstate(invalid="ignore"):  # images that are all the same have no variance to share
        kept = np.asarray(pca.fit_transform(rows), np.float32)
    shares = np.nan_to_num(pca.explained_variance_ratio_)
    if count == 1:  # two images, or a single feature
        kept, shares = np.pad(kept, ((0, 0), (0, 1))), np.append(shares, 0.0)
    return Projected(kept[:, :2], kept, shares)


def neighbours(kept: Floats, perplexity: float, seed: int) -> Floats:
    """t-SNE of (n, components) rows by scikit-learn, started from the principal components.

    A perplexity that so few images cannot have is lowered to a third of them.
    """
    from sklearn.manifold import TSNE

    most = max((len(kept) - 1) / 3, 1.0)
    tsne = TSNE(2, perplexity=min(perplexity, most), init="pca", random_state=seed)
    return np.asarray(tsne.fit_transform(kept))


# ---------------------------------------------------------------- the figures


def scatter_figure(
    points: Floats,
    labels: Ints,
    classes: Sequence[str],
    title: str,
    axes_names: tuple[str, str],
    marks: Sequence[str] = (),
) -> Figure:
    """Points (n, 2) by class. They are drawn in a shuffled order: no class lies on top of all."""
    figure, axes = _figure(title, marks, (7.0, 6.2))
    axes.grid(visible=False)
    size = float(np.clip(20000 / max(len(points), 1), 12, 60))
    for label, name in enumerate(classes):
        axes.scatter(
            [], [], s=45, label=f"{name} ({int((labels == label).sum()):,})", **_look(label)
        )
    order = np.random.default_rng(0).permutation(len(points))
    # A scatter has one shape: points go in as many small lots as keep the classes mixed.
    for lot in np.array_split(order, min(20, max(len(order), 1))):
        for label in range(len(classes)):
            own = lot[labels[lot] == label]
            axes.scatter(points[own, 0], points[own, 1], s=size, **_look(label))
    axes.set_xlabel(axes_names[0], fontsize=12)
    axes.set_ylabel(axes_names[1], fontsize=12)
    axes.legend(fontsize=10, framealpha=0.9, loc="best")
    return figure


def classes_figure(
    counts: Mapping[str, Mapping[str, int]], title: str, marks: Sequence[str] = ()
) -> Figure:
    """A group of bars a split, a bar a class with count and share. counts: split -> class -> n."""
    names = list(next(iter(counts.values())))
    figure, axes = _figure(title, marks, (max(7.0, 1.2 + 0.75 * len(names) * len(counts)), 4.8))
    axes.grid(visible=False, axis="x")
    width = 0.8 / len(names)
    for label, name in enumerate(names):
        heights = [split[name] for split in counts.values()]
        places = np.arange(len(counts)) + (label - (len(names) - 1) / 2) * width
        axes.bar(places, heights, 0.92 * width, color=COLOURS[label % 8], hatch=_hatch(label),
                 edgecolor="white", linewidth=0.5, label=name)  # fmt: skip
        for place, height, split in zip(places, heights, counts.values(), strict=True):
            share = height / max(sum(split.values()), 1)
            axes.annotate(
                f"{height:,}\n{share:.0%}",
                (float(place), height),
                (0, 3),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=9 if len(names) <= 4 else 7,
            )
    axes.margins(y=0.18)
    axes.set_xticks(range(len(counts)), [NAMES[part] for part in counts], fontsize=12)
    axes.set_ylabel("images", fontsize=12)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=10, framealpha=0.9)
    return figure


def samples_figure(
    samples: Mapping[str, Sequence[Bytes]], title: str, marks: Sequence[str] = ()
) -> Figure:
    """A row a class of images (H, W, 3 or 1) uint8, all of one size."""
    columns = max(len(pictures) for pictures in samples.values())
    first = next(picture for pictures in samples.values() for picture in pictures)
    tall = first.shape[0] / first.shape[1]
    cell = min(1.6, 12 / columns)
    figure = Figure(
        figsize=(max(columns * cell, 5.0), len(samples) * (cell * tall + 0.3) + 0.9),
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    figure.suptitle("\n".join([title, *_line(marks)]), fontsize=13)
    grid = figure.subplots(len(samples), columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for line, (name, pictures) in zip(grid, samples.items(), strict=True):
        line[0].set_title(name, fontsize=11, loc="left")
        for axes, picture in zip(line, pictures, strict=False):
            shown = picture[..., 0] if picture.shape[-1] == 1 else picture
            axes.imshow(shown, cmap="gray", vmin=0, vmax=255)
    watermark(figure, marks, path_effects=HALO)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG of 200 dpi; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    return path


def _figure(title: str, marks: Sequence[str], size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title("\n".join([title, *_line(marks)]), fontsize=13)
    axes.tick_params(labelsize=10)
    axes.grid(visible=True, color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    watermark(figure, marks, path_effects=HALO)
    return figure, axes


def _line(marks: Sequence[str]) -> list[str]:
    return [" · ".join(marks)] if marks else []


def _look(label: int) -> dict[str, Any]:
    return {
        "color": COLOURS[label % 8],
        "marker": SHAPES[label % 8],
        "alpha": 0.75,
        "edgecolors": "white",
        "linewidths": 0.4,
    }


def _hatch(label: int) -> str | None:
    return (None, "///", "...", "xxx", "\\\\\\", "+++", "ooo", "---")[label % 8]
