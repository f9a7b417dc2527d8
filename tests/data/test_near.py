"""Near duplicates: hashes are ImageHash's, no close pair is missed, none is made up."""

import io

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from medexp.data import near

RNG = np.random.default_rng(0)


def picture(seed, size=64):
    """Smooth colours with an edge, as photographs have."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def signatures(images):
    hashes, thumbs = zip(*map(near.signature, images), strict=True)
    return np.array(hashes, np.uint64), np.stack(thumbs)


def pairs(images):
    hashes, thumbs = signatures(images)
    return near.near_pairs(hashes, thumbs, np.arange(len(images)))


def jpeg(image, quality):
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=quality)
    return np.asarray(Image.open(out))


@pytest.mark.parametrize("seed", range(5))
def test_the_hash_is_imagehashes(seed):
    image = picture(seed)
    number, _ = near.signature(image)
    theirs = imagehash.phash(Image.fromarray(image))
    # The grey of ours and of Pillow may round apart by one level.
    assert imagehash.hex_to_hash(f"{number:016x}") - theirs <= 2
    grey = np.asarray(Image.fromarray(image).convert("L"))
    number, thumb = near.signature(grey[..., None])
    assert f"{number:016x}" == str(imagehash.phash(Image.fromarray(grey)))
    box = np.asarray(Image.fromarray(grey).resize((16, 16), Image.Resampling.BOX))
    np.testing.assert_array_equal(thumb, box.ravel())


def test_pictures_of_every_kind_of_image():
    volume = RNG.normal(-500, 300, (8, 6, 5, 1)).astype(np.float16)
    grey = near.grey_picture(volume)
    assert grey.shape == (6, 15) and grey.dtype == np.uint8
    assert (int(grey.min()), int(grey.max())) == (0, 255)
    shown = volume[[2, 4, 6], ..., 0].astype(np.float32)
    scaled = (shown - shown.min()) / (shown.max() - shown.min()) * 255
    np.testing.assert_allclose(grey, np.concatenate(list(scaled), axis=1), atol=0.51)
    four = RNG.integers(0, 256, (4, 4, 4)).astype(np.uint8)
    np.testing.assert_allclose(near.grey_picture(four), four.mean(axis=-1), atol=0.51)
    assert not near.to_bytes(np.full((3, 3), 7.0)).any()
    np.testing.assert_array_equal(near.to_bytes(np.array([-5.0, 0, 1, 9]), 0, 1), [0, 0, 255, 255])


@pytest.mark.parametrize(
    "change",
    [
        lambda image: jpeg(image, 60),
        lambda image: np.asarray(ImageEnhance.Brightness(Image.fromarray(image)).enhance(0.9)),
        lambda image: np.asarray(
            Image.fromarray(image).resize((48, 48), Image.Resampling.BICUBIC).resize((64, 64))
        ),
        lambda image: np.clip(image + RNG.normal(0, 3, image.shape), 0, 255).astype(np.uint8),
    ],
    ids=["jpeg", "darker", "resized", "noise"],
)
def test_altered_copies_are_found_and_nothing_else(change):
    images = [picture(seed) for seed in range(40)]
    found = pairs([*images, *map(change, images[:10])])
    assert {(int(a), int(b)) for a, b in zip(found.first, found.second, strict=True)} == {
        (i, 40 + i) for i in range(10)
    }
    assert found.complete and (found.correlation >= near.MIN_CORRELATION).all()


def test_equal_contents_and_flat_images_are_no_near_duplicates():
    image = picture(0)
    hashes, thumbs = signatures([image, image, jpeg(image, 90)])
    found = near.near_pairs(hashes, thumbs, np.array([5, 5, 6]))
    assert sorted(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [(0, 2), (1, 2)]
    paper = np.full((64, 64, 3), 250, np.uint8)
    paper[10:12, 10:12] -= 1
    assert not len(pairs([paper, paper + 1]).first)
    assert not len(pairs([image]).first)


def test_the_same_hash_of_different_images_is_not_enough():
    """What different patients' CT slices do: the same lowest frequencies, other contents."""
    hashes, thumbs = signatures([picture(0), picture(1)])
    found = near.near_pairs(np.repeat(hashes[:1], 2), thumbs, np.arange(2))
    assert not len(found.first)


def test_the_most_alike_come_first():
    one = picture(0)
    noise = [np.random.default_rng(i).normal(0, i, one.shape) for i in (30, 1, 12)]
    others = [np.clip(one + n, 0, 255).astype(np.uint8) for n in noise]
    hashes, thumbs = signatures([one, *others])
    pairs = near.near_pairs(np.repeat(hashes[:1], 4), thumbs, np.arange(4))
    assert pairs.first[0] == 0 and pairs.second[0] == 2
    assert (np.diff(pairs.correlation.round(3)) <= 0).all() and len(pairs.first) == 6


def test_no_candidate_is_missed():
    hashes = RNG.integers(0, 2**64, 1500, dtype=np.uint64)
    flips = RNG.integers(0, 64, (500, 5))
    for row, places in enumerate(flips):  # 1 to 5 bits from one of the first thousand
        changed = hashes[row]
        for place in places[: row % 5 + 1]:
            changed ^= np.uint64(1) << np.uint64(place)
        hashes[1000 + row] = changed
    first, second, distance, complete = near.candidates(hashes)
    bits = np.unpackbits(hashes.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1).astype(
        np.float32
    )
    expected = ((64 - (2 * bits - 1) @ (2 * bits - 1).T) / 2).astype(int)
    close = {(a, b) for a, b in np.argwhere(expected <= near.DISTANCE).tolist() if a < b}
    got = [tuple(sorted(pair)) for pair in zip(first.tolist(), second.tolist(), strict=True)]
    assert complete and len(got) == len(set(got)) and set(got) == close and len(close) >= 400
    np.testing.assert_array_equal(distance, expected[first, second])


@pytest.mark.parametrize("limit", ["WINDOW", "MAX_PAIRS"])
def test_many_alike_cost_no_more_than_they_may_and_it_is_said(monkeypatch, limit):
    monkeypatch.setattr(near, limit, 50)
    first, _, _, complete = near.candidates(np.full(3000, 12345, np.uint64))
    assert not complete and 0 < len(first) <= 3000 * 51
    monkeypatch.undo()
    first, _, _, complete = near.candidates(np.full(100, 12345, np.uint64))
    assert complete and len(first) == 100 * 99 // 2


def test_correlation_is_pearsons():
    thumbs = RNG.integers(0, 256, (6, 256)).astype(np.uint8)
    first, second = np.array([0, 1, 2]), np.array([3, 4, 2])
    expected = [np.corrcoef(thumbs[a], thumbs[b])[0, 1] for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(near.correlations(thumbs, first, second), expected, atol=1e-5)


@pytest.mark.real_data
def test_real_images(real_data):
    """Neighbouring CT slices are found; 120 tissue patches and 40 cells are all different."""
    import h5py

    with h5py.File(real_data / "ldct" / "all_patches.hdf5") as file:
        slices = file["ct_slices"][:][..., None]
    found = pairs(slices)
    assert 20 <= len(found.first) <= 30
    gaps = found.second - found.first
    assert (gaps > 4).sum() <= 1  # neighbours of one scan, but for one pair further apart
    patches = []
    for part in ("train", "valid", "test"):
        name = f"camelyonpatch_level_2_split_{part}_x.h5"
        with h5py.File(real_data / "pcam" / name) as file:
            patches += list(file["x"][:])
    assert len(patches) == 120 and not len(pairs(patches).first)
    cells = [np.asarray(Image.open(f)) for f in sorted((real_data / "cells").glob("*/*.jpg"))]
    assert len(cells) == 40 and not len(pairs(cells).first)
