"""Synthetic H&E patches in PatchCamelyon's own files, for trials without the download.

Label as in PCam: 1 iff tumour tissue, here a pixel of a tumour-like nucleus, lies in the centre
32x32. Both classes hold equal numbers of the same nuclei, tumour-like ones included, on the same
tissue; only their places differ. So neither the mean colour nor "is there tumour somewhere" gives
the label away: a model has to learn the texture and the place.

The pixels are the same on every machine. Random numbers come from PCG64 through
`Generator.random()` alone, and arithmetic is restricted to what IEEE 754 rounds exactly (+ - * /
sqrt, floor, comparisons, integers, table look-ups), element by element. exp, sin, pow, normal
variates, library filters, sums and matrix products differ in the last bit between maths libraries,
vector widths and thread counts, so none is used: Beer-Lambert's exp(-d) is 1 / (1 + d/8)^8, and
directions are rational points of the circle.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from numpy.random import PCG64, Generator

from medexp.data.phantom import kit

SIDE = 96
CENTRE = slice(32, 64)
PER_SLIDE = 32  # patches of one slide; they share stain and illumination

BORDER = 16  # canvas around the patch, so that the patch's border cuts through nuclei
CANVAS = SIDE + 2 * BORDER
REACH = 1.2  # furthest point of an outline from the nucleus' centre, in long semi-axes
TRIES = 6  # places offered to a nucleus before it is left out
STAINS = np.array([[0.58, 0.74, 0.34], [0.16, 0.62, 0.30]])  # haematoxylin, eosin: OD of R, G, B


@dataclass(frozen=True)
class Kind:
    """A sort of nucleus; pairs are the ends of uniform distributions."""

    loose: int  # most a patch, besides those at sites
    long: tuple[float, float]  # semi-axis in pixels
    roundness: tuple[float, float]  # short semi-axis / long semi-axis
    density: tuple[float, float]  # of haematoxylin
    irregular: float  # lobes of the outline
    clumped: float  # relative swing of the density within
    vesicular: bool = False  # dark rim and nucleolus


# Sizes at 0.97 um a pixel as in PCam (lymphocyte 7-8 um, tumour 11-18 um). These numbers make the
# difficulty (benchmarks/phantom_difficulty.py): darker tumour or more loose lymphocytes, harder.
KINDS = {
    "tumour": Kind(0, (7.0, 9.5), (0.6, 0.95), (0.45, 0.8), 0.14, 0.5, vesicular=True),
    "spindle": Kind(5, (5.0, 8.0), (0.2, 0.35), (0.9, 1.3), 0.1, 0.2),
    "lymphocyte": Kind(28, (3.4, 4.4), (0.82, 1.0), (1.1, 1.55), 0.05, 0.2),
}
SITES = 10  # places that hold a tumour-like nucleus or three lymphocytes
INNER_SITES = 3  # of these, at or near the centre square; the others have no pixel in it
TUMOUR_COUNT = (3, 6)  # tumour-like nuclei a patch, from and below
TRIO_DISTANCE = (4.3, 5.6)  # of the three lymphocytes from their site's centre
THIRDS = ((1.0, 0.0), (-0.5, 0.8660254), (-0.5, -0.8660254))  # cosine, sine of 0, 120, 240
OUTER_EDGE = 6  # least distance of an outer site from the patch's border


class Nuclei(NamedTuple):
    """Places in patch pixels, semi-axes in pixels, and whether drawn: each (n, slots)."""

    x: np.ndarray
    y: np.ndarray
    long: np.ndarray
    short: np.ndarray
    shown: np.ndarray


@dataclass(frozen=True)
class Patches:
    """The patches of one slide.

    images: (n, 96, 96, 3) uint8. labels: (n,) uint8. tumour: (n, 96, 96) bool, the pixels of
    tumour-like nuclei.
    """

    images: np.ndarray
    labels: np.ndarray
    tumour: np.ndarray


def slide(seed: int, number: int) -> Patches:
    """The 32 patches of slide `number`, half of them positive; depends on these two alone."""
    rng = Generator(PCG64([seed, number]))
    first = rng.random(PER_SLIDE // 2) < 0.5
    # One positive in each successive pair: any even number of patches is balanced.
    labels = np.stack([first, ~first], axis=1).reshape(-1)
    eosin = _stroma(rng)
    haematoxylin = 0.12 * _noise(rng, 9)
    clumps = _noise(rng, 40)
    tumour = np.zeros(eosin.shape, dtype=bool)
    for name, nuclei in _place(rng, labels).items():
        mask = _stamp(rng, KINDS[name], nuclei, eosin, haematoxylin, clumps)
        if name == "tumour":
            tumour = mask
    patch = (slice(None), slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    images = _stain(rng, haematoxylin[patch], eosin[patch])
    return Patches(images, labels.astype(np.uint8), tumour[patch])


def write(folder: Path, *, size: int = 4096, seed: int = 0) -> None:
    """Write `size` training patches and max(size // 4, 64) each for validation and test.

    folder: an existing folder; gets PCam's six HDF5 files and three `_meta.csv`. No slide is in two
    files. Raises ConfigError for a size below 2 or a negative seed.
    """
    kit.check(size, seed, least=2)
    first, held_out = 0, max(size // 4, 64)
    for part, count in (("train", size), ("valid", held_out), ("test", held_out)):
        stem = folder / f"camelyonpatch_level_2_split_{part}"
        numbers = range(first, first + -(-count // PER_SLIDE))
        first = numbers.stop
        labels, rows = np.empty(count, np.uint8), []
        with h5py.File(f"{stem}_x.h5", "w") as file:
            shape = (SIDE, SIDE, 3)
            x = file.create_dataset(
                "x", (count, *shape), "u1", chunks=(1, *shape), compression="gzip",
                compression_opts=1,
            )  # fmt: skip
            start = 0
            for number, made in zip(numbers, _slides(seed, numbers), strict=True):
                n = min(PER_SLIDE, count - start)
                x[start : start + n] = made.images[:n]
                labels[start : start + n] = made.labels[:n]
                wsi, seen = f"phantom_tumor_{number:03d}", [part.any() for part in made.tumour]
                rows += [[0, i * SIDE, seen[i], bool(made.labels[i]), wsi] for i in range(n)]
                start += n
        with h5py.File(f"{stem}_y.h5", "w") as file:
            file["y"] = labels[:, None, None, None]
        columns = ("coord_y", "coord_x", "tumor_patch", "center_tumor_patch", "wsi")
        kit.write_csv(Path(f"{stem}_meta.csv"), columns, rows)


def write_kaggle(folder: Path, *, size: int = 4096, seed: int = 0) -> None:
    """Write `size` patches in all as Kaggle's `train/<id>.tif` and `train_labels.csv`.

    Raises ConfigError for a size below 2 or a negative seed.
    """
    kit.check(size, seed, least=2)
    (folder / "train").mkdir()
    patches = (
        patch
        for made in _slides(seed, range(-(-size // PER_SLIDE)))
        for patch in zip(made.images, made.labels, strict=True)
    )
    rows = []
    for number, (image, label) in zip(range(size), patches, strict=False):
        rows.append((f"phantom_{number:06d}", label))
        kit.save(folder / "train" / f"phantom_{number:06d}.tif", image)
    kit.write_csv(folder / "train_labels.csv", ("id", "label"), rows)


def _slides(seed: int, numbers: Iterable[int]) -> Iterator[Patches]:
    return kit.side_by_side(partial(slide, seed), numbers)


def _between(rng: Generator, low: float, high: float, *shape: int) -> np.ndarray:
    values = rng.random((PER_SLIDE, *shape), dtype=np.float32)
    values *= np.float32(high - low)
    values += np.float32(low)
    return values


def _direction(rng: Generator, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of angles over half a turn, which is all that an ellipse or fibre needs."""
    t = _between(rng, -1, 1, *shape)
    return (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)


def _noise(rng: Generator, cells: int) -> np.ndarray:
    """Smooth noise over the canvas with `cells` bumps a side: (n, CANVAS, CANVAS) in 0..1."""
    lattice = _between(rng, 0, 1, cells + 2, cells + 2)
    at = np.arange(CANVAS, dtype=np.float32) * np.float32(cells / CANVAS)
    cell = np.floor(at).astype(np.intp)
    f = kit.ease(at - np.floor(at))
    rows = lattice.take(cell, 1) * (1 - f)[:, None] + lattice.take(cell + 1, 1) * f[:, None]
    noise: np.ndarray = rows.take(cell, 2) * (1 - f) + rows.take(cell + 1, 2) * f
    return noise


def _stroma(rng: Generator) -> np.ndarray:
    """Eosin over the canvas: clouds, fibres along one direction, and empty clefts."""
    clouds = _noise(rng, 5)
    fine = _noise(rng, 26)
    y, x = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.float32)
    cos, sin = _direction(rng, 1, 1)
    phase = (x * cos + y * sin) * _between(rng, 0.08, 0.2, 1, 1) + 3 * clouds
    wave = 2 * np.abs(phase - np.floor(phase) - np.float32(0.5))
    fibres = _between(rng, 0.0, 0.45, 1, 1) * wave * wave
    level = _between(rng, 0.25, 0.7, 1, 1)
    eosin: np.ndarray = level * (0.5 + 0.6 * clouds + 0.4 * fine + fibres)
    # Clefts open where another noise falls below a threshold that many patches never reach.
    cleft = (0.7 * _noise(rng, 8) + 0.3 * _noise(rng, 17) - _between(rng, 0.05, 0.42, 1, 1)) * 8
    eosin *= np.minimum(np.maximum(cleft, np.float32(0.08)), 1)
    return eosin


def _place(rng: Generator, labels: np.ndarray) -> dict[str, Nuclei]:
    """Lay out the nuclei of one slide; what the sites hold is all that depends on the labels.

    A site holds one tumour-like nucleus or three lymphocytes of about the same colour in sum.
    Positives have tumour at a site in the centre and at some of all the others; negatives have as
    many tumour sites, but only outer ones, which have no pixel in the centre.
    """
    kind = KINDS["tumour"]
    none = np.empty((PER_SLIDE, 0), np.float32)
    placed = Nuclei(none, none, none, none, none > 0)
    for slot in range(SITES):
        long = _between(rng, *kind.long)
        short = long * _between(rng, *kind.roundness)
        placed = _add(placed, _site(rng, long, slot), long, short)
    sites = placed

    turn = _between(rng, 0, 1, SITES)
    turn[:, 0] = -1  # the first site lies in the centre: a positive always has tumour there
    inner = np.arange(SITES) < INNER_SITES
    turn[~sites.shown | (inner & ~labels[:, None])] = 2
    count = np.floor(_between(rng, *TUMOUR_COUNT, 1)).astype(np.intp)
    last = np.take_along_axis(np.sort(turn, axis=1), count - 1, axis=1)
    tumour = turn <= np.minimum(last, 1)

    kind = KINDS["lymphocyte"]
    cos, sin = _direction(rng, SITES)
    trio = []
    for turn_cos, turn_sin in THIRDS:
        distance = _between(rng, *TRIO_DISTANCE, SITES)
        x = sites.x + distance * (cos * turn_cos - sin * turn_sin)
        y = sites.y + distance * (sin * turn_cos + cos * turn_sin)
        long = _between(rng, *kind.long, SITES)
        short = long * _between(rng, *kind.roundness, SITES)
        trio.append(Nuclei(x, y, long, short, sites.shown & ~tumour))

    loose = {}
    for name in ("spindle", "lymphocyte"):
        kind = KINDS[name]
        start = placed.x.shape[1]
        wanted = np.floor(_between(rng, 0, kind.loose + 1))
        for slot in range(kind.loose):
            long = _between(rng, *kind.long)
            short = long * _between(rng, *kind.roundness)
            anywhere = _between(rng, -5, SIDE + 5, 2, TRIES)
            placed = _add(placed, anywhere, long, short, slot < wanted)
        loose[name] = _pick(placed, slice(start, None))
    # Drawn in this order: tumour last, so that nothing hides what the label says is there.
    return {
        "lymphocyte": _join(*trio, loose["lymphocyte"]),
        "spindle": loose["spindle"],
        "tumour": sites._replace(shown=tumour),
    }


def _add(
    nuclei: Nuclei,
    places: np.ndarray,
    long: np.ndarray,
    short: np.ndarray,
    wanted: np.ndarray | bool = True,
) -> Nuclei:
    """Add one nucleus a patch at the first of its `places` (n, 2, TRIES) clear of all others."""
    x, y = places[:, 0], places[:, 1]
    dx, dy = x[..., None] - nuclei.x[:, None], y[..., None] - nuclei.y[:, None]
    reach = ((nuclei.long + nuclei.short)[:, None] + (long + short)[:, None, None]) / 2
    clear = (np.sqrt(dx * dx + dy * dy) > reach) | ~nuclei.shown[:, None]
    free = clear.all(axis=-1)
    patch, chosen = np.arange(len(x)), free.argmax(axis=1)
    shown = free.any(axis=1) & wanted
    added = (x[patch, chosen], y[patch, chosen], long, short, shown)
    return _join(nuclei, Nuclei(*(part[:, None] for part in added)))


def _site(rng: Generator, long: np.ndarray, slot: int) -> np.ndarray:
    """Places offered to a site: (n, 2, TRIES), the first site inside the centre square."""
    u, v, turn = np.moveaxis(_between(rng, 0, 1, 3, TRIES), 1, 0)
    if slot < INNER_SITES:
        edge = CENTRE.start + 1 if slot == 0 else CENTRE.start - 4
        span = SIDE - 1 - 2 * edge
        return np.stack([edge + span * u, edge + span * v], axis=1)
    # The ring around the square is four equal bars, each the first one turned by 90 degrees.
    width = CENTRE.start - 1 - REACH * long[:, None] - OUTER_EDGE
    a = OUTER_EDGE + width * u
    b = OUTER_EDGE + (SIDE - 1 - 2 * OUTER_EDGE - width) * v
    quarter = np.floor(4 * turn).astype(np.intp)
    x = np.choose(quarter, [a, SIDE - 1 - b, SIDE - 1 - a, b])
    y = np.choose(quarter, [b, a, SIDE - 1 - b, SIDE - 1 - a])
    return np.stack([x, y], axis=1)


def _pick(nuclei: Nuclei, slots: slice) -> Nuclei:
    return Nuclei(*(part[:, slots] for part in nuclei))


def _join(*several: Nuclei) -> Nuclei:
    return Nuclei(*(np.concatenate(parts, axis=1) for parts in zip(*several, strict=True)))


def _stamp(
    rng: Generator,
    kind: Kind,
    nuclei: Nuclei,
    eosin: np.ndarray,
    haematoxylin: np.ndarray,
    clumps: np.ndarray,
) -> np.ndarray:
    """Draw one kind of nuclei into both stains (in place); returns their pixels as a mask."""
    slots = nuclei.x.shape[1]
    half = int(REACH * kind.long[1]) + 1
    offset = np.arange(-half, half + 1)
    column, row = np.floor(nuclei.x), np.floor(nuclei.y)
    corner = (
        np.arange(PER_SLIDE)[:, None] * CANVAS + row.astype(np.intp) + BORDER
    ) * CANVAS + column.astype(np.intp) + BORDER  # fmt: skip
    window = offset[:, None] * CANVAS + offset
    at = corner[:, :, None, None] + window  # (n, slots, w, w) flat canvas pixels

    def each(values: np.ndarray) -> np.ndarray:
        return values[:, :, None, None]

    dx = offset.astype(np.float32) - each(nuclei.x - column)
    dy = offset.astype(np.float32)[:, None] - each(nuclei.y - row)
    cos, sin = _direction(rng, slots, 1, 1)
    along, across = kit.turned(dx, dy, cos, sin)
    p, q = along / each(nuclei.long), across / each(nuclei.short)
    square = p * p + q * q
    # Third harmonics of the outline make it lobed rather than elliptic.
    lobes = _between(rng, -kind.irregular, kind.irregular, 2, slots, 1, 1)
    level = square + lobes[:, 0] * p * (p * p - 3 * q * q) + lobes[:, 1] * q * (3 * p * p - q * q)
    softness = each(nuclei.short) / 2
    cover = np.minimum(np.maximum((1 - level) * softness, 0), 1)
    cover = cover * (square < REACH * REACH) * each(nuclei.shown)

    density = _between(rng, *kind.density, slots, 1, 1)
    dye = density * (1 + kind.clumped * (2 * clumps.reshape(-1)[at] - 1))
    if kind.vesicular:
        rim = np.maximum(level - np.float32(0.6), 0) * 2
        spot = _between(rng, -0.35, 0.35, 2, slots, 1, 1)
        p, q = p - spot[:, 0], q - spot[:, 1]
        nucleolus = np.maximum(1 - (p * p + q * q) * 16, 0)
        dye = dye + 0.7 * np.minimum(rim, 1) + 1.2 * nucleolus
    mask = np.zeros(eosin.shape, dtype=bool)
    # Slot by slot: within one slot no two windows share a pixel of the same patch.
    for slot in range(slots):
        pixels, c = at[:, slot], cover[:, slot]
        haematoxylin.reshape(-1)[pixels] = (
            haematoxylin.reshape(-1)[pixels] * (1 - c) + dye[:, slot] * c
        )
        eosin.reshape(-1)[pixels] *= 1 - np.float32(0.6) * c
        mask.reshape(-1)[pixels] |= c > 0
    return mask


def _stain(rng: Generator, haematoxylin: np.ndarray, eosin: np.ndarray) -> np.ndarray:
    """Light through two dyes: optical densities to (n, 96, 96, 3) uint8."""
    dyes = STAINS * (0.8 + 0.4 * rng.random((2, 3))) * (0.8 + 0.5 * rng.random((2, 1)))
    light = 236 + 14 * rng.random(3)
    strength = _between(rng, 0.92, 1.08, 2, 1, 1)
    haematoxylin, eosin = haematoxylin * strength[:, 0], eosin * strength[:, 1]
    images = np.empty((*eosin.shape, 3), np.uint8)
    for channel in range(3):
        density = haematoxylin * np.float32(dyes[0, channel]) + eosin * np.float32(dyes[1, channel])
        base = 1 + density * np.float32(0.125)
        base = base * base
        base = base * base
        base = base * base
        grain = _between(rng, -5, 5, SIDE, SIDE)
        value = np.float32(light[channel]) / base + grain
        images[..., channel] = np.minimum(np.maximum(value + np.float32(0.5), 0), 255)
    return images
