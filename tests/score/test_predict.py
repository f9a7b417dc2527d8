"""predict() against a plain loop, test-time augmentation against numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from medexp.data.base import Split
from medexp.errors import ConfigError, MedexpError
from medexp.score.predict import predict, predict_views, probabilities, to_input, views


def make_split(n=37):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 8, 8, 3)).astype(np.uint8)
    return Split(images, np.arange(n) % 2, np.array([str(i) for i in range(n)]))


def test_predict_equals_one_image_at_a_time_and_keeps_order():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 2)
    )
    split = make_split()
    logits = predict(network, split, device=torch.device("cpu"), batch_size=10, channels_last=True)
    assert logits.shape == (37, 2) and logits.dtype == np.float32 and not network.training
    for image, row in zip(split.images, logits, strict=True):
        x = torch.from_numpy(image.transpose(2, 0, 1)[None] / np.float32(255))
        np.testing.assert_allclose(network(x).detach().numpy()[0], row, rtol=1e-4, atol=1e-5)


def test_predictions_are_computed_in_whole_float32(monkeypatch):
    """cuDNN's default for float32 is TF32, which has three decimal digits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen = []

    class Looking(nn.Module):
        def forward(self, x):
            seen.append(torch.backends.cudnn.allow_tf32)
            return x.mean((2, 3))

    predict(Looking(), make_split(), device=torch.device("cpu"), batch_size=20, channels_last=True)
    assert seen == [False, False] and torch.backends.cudnn.allow_tf32


def test_too_little_memory_names_the_key():
    """The text is what torch 2.11 says on an H100."""

    class Large(nn.Module):
        def forward(self, x):
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of "
                "79.19 GiB of which 1.50 GiB is free."
            )

    with pytest.raises(
        MedexpError,
        match="too small to predict 20 images at once: Tried to allocate 20.00 GiB. Lower "
        "trainer.eval_batch_size",
    ):
        predict(
            Large(), make_split(), device=torch.device("cpu"), batch_size=20, channels_last=True
        )


def test_to_input_scales_uint8_and_keeps_float():
    images = torch.randint(0, 256, (2, 5, 6, 3), dtype=torch.uint8)
    x = to_input(images)
    assert x.shape == (2, 3, 5, 6) and x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x[1, 2, 3, 4], images[1, 3, 4, 2] / 255)
    floats = torch.randn(2, 4, 5, 6, 1)
    assert torch.equal(to_input(floats)[:, 0], floats[..., 0])


def test_one_output_is_the_sigmoid_of_the_second_class():
    z = np.array([[-3.0], [0.0], [2.0]], np.float32)
    second = 1 / (1 + np.exp(-z[:, 0].astype(float)))
    np.testing.assert_allclose(probabilities(z), np.stack([1 - second, second], 1), rtol=1e-12)
    pair = probabilities(np.array([[0.0, np.log(3)]], np.float32))
    np.testing.assert_allclose(pair, [[0.25, 0.75]], rtol=1e-6)


# ---------------------------------------------------------------- test-time augmentation


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 1))


@pytest.mark.parametrize(
    ("flags", "count"),
    [
        ((False, False, False), 1),
        ((True, False, False), 2),
        ((False, True, False), 2),
        ((True, True, False), 4),
        ((False, False, True), 4),
        ((True, False, True), 8),
        ((True, True, True), 8),
    ],
)
def test_views_are_numpys_flips_and_turns_each_once(flags, count):
    """Against all products of numpy's flips and quarter turns of a photograph and of a volume."""
    horizontal, vertical, turns = flags
    for shape in ((4, 4, 3), (2, 4, 4, 1)):
        image = np.random.default_rng(0).random(shape).astype(np.float32)
        plane = (len(shape) - 3, len(shape) - 2)  # height, width
        expected = {
            np.rot90(b, quarters, plane).tobytes()
            for a in ([image, np.flip(image, plane[1])] if horizontal else [image])
            for b in ([a, np.flip(a, plane[0])] if vertical else [a])
            for quarters in (range(4) if turns else [0])
        }
        made = views(horizontal=horizontal, vertical=vertical, turns=turns)
        found = [view(torch.from_numpy(image[None])).numpy() for view in made]
        assert all(x.flags.c_contiguous and x.shape == (1, *shape) for x in found)
        assert len(found) == len(expected) == count
        assert {x.tobytes() for x in found} == expected
        np.testing.assert_array_equal(found[0][0], image)


def test_predict_views_is_predict_of_each_view_and_the_first_to_the_bit():
    split = make_split()
    how = {"device": torch.device("cpu"), "batch_size": 10, "channels_last": True}
    made = views(horizontal=True, vertical=True, turns=True)
    logits = predict_views(small(), split, made, **how)
    assert logits.shape == (8, 37, 1) and logits.dtype == np.float32
    np.testing.assert_array_equal(logits[0], predict(small(), split, **how))
    shown = np.rot90(split.images[:, :, ::-1], 3, (1, 2))  # flipped, three quarters: the last view
    other = Split(np.ascontiguousarray(shown), split.labels, split.ids)
    np.testing.assert_array_equal(logits[7], predict(small(), other, **how))
    assert np.ptp(logits, axis=0).max() > 1e-3


def test_turning_what_is_not_square_is_refused_by_key():
    made = views(horizontal=False, vertical=False, turns=True)
    with pytest.raises(ConfigError, match=r"tta\.turns=true: images are 4x6.*Take tta=flips"):
        made[1](torch.zeros(1, 4, 6, 3))
    made[0](torch.zeros(1, 4, 6, 3))
