"""Synthetic colposcope photographs in the folders of Kaggle's cervix type set.

The label is where the transformation zone lies (Nguyen et al., section 2). Type 1: a red granular
ring right round the os. Type 2: only part of that ring shows, the rest lies in the canal. Type 3:
none of it shows. Every photograph has as much of that red tissue as any other: what is not at the
os lies elsewhere on the cervix as erosions of the same colour and grain. So the amount of red says
nothing, and a model has to see what surrounds the os. Light, hue, pose, speculum and glare are
drawn regardless of the type.

Photographs have various sizes, some upright, some turned by their EXIF tag; they are drawn small
and enlarged. `references/` holds further photographs with masks of the cervix, as
medexp/data/segment.py wants them; `additional_Type_*_v2/` holds a few blurred ones.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

from medexp.data.phantom import kit

PUBLIC = (250, 781, 450)  # photographs of Type 1, 2, 3
LEAST = 4  # photographs of a type
REFERENCES = 10  # as many as the paper's authors segmented by hand
ADDITIONAL = 6
SIDES = ((500, 700), (600, 800), (720, 1280), (1000, 1400))  # shorter, longer; of a photograph
PORTRAIT = 0.2  # share
ORIENTATIONS = (1, 1, 1, 1, 3, 6, 8)  # values of the EXIF tag, equally likely
ORIENTATION_TAG = 0x0112
# np.rot90 by so many quarters stores an upright photograph as a camera held so would.
QUARTERS = {1: 0, 3: 2, 6: 1, 8: 3}
CANVAS = 200  # shorter side of what is drawn before it is enlarged
GRAIN = 9  # grey values, either way

# Mean colours, sRGB.
WALL = (152, 74, 70)
CERVIX = (216, 144, 136)
RED = (172, 50, 48)  # columnar epithelium: the zone, and erosions
OS = (70, 20, 24)
PALE = (238, 205, 196)  # rim of the red tissue
MUCUS = (222, 212, 196)
METAL = (150, 152, 158)
PLASTIC = (186, 204, 206)

# Lengths in radii of the cervix.
ZONE = (0.36, 0.46)  # outer radius of the ring
LIPS = 0.1  # its inner radius
ARC = (0.3, 0.5)  # part of the ring that shows in Type 2
GAP = 0.08  # between the ring and erosions, at least


class Photograph(NamedTuple):
    """pixels: (H, W, 3) uint8 RGB; cervix: (H, W) bool, where it is seen; both upright.

    orientation: the EXIF value with which it is stored.
    """

    pixels: np.ndarray
    cervix: np.ndarray
    orientation: int


class Frame(NamedTuple):
    """Where each pixel of the canvas lies.

    x, y: from the middle, in halves of the shorter side. rho: from the middle of the cervix, 1 at
    its edge. away, angle: polar coordinates round the os, `away` in radii of the cervix. All (h, w)
    float32.
    """

    x: np.ndarray
    y: np.ndarray
    rho: np.ndarray
    away: np.ndarray
    angle: np.ndarray


def write(folder: Path, *, size: int = 400, seed: int = 0) -> None:
    """Write `size` photographs into Type_1, Type_2 and Type_3 in the public set's proportions.

    folder: an existing folder; also gets references/ (10 photographs and masks) and
    additional_Type_*_v2/Type_*/ (6 photographs). At least four photographs of each type.
    Raises ConfigError for a size below 16 or a negative seed.
    """
    kit.check(size, seed)
    types = kinds(size, seed)
    extra = [1 + i % 3 for i in range(REFERENCES)] + [1 + i % 3 for i in range(ADDITIONAL)]
    for kind in (1, 2, 3):
        (folder / f"Type_{kind}").mkdir()
        (folder / f"additional_Type_{kind}_v2" / f"Type_{kind}").mkdir(parents=True)
    (folder / "references").mkdir()

    def write_photograph(number: int) -> None:
        kind, i = [*types, *extra][number], number - size
        made = draw(seed, number, kind)
        if i < 0:
            save(made, folder / f"Type_{kind}" / f"{number}.jpg")
        elif i < REFERENCES:
            save(made, folder / "references" / f"reference_{i}.jpg")
            mask = np.uint8(255) * made.cervix
            kit.save(folder / "references" / f"reference_{i}_mask.png", mask)
        else:
            blurred = made._replace(pixels=cv2.GaussianBlur(made.pixels, (0, 0), 8))
            place = folder / f"additional_Type_{kind}_v2" / f"Type_{kind}"
            save(blurred, place / f"{i - REFERENCES}.jpg")

    kit.write_each(write_photograph, range(size + len(extra)))


def kinds(size: int, seed: int) -> list[int]:
    """The types, 1 to 3, of `size` photographs, shuffled."""
    each = np.repeat([1, 2, 3], kit.shares(size, PUBLIC, LEAST))
    return [int(kind) for kind in np.random.default_rng([seed, size]).permutation(each)]


def save(made: Photograph, path: Path) -> None:
    """As JPEG, turned as its EXIF tag says."""
    # Imported here: Pillow slows the start of every command.
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(np.rot90(made.pixels, QUARTERS[made.orientation])))
    exif = Image.Exif()
    if made.orientation != 1:
        exif[ORIENTATION_TAG] = made.orientation
    image.save(path, quality=90, exif=exif)


def draw(seed: int, number: int, kind: int) -> Photograph:
    """Photograph `number` of type `kind` (1, 2, 3); depends on these three alone."""
    rng = np.random.default_rng([seed, number])
    short, long = SIDES[rng.integers(len(SIDES))]
    height, width = (long, short) if rng.random() < PORTRAIT else (short, long)
    orientation = ORIENTATIONS[rng.integers(len(ORIENTATIONS))]
    small, cover = scene(rng, round(CANVAS * height / short), round(CANVAS * width / short), kind)
    pixels = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    grain = rng.integers(-GRAIN, GRAIN, pixels.shape, dtype=np.int8, endpoint=True)
    pixels = np.asarray(cv2.add(np.asarray(pixels), np.asarray(grain), dtype=cv2.CV_8U))
    seen = cv2.resize(cover, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    return Photograph(pixels, seen, orientation)


def scene(rng: Generator, height: int, width: int, kind: int) -> tuple[np.ndarray, np.ndarray]:
    """What the camera sees, (height, width, 3) uint8, and how far each pixel is cervix, 0..1."""
    frame = placed(rng, height, width)
    canvas = wall(rng, frame)
    cover = step(1 - frame.rho, 0.04)
    kit.lay(canvas, cover, cervix(rng, frame))
    red_tissue(rng, frame, canvas, kind)
    os_and_mucus(rng, frame, canvas)
    cover *= 1 - speculum(rng, frame, canvas)
    light(rng, frame, canvas)
    glare(rng, frame, canvas)
    return np.asarray(np.clip(np.rint(canvas), 0, 255), np.uint8), cover


# ---------------------------------------------------------------- the scene


def noise(rng: Generator, shape: tuple[int, int], cells: int) -> np.ndarray:
    """(h, w) float32, smooth, mostly within -1..1, with `cells` bumps along the shorter side."""
    rows, columns = (1 + side * cells // min(shape) for side in shape)
    lattice = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
    return np.asarray(cv2.resize(lattice, shape[::-1], interpolation=cv2.INTER_CUBIC))


def step(level: np.ndarray, softness: float) -> np.ndarray:
    """0 below -softness/2, 1 above softness/2, smooth between."""
    return kit.ease(kit.ramp(level, softness))


def placed(rng: Generator, height: int, width: int) -> Frame:
    """The pose: where the cervix lies, how large and how round it is, and where its os."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = (x - width / 2) / (CANVAS / 2), (y - height / 2) / (CANVAS / 2)
    radius = rng.uniform(0.55, 0.95)
    dx, dy = x - rng.uniform(-0.25, 0.25), y - rng.uniform(-0.25, 0.25)
    turn = rng.uniform(0, np.pi)
    long = rng.uniform(1, 1.1)
    u, v = kit.turned_by(dx, dy, turn)
    u, v = u / radius / long, v / radius * long
    rho = np.hypot(u, v) * (1 + 0.05 * noise(rng, x.shape, 4))
    u, v = u - rng.uniform(-0.12, 0.12), v - rng.uniform(-0.12, 0.12)
    away = np.hypot(u, v)
    return Frame(x, y, rho, away, np.arctan2(v, u) + turn)


def wall(rng: Generator, frame: Frame) -> np.ndarray:
    """Folds of the vagina round the cervix, in shadow where they meet it."""
    shape = frame.x.shape
    ripple = np.sin(rng.uniform(9, 14) * frame.rho + 4 * noise(rng, shape, 3))
    shade = 1 + 0.1 * ripple + 0.12 * noise(rng, shape, 5) + 0.05 * noise(rng, shape, 30)
    shade *= 1 - 0.5 * np.exp(-(((frame.rho - 1) / 0.14) ** 2))
    hue = rng.uniform(0.92, 1.08, 3)
    return np.asarray(shade[..., None] * (WALL * hue), np.float32)


def cervix(rng: Generator, frame: Frame) -> np.ndarray:
    """A pink dome, lit from one side, with fine vessels."""
    shape = frame.x.shape
    slope = rng.uniform(-0.1, 0.1, 2)
    shade = 1.06 - 0.2 * frame.rho**2 + slope[0] * frame.x + slope[1] * frame.y
    shade += 0.05 * noise(rng, shape, 6) + 0.03 * noise(rng, shape, 40)
    pink = CERVIX * rng.uniform(0.94, 1.06, 3)
    vessels = rng.uniform(0, 0.25) * np.exp(-((noise(rng, shape, 14) / 0.06) ** 2))
    image: np.ndarray = (shade[..., None] * pink).astype(np.float32)
    kit.lay(image, vessels.astype(np.float32), RED)
    return image


def red_tissue(rng: Generator, frame: Frame, canvas: np.ndarray, kind: int) -> None:
    """The transformation zone as far as it is seen; erosions make up for what is not."""
    shape = frame.x.shape
    outer = rng.uniform(*ZONE) * (1 + 0.12 * np.cos(2 * frame.angle + rng.uniform(0, 7)))
    ragged = 0.05 * noise(rng, shape, 16) + 0.06 * noise(rng, shape, 7)
    whole = np.minimum(outer - frame.away, frame.away - LIPS) + ragged
    seen = whole
    if kind == 2:
        # Half of the arc's angle less that from its middle, as a length.
        turned = np.abs((frame.angle + rng.uniform(0, 2 * np.pi)) % (2 * np.pi) - np.pi)
        ends = (rng.uniform(*ARC) * np.pi - turned) * frame.away
        seen = np.minimum(whole, ends + ragged)
    elif kind == 3:
        seen = np.full_like(whole, -1)

    apart = np.minimum(frame.away - outer - GAP + ragged, 1 - frame.rho)
    islands = np.minimum(0.25 * noise(rng, shape, 7), 2 * apart)
    hidden = int((whole > 0).sum() - (seen > 0).sum())
    if hidden:
        islands -= np.partition(islands, -hidden, axis=None)[-hidden]
        seen = np.maximum(seen, islands)

    grain = 1 + 0.16 * noise(rng, shape, 50) + 0.1 * noise(rng, shape, 9)
    red = grain[..., None] * (RED * rng.uniform(0.92, 1.08, 3))
    kit.lay(canvas, rng.uniform(0.2, 0.5) * step(seen + 0.035, 0.06), PALE)
    kit.lay(canvas, rng.uniform(0.7, 0.95) * step(seen, 0.05), red)


def os_and_mucus(rng: Generator, frame: Frame, canvas: np.ndarray) -> None:
    """The os: a dot, or the slit of those who have given birth; often with mucus."""
    slit = rng.random() < 0.6
    long, short = (rng.uniform(0.12, 0.2), 0.03) if slit else (rng.uniform(0.05, 0.08), 0.05)
    turn = rng.uniform(-0.5, 0.5)
    u = frame.away * np.cos(frame.angle - turn)
    v = frame.away * np.sin(frame.angle - turn)
    v = v + rng.uniform(-2, 2) * u**2
    kit.lay(canvas, 0.9 * step(1 - np.hypot(u / long, v / short), 0.9), OS)
    if rng.random() < 0.4:
        down = v - rng.uniform(0.05, 0.2)
        strand = np.hypot(u / rng.uniform(0.04, 0.08), down / rng.uniform(0.1, 0.25))
        strand = strand + 0.4 * noise(rng, frame.x.shape, 20)
        kit.lay(canvas, rng.uniform(0.3, 0.7) * step(1 - strand, 0.8), MUCUS)


def speculum(rng: Generator, frame: Frame, canvas: np.ndarray) -> np.ndarray:
    """Two blades, of metal or of clear plastic, or none; returns their cover (h, w)."""
    what = rng.choice(3, p=[0.3, 0.35, 0.35])
    turn = rng.normal(0, 0.15) + (np.pi / 2 if rng.random() < 0.25 else 0)
    u, v = kit.turned_by(frame.x, frame.y, turn)
    opening = rng.uniform(0.7, 1.0) - 0.16 * u**2 + rng.uniform(-0.08, 0.08) * v
    edge = np.abs(v) - opening
    if what == 0:
        return np.zeros_like(edge)
    cover = step(edge, 0.04)
    sheen = 0.75 + 0.35 * np.cos(rng.uniform(6, 12) * edge + 2 * u + rng.uniform(0, 6))
    sheen += 0.06 * noise(rng, edge.shape, 24)
    # An edge is bright where the material is thick.
    sheen += 0.4 * np.exp(-(((edge - 0.03) / 0.02) ** 2))
    opacity = 0.95 if what == 1 else rng.uniform(0.45, 0.7)
    kit.lay(canvas, opacity * cover, sheen[..., None] * np.array(METAL if what == 1 else PLASTIC))
    return cover


def light(rng: Generator, frame: Frame, canvas: np.ndarray) -> None:
    """Exposure, white balance, and a cone of light that leaves the corners dark."""
    dx, dy = frame.x - rng.uniform(-0.2, 0.2), frame.y - rng.uniform(-0.2, 0.2)
    cone = np.exp(-(((dx**2 + dy**2) / rng.uniform(1.3, 2.2) ** 2) ** 1.5))
    canvas *= (0.12 + 0.88 * cone[..., None]) * rng.uniform(0.85, 1.12)
    canvas *= rng.uniform(0.9, 1.1, 3).astype(np.float32)
    np.clip(canvas / 255, 0, 1, out=canvas)
    canvas **= rng.uniform(0.85, 1.25)
    canvas *= 255


def glare(rng: Generator, frame: Frame, canvas: np.ndarray) -> None:
    """Reflections of the lamp on wet tissue: small, white, in clusters."""
    spots = np.zeros(frame.x.shape, np.uint8)
    height, width = frame.x.shape
    for _ in range(rng.integers(2, 6)):
        middle = np.array([width, height]) / 2 + rng.normal(0, 0.35, 2) * CANVAS / 2
        for _ in range(rng.integers(1, 8)):
            x, y = (middle + rng.normal(0, 7, 2)).round().astype(int).tolist()
            axes = int(rng.integers(1, 6)), int(rng.integers(1, 3))
            cv2.ellipse(spots, (x, y), axes, rng.uniform(0, 180), 0, 360, 255, -1)
    cover = cv2.GaussianBlur(spots.astype(np.float32) / 255, (0, 0), 0.8)
    kit.lay(canvas, 0.9 * cover, (252, 250, 246))
