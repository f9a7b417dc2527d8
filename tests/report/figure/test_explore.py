"""Figures of a data set: the projections are scikit-learn's, the figures show what they promise."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from sklearn.decomposition import PCA

from medexp.report.figure import explore

RNG = np.random.default_rng(0)


def test_features_are_small_pixels_of_every_channel():
    image = RNG.integers(0, 256, (64, 96, 3)).astype(np.uint8)
    found = explore.features(image, 0, 1).reshape(32, 32, 3)
    expected = image.reshape(32, 2, 32, 3, 3).mean(axis=(1, 3)) / 255
    np.testing.assert_allclose(found, expected, atol=0.51 / 255)
    volume = RNG.normal(-500, 300, (8, 32, 32, 1)).astype(np.float16)
    found = explore.features(volume, -1000, 400)
    expected = np.clip((volume[[2, 4, 6]].astype(float) + 1000) / 1400, 0, 1)
    np.testing.assert_allclose(found.reshape(3, 32, 32, 1), expected, atol=0.51 / 255)


def test_features_of_all_pixels_are_the_raw_values():
    """ "PCA on the raw images values" (Nguyen et al. 2017, section 4)."""
    image = RNG.integers(0, 256, (40, 24, 3)).astype(np.uint8)
    np.testing.assert_array_equal(
        explore.features(image, 0, 1, side=0), image.ravel().astype(np.float32) / 255
    )
    assert explore.features(image, 0, 1, side=8).shape == (8 * 8 * 3,)


@pytest.mark.parametrize("components", [3, 4])
def test_neighbours_are_of_as_many_components_as_asked_for(components):
    """ "t-SNE analysis on the first 3 principal components", "first four" (Figure 4)."""
    rows = RNG.normal(size=(60, 30)) * np.linspace(5, 1, 30)
    found = explore.principal_components(rows, 0, components)
    full = PCA(components, svd_solver="full").fit(rows)
    assert found.kept.shape == (60, components)
    for ours, theirs in zip(found.kept.T, full.transform(rows).T, strict=True):
        assert abs(np.corrcoef(ours, theirs)[0, 1]) > 0.99


def test_principal_components_are_those_of_a_full_decomposition():
    rows = RNG.normal(size=(200, 3)) @ RNG.normal(size=(3, 80)) + RNG.normal(0, 0.01, (200, 80))
    found = explore.principal_components(rows, 0)
    full = PCA(50, svd_solver="full").fit(rows)
    assert found.kept.shape == (200, 50)
    np.testing.assert_allclose(found.shares[:2], full.explained_variance_ratio_[:2], rtol=1e-4)
    for ours, theirs in zip(found.points.T, full.transform(rows)[:, :2].T, strict=True):
        assert abs(np.corrcoef(ours, theirs)[0, 1]) > 0.9999
    again = explore.principal_components(rows, 0)
    np.testing.assert_array_equal(found.points, again.points)


@pytest.mark.parametrize("shape", [(4, 10), (30, 1), (5, 3)])
def test_few_images_or_features_still_have_two_axes(shape):
    found = explore.principal_components(RNG.normal(size=shape), 0)
    assert found.points.shape == (shape[0], 2) and len(found.shares) >= 2
    assert explore.neighbours(found.kept, 30, 0).shape == (shape[0], 2)


def test_images_that_are_all_the_same_have_a_figure_too():
    found = explore.principal_components(np.ones((6, 10)), 0)
    assert np.isfinite(found.points).all() and np.isfinite(found.shares).all()


def test_neighbours_keep_clusters_apart():
    rows = np.concatenate([RNG.normal(c, 0.1, (25, 5)) for c in (0, 5)])
    points = explore.neighbours(rows, 30, 0)
    own = np.linalg.norm(points[:25] - points[:25].mean(0), axis=1).max()
    assert np.linalg.norm(points[:25].mean(0) - points[25:].mean(0)) > own
    np.testing.assert_array_equal(points, explore.neighbours(rows, 30, 0))


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [
        text.get_text() for text in figure.texts
    ]


def test_scatter_shows_every_point_and_names_classes_with_counts():
    points, labels = RNG.normal(size=(60, 2)), np.arange(60) % 3
    names = ("component 1", "component 2")
    figure = explore.scatter_figure(points, labels, ("a", "b", "c"), "toy", names, ("PHANTOM",))
    axes = figure.axes[0]
    drawn = np.concatenate([lot.get_offsets().data for lot in axes.collections])
    np.testing.assert_allclose(np.sort(drawn[:, 0]), np.sort(points[:, 0]))
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["a (20)", "b (20)", "c (20)"]
    assert axes.get_title() == "toy\nPHANTOM" and "PHANTOM" in texts(figure)
    assert (axes.get_xlabel(), axes.get_ylabel()) == names
    plain = explore.scatter_figure(points, labels, ("a", "b", "c"), "toy", names)
    assert plain.axes[0].get_title() == "toy" and texts(plain) == []


def test_bars_stand_for_the_counts():
    counts = {"train": {"a": 30, "b": 10}, "test": {"a": 3, "b": 0}}
    figure = explore.classes_figure(counts, "toy", ("PHANTOM",))
    axes = figure.axes[0]
    assert [bar.get_height() for bar in axes.patches] == [30, 3, 10, 0]
    assert texts(figure) == ["30\n75%", "3\n100%", "10\n25%", "0\n0%", "PHANTOM"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["training", "test"]


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_are_rows_of_classes(tmp_path: Path, channels):
    made = RNG.integers(0, 256, (5, 20, 30, channels)).astype(np.uint8)
    figure = explore.samples_figure({"a": list(made[:3]), "b": list(made[3:])}, "toy", ("PHANTOM",))
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(shown) == 5 and len(figure.axes) == 6
    np.testing.assert_array_equal(shown[0].reshape(20, 30, -1), made[0])
    assert "PHANTOM" in texts(figure) and figure.get_suptitle() == "toy\nPHANTOM"
    path = explore.save(figure, tmp_path / "new" / "samples.png")
    width = imread(path).shape[1]
    assert width == round(figure.get_size_inches()[0] * 200)


def test_classes_differ_in_colour_and_shape():
    assert len(set(zip(explore.COLOURS, explore.SHAPES, strict=True))) == 8
    assert len(set(explore.COLOURS)) == len(set(explore.SHAPES)) == 8
