"""The proposed network for acute lymphoblastic leukaemia (Mir and Nissa 2019, section 3.5).

H. U. E. Mir, R. U. Nissa, "Acute Lymphoblastic Leukemia (ALL) detection using Deep Learning
Models", project report, Islamic University of Science and Technology, Awantipora, 2019.

Stated (section 3.5, Figures 18 and 19): 3x3 convolutions in six blocks of 32, 64, 128, 256, 384 and
512 filters, 2x2 max-poolings ("5"), dense layers of 4096, 1000 and 2 with a dropout behind each of
the first two, ReLU, softmax; two convolutions in each of blocks 4 to 6, with BatchNorm behind each
and a pooling at the end; block 4 sees 38x38, the flatten has 12,800 = 5x5x512 units; 7,535,040
parameters in the convolutional part, 64,066,938 in all, 64,061,370 of them trainable.

Counted: blocks of 3, 2, 2, 2, 2 and 2 convolutions give the counts exactly and no other division
does. These are 13, where the text has "14 convolutional layers"; Figure 18 numbers the BatchNorm of
block 4's first convolution 9 and the last one 14, as if one of eight in blocks 1 to 3 lay on no
path to the output. `same` poolings take 150 to 75, 38, 19, 10 and 5. Figure 18 lists no activation
layers, so ReLU belongs to the convolution and lies before BatchNorm. The losses of Figure 20 fall
by .98939 an epoch at an accuracy of .9999: that is (1 - 2 lr L2)^(2 * 667), with 667 batches of 30
an epoch, for an L2 of .02 on the kernels.

Found: Keras scripts for this challenge with these blocks, layer names and learning rate (in an
index of public code, without their repository; patches of 100x100 and one hidden dense layer, that
of 4096 being commented out). They put ReLU in the convolutions, an L2 of .02 on every kernel and a
dropout of .3 behind a dense layer, build a third convolution in block 2 whose output nothing takes,
and pool all six blocks. Six poolings of a 300x300 input (`unpooled_block=None`) also meet every
size and count above, but for "5".

Chosen: which block is not pooled, the first, so that blocks 2 to 6 see the same sizes as with six
poolings of 300x300; dropout of .3, as found; Keras' defaults.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from medexp.errors import ConfigError
from medexp.models.checks import require_data, require_rates, require_sizes
from medexp.models.layers import (
    Conv2dSame,
    MaxPool2dSame,
    batch_norm,
    dense_head,
    flatten_channels_last,
    keras_init_,
    same_size,
)

BLOCKS = 6


class AllNet(nn.Module):
    """Six blocks of convolution, ReLU and BatchNorm (`features`), two dense and output (`head`).

    Args:
        num_classes: 2 or more; as many logits.
        in_channels: channels of x.
        image_size: (H, W) of x in pixels; any size works, as `same` padding fills up.
        convolutions, filters: number of 3x3 convolutions and their channels out, one number for
            each of the six blocks.
        dense: units of the two dense layers.
        dropout: share of activations dropped behind each of the two dense layers.
        unpooled_block: 1, 2 or 3, the block without a 2x2/2 max-pooling at its end; None: no such
            block.
        keras_defaults: Glorot-uniform kernels, zero biases and Keras' BatchNorm constants;
            otherwise PyTorch's initialisation and constants. Padding and order stay Keras'.

    Raises:
        ConfigError: a volume, a list of the wrong length, a size that is not a positive integer, a
            dropout outside [0, 1), or another block without pooling.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        convolutions: Sequence[int] = (3, 2, 2, 2, 2, 2),
        filters: Sequence[int] = (32, 64, 128, 256, 384, 512),
        dense: Sequence[int] = (4096, 1000),
        dropout: Sequence[float] = (0.3, 0.3),
        unpooled_block: int | None = 1,
        keras_defaults: bool = True,
    ) -> None:
        super().__init__()
        require_data(num_classes, in_channels, image_size)
        require_sizes("model.convolutions", convolutions, length=BLOCKS)
        require_sizes("model.filters", filters, length=BLOCKS)
        require_sizes("model.dense", dense, length=2)
        require_rates("model.dropout", dropout, length=2)
        if unpooled_block not in (1, 2, 3, None) or isinstance(unpooled_block, bool):
            raise ConfigError(
                f"model.unpooled_block={unpooled_block}: must be 1, 2 or 3 (blocks 4 to 6 are "
                "pooled in the paper), or null to pool all six"
            )

        features: OrderedDict[str, nn.Module] = OrderedDict()
        channels, (height, width) = in_channels, image_size
        for block in range(1, BLOCKS + 1):
            for i in range(1, convolutions[block - 1] + 1):
                out = filters[block - 1]
                features[f"block{block}_conv{i}"] = Conv2dSame(channels, out, 3)
                features[f"block{block}_relu{i}"] = nn.ReLU(inplace=True)
                features[f"block{block}_norm{i}"] = batch_norm(out, keras_defaults)
                channels = out
            if block != unpooled_block:
                features[f"block{block}_pool1"] = MaxPool2dSame(2)
                height, width = same_size(height, 2), same_size(width, 2)
        self.features = nn.Sequential(features)
        self.head = dense_head(height * width * channels, dense, num_classes, dropout)
        if keras_defaults:
            keras_init_(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) float -> logits (N, num_classes)."""
        x = self.features(x)  # (N, filters[5], h, w)
        x = flatten_channels_last(x)  # (N, h * w * filters[5]), Keras' order
        logits: Tensor = self.head(x)
        return logits
