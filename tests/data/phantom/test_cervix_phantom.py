"""The phantoms: Kaggle's folders, the public balance, a label that colour does not give away."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageOps
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medexp.data.phantom.cervix import CANVAS, draw, kinds, placed, red_tissue, scene, write
from medexp.data.read.cervix import load


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    write(folder, size=16, seed=7)
    return folder


def files(folder):
    return {p.relative_to(folder).as_posix(): p for p in folder.rglob("*.*") if p.is_file()}


def test_the_layout_is_kaggles_with_references_beside(folder):
    names = Counter(name.rsplit("/", 1)[0] for name in files(folder))
    assert names == {
        "Type_1": 4,
        "Type_2": 7,
        "Type_3": 5,
        "references": 20,
        "additional_Type_1_v2/Type_1": 2,
        "additional_Type_2_v2/Type_2": 2,
        "additional_Type_3_v2/Type_3": 2,
    }


def test_the_reader_reads_them(folder):
    pool = load(folder)
    assert np.bincount(pool.labels).tolist() == [4, 7, 5]
    assert len(load(folder, additional="train")) == 22
    for row in (0, 5, 15):
        image, _ = pool.decode(row)
        assert image.shape == (160, 160, 3) and image.std() > 10


def test_the_balance_is_the_public_sets():
    assert np.bincount(kinds(1481, 3)).tolist() == [0, 250, 781, 450]
    assert kinds(64, 0) != kinds(64, 1) != sorted(kinds(64, 1))


def test_photographs_differ_in_size_and_orientation(folder):
    sizes, orientations = set(), set()
    for path in folder.rglob("*.jpg"):
        with Image.open(path) as image:
            orientation = image.getexif().get(274, 1)
            sizes.add(image.size if orientation < 5 else image.size[::-1])
            orientations.add(orientation)
    assert len(sizes) >= 5 and any(height > width for width, height in sizes)
    assert orientations == {1, 3, 6, 8}


def test_a_turned_photograph_stands_upright_again(folder):
    turned = 0
    for number, kind in enumerate(kinds(16, 7)[:8]):
        made = draw(7, number, kind)
        with Image.open(folder / f"Type_{kind}" / f"{number}.jpg") as image:
            assert image.getexif().get(274, 1) == made.orientation
            upright = np.asarray(ImageOps.exif_transpose(image))
        assert upright.shape == made.pixels.shape
        assert np.abs(upright.astype(int) - made.pixels).mean() < 8  # JPEG and grain
        turned += made.orientation != 1
    assert turned >= 2


def test_reference_masks_are_of_their_photographs(folder):
    for i in range(10):
        image = Image.open(folder / "references" / f"reference_{i}.jpg")
        mask = np.asarray(Image.open(folder / "references" / f"reference_{i}_mask.png"))
        pixels = np.asarray(ImageOps.exif_transpose(image))
        assert mask.shape == pixels.shape[:2] and set(np.unique(mask)) == {0, 255}
        inside, outside = pixels[mask > 0].mean(axis=0), pixels[mask == 0].mean(axis=0)
        assert 0.1 < (mask > 0).mean() < 0.9
        assert (inside > outside).all(), "a cervix is lighter than what is round it"


def red(kind, number):
    """Where red tissue lies, on a cervix painted white, and the frame."""
    rng = np.random.default_rng(number)
    frame = placed(rng, CANVAS, CANVAS)
    canvas = np.full((CANVAS, CANVAS, 3), 255, np.float32)
    red_tissue(rng, frame, canvas, kind)
    return canvas[..., 1] < 128, frame


def test_the_type_is_what_surrounds_the_os_and_not_how_much_is_red():
    share = {kind: [] for kind in (1, 2, 3)}
    area = {kind: [] for kind in (1, 2, 3)}
    for number in range(30):
        for kind in share:
            mask, frame = red(kind, number)
            round_the_os = (frame.away > 0.18) & (frame.away < 0.24)
            share[kind].append(mask[round_the_os].mean())
            area[kind].append(mask.mean())
    assert min(share[1]) > 0.9 and max(share[3]) == 0
    assert 0.1 < min(share[2]) < 0.45 < max(share[2]) < 0.75
    means = [np.mean(area[kind]) for kind in (1, 2, 3)]
    assert max(means) - min(means) < 0.1 * np.mean(means)


def test_colour_does_not_give_the_type_away():
    labels = np.arange(120) % 3
    images = [
        scene(np.random.default_rng(number), CANVAS, CANVAS, 1 + kind)[0]
        for number, kind in enumerate(labels)
    ]
    pixels = np.stack(images).reshape(len(images), -1, 3)
    colour = np.hstack([pixels.mean(axis=1), pixels.std(axis=1)])
    model = make_pipeline(StandardScaler(), LogisticRegression())
    score = cross_val_predict(model, colour, labels, cv=5, method="predict_proba")
    assert 0.35 < roc_auc_score(labels, score, multi_class="ovr") < 0.65
