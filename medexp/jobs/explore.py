"""`medexp data explore`: figures of a data set before any training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from medexp.config.settings import DatasetNode, Settings
from medexp.data import Dataset, Pool
from medexp.data.describe import distinct_parts, per_class
from medexp.data.draw import stratified_subset
from medexp.data.load import load_pool
from medexp.data.progress import bar
from medexp.data.segment import panels
from medexp.errors import ConfigError
from medexp.jobs.samples import artist, class_samples, spread
from medexp.report.figure import explore
from medexp.report.figure.segmentation import four_panels


@dataclass(frozen=True)
class Exploration:
    """images: projected at most; seed: of that choice, PCA and t-SNE; samples: of each class.

    side: pixels a side that are projected, 0: all that are stored; components: principal ones that
    t-SNE works on. Raises ConfigError, which names the option, for a number that is too small.
    """

    images: int = 2000
    seed: int = 0
    perplexity: float = 30.0
    samples: int = 8
    side: int = explore.SIDE
    components: int = explore.COMPONENTS

    def __post_init__(self) -> None:
        least_of = {
            "images": 4,
            "seed": 0,
            "perplexity": 1,
            "samples": 1,
            "side": 0,
            "components": 2,
        }
        for key, least in least_of.items():
            if not getattr(self, key) >= least:  # nan, too, is not
                raise ConfigError(f"--{key} {getattr(self, key)}: must be {least} or more")


def explore_data(
    settings: Settings, data: Dataset, options: Exploration, folder: Path
) -> list[Path]:
    """Draw all figures of the data set of these settings; returns their paths."""
    marks = ("PHANTOM",) if settings.source.kind == "phantom" else ()
    written = [
        *draw_counts_and_samples(data, options, folder, marks),
        *draw_projections(data, options, folder, marks),
    ]
    if segmentation := draw_segmentation(settings, data, folder, marks):
        written.append(segmentation)
    return written


def draw_counts_and_samples(
    data: Dataset, options: Exploration, folder: Path, marks: Sequence[str]
) -> list[Path]:
    """classes.png and samples.png. Where validation is the test split, it is shown once."""
    counts = {
        part: per_class(data.classes, data.splits()[part].labels)
        for part in distinct_parts(data.val.ids, data.test.ids)
    }
    samples = class_samples(data, artist(data, display_range(data)), options.samples)
    pixels = {name: [picture.pixels for picture in row] for name, row in samples.items()}
    classes = explore.classes_figure(counts, f"{data.name}: classes per split", marks)
    images = explore.samples_figure(pixels, f"{data.name}: training images", marks)
    return [
        explore.save(classes, folder / "classes.png"),
        explore.save(images, folder / "samples.png"),
    ]


def draw_projections(
    data: Dataset, options: Exploration, folder: Path, marks: Sequence[str]
) -> list[Path]:
    """pca.png and tsne.png, of the same images."""
    rows, labels, total = projected_images(data, options)
    what = f"{len(labels):,} of {total:,} images"
    pixels = f"{options.side}x{options.side} pixels" if options.side else "all stored pixels"

    def scatter(points: explore.Floats, method: str, axes: tuple[str, str], file: str) -> Path:
        title = f"{data.name}: {method}, {what}"
        figure = explore.scatter_figure(points, labels, data.classes, title, axes, marks)
        return explore.save(figure, folder / file)

    pca = explore.principal_components(rows, options.seed, options.components)
    first, second = pca.shares[:2]
    axes = (f"component 1 ({first:.1%} of the variance)", f"component 2 ({second:.1%})")
    written = [scatter(pca.points, f"PCA of {pixels}", axes, "pca.png")]
    with Console(stderr=True).status(f"t-SNE of {len(labels):,} images"):
        points = explore.neighbours(pca.kept, options.perplexity, options.seed)
    of = f"t-SNE of {pca.kept.shape[1]} principal components of {pixels}"
    return [*written, scatter(points, of, ("t-SNE 1", "t-SNE 2"), "tsne.png")]


def projected_images(data: Dataset, options: Exploration) -> tuple[np.ndarray, np.ndarray, int]:
    """(n, features) float32 and (n,) labels of a subset stratified by class, read one by one.

    The third is how many images the splits have in all.
    """
    splits = [data.splits()[part] for part in distinct_parts(data.val.ids, data.test.ids)]
    places = [(split, row) for split in splits for row in range(len(split))]
    labels = np.concatenate([split.labels for split in splits])
    count = min(options.images, len(labels))
    chosen = stratified_subset(labels, count, options.seed, name="--images")
    shown = display_range(data)
    rows = []
    with bar(f"reading {data.name}", len(chosen)) as advance:
        for split, row in (places[i] for i in chosen.tolist()):
            rows.append(explore.features(split.images[row], *shown, options.side))
            advance(1)
    return np.stack(rows), labels[chosen], len(labels)


def display_range(data: Dataset) -> tuple[float, float]:
    """What is shown black and white: of float images, the middle 99 % of some training images."""
    if data.train.images.dtype == np.uint8:
        return 0.0, 255.0
    some = np.linspace(0, len(data.train) - 1, min(64, len(data.train))).astype(int)
    values = [data.train.images[row].ravel()[::7].astype(np.float32) for row in some.tolist()]
    low, high = np.percentile(np.concatenate(values), [0.5, 99.5]).tolist()
    return low, high


def draw_segmentation(
    settings: Settings, data: Dataset, folder: Path, marks: Sequence[str]
) -> Path | None:
    """The steps of dataset.segment=slic_knn for two training images of each class.

    None where the reader has no such option, or lacks the colours that it goes by.
    """
    node: Mapping[str, object] = settings.dataset
    if "segment" not in node:
        return None
    try:
        segmented, plain = (
            load_pool(replace(settings, dataset=DatasetNode({**node, "segment": kind})))
            for kind in ("slic_knn", "none")
        )
    except ConfigError:
        return None
    if not isinstance(segmented, Pool) or not isinstance(plain, Pool) or plain.decode is None:
        return None
    how = {key: value for key, value in segmented.settings["segment"].items() if key != "kind"}
    colours = how.pop("colours")
    steps, titles = [], []
    for label, name in enumerate(data.classes):
        for row in spread(data.train.labels, label, 2):
            key = str(data.train.ids[row])
            image, _ = plain.decode(int(np.flatnonzero(plain.ids == key)[0]))
            steps.append(panels(image, colours, **how))
            titles.append(f"{name}: {key}")
    heading = f"{data.name}: segmentation by superpixels and colour"
    return four_panels(steps, titles, folder / "segmentation.png", marks, heading=heading)
