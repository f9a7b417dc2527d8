"""Compressed TIFF samples of any depth: libtiff unpacks the bytes, the rest is arithmetic.

tifffile decompresses what Python itself can, and Pillow has libtiff, which knows the other
compressions but hands out no samples of more than 8 bits as they are. So the file is shown to
Pillow as one of bytes: each row of samples is a row of 8-bit grey, without a predictor. Predictor,
byte order and packed bits are then undone here, as TIFF 6.0 and Adobe's technical note 3 say.
"""

import struct
from io import BytesIO
from typing import Any

import numpy as np

# What Pillow unpacks to bytes: none, LZW, deflate, PackBits, LZMA, Zstandard.
METHODS = (1, 5, 8, 32773, 32946, 34925, 50000)


class CannotUnpackError(Exception):
    """The file's compression, predictor or type is none that is undone here."""


def unpacked(data: bytes, page: Any) -> np.ndarray:
    """The samples (H, W, C) of a page that tifffile has parsed, from the bytes of its file.

    Raises CannotUnpackError, and whatever Pillow raises for damaged bytes.
    """
    bits, predictor = page.bitspersample, int(page.predictor)
    kind = {1: "u", 2: "i", 3: "f"}.get(int(page.sampleformat), "")
    whole = bits in (8, 16, 32, 64)
    if int(page.compression) not in METHODS or not kind or predictor not in (1, 2, 3):
        raise CannotUnpackError
    if not whole and (kind != "u" or predictor != 1 or bits > 32):
        raise CannotUnpackError
    if (predictor == 3) != (kind == "f" and predictor > 1):  # each has its own kind of samples
        raise CannotUnpackError
    height, width = page.imagelength, page.imagewidth
    planes = page.samplesperpixel if int(page.planarconfig) == 2 else 1
    depth = page.samplesperpixel // planes  # samples that lie side by side
    across = page.tilewidth if page.is_tiled else width
    columns = -(-width // across)  # of tiles; strips are as wide as the image
    row = -(-across * depth * bits // 8)
    made = []
    for plane in range(planes):
        rows = bytes_of(data, page, plane, planes, (height, columns * row)).reshape(-1, row)
        if whole:
            samples = numbers(rows, f"{page.parent.byteorder}{kind}{bits // 8}", depth, predictor)
        else:
            samples = packed_bits(rows, bits, across, depth)
        made.append(samples.reshape(height, columns * across, depth)[:, :width])
    return np.concatenate(made, axis=2)


def bytes_of(data: bytes, page: Any, plane: int, planes: int, shape: tuple[int, int]) -> np.ndarray:
    """The unpacked bytes of one plane, (rows, bytes of a row)."""
    from PIL import Image

    many = len(page.dataoffsets) // planes
    part = slice(plane * many, (plane + 1) * many)
    height, width = shape
    tags = {
        256: [width],
        257: [height],
        258: [8],
        259: [int(page.compression)],
        262: [1],
        266: [int(page.fillorder)],
        277: [1],
        284: [1],
    }
    offsets, sizes = list(page.dataoffsets[part]), list(page.databytecounts[part])
    if page.is_tiled:
        across = width // -(-page.imagewidth // page.tilewidth)
        tags |= {322: [across], 323: [page.tilelength], 324: offsets, 325: sizes}
    else:
        tags |= {273: offsets, 278: [page.rowsperstrip], 279: sizes}
    with Image.open(BytesIO(as_tiff(data, page.parent.byteorder, tags))) as image:
        return np.asarray(image)


def as_tiff(data: bytes, order: str, tags: dict[int, list[int]]) -> bytes:
    """The bytes of a file with another directory, before them; tags 273 and 324 are offsets."""
    start = 8 + 2 + 12 * len(tags) + 4
    beyond = sum(4 * len(values) for values in tags.values() if len(values) > 1)
    moved = start + beyond
    entries, tail = [], b""
    for tag, values in sorted(tags.items()):
        if tag in (273, 324):
            values = [value + moved for value in values]
        block = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            block, tail = struct.pack(f"{order}I", start + len(tail)), tail + block
        entries.append(struct.pack(f"{order}HHI", tag, 4, len(values)) + block)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    head = magic + struct.pack(f"{order}IH", 8, len(tags)) + b"".join(entries) + bytes(4)
    return head + tail + data


# ---------------------------------------------------------------- from bytes to numbers


def numbers(rows: np.ndarray, dtype: str, depth: int, predictor: int) -> np.ndarray:
    """Rows of bytes (n, row) as rows of samples (n, samples, depth)."""
    kind = np.dtype(dtype)
    count = rows.shape[1] // kind.itemsize
    if predictor == 3:
        # Bytes are differences from those `depth` before, and stand plane by plane, highest first.
        sums = np.add.accumulate(rows.reshape(len(rows), -1, depth), axis=1, dtype=np.uint8)
        planes = sums.reshape(len(rows), kind.itemsize, count).transpose(0, 2, 1)
        samples = np.ascontiguousarray(planes).view(kind.newbyteorder(">"))
        return samples.reshape(len(rows), -1, depth)
    samples = np.ascontiguousarray(rows).view(kind).reshape(len(rows), -1, depth)
    samples = samples.astype(kind.newbyteorder("="))
    if predictor == 2:
        samples = np.add.accumulate(samples, axis=1, dtype=samples.dtype)
    return samples


def packed_bits(rows: np.ndarray, bits: int, across: int, depth: int) -> np.ndarray:
    """Rows of bytes in which samples of so many bits follow each other, highest bit first."""
    each = np.unpackbits(rows, axis=1, count=across * depth * bits)
    weights = 2 ** np.arange(bits - 1, -1, -1, dtype=np.int64)
    samples = each.reshape(len(rows), across, depth, bits) @ weights
    return np.asarray(samples, np.uint16 if bits <= 16 else np.uint32)
