"""layers.py against Keras 3 on the torch backend, with the same weights, CPU, float32."""

import math
import os

os.environ["KERAS_BACKEND"] = "torch"

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from medexp.models.layers import (
    Conv2dSame,
    MaxPool2dSame,
    batch_norm,
    flatten_channels_last,
    keras_init_,
    same_padding,
    same_size,
)

keras = pytest.importorskip("keras")

KERNELS = [1, 2, 3, 4, 5, 7, 10, (2, 5), (3, 1)]
STRIDES = [1, 2, 3, 4, (1, 3)]
SIZES = [(96, 96), (7, 8), (13, 5), (2, 3), (1, 1)]
# Every kernel with every stride, each of both with every size.
WINDOWS = [
    (kernel, stride, SIZES[(i + j) % len(SIZES)])
    for i, kernel in enumerate(KERNELS)
    for j, stride in enumerate(STRIDES)
]


def to_keras(x):
    """(N, C, H, W) -> (N, H, W, C)."""
    return x.detach().permute(0, 2, 3, 1).contiguous()


def from_keras(x):
    return x.detach().cpu().permute(0, 3, 1, 2)


def images(size, channels=3, n=2, seed=0):
    return torch.randn(n, channels, *size, generator=torch.Generator().manual_seed(seed))


def test_same_padding_by_hand():
    assert same_size(96, 4) == 24 and same_size(97, 4) == 25 and same_size(3, 2) == 2
    assert same_padding(96, 9, 3) == (3, 3)  # 31 * 3 + 9 - 96 = 6
    assert same_padding(24, 5, 2) == (1, 2)  # 11 * 2 + 5 - 24 = 3, the odd pixel after
    assert same_padding(96, 2, 2) == (0, 0)
    assert same_padding(75, 2, 2) == (0, 1)
    assert same_padding(10, 1, 3) == (0, 0)  # windows that skip pixels need no padding


@pytest.mark.parametrize("kernel, stride, size", WINDOWS)
def test_convolution_equals_keras(kernel, stride, size):
    x = images(size)
    ours = Conv2dSame(3, 4, kernel, stride)
    layer = keras.layers.Conv2D(4, kernel, strides=stride, padding="same")
    layer.build((None, *size, 3))
    layer.set_weights(
        [ours.weight.detach().permute(2, 3, 1, 0).numpy(), ours.bias.detach().numpy()]
    )
    expected = from_keras(layer(to_keras(x)))
    got = ours(x)
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel, stride, size", WINDOWS)
def test_max_pooling_equals_keras(kernel, stride, size):
    x = images(size) - 5  # all negative: a padding of zeros would win
    layer = keras.layers.MaxPooling2D(kernel, strides=stride, padding="same")
    expected = from_keras(layer(to_keras(x)))
    got = MaxPool2dSame(kernel, stride)(x)
    assert got.shape == expected.shape
    assert torch.equal(got, expected)


def test_pooling_strides_by_its_size_unless_told():
    assert MaxPool2dSame(3)(images((7, 7))).shape[-2:] == (3, 3)
    assert "kernel_size=(3, 3), stride=(3, 3)" in repr(MaxPool2dSame(3))


def test_pooling_gradient_never_goes_to_the_padding():
    x = images((5, 5)).requires_grad_()
    MaxPool2dSame(2, 2)(x).sum().backward()
    assert x.grad.sum() == 2 * 3 * 3 * 3  # each of N*C*3*3 windows has its one winner inside


def test_flatten_equals_keras_and_is_free_in_channels_last():
    x = images((4, 5))
    expected = keras.layers.Flatten()(to_keras(x)).detach()
    assert torch.equal(flatten_channels_last(x), expected)
    x = x.to(memory_format=torch.channels_last)
    assert torch.equal(flatten_channels_last(x), expected)
    assert flatten_channels_last(x).data_ptr() == x.data_ptr()


def test_batch_norm_constants_equal_keras():
    """Training output, gradients, moving mean and evaluation; the variance by its known factor."""
    x = images((4, 5), n=3) * 2 + 1
    weight = images((4, 5), n=3, seed=1)
    ours = batch_norm(3, keras_defaults=True)
    theirs = keras.layers.BatchNormalization()
    ours_x, theirs_x = x.clone().requires_grad_(), to_keras(x).requires_grad_()
    ours_y, theirs_y = ours(ours_x), theirs(theirs_x, training=True)
    torch.testing.assert_close(ours_y, from_keras(theirs_y), rtol=1e-5, atol=1e-5)
    (ours_y * weight).sum().backward()
    (theirs_y * to_keras(weight)).sum().backward()
    torch.testing.assert_close(ours_x.grad, from_keras(theirs_x.grad), rtol=1e-5, atol=1e-5)
    for mine, yours in ((ours.weight, theirs.gamma), (ours.bias, theirs.beta)):
        torch.testing.assert_close(mine.grad, yours.value.grad, rtol=1e-5, atol=1e-5)
    mean = theirs.moving_mean.value.detach()
    torch.testing.assert_close(ours.running_mean, mean, rtol=1e-5, atol=1e-6)

    n = 3 * 4 * 5  # Keras 3 takes the biased variance, Keras 2 and PyTorch n / (n - 1) times it
    new_share = theirs.moving_variance.value.detach() - 0.99
    torch.testing.assert_close(
        ours.running_var, 0.99 + new_share * n / (n - 1), rtol=1e-5, atol=1e-6
    )

    theirs.moving_variance.assign(ours.running_var)
    expected = from_keras(theirs(to_keras(x), training=False))
    torch.testing.assert_close(ours.eval()(x), expected, rtol=1e-5, atol=1e-5)


def test_batch_norm_without_keras_defaults_is_pytorchs():
    ours, theirs = batch_norm(3, keras_defaults=False), nn.BatchNorm2d(3)
    assert (ours.eps, ours.momentum) == (theirs.eps, theirs.momentum) == (1e-5, 0.1)


@pytest.mark.parametrize(
    "layer, fan_in, fan_out",
    [
        (nn.Linear(300, 200), 300, 200),
        (Conv2dSame(30, 100, 5, 2), 30 * 25, 100 * 25),
        (nn.Conv3d(8, 16, (1, 3, 5)), 8 * 15, 16 * 15),
    ],
)
def test_initialisation_is_glorot_uniform(layer, fan_in, fan_out):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Sequential(layer), nn.ReLU())
    keras_init_(network)
    limit = math.sqrt(6 / (fan_in + fan_out))
    weight = layer.weight.detach().numpy().ravel()
    assert np.abs(weight).max() <= limit
    assert scipy.stats.kstest(weight, "uniform", args=(-limit, 2 * limit)).pvalue > 1e-3
    assert not layer.bias.any()
    if isinstance(layer, nn.Linear):
        shape = tuple(layer.weight.T.shape)
    else:
        shape = (*layer.kernel_size, layer.in_channels, layer.out_channels)
    theirs = keras.ops.convert_to_numpy(keras.initializers.GlorotUniform(seed=0)(shape)).ravel()
    assert np.abs(theirs).max() == pytest.approx(np.abs(weight).max(), rel=1e-2)
    assert theirs.std() == pytest.approx(weight.std(), rel=2e-2)


def test_initialisation_takes_a_layer_without_bias_and_is_seeded():
    weights = []
    for _ in range(2):
        torch.manual_seed(7)
        layer = Conv2dSame(3, 4, 3, bias=False)
        keras_init_(layer)
        weights.append(layer.weight.detach())
    assert torch.equal(*weights)


def test_groups():
    layer = Conv2dSame(4, 8, 4, 3, groups=2)
    x = images((10, 11), channels=4)
    top, left = same_padding(10, 4, 3), same_padding(11, 4, 3)
    padded = nn.functional.pad(x, (*left, *top))
    expected = nn.functional.conv2d(padded, layer.weight, layer.bias, 3, groups=2)
    torch.testing.assert_close(layer(x), expected)


def test_one_graph_and_channels_last_and_bf16():
    """The convolution is padded by itself, the pooling and the last layer by us."""
    network = nn.Sequential(Conv2dSame(3, 4, 5, 2), MaxPool2dSame(2, 2), Conv2dSame(4, 4, 2))
    x = images((25, 23))
    expected = network(x)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), expected)
    last = network.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, expected, rtol=1e-5, atol=1e-5)
    assert last.is_contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        low = network(x)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), expected, rtol=5e-2, atol=5e-2)
