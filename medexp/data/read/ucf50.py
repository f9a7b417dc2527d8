"""UCF50: YouTube clips of human actions, on ten classes of which Zunair et al. (2021) pretrain.

Paper, sections 2.3 and 3.2: ten of the 50 classes, "around 1300" clips, grey, 70x224x224, no
augmentation. From the authors' code, where the paper is silent: the first 70 consecutive frames of
a clip, resized by cv2 (bilinear), then turned grey; clips with fewer are dropped, which leaves
1,366; values are fed as 0..255.
"""

import re
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from medexp.data import files
from medexp.data.base import Info, NewFiles, Pool
from medexp.errors import ConfigError, MedexpError, nearest, one_of

# In the order of the authors' labels.
PAPER = ("Mixing", "TennisSwing", "HorseRiding", "JumpRope", "JumpingJack", "BaseballPitch",
         "Rowing", "SkateBoarding", "WalkingWithDog", "Skijet")  # fmt: skip
PAPER_CLIPS = 1366  # of 70 frames or more, in those ten classes
INFO = Info(
    title="UCF50 action recognition",
    url="https://www.crcv.ucf.edu/data/UCF50.php",
    licence="none stated; for research, from YouTube",
    size="3.2 GB to download (UCF50.rar)",
    classes=PAPER,
    counts={"all": PAPER_CLIPS},
    files=("<Class>/v_<Class>_g<group>_c<clip>.avi",),
)
NAME = re.compile(r"_g(\d+)_c\d+$")
REMEDY = "Unpack UCF50 again, or leave such clips out with dataset.on_error=skip"
HEADER = 56  # bytes of an AVI file up to its number of frames
THREADS = 16  # headers are read at once: a file system's latency, no work


@dataclass(frozen=True)
class Clip:
    """frames: as the file's header says; None where there is no such header."""

    path: Path
    label: int
    group: str
    frames: int | None


def load(
    root: str | Path,
    *,
    classes: str | list[str] = "paper",
    frames: int = 70,
    size: int = 224,
    sampling: Literal["first", "even"] = "first",
    short: Literal["drop", "pad"] = "drop",
    scale: Literal["raw", "unit"] = "raw",
) -> Pool:
    """List the clips below `root` (or `root`/UCF50) by class and name.

    classes: "paper" (the ten, in the authors' order), "all" folders, or a list of folders.
    frames, size: a clip becomes (frames, size, size, 1).
    sampling: the "first" frames, as the authors, or so many spread evenly from first to last.
    short: clips whose header promises fewer frames are left out ("drop", as the authors), or their
        last frame is repeated ("pad").
    scale: "raw" float16 of whole numbers 0..255, which the network sees as they are, as the
        authors feed them; "unit" uint8, which medexp divides by 255.
    groups are the source videos, "Mixing/g01", of several clips each. Raises MedexpError where
    folders or clips are missing, ConfigError for arguments that cannot be met.
    """
    _check(frames, size, sampling, short, scale)
    root = Path(root)
    if (root / "UCF50").is_dir():  # unpacked here, the archive makes this folder
        root = root / "UCF50"
    names = _class_names(root, classes)
    listed = _listed(root, names)
    clips = [c for c in listed if short == "pad" or c.frames is None or c.frames >= frames]
    _check_left(names, listed, clips, frames)
    dropped = len(listed) - len(clips)

    def decode(row: int) -> tuple[np.ndarray, dict[str, Any]]:
        return _prepared(clips[row], frames, size, sampling, short, scale)

    as_paper = tuple(names) == PAPER and frames == 70 and short == "drop"
    return Pool(
        "ucf50",
        tuple(names),
        np.array([clip.label for clip in clips], np.int64),
        np.array([clip.path.relative_to(root).as_posix() for clip in clips]),
        [clip.path for clip in clips],
        (frames, size, size, 1),
        np.float16 if scale == "raw" else np.uint8,
        decode,
        {"frames": frames, "size": size, "sampling": sampling, "short": short, "scale": scale},
        groups=np.array([clip.group for clip in clips]),
        public=PAPER_CLIPS if as_paper else None,
        notes=(f"{dropped:,} clips shorter than {frames} frames dropped",) if dropped else (),
    )


def load_new(
    shape: tuple[int, ...],
    *,
    frames: int = 70,
    size: int = 224,
    sampling: Literal["first", "even"] = "first",
    short: Literal["drop", "pad"] = "drop",
    scale: Literal["raw", "unit"] = "raw",
) -> NewFiles:
    """How clips without labels are read; the arguments are those of `load`."""
    _check(frames, size, sampling, short, scale)

    def read(file: Path, number: int) -> tuple[np.ndarray, dict[str, Any]]:
        clip = Clip(file, 0, "", _promised(file))
        return _prepared(clip, frames, size, sampling, short, scale)

    dtype = np.float16 if scale == "raw" else np.uint8
    return NewFiles((".avi",), (frames, size, size, 1), dtype, read)


def _check(frames: int, size: int, sampling: str, short: str, scale: str) -> None:
    """Raise ConfigError for an argument that cannot be."""
    for key, value, choices in (
        ("sampling", sampling, ("first", "even")),
        ("short", short, ("drop", "pad")),
        ("scale", scale, ("raw", "unit")),
    ):
        one_of(f"dataset.{key}", value, choices)
    for key, number in (("frames", frames), ("size", size)):
        if number < 1:
            raise ConfigError(f"dataset.{key}={number}: need 1 or more")


# ---------------------------------------------------------------- listing


def _class_names(root: Path, classes: str | Sequence[str]) -> list[str]:
    """The class folders asked for, each of which is there."""
    there = [path.name for path in files.subfolders(root)] if root.is_dir() else []
    if classes == "paper":
        missing = [f"{name}/" for name in PAPER if name not in there]
        if missing:
            raise files.not_found(INFO, root, missing)
        return list(PAPER)
    if not there:
        raise files.not_found(INFO, root, ["folders of classes"])
    if classes == "all":
        return there
    if isinstance(classes, str):
        raise ConfigError(f"dataset.classes={classes}: need paper, all or a list [A,B] of folders")
    for name in classes:
        if name not in there:
            raise ConfigError(
                f"dataset.classes: no folder {name} in {root}. {nearest(name, there)}"
            )
    if len(set(classes)) < max(len(classes), 2):
        raise ConfigError(
            f"dataset.classes=[{','.join(classes)}]: need two classes or more, each named once"
        )
    return list(classes)


def _listed(root: Path, names: Sequence[str]) -> list[Clip]:
    """Every clip of the classes, by class and name, with its header's number of frames."""
    clips: list[tuple[Path, int, str]] = []
    for label, name in enumerate(names):
        folder = files.inside(root, name)
        paths = files.find(folder, (".avi",))
        if not paths:
            raise MedexpError(f"{folder} holds no .avi clip. Unpack UCF50 again, or leave it out")
        clips += [(path, label, f"{name}/{_group(path)}") for path in paths]
    with ThreadPoolExecutor(THREADS) as pool:
        counts = list(pool.map(_promised, (path for path, _, _ in clips)))
    return [Clip(*each, count) for each, count in zip(clips, counts, strict=True)]


def _group(path: Path) -> str:
    match = NAME.search(path.stem)
    if match is None:
        raise MedexpError(
            f"{path}: its name does not end in _g<group>_c<clip>.avi as UCF50's do, so nothing "
            "says which clips come from one video. Rename it, or take it out"
        )
    return f"g{int(match[1]):02d}"


def _promised(path: Path) -> int | None:
    """Frames that an AVI's main header gives; None where there is none.

    Read here, and not by OpenCV, because listing thousands of clips would open as many decoders.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(HEADER)
    except OSError:
        return None
    # RIFF size "AVI ", LIST size "hdrl", "avih" size, 16 bytes, number of frames.
    if len(head) < HEADER or (head[:4], head[8:12], head[24:28]) != (b"RIFF", b"AVI ", b"avih"):
        return None
    return int(struct.unpack_from("<I", head, 48)[0]) or None


def _check_left(
    names: Sequence[str], listed: Sequence[Clip], clips: Sequence[Clip], frames: int
) -> None:
    for label, name in enumerate(names):
        if not any(clip.label == label for clip in clips):
            longest = max(clip.frames or 0 for clip in listed if clip.label == label)
            raise MedexpError(
                f"{name}: every clip is shorter than dataset.frames={frames} (the longest has "
                f"{longest}). Take fewer frames, or dataset.short=pad"
            )


# ---------------------------------------------------------------- decoding


def _prepared(
    clip: Clip, frames: int, size: int, sampling: str, short: str, scale: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """A clip as (frames, size, size, 1), and what its file says of itself."""
    images, facts = _read(clip, _wanted(clip, frames, sampling), size, short)
    return images.astype(np.float16 if scale == "raw" else np.uint8), facts


def _wanted(clip: Clip, frames: int, sampling: str) -> np.ndarray:
    """Numbers of the frames to take, ascending."""
    if sampling == "even" and clip.frames and clip.frames > frames:
        return np.linspace(0, clip.frames - 1, frames).round().astype(int)
    return np.arange(frames)


def _read(
    clip: Clip, wanted: np.ndarray, size: int, short: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """The frames wanted, (len(wanted), size, size, 1) uint8 grey, and what the file says of itself.

    Raises MedexpError where the file cannot be opened or gives fewer, unless short=pad.
    """
    path = clip.path
    if clip.frames is None:
        raise MedexpError(
            f"{path}: no AVI header that gives a number of frames ({_bytes(path)}). {REMEDY}"
        )
    capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise MedexpError(
            f"{path} cannot be opened as a video ({_bytes(path)}): it is damaged, or this OpenCV "
            f"lacks its codec (opencv-python of PyPI has all). {REMEDY}"
        )
    edges = [int(capture.get(k)) for k in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
    images = _decoded(capture, wanted, size)
    capture.release()
    if not images or (len(images) < len(wanted) and short == "drop"):
        raise MedexpError(
            f"{path}: {len(images)} of the {len(wanted)} frames needed can be decoded, though its "
            f"header promises {clip.frames} in all ({_bytes(path)}). {REMEDY}"
            + (", or repeat the last frame with dataset.short=pad" if images else "")
        )
    images += images[-1:] * (len(wanted) - len(images))
    return np.stack(images)[..., None], {"frames": clip.frames, "size": edges}


def _decoded(capture: Any, wanted: np.ndarray, size: int) -> list[np.ndarray]:
    """Those of the frames wanted that come out: resized first, then grey, as the authors do."""
    images = []
    for skipped in np.diff(wanted, prepend=-1) - 1:
        if not all(capture.grab() for _ in range(skipped)):
            break
        come, frame = capture.read()
        if not come:
            break
        images.append(cv2.cvtColor(cv2.resize(frame, (size, size)), cv2.COLOR_BGR2GRAY))
    return images


def _bytes(path: Path) -> str:
    """The file's size, and where it is less than its own header says, that as well."""
    try:
        there = path.stat().st_size
        with open(path, "rb") as file:
            head = file.read(8)
    except OSError as error:
        return files.reason(error)
    said = struct.unpack_from("<I", head, 4)[0] + 8 if head[:4] == b"RIFF" and len(head) == 8 else 0
    return f"{there:,} of {said:,} bytes: cut short" if there < said else f"{there:,} bytes"
