"""The sheet of an augmentation: what stands where, on one scale, and no torch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

from medexp.report.figure import augment_sheet
from medexp.report.figure.augment_sheet import draw_sheet, on_one_scale
from medexp.report.figure.plots import BLUE, VERMILLION
from tests.conftest import ROOT

RNG = np.random.default_rng(0)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is made, for a look at what stands in it."""
    figures: list[Figure] = []
    make = augment_sheet._figure

    def keep(size: tuple[float, float]) -> Figure:
        figures.append(make(size))
        return figures[-1]

    monkeypatch.setattr(augment_sheet, "_figure", keep)
    return figures


def shown(figure: Figure, rows: int) -> list[list[np.ndarray]]:
    """The pictures of a sheet, row by row."""
    pictures = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    columns = len(pictures) // rows
    return [pictures[start : start + columns] for start in range(0, len(pictures), columns)]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_row_is_the_image_and_its_variants(
    tmp_path: Path, drawn: list[Figure], channels: int
) -> None:
    images = RNG.integers(0, 256, (2, 8, 10, channels), dtype=np.uint8)
    variants = RNG.integers(0, 256, (2, 5, 8, 10, channels), dtype=np.uint8)
    path = draw_sheet(
        images, variants, tmp_path / "new" / "s.png", titles=["a", "b"], heading="augment=strong"
    )
    assert path == tmp_path / "new" / "s.png" and min(imread(path).shape[:2]) > 400
    for row, image, made in zip(shown(drawn[0], 2), images, variants, strict=True):
        for got, want in zip(row, [image, *made], strict=True):
            np.testing.assert_allclose(got, want.squeeze() / 255, atol=1e-6)
    axes = drawn[0].axes
    assert [a.get_title(loc="left") for a in axes] == ["a", *[""] * 5, "b", *[""] * 5]
    assert [a.get_xlabel() for a in axes] == [""] * 6 + ["as stored", "1", "2", "3", "4", "5"]
    framed = [to_rgb(a.spines["top"].get_edgecolor()) == to_rgb(BLUE) for a in axes]
    assert framed == [True, *[False] * 5] * 2
    assert drawn[0].get_suptitle() == "augment=strong"


def test_volumes_are_shown_by_their_middle_slice(tmp_path: Path, drawn: list[Figure]) -> None:
    volumes = RNG.integers(0, 256, (1, 5, 8, 8, 1), dtype=np.uint8)
    variants = RNG.integers(0, 256, (1, 3, 5, 8, 8, 1), dtype=np.uint8)
    draw_sheet(volumes, variants, tmp_path / "s.png", titles=["a"])
    (row,) = shown(drawn[0], 1)
    for got, want in zip(row, [volumes[0], *variants[0]], strict=True):
        np.testing.assert_allclose(got, want[2, ..., 0] / 255, atol=1e-6)


def test_a_brighter_variant_of_a_float_image_is_brighter() -> None:
    image = np.linspace(-1000, 400, 16, dtype=np.float32).reshape(4, 4, 1)
    got = on_one_scale(image, np.stack([image + 140, image - 1400]))
    np.testing.assert_allclose(got[0], (image + 1000) / 1400, atol=1e-6)
    np.testing.assert_allclose(got[1], ((image + 1140) / 1400).clip(0, 1), atol=1e-6)
    assert not got[2].any()


def test_an_image_of_one_value_is_dark() -> None:
    flat = np.full((4, 4, 1), 7.0, dtype=np.float16)
    assert not on_one_scale(flat, flat[None]).any()


def test_marks_are_laid_across(tmp_path: Path, drawn: list[Figure]) -> None:
    images = RNG.integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    draw_sheet(
        images,
        images[:, None],
        tmp_path / "s.png",
        titles=["a"],
        marks=["PHANTOM"],
        heading="strong",
    )
    assert drawn[0].get_suptitle() == "strong\nPHANTOM"
    (across,) = [text for text in drawn[0].texts if text.get_text() == "PHANTOM"]
    assert across.get_color() == VERMILLION


def test_as_many_titles_as_rows(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="zip"):
        draw_sheet(images, images[:, None], tmp_path / "s.png", titles=["a"])


def test_no_torch() -> None:
    script = (
        "import sys, medexp.report.figure.augment_sheet\n"
        "assert 'torch' not in sys.modules and 'hydra' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
