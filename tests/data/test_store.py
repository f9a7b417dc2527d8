"""The cache of decoded images: built once, found again, whole or absent, never stale."""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from medexp.data import base, digests, store
from medexp.data import decode as decoding
from medexp.data.base import Pool, Rows, Split
from medexp.data.cache import clear, entries
from medexp.errors import MedexpError

SHAPE = (5, 6, 2)


def pixels(row, dtype=np.uint8):
    return np.random.default_rng(row).integers(0, 255, SHAPE).astype(dtype)


def make_pool(folder, n=30, decode=None, dtype=np.uint8, **settings):
    """A pool of n small files; the calls of its reader are listed in .calls of the function."""
    files = [Path(folder) / f"{row}.bin" for row in range(n)]
    for row, file in enumerate(files):
        if not file.exists():
            file.write_bytes(bytes([row]))

    def plain(row):
        plain.calls.append(row)
        return pixels(row, dtype), {"row": row}

    plain.calls = []
    return Pool(
        name="mine",
        classes=("a", "b"),
        labels=np.arange(n) % 2,
        ids=np.arange(n).astype(str),
        files=files,
        shape=SHAPE,
        dtype=dtype,
        decode=decode or plain,
        settings=settings,
    )


def key(pool):
    return store.key_of(pool, digests.file_digests(pool))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDEXP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


def test_decoded_once_and_mapped(folder):
    pool = make_pool(folder)
    found = store.stored(pool)
    assert isinstance(found.array, np.memmap) and not found.array.flags.writeable
    assert np.array_equal(found.array, np.stack([pixels(row) for row in range(30)]))
    assert found.failed == {} and found.facts[7] == {"row": 7}
    pool.decode.calls.clear()
    again = store.stored(pool)
    assert pool.decode.calls == [] and again.facts == found.facts


def change_file(folder, pool):
    (folder / "3.bin").write_bytes(b"other")
    return pool


def touch_file(folder, pool):
    os.utime(folder / "3.bin", ns=(1, 1))
    return pool


@pytest.mark.parametrize(
    ("change", "rebuilt"),
    [
        (change_file, True),
        (touch_file, False),
        (lambda folder, pool: make_pool(folder, crop=4), True),
        (lambda folder, pool: make_pool(folder, 29), True),
        (lambda folder, pool: make_pool(folder, dtype=np.float32), True),
        (lambda folder, pool: make_pool(folder), False),
    ],
)
def test_key_is_of_content_and_settings(folder, change, rebuilt):
    pool = make_pool(folder)
    store.stored(pool)
    changed = change(folder, pool)
    changed.decode.calls.clear()
    store.stored(changed)
    assert bool(changed.decode.calls) == rebuilt


def test_files_of_another_place_with_the_same_bytes_share_an_entry(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first, second = (make_pool(tmp_path / name) for name in ("one", "two"))
    assert key(first) == key(second)


def test_a_changed_reader_never_finds_old_pixels(folder, monkeypatch):
    pool = make_pool(folder)
    before = key(pool)
    monkeypatch.setattr(store, "reader_source", lambda decode: b"another")
    assert key(pool) != before


def test_bytes_are_read_again_only_where_size_or_time_changed(folder, monkeypatch):
    pool = make_pool(folder)
    read = []
    digest_of = digests.digest_of
    monkeypatch.setattr(digests, "digest_of", lambda file: read.append(file) or digest_of(file))
    first = digests.file_digests(pool)
    assert len(read) == 30 and len(set(first)) == 30
    (folder / "5.bin").write_bytes(b"changed")
    (folder / "6.bin").unlink()
    second = digests.file_digests(pool)
    assert read[30:] == [str(folder / "5.bin")]
    assert second[6] == "unreadable: No such file or directory"
    assert [i for i in range(30) if first[i] != second[i]] == [5, 6]


def test_failures_are_kept_with_their_reasons(folder):
    def decode(row):
        if row % 10 == 3:
            raise MedexpError(f"file {row} is cut short")
        return pixels(row), {}

    found = store.stored(make_pool(folder, decode=decode))
    assert found.failed == {row: f"file {row} is cut short" for row in (3, 13, 23)}
    assert np.array_equal(found.array[4], pixels(4))
    assert store.stored(make_pool(folder, decode=decode)).failed == found.failed


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            np.zeros((5, 5, 2), np.float32),
            r"7: decoded to \(5, 5, 2\) float32, where the reader pr",
        ),
        (
            np.zeros(SHAPE, np.float64),
            "decoded to .* float64, where the reader promised .* float32",
        ),
        (np.full(SHAPE, np.nan, np.float32), r"7\.bin \(7\): has NaN or infinite pixels"),
        (np.full(SHAPE, -np.inf, np.float32), "has NaN or infinite pixels"),
    ],
)
def test_what_a_reader_returns_is_checked(folder, image, message):
    def decode(row):
        return (image if row == 7 else pixels(row, np.float32)), {}

    failed = store.stored(make_pool(folder, decode=decode, dtype=np.float32)).failed
    assert list(failed) == [7]
    with pytest.raises(MedexpError, match=message):
        raise MedexpError(failed[7])


def test_where_nothing_can_be_read_not_all_is_tried(folder):
    tried = []

    def decode(row):
        tried.append(row)
        raise MedexpError("smaller than a crop of 400x400")

    with pytest.raises(
        MedexpError, match="none of 4 images tried can be read: smaller than a crop"
    ):
        store.stored(make_pool(folder, decode=decode))
    assert len(tried) == 4


def test_a_defect_of_the_reader_is_raised_and_loses_nothing(folder, cache, monkeypatch):
    calls = []

    def decode(row):
        calls.append(row)
        if row == 20 and decode.broken:
            raise ZeroDivisionError("a defect")
        return pixels(row), {"row": row}

    decode.broken = True
    monkeypatch.setattr(decoding, "BLOCK_BYTES", 1)
    monkeypatch.setattr(decoding, "FLUSH_SECONDS", 0)
    with pytest.raises(ZeroDivisionError):
        store.stored(make_pool(folder, decode=decode))
    assert not list((cache / "arrays").glob("mine-*"))
    (listing,) = (cache / "arrays").glob(".mine-*.building/rows.jsonl")
    rows = [json.loads(line)["row"] for line in listing.read_text().splitlines()]
    assert rows == list(range(len(rows))) and rows  # each once, whenever it was written
    calls.clear()
    decode.broken = False
    found = store.stored(make_pool(folder, decode=decode))
    assert len(calls) < 30 and np.array_equal(found.array[2], pixels(2))
    assert found.facts == {row: {"row": row} for row in range(30)}


def test_what_a_killed_build_left_of_another_shape_is_built_again(folder, cache):
    pool = make_pool(folder)
    left = cache / "arrays" / f".mine-{key(pool)}.building"
    left.mkdir(parents=True)
    np.save(left / "images.npy", np.zeros((2, 3), np.uint8))
    (left / "rows.jsonl").write_text('{"row": 0, "facts": {}}\n')
    assert np.array_equal(store.stored(pool).array, np.stack([pixels(r) for r in range(30)]))


def test_opencv_has_one_thread_while_rows_are_decoded_in_parallel(folder):
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    seen = set()

    def decode(row):
        seen.add(cv2.getNumThreads())
        return pixels(row), {}

    try:
        decoding.build(make_pool(folder, decode=decode), folder)
        seen_after = cv2.getNumThreads()
    finally:
        cv2.setNumThreads(before)
    assert 1 in seen and seen_after == 3


def test_a_file_that_could_not_be_read_is_read_again(folder, monkeypatch):
    pool = make_pool(folder, 3)
    whole = digests.digest_of
    monkeypatch.setattr(digests, "digest_of", lambda file: "unreadable: Permission denied")
    assert set(digests.file_digests(pool)) == {"unreadable: Permission denied"}
    monkeypatch.setattr(digests, "digest_of", whole)
    assert digests.file_digests(pool) == [whole(str(file)) for file in pool.files]


def test_images_of_one_file_have_no_digests_of_their_own(folder):
    pool = make_pool(folder)
    assert len(store.stored(pool).digests) == 30
    assert store.stored(replace(pool, files=[pool.files[0]] * 30)).digests is None


def slow(row):
    time.sleep(0.02)
    return pixels(row), {}


def build_in_process(folder, cache, log):
    os.environ["MEDEXP_CACHE"] = str(cache)
    decoding.FLUSH_SECONDS = 0.1

    def decode(row):
        with open(log, "a") as file:
            file.write(f"{row}\n")
        return slow(row)

    store.stored(make_pool(folder, 100, decode=decode))


def start(*arguments):
    context = multiprocessing.get_context("fork")
    process = context.Process(target=build_in_process, args=arguments)
    process.start()
    return process


def test_two_processes_build_once(folder, cache, tmp_path):
    make_pool(folder, 100)
    both = [start(folder, cache, tmp_path / "log") for _ in range(2)]
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    rows = (tmp_path / "log").read_text().split()
    assert len(rows) == 101  # one was tried first, to see whether any can be read
    assert len(list((cache / "arrays").glob("mine-*"))) == 1


def test_a_killed_build_leaves_no_entry_and_goes_on(folder, cache, tmp_path):
    make_pool(folder, 100)
    process = start(folder, cache, tmp_path / "log")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        lines = list((cache / "arrays").glob(".mine-*.building/rows.jsonl"))
        if lines and lines[0].read_text().count("\n") > 20:
            break
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not list((cache / "arrays").glob("mine-*"))
    assert [entry["kind"] for entry in entries()] == ["building"]
    with open(lines[0], "a") as file:
        file.write('{"row": 99, "fac')  # killed in the middle of a line
    kept = lines[0].read_text().count("\n")
    again = start(folder, cache, tmp_path / "log2")
    again.join(60)
    assert again.exitcode == 0
    assert len((tmp_path / "log2").read_text().split()) == 100 - kept
    found = np.load(next((cache / "arrays").glob("mine-*/images.npy")))
    assert np.array_equal(found, np.stack([pixels(row) for row in range(100)]))


def test_a_disk_that_is_too_small_is_refused_before(folder, monkeypatch):
    monkeypatch.setattr(decoding.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    calls = []
    pool = make_pool(folder, decode=lambda row: calls.append(row))
    with pytest.raises(
        MedexpError, match=r"its 30 decoded images take 0.0 GB, and .*MEDEXP_CACHE="
    ):
        store.stored(pool)
    assert calls == [] and entries() == []


def test_a_full_disk_is_an_error_and_no_crash(folder, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decoding.os, "posix_fallocate", full)
    with pytest.raises(MedexpError, match=r"no room for 0.0 GB \(No space left on device\)"):
        store.stored(make_pool(folder))


def test_a_damaged_entry_is_named(folder, cache):
    store.stored(make_pool(folder))
    entry = next((cache / "arrays").glob("mine-*"))
    (entry / "images.npy").write_bytes(b"x" * 200)
    with pytest.raises(MedexpError, match=f"{entry}: damaged .* Remove it"):
        store.stored(make_pool(folder))


def test_a_cache_that_cannot_be_written_is_named(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MEDEXP_CACHE", str(tmp_path / "file"))
    with pytest.raises(MedexpError, match=r"MEDEXP_CACHE="):
        store.stored(make_pool(folder))


def test_pixels_that_lie_ready_are_not_copied():
    images = np.zeros((4, 3, 3, 1), np.float32)
    pool = Pool.of_array("a", ("x", "y"), images, np.array([0, 1, 0, 1]), np.arange(4).astype(str))
    assert store.stored(pool).array is images


def test_entries_and_clear(folder, cache):
    store.stored(make_pool(folder, crop=3))
    (cache / "phantom" / "some-64-0").mkdir(parents=True)
    (cache / "phantom" / "some-64-0" / "x").write_bytes(b"1" * 10_000)
    one, two = entries()
    assert (one["kind"], one["dataset"], one["images"]) == ("arrays", "mine", 30)
    assert one["settings"] == {"crop": 3} and one["bytes"] > 30 * 60
    assert json.dumps(one) and two["name"] == "some-64-0" and two["bytes"] >= 10_000
    freed, busy = clear()
    assert freed == one["bytes"] + two["bytes"] and busy == [] and entries() == []


def test_clear_leaves_what_is_being_built(folder, cache, tmp_path):
    make_pool(folder, 100)
    process = start(folder, cache, tmp_path / "log")
    while not entries():
        time.sleep(0.01)
    _, busy = clear()
    process.join(60)
    assert len(busy) == 1 and process.exitcode == 0


def test_an_entry_lists_only_rows_that_it_has_something_to_say_of(folder, cache):
    def decode(row):
        if row == 3:
            raise MedexpError("cannot be read")
        return pixels(row), {"depth": 7} if row == 5 else {}

    result = store.stored(make_pool(folder, 40, decode=decode))
    assert result.failed == {3: "cannot be read"} and result.facts == {5: {"depth": 7}}
    (listed,) = (cache / "arrays").glob("mine-*/rows.jsonl")
    assert [json.loads(line)["row"] for line in listed.read_text().splitlines()] == [3, 5]


def test_digests_are_remembered_beside_the_array(tmp_path, monkeypatch):
    pool = make_pool(tmp_path)
    array = store.stored(pool).array
    read = []
    digest = base.image_digest
    monkeypatch.setattr(base, "image_digest", lambda image: read.append(1) or digest(image))

    def found(rows, images=array):
        """How many images were read so far, after the digests of these rows are known."""
        split = Split(Rows(images, rows), pool.labels[rows], pool.ids[rows])
        assert store.pixels_of(split).tolist() == [digest(image) for image in split.images]
        done = len(read)
        assert store.fingerprint(split) == split.fingerprint()
        assert len(read) == done  # once a split
        return done

    rows = np.arange(20)
    assert [found(rows), found(rows)] == [20, 20]
    assert found(rows[:5]) == 25
    assert [found(rows, images=np.array(array)) for _ in range(2)] == [45, 65]  # no file
    os.utime(array.filename, (1, 1))
    assert found(rows) == 85
    monkeypatch.setattr(Path, "mkdir", lambda *a, **k: (_ for _ in ()).throw(OSError("read-only")))
    monkeypatch.setattr(np, "load", lambda *a: (_ for _ in ()).throw(OSError("no")))
    assert [found(rows), found(rows)] == [105, 125]
