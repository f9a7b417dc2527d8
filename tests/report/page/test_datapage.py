"""The page of a data check: whole, escaped, self-contained, and right in a real browser."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from medexp.data.base import Dataset, Split
from medexp.data.check import check
from medexp.report.page.datapage import Picture, data_uri, displayed, page, write_page
from tests.report.chromium import browser, needed

EVIL = "<script>alert('x')</script>&\"'"


def found(**changed):
    rng = np.random.default_rng(0)

    def split(name, n):
        images = rng.integers(0, 256, (n, 8, 8, 3)).astype(np.uint8)
        ids = np.array([f"{name}/{EVIL}{i}" for i in range(n)])
        return Split(images, np.arange(n) % 2, ids, np.array([f"{EVIL}{name}"] * n))

    data = Dataset(
        EVIL, (EVIL, "b"), split("train", 6), split("val", 4), split("test", 4),
        partial=(EVIL,), notes=(EVIL,), marks={"ODD": EVIL}, skipped={EVIL: EVIL},
        facts={EVIL: {EVIL: EVIL}, "b": {"size": [3, 4]}},
    )  # fmt: skip
    data.test.images[1] = data.train.images[1]
    return check(data) | changed


class Tags(HTMLParser):
    """Every tag that a browser would see, and whether each is closed."""

    def __init__(self, text):
        super().__init__()
        self.seen, self.open, self.attributes = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "br", "img", "polyline", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def pictures():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    return [Picture(pixels, EVIL, EVIL), Picture(pixels, "b", "")]


def test_everything_foreign_is_escaped_and_every_tag_is_closed():
    text = page(found(), {EVIL: pictures()}, [pictures()], [])
    tags = Tags(text)
    assert not tags.open and "script" not in tags.seen
    assert "<script" not in text and "&lt;script&gt;alert(&#39;x&#39;)" in text
    for name, value in tags.attributes:
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert value.startswith("data:image/png;base64,")
    assert "http" not in re.sub(r"Content-Security-Policy|http-equiv", "", text)


def test_the_verdict_comes_first_in_words():
    text = page(found(), {}, [], [])
    assert "2 faults" in text and "1 image cannot be read" in text
    assert "1 image stands in both train and test, pixel for pixel (25.0% of the test" in text
    assert text.index("2 faults") < text.index("<h2>Splits</h2>")
    sound = page(found(faults=[], warnings=[]), {}, [], [])
    assert "Nothing found that would falsify a result" in sound and "To be looked at" not in sound


def test_warnings_and_what_is_partial_are_said():
    told = page(found(warnings=["one warning"], partial=["3 of 9", "no test"]), {}, [], [])
    assert "<h2>To be looked at</h2><ul><li>one warning</li></ul>" in told
    assert '<p class="mark"><strong>PARTIAL</strong> 3 of 9; no test</p>' in told
    silent = page(found(warnings=[], partial=[]), {}, [], [])
    assert "To be looked at" not in silent and "PARTIAL" not in silent


def test_phantoms_are_marked():
    assert 'class="mark phantom"' not in page(found(), {}, [], [])
    text = page(found(marks={"PHANTOM": "synthetic"}), {}, [], [])
    assert '<p class="mark phantom"><strong>PHANTOM</strong> synthetic</p>' in text


def test_numbers_stand_in_the_tables():
    text = page(found(), {}, [], [])
    assert '<tr><td>training</td><td class="n">6</td><td class="n">3</td>' in text
    assert "3 (50.0%)" in text and "<h2>Intensities</h2>" in text
    assert len(re.findall("<polyline", text)) == 3
    assert "<td>size</td>" in text and "3 x 4" in text


def test_a_list_of_files_has_a_page_without_pictures():
    listed = {
        "dataset": "all", "classes": ["a", "b"], "image_shape": None, "dtype": None,
        "splits": {
            part: {"images": 2, "per_class": {"a": 1, "b": 1},
                   "share_of_class": {"a": 0.5, "b": 0.5}, "groups": 2,
                   "images_per_group": {"min": 1, "median": 1.0, "max": 1}}
            for part in ("train", "test")
        },
        "duplicates_within": {"train": 0, "test": 0}, "duplicates_across": {},
        "duplicate_groups": 1, "conflicting_labels": 0, "duplicates_across_groups": [],
        "duplicates": [[{"split": "train", "id": "x.bmp", "class": "a"}] * 2],
        "shared_groups": {"train/test": {"groups": 0, "share_of_test": 0.0}},
        "folds": {
            "folds": {"0": {"images": 4, "per_class": {"a": 2, "b": 2}, "groups": 4}},
            "shared_groups": {"0/1": 3}, "shared_copies": None,
        },
        "patients": {EVIL: {"images": 1, "per_class": {"a": 1, "b": 0}, "train": 1, "test": 0}},
        "marks": {}, "partial": [], "notes": [], "warnings": [], "faults": [],
    }  # fmt: skip
    text = page(listed, {}, [], [])
    assert not Tags(text).open and "<img" not in text
    assert "a list of files, without pixels" in text and "<td>x.bmp</td>" in text
    assert "Patients or slides in two folds: 0/1: 3." in text and "1 in all" in text


def test_displayed():
    volume = np.linspace(-1000, 400, 5 * 4 * 3).reshape(5, 4, 3, 1).astype(np.float16)
    shown = displayed(volume, -1000, 400)
    assert shown.shape == (4, 3, 1) and shown.dtype == np.uint8
    np.testing.assert_allclose(shown, (volume[2].astype(float) + 1000) / 1400 * 255, atol=1)
    image = np.arange(48).reshape(4, 4, 3).astype(np.uint8)
    np.testing.assert_array_equal(displayed(image, 0, 1), image)
    assert displayed(np.zeros((4, 4, 5), np.uint8), 0, 1).shape == (4, 4, 1)


def test_pictures_are_pngs_of_at_most_160_pixels():
    def decoded(uri):
        return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))

    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(decoded(data_uri(image))), image)
    assert decoded(data_uri(np.zeros((400, 200, 1), np.uint8))).size == (80, 160)


@needed
def test_chromium_shows_it_without_a_complaint_at_any_width(tmp_path):
    path = tmp_path / "index.html"
    write_page(path, found(), {EVIL: pictures()}, [pictures()], [])
    with browser(tmp_path / "profile") as tab:
        for width in (360, 1200):
            tab.open(path, width=width)
            assert tab.console == []
            assert tab.value("document.documentElement.scrollWidth") == width
            shown = np.asarray(Image.open(tab.screenshot(tmp_path / "shot.png")).convert("RGB"))
            assert shown.shape[1] == width and shown.std() > 10
        # The page's policy refuses a script, and this is how a complaint would look.
        path.write_text(path.read_text().replace("</main>", "<script>let x = 1</script></main>"))
        tab.open(path)
        assert "Content Security Policy" in "".join(tab.console)
