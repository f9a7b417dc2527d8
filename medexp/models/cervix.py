"""The two networks from scratch for the type of a cervix (Nguyen et al. 2017, section 5.3).

H. Nguyen, T. Leavitt, Y. Laloudakis, "CS 231N Final Project Report: Cervical Cancer Screening",
Stanford University, 2017.

CervixNet-1. Stated (5.3.1): two convolutions with BatchNorm behind each, strides in the place of
pooling, dropout "in every convolutional layer", two dense layers, which alone have L2; modelled on
question 5 of CS231N's second assignment; "12,684,876 parameters, and 33.1% of the total parameters
are in the two fully connected-layers".
Counted: 12,684,876 = 3n + 3 with n = 4,228,291, which is TensorFlow's count of all variables:
every weight, Adam's two slots of it and three scalars. n is two 7x7 convolutions of 32 and 16
filters without biases, a scale and a shift for each filter, and dense layers 4,096 -> 1,024 -> 3,
whose 4,198,403 are 33.098% of 12,684,876. 4,096 is 16x16x16, so the strides divide 160 by 10.
Chosen: strides 2 then 5 (5 then 2 gives the same counts); the assignment's order, convolution,
ReLU, BatchNorm, then dropout of single activations; ReLU and no dropout in the dense layer.

CervixNet-2. Stated (5.3.2, 6.2): five convolutions, max-pooling in the place of strides, "a 3x3
filter with a stride of two followed by another 3x3 filter with a stride of one", convolutions
before pooling, no BatchNorm ("harmed this model"), dropout of .5, L2 of .1.
Counted: nothing, as no size is reported and its figure is lost to us.
Chosen: filters, which of the convolutions are pooled, one dense layer of 512 and dropout behind it
alone. The stride of two comes first, as in the Inception paper that section 5.3.2 cites. 6,695,075
parameters lie between CervixNet-1 and Inception v2: "a compromise".

Chosen in both: `same` padding, ReLU, one output a class, Keras' defaults (TensorFlow 1's own).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from medexp.models.checks import require_booleans, require_data, require_rates, require_sizes
from medexp.models.layers import (
    SameBlock,
    dense_head,
    flatten_channels_last,
    keras_init_,
    same_blocks,
)


class CervixNet1(nn.Module):
    """Two strided convolutions with BatchNorm and dropout (`features`), two dense layers (`head`).

    Args:
        num_classes: 2 or more; as many logits.
        in_channels: channels of x.
        image_size: (H, W) of x in pixels; any size works, as `same` padding fills up.
        kernels, filters, strides: window edge in pixels, channels out, step in pixels, one number
            for each of the two convolutions.
        dense: units of the first dense layer.
        dropout: share of activations dropped behind each convolution; the paper's 1 - keep.
        keras_defaults: Glorot-uniform kernels, zero biases and Keras' BatchNorm constants;
            otherwise PyTorch's initialisation and constants. Padding and order stay Keras'.

    Raises:
        ConfigError: a volume, a list of the wrong length, a size that is not a positive integer,
            or a dropout outside [0, 1).
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        kernels: Sequence[int] = (7, 7),
        filters: Sequence[int] = (32, 16),
        strides: Sequence[int] = (2, 5),
        dense: int = 1024,
        dropout: float = 0.2,
        keras_defaults: bool = True,
    ) -> None:
        super().__init__()
        require_data(num_classes, in_channels, image_size)
        for key, sizes in (("kernels", kernels), ("filters", filters), ("strides", strides)):
            require_sizes(f"model.{key}", sizes, length=2)
        require_sizes("model.dense", [dense])
        require_rates("model.dropout", [dropout])

        blocks = [
            SameBlock(out, kernel, stride, bias=False, norm=True, dropout=dropout)
            for out, kernel, stride in zip(filters, kernels, strides, strict=True)
        ]
        self.features, units = same_blocks(in_channels, image_size, blocks, keras_defaults)
        self.head = dense_head(units, [dense], num_classes)
        if keras_defaults:
            keras_init_(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) float -> logits (N, num_classes)."""
        x = self.features(x)  # (N, filters[1], h, w)
        x = flatten_channels_last(x)  # (N, h * w * filters[1]), Keras' order
        logits: Tensor = self.head(x)
        return logits


class CervixNet2(nn.Module):
    """Five convolutions with max-pooling (`features`), dense layers and the output (`head`).

    Args:
        num_classes: 2 or more; as many logits.
        in_channels: channels of x.
        image_size: (H, W) of x in pixels; any size works, as `same` padding fills up.
        kernels, filters, strides: window edge in pixels, channels out, step in pixels, one number
            for each of the five convolutions.
        pools: whether a max-pooling follows the i-th convolution.
        pool_size, pool_stride: edge and step of every max-pooling, in pixels.
        dense: units of each hidden dense layer; may be empty.
        dropout: share of activations dropped behind each hidden dense layer.
        conv_dropout: share of activations dropped behind each convolution (and its pooling).
        batch_norm: whether a BatchNorm follows each convolution's ReLU, which then has no bias, as
            in CervixNet-1.
        keras_defaults: Glorot-uniform kernels, zero biases and Keras' BatchNorm constants;
            otherwise PyTorch's initialisation and constants. Padding and order stay Keras'.

    Raises:
        ConfigError: a volume, a list of the wrong length, a size that is not a positive integer,
            or a dropout outside [0, 1).
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        kernels: Sequence[int] = (3, 3, 3, 3, 3),
        filters: Sequence[int] = (32, 32, 64, 64, 128),
        strides: Sequence[int] = (2, 1, 1, 1, 1),
        pools: Sequence[bool] = (False, True, False, True, True),
        pool_size: int = 2,
        pool_stride: int = 2,
        dense: Sequence[int] = (512,),
        dropout: float = 0.5,
        conv_dropout: float = 0.0,
        batch_norm: bool = False,
        keras_defaults: bool = True,
    ) -> None:
        super().__init__()
        require_data(num_classes, in_channels, image_size)
        for key, sizes in (("kernels", kernels), ("filters", filters), ("strides", strides)):
            require_sizes(f"model.{key}", sizes, length=5)
        require_booleans("model.pools", pools, 5, "convolution")
        require_sizes("model.pool_size", [pool_size])
        require_sizes("model.pool_stride", [pool_stride])
        require_sizes("model.dense", dense, length=None)
        require_rates("model.dropout", [dropout])
        require_rates("model.conv_dropout", [conv_dropout])

        blocks = [
            SameBlock(
                filters=out,
                kernel=kernel,
                stride=stride,
                bias=not batch_norm,
                norm=batch_norm,
                pool=(pool_size, pool_stride) if pooled else None,
                dropout=conv_dropout,
            )
            for out, kernel, stride, pooled in zip(filters, kernels, strides, pools, strict=True)
        ]
        self.features, units = same_blocks(in_channels, image_size, blocks, keras_defaults)
        self.head = dense_head(units, dense, num_classes, [dropout] * len(dense))
        if keras_defaults:
            keras_init_(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) float -> logits (N, num_classes)."""
        x = self.features(x)  # (N, filters[4], h, w)
        x = flatten_channels_last(x)  # (N, h * w * filters[4]), Keras' order
        logits: Tensor = self.head(x)
        return logits
