"""What an image file holds is read from its header: depth, sign, planes, transparency, frames.

Files are written by tifffile, Pillow, OpenCV and, for PNG and PNM, from their specifications, and
read back to the arrays that were written.
"""

import struct
import warnings
import zlib
from itertools import product

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from medexp.data.files import read_image
from medexp.errors import MedexpError

RNG = np.random.default_rng(0)


def values(dtype, *shape):
    """Numbers from the whole range of a type; of floats, 0 to 1."""
    if np.dtype(dtype).kind == "f":
        return RNG.random(shape).astype(dtype)
    ends = np.iinfo(dtype)
    return RNG.integers(ends.min, ends.max, shape, dtype=dtype, endpoint=True)


def full(array):
    """The values of an integer type as shares of its range."""
    ends = np.iinfo(array.dtype)
    return (array.astype(np.float64) - ends.min) / (ends.max - ends.min)


def chunk(name, data):
    body = name + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(path, array, kind, *chunks):
    """Write a 16-bit PNG (W3C, 11.2): colour type 0 grey, 2 RGB, 4 grey and 6 RGB with alpha."""
    height, width = array.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(rows))]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b""))
    return path


# ---------------------------------------------------------------- element for element

KINDS = ("uint8", "int8", "uint16", "int16", "uint32", "float32", "float64")
LAYOUTS = ("contig", "separate")
CHANNELS = {1: "minisblack", 2: "minisblack", 3: "rgb", 4: "rgb"}


@pytest.mark.parametrize("kind, layout", [*product(KINDS, LAYOUTS)])
@pytest.mark.parametrize("packing, predictor", [(None, False), ("zlib", False), ("zlib", True)])
def test_tiffs_by_tifffile(tmp_path, kind, layout, packing, predictor):
    if predictor and np.dtype(kind).kind == "f":
        pytest.skip("tifffile alone does not write it")
    for channels, order, tile in product(CHANNELS, "<>", (None, (16, 16))):
        if layout == "separate" and channels == 1:
            continue
        array = values(kind, 19, 23, channels)
        written = array if layout == "contig" else np.moveaxis(array, 2, 0)
        path = tmp_path / "x.tif"
        tifffile.imwrite(
            path, written[..., 0] if channels == 1 else written, photometric=CHANNELS[channels],
            planarconfig=layout if channels > 1 else None, compression=packing, byteorder=order,
            predictor=predictor, tile=tile, extrasamples=["unspecified"] * (channels in (2, 4)),
        )  # fmt: skip
        colours = array[..., : 1 if channels < 3 else 3]
        real = np.dtype(kind).kind == "f"
        image, facts = read_image(path, scale=[0, 1] if real else "full")
        assert image.dtype == np.float32 and facts["size"] == [23, 19]
        assert np.abs(image - (colours if real else full(colours))).max() < 1e-6
        if kind == "uint8":
            assert np.array_equal(read_image(path)[0], colours)
        else:
            ends = facts["least value"], facts["greatest value"]
            assert ends == (colours.min(), colours.max())
            with pytest.raises(MedexpError, match=r"x.tif: an? \d+-bit .* TIFF: which values"):
                read_image(path)


@pytest.mark.parametrize("kind", ["uint16", "int16", "uint32", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiffs_by_opencv(tmp_path, kind, channels):
    """Compressed by LZW, which tifffile alone does not read."""
    array = values(kind, 19, 23, channels)
    path = tmp_path / "x.tif"
    assert cv2.imwrite(str(path), array, [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    assert tifffile.TiffFile(path).pages[0].compression == 5
    real = kind == "float32"
    image, _ = read_image(path, scale=[0, 1] if real else "full")
    assert np.abs(image - (array if real else full(array))[..., ::-1]).max() < 1e-6


@pytest.mark.parametrize("packing", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_tiffs_by_pillow(tmp_path, packing, kind):
    array = values(kind, 19, 23)
    Image.fromarray(array).save(tmp_path / "x.tif", compression=packing)
    image, _ = read_image(tmp_path / "x.tif", scale=[0, 1] if kind == "float32" else "full")
    assert np.abs(image[..., 0] - (array if kind == "float32" else full(array))).max() < 1e-6


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32"])
def test_where_zero_is_white_the_scale_is_of_what_is_stored(tmp_path, kind):
    array = values(kind, 9, 12)
    tifffile.imwrite(tmp_path / "x.tif", array, photometric="miniswhite")
    window = {"uint8": [0, 100], "float32": [0.1, 0.7]}.get(kind, [-50, 3000])
    unit = np.clip((array.astype(np.float64) - window[0]) / (window[1] - window[0]), 0, 1)
    found = read_image(tmp_path / "x.tif", scale=window)[0][..., 0]
    assert np.abs(found - (1 - unit)).max() < 1e-6
    if kind != "float32":
        found = read_image(tmp_path / "x.tif", scale="full")[0][..., 0]
        assert np.abs(found - (1 - full(array))).max() < 1e-6
    if kind == "uint8":
        assert np.array_equal(read_image(tmp_path / "x.tif")[0][..., 0], 255 - array)


@pytest.mark.parametrize("kind, channels", [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_pngs_of_sixteen_bits(tmp_path, kind, channels):
    array = values("uint16", 9, 12, channels)
    unit, opaque = full(array), 2 - channels % 2
    if channels in (2, 4):
        unit = unit[..., :-1] * unit[..., -1:]  # over black
    image, facts = read_image(png(tmp_path / "x.png", array, kind), scale="full")
    assert np.abs(image - unit).max() < 1e-6
    words = ("grey" if channels < 3 else "RGB") + " PNG" + (" with alpha" if opaque == 2 else "")
    assert ("transparent" in facts) == (opaque == 2)
    with pytest.raises(MedexpError, match=f"x.png: a 16-bit {words}: which values are black"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("kind", ["png", "jp2", "tif", "packed.tif", "ppm"])
def test_deep_files_cut_short_or_damaged_are_refused(tmp_path, kind):
    """OpenCV alone would make an image of them."""
    path = tmp_path / f"x.{kind}"
    array = values("uint16", 64, 64, 3)
    if kind == "png":
        png(path, array, 2)
    elif kind == "ppm":
        path.write_bytes(b"P6 64 64 65535\n" + array.astype(">u2").tobytes())
    elif kind == "jp2":
        Image.fromarray(array[..., 0]).save(path, irreversible=False)
    else:
        tifffile.imwrite(path, array, compression="zlib" if kind == "packed.tif" else None)
    whole = path.read_bytes()
    assert read_image(path, scale="full")[0].shape[:2] == (64, 64)
    for keep in (0.2, 0.5, 0.9):
        path.write_bytes(whole[: int(len(whole) * keep)])
        with pytest.raises(MedexpError, match=rf"x.{kind} cannot be decoded \(.+\): it is damaged"):
            read_image(path, scale="full")
    if kind == "png":
        path.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
        with pytest.raises(MedexpError, match=r"checksum of its chunk IDAT"):
            read_image(path, scale="full")


@pytest.mark.parametrize("kind, channels", [(0, 1), (2, 3)])
def test_a_transparent_colour_of_sixteen_bits(tmp_path, kind, channels):
    array = values("uint16", 9, 12, channels)
    key = struct.pack(f">{channels}H", *array[4, 5].tolist())
    png(tmp_path / "x.png", array, kind, chunk(b"tRNS", key))
    wanted = full(array)
    wanted[4, 5] = 1
    image, facts = read_image(tmp_path / "x.png", scale="full", background="white")
    assert np.abs(image - wanted).max() < 1e-6
    assert facts["transparent"] == "laid over white"


@pytest.mark.parametrize("magic, channels", [("P5", 1), ("P6", 3), ("P2", 1), ("P3", 3)])
@pytest.mark.parametrize("top", [1000, 4095, 65535])
def test_pnms_of_more_than_a_byte(tmp_path, magic, channels, top):
    """Pillow makes 8 bits of the coloured ones. Its maximum need not be a power of two."""
    array = RNG.integers(0, top + 1, (5, 7, channels))
    text = magic in ("P2", "P3")
    pixels = " ".join(map(str, array.ravel())).encode() if text else array.astype(">u2").tobytes()
    (tmp_path / "x.ppm").write_bytes(f"{magic}\n# by hand\n7 5\n{top}\n".encode() + pixels)
    image, _ = read_image(tmp_path / "x.ppm", scale="full")
    assert np.abs(image - array / top).max() < 1e-6
    if not text:
        (tmp_path / "x.ppm").write_bytes((tmp_path / "x.ppm").read_bytes()[:-2])
        with pytest.raises(MedexpError, match=r"x.ppm cannot be decoded \(.* cut short\)"):
            read_image(tmp_path / "x.ppm", scale="full")


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg2000_of_sixteen_bits(tmp_path, channels):
    array = values("uint16", 64, 64, channels)
    path = tmp_path / "x.jp2"
    if channels == 1:
        Image.fromarray(array[..., 0]).save(path, irreversible=False)
    elif not cv2.imwrite(
        str(path), array[..., ::-1], [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
    ):
        pytest.skip("this OpenCV writes no JPEG 2000")
    assert np.abs(read_image(path, scale="full")[0] - full(array)).max() < 1e-6
    with pytest.raises(MedexpError, match="x.jp2: a 16-bit (grey|RGB) JPEG 2000: which values"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["gif", "jfif", "jp2", "ppm", "pgm", "tga", "webp"])
def test_other_kinds_of_eight_bits_equal_pillow(tmp_path, suffix):
    image = Image.fromarray(values("uint8", 20, 30, 3)).convert("L" if suffix == "pgm" else "RGB")
    path = tmp_path / f"x.{suffix}"
    image.save(path)
    assert np.array_equal(read_image(path, "RGB")[0], np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "tif"])
def test_deep_images_stand_upright(tmp_path, orientation, kind):
    """As Pillow turns the same picture of 8 bits."""
    array = values("uint8", 5, 8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(array).save(tmp_path / f"8.{kind}", exif=exif)
    deep = tmp_path / f"16.{kind}"
    if kind == "png":
        png(deep, array.astype(np.uint16) * 257, 0, chunk(b"eXIf", exif.tobytes()[6:]))
    else:
        turned = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(deep, array.astype(np.uint16) * 257, extratags=turned)
    shallow = read_image(tmp_path / f"8.{kind}")[0]
    assert np.allclose(read_image(deep, scale="full")[0], shallow / 255)


# ---------------------------------------------------------------- the scale


def test_scales_by_numpy(tmp_path):
    array = RNG.integers(300, 3000, (40, 50)).astype(np.uint16)
    Image.fromarray(array).save(tmp_path / "x.png")
    low, high = np.percentile(array, (1, 99))
    found = read_image(tmp_path / "x.png", scale="percentile")[0][..., 0]
    assert np.allclose(found, np.clip((array - low) / (high - low), 0, 1), atol=1e-6)
    found = read_image(tmp_path / "x.png", scale=[1000, 2000])[0][..., 0]
    assert np.allclose(found, np.clip((array - 1000.0) / 1000, 0, 1), atol=1e-6)
    Image.fromarray(np.full((4, 4), 700, np.uint16)).save(tmp_path / "x.png")
    assert not read_image(tmp_path / "x.png", scale="percentile")[0].any()


def test_a_scale_holds_for_eight_bits_too(tmp_path):
    array = values("uint8", 6, 7, 3)
    Image.fromarray(array).save(tmp_path / "x.png")
    assert np.allclose(read_image(tmp_path / "x.png", scale="full")[0], array / 255)
    grey = read_image(tmp_path / "x.png", "L", scale=[0, 51])[0]
    luma = np.asarray(Image.fromarray(array).convert("L"))
    assert np.allclose(grey[..., 0], np.clip(luma / 51, 0, 1))


def test_colours_of_sixteen_bits_become_grey_by_luma(tmp_path):
    array = values("uint16", 6, 7, 3)
    grey = read_image(png(tmp_path / "x.png", array, 2), "L", scale="full")[0]
    assert np.allclose(grey[..., 0], full(array) @ (0.299, 0.587, 0.114), atol=1e-6)
    grey = png(tmp_path / "y.png", array[..., :1], 0)
    assert read_image(grey, "RGB", scale="full")[0].shape == (6, 7, 3)


def test_real_numbers_have_no_full_range(tmp_path):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, values("float32", 6, 7))
    with pytest.raises(MedexpError, match=r"x.tif: a 32-bit float grey TIFF: real numbers have no"):
        read_image(path, scale="full")
    broken = values("float32", 6, 7)
    broken[2, 3], broken[4, 4] = np.nan, np.inf
    tifffile.imwrite(path, broken)
    with pytest.raises(MedexpError, match=r"x.tif: .* 2 of 42 values are NaN or infinite"):
        read_image(path, scale=[0, 1])


# ---------------------------------------------------------------- transparency


@pytest.mark.parametrize("background, level", [("black", 0), ("white", 255)])
def test_transparent_pixels_show_the_background(tmp_path, background, level):
    array = values("uint8", 9, 12, 4)
    alpha = array[..., 3:] / 255
    over = array[..., :3] * alpha + level * (1 - alpha)
    Image.fromarray(array).save(tmp_path / "x.png")
    image, facts = read_image(tmp_path / "x.png", background=background)
    assert np.abs(image - over).max() <= 1  # Pillow rounds in whole numbers
    assert facts["transparent"] == f"laid over {background}"
    clear = array.copy()
    clear[..., 3] = 0
    Image.fromarray(clear).save(tmp_path / "x.png")
    assert (read_image(tmp_path / "x.png", background=background)[0] == level).all()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [2, 4])
def test_associated_alpha_is_multiplied_already(tmp_path, layout, channels):
    alpha = values("uint8", 9, 12, 1)
    colours = (values("uint8", 9, 12, channels - 1) * (alpha / 255)).astype(np.uint8)
    array = np.concatenate([colours, alpha], axis=2)
    tifffile.imwrite(
        tmp_path / "x.tif", array if layout == "contig" else np.moveaxis(array, 2, 0),
        photometric=CHANNELS[channels], planarconfig=layout, extrasamples=["assocalpha"],
    )  # fmt: skip
    assert np.array_equal(read_image(tmp_path / "x.tif")[0], colours)
    white = read_image(tmp_path / "x.tif", background="white")[0]
    assert np.abs(white - (colours + 255.0 - alpha)).max() <= 0.5


def test_a_palette_with_transparency(tmp_path):
    image = Image.fromarray(values("uint8", 9, 12)).convert("P")
    image.putpalette([10, 20, 30] * 256)
    image.putpixel((3, 4), 7)
    image.save(tmp_path / "x.png", transparency=7)
    clear = np.asarray(image) == 7
    found = read_image(tmp_path / "x.png", background="white")[0]
    assert clear.any() and (found[clear] == 255).all() and (found[~clear] == (10, 20, 30)).all()


# ---------------------------------------------------------------- what is refused, and how


@pytest.mark.parametrize("suffix", ["png", "webp", "gif", "tif"])
def test_several_frames_are_refused_by_one_rule(tmp_path, suffix):
    frames = [Image.fromarray(values("uint8", 9, 12, 3)) for _ in range(3)]
    path = tmp_path / f"x.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(MedexpError, match=rf"x.{suffix}: 3 pages or frames. Save the one that is"):
        read_image(path)


def test_the_preview_of_a_cameras_mpo_is_no_frame(tmp_path):
    """CIPA DC-007: the first picture is the photograph, others are made from it or beside it."""
    first, second = (Image.fromarray(values("uint8", 16, 24, 3)) for _ in range(2))
    first.save(tmp_path / "x.jpg", format="MPO", save_all=True, append_images=[second])
    with Image.open(tmp_path / "x.jpg") as image:
        assert image.format == "MPO" and image.n_frames == 2
        wanted = np.asarray(image.convert("RGB"))
    assert np.array_equal(read_image(tmp_path / "x.jpg")[0], wanted)


def test_thumbnails_are_no_pages_and_stacks_are(tmp_path):
    array = values("uint8", 40, 60)
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(array)
        file.write(array[::4, ::4], subfiletype=1)  # a smaller copy
    assert np.array_equal(read_image(tmp_path / "x.tif")[0][..., 0], array)
    with tifffile.TiffWriter(tmp_path / "z.tif") as file:
        file.write(array[::4, ::4], subfiletype=1)
        file.write(array)
    with pytest.raises(MedexpError, match=r"z.tif cannot be decoded \(its first page is a smaller"):
        read_image(tmp_path / "z.tif")
    tifffile.imwrite(tmp_path / "y.tif", values("uint8", 5, 8, 9), imagej=True)
    with pytest.raises(MedexpError, match="y.tif: 5 pages or frames"):
        read_image(tmp_path / "y.tif")


@pytest.mark.parametrize(
    "mode, words",
    [("LAB", r"an 8-bit CIE L\*a\*b\* TIFF"), ("F", "a 32-bit float grey TIFF: which values"),
     ("I", "a 32-bit signed grey TIFF: which values")],
)  # fmt: skip
def test_modes_are_named_as_what_they_are(tmp_path, mode, words):
    Image.new("RGB", (8, 8)).convert(mode if mode == "LAB" else "L").convert(mode).save(
        tmp_path / "x.tif"
    )
    with pytest.raises(MedexpError, match=f"x.tif: {words}"):
        read_image(tmp_path / "x.tif")


def test_more_samples_than_colours(tmp_path):
    array = values("uint8", 9, 12, 7)
    tifffile.imwrite(tmp_path / "x.tif", array, photometric="minisblack", planarconfig="contig")
    with pytest.raises(MedexpError, match="an 8-bit grey TIFF of 7 samples a pixel: such a file"):
        read_image(tmp_path / "x.tif")


def test_a_compression_that_is_not_read_is_named(tmp_path):
    path = tmp_path / "x.tif"
    Image.fromarray(values("uint8", 9, 12)).save(path)
    for method, words in ((34887, "LERC"), (7777, "method 7777")):
        data = bytearray(path.read_bytes())
        (at,) = struct.unpack("<I", data[4:8])
        tags = range(at + 2, at + 2 + 12 * struct.unpack("<H", data[at : at + 2])[0], 12)
        (entry,) = [tag for tag in tags if data[tag : tag + 2] == struct.pack("<H", 259)]
        data[entry + 8 : entry + 10] = struct.pack("<H", method)
        path.write_bytes(data)
        with pytest.raises(
            MedexpError, match=f"8-bit grey TIFF compressed by {words}(:| .which needs)"
        ):
            read_image(path)


def test_a_tiff_without_dimensions(tmp_path):
    path = tmp_path / "x.tif"
    Image.fromarray(values("uint8", 9, 12)).save(path)
    data = bytearray(path.read_bytes())
    (at,) = struct.unpack("<I", data[4:8])
    data[at + 2 : at + 4] = struct.pack("<H", 250)  # its width becomes an unknown tag
    path.write_bytes(data)
    with pytest.raises(MedexpError, match=r"x.tif cannot be decoded \(its header gives no width"):
        read_image(path)


def test_whatever_a_decoder_raises_is_that_files_fault(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    Image.fromarray(values("uint8", 9, 12)).save(path)
    for error in (
        KeyError("mode"),
        TypeError("'NoneType'"),
        MemoryError(),
        struct.error("4 bytes"),
    ):

        def fail(self, error=error):
            raise error

        monkeypatch.setattr(Image.Image, "load", fail)
        monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
        with pytest.raises(
            MedexpError, match=r"x.png cannot be decoded \(.+\): it is damaged, cut"
        ):
            read_image(path)


def test_flipped_bytes_give_pixels_or_a_named_error(tmp_path):
    """A hundred mutations of a file of each kind: nothing but an image or a MedexpError."""
    array = values("uint8", 16, 16, 3)
    kinds = []
    for suffix in ("png", "tif", "bmp", "gif", "jpg", "jp2", "ppm", "tga", "webp"):
        Image.fromarray(array).save(tmp_path / f"8.{suffix}")
        kinds.append(tmp_path / f"8.{suffix}")
    tifffile.imwrite(tmp_path / "16.tif", values("uint16", 16, 16, 3), photometric="rgb")
    kinds += [tmp_path / "16.tif", png(tmp_path / "16.png", values("uint16", 16, 16, 4), 6)]
    random = np.random.default_rng(1)
    for path in kinds:
        whole = path.read_bytes()
        for _ in range(100):
            data = bytearray(whole[: random.integers(len(whole) // 2, len(whole) + 1)])
            for at in random.integers(0, min(len(data), 200), 3):
                data[at] = random.integers(256)
            path.write_bytes(data)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    image, _ = read_image(path, scale="full")
                assert image.ndim == 3 and np.isfinite(image).all()
            except MedexpError as error:
                assert str(path) in str(error)
