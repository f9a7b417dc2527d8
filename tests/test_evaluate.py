"""predict() against a plain loop."""

import numpy as np
import torch
from torch import nn

from medexp.data.base import Split
from medexp.evaluate import predict, to_input


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


def test_to_input_scales_uint8_and_keeps_float():
    images = torch.randint(0, 256, (2, 5, 6, 3), dtype=torch.uint8)
    x = to_input(images)
    assert x.shape == (2, 3, 5, 6) and x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x[1, 2, 3, 4], images[1, 3, 4, 2] / 255)
    floats = torch.randn(2, 4, 5, 6, 1)
    assert torch.equal(to_input(floats)[:, 0], floats[..., 0])
