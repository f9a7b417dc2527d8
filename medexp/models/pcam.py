"""The native CNNs for patches of PatchCamelyon (Johny et al. 2021, Table 2).

A. Johny, K. N. Madhusoodanan, T. J. Nallikuzhy, "Optimization of CNN model with hyper parameter
tuning for enhancing sturdiness in classification of histopathological images", 2021.

Stated (Table 2, section 3.1): 96x96x3 patches, three convolutions (kernel, filters, stride) with
ReLU, max-pooling after convolutions, a flatten, two dense layers, one "soft-sigmoid" output;
BatchNorm "at the intermediate phase" of the second training stage, none in the dense layers; no
dropout.

Counted: the four reported parameter counts cannot come from the four listed stacks. One stack
meets all four exactly: kernels 8, 5, 5 with 30, 100, 100 filters, one BatchNorm(100), and a flatten
of 400 = 2x2x100, which 96x96 gives with `same` padding, strides of 2 and a 2x2/2 pooling after each
convolution; native2 then needs dense (100, 50) where the table lists (100, 100). The `*_counted`
configs are these networks.

Chosen, where paper and counts leave it open: `same` padding in every layer; pooling 2x2/2 after
each convolution (the text's stride of 1x1 contradicts both the counts and "well below 10 MB");
BatchNorm behind the convolution's ReLU and before the pooling, as in the usual Keras
`Conv2D(activation="relu")`, `BatchNormalization()`; ReLU in the dense layers; Keras' defaults.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from medexp.models.checks import require_booleans, require_data, require_sizes
from medexp.models.layers import (
    SameBlock,
    dense_head,
    flatten_channels_last,
    keras_init_,
    same_blocks,
)


class NativeCNN(nn.Module):
    """Three convolutions with pooling (`features`), two dense layers and the output (`head`).

    Args:
        num_classes: 2 or more. Two classes share ONE logit, that of class 1 (the paper's sigmoid).
        in_channels: channels of x.
        image_size: (H, W) of x in pixels.
        kernels, filters, strides: window edge in pixels, channels out, step in pixels, one number
            for each of the three convolutions.
        dense: units of the two dense layers.
        pool_size, pool_stride: edge and step of every max-pooling, in pixels.
        batch_norm: whether a BatchNorm follows the i-th convolution's ReLU.
        keras_defaults: Glorot-uniform kernels, zero biases and Keras' BatchNorm constants;
            otherwise PyTorch's initialisation and constants. Padding and order stay Keras'.

    Raises:
        ConfigError: a volume, a list of the wrong length, or a size that is not a positive integer.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        kernels: Sequence[int],
        filters: Sequence[int],
        strides: Sequence[int],
        dense: Sequence[int],
        pool_size: int = 2,
        pool_stride: int = 2,
        batch_norm: Sequence[bool] = (False, False, False),
        keras_defaults: bool = True,
    ) -> None:
        super().__init__()
        require_data(num_classes, in_channels, image_size)
        require_sizes("model.kernels", kernels, length=3)
        require_sizes("model.filters", filters, length=3)
        require_sizes("model.strides", strides, length=3)
        require_sizes("model.dense", dense, length=2)
        require_sizes("model.pool_size", [pool_size])
        require_sizes("model.pool_stride", [pool_stride])
        require_booleans("model.batch_norm", batch_norm, 3, "convolution")

        layers = zip(filters, kernels, strides, batch_norm, strict=True)
        blocks = [
            SameBlock(out, kernel, stride, norm=norm, pool=(pool_size, pool_stride))
            for out, kernel, stride, norm in layers
        ]
        self.features, units = same_blocks(in_channels, image_size, blocks, keras_defaults)
        self.head = dense_head(units, dense, 1 if num_classes == 2 else num_classes)
        if keras_defaults:
            keras_init_(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) float -> logits (N, 1) for two classes, else (N, num_classes)."""
        x = self.features(x)  # (N, filters[2], h, w)
        x = flatten_channels_last(x)  # (N, h * w * filters[2]), Keras' order
        logits: Tensor = self.head(x)
        return logits
