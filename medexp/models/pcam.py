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

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from medexp.errors import ConfigError
from medexp.models.checks import require_data, require_sizes
from medexp.models.layers import (
    Conv2dSame,
    MaxPool2dSame,
    flatten_channels_last,
    keras_init_,
    same_size,
)
from medexp.models.layers import batch_norm as batch_norm_layer


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
        if not isinstance(batch_norm, Sequence) or [type(b) for b in batch_norm] != [bool] * 3:
            raise ConfigError(
                f"model.batch_norm={batch_norm}: must be 3 booleans, one for each convolution"
            )

        features: OrderedDict[str, nn.Module] = OrderedDict()
        channels, (height, width) = in_channels, image_size
        for i in range(3):
            features[f"conv{i + 1}"] = Conv2dSame(channels, filters[i], kernels[i], strides[i])
            features[f"relu{i + 1}"] = nn.ReLU(inplace=True)
            if batch_norm[i]:
                features[f"norm{i + 1}"] = batch_norm_layer(filters[i], keras_defaults)
            features[f"pool{i + 1}"] = MaxPool2dSame(pool_size, pool_stride)
            channels = filters[i]
            height = same_size(same_size(height, strides[i]), pool_stride)
            width = same_size(same_size(width, strides[i]), pool_stride)
        self.features = nn.Sequential(features)
        self.head = nn.Sequential(
            OrderedDict(
                dense1=nn.Linear(height * width * channels, dense[0]),
                relu1=nn.ReLU(inplace=True),
                dense2=nn.Linear(dense[0], dense[1]),
                relu2=nn.ReLU(inplace=True),
                output=nn.Linear(dense[1], 1 if num_classes == 2 else num_classes),
            )
        )
        if keras_defaults:
            keras_init_(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) float -> logits (N, 1) for two classes, else (N, num_classes)."""
        x = self.features(x)  # (N, filters[2], h, w)
        x = flatten_channels_last(x)  # (N, h * w * filters[2]), Keras' order
        logits: Tensor = self.head(x)
        return logits
