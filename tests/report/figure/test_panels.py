"""Panels: real images of the size they promise, marked where they are given marks."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from medexp.report.figure import panels
from medexp.report.figure.panels import feature_grid, overlay_panel, slice_montage
from tests.conftest import ROOT

RNG = np.random.default_rng(0)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is made, for a look at what stands in it."""
    figures: list[Figure] = []
    make = panels._figure

    def keep(size: tuple[float, float]) -> Figure:
        figures.append(make(size))
        return figures[-1]

    monkeypatch.setattr(panels, "_figure", keep)
    return figures


def pixels(path: Path) -> np.ndarray:
    return np.asarray(imread(path))[..., :3]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_overlay_panel(
    tmp_path: Path, drawn: list[Figure], channels: int, dtype: type[np.generic]
) -> None:
    images = RNG.integers(0, 256, (2, 8, 10, channels)).astype(dtype)
    maps = RNG.random((2, 8, 10))
    path = overlay_panel(images, maps, ["a", "b"], tmp_path / "p.png", heading="Grad-CAM")
    assert path == tmp_path / "p.png" and min(pixels(path).shape[:2]) > 400
    axes = drawn[0].axes
    assert [a.get_title(loc="left") for a in axes[:6]] == ["a", "", "", "b", "", ""]
    assert [len(a.images) for a in axes[:6]] == [1, 1, 2] * 2
    np.testing.assert_array_equal(axes[4].images[0].get_array(), maps[1])
    assert drawn[0].get_suptitle() == "Grad-CAM"
    assert [text.get_text() for text in drawn[0].texts] == ["Grad-CAM"]


def test_a_dark_map_leaves_the_image_alone(tmp_path: Path, drawn: list[Figure]) -> None:
    images = RNG.integers(0, 256, (1, 8, 8, 1), dtype=np.uint8)
    overlay_panel(images, np.zeros((1, 8, 8)), ["a"], tmp_path / "p.png")
    below, above = drawn[0].axes[2].images
    np.testing.assert_allclose(below.get_array(), images[0, ..., 0] / 255, atol=1e-6)
    assert not np.any(above.get_alpha())


@pytest.mark.parametrize(("count", "side"), [(1, 1), (3, 2), (10, 4), (64, 8), (100, 8)])
def test_feature_grid_is_square_and_ends_at_64(
    tmp_path: Path, drawn: list[Figure], count: int, side: int
) -> None:
    maps = RNG.random((count, 5, 6))
    maps[0] = 0  # a dead map
    feature_grid(maps, "conv1", tmp_path / "p.png")
    axes = drawn[0].axes
    assert axes[0].get_gridspec().ncols == side
    assert sum(len(a.images) for a in axes) == min(count, 64)
    title = drawn[0].get_suptitle()
    assert title.startswith("conv1\n")
    assert title.endswith("64 of 100 maps of 5x6" if count == 100 else f"{count} maps of 5x6")
    assert pixels(tmp_path / "p.png").std() > 0.02


@pytest.mark.parametrize(("depth", "shown"), [(1, 1), (4, 4), (12, 12), (70, 12)])
def test_slice_montage_shows_first_to_last(
    tmp_path: Path, drawn: list[Figure], depth: int, shown: int
) -> None:
    volume = RNG.random((depth, 8, 10, 1)).astype(np.float32) * 1400 - 1000  # Hounsfield units
    slice_montage(volume, RNG.random((depth, 8, 10)), "scan", tmp_path / "p.png")
    titles = [a.get_title() for a in drawn[0].axes if a.get_title()]
    assert len(titles) == shown
    assert titles[0] == f"slice 1 of {depth}" and titles[-1] == f"slice {depth} of {depth}"
    assert sum(len(a.images) for a in drawn[0].axes) == 3 * shown
    assert min(pixels(tmp_path / "p.png").shape[:2]) > 200


def test_marks_stand_above_and_across(tmp_path: Path, drawn: list[Figure]) -> None:
    marks, images, maps = ("PHANTOM", "PARTIAL"), np.zeros((1, 8, 8, 1), np.uint8), RNG.random
    overlay_panel(images, maps((1, 8, 8)), ["a"], tmp_path / "1.png", marks)
    feature_grid(maps((2, 8, 8)), "title", tmp_path / "2.png", marks)
    slice_montage(images, maps((1, 8, 8)), "title", tmp_path / "3.png", marks)
    for figure in drawn:
        above, across = (text.get_text() for text in figure.texts)
        assert above.endswith("PHANTOM · PARTIAL") and across == "PHANTOM\nPARTIAL"


def test_panels_import_neither_torch_nor_pyplot() -> None:
    script = (
        "import sys; from medexp.report.figure import panels\n"
        "assert not {'torch', 'hydra', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
