"""What an image file's own header says of its samples and frames.

Pillow's mode does not tell how deep a file is: it calls a colour PNG or TIFF of 16 bits RGB and
keeps the high bytes, and takes signed bytes for unsigned ones.
"""

import re
import struct
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

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
    entry, step = f"{order}HH{word}{size}s", 12 if word == "I" else 20
    first: dict[int, tuple[int, ...]] | None = None
    pages, seen = 0, set[int]()
    while at and at not in seen and len(seen) < MAX_PAGES:
        seen.add(at)
        file.seek(at)
        (count,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
        listing = file.read(min(count, 4096) * step)
        (at,) = struct.unpack(order + word, file.read(size))
        tags = {}
        whole = len(listing) // step * step
        for tag, kind, n, values in struct.iter_unpack(entry, listing[:whole]):
            letter = TIFF_TYPES.get(kind)
            if tag == 270:  # a description: its start will do
                letter, n = "B", min(n, 4096)
            if tag not in WANTED or letter is None or not 0 < n <= 4096:
                continue
            form = f"{order}{n}{letter}"
            length = struct.calcsize(form)
            if length > size:
                file.seek(struct.unpack(order + word, values)[0])
                values = file.read(length)
            tags[tag] = struct.unpack_from(form, values)
        first = tags if first is None else first
        pages += not tags.get(254, (0,))[0] & 0b101  # neither a smaller copy nor a mask
    if first is None:
        raise ValueError("it holds no page")
    if pages and first.get(254, (0,))[0] & 0b101:
        raise ValueError("its first page is a smaller copy or a mask of another")
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
