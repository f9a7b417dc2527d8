import numpy as np
import pytest
from PIL import Image

from medexp.data.pixels import centre_crop, centre_square, resize
from medexp.errors import ConfigError, MedexpError

IMAGE = np.random.default_rng(0).integers(0, 256, (9, 14, 3)).astype(np.uint8)


@pytest.mark.parametrize("size", [1, 4, 9])
def test_crop_is_centred_the_odd_pixel_to_the_bottom_right(size):
    top, left = (9 - size) // 2, (14 - size) // 2
    oracle = Image.fromarray(IMAGE).crop((left, top, left + size, top + size))
    assert np.array_equal(centre_crop(IMAGE, size), np.asarray(oracle))
    assert np.array_equal(centre_square(IMAGE), centre_crop(IMAGE, 9))


def test_a_crop_larger_than_the_image():
    with pytest.raises(MedexpError, match="image of 14x9: smaller than a crop of 10x10"):
        centre_crop(IMAGE, 10)


def test_area_is_the_mean_of_whole_blocks():
    image = IMAGE[:8, :12].astype(np.float32)
    means = image.reshape(4, 2, 4, 3, 3).mean((1, 3))
    assert np.allclose(resize(image, 4, 4), means, atol=1e-4)


def test_grey_keeps_its_channel_and_dtype():
    for dtype in (np.uint8, np.float32):
        made = resize(IMAGE[..., :1].astype(dtype), 20, 10, "linear")
        assert made.shape == (20, 10, 1) and made.dtype == dtype


def test_linear_is_scipys_at_pixel_centres():
    from scipy.ndimage import map_coordinates

    image = IMAGE[..., 0].astype(np.float32)
    y, x = ((np.arange(n) + 0.5) * old / n - 0.5 for n, old in ((18, 9), (7, 14)))
    grid = np.meshgrid(y, x, indexing="ij")
    oracle = map_coordinates(image, grid, order=1, mode="nearest")
    assert np.allclose(resize(image[..., None], 18, 7, "linear")[..., 0], oracle, atol=1e-2)


def test_an_interpolation_that_does_not_exist():
    with pytest.raises(ConfigError, match=r"dataset.interpolation=liner: .* Did you mean 'linear'"):
        resize(IMAGE, 4, 4, "liner")
