"""The same batches whichever way the images take, and each of them the images that were stored."""

import threading

import numpy as np
import pytest
import torch

from medexp.augment import FlipsTurns, Identity
from medexp.data.base import Rows, Split
from medexp.errors import ConfigError
from medexp.score.predict import to_input
from medexp.train.feed import Feed, pick_place

CPU = torch.device("cpu")
N = 50
ARRAY = np.random.default_rng(0).integers(0, 256, (70, 6, 6, 3)).astype(np.uint8)
ROWS = np.random.default_rng(1).permutation(70)[:N]
CUTS = [(0, 16), (16, 32), (32, 50)]


def split(kind, folder, dtype=np.uint8):
    images = ARRAY[ROWS].astype(dtype)
    if kind == "mapped":
        np.save(folder / "a.npy", ARRAY.astype(dtype))
        images = Rows(np.load(folder / "a.npy", mmap_mode="r"), ROWS)
    return Split(images, np.arange(N) % 3, np.arange(N).astype(str))


def feed_of(own, augment, device=CPU, place="auto"):
    return Feed(own, device, augment, classes=3, place=place)


def epoch(feed, augment, cuts=CUTS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(N, generator=generator)
    return order, list(feed.batches(order, augment.draw(N, generator), cuts))


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
@pytest.mark.parametrize("kind", ["memory", "mapped"])
@pytest.mark.parametrize("place", ["device", "stream"])
def test_batches_are_the_stored_images_in_order(tmp_path, kind, place, dtype):
    own = split(kind, tmp_path, dtype)
    order, batches = epoch(feed_of(own, Identity(), place=place), Identity())
    assert [len(x) for x, _ in batches] == [16, 16, 18]
    expected = to_input(torch.from_numpy(ARRAY[ROWS][order.numpy()].astype(dtype)))
    assert torch.equal(torch.cat([x for x, _ in batches]), expected)
    assert torch.equal(torch.cat([t for _, t in batches]), (torch.arange(N) % 3)[order])


def test_every_path_gives_the_same_augmented_batches_to_the_bit(tmp_path):
    augment = FlipsTurns()
    made = {
        (kind, place): epoch(feed_of(split(kind, tmp_path), augment, place=place), augment)[1]
        for kind in ("memory", "mapped")
        for place in ("device", "stream")
    }
    first = made.pop(("memory", "device"))
    plain = epoch(feed_of(split("memory", tmp_path), Identity()), Identity())[1]
    assert not torch.equal(first[0][0], plain[0][0])
    for other in made.values():
        for (x, target), (y, same) in zip(first, other, strict=True):
            assert torch.equal(x, y) and torch.equal(target, same)


def test_augmentation_never_reaches_the_stored_images(tmp_path):
    for kind in ("memory", "mapped"):
        own = split(kind, tmp_path)
        for place in ("device", "stream"):
            epoch(feed_of(own, FlipsTurns(), place=place), FlipsTurns())
        assert np.array_equal(own.images[:], ARRAY[ROWS])


def test_one_copy_in_memory(tmp_path):
    own = split("memory", tmp_path)
    feed = feed_of(own, Identity())
    assert feed.place == "stream" and feed.held.data_ptr() == own.images.ctypes.data


@pytest.mark.parametrize("room", [1, 2 * 16 * 108, 10**6])
def test_batches_that_are_gathered_together_are_the_same(tmp_path, monkeypatch, room):
    """As a GPU takes them; no block ends where the epoch's odd last batch does."""
    for place in ("device", "stream"):
        feed = feed_of(split("mapped", tmp_path), FlipsTurns(), place=place)
        plain = epoch(feed, FlipsTurns())[1]
        monkeypatch.setattr("medexp.train.feed.BLOCK_BYTES", {"cpu": room})
        assert feed.batches_of_block(CUTS) == {1: 1, 3456: 2}.get(room, 10**6 // (16 * 108))
        for (x, target), (y, same) in zip(plain, epoch(feed, FlipsTurns())[1], strict=True):
            assert torch.equal(x, y) and torch.equal(target, same)
        monkeypatch.undo()


def test_no_batches_are_none(tmp_path):
    """An epoch that was interrupted behind its last step."""
    for place in ("device", "stream"):
        feed = feed_of(split("mapped", tmp_path), Identity(), place=place)
        assert list(feed.batches(torch.arange(N), torch.empty(N, 0), [])) == []


def test_a_thread_gathers_ahead_for_a_gpu(tmp_path, monkeypatch):
    """The path of a GPU whose memory is too small, with pinned memory and copies left out."""
    monkeypatch.setattr(Feed, "pinned", Feed.gather)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *arguments, **options: self)
    feed = feed_of(split("mapped", tmp_path), Identity())
    order = torch.randperm(N)
    before = threading.active_count()
    plain = list(feed.stored(order, CUTS))
    feed.device = torch.device("meta")  # anything but the CPU
    ahead = list(feed.stored(order, CUTS))
    assert all(torch.equal(a, b) for a, b in zip(plain, ahead, strict=True))
    assert len(ahead) == 3 and list(feed.stored(order, [])) == []
    for _ in feed.stored(order, CUTS):
        break
    assert threading.active_count() <= before + 1


@pytest.mark.parametrize("place", ["device", "stream"])
def test_targets_of_mixed_images_are_shares(tmp_path, place):
    class Halves(Identity):
        def mix(self, x, target, draws):
            return (x + x.flip(0)) / 2, (target + target.flip(0)) / 2

    feed = feed_of(split("memory", tmp_path), Halves(), place=place)
    _, batches = epoch(feed, Halves())
    _, plain = epoch(feed_of(split("memory", tmp_path), Identity()), Identity())
    for (x, target), (y, labels) in zip(batches, plain, strict=True):
        assert torch.equal(x, (y + y.flip(0)) / 2)
        shares = torch.eye(3)[labels]
        assert torch.equal(target, (shares + shares.flip(0)) / 2)


def test_each_batch_is_mixed_by_its_own_draws(tmp_path):
    class Marked(Identity):
        def draw(self, n, generator):
            return torch.arange(n).float()[:, None]

        def mix(self, x, target, draws):
            return draws, target

    _, batches = epoch(feed_of(split("memory", tmp_path), Marked()), Marked())
    assert torch.cat([marks for marks, _ in batches])[:, 0].tolist() == list(range(N))


def test_an_error_of_the_augmentation_is_the_loops(tmp_path):
    class Broken(Identity):
        def __call__(self, images, draws):
            raise ZeroDivisionError("augmentation")

    feed = feed_of(split("memory", tmp_path), Broken())
    with pytest.raises(ZeroDivisionError, match="augmentation"):
        next(iter(feed.batches(torch.arange(N), torch.empty(N, 0), CUTS)))


def test_places(tmp_path, monkeypatch):
    own = split("memory", tmp_path)
    assert pick_place(own, CPU, "auto") == "stream"
    need = own.images.nbytes
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * need + 1, 0))
    assert pick_place(own, cuda, "auto") == "device"
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * need, 0))
    assert pick_place(own, cuda, "auto") == "stream"
    with pytest.raises(ConfigError, match="trainer.data=device: the training images take 0.0 GB"):
        pick_place(own, cuda, "device")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("place", ["device", "stream"])
def test_a_gpu_sees_the_batches_of_the_cpu(tmp_path, place):
    augment = FlipsTurns()
    own = split("mapped", tmp_path)
    _, here = epoch(feed_of(own, augment), augment)
    _, there = epoch(feed_of(own, augment, torch.device("cuda"), place=place), augment)
    for (x, target), (y, same) in zip(here, there, strict=True):
        assert torch.equal(x, y.cpu()) and torch.equal(target, same.cpu())
