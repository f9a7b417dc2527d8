"""What an image file's header says of its samples, and those samples as they are stored.

Pillow's mode does not tell how deep a file is: it calls a colour PNG or TIFF of 16 bits RGB and
keeps the high bytes, and takes signed bytes for unsigned ones. So depth, sample format and frames
are read from the file's own header here, and what Pillow would change is decoded by tifffile or
OpenCV.
"""

import re
import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np

from medexp.data.unpack import CannotUnpackError, unpacked
from medexp.errors import MedexpError

# TIFF 6.0, tag 262 PhotometricInterpretation, and the registered ones that cameras write.
TIFF_COLOURS = {
    0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr",
    8: "CIE L*a*b*", 9: "ICC L*a*b*", 10: "ITU L*a*b*", 32803: "camera-raw", 32844: "LogL",
    32845: "LogLuv", 34892: "camera-raw",
}  # fmt: skip
TIFF_FORMS = {1: "unsigned", 2: "signed", 3: "float", 4: "unsigned", 5: "complex", 6: "complex"}
TIFF_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
TIFF_PACKINGS = {
    1: "", 2: "CCITT RLE", 3: "CCITT fax 3", 4: "CCITT fax 4", 5: "LZW", 6: "old JPEG", 7: "JPEG",
    8: "deflate", 32773: "PackBits", 32946: "deflate", 34712: "JPEG 2000", 34887: "LERC",
    34925: "LZMA", 34926: "Zstandard", 50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL",
}  # fmt: skip
EXPANSION = {"": 1, "PackBits": 64, "LZMA": 10**5, "Zstandard": 10**5}  # others: below 2000 times
PNG_COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey", 6: "RGB"}
COLOURS = {"grey": 1, "mask": 1, "palette": 1, "CMYK": 4}  # samples of a pixel; others have 3
MAX_PAGES = 10_000  # a chain of pages that is longer leads nowhere


@dataclass(frozen=True)
class Header:
    """What the first image of a file is, and how many there are.

    size: (width, height). samples: a pixel's, those for transparency included. form: unsigned |
    signed | float | complex. alpha: "" | straight | associated (colours are multiplied by it
    already). planar: each sample has a plane of its own. inverted: 0 is white. key: the colour
    that is transparent, of a PNG. frames: pages or frames, without thumbnails and masks. limit:
    the greatest value, where that is not what the bits hold. packing: how a TIFF is compressed.
    """

    kind: str
    size: tuple[int, int]
    bits: int
    colour: str
    samples: int
    form: str = "unsigned"
    alpha: str = ""
    planar: bool = False
    inverted: bool = False
    orientation: int = 1
    key: tuple[int, ...] | None = None
    frames: int = 1
    limit: int | None = None
    packing: str = ""

    @property
    def extra(self) -> int:
        """Samples of a pixel beside its colour."""
        return self.samples - COLOURS.get(self.colour, 3)

    @property
    def deep(self) -> bool:
        """Whether an 8-bit image cannot hold the samples as they are."""
        return self.bits > 8 or self.form != "unsigned"

    @property
    def changed(self) -> bool:
        """Whether Pillow does not give the samples as they are, whatever it says its mode is."""
        odd_extra = self.kind == "TIFF" and self.extra > 0 and (self.planar or self.inverted)
        return self.deep or odd_extra or self.alpha == "associated"

    @property
    def top(self) -> int:
        """The greatest value of an integer sample."""
        return self.limit or int(2 ** (self.bits - (self.form == "signed")) - 1)

    @property
    def bottom(self) -> int:
        """The least value of an integer sample."""
        return -self.top - 1 if self.form == "signed" else 0

    @property
    def words(self) -> str:
        """The kind of file in words, such as: a 16-bit RGB TIFF."""
        form = "" if self.form == "unsigned" else f"{self.form} "
        alpha = {"straight": " with alpha", "associated": " with associated alpha"}.get(
            self.alpha, ""
        )
        alpha = f" of {self.samples} samples a pixel" if self.extra > 1 else alpha
        article = "an" if self.bits in (8, 11, 18) else "a"
        return f"{article} {self.bits}-bit {form}{self.colour} {self.kind}{alpha}"


def read_header(file: BinaryIO) -> Header | None:
    """The header of a PNG, TIFF, PNM or JPEG 2000 file; None for others, which have 8 bits.

    Raises ValueError, struct.error and the like for one that is broken.
    """
    file.seek(0)
    start = file.read(32)
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return png_header(file)
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return tiff_header(file)
    if re.match(rb"P[2356][\s#]", start):
        return pnm_header(file)[0]
    if start.startswith((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")):
        return jpeg2000_header(file)
    return None


# ---------------------------------------------------------------- headers


def png_header(file: BinaryIO) -> Header:
    file.seek(8)
    found: dict[bytes, bytes] = {}
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name in (b"IDAT", b"IEND"):
            break
        if name in (b"IHDR", b"tRNS", b"acTL", b"eXIf"):
            found[name] = file.read(min(length, 2**16))
            length -= len(found[name])
        file.seek(length + 4, 1)
    width, height, bits, kind = struct.unpack(">IIBB", found.get(b"IHDR", b"")[:10])
    key = found.get(b"tRNS")
    colour = PNG_COLOURS[kind]
    return Header(
        "PNG",
        (width, height),
        bits,
        colour,
        COLOURS.get(colour, 3) + (kind in (4, 6)),
        alpha="straight" if kind in (4, 6) or key else "",
        orientation=turn_of(tiff_pages(BytesIO(found[b"eXIf"]))[0]) if b"eXIf" in found else 1,
        key=struct.unpack(f">{len(key) // 2}H", key) if key and kind in (0, 2) else None,
        frames=struct.unpack(">I", found[b"acTL"][:4])[0] if b"acTL" in found else 1,
    )


def tiff_header(file: BinaryIO) -> Header:
    first, pages = tiff_pages(file)
    width, height = first.get(256, (0,))[0], first.get(257, (0,))[0]
    if not width or not height:
        raise ValueError("its header gives no width and height")
    bits, forms = first.get(258, (1,)), first.get(339, (1,))
    photometric = first.get(262, (1,))[0]
    colour = TIFF_COLOURS.get(photometric, f"photometric-{photometric}")
    samples = first.get(277, (len(bits),))[0]
    extra = samples - COLOURS.get(colour, 3)
    # Without a word on what a fourth sample is, Pillow and others take it for transparency.
    meaning = first.get(338, (2,) if extra == 1 else (0,))[0] if extra > 0 else 0
    # ImageJ keeps long stacks behind a single directory.
    stack = re.match(rb"ImageJ=.*?\nimages=(\d+)", bytes(first.get(270, ())), re.DOTALL)
    return Header(
        "TIFF",
        (width, height),
        max(bits),
        colour,
        samples,
        form=next(iter(TIFF_FORMS.get(form, "unknown") for form in forms)),
        alpha={1: "associated", 2: "straight"}.get(meaning, ""),
        planar=first.get(284, (1,))[0] == 2 and samples > 1,
        inverted=photometric == 0,
        orientation=turn_of(first),
        frames=max(pages, int(stack[1]) if stack else 1),
        packing=TIFF_PACKINGS.get(first.get(259, (1,))[0], f"method {first.get(259, (1,))[0]}"),
    )


def turn_of(tags: dict[int, tuple[int, ...]]) -> int:
    return tags.get(274, (1,))[0]


def tiff_pages(file: BinaryIO) -> tuple[dict[int, tuple[int, ...]], int]:
    """The integer tags of a TIFF's first page, and how many pages are images of their own."""
    file.seek(0)
    start = file.read(16)
    order = "<" if start[:1] == b"I" else ">"
    big = struct.unpack(order + "H", start[2:4])[0] == 43
    word, size = ("Q", 8) if big else ("I", 4)
    (at,) = struct.unpack(order + word, start[8:16] if big else start[4:8])
    first: dict[int, tuple[int, ...]] | None = None
    pages, seen = 0, set[int]()
    while at and at not in seen and len(seen) < MAX_PAGES:
        seen.add(at)
        file.seek(at)
        (count,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
        step = 20 if big else 12
        listing = file.read(min(count, 4096) * step)
        (at,) = struct.unpack(order + word, file.read(size))
        tags = {}
        for entry in range(0, len(listing), step):
            tag, kind, n = struct.unpack_from(f"{order}HH{word}", listing, entry)
            if kind == 2 and tag == 270:
                kind = 1
            if kind not in TIFF_TYPES or not 0 < n <= 4096 or tag not in WANTED:
                continue
            form = f"{order}{n}{TIFF_TYPES[kind]}"
            values = listing[entry + 4 + size : entry + step]
            if struct.calcsize(form) > size:
                file.seek(struct.unpack(order + word, values)[0])
                values = file.read(struct.calcsize(form))
            tags[tag] = struct.unpack_from(form, values)
        first = tags if first is None else first
        pages += not tags.get(254, (0,))[0] & 0b101  # neither a smaller copy nor a mask
    if first is None:
        raise ValueError("it holds no page")
    return first, pages


WANTED = (254, 256, 257, 258, 259, 262, 270, 274, 277, 284, 338, 339)


def pnm_header(file: BinaryIO) -> tuple[Header, bool]:
    """The header, and whether numbers are text; the file is left at its pixels."""
    file.seek(0)
    magic = file.read(2)
    numbers: list[int] = []
    token = b""
    while len(numbers) < 3:
        byte = file.read(1)
        if byte == b"#":
            while byte not in (b"\n", b""):
                byte = file.read(1)
        if byte.isdigit() and len(token) < 10:
            token += byte
        elif byte and not byte.isspace():
            raise ValueError("its header is no three numbers")
        elif token:
            numbers.append(int(token))
            token = b""
        if not byte:
            raise ValueError("its header is cut short")
    width, height, top = numbers
    colour = "RGB" if magic in (b"P3", b"P6") else "grey"
    bits, samples = top.bit_length(), COLOURS.get(colour, 3)
    header = Header("PNM", (width, height), bits, colour, samples, limit=top)
    return header, magic in (b"P2", b"P3")


def jpeg2000_header(file: BinaryIO) -> Header:
    file.seek(0)
    start = file.read(2**16)
    at = start.index(b"\xff\x4f\xff\x51") + 8  # after the length of the SIZ segment
    x1, y1, x0, y0 = struct.unpack(">IIII", start[at : at + 16])
    (count,) = struct.unpack(">H", start[at + 32 : at + 34])
    depths = start[at + 34 : at + 34 + 3 * count : 3]
    bits, signed = max(byte & 127 for byte in depths) + 1, any(byte & 128 for byte in depths)
    colour = "grey" if count < 3 else "RGB"
    alpha = "straight" if count in (2, 4) else ""
    form = "signed" if signed else "unsigned"
    return Header("JPEG 2000", (x1 - x0, y1 - y0), bits, colour, count, form, alpha)


# ---------------------------------------------------------------- samples


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
