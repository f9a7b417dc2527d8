"""Compressed TIFF samples, held against the arrays that tifffile, OpenCV and Pillow wrote."""

import struct
import zlib
from io import BytesIO
from itertools import product

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from medexp.data.files import read_image
from medexp.data.unpack import CannotUnpackError, unpacked
from tests.data.test_samples import full, values

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32")


def parsed(data):
    return tifffile.TiffFile(BytesIO(data)).pages[0]


@pytest.mark.parametrize("kind, predictor", [*product((*INTEGERS, "float32"), (False, True))])
@pytest.mark.parametrize("layout", ["contig", "separate"])
def test_deflate_by_tifffile(kind, predictor, layout):
    if predictor and kind == "float32":
        pytest.skip("tifffile alone does not write it")
    for channels, order, tile, strip in product((1, 2, 3, 4), "<>", (None, (16, 32)), (4, 100)):
        if layout == "separate" and channels == 1:
            continue
        array = values(kind, 19, 37, channels)
        file = BytesIO()
        tifffile.imwrite(
            file, array if layout == "contig" else np.moveaxis(array, 2, 0),
            photometric="rgb" if channels > 2 else "minisblack", compression="zlib",
            planarconfig=layout if channels > 1 else None, predictor=predictor, byteorder=order,
            tile=tile, rowsperstrip=None if tile else strip, bigtiff=strip == 4,
            extrasamples=["unspecified"] * (channels in (2, 4)),
        )  # fmt: skip
        found = unpacked(file.getvalue(), parsed(file.getvalue()))
        assert found.dtype.kind == array.dtype.kind and np.array_equal(found, array)


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("method", [5, 8, 32773])
def test_a_predictor_of_real_numbers_by_opencv(tmp_path, kind, channels, method):
    array = values(kind, 19, 37, channels).squeeze()
    path = tmp_path / "x.tif"
    options = [cv2.IMWRITE_TIFF_COMPRESSION, method, cv2.IMWRITE_TIFF_PREDICTOR, 3]
    assert cv2.imwrite(str(path), array, options)
    data = path.read_bytes()
    page = parsed(data)
    if int(page.compression) != method or (method != 32773 and int(page.predictor) != 3):
        pytest.skip("this OpenCV does not write it")
    found = unpacked(data, page)
    wanted = array[..., ::-1] if channels == 3 else array[..., None]
    assert np.array_equal(found, wanted)
    assert np.abs(read_image(path, scale=[0, 1])[0] - wanted).max() < 1e-6


@pytest.mark.parametrize("method", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "zstd", "lzma"])
@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_other_methods_by_pillow(tmp_path, method, kind):
    array = values(kind, 19, 37)
    try:
        Image.fromarray(array).save(tmp_path / "x.tif", compression=method)
    except (OSError, KeyError):
        pytest.skip("this Pillow has no such encoder")
    data = (tmp_path / "x.tif").read_bytes()
    assert np.array_equal(unpacked(data, parsed(data))[..., 0], array)


def packed(array, bits):
    """Rows of samples of so many bits, highest first, each row filled up to a byte (TIFF 6.0)."""
    rows = []
    for row in array.reshape(len(array), -1):
        text = "".join(f"{value:0{bits}b}" for value in row.tolist())
        text += "0" * (-len(text) % 8)
        rows.append(bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8)))
    return b"".join(rows)


@pytest.mark.parametrize("bits", [4, 10, 12, 14])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("method", [1, 8])
def test_samples_of_other_than_whole_bytes(tmp_path, bits, channels, order, method):
    array = np.random.default_rng(0).integers(0, 2**bits, (9, 13, channels)).astype(np.uint16)
    block = packed(array, bits) if method == 1 else zlib.compress(packed(array, bits))
    tags = [(256, 13), (257, 9), (258, bits), (259, method), (262, 2 if channels == 3 else 1),
            (277, channels), (278, 9), (279, len(block))]  # fmt: skip
    at = 8 + 2 + 12 * (len(tags) + 1) + 4
    depths = struct.pack(f"{order}{channels}H", *[bits] * channels)
    entries = {tag: struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags}
    entries[273] = struct.pack(f"{order}HHII", 273, 4, 1, at + len(depths))
    if channels == 3:
        entries[258] = struct.pack(f"{order}HHII", 258, 3, 3, at)
    else:
        entries[258] = struct.pack(f"{order}HHIHH", 258, 3, 1, bits, 0)
    data = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(entries))
    data += b"".join(entries[tag] for tag in sorted(entries)) + bytes(4) + depths + block
    assert np.array_equal(unpacked(data, parsed(data)), array)
    (tmp_path / "x.tif").write_bytes(data)
    image, facts = read_image(tmp_path / "x.tif", scale="full")
    assert np.abs(image - array / (2**bits - 1)).max() < 1e-6
    letters = "RGB" if channels == 3 else "L"
    assert facts["mode"] == (letters if bits == 4 else f"{letters}, {bits} bits")


def test_what_is_not_undone_here_is_left_to_others(tmp_path):
    Image.fromarray(values("uint8", 16, 16)).save(tmp_path / "x.tif", compression="jpeg")
    data = (tmp_path / "x.tif").read_bytes()
    with pytest.raises(CannotUnpackError):
        unpacked(data, parsed(data))


@pytest.mark.parametrize("layout", ["contig", "separate"])
@pytest.mark.parametrize("method", ["lzw", "zstd", "packbits"])
@pytest.mark.parametrize("kind", ["uint16", "int8", "float32"])
def test_what_imagecodecs_writes(tmp_path, monkeypatch, layout, method, kind):
    """Where it is installed tifffile reads these on its own, so they are unpacked here too."""
    pytest.importorskip("imagecodecs")
    array = values(kind, 19, 37, 3)
    for predictor, tile in product((False, method != "packbits"), (None, (16, 16))):
        tifffile.imwrite(
            tmp_path / "x.tif", array if layout == "contig" else np.moveaxis(array, 2, 0),
            photometric="rgb", planarconfig=layout, compression=method, predictor=predictor,
            tile=tile,
        )  # fmt: skip
        data = (tmp_path / "x.tif").read_bytes()
        assert np.array_equal(unpacked(data, parsed(data)), array)
        image, _ = read_image(tmp_path / "x.tif", scale=[0, 1] if kind == "float32" else "full")
        assert np.abs(image - (array if kind == "float32" else full(array))).max() < 1e-6
