import struct
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from medexp.data.base import Pool
from medexp.data.read.ucf50 import INFO, PAPER, load
from medexp.errors import ConfigError, MedexpError

EDGES = (48, 36)  # width, height
TWO = ["Rowing", "Mixing"]


def write_clip(path, frames, seed=0):
    """A Motion JPEG of moving colours; every frame differs from all others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    code = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, code, 25.0, EDGES)
    assert writer.isOpened()
    picture = np.random.default_rng(seed).integers(0, 256, (EDGES[1], EDGES[0], 3), dtype=np.uint8)
    picture = cv2.GaussianBlur(picture, (0, 0), 2)
    for number in range(frames):
        writer.write(np.roll(picture, number, axis=1) // 2 + np.uint8(number))
    writer.release()
    return path


def read_clip(path, numbers, size):
    """The frames of these numbers, read one by one as the authors' notebook does."""
    video = cv2.VideoCapture(str(path))
    images, number = [], 0
    while True:
        success, image = video.read()
        if not success:
            break
        if number in numbers:
            image = cv2.resize(image, (size, size))
            images.append(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
        number += 1
    return np.asarray(images)[..., None]


def promise(path, frames):
    """Make both headers of an AVI file, of the file and of its stream, tell so many frames."""
    data = bytearray(path.read_bytes())
    for place in (48, data.index(b"strh") + 8 + 32):
        data[place : place + 4] = struct.pack("<I", frames)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All ten classes, two clips of 12 frames each; never written to."""
    root = tmp_path_factory.mktemp("whole")
    for label, name in enumerate(PAPER):
        for clip in (1, 2):
            write_clip(root / name / f"v_{name}_g{label + 1:02d}_c{clip:02d}.avi", 12, label + clip)
    return root


@pytest.fixture
def root(tmp_path):
    """Two classes, three clips each of 12, 13 and 14 frames."""
    for name in TWO:
        for clip in (1, 2, 3):
            stem = f"v_{name}_g{(clip + 1) // 2:02d}_c{clip:02d}"
            write_clip(tmp_path / name / f"{stem}.avi", 11 + clip, clip)
    return tmp_path


def two(root, **arguments):
    return load(root, **{"classes": TWO, "frames": 10, "size": 24, **arguments})


# Listing


def test_pool_lists_the_papers_classes_in_the_authors_order(whole):
    pool = load(whole, frames=10, size=24)
    assert isinstance(pool, Pool)
    assert pool.classes == PAPER == INFO.classes
    assert pool.labels.tolist() == [label for label in range(10) for _ in range(2)]
    assert pool.ids[2] == "TennisSwing/v_TennisSwing_g02_c01.avi"
    assert pool.groups[:4].tolist() == ["Mixing/g01"] * 2 + ["TennisSwing/g02"] * 2
    assert pool.files[2] == whole / "TennisSwing" / "v_TennisSwing_g02_c01.avi"
    assert (pool.shape, pool.dtype) == ((10, 24, 24, 1), np.float16)
    assert pool.settings == {
        "frames": 10, "size": 24, "sampling": "first", "short": "drop", "scale": "raw",
    }  # fmt: skip
    assert pool.notes == () and pool.parts is None and pool.public is None


def test_number_of_public_clips_is_known_for_the_papers_own_settings(tmp_path):
    for name in PAPER:
        write_clip(tmp_path / name / f"v_{name}_g01_c01.avi", 70)
    assert load(tmp_path, size=24).public == 1366
    assert load(tmp_path, size=24, frames=60).public is None
    assert load(tmp_path, size=24, short="pad").public is None
    assert load(tmp_path, size=24, classes="all").public is None


def test_other_classes_by_name_or_all(root):
    pool = two(root)
    assert pool.classes == ("Rowing", "Mixing") and pool.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert pool.groups[:3].tolist() == ["Rowing/g01", "Rowing/g01", "Rowing/g02"]
    pool = two(root, classes="all")
    assert pool.classes == ("Mixing", "Rowing") and pool.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_folder_that_the_archive_makes_is_entered(root):
    inner = root / "UCF50"
    inner.mkdir()
    for name in TWO:
        (root / name).rename(inner / name)
    pool = two(root)
    assert pool.ids[0] == "Rowing/v_Rowing_g01_c01.avi"
    assert pool.files[0] == inner / pool.ids[0]


def test_extension_in_capitals_counts_and_other_files_do_not(root):
    path = root / "Mixing" / "v_Mixing_g01_c01.avi"
    path.rename(path.with_suffix(".AVI"))
    (root / "Mixing" / "Thumbs.db").write_bytes(b"x")
    (root / "Mixing" / "._v_Mixing_g01_c01.avi").write_bytes(b"x")
    assert two(root).ids[3] == "Mixing/v_Mixing_g01_c01.AVI" and len(two(root)) == 6


def test_header_tells_what_opencv_counts(root):
    for path in root.rglob("*.avi"):
        pool = two(root)
        row = pool.files.index(path)
        count = cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT)
        assert pool.decode(row)[1] == {"frames": count, "size": list(EDGES)}


def test_short_clips_are_dropped_and_noted(root):
    pool = two(root, frames=13)
    assert [name[-7:] for name in pool.ids] == ["c02.avi", "c03.avi"] * 2
    assert pool.notes == ("2 clips shorter than 13 frames dropped",)


# Decoding


@pytest.mark.parametrize("size", [24, 60])
def test_first_frames_equal_a_loop_over_the_clip(root, size):
    pool = two(root, size=size)
    for row, path in enumerate(pool.files):
        image, _ = pool.decode(row)
        assert image.shape == pool.shape and image.dtype == np.float16
        assert np.array_equal(image, read_clip(path, range(10), size))


def test_even_frames_run_from_the_first_to_the_last(root):
    pool = two(root, frames=4, sampling="even")
    for row, path in enumerate(pool.files):
        last = 11 + row % 3
        numbers = [0, round(last / 3), round(2 * last / 3), last]
        assert np.array_equal(pool.decode(row)[0], read_clip(path, numbers, 24))


def test_unit_is_the_same_in_bytes(root):
    raw, unit = two(root), two(root, scale="unit")
    assert unit.dtype == np.uint8 and unit.decode(1)[0].dtype == np.uint8
    assert np.array_equal(unit.decode(1)[0], raw.decode(1)[0])
    assert raw.decode(1)[0].max() > 1


@pytest.mark.parametrize("sampling", ["first", "even"])
def test_pad_repeats_the_last_frame(root, sampling):
    pool = two(root, frames=13, short="pad", sampling=sampling)
    assert len(pool) == 6 and pool.notes == ()
    image, facts = pool.decode(0)
    read = read_clip(pool.files[0], range(13), 24)
    assert len(read) == 12 and facts["frames"] == 12
    assert np.array_equal(image, np.concatenate([read, read[-1:]]))


def test_threads_get_what_one_gets(root):
    pool = two(root)
    rows = list(range(len(pool))) * 4
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda row: pool.decode(row)[0], rows))
    assert all(
        np.array_equal(image, pool.decode(row)[0]) for row, image in zip(rows, made, strict=True)
    )


# Missing and damaged files


@pytest.mark.parametrize("classes", ["paper", "all", TWO])
@pytest.mark.parametrize("folder", ["", "gone"])
def test_missing_folder_names_all_that_a_user_needs(tmp_path, folder, classes):
    with pytest.raises(MedexpError) as error:
        load(tmp_path / folder, classes=classes)
    text = str(error.value)
    for part in (str(tmp_path / folder), INFO.url, "3.2 GB", "licence none", "source=phantom"):
        assert part in text
    assert len(text.splitlines()) <= 3


def test_missing_class_of_the_paper_is_named(root):
    with pytest.raises(MedexpError, match=r"missing TennisSwing/, HorseRiding/, .*, Skijet/\n"):
        load(root)


def test_class_without_clips_is_named(root):
    (root / "Skijet").mkdir()
    with pytest.raises(MedexpError, match=r"Skijet holds no \.avi clip"):
        two(root, classes="all")


def test_class_of_short_clips_alone_is_named(root):
    for path in sorted((root / "Mixing").iterdir())[1:]:
        path.unlink()
    message = (
        r"Mixing: every clip is shorter than dataset.frames=13 \(the longest has 12\).*short=pad"
    )
    with pytest.raises(MedexpError, match=message):
        two(root, frames=13)


def test_name_without_group_is_refused(root):
    write_clip(root / "Mixing" / "own.avi", 12)
    with pytest.raises(MedexpError, match=r"own.avi: its name does not end in _g<group>_c<clip>"):
        two(root)


def test_clip_that_links_out_of_the_folder_is_refused(root, tmp_path_factory):
    outside = write_clip(tmp_path_factory.mktemp("outside") / "x.avi", 12)
    (root / "Mixing" / "v_Mixing_g09_c01.avi").symlink_to(outside)
    with pytest.raises(MedexpError, match=r"v_Mixing_g09_c01.avi: a symbolic link that leads out"):
        two(root)


def test_class_that_links_out_of_the_folder_is_refused(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    write_clip(outside / "v_Skijet_g01_c01.avi", 12)
    (root / "Skijet").symlink_to(outside)
    with pytest.raises(MedexpError, match="Skijet: a symbolic link that leads out"):
        two(root, classes="all")


def damaged(root, change):
    """The message of decoding a clip whose bytes were changed; the other clips stay readable."""
    path = root / "Mixing" / "v_Mixing_g01_c01.avi"
    path.write_bytes(change(path.read_bytes()))
    pool = two(root)
    assert len(pool) == 6  # listing does not fail for one clip: on_error=skip can leave it out
    assert pool.decode(4)[0].shape == pool.shape
    with pytest.raises(MedexpError) as error:
        pool.decode(3)
    text = str(error.value)
    assert str(path) in text and "on_error=skip" in text and len(text.splitlines()) <= 3
    return text


@pytest.mark.parametrize("keep", [0, 30, 55])
def test_clip_without_a_whole_header_is_named(root, keep):
    text = damaged(root, lambda data: data[:keep])
    assert f"no AVI header that gives a number of frames ({keep} " in text


def test_clip_that_is_something_else_is_named(root):
    assert "no AVI header" in damaged(root, lambda data: b"<html>not found</html>" * 20)


def test_clip_of_no_frames_is_named(root):
    text = damaged(root, lambda data: data[:48] + bytes(4) + data[52:])
    assert "no AVI header that gives a number of frames" in text


def test_clip_that_ends_behind_its_header_is_named(root):
    text = damaged(root, lambda data: data[:200])
    assert "cannot be opened as a video (200 of " in text and "bytes: cut short)" in text


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_truncated_clip_is_named(root, share):
    text = damaged(root, lambda data: data[: int(share * len(data))])
    assert " of the 10 frames needed can be decoded, though its header promises 12" in text
    assert "bytes: cut short)" in text and "dataset.short=pad" in text


def test_clip_with_fewer_frames_than_its_header_says(root):
    for path in root.rglob("*.avi"):
        promise(path, 40)
    pool = two(root, frames=20)
    with pytest.raises(MedexpError, match="12 of the 20 frames needed .* promises 40 in all"):
        pool.decode(0)
    padded, facts = two(root, frames=20, short="pad").decode(0)
    read = read_clip(pool.files[0], range(20), 24)
    assert len(read) == 12 and facts["frames"] == 40
    assert np.array_equal(padded, np.concatenate([read, *[read[-1:]] * 8]))


def test_file_that_cannot_be_read_is_named(root):
    path = root / "Mixing" / "v_Mixing_g01_c01.avi"
    pool = two(root)
    path.unlink()
    with pytest.raises(MedexpError, match=r"v_Mixing_g01_c01.avi cannot be opened as a video \(No"):
        pool.decode(3)


# Wrong arguments


def test_unknown_class_is_refused_with_the_nearest(root):
    message = r"dataset.classes: no folder Mixin in .*Did you mean 'Mixing'\? Valid: Mixing, Rowing"
    with pytest.raises(ConfigError, match=message):
        two(root, classes=["Rowing", "Mixin"])


@pytest.mark.parametrize("name", ["..", "../outside", "Mixing/..", "/etc"])
def test_path_is_no_class(root, name):
    with pytest.raises(ConfigError, match="dataset.classes: no folder "):
        two(root, classes=["Rowing", name])


def test_classes_as_one_word(root):
    with pytest.raises(ConfigError, match=r"dataset.classes=papers: need paper, all or a list"):
        two(root, classes="papers")


@pytest.mark.parametrize("classes", [[], ["Mixing"], ["Mixing", "Rowing", "Mixing"]])
def test_too_few_classes_or_one_twice(root, classes):
    with pytest.raises(ConfigError, match=r"dataset.classes=\[.*\]: need two classes or more"):
        two(root, classes=classes)


@pytest.mark.parametrize(
    ("key", "value", "near"),
    [("sampling", "evn", "even"), ("short", "padd", "pad"), ("scale", "units", "unit")],
)
def test_unknown_choice_is_refused_with_the_nearest(root, key, value, near):
    with pytest.raises(ConfigError, match=f"dataset.{key}={value}: .* Did you mean '{near}'"):
        two(root, **{key: value})


@pytest.mark.parametrize("key", ["frames", "size"])
def test_impossible_numbers_are_refused(root, key):
    with pytest.raises(ConfigError, match=rf"dataset.{key}=0: need 1 or more"):
        two(root, **{key: 0})
