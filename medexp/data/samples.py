"""The samples of an image file as they are stored, where Pillow would change them.

TIFF is decoded by tifffile (and medexp/data/unpack.py), PNG and JPEG 2000 by OpenCV, PNM here.
"""

import re
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from medexp.data.headers import Header, pnm_header
from medexp.data.unpack import CannotUnpackError, unpacked
from medexp.errors import MedexpError

# How many times larger than its file an image may be, by its compression; others: 2000.
EXPANSION = {"": 1, "PackBits": 64, "LZMA": 10**5, "Zstandard": 10**5}


def read_samples(path: Path, data: bytes, header: Header) -> np.ndarray:
    """The samples as they are stored: (H, W, samples) of whatever type, transparency last.

    Raises MedexpError for a kind that nothing here reads, and whatever a decoder raises.
    """
    if header.colour not in ("grey", "mask", "RGB"):
        raise unread(path, header)
    if header.inverted and header.alpha == "associated":
        raise unread(path, header, " whose 0 is white")
    if header.kind == "TIFF":
        samples = tiff_samples(path, data, header)
    elif header.kind == "PNM":
        samples = pnm_samples(data)
    else:
        samples = opencv_samples(path, data, header)
    if header.key is not None:
        clear = (samples == np.array(header.key)).all(axis=2, keepdims=True)
        samples = np.concatenate([samples, np.where(clear, 0, header.top)], axis=2)
    return upright(samples, header.orientation)


def unread(path: Path, header: Header, more: str = "") -> MedexpError:
    more = f" compressed by {header.packing}{more}" if header.packing else more
    return MedexpError(
        f"{path}: {header.words}{more}: such a file is not read. Save it as plain RGB or grey, or "
        "leave such files out with dataset.on_error=skip"
    )


def tiff_samples(path: Path, data: bytes, header: Header) -> np.ndarray:
    import tifffile  # slow to import, and rarely wanted

    if header.packing.startswith("method"):
        raise unread(path, header)
    need = header.size[0] * header.size[1] * header.samples * header.bits // 8
    if need > len(data) * EXPANSION.get(header.packing, 2000):
        raise ValueError(f"{need:,} bytes of samples in a file of {len(data):,}: cut short")
    try:
        with tifffile.TiffFile(BytesIO(data)) as file:
            page: Any = file.pages[0]
            samples, axes = page.asarray(), page.axes
    except Exception as error:
        # It decompresses what Python itself can; the rest is in a package of some size.
        if "imagecodecs" not in str(error) and not isinstance(error, ImportError):
            raise
        try:
            return unpacked(data, page)
        except CannotUnpackError:
            raise unread(path, header, ' (which needs pip install "medexp[tiff]")') from None
    if axes == "SYX":
        samples = np.moveaxis(samples, 0, 2)
    elif axes not in ("YX", "YXS"):
        raise unread(path, header, f" of axes {axes}")
    return np.asarray(samples.reshape(*samples.shape[:2], -1))


def opencv_samples(path: Path, data: bytes, header: Header) -> np.ndarray:
    """A PNG or JPEG 2000 by OpenCV, where it has the samples that the header promises.

    OpenCV makes an image of what is damaged too, so that is looked for before.
    """
    if header.kind == "PNG":
        check_png(data)
    else:
        from PIL import Image

        with Image.open(BytesIO(data)) as image:
            if image.size != header.size:
                raise ValueError(f"its two headers say {image.size} and {header.size} pixels")
            image.load()
    cv2.utils.logging.setLogLevel(0)  # what it cannot read is said below
    samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None:
        raise unread(path, header)
    samples = samples.reshape(*samples.shape[:2], -1)
    if samples.shape[2] >= 3:  # blue first
        samples = samples[..., [2, 1, 0, 3][: samples.shape[2]]]
    stored = header.samples
    if header.colour == "grey" and samples.shape[2] == 4:  # a grey PNG with alpha comes as colours
        samples = samples[..., [0, 3][:stored]]
    wanted = {"unsigned": "u", "signed": "i", "float": "f"}.get(header.form)
    bits = next(size for size in (8, 16, 32, 64) if size >= header.bits)
    right = samples.dtype.kind == wanted and samples.dtype.itemsize * 8 == bits
    if header.key is not None:
        samples = samples[..., :stored]
    width, height = header.size
    if not right or samples.shape != (height, width, stored):
        raise unread(path, header)
    return np.asarray(samples)


def check_png(data: bytes) -> None:
    """Raise ValueError or zlib.error for a PNG that is damaged or cut short."""
    at, packed = 8, []
    while True:
        length, name = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 4 : at + 8 + length]
        if data[at + 8 + length : at + 12 + length] != struct.pack(">I", zlib.crc32(body)):
            raise ValueError(f"checksum of its chunk {name.decode('latin-1')}")
        if name == b"IDAT":
            packed.append(body[4:])
        if name == b"IEND":
            break
        at += 12 + length
    zlib.decompress(b"".join(packed))


def pnm_samples(data: bytes) -> np.ndarray:
    """The samples of a PNM of more than 8 bits, whose numbers are text or big-endian words."""
    file = BytesIO(data)
    header, text = pnm_header(file)
    width, height = header.size
    count = width * height * header.samples
    rest = file.read()
    if text:
        words = re.sub(rb"#[^\n]*", b"", rest).split()[:count]
        samples = np.array(words, dtype=np.uint16) if words else np.empty(0, np.uint16)
    else:
        samples = np.frombuffer(rest[: 2 * count], ">u2")
    if len(samples) < count:
        raise ValueError(f"{len(samples):,} of {count:,} samples: cut short")
    if samples.max(initial=0) > header.top:
        raise ValueError(f"a sample of {samples.max()}, but its header allows {header.top}")
    return samples.reshape(height, width, header.samples)


def upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Turned as EXIF's and TIFF's orientation says, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        samples = samples.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return np.ascontiguousarray(samples)
