"""Synthetic clips in UCF50's own folders, for trials without the download.

A stick figure with a ball (which stands for bat, rope, oar, dog or spray) moves before a textured
background. The motion alone tells the class: how the figure travels, bounces and swings, how the
ball goes, and with which period. Scenery, light, colours, camera, the figure's size and its
resting pose are drawn per source video (`g01`, ...), which has several clips, as in UCF50. So one
frame says little about the class and much about the group.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator

from medexp.errors import ConfigError, MedexpError

WIDTH, HEIGHT = 160, 120  # half of UCF50's 320x240
RATE = 25.0  # frames a second
LENGTH = (72, 81)  # frames of a clip, from and below
SHORT_LENGTH = (48, 66)
SHORT_EVERY = 19  # one clip in so many has fewer than the paper's 70 frames
CLIPS_A_GROUP, GROUPS = 2, 25  # UCF50: 4 to 7 clips a group, 25 groups a class
MARGIN = 24  # scenery beyond the frame, for a camera that moves
SHIFT = 4  # cv2 takes places in 1/16 of a pixel
FINE = 2**SHIFT


@dataclass(frozen=True)
class Group:
    """What the clips of one source video share; places in pixels, times in frames."""

    scenery: np.ndarray  # (HEIGHT + 2 MARGIN, WIDTH + 2 MARGIN, 3) uint8
    cloth: tuple[int, ...]
    skin: tuple[int, ...]
    ball: tuple[int, ...]
    tall: float
    arms: float  # resting angles
    legs: float
    offset: np.ndarray  # the ball's resting place from the hip, in heights of the figure
    shake: float
    gain: float
    tempo: float
    noise: float


@dataclass(frozen=True)
class Motion:
    """A clip's motion, (frames,) or (frames, 2) each; places in heights of the figure."""

    hip: np.ndarray
    ball: np.ndarray  # from the hip
    arms: np.ndarray  # angles beyond the resting ones
    legs: np.ndarray


def write(folder: Path, *, size: int = 120, seed: int = 0) -> None:
    """Write `size` clips as <Class>/v_<Class>_g01_c01.avi, Motion JPEG of 160x120, in ten classes.

    folder: an existing folder. A split by source video (split=patients) into three parts needs 120
    clips or more. Raises ConfigError for a size below 16 or a negative seed, MedexpError where
    OpenCV cannot write AVI files.
    """
    if size < 16:
        raise ConfigError(f"source.size={size}: need 16 or more, a clip or two of each class")
    if seed < 0:
        raise ConfigError(f"source.seed={seed}: need 0 or more")
    names = list(MOTIONS)
    share = max(CLIPS_A_GROUP, -(-size // (len(names) * GROUPS)))
    for label, name in enumerate(names):
        (folder / name).mkdir()
        for number, index in enumerate(range(label, size, len(names))):
            group = number // share
            look = _group(np.random.default_rng([seed, label, group]))
            rng = np.random.default_rng([seed, label, group, number])
            length = SHORT_LENGTH if (index + 1) % SHORT_EVERY == 0 else LENGTH
            stem = f"v_{name}_g{group + 1:02d}_c{number % share + 1:02d}"
            frames = int(rng.integers(*length))
            _write_clip(folder / name / f"{stem}.avi", _frames(rng, name, look, frames))


def _open(path: Path) -> cv2.VideoWriter:
    code = cv2.VideoWriter.fourcc(*"MJPG")
    return cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, code, RATE, (WIDTH, HEIGHT))


def _write_clip(path: Path, frames: np.ndarray) -> None:
    writer = _open(path)
    if not writer.isOpened():
        raise MedexpError(
            f"{path} cannot be written: this OpenCV ({cv2.__version__}) has no Motion JPEG writer, "
            "or the folder is not writable. Install opencv-python of PyPI, or use the real clips"
        )
    writer.set(cv2.VIDEOWRITER_PROP_QUALITY, 50)
    for frame in frames:
        writer.write(frame)
    writer.release()


# ---------------------------------------------------------------- motions
# (phase: frames elapsed in periods of 1, shape (frames,); direction: -1 or 1) -> Motion. The period
# in frames stands with each name below.


def _cycle(phase: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.cos(2 * np.pi * phase), np.sin(2 * np.pi * phase)


def _motion(
    phase: np.ndarray,
    x: np.ndarray | float = 0.0,
    y: np.ndarray | float = 0.0,
    ball: tuple[np.ndarray | float, np.ndarray | float] = (0.0, 0.0),
    arms: np.ndarray | float = 0.0,
    legs: np.ndarray | float = 0.0,
) -> Motion:
    """Motion of which only the parts that move are named; up is positive."""

    def pair(a: np.ndarray | float, b: np.ndarray | float) -> np.ndarray:
        return np.stack([still + a, still - b], axis=1)

    still = np.zeros_like(phase)
    return Motion(pair(x, y), pair(*ball), still + arms, still + legs)


def _mixing(phase: np.ndarray, direction: int) -> Motion:
    cos, sin = _cycle(phase)
    return _motion(phase, ball=(0.22 * cos, 0.22 * direction * sin), arms=0.25 * sin)


def _tennis(phase: np.ndarray, direction: int) -> Motion:
    angle = 1.4 * np.tanh(3 * np.sin(2 * np.pi * phase))  # waits, then swings through
    return _motion(
        phase, x=0.04 * angle, ball=(0.5 * direction * np.sin(angle), 0.5 * np.cos(angle) - 0.3),
        arms=0.6 * angle,
    )  # fmt: skip


def _riding(phase: np.ndarray, direction: int) -> Motion:
    cos, sin = _cycle(phase)
    return _motion(phase, x=0.5 * direction * phase, y=0.1 * sin, ball=(0.06 * cos, 0.06 * sin))


def _rope(phase: np.ndarray, direction: int) -> Motion:
    cos, sin = _cycle(phase)
    around = (0.5 * sin, 0.65 * direction * cos)
    return _motion(phase, y=0.16 * np.abs(np.sin(np.pi * phase)), ball=around, arms=0.15 * sin)


def _jack(phase: np.ndarray, direction: int) -> Motion:
    spread = 0.5 - 0.5 * np.cos(2 * np.pi * phase)
    return _motion(phase, y=0.12 * np.sin(np.pi * phase) ** 2, arms=1.7 * spread, legs=0.4 * spread)


def _pitch(phase: np.ndarray, direction: int) -> Motion:
    part = phase % 1
    flight = np.maximum(part - 0.55, 0) / 0.45
    windup = np.minimum(part / 0.55, 1)
    ball = (direction * (2.4 * flight - 0.25 * np.sin(np.pi * windup)), 0.3 * windup - 0.5 * flight)
    return _motion(phase, x=0.06 * direction * windup, ball=ball, arms=1.3 * windup * (flight == 0))


def _rowing(phase: np.ndarray, direction: int) -> Motion:
    cos, sin = _cycle(phase)
    blade = (-0.55 * direction * sin, 0.14 * cos)
    return _motion(phase, x=direction * (0.12 * phase + 0.2 * sin), ball=blade, arms=0.3 * sin)


def _skating(phase: np.ndarray, direction: int) -> Motion:
    place = direction * np.sin(2 * np.pi * phase)  # to and fro in a half-pipe
    return _motion(phase, x=1.05 * place, y=0.55 * place**2 - 0.25, ball=(0.1 * place, 0.0))


def _walking(phase: np.ndarray, direction: int) -> Motion:
    cos, sin = _cycle(phase)
    ahead = 0.2 * np.sin(2 * np.pi * phase / 1.7)
    return _motion(
        phase, x=0.3 * direction * phase, y=0.02 * cos, ball=(ahead, 0.02 * sin), arms=0.35 * sin,
        legs=0.4 * sin,
    )  # fmt: skip


def _skijet(phase: np.ndarray, direction: int) -> Motion:
    cos, sin = _cycle(phase)
    _, fast = _cycle(4.3 * phase)
    return _motion(
        phase, x=0.95 * direction * phase, y=0.22 * sin,
        ball=(-0.12 * direction * (1 + fast), 0.1 * fast), arms=0.1 * cos,
    )  # fmt: skip


# Name -> (period in frames, motion).
MOTIONS: dict[str, tuple[float, Callable[[np.ndarray, int], Motion]]] = {
    "Mixing": (19, _mixing),
    "TennisSwing": (38, _tennis),
    "HorseRiding": (13, _riding),
    "JumpRope": (14, _rope),
    "JumpingJack": (25, _jack),
    "BaseballPitch": (42, _pitch),
    "Rowing": (33, _rowing),
    "SkateBoarding": (62, _skating),
    "WalkingWithDog": (21, _walking),
    "Skijet": (26, _skijet),
}


# ---------------------------------------------------------------- pictures


def _group(rng: Generator) -> Group:
    return Group(
        scenery=_scenery(rng),
        cloth=_colour(rng),
        skin=_colour(rng),
        ball=_colour(rng),
        tall=rng.uniform(30, 46),
        arms=rng.uniform(0.3, 1.2),
        legs=rng.uniform(0.12, 0.45),
        offset=np.array([rng.uniform(-0.5, 0.5), rng.uniform(-0.3, 0.35)]),
        shake=rng.uniform(0.2, 1.4),
        gain=rng.uniform(0.75, 1.2),
        tempo=rng.uniform(0.9, 1.1),
        noise=rng.uniform(0.5, 3),
    )


def _colour(rng: Generator) -> tuple[int, ...]:
    """A dark or a light colour: the scenery lies between."""
    low, high = (5, 70) if rng.random() < 0.5 else (190, 250)
    return tuple(int(value) for value in rng.integers(low, high, 3))


def _scenery(rng: Generator) -> np.ndarray:
    """Ground and sky of two colours, with smooth and fine texture."""
    shape = (HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN, 3)
    horizon = rng.uniform(0.35, 0.75) * shape[0]
    ground = (np.arange(shape[0]) > horizon).astype(np.float32)[:, None, None]
    colours = rng.uniform(90, 170, (2, 3)).astype(np.float32)
    picture = colours[0] * ground + colours[1] * (1 - ground)
    for wavelength, swing in ((24, 14.0), (5, 7.0)):
        noise = rng.standard_normal(shape, np.float32)
        smooth = cv2.GaussianBlur(noise, (0, 0), wavelength / 2)
        picture = picture + swing * smooth / smooth.std()
    scenery: np.ndarray = np.clip(picture, 0, 255).astype(np.uint8)
    return scenery


def _frames(rng: Generator, name: str, group: Group, frames: int) -> np.ndarray:
    """A clip (frames, HEIGHT, WIDTH, 3) uint8, BGR."""
    period, move = MOTIONS[name]
    period *= group.tempo * rng.uniform(0.95, 1.05)
    phase = rng.uniform() + np.arange(frames) / period
    motion = move(phase, int(rng.choice([-1, 1])))
    # Whatever travels is in the middle of the picture halfway through.
    middle = motion.hip.mean(axis=0) + rng.normal(0, 0.12, 2)
    hip = (motion.hip - middle) * group.tall + [WIDTH / 2, HEIGHT / 2]
    ball = hip + (motion.ball + group.offset) * group.tall
    camera = np.cumsum(rng.normal(0, 0.3 * group.shake, (frames, 2)), axis=0)
    camera = np.clip(np.rint(camera), -MARGIN, MARGIN).astype(int) + MARGIN
    light = group.gain * (1 + 0.03 * np.sin(np.arange(frames) / 9 + rng.uniform(0, 6)))
    grain = rng.normal(0, group.noise, (8, HEIGHT, WIDTH, 1)).astype(np.float32)
    made = np.empty((frames, HEIGHT, WIDTH, 3), np.uint8)
    for number, (x, y) in enumerate(camera):
        picture = group.scenery[y : y + HEIGHT, x : x + WIDTH].copy()
        arms, legs = group.arms + motion.arms[number], group.legs + motion.legs[number]
        _draw(picture, group, hip[number], ball[number], arms, legs)
        lit = picture * np.float32(light[number]) + grain[rng.integers(8)]
        made[number] = np.clip(lit, 0, 255)
    return made


def _draw(
    picture: np.ndarray, group: Group, hip: np.ndarray, ball: np.ndarray, arms: float, legs: float
) -> None:
    tall = group.tall
    neck = hip - [0, 0.36 * tall]
    thick = max(round(0.09 * tall), 1)
    for side in (-1, 1):
        foot = hip + 0.45 * tall * np.array([side * np.sin(legs), np.cos(legs)])
        hand = neck + 0.36 * tall * np.array([side * np.sin(arms), np.cos(arms)])
        _line(picture, hip, foot, group.cloth, thick)
        _line(picture, neck, hand, group.skin, thick)
    _line(picture, hip, neck, group.cloth, 2 * thick)
    _disc(picture, neck - [0, 0.1 * tall], 0.11 * tall, group.skin)
    _disc(picture, ball, 0.1 * tall, group.ball)


def _fine(point: np.ndarray) -> list[int]:
    return [int(value) for value in np.rint(FINE * point)]


def _line(
    picture: np.ndarray, start: np.ndarray, end: np.ndarray, colour: tuple[int, ...], thick: int
) -> None:
    cv2.line(picture, _fine(start), _fine(end), colour, thick, cv2.LINE_AA, SHIFT)


def _disc(picture: np.ndarray, centre: np.ndarray, radius: float, colour: tuple[int, ...]) -> None:
    cv2.circle(picture, _fine(centre), round(FINE * radius), colour, -1, cv2.LINE_AA, SHIFT)
