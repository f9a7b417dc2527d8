"""The cache is whole or absent."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medexp.data.cache import cache_dir, make_once


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
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep"]


def test_two_that_build_at_once_agree(tmp_path):
    def build(number):
        return make_once(tmp_path / "both", lambda f: (f / str(number)).write_text("x"))

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(build, range(8))) == {tmp_path / "both"}
    assert len(list((tmp_path / "both").iterdir())) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["both"]


def test_where(monkeypatch):
    monkeypatch.setenv("MEDEXP_CACHE", "/c")
    assert cache_dir() == Path("/c")
    monkeypatch.delenv("MEDEXP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_dir() == Path("/x/medexp")
