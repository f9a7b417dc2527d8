"""Superpixels, the nearest of them and what they enclose, against loops written out by hand."""

import csv
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from skimage.segmentation import slic

from medexp.data import segment
from medexp.data.phantom.cervix import CANVAS, scene
from medexp.data.pixels import resize
from medexp.data.segment import (
    OUR_COLOURS,
    nearest_patches,
    panels,
    patch_colours,
    reference_colours,
    segmenter,
    superpixels,
    with_enclosed,
)
from medexp.errors import ConfigError, MedexpError

RNG = np.random.default_rng(0)
PINK = [(200.0, 130.0, 120.0)]


@pytest.fixture(scope="module")
def phantoms():
    """Images as a reader makes them, 160x160, with the true masks of the cervix."""
    images, masks = [], []
    for number in range(36):
        image, cover = scene(np.random.default_rng(number), CANVAS, CANVAS, 1 + number % 3)
        images.append(resize(image, 160, 160))
        masks.append(resize(np.float32(cover)[..., None], 160, 160)[..., 0] > 0.5)
    return images, masks


@pytest.fixture(scope="module")
def references():
    """The mean colours of ten further cervixes: (10, 3)."""
    made = [scene(np.random.default_rng(900 + i), CANVAS, CANVAS, 1 + i % 3) for i in range(10)]
    return np.stack([image[cover > 0.5].mean(axis=0) for image, cover in made])


def overlap(mask, truth):
    return (mask & truth).sum() / (mask | truth).sum()


def flooded(labels, picked):
    """`with_enclosed`, by walking from the border over all that is not picked."""
    height, width = labels.shape
    free = [[labels[y, x] not in picked for x in range(width)] for y in range(height)]
    reached = set()
    border = [(y, x) for y in range(height) for x in range(width)
              if y in (0, height - 1) or x in (0, width - 1)]  # fmt: skip
    stack = [(y, x) for y, x in border if free[y][x]]
    while stack:
        y, x = stack.pop()
        if (y, x) in reached:
            continue
        reached.add((y, x))
        for b, a in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= b < height and 0 <= a < width and free[b][a]:
                stack.append((b, a))
    open_patches = {labels[y, x] for y, x in reached}
    return np.array([[label not in open_patches for label in row] for row in labels])


def by_hand(image, references, labels, closest):
    """The mask, patch by patch and reference by reference."""
    distances = []
    for patch in range(labels.max() + 1):
        mean = image[labels == patch].astype(float).mean(axis=0)
        distances.append((min(((mean - r) ** 2).sum() for r in references), patch))
    picked = {patch for _, patch in sorted(distances)[:closest]}
    return flooded(labels, picked)


# ---------------------------------------------------------------- one image


def test_superpixels_are_scikit_images_numbered_without_gaps(phantoms):
    image = phantoms[0][0]
    labels = superpixels(image)
    assert labels.shape == (160, 160) and labels.dtype == np.int64
    assert np.unique(labels).tolist() == list(range(labels.max() + 1))
    own = slic(image, n_segments=10, compactness=20.0, channel_axis=-1)
    pairs = set(zip(labels.ravel().tolist(), own.ravel().tolist(), strict=True))
    assert len(pairs) == labels.max() + 1 == len(np.unique(own)), "the same partition"


def test_ten_segments_are_roughly_ten_patches(phantoms):
    counts = [superpixels(image).max() + 1 for image in phantoms[0]]
    assert 7 <= np.mean(counts) <= 11 and min(counts) >= 5


def test_superpixels_follow_colour():
    image = np.zeros((60, 60, 3), np.uint8)
    image[:, 25:] = (220, 150, 140)
    labels = superpixels(image)
    assert not set(labels[:, :25].ravel()) & set(labels[:, 25:].ravel())


def test_patch_colours_are_plain_means():
    image = RNG.integers(0, 256, (17, 23, 3), dtype=np.uint8)
    labels = RNG.integers(0, 5, (17, 23))
    expected = [image[labels == patch].mean(axis=0) for patch in range(5)]
    np.testing.assert_allclose(patch_colours(image, labels), expected, rtol=1e-12)


@pytest.mark.parametrize("closest", [1, 5, 12, 40])
def test_nearest_patches_against_all_pairs(closest):
    colours, references = RNG.random((12, 3)) * 255, RNG.random((7, 3)) * 255
    table = [(min(np.linalg.norm(c - r) for r in references), i) for i, c in enumerate(colours)]
    expected = [i for _, i in sorted(table)[:closest]]
    assert nearest_patches(colours, references, closest).tolist() == expected


def test_of_patches_equally_near_the_first_is_taken():
    colours = np.array([[9.0, 0, 0], [5, 0, 0], [5, 0, 0], [5, 0, 0]])
    assert nearest_patches(colours, np.zeros((1, 3)), 2).tolist() == [1, 2]


def test_enclosed_patches_are_added():
    labels = np.zeros((7, 7), int)
    labels[1:6, 1:6] = 1
    labels[2:5, 2:5] = 2
    labels[3, 3] = 3
    assert np.array_equal(with_enclosed(labels, np.array([1])), labels > 0)
    assert np.array_equal(with_enclosed(labels, np.array([3])), labels == 3)
    assert np.array_equal(with_enclosed(labels, np.array([2])), labels >= 2)


def test_a_patch_at_the_border_or_partly_outside_is_not_enclosed():
    labels = np.ones((6, 6), int)
    labels[0:2, 2:4] = 2  # its first row is the image's border
    assert np.array_equal(with_enclosed(labels, np.array([1])), labels == 1)
    labels = np.ones((6, 6), int)
    labels[2, 2] = labels[0, 5] = 2  # one patch in two pieces
    assert np.array_equal(with_enclosed(labels, np.array([1])), labels == 1)


def test_enclosed_patches_against_a_walk_from_the_border():
    added = 0
    for _ in range(40):
        labels = RNG.integers(0, 14, (4, 5)).repeat(2, axis=0).repeat(3, axis=1)
        labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
        picked = RNG.permutation(labels.max() + 1)[: int(RNG.integers(1, 9))]
        mask = with_enclosed(labels, picked)
        assert np.array_equal(mask, flooded(labels, set(picked.tolist())))
        added += (mask != np.isin(labels, picked)).any()
    assert added > 3, "the maps must put it to the test"


@pytest.mark.parametrize("closest", [3, 5])
def test_the_whole_against_loops_written_out(phantoms, references, closest):
    for image in phantoms[0][:6]:
        small = resize(image, 64, 64)
        made = panels(small, references, closest=closest)
        assert np.array_equal(made.mask, by_hand(small, references, made.labels, closest))
        assert np.array_equal(panels(small, references, closest=closest).mask, made.mask)


def test_panels_fit_together(phantoms, references):
    image = phantoms[0][1]
    made = panels(image, references)
    assert made.image is image and np.array_equal(made.labels, superpixels(image))
    assert len(np.unique(made.labels[made.nearest])) == 5
    assert made.mask[made.nearest].all() and made.mask.dtype == np.bool_
    assert made.segmented.dtype == np.uint8
    assert np.array_equal(made.segmented[made.mask], image[made.mask])
    assert not made.segmented[~made.mask].any()


def test_the_mask_finds_the_cervix_of_phantoms(phantoms, references):
    """As in the paper better than everything; with finer patches than the best disc, too."""
    images, truths = phantoms
    average = references.mean(axis=0, keepdims=True)

    def mean_overlap(**settings):
        masks = [panels(image, average, **settings).mask for image in images]
        return np.mean([overlap(m, t) for m, t in zip(masks, truths, strict=True)])

    y, x = np.mgrid[:160, :160] - 79.5
    disc = max(
        np.mean([overlap(np.hypot(x, y) < radius, t) for t in truths])
        for radius in range(40, 90, 4)
    )
    everything = np.mean([t.mean() for t in truths])
    assert mean_overlap() > everything + 0.15
    assert mean_overlap(segments=40, closest=16) > max(disc, everything) + 0.05


def test_the_built_in_colours_serve_as_well(phantoms):
    images, truths = phantoms
    average = np.mean(OUR_COLOURS, axis=0, keepdims=True)
    found = [overlap(panels(i, average).mask, t) for i, t in zip(images, truths, strict=True)]
    assert np.mean(found) > np.mean([t.mean() for t in truths]) + 0.15


def test_the_same_from_many_threads(phantoms, references):
    images = phantoms[0][:12]
    alone = [panels(image, references).mask for image in images]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda image: panels(image, references).mask, images))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 2), (5, 3), (20, 20)])
def test_tiny_and_one_colour_images_have_a_mask(shape):
    for image in (
        np.full((*shape, 3), 77, np.uint8),
        RNG.integers(0, 256, (*shape, 3), dtype=np.uint8),
    ):
        made = panels(image, PINK)
        assert made.mask.shape == shape and made.mask.any()
        assert np.array_equal(made.segmented, image * made.mask[..., None])


def test_more_patches_asked_for_than_there_are_take_everything(phantoms):
    assert panels(phantoms[0][0], PINK, segments=6, closest=60).mask.all()


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8)])
def test_a_grey_image_is_refused(shape):
    with pytest.raises(MedexpError, match=r"superpixels need colours.*dataset\.segment=none"):
        panels(np.zeros(shape, np.uint8), PINK)


def test_a_float_image_is_refused():
    with pytest.raises(MedexpError, match="float32: superpixels need colours"):
        panels(np.zeros((8, 8, 3), np.float32), PINK)


# ---------------------------------------------------------------- references


def pair(folder, name, size=(9, 6), mask_size=None, marked=True, image=".png"):
    """Write an image and its mask; returns the mean colour within, read by nothing of medexp."""
    pixels = RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    mask = np.zeros((mask_size or size)[::-1], np.uint8)
    if marked:
        mask[1:4, 2:5] = 255
        mask[0, 0] = 1
    Image.fromarray(pixels).save(folder / f"{name}{image}")
    Image.fromarray(mask).save(folder / f"{name}_mask.png")
    if mask_size or not marked:
        return None
    return np.vstack([pixels[1:4, 2:5].reshape(-1, 3), pixels[0, :1]]).mean(axis=0)


def test_reference_colours_of_a_folder(tmp_path):
    expected = [pair(tmp_path, "b"), pair(tmp_path, "c", image=".bmp")]
    np.testing.assert_allclose(reference_colours(tmp_path), expected, rtol=1e-12)


def test_a_turned_reference_is_set_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    flat = np.zeros((4, 8, 3), np.uint8)
    flat[:, :4] = 200  # left as stored is the top once it is turned
    Image.fromarray(flat).save(tmp_path / "a.png", exif=exif)
    mask = np.zeros((8, 4), np.uint8)
    mask[:4] = 255
    Image.fromarray(mask).save(tmp_path / "a_mask.png")
    assert reference_colours(tmp_path).tolist() == [[200, 200, 200]]


def test_a_list_of_colours(tmp_path):
    path = tmp_path / "colours.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("name", "r", "g", "b"), ("a", 1, 2, 3.5), ("b", 255, 0, 0)])
    assert reference_colours(path).tolist() == [[1, 2, 3.5], [255, 0, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("r,g,b\n", "no colour"),
        ("", "no column r, g, b"),
        ("r,g\n1,2\n", "no column b"),
        ("r,g,b\n1,2,red\n", r"line 2: could not convert.*red.*Give numbers 0 to 255"),
        (
            "r,g,b\n1,2,3\n1,2,256\n",
            r"line 3: colour \[1\.0, 2\.0, 256\.0\]: need numbers 0 to 255",
        ),
        ("r,g,b\n1,2,nan\n", "line 2: .*need numbers 0 to 255"),
        ("r,g,b\n1,2\n", "line 2: too few cells"),
    ],
)
def test_a_bad_list_of_colours(tmp_path, text, message):
    path = tmp_path / "colours.csv"
    path.write_text(text)
    with pytest.raises(MedexpError, match=message):
        reference_colours(path)


def test_missing_references(tmp_path):
    with pytest.raises(MedexpError, match=r"nowhere: no such folder"):
        reference_colours(tmp_path / "nowhere")
    with pytest.raises(MedexpError, match=r"nowhere\.csv cannot be read"):
        reference_colours(tmp_path / "nowhere.csv")
    with pytest.raises(MedexpError, match=r"no reference image. Put NAME\.jpg and NAME_mask\.png"):
        reference_colours(tmp_path)


@pytest.mark.parametrize("lost", ["a.png", "a_mask.png"])
def test_half_a_pair(tmp_path, lost):
    pair(tmp_path, "a")
    pair(tmp_path, "b")
    (tmp_path / lost).unlink()
    with pytest.raises(MedexpError, match=r": a is only one of a pair"):
        reference_colours(tmp_path)


def test_a_mask_of_another_size(tmp_path):
    pair(tmp_path, "a", size=(9, 6), mask_size=(6, 9))
    with pytest.raises(MedexpError, match=r"a_mask\.png: 6x9 pixels, but a\.png has 9x6 \(upright"):
        reference_colours(tmp_path)


def test_an_empty_mask(tmp_path):
    pair(tmp_path, "a", marked=False)
    with pytest.raises(MedexpError, match=r"a_mask\.png: nothing is marked"):
        reference_colours(tmp_path)


def test_a_damaged_reference(tmp_path):
    pair(tmp_path, "a")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(MedexpError, match=r"a\.png cannot be decoded"):
        reference_colours(tmp_path)


# ---------------------------------------------------------------- for a reader


def test_without_references_the_built_in_colours_are_an_assumption(tmp_path):
    cut = segmenter(tmp_path)
    np.testing.assert_allclose(cut.colours, [np.mean(OUR_COLOURS, axis=0)])
    assert "average of medexp's own, an assumption" in cut.note()
    assert segmenter(tmp_path, colours="each").colours == OUR_COLOURS


def test_references_below_the_root_are_found(tmp_path):
    (tmp_path / "references").mkdir()
    expected = [pair(tmp_path / "references", "a"), pair(tmp_path / "references", "b")]
    each = segmenter(tmp_path, colours="each")
    np.testing.assert_allclose(each.colours, expected)
    assert each.note().endswith("reference colours: 2 in references")
    np.testing.assert_allclose(segmenter(tmp_path).colours, [np.mean(expected, axis=0)])
    (tmp_path / "own.csv").write_text("r,g,b\n1,2,3\n")
    assert segmenter(tmp_path, str(tmp_path / "own.csv")).colours == ((1, 2, 3),)


def test_a_segmenter_does_what_its_settings_say(phantoms, tmp_path):
    cut = segmenter(tmp_path, segments=14, closest=4, compactness=5)
    expected = panels(phantoms[0][0], cut.colours, segments=14, closest=4, compactness=5)
    assert np.array_equal(cut(phantoms[0][0]), expected.segmented)
    settings = json.loads(json.dumps(cut.settings()))
    assert settings == {"kind": "slic_knn", "colours": [list(cut.colours[0])], "segments": 14,
                        "closest": 4, "compactness": 5}  # fmt: skip
    assert "the 4 of about 14 SLIC patches" in cut.note()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"closest": 0}, r"dataset\.closest=0 of dataset\.segments=10: need 1 or more"),
        ({"closest": 11}, r"dataset\.closest=11 of dataset\.segments=10"),
        ({"segments": 0}, r"dataset\.closest=5 of dataset\.segments=0"),
        ({"compactness": 0.0}, r"dataset\.compactness=0\.0: need more than 0"),
        ({"colours": "all"}, r"dataset\.reference_colours=all: no such choice.*average, each"),
    ],
)
def test_values_out_of_range(tmp_path, values, message):
    with pytest.raises(ConfigError, match=message):
        segmenter(tmp_path, **values)


def test_the_defaults_are_the_papers():
    assert (segment.SEGMENTS, segment.CLOSEST) == (10, 5)
