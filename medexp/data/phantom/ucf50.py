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

from medexp.data.phantom import kit
from medexp.errors import MedexpError

WIDTH, HEIGHT = 160, 120  # half of UCF50's 320x240
RATE = 25.0  # frames a second
LENGTH = (72, 81)  # frames of a clip, from and below
SHORT_LENGTH = (48, 66)
SHORT_EVERY = 19  # one clip in so many has fewer than the paper's 70 frames
CLIPS_A_GROUP, GROUPS = 2, 25  # UCF50: 4 to 7 clips a group, 25 groups a class
MARGIN = 24  # scenery beyond the frame, for a camera that moves


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
    kit.check(size, seed)
    share = max(CLIPS_A_GROUP, -(-size // (len(MOTIONS) * GROUPS)))
    for name in MOTIONS:
        (folder / name).mkdir()

    def write_clip(index: int) -> None:
        number, label = divmod(index, len(MOTIONS))
        name, group = list(MOTIONS)[label], number // share
        look = _group(np.random.default_rng([seed, label, group]))
        rng = np.random.default_rng([seed, label, group, number])
        length = SHORT_LENGTH if (index + 1) % SHORT_EVERY == 0 else LENGTH
        stem = f"v_{name}_g{group + 1:02d}_c{number % share + 1:02d}"
        frames = int(rng.integers(*length))
        _write_clip(folder / name / f"{stem}.avi", _frames(rng, name, look, frames))

    kit.write_each(write_clip, range(size))


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


def _cos(phase: np.ndarray) -> np.ndarray:
    return np.cos(2 * np.pi * phase)


def _sin(phase: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * phase)


def _tennis(phase: np.ndarray, side: int) -> Motion:
    angle = 1.4 * np.tanh(3 * _sin(phase))  # waits, then swings through
    ball = (0.5 * side * np.sin(angle), 0.5 * np.cos(angle) - 0.3)
    return _motion(phase, x=0.04 * angle, ball=ball, arms=0.6 * angle)


def _jack(phase: np.ndarray, side: int) -> Motion:
    spread = 0.5 - 0.5 * _cos(phase)
    return _motion(phase, y=0.12 * np.sin(np.pi * phase) ** 2, arms=1.7 * spread, legs=0.4 * spread)


def _pitch(phase: np.ndarray, side: int) -> Motion:
    part = phase % 1
    flight = np.maximum(part - 0.55, 0) / 0.45
    windup = np.minimum(part / 0.55, 1)
    ball = (side * (2.4 * flight - 0.25 * np.sin(np.pi * windup)), 0.3 * windup - 0.5 * flight)
    return _motion(phase, x=0.06 * side * windup, ball=ball, arms=1.3 * windup * (flight == 0))


def _skating(phase: np.ndarray, side: int) -> Motion:
    place = side * _sin(phase)  # to and fro in a half-pipe
    return _motion(phase, x=1.05 * place, y=0.55 * place**2 - 0.25, ball=(0.1 * place, 0.0))


# Name -> (period in frames, motion). A motion is made of t (frames,), the time in periods, and of
# the side it goes to, -1 or 1.
MOTIONS: dict[str, tuple[float, Callable[[np.ndarray, int], Motion]]] = {
    "Mixing": (19, lambda t, side: _motion(
        t, ball=(0.22 * _cos(t), 0.22 * side * _sin(t)), arms=0.25 * _sin(t))),
    "TennisSwing": (38, _tennis),
    "HorseRiding": (13, lambda t, side: _motion(
        t, x=0.5 * side * t, y=0.1 * _sin(t), ball=(0.06 * _cos(t), 0.06 * _sin(t)))),
    "JumpRope": (14, lambda t, side: _motion(
        t, y=0.16 * np.abs(np.sin(np.pi * t)), ball=(0.5 * _sin(t), 0.65 * side * _cos(t)),
        arms=0.15 * _sin(t))),
    "JumpingJack": (25, _jack),
    "BaseballPitch": (42, _pitch),
    "Rowing": (33, lambda t, side: _motion(
        t, x=side * (0.12 * t + 0.2 * _sin(t)), ball=(-0.55 * side * _sin(t), 0.14 * _cos(t)),
        arms=0.3 * _sin(t))),
    "SkateBoarding": (62, _skating),
    "WalkingWithDog": (21, lambda t, side: _motion(
        t, x=0.3 * side * t, y=0.02 * _cos(t), arms=0.35 * _sin(t), legs=0.4 * _sin(t),
        ball=(0.2 * np.sin(2 * np.pi * t / 1.7), 0.02 * _sin(t)))),
    "Skijet": (26, lambda t, side: _motion(
        t, x=0.95 * side * t, y=0.22 * _sin(t), arms=0.1 * _cos(t),
        ball=(-0.12 * side * (1 + _sin(4.3 * t)), 0.1 * _sin(4.3 * t)))),
}  # fmt: skip


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
        picture = picture + swing * kit.clouds(rng, shape, wavelength)
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
        kit.line(picture, hip, foot, group.cloth, thick)
        kit.line(picture, neck, hand, group.skin, thick)
    kit.line(picture, hip, neck, group.cloth, 2 * thick)
    kit.disc(picture, neck - [0, 0.1 * tall], 0.11 * tall, group.skin)
    kit.disc(picture, ball, 0.1 * tall, group.ball)
