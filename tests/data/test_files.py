"""Every way in which a file can be wrong has its message."""

import builtins
import os
import struct
import zlib

import h5py
import numpy as np
import pytest
from PIL import Image

from medexp.data import files
from medexp.errors import MedexpError
from medexp.runs.files import csv_rows

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)


def saved(folder, name, pixels=PIXELS, **options):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


# ---------------------------------------------------------------- folders


def test_find_is_sorted_and_knows_endings_in_any_case(tmp_path):
    for name in ("b/2.PNG", "a/1.jpg", "a/.hidden.png", "__MACOSX/a/1.png", "c.txt", "b/x.tiff"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = [path.relative_to(tmp_path).as_posix() for path in files.find(tmp_path)]
    assert found == ["a/1.jpg", "b/2.PNG", "b/x.tiff"]
    (tmp_path / "b" / "linked.png").symlink_to(tmp_path / "a")  # to a folder: no image
    assert len(files.find(tmp_path)) == 3
    assert [folder.name for folder in files.subfolders(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/x.png", "", "a\0b", "..\\x.png"])
def test_a_path_that_leads_out_is_refused(tmp_path, name):
    with pytest.raises(MedexpError, match="not a plain path below"):
        files.inside(tmp_path, name)


@pytest.mark.parametrize("link", ["file", "folder"])
def test_a_link_that_leads_out_is_refused(tmp_path, link):
    outside = saved(tmp_path, "outside/x.png")
    (tmp_path / "root").mkdir()
    name = "x.png" if link == "file" else "sub"
    (tmp_path / "root" / name).symlink_to(outside if link == "file" else outside.parent)
    message = "a symbolic link that leads out of .*root, to .*outside"
    with pytest.raises(MedexpError, match=message):
        files.inside(tmp_path / "root", "x.png" if link == "file" else "sub/x.png")
    with pytest.raises(MedexpError, match=message):
        files.find(tmp_path / "root")


def test_links_within_the_tree_and_a_root_that_is_a_link_are_fine(tmp_path):
    saved(tmp_path, "real/a/x.png")
    (tmp_path / "real" / "a" / "y.png").symlink_to("x.png")
    (tmp_path / "root").symlink_to(tmp_path / "real")
    assert len(files.find(tmp_path / "root")) == 2


def test_a_link_to_itself(tmp_path):
    (tmp_path / "x.png").symlink_to("x.png")
    with pytest.raises(MedexpError, match=r"x.png: a symbolic link that leads to itself"):
        files.find(tmp_path)


def test_missing_folder_and_one_that_cannot_be_listed(tmp_path, monkeypatch):
    with pytest.raises(
        MedexpError, match="no such folder; class folders are expected. Name it with"
    ):
        files.folder(tmp_path / "gone", "class folders are expected")

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "iterdir", refuse)
    with pytest.raises(MedexpError, match=r"cannot be listed \(Permission denied\)"):
        files.folder(tmp_path, "")


# ---------------------------------------------------------------- images


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK"])
def test_modes_equal_pillows_conversion(tmp_path, mode):
    image = Image.fromarray(PIXELS).convert(mode)
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    image.save(path)
    grey = mode in ("L", "LA", "1")
    oracle = np.asarray(Image.open(path).convert("L" if grey else "RGB"))  # all is opaque
    found, facts = files.read_image(path)
    assert np.array_equal(found, oracle.reshape(20, 30, -1)) and found.shape[2] == (
        1 if grey else 3
    )
    assert facts == {"size": [30, 20], "mode": mode}
    assert files.read_image(path, "L")[0].shape == (20, 30, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_image_upright(tmp_path, orientation):
    """Each of EXIF's eight orientations, against its definition by transpositions."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, "x.png", exif=exif)
    upright = {
        1: PIXELS, 2: PIXELS[:, ::-1], 3: PIXELS[::-1, ::-1], 4: PIXELS[::-1],
        5: PIXELS.transpose(1, 0, 2), 6: np.rot90(PIXELS, -1),
        7: PIXELS[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(PIXELS),
    }[orientation]  # fmt: skip
    assert np.array_equal(files.read_image(path)[0], upright)


@pytest.mark.parametrize("ending", ["jpg", "bmp", "tif", "png"])
@pytest.mark.parametrize("keep", [0, 10, 200])
def test_a_truncated_image_is_named(tmp_path, ending, keep):
    path = saved(tmp_path, f"x.{ending}")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(MedexpError, match=rf"{path} cannot be decoded \(.*on_error=skip"):
        files.read_image(path)


def test_other_files_that_are_no_image(tmp_path):
    (tmp_path / "x.png").write_text("<html>")
    with pytest.raises(MedexpError, match="cannot be decoded"):
        files.read_image(tmp_path / "x.png")
    with pytest.raises(MedexpError, match=r"cannot be decoded \(No such file or directory\)"):
        files.read_image(tmp_path / "gone.png")


def test_an_image_that_may_not_be_read(tmp_path, monkeypatch):
    path = saved(tmp_path, "x.png")
    if os.geteuid():
        path.chmod(0)
    else:  # root may read everything
        opened = builtins.open

        def refuse(file, *arguments, **options):
            if str(file) == str(path):
                raise PermissionError(13, "Permission denied")
            return opened(file, *arguments, **options)

        monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(MedexpError, match=r"x.png cannot be decoded \(Permission denied\)"):
        files.read_image(path)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 12_000, 12_000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9)))
    )
    with pytest.raises(MedexpError, match=r"bomb.png: 12000x12000 pixels, .* decompression bomb"):
        files.read_image(path)


def test_a_tiff_of_several_pages(tmp_path):
    page = Image.fromarray(PIXELS)
    page.save(tmp_path / "x.tif", save_all=True, append_images=[page, page])
    with pytest.raises(MedexpError, match="x.tif: 3 pages or frames. Save the one that is meant"):
        files.read_image(tmp_path / "x.tif")


def test_sixteen_bits_need_a_window(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 200).save(path)
    with pytest.raises(
        MedexpError, match=r"a 16-bit grey PNG: which .* Save it with 8 bits, windowed"
    ):
        files.read_image(path)


# ---------------------------------------------------------------- tables and HDF5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"has no column id, label in its header \(empty file\)"),
        (b"id,name\n1,2\n", r"has no column label in its header \(id, name\)"),
        (b"id,label\n1\n", "line 2: too few cells: need id, label"),
        (b"id,label\n\xe9,1\n", r"is not UTF-8 text \(.* at byte 9\): save it as UTF-8"),
        (b'id,label\n"' + b"x" * 200_000 + b'",1\n', "cannot be read as CSV"),
    ],
)
def test_a_broken_table_is_named(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(MedexpError, match=message):
        list(csv_rows(path, ("id", "label")))


def test_tables_as_spreadsheets_write_them(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("\ufeffid,label\r\nä,1\r\n".encode())
    assert list(csv_rows(path, ("id",))) == [(2, {"id": "ä", "label": "1"})]
    with pytest.raises(MedexpError, match="gone.csv cannot be read"):
        list(csv_rows(tmp_path / "gone.csv"))


def test_hdf5_is_read_by_row_and_its_faults_are_named(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "x", data=np.arange(40).reshape(20, 2), chunks=(3, 2), compression="gzip"
        )
        file["none"] = np.empty((0, 2))
    row = files.hdf5_rows(path, "x", block=7)
    assert all(np.array_equal(row(i), [2 * i, 2 * i + 1]) for i in (0, 19, 6, 7, 13, 1))
    with files.hdf5(path) as file:
        with pytest.raises(MedexpError, match=r"has no dataset 'y' \(it has: none, x\)"):
            files.hdf5_dataset(file, path, "y")
        with pytest.raises(MedexpError, match=r"none is empty, shape \(0, 2\)"):
            files.hdf5_dataset(file, path, "none")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(MedexpError, match="x.h5 cannot be read as HDF5, it may be cut short"):
        files.hdf5_rows(path, "x")(3)


def test_a_filter_that_h5py_lacks_is_no_damage(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.zeros((20, 2)), chunks=(20, 2), compression="gzip")
    data = path.read_bytes()
    deflate = struct.pack("<HH", 1, 8)
    at = data.index(b"deflate") - 8
    assert data[at : at + 4] == deflate
    path.write_bytes(data[:at] + struct.pack("<HH", 32015, 8) + data[at + 4 :])  # Zstandard
    with pytest.raises(
        MedexpError, match=r"x.h5: compressed by a filter that h5py lacks \(.* gzip"
    ):
        files.hdf5_rows(path, "x")(3)


def test_an_hdf5_file_holds_its_own_values(tmp_path):
    """Links, storage and virtual sets in other files are refused, before those are opened."""
    values = np.arange(12, dtype=np.uint8).reshape(6, 2)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = values
    (tmp_path / "raw").write_bytes(values.tobytes())
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "x", values.shape)
    with h5py.File(tmp_path / "set.h5", "w") as file:
        file["group/x"] = values
        file["near"] = h5py.SoftLink("/group/x")
        file["group/relative"] = h5py.SoftLink("x")
        file["far"] = h5py.ExternalLink("other.h5", "/x")
        file["pipe"] = h5py.ExternalLink("pipe.h5", "/x")
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/")
        file["through"] = h5py.SoftLink("/elsewhere/x")
        file["loop"] = h5py.SoftLink("/loop")
        file.create_virtual_dataset("virtual", layout)
        raw = [(str(tmp_path / "raw"), 0, values.nbytes)]
        file.create_dataset("raw", values.shape, values.dtype, external=raw)
    os.mkfifo(tmp_path / "pipe.h5")  # opening it would wait for ever
    path = tmp_path / "set.h5"
    for key in ("group/x", "near", "group/relative"):
        np.testing.assert_array_equal(files.hdf5_rows(path, key)(3), values[3])
    for key, message in {
        "far": "far is a link to /x in another file, other.h5",
        "pipe": "pipe is a link to /x in another file, pipe.h5",
        "through": "through is a link to / in another file, other.h5",
        "elsewhere/x": "elsewhere/x is a link to / in another file",
        "loop": "loop is a link that leads to itself",
        "virtual": rf"virtual takes its values from elsewhere \({tmp_path}/other.h5\)",
        "raw": rf"raw takes its values from elsewhere \({tmp_path}/raw\)",
        "none": "has no dataset 'none'",
    }.items():
        with pytest.raises(MedexpError, match=message):
            files.hdf5_rows(path, key)(3)
