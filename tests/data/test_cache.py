"""The cache is whole or absent."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medexp.data.cache import cache_dir, make_once
from medexp.errors import MedexpError


def visible(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def test_made_once_and_never_half(tmp_path):
    calls = []

    def write(folder):
        calls.append(folder)
        (folder / "a").write_text("1")

    target = tmp_path / "deep" / "made"
    assert make_once(target, write) == target == make_once(target, write)
    assert len(calls) == 1 and (target / "a").read_text() == "1"

    def broken(folder):
        (folder / "a").write_text("1")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        make_once(tmp_path / "broken", broken)
    assert visible(tmp_path) == ["deep"]


def test_what_a_killed_build_left_is_kept_where_asked(tmp_path):
    def broken(folder):
        (folder / "a").write_text("1")
        raise KeyboardInterrupt

    def rest(folder):
        (folder / "b").write_text((folder / "a").read_text() + "2")

    with pytest.raises(KeyboardInterrupt):
        make_once(tmp_path / "x", broken, resume=True)
    assert visible(tmp_path) == [".x.building"]
    assert (make_once(tmp_path / "x", rest, resume=True) / "b").read_text() == "12"
    with pytest.raises(KeyboardInterrupt):
        make_once(tmp_path / "y", broken, resume=True)
    with pytest.raises(FileNotFoundError):
        make_once(tmp_path / "y", rest)


def test_of_several_that_start_together_one_builds(tmp_path):
    built = []

    def write(folder):
        built.append(folder)
        time.sleep(0.2)

    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(lambda _: make_once(tmp_path / "both", write), range(8)))
    assert made == {tmp_path / "both"} and len(built) == 1
    assert visible(tmp_path) == ["both"]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MedexpError, match=r"the cache cannot be written .*MEDEXP_CACHE="):
        make_once(tmp_path / "file" / "x", lambda folder: None)


def test_where(monkeypatch):
    monkeypatch.setenv("MEDEXP_CACHE", "/c")
    assert cache_dir() == Path("/c")
    monkeypatch.delenv("MEDEXP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_dir() == Path("/x/medexp")
