"""Augmentation against numpy, scipy and torchvision on fixed draws, image by image.

Statistics against their definition. What is interpolated is compared within 1e-4 of the images'
range as floats, for positions are float32, and within one level as bytes.
"""

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as tv
import torchvision.transforms.v2.functional as TF
from scipy import ndimage, stats

from medexp.augment import (
    Affine,
    Augment,
    Blur,
    BrightnessContrast,
    Chain,
    Cutout,
    FlipsTurns,
    Identity,
    Mixup,
    PadCrop,
    RightAngles,
    places,
    symmetries,
    values,
)
from medexp.augment.base import where
from medexp.config import compose
from medexp.errors import ConfigError, MedexpError
from tests.conftest import ROOT

YAMLS = sorted(path.stem for path in (ROOT / "conf" / "augment").glob("*.yaml"))
EVERY = {
    "flips": FlipsTurns(turns=False),
    "symmetries": FlipsTurns(),
    "right_angles": RightAngles(),
    "bilinear": Affine(degrees=30, scale=(0.8, 1.2), shift=0.1, crop=0.9, p=0.8, fill=3.0),
    "crops": Affine(degrees=30, crop=(0.5, 0.9), fill="border"),
    "border": Affine(degrees=180, fill="border"),
    "cubic": Affine(degrees=30, scale=(0.8, 1.2), shift=0.1, interpolation="cubic"),
    "cubic_border": Affine(angles=[0, 45], p=0.8, interpolation="cubic", fill="border"),
    "pad_crop": PadCrop(padding=2, fill=7),
    "pad_crop_border": PadCrop(padding=3, fill="border"),
    "brightness": BrightnessContrast(brightness=0.3, contrast=0.3, p=0.8),
    "blur": Blur(sigma=(0.3, 1.2), p=0.8),
    "cutout": Cutout(size=0.4, p=0.7),
    "chain": Chain(steps=[FlipsTurns(), Affine(degrees=9), Cutout(p=0.3), Mixup()]),
}


def noise(*shape, dtype=torch.float32, seed=0):
    bytes_ = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    images = torch.from_numpy(bytes_)
    return images if dtype == torch.uint8 else (images / 255).to(dtype)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def first(images):
    """(H, W, C) -> (C, H, W), as torchvision has it."""
    return images.permute(2, 0, 1)


def last(images):
    return images.permute(1, 2, 0)


def close(got, want, levels=1):
    """Within one level as bytes, within 1e-4 as floats."""
    assert got.dtype == want.dtype and got.shape == want.shape
    tolerance = levels if got.dtype == torch.uint8 else 1e-4
    torch.testing.assert_close(got.double(), want.double(), rtol=0, atol=tolerance)


def alike(observed, expected=None):
    """Counts that their definition makes likely: chi-square, p above 1e-4."""
    assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_each_image_gets_its_own_draw_and_equals_numpy():
    images = torch.randint(0, 256, (32, 6, 6, 3), dtype=torch.uint8)
    columns = list(itertools.product([0.2, 0.7], [0.2, 0.7], [0.1, 0.3, 0.6, 0.9])) * 2
    draws = torch.tensor(columns)
    out = FlipsTurns()(images.clone(), draws).numpy()
    for image, (h, v, t), got in zip(images.numpy(), columns, out, strict=True):
        want = image[:, ::-1] if h < 0.5 else image
        want = want[::-1] if v < 0.5 else want
        np.testing.assert_array_equal(got, np.rot90(want, int(t * 4)))


def test_the_eight_symmetries_of_a_square_are_equally_likely():
    n = 8000
    marked = torch.arange(4, dtype=torch.uint8).reshape(1, 2, 2, 1).expand(n, -1, -1, -1)
    augment = FlipsTurns()
    out = augment(marked.clone(), augment.draw(n, torch.Generator().manual_seed(0)))
    counts = Counter(tuple(image.flatten().tolist()) for image in out)
    assert len(counts) == 8
    assert all(abs(count - n / 8) < 5 * (n / 8) ** 0.5 for count in counts.values())


def test_parts_can_be_switched_off():
    images = torch.randint(0, 256, (64, 4, 5, 1), dtype=torch.uint8)
    draws = torch.rand(64, 3)
    assert torch.equal(
        FlipsTurns(horizontal=False, vertical=False, turns=False)(images.clone(), draws), images
    )
    flipped = FlipsTurns(vertical=False, turns=False)(images.clone(), draws)
    for before, after, draw in zip(images, flipped, draws, strict=True):
        assert torch.equal(after, before.flip(1) if draw[0] < 0.5 else before)


def test_volumes_turn_in_the_plane_of_their_slices():
    volumes = torch.randint(0, 256, (16, 3, 4, 4, 1), dtype=torch.uint8)
    draws = torch.rand(16, 3)
    slices = [FlipsTurns()(volumes[:, depth].clone(), draws) for depth in range(3)]
    assert torch.equal(FlipsTurns()(volumes, draws), torch.stack(slices, dim=1))


def test_turns_of_oblong_images_are_refused():
    with pytest.raises(MedexpError, match=r"augment\.turns=true: images are 4x5.*turns=false"):
        FlipsTurns()(torch.zeros(2, 4, 5, 3), torch.rand(2, 3))


def test_identity():
    augment = Identity()
    images = torch.rand(3, 4, 4, 1)
    assert augment(images, augment.draw(3, torch.Generator())) is images


# ---------------------------------------------------------------- what holds for all


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    "dtype, shape",
    [
        (torch.uint8, (6, 12, 12, 3)),
        (torch.uint8, (4, 3, 12, 12, 1)),
        (torch.float16, (4, 3, 12, 12, 1)),
        (torch.float32, (6, 12, 12, 1)),
    ],
)
def test_a_batch_of_mixed_draws_equals_its_images_one_by_one(name, dtype, shape):
    augment, images = EVERY[name], noise(*shape, dtype=dtype)
    draws = augment.draw(len(images), seeded(3))
    out = augment(images.clone(), draws)
    assert out.shape == images.shape and out.dtype == dtype and out.is_contiguous()
    assert not torch.equal(out, images)
    for i in range(len(images)):
        alone = augment(images[i : i + 1].clone(), draws[i : i + 1])
        torch.testing.assert_close(alone[0], out[i], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_an_image_is_the_same_whatever_else_is_in_the_batch(name):
    augment, images = EVERY[name], noise(9, 12, 12, 3)
    draws = augment.draw(9, seeded(1))
    out = augment(images.clone(), draws)
    turned = torch.arange(9).flip(0)
    torch.testing.assert_close(
        augment(images[turned].clone(), draws[turned])[turned], out, rtol=0, atol=1e-6
    )
    others, other_draws = noise(9, 12, 12, 3, seed=9), augment.draw(9, seeded(9))
    others[4], other_draws[4] = images[4], draws[4]
    torch.testing.assert_close(augment(others, other_draws)[4], out[4], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_volumes_are_changed_slice_by_slice_all_alike(name):
    if name == "brightness":
        pytest.skip("a volume has one mean")
    augment, volumes = EVERY[name], noise(8, 5, 12, 12, 1)
    volumes[:, :, 0, :2, 0] = torch.tensor([0.0, 1.0])  # splines are clipped to a volume's range
    draws = augment.draw(8, seeded())
    slices = [augment(volumes[:, depth].clone(), draws) for depth in range(5)]
    torch.testing.assert_close(
        augment(volumes.clone(), draws), torch.stack(slices, dim=1), rtol=0, atol=2e-6
    )


@pytest.mark.parametrize("name", EVERY)
def test_draws_follow_from_the_generator_alone(name):
    augment = EVERY[name]
    draws = augment.draw(50, seeded(4))
    assert isinstance(augment, Augment)
    assert draws.dtype == torch.float32 and draws.min() >= 0 and draws.max() <= 1
    assert torch.equal(draws, augment.draw(50, seeded(4)))
    assert not torch.equal(draws, augment.draw(50, seeded(5)))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    "images",
    [noise(12, 16, 16, 3, dtype=torch.uint8), noise(9, 3, 12, 12, 1)],
    ids=["uint8", "volumes"],
)
def test_what_a_device_does_gives_the_same(name, images, monkeypatch):
    """There all images are changed and then selected; here that is done on the CPU."""

    def all_changed(chosen, images, change, *columns):
        changed = change(images, *columns)
        return torch.where(chosen.view(-1, *[1] * (images.ndim - 1)), changed, images)

    augment = EVERY[name]
    draws = augment.draw(len(images), seeded())
    want = augment(images.clone(), draws)
    for module in (places, symmetries, values):
        monkeypatch.setattr(module, "where", all_changed)
    torch.testing.assert_close(augment(images.clone(), draws), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16])
def test_nothing_looks_at_what_is_on_a_device(name, dtype, monkeypatch):
    """Tensors of the meta device have no values: item, nonzero and tolist raise there.

    Nor is a table of Python's or NumPy's copied there, which would wait as well.
    """
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.rand(3, device="meta").sum().item()
    augment = EVERY[name]
    all_draws = augment.draw(6, seeded()).to("meta")
    for copying in ("tensor", "as_tensor", "from_numpy"):
        monkeypatch.delattr(torch, copying)
    for shape in [(6, 12, 12, 3), (4, 3, 12, 12, 1)]:
        draws = all_draws[: shape[0]]
        out = augment(torch.empty(shape, dtype=dtype, device="meta"), draws)
        assert out.shape == shape and out.dtype == dtype
    if hasattr(augment, "mix"):
        x, target = torch.empty(4, 3, 12, 12, device="meta"), torch.empty(4, 2, device="meta")
        assert augment.mix(x, target, draws)[0].shape == x.shape


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", EVERY)
def test_cuda_is_never_waited_for_and_gives_what_the_cpu_gives(name):
    augment, images = EVERY[name], noise(12, 40, 40, 3, dtype=torch.uint8)
    draws = augment.draw(12, seeded())
    there, own = images.cuda(), draws.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = augment(there.clone(), own)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    close(out.cpu(), augment(images.clone(), draws))


# ---------------------------------------------------------------- symmetries


@pytest.mark.parametrize("p", [Fraction(1, 2), Fraction(11, 20)])
def test_right_angles_have_the_probabilities_of_augmentors_pipeline(p):
    """The four operations in turn by numpy, over all sixteen outcomes of their four draws."""
    square = np.arange(9, dtype=np.uint8).reshape(3, 3, 1)
    operations = (
        lambda x: np.rot90(x, 1),  # Augmentor turns as Pillow does, counter-clockwise
        lambda x: np.rot90(x, 3),
        lambda x: x[:, ::-1],
        lambda x: x[::-1],
    )
    wanted, got = Counter(), Counter()
    for done in itertools.product([True, False], repeat=4):
        chance = math.prod(p if yes else 1 - p for yes in done)
        image = square
        for yes, operation in zip(done, operations, strict=True):
            image = operation(image) if yes else image
        draws = torch.tensor([[float(p) - 0.01 if yes else float(p) + 0.01 for yes in done]])
        out = RightAngles(p=float(p))(torch.from_numpy(square)[None].clone(), draws)[0].numpy()
        np.testing.assert_array_equal(out, image)
        wanted[image.tobytes()] += chance
        got[out.tobytes()] += chance
    assert got == wanted and len(got) == 8 and sum(got.values()) == 1
    if p == Fraction(1, 2):
        assert set(got.values()) == {Fraction(1, 8)}
    else:
        assert len(set(got.values())) > 1


def test_right_angles_are_drawn_as_often_as_they_say():
    n = 8000
    marked = torch.arange(4, dtype=torch.uint8).reshape(1, 2, 2, 1).expand(n, -1, -1, -1)
    augment = RightAngles()
    out = augment(marked.clone(), augment.draw(n, seeded()))
    alike(list(Counter(map(bytes, out.numpy())).values()))


# ---------------------------------------------------------------- affine


def drawn(augment, n, seed=0):
    """The changes (n, 6) that an affine augmentation's draws stand for; see `coordinates`."""
    seen = []
    augment.resample = lambda images, changes: seen.append(changes) or images
    augment(torch.zeros(n, 2, 2, 1), augment.draw(n, seeded(seed)))
    return seen[0].double().numpy()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("size", [(24, 24), (20, 31)])
def test_rotation_scale_and_shift_equal_torchvision(dtype, size):
    images = noise(8, *size, 3, dtype=dtype)
    draws = Affine().draw(8, seeded())
    out = Affine(degrees=[-30, 50], scale=[0.7, 1.5], shift=0.2)(images.clone(), draws)
    for image, draw, got in zip(images, draws.tolist(), out, strict=True):
        angle, scale = -30 + 80 * draw[1], 0.7 + 0.8 * draw[2]
        shift = [0.2 * (2 * draw[3] - 1) * size[1], 0.2 * (2 * draw[4] - 1) * size[0]]
        bilinear = tv.InterpolationMode.BILINEAR
        want = TF.affine(first(image), -angle, shift, scale, [0.0, 0.0], interpolation=bilinear)
        close(got, last(want))


def test_rotation_is_counter_clockwise_as_torchvisions():
    images = noise(4, 21, 21, 1)
    out = Affine(angles=[10, 90, -33, 171])(
        images.clone(), torch.arange(4)[:, None].expand(4, 7) / 4
    )
    for image, angle, got in zip(images, (10, 90, -33, 171), out, strict=True):
        bilinear = tv.InterpolationMode.BILINEAR
        close(got, last(TF.rotate(first(image), angle, interpolation=bilinear)))


def by_scipy(image, draw, *, crop, **how):
    """Rotation by +-40, scale .8 to 1.3 and shift by .15 of a crop, from their definitions."""
    image = image.astype(np.float64)
    sides = np.array(image.shape[:2])
    angle, step = np.deg2rad(-40 + 80 * draw[1]), crop / (0.8 + 0.5 * draw[2])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])  # of (y, x)
    shift = 0.15 * (2 * np.array([draw[4], draw[3]]) - 1) * sides
    window = (1 - crop) / 2 * (2 * np.array([draw[6], draw[5]]) - 1) * sides
    middle = (sides - 1) / 2
    offset = middle + window - step * turn @ (middle + shift)
    planes = [
        ndimage.affine_transform(image[..., c], step * turn, offset, **how)
        for c in range(image.shape[-1])
    ]
    return np.stack(planes, axis=-1)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("crop", [1.0, 0.7])
@pytest.mark.parametrize(
    "interpolation, fill, how",
    [
        ("bilinear", 0.0, {"order": 1, "mode": "grid-constant"}),
        ("bilinear", 0.4, {"order": 1, "mode": "grid-constant", "cval": 0.4}),
        ("bilinear", "border", {"order": 1, "mode": "nearest"}),
        ("cubic", 0.0, {"order": 3, "mode": "constant"}),
        ("cubic", 0.4, {"order": 3, "mode": "constant", "cval": 0.4}),
    ],
)
def test_one_resampling_equals_scipys(dtype, crop, interpolation, fill, how):
    unit = 255 if dtype == torch.uint8 else 1
    if fill != "border":
        fill, how = fill * unit, {**how, "cval": how.get("cval", 0.0) * unit}
    options = {"degrees": 40, "scale": [0.8, 1.3], "shift": 0.15, "crop": crop, "fill": fill}
    augment = Affine(**options, interpolation=interpolation)
    images = noise(6, 22, 27, 2, dtype=dtype)
    draws = augment.draw(6, seeded(2))
    out = augment(images.clone(), draws)
    for image, draw, got in zip(images.numpy(), draws.double().numpy(), out, strict=True):
        want = by_scipy(image, draw, crop=crop, **how)
        want = want.clip(min(image.min(), fill if fill != "border" else 255), image.max())
        close(got, torch.from_numpy(want.round() if unit == 255 else want).to(dtype))


def test_cubic_with_a_border_goes_on_as_the_outer_pixels():
    image = noise(1, 16, 16, 1)
    out = Affine(scale=[0.5, 0.5], interpolation="cubic", fill="border")(
        image.clone(), torch.full((1, 7), 0.5)
    )
    spline = ndimage.spline_filter(image[0, ..., 0].double().numpy(), mode="mirror")
    at = np.clip((np.arange(16) - 7.5) * 2 + 7.5, 0, 15)
    want = ndimage.map_coordinates(
        spline, np.meshgrid(at, at, indexing="ij"), prefilter=False, mode="mirror"
    )
    np.testing.assert_allclose(
        out[0, ..., 0], want.clip(image.min().item(), image.max().item()), atol=1e-4
    )


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 96])
def test_prefilter_equals_scipys_spline_filter(n):
    signal = np.random.default_rng(0).random((n, 2))
    got = places.prefilter(n, torch.device("cpu")).double().numpy() @ signal
    want = ndimage.spline_filter1d(signal, axis=0, mode="mirror") if n > 1 else signal
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2])
def test_volumes_are_rotated_as_in_the_authors_code(channels):
    """scipy.ndimage.rotate, cubic, without reshape, clipped: ViPTT-Net's augmentation."""
    volumes = noise(6, 5, 20, 20, channels)
    volumes = torch.from_numpy(ndimage.gaussian_filter(volumes.numpy(), (0, 0, 1, 1, 0)))
    augment = compose.instantiate("augment", compose.compose(["augment=tbt_code"]).augment)
    draws = torch.rand(6, 7, generator=seeded())
    draws[:, 0] = 0.5
    draws[:, 1] = (torch.arange(6) + 0.5) / 6
    out = augment(volumes.clone(), draws)
    for volume, angle, got in zip(volumes, (-20, -10, -5, 5, 10, 20), out, strict=True):
        by_rows = volume.permute(1, 2, 0, 3).numpy()  # (rows, columns, slices), as theirs
        want = ndimage.rotate(by_rows.astype(np.float64), angle, reshape=False)
        want = want.clip(0, by_rows.max())
        inside = want > 0
        want = np.where(inside, want.clip(by_rows.min()), 0)
        close(got, torch.from_numpy(want).permute(2, 0, 1, 3).float())


def test_a_crop_is_resized_back_as_torchvision_does():
    """But for the outermost pixels, where torchvision does not look beyond the crop."""
    images = noise(5, 40, 40, 3)
    draws = torch.full((5, 7), 0.5)
    draws[:, 5] = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    draws[:, 6] = draws[:, 5].flip(0)
    out = Affine(crop=0.5, fill="border")(images.clone(), draws)
    for image, draw, got in zip(images, draws.tolist(), out, strict=True):
        top, left = round(20 * draw[6]), round(20 * draw[5])
        want = TF.resized_crop(first(image), top, left, 20, 20, [40, 40], antialias=False)
        close(got[1:-1, 1:-1], last(want)[1:-1, 1:-1])


def test_the_cervix_papers_resnet_sees_the_crops_of_he_et_al():
    """Section 6.3: "randomly dilated (i.e. resized), randomly cropped, and randomly flipped [19]".

    He et al. 2016, 3.4: the shorter side "randomly sampled in [256, 480]", "a 224x224 crop [...]
    randomly sampled from an image or its horizontal flip".
    """
    settings = compose.compose(["recipe=cervix_resnet"])
    flips, crops = compose.instantiate("augment", settings.augment).steps
    n = 4000
    image = torch.arange(12.0).view(1, 3, 4, 1).repeat(n, 1, 1, 1)
    out = flips(image.clone(), flips.draw(n, seeded()))
    mirrored = [torch.equal(got, image[0].flip(1)) for got in out]
    still = [torch.equal(got, image[0]) for got in out]
    alike([sum(mirrored), sum(still)], [n / 2, n / 2])  # neither upside down nor turned
    angle, step, right, down, *crop = drawn(crops, n).T
    assert not angle.any() and not right.any() and not down.any()
    assert stats.kstest(224 / step, "uniform", (256, 480 - 256)).pvalue > 1e-4
    for place in crop:  # from one edge of the resized image to the other, whatever its size
        assert stats.kstest(place / (1 - step), "uniform", (-0.5, 1)).pvalue > 1e-4
    assert np.abs(np.corrcoef(224 / step, crop[0] / (1 - step))[0, 1]) < 0.07


def test_a_range_of_crops_is_one_crop_where_its_ends_meet():
    images = noise(5, 20, 20, 3)
    one, range_ = Affine(crop=0.7, fill="border"), Affine(crop=[0.7, 0.7], fill="border")
    draws = one.draw(5, seeded())
    assert torch.equal(range_.draw(5, seeded()), draws)
    assert torch.equal(range_(images.clone(), draws), one(images.clone(), draws))
    # At the end of the eighth draw the crop is that of the range's end.
    wide = Affine(crop=[0.5, 0.7], fill="border")
    ends_ = torch.cat([draws, torch.zeros(5, 1)], dim=1)
    torch.testing.assert_close(wide(images.clone(), ends_), one(images.clone(), draws))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
def test_what_is_not_changed_keeps_its_pixels(dtype):
    images = noise(14, 15, 15, 3, dtype=dtype)
    draws = torch.rand(14, 7, generator=seeded())
    for still in (Affine(), Affine(degrees=30, p=0), Affine(angles=[0], interpolation="cubic")):
        assert torch.equal(still(images.clone(), draws), images)
    draws[:, 1] = (torch.arange(14) % 7 + 0.5) / 7
    out = Affine(angles=[-20, -10, -5, 0, 5, 10, 20], interpolation="cubic")(images.clone(), draws)
    same = [torch.equal(got, image) for got, image in zip(out, images, strict=True)]
    assert same == [False, False, False, True, False, False, False] * 2


def test_a_range_is_drawn_uniformly():
    angle, step, *places_ = drawn(
        Affine(degrees=[-10, 30], scale=[0.5, 2], shift=0.1, crop=0.8), 4000
    ).T
    uniform = {
        "angle": (np.rad2deg(angle), -10, 40),
        "scale": (0.8 / step, 0.5, 1.5),
        "right": (places_[0], -0.1, 0.2),
        "down": (places_[1], -0.1, 0.2),
        "crop_right": (places_[2], -0.1, 0.2),
        "crop_down": (places_[3], -0.1, 0.2),
    }
    for name, (values_, low, width) in uniform.items():
        assert stats.kstest(values_, "uniform", (low, width)).pvalue > 1e-4, name
    columns = np.corrcoef(np.stack([v for v, *_ in uniform.values()]))
    assert np.abs(columns - np.eye(6)).max() < 0.07


@pytest.mark.parametrize(
    "name, shares",
    [
        ("tbt", dict.fromkeys([-20, -10, -5, 0, 5, 10, 20], 1 / 7)),
        ("tbt_turned", dict.fromkeys([-20, -10, -5, 5, 10, 20], 1 / 6)),
        ("tbt_code", {0: 1 / 4, **dict.fromkeys([-20, -10, -5, 5, 10, 20], 1 / 8)}),
    ],
)
def test_the_angles_of_the_tbt_paper_and_of_its_code(name, shares):
    n = 8000
    augment = compose.instantiate("augment", compose.compose([f"augment={name}"]).augment)
    angles = Counter(np.rad2deg(drawn(augment, n)[:, 0]).round().astype(int).tolist())
    angles[0] = n - sum(count for angle, count in angles.items() if angle)  # those that stay
    angles = +angles
    assert set(angles) == set(shares)
    alike([angles[angle] for angle in shares], [n * share for share in shares.values()])


# ---------------------------------------------------------------- whole-pixel crops


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("fill, mode", [(0, "constant"), (9, "constant"), ("border", "edge")])
def test_pad_and_crop_equal_torchvisions(dtype, fill, mode):
    images = noise(49, 10, 13, 3, dtype=dtype)
    draws = torch.tensor([[(i + 0.5) / 7, (j + 0.5) / 7] for i in range(7) for j in range(7)])
    out = PadCrop(padding=3, fill=fill)(images.clone(), draws)
    how = {"padding_mode": mode} | ({} if mode == "edge" else {"fill": fill})
    for image, (top, left), got in zip(images, (draws * 7).int().tolist(), out, strict=True):
        want = TF.crop(TF.pad(first(image), [3], **how), top, left, 10, 13)
        assert torch.equal(got, last(want))


def test_every_shift_is_equally_likely():
    n, augment = 4900, PadCrop(padding=3)
    images = torch.zeros(n, 7, 7, 1, dtype=torch.uint8)
    images[:, 3, 3] = 1
    out = augment(images, augment.draw(n, seeded()))
    assert out.sum() == n
    alike(out.sum(0).flatten().numpy())


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_and_contrast_equal_torchvisions(dtype, channels):
    """torchvision cuts bytes off where we round, and its grey values too."""
    images = noise(6, 9, 11, channels, dtype=dtype)
    draws = torch.rand(6, 3, generator=seeded())
    brighter = BrightnessContrast(brightness=0.5)(images.clone(), draws)
    contrasted = BrightnessContrast(contrast=0.5)(images.clone(), draws)
    for i, (_, b, c) in enumerate((draws + 0.5).tolist()):
        limit = {"max": 255 if dtype == torch.uint8 else 1.0, "min": 0}
        close(brighter[i].clamp(**limit), last(TF.adjust_brightness(first(images[i]), b)))
        close(contrasted[i].clamp(**limit), last(TF.adjust_contrast(first(images[i]), c)), levels=2)


def test_brightness_then_contrast():
    images = 0.3 + 0.3 * noise(6, 9, 11, 3)  # nothing reaches torchvision's limits
    draws = torch.rand(6, 3, generator=seeded())
    out = BrightnessContrast(brightness=0.2, contrast=0.4)(images.clone(), draws)
    for image, (_, b, c), got in zip(images, draws.tolist(), out, strict=True):
        want = TF.adjust_brightness(first(image), 0.8 + 0.4 * b)
        close(got, last(TF.adjust_contrast(want, 0.6 + 0.8 * c)))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("shape", [(6, 21, 17, 3), (6, 4, 9, 11, 1), (6, 5, 2, 1)])
def test_blur_equals_scipys(shape, dtype):
    images = noise(*shape, dtype=dtype)
    augment = Blur(sigma=[0, 2], p=0.8)
    draws = augment.draw(6, seeded(1))
    draws[:, 0] = torch.tensor([0.1, 0.9, 0.2, 0.3, 0.4, 0.5])
    draws[:, 1] = torch.tensor([0.3, 0.9, 0.5, 0.8, 0.0, 1.0])
    out = augment(images.clone(), draws)
    same = [torch.equal(got, image) for got, image in zip(out, images, strict=True)]
    assert same == [False, True, False, False, True, False]  # not chosen, and of no width
    for i in (0, 2, 3, 5):
        sigma = [0.0] * (len(shape) - 4) + 2 * [2 * draws[i, 1].item()] + [0.0]
        want = ndimage.gaussian_filter(images[i].double().numpy(), sigma, mode="nearest", radius=6)
        close(out[i], torch.from_numpy(want.round() if dtype == torch.uint8 else want).to(dtype))


def test_float_images_of_any_unit_are_not_clipped():
    images = 1400 * noise(4, 5, 5, 1) - 1000
    out = BrightnessContrast(brightness=0.5)(images.clone(), torch.full((4, 3), 0.75))
    torch.testing.assert_close(out, images * 1.25)


def test_brightness_changes_the_share_of_images_that_it_says():
    images = torch.full((4000, 2, 2, 1), 100, dtype=torch.uint8)
    augment = BrightnessContrast(brightness=0.5, p=0.3)
    out = augment(images.clone(), augment.draw(4000, seeded()))
    changed = int((out != 100).any(dim=(1, 2, 3)).sum())
    # A factor of 1 give or take half a level changes no byte.
    assert stats.binomtest(changed, 4000, 0.3 * 0.99).pvalue > 1e-4
    assert stats.kstest(draw_of(augment), "uniform").pvalue > 1e-4


def draw_of(augment, column=1, n=4000):
    return augment.draw(n, seeded())[:, column].numpy()


@pytest.mark.parametrize("size", [0.25, 0.5, 1.0])
def test_cutout_equals_torchvisions_erase(size):
    images = noise(20, 12, 16, 3, dtype=torch.uint8)
    augment = Cutout(size=size, p=0.5, fill=7)
    draws = augment.draw(20, seeded())
    out = augment(images.clone(), draws)
    side = int(12 * size)
    for image, (chance, down, right), got in zip(images, draws.tolist(), out, strict=True):
        want = first(image)
        if chance < 0.5:
            top, left = int(down * 12) - side // 2, int(right * 16) - side // 2
            height, width = top + side - max(top, 0), left + side - max(left, 0)
            blank = torch.tensor(7, dtype=torch.uint8)
            want = TF.erase(want, max(top, 0), max(left, 0), height, width, blank)
        assert torch.equal(got, last(want))


def test_the_centre_of_a_cutout_is_any_pixel():
    n, augment = 6400, Cutout(size=1 / 8, p=1.0)
    out = augment(torch.ones(n, 8, 8, 1, dtype=torch.uint8), augment.draw(n, seeded()))
    assert (out.sum(dim=(1, 2, 3)) == 63).all()  # a square of one pixel: its centre
    alike((1 - out).sum(0).flatten().numpy())


# ---------------------------------------------------------------- mixup


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mixup_equals_torchvisions_at_its_one_share_a_batch(share):
    x, labels = noise(6, 3, 5, 5), torch.tensor([0, 2, 1, 1, 0, 2])
    peer = tv.MixUp(num_classes=3)
    params = {"labels": labels, "batch_size": 6, "lam": share}
    target = torch.nn.functional.one_hot(labels, 3).float()
    mixed, shares = Mixup().mix(x.clone(), target, torch.full((6, 1), share))
    torch.testing.assert_close(mixed, peer.transform(x.clone(), params))
    torch.testing.assert_close(shares, peer.transform(labels, params).float())


@pytest.mark.parametrize("shape", [(5, 3, 4, 4), (5, 1, 2, 4, 4)])
def test_each_image_has_its_own_share(shape):
    x, target, draws = noise(*shape), torch.eye(5), torch.rand(5, 1, generator=seeded())
    mixed, shares = Mixup().mix(x, target, draws)
    for i, share in enumerate(draws[:, 0].tolist()):
        torch.testing.assert_close(mixed[i], share * x[i] + (1 - share) * x[i - 1])
        torch.testing.assert_close(shares[i], share * target[i] + (1 - share) * target[i - 1])
    torch.testing.assert_close(shares.sum(1), torch.ones(5))


def test_mixup_keeps_the_memory_layout():
    x = noise(4, 6, 6, 3).movedim(-1, 1)
    assert not x.is_contiguous()
    assert Mixup().mix(x, torch.eye(4), torch.rand(4, 1))[0].stride() == x.stride()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_are_of_the_beta_distribution(alpha):
    shares = Mixup(alpha=alpha).draw(4000, seeded())[:, 0].double().numpy()
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-4


# ---------------------------------------------------------------- chains and configs


def test_a_chain_is_its_steps_each_with_its_own_columns():
    steps = [FlipsTurns(), Affine(degrees=20), Cutout()]
    chain, images = Chain(steps=steps), noise(10, 12, 12, 3, dtype=torch.uint8)
    generator = seeded(7)
    parts = [step.draw(10, generator) for step in steps]
    draws = chain.draw(10, seeded(7))
    assert torch.equal(draws, torch.cat(parts, dim=1))
    want = images.clone()
    for step, own in zip(steps, parts, strict=True):
        want = step(want, own)
    assert torch.equal(chain(images.clone(), draws), want)


@pytest.mark.parametrize("width", [8, 7])  # with C = 3 and 5 rows: 120 bytes, words; 105, none
def test_the_chosen_images_are_changed_whatever_their_bytes_and_layout(width):
    images = torch.randint(0, 256, (6, 5, width, 3), dtype=torch.uint8)
    chosen = torch.tensor([True, False, True, True, False, False])
    want = images.clone()
    for row in (0, 2, 3):
        want[row] = torch.from_numpy(np.flip(images[row].numpy(), 1).copy())
    layouts = (images.clone(), images.transpose(1, 2).contiguous().transpose(1, 2))
    shifted = torch.zeros(images.numel() + 1, dtype=torch.uint8)[1:].view(images.shape)
    for given in (*layouts, shifted.copy_(images)):
        got = where(chosen, given, lambda x: x.transpose(1, 2).flip(1).transpose(1, 2))
        assert torch.equal(got, want)
    new = torch.cat([torch.zeros(1, dtype=torch.uint8), want[[0, 2, 3]].flatten()])
    skewed = new[1:].view(3, 5, width, 3)  # its words begin elsewhere
    assert torch.equal(where(chosen, images.clone(), lambda x: skewed), want)
    assert torch.equal(where(torch.zeros(6).bool(), images, lambda x: x.flip(1)), images)


def test_a_chain_mixes_where_one_of_its_steps_does():
    assert not hasattr(Chain(steps=[FlipsTurns(), Cutout()]), "mix")
    chain = Chain(steps=[FlipsTurns(), Mixup(), Mixup()])
    x, target, draws = noise(4, 3, 6, 6), torch.eye(4), chain.draw(4, seeded())
    want = Mixup().mix(*Mixup().mix(x, target, draws[:, 3:4]), draws[:, 4:5])
    for got, expected in zip(chain.mix(x, target, draws), want, strict=True):
        assert torch.equal(got, expected)


def test_chains_nest():
    steps = [FlipsTurns(), Affine(degrees=20), Mixup()]
    flat, nested = Chain(steps=steps), Chain(steps=[steps[0], Chain(steps=steps[1:])])
    images, draws = noise(5, 9, 9, 1), flat.draw(5, seeded())
    assert torch.equal(nested.draw(5, seeded()), draws)
    assert torch.equal(nested(images.clone(), draws), flat(images.clone(), draws))


@pytest.mark.parametrize("name", YAMLS)
def test_every_yaml_gives_an_augmentation(name):
    augment = compose.instantiate("augment", compose.compose([f"augment={name}"]).augment)
    assert isinstance(augment, Augment)
    for images in (noise(3, 12, 12, 3, dtype=torch.uint8), noise(2, 4, 12, 12, 1)):
        out = augment(images.clone(), augment.draw(len(images), seeded()))
        assert out.shape == images.shape and out.dtype == images.dtype


def test_the_yamls_were_found():
    assert {"right_angles", "cervix", "tbt", "tbt_code", "strong", "mixup"} <= set(YAMLS)


@pytest.mark.parametrize(
    "target, options, message",
    [
        (Affine, {"crop": 0}, r"augment\.crop=0: keeps nothing\. 1 is no crop"),
        (Affine, {"crop": 1.5}, r"augment\.crop=1\.5: must lie from 0 to 1"),
        (Affine, {"crop": [0, 0.5]}, r"augment\.crop=0: keeps nothing"),
        (Affine, {"crop": [-0.5, 0.5]}, r"augment\.crop=-0\.5: must lie from 0 to 1"),
        (Affine, {"crop": [0.5, 0.4]}, r"augment\.crop=\[0\.5, 0\.4\]: must be \[low, high\]"),
        (Affine, {"p": -0.1}, r"augment\.p=-0\.1: must lie from 0 to 1"),
        (Affine, {"shift": 2}, r"augment\.shift=2: must lie from 0 to 1"),
        (Affine, {"scale": [2, 1]}, r"augment\.scale=\[2, 1\]: must be \[low, high\]"),
        (Affine, {"scale": [0, 1]}, r"augment\.scale=\[0, 1\]: .*from 0\.001 on"),
        (Affine, {"degrees": [1]}, r"augment\.degrees=\[1\]: must be \[low, high\]"),
        (Affine, {"degrees": -5}, r"augment\.degrees=\[5, -5\]: must be \[low, high\]"),
        (Affine, {"angles": []}, r"augment\.angles=\[\]: give at least one"),
        (Affine, {"angles": [3], "degrees": 5}, r"angles=\[3\]: .*augment\.degrees=0"),
        (Affine, {"interpolation": "cubik"}, r"interpolation=cubik: .*Did you mean 'cubic'"),
        (Affine, {"fill": "boarder"}, r"augment\.fill=boarder: .*Did you mean 'border'"),
        (PadCrop, {"padding": -1}, r"augment\.padding=-1: must be 0 or more pixels"),
        (PadCrop, {"padding": 1, "fill": "edge"}, r"augment\.fill=edge: .*Valid: border"),
        (BrightnessContrast, {"brightness": 3}, r"augment\.brightness=3: must lie from 0 to 1"),
        (BrightnessContrast, {"contrast": -1}, r"augment\.contrast=-1: must lie from 0 to 1"),
        (Blur, {"sigma": [-1, 1]}, r"augment\.sigma=\[-1, 1\]: .*from 0\.0 on"),
        (Blur, {"p": 2}, r"augment\.p=2: must lie from 0 to 1"),
        (Cutout, {"size": 1.1}, r"augment\.size=1\.1: must lie from 0 to 1"),
        (RightAngles, {"p": 2}, r"augment\.p=2: must lie from 0 to 1"),
        (Mixup, {"alpha": 0}, r"augment\.alpha=0: must be above 0"),
        (Chain, {"steps": []}, r"augment\.steps=\[\]: .*augment=none"),
        (Chain, {"steps": [Cutout(), {"size": 1}]}, r"augment\.steps\.1: .*_target_"),
    ],
)
def test_bad_values_are_refused(target, options, message):
    with pytest.raises(ConfigError, match=message):
        target(**options)


@pytest.mark.parametrize(
    "step, message",
    [
        ({"degres": 3}, r"augment\.steps\.0\.degres: .*Did you mean 'degrees'"),
        ({"degrees": "many"}, r"augment\.steps\.0\.degrees='many': must be float"),
    ],
)
def test_a_misspelt_key_inside_a_chain_is_refused(step, message):
    node = {
        "_target_": "medexp.augment.Chain",
        "steps": [{"_target_": "medexp.augment.Affine", **step}],
    }
    with pytest.raises(ConfigError, match=message):
        compose.instantiate("augment", node)


def test_right_angles_of_oblong_images_are_refused():
    with pytest.raises(MedexpError, match=r"augment=right_angles: images are 4x5.*flips_turns"):
        RightAngles()(torch.zeros(2, 4, 5, 3), torch.rand(2, 4))
