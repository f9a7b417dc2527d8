"""Inception v2 as TensorFlow-Slim has it, which Nguyen et al. 2017 retrained (section 6.4).

H. Nguyen, T. Leavitt, Y. Laloudakis, "CS 231N Final Project Report: Cervical Cancer Screening",
Stanford University, 2017; "we used the weights provided in TensorFlow-Slim". That network is
Inception with BatchNorm: S. Ioffe, C. Szegedy, "Batch Normalization", arXiv:1502.03167, Figure 5
(and not the network of "Rethinking the inception architecture", which the paper cites for it).

Stated (the paper): dropout .4 or .5 (5.3.3: "dropout keep probability"), L2 1, 5 or 10, the whole
network trained, then the last layer alone.
Stated (Slim's nets/inception_v2.py): every width, stride and pooling of `MIXED`; a separable first
layer; BatchNorm with a shift but without a scale, decay .9997, epsilon .001, in the place of
biases; average pooling within the blocks, but maximum pooling in Mixed_5c and at strides of two.
Counted: Slim's test expects 10,173,112 variables up to Mixed_5c, moving means and variances among
them. That holds exactly if the separable layer has 64 biases and no BatchNorm (which Slim's
argument scope leaves out too) and if no BatchNorm has a scale.
Chosen: global average pooling at any image size (Slim pools 7x7, the same at 224x224 and below);
8 maps a channel in the separable layer, fewer beyond 8 channels so that they stay 64 or less.

Modules carry Slim's scope names: `features.Mixed_3b.Branch_1.Conv2d_0a_1x1.conv.weight` is
`InceptionV2/Mixed_3b/Branch_1/Conv2d_0a_1x1/weights`, transposed (3, 2, 0, 1). Slim's weights
expect pixels in [-1, 1].
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medexp.models.checks import require_data, require_rates
from medexp.models.layers import Conv2dSame, MaxPool2dSame

SLIM_BN_EPS = 1e-3
SLIM_BN_DECAY = 0.9997


class Widths(NamedTuple):
    """Channels of a block's branches; without `single` and `pool` it halves the image."""

    single: int | None  # 1x1
    triple: tuple[int, int]  # 1x1, 3x3
    double: tuple[int, int]  # 1x1, then 3x3 twice
    pool: int | None  # 1x1 behind a 3x3 pooling
    pooling: str = "avg"


MIXED = {  # side and channels out are of a 224x224 image
    "Mixed_3b": Widths(64, (64, 64), (64, 96), 32),  # 28, 256
    "Mixed_3c": Widths(64, (64, 96), (64, 96), 64),  # 28, 320
    "Mixed_4a": Widths(None, (128, 160), (64, 96), None, "max"),  # 14, 576
    "Mixed_4b": Widths(224, (64, 96), (96, 128), 128),  # 14, 576
    "Mixed_4c": Widths(192, (96, 128), (96, 128), 128),  # 14, 576
    "Mixed_4d": Widths(160, (128, 160), (128, 160), 96),  # 14, 576
    "Mixed_4e": Widths(96, (128, 192), (160, 192), 96),  # 14, 576
    "Mixed_5a": Widths(None, (128, 192), (192, 256), None, "max"),  # 7, 1024
    "Mixed_5b": Widths(352, (192, 320), (160, 224), 128),  # 7, 1024
    "Mixed_5c": Widths(352, (192, 320), (192, 224), 128, "max"),  # 7, 1024
}


class InceptionV2(nn.Module):
    """Slim's fifteen endpoints (`features`), then dropout and the last layer (`head`).

    Args:
        num_classes: 2 or more; as many logits.
        in_channels: channels of x.
        image_size: (H, W) of x in pixels; any size works, as `same` padding fills up. Slim's is
            (224, 224).
        dropout: share of the 1,024 pooled features dropped; Slim's 1 - dropout_keep_prob.
        bn_decay: share of its moving mean and variance that a BatchNorm keeps at a step; None is
            Slim's 0.9997, or PyTorch's 0.9 without `keras_defaults`.
        keras_defaults: Slim's initialisation and BatchNorm constants (truncated normal, by He or of
            a fixed deviation; zero biases); otherwise PyTorch's. Padding stays TensorFlow's.

    Raises:
        ConfigError: a volume, a size that is not a positive integer, or a share outside [0, 1).
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        dropout: float = 0.2,
        bn_decay: float | None = None,
        keras_defaults: bool = True,
    ) -> None:
        super().__init__()
        require_data(num_classes, in_channels, image_size)
        require_rates("model.dropout", [dropout])
        if bn_decay is None:
            bn_decay = SLIM_BN_DECAY if keras_defaults else 0.9
        require_rates("model.bn_decay", [bn_decay], of="moving mean and variance kept")

        conv = partial(ConvNorm, momentum=1 - bn_decay, slim=keras_defaults)
        features: OrderedDict[str, nn.Module] = OrderedDict()
        # 112 x 112 of 224 x 224
        features["Conv2d_1a_7x7"] = SeparableConv(in_channels, 64, 7, 2, slim=keras_defaults)
        features["MaxPool_2a_3x3"] = MaxPool2dSame(3, 2)  # 56 x 56
        features["Conv2d_2b_1x1"] = conv(64, 64, 1, std=0.1)
        features["Conv2d_2c_3x3"] = conv(64, 192, 3)
        features["MaxPool_3a_3x3"] = MaxPool2dSame(3, 2)  # 28 x 28
        channels = 192
        for name, widths in MIXED.items():
            features[name] = mixed = Mixed(channels, widths, conv)
            channels = mixed.out_channels
        self.features = nn.Sequential(features)
        output = nn.Linear(channels, num_classes)
        if keras_defaults:
            _slim_init_(output)
        self.head = nn.Sequential(OrderedDict(dropout=nn.Dropout(dropout), output=output))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) float -> logits (N, num_classes)."""
        x = self.features(x)  # (N, 1024, ceil(H / 32), ceil(W / 32))
        x = x.mean((2, 3))  # (N, 1024)
        logits: Tensor = self.head(x)
        return logits

    def endpoints(self, x: Tensor) -> dict[str, Tensor]:
        """What each of Slim's endpoints holds, by Slim's name: (N, channels, h, w)."""
        held = {}
        for name, layer in self.features.named_children():
            held[name] = x = layer(x)
        return held


class Mixed(nn.Module):
    """An Inception block: branches side by side, their channels one after the other."""

    def __init__(self, channels: int, widths: Widths, conv: "Callable[..., ConvNorm]") -> None:
        super().__init__()
        single, (triple_in, triple), (double_in, double), pool, pooling = widths
        stride = 2 if single is None else 1
        last = "Conv2d_1a_3x3" if stride == 2 else None  # Slim's name of a convolution that strides
        branches: list[OrderedDict[str, nn.Module]] = []
        if single is not None:
            branches.append(OrderedDict(Conv2d_0a_1x1=conv(channels, single, 1)))
        branches.append(
            OrderedDict(
                [
                    ("Conv2d_0a_1x1", conv(channels, triple_in, 1, std=0.09)),
                    (last or "Conv2d_0b_3x3", conv(triple_in, triple, 3, stride)),
                ]
            )
        )
        branches.append(
            OrderedDict(
                [
                    ("Conv2d_0a_1x1", conv(channels, double_in, 1, std=0.09)),
                    ("Conv2d_0b_3x3", conv(double_in, double, 3)),
                    (last or "Conv2d_0c_3x3", conv(double, double, 3, stride)),
                ]
            )
        )
        if pool is None:
            branches.append(OrderedDict(MaxPool_1a_3x3=MaxPool2dSame(3, 2)))
        else:
            name = "AvgPool_0a_3x3" if pooling == "avg" else "MaxPool_0a_3x3"
            layer: nn.Module = MaxPool2dSame(3, 1)
            if pooling == "avg":  # `same`: TensorFlow averages over the pixels that exist
                layer = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
            projection = conv(channels, pool, 1, std=0.1)
            branches.append(OrderedDict([(name, layer), ("Conv2d_0b_1x1", projection)]))
        for i, branch in enumerate(branches):
            self.add_module(f"Branch_{i}", nn.Sequential(branch))
        self.out_channels = (single or 0) + triple + double + (pool or channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) -> (N, out_channels, ceil(h / stride), ceil(w / stride))."""
        return torch.cat([branch(x) for branch in self.children()], dim=1)


class ConvNorm(nn.Sequential):
    """Slim's `conv2d`: a `same` convolution without bias, BatchNorm, ReLU.

    Args:
        std: standard deviation of the initial kernel; None is He's.
        momentum: share of the moving mean and variance that is new at a step.
        slim: Slim's initialisation and epsilon, otherwise PyTorch's.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        std: float | None = None,
        momentum: float,
        slim: bool,
    ) -> None:
        conv = Conv2dSame(in_channels, out_channels, kernel_size, stride, bias=False)
        if slim:
            _slim_init_(conv, std)
        norm = ShiftNorm2d(out_channels, eps=SLIM_BN_EPS if slim else 1e-5, momentum=momentum)
        super().__init__(OrderedDict(conv=conv, norm=norm, relu=nn.ReLU(inplace=True)))


class SeparableConv(nn.Sequential):
    """Slim's `separable_conv2d` with ReLU: some maps of each channel, then a 1x1 over all maps."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, *, slim: bool
    ) -> None:
        maps = in_channels * max(1, min(8, out_channels // in_channels))
        depthwise = Conv2dSame(
            in_channels, maps, kernel_size, stride, groups=in_channels, bias=False
        )
        pointwise = Conv2dSame(maps, out_channels, 1)
        if slim:
            _slim_init_(depthwise, 1.0)
            _slim_init_(pointwise, 1.0)
        super().__init__(
            OrderedDict(depthwise=depthwise, pointwise=pointwise, relu=nn.ReLU(inplace=True))
        )


class ShiftNorm2d(nn.BatchNorm2d):
    """BatchNorm with a shift (`bias`) but without a scale: Slim's `batch_norm(scale=False)`."""

    def __init__(self, channels: int, *, eps: float, momentum: float) -> None:
        super().__init__(channels, eps=eps, momentum=momentum, affine=False)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, input: Tensor) -> Tensor:
        return F.batch_norm(
            input,
            self.running_mean,
            self.running_var,
            torch.ones_like(self.bias),  # cuDNN's kernel takes both or neither
            self.bias,
            self.training,
            self.momentum or 0.0,
            self.eps,
        )


def _slim_init_(layer: nn.Conv2d | nn.Linear, std: float | None = None) -> None:
    """Slim's initial kernel, normal and redrawn beyond two deviations, and a zero bias, in place.

    He's deviation (`std=None`) is sqrt(1.3 * 2 / fan_in), where 1.3 makes up for the truncation.
    """
    if std is None:
        std = math.sqrt(1.3 * 2 / layer.weight[0].numel())
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
