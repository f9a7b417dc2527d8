"""The semantics of Keras layers that several of the papers share, in PyTorch.

All five papers used Keras or TensorFlow 1, whose defaults are not PyTorch's: `same` padding,
channels-last flattening, Glorot-uniform kernels with zero biases, and BatchNorm's constants.
Checked against Keras 3 in `tests/models/test_layers.py`.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

# Keras: epsilon=1e-3, momentum=0.99 (the share that is kept; PyTorch counts the share that is new).
# `nn.BatchNorm2d(c, eps=KERAS_BN_EPS, momentum=KERAS_BN_MOMENTUM)` equals Keras' layer in training
# (output, gradients, moving mean) and in evaluation. Its moving variance takes the unbiased batch
# variance, n/(n-1) times the biased one, n = N*H*W. So did Keras 2 and TensorFlow's fused kernel,
# which the papers used; Keras 3 takes the biased one.
KERAS_BN_EPS = 1e-3
KERAS_BN_MOMENTUM = 0.01


def same_size(size: int, stride: int) -> int:
    """Pixels along one axis after a `same` convolution or pooling: ceil(size / stride)."""
    return -(-size // stride)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Keras' `same` padding along one axis, in pixels.

    Args:
        size: the input's extent along the axis.
        kernel, stride: the window's extent and step along the axis.

    Returns:
        (before, after); of an odd total the odd pixel comes after (bottom or right).
    """
    total = max((same_size(size, stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(
    x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], fill: float
) -> tuple[Tensor, tuple[int, int]]:
    """Pad x (N, C, H, W) as far as the following operation cannot do it by itself.

    Returns:
        x and the padding (rows, columns) to give to the operation. Symmetric padding is left to
        the operation, which needs no copy of x for it; otherwise x is padded here with `fill`.
    """
    top, bottom = same_padding(x.shape[-2], kernel[0], stride[0])
    left, right = same_padding(x.shape[-1], kernel[1], stride[1])
    if top == bottom and left == right:
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom), value=fill), (0, 0)


class Conv2dSame(nn.Conv2d):
    """`keras.layers.Conv2D(..., padding="same")` without its activation.

    (N, C, H, W) float -> (N, out_channels, ceil(H / stride), ceil(W / stride)).
    Kernel and stride are one number or a pair (rows, columns). The weight is PyTorch's
    (out, in/groups, rows, columns): Keras' kernel (rows, columns, in, out) permuted (3, 2, 0, 1).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        *,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride=stride, groups=groups, bias=bias
        )

    def forward(self, input: Tensor) -> Tensor:
        rows, columns = self.kernel_size
        down, right = self.stride
        x, padding = pad_same(input, (rows, columns), (down, right), fill=0.0)
        return F.conv2d(x, self.weight, self.bias, (down, right), padding, groups=self.groups)


class MaxPool2dSame(nn.Module):
    """`keras.layers.MaxPooling2D(kernel_size, stride, padding="same")`.

    (N, C, H, W) float -> (N, C, ceil(H / stride), ceil(W / stride)). Padding never wins (-inf).
    Kernel and stride are one number or a pair (rows, columns); the stride is the kernel by default.
    """

    def __init__(
        self, kernel_size: int | tuple[int, int], stride: int | tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        self.kernel_size = _pair(kernel_size)
        self.stride = self.kernel_size if stride is None else _pair(stride)

    def forward(self, x: Tensor) -> Tensor:
        x, padding = pad_same(x, self.kernel_size, self.stride, fill=float("-inf"))
        return F.max_pool2d(x, self.kernel_size, self.stride, padding)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}"


def batch_norm(channels: int, keras_defaults: bool) -> nn.BatchNorm2d:
    """BatchNorm with Keras' constants, or with PyTorch's."""
    if keras_defaults:
        return nn.BatchNorm2d(channels, eps=KERAS_BN_EPS, momentum=KERAS_BN_MOMENTUM)
    return nn.BatchNorm2d(channels)


@dataclass(frozen=True)
class SameBlock:
    """A `same` convolution with ReLU, then BatchNorm, max-pooling and dropout where it has them.

    kernel, stride: window edge and step in pixels. pool: edge and step of the max-pooling.
    dropout: share of activations dropped; 0 is a layer that drops nothing, None is no layer.
    """

    filters: int
    kernel: int
    stride: int
    bias: bool = True
    norm: bool = False
    pool: tuple[int, int] | None = None
    dropout: float | None = None


def same_blocks(
    in_channels: int, image_size: tuple[int, int], blocks: Sequence[SameBlock], keras_defaults: bool
) -> tuple[nn.Sequential, int]:
    """The blocks as `conv1`, `relu1`, `norm1`, `pool1`, `dropout1`, `conv2`, ...

    Returns:
        the layers, and how many values they leave of an image (H, W).
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, (height, width) = in_channels, image_size
    for i, block in enumerate(blocks, start=1):
        layers[f"conv{i}"] = Conv2dSame(
            channels, block.filters, block.kernel, block.stride, bias=block.bias
        )
        layers[f"relu{i}"] = nn.ReLU(inplace=True)
        channels = block.filters
        height, width = same_size(height, block.stride), same_size(width, block.stride)
        if block.norm:
            layers[f"norm{i}"] = batch_norm(channels, keras_defaults)
        if block.pool is not None:
            layers[f"pool{i}"] = MaxPool2dSame(*block.pool)
            height, width = same_size(height, block.pool[1]), same_size(width, block.pool[1])
        if block.dropout is not None:
            layers[f"dropout{i}"] = nn.Dropout(block.dropout)
    return nn.Sequential(layers), height * width * channels


def dense_head(
    inputs: int, dense: Sequence[int], outputs: int, dropout: Sequence[float] | None = None
) -> nn.Sequential:
    """Hidden dense layers with ReLU and the last one: `dense1`, `relu1`, `dropout1`, ..., `output`.

    dense: units of the hidden layers. dropout: share of activations dropped behind each of them;
    None is no dropout layer. (N, inputs) -> (N, outputs).
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, units in enumerate(dense, start=1):
        layers[f"dense{i}"] = nn.Linear(inputs, units)
        layers[f"relu{i}"] = nn.ReLU(inplace=True)
        if dropout is not None:
            layers[f"dropout{i}"] = nn.Dropout(dropout[i - 1])
        inputs = units
    layers["output"] = nn.Linear(inputs, outputs)
    return nn.Sequential(layers)


def flatten_channels_last(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H*W*C) in Keras' order, so that its Dense kernels map one to one.

    A view, without a copy, if x lies in memory as `torch.channels_last`.
    """
    return x.permute(0, 2, 3, 1).flatten(1)


def keras_init_(module: nn.Module) -> None:
    """Set every convolution and linear layer in `module` to Keras' defaults, in place.

    Kernels are Glorot-uniform: U(-l, l) with l = sqrt(6 / (fan_in + fan_out)), where a
    convolution's fans count its window; biases are zero. Draws from torch's global generator.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
