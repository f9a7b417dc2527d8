"""The four panels of a segmentation: a PNG that shows what is in the arrays, marked when told."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

from medexp.data.segment import Panels, panels
from medexp.report.figure import segmentation
from medexp.report.figure.plots import BLUE
from medexp.report.figure.segmentation import four_panels

PINK = [(220.0, 140.0, 130.0)]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is made, for a look at what stands in it."""
    figures: list[Figure] = []
    make = segmentation._figure

    def keep(size: tuple[float, float]) -> Figure:
        figures.append(make(size))
        return figures[-1]

    monkeypatch.setattr(segmentation, "_figure", keep)
    return figures


def ring() -> Panels:
    """A pink ring that encloses a red middle, on grey."""
    image = np.full((12, 16, 3), 90, np.uint8)
    image[2:10, 2:10] = PINK[0]
    image[4:8, 4:8] = (180, 40, 40)
    labels = np.zeros((12, 16), np.int64)
    labels[2:10, 2:10] = 1
    labels[4:8, 4:8] = 2
    mask = labels > 0
    return Panels(image, labels, labels == 1, mask, image * mask[..., None])


def test_four_panels(tmp_path: Path, drawn: list[Figure]) -> None:
    row = ring()
    path = four_panels([row, row], ["a", "b"], tmp_path / "new" / "p.png", heading="K = 10")
    assert path == tmp_path / "new" / "p.png"
    pixels = np.asarray(imread(path))
    assert pixels.shape[1] > 1200 and pixels[..., :3].std() > 0.1
    axes = drawn[0].axes
    assert [a.get_title(loc="left") for a in axes] == ["a", "", "", "", "b", "", "", ""]
    assert [a.get_xlabel() for a in axes[4:]] == ["image", "superpixels", "mask", "segmented"]
    shown = [np.asarray(a.images[0].get_array()) for a in axes]
    for first in (0, 4):
        np.testing.assert_allclose(shown[first], row.image / 255, atol=1e-6)
        np.testing.assert_allclose(shown[first + 1], row.image / 255, atol=1e-6)
        np.testing.assert_allclose(shown[first + 3], row.segmented / 255, atol=1e-6)
    mask = shown[2]
    assert (mask[row.nearest] == 1).all() and not mask[~row.mask].any()
    np.testing.assert_allclose(mask[row.labels == 2], np.tile(to_rgb(BLUE), (16, 1)), atol=1e-6)
    assert drawn[0].get_suptitle() == "K = 10"
    legend = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert legend == ["nearest in colour", "enclosed by them", "blacked out"]


def test_lines_stand_exactly_between_superpixels(tmp_path: Path, drawn: list[Figure]) -> None:
    row = ring()
    four_panels([row], ["a"], tmp_path / "p.png")
    across, down = (lines.get_segments() for lines in drawn[0].axes[1].collections)
    # The outer square has sides of 8 pixels, the inner one of 4.
    assert len(across) == len(down) == 2 * 8 + 2 * 4
    assert {segment[0][1] for segment in across} == {1.5, 9.5, 3.5, 7.5}
    assert {segment[0][0] for segment in down} == {1.5, 9.5, 3.5, 7.5}
    assert {tuple(s[1] - s[0]) for s in across} == {(1, 0)}
    assert {tuple(s[1] - s[0]) for s in down} == {(0, 1)}


def test_marks_stand_above_and_across(tmp_path: Path, drawn: list[Figure]) -> None:
    four_panels([ring()], ["a"], tmp_path / "p.png", ["PHANTOM"], heading="K = 10")
    assert drawn[0].get_suptitle() == "K = 10\nPHANTOM"
    assert [text.get_text() for text in drawn[0].texts].count("PHANTOM") == 1


def test_a_real_segmentation_of_one_patch_and_of_many(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    one = panels(np.full((20, 30, 3), 90, np.uint8), PINK, segments=1, closest=1)
    many = panels(image, PINK, segments=40, closest=16)
    assert four_panels([one, many], ["one", "many"], tmp_path / "p.png").stat().st_size > 10_000


@pytest.mark.parametrize("titles", [[], ["a", "b"]])
def test_a_title_for_each_row(tmp_path: Path, titles: list[str]) -> None:
    with pytest.raises(ValueError, match="zip"):
        four_panels([ring()], titles, tmp_path / "p.png")
