"""The four networks for lung cancer in slices of low-dose CT (Alghamdi et al. 2021, section 3.1).

S. Alghamdi, M. Alabkari, F. Aljishi, G. Latif, A. Bashar, "Lung Cancer Detection from LDCT Images
Using Deep Convolutional Neural Networks", 2021.

Stated (section 3.1; M4 also section 4): 120x120x1 slices; filters, kernels and the order of the
layers as in conf/model/ldct_m*.yaml; M1: ReLU "in all the convolution layers", poolings 2x2/2, "the
flattened layer is added after the first dense layer"; M3: poolings 2x2/2; M4: ELU in the
convolutions and the first dense layer, `same` padding, dropout of .25, softmax of two classes, a
dense layer increased "from 10 to 128", an initializer that is not named, and a second flatten
that does nothing.

Counted: nothing, as the paper reports no parameter counts.

Chosen, where the paper leaves it open: `valid` padding in M1 to M3, Keras' default, as section 4
names padding among what M4 added; dense layers of 10 in M1 to M3, as M4's 128 were 10 before;
dropout of .25 in M2 and M3, the paper's only rate; M1's ReLU in the convolutions of M2 and M3; no
activation, Keras' default, in the first dense layer of M1 to M3, as M1's sentence on ReLU is of the
convolutions alone while M4's on ELU names the dense layer; BatchNorm behind the convolution's
activation, as in the usual Keras `Conv2D(activation="relu")`, `BatchNormalization()`; M3's last
dense layer, which the text leaves out; poolings that drop an odd pixel, and Keras' defaults
elsewhere.
"""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from medexp.errors import one_of
from medexp.models.checks import require_data, require_rates, require_sizes, too_small
from medexp.models.layers import Conv2dSame, batch_norm, flatten_channels_last, keras_init_

ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "linear": nn.Identity,
}
PADDINGS = ("valid", "same")
INITIALIZERS = ("glorot_uniform", "he_uniform", "he_normal")
LAYERS = ("conv", "activation", "norm", "dropout", "pool")
HEAD = ("flatten", "dense", "activation", "dropout")
POOL = 2  # edge and step of every max-pooling, in pixels


class LdctNet(nn.Module):
    """Blocks of layers, one for each convolution (`features`), then dense layers (`head`).

    conf/model/ldct_m1.yaml to ldct_m4.yaml are the paper's four.

    Arguments:
        num_classes: 2 or more; as many logits.
        in_channels: channels of x.
        image_size: (H, W) of x in pixels.
        blocks: the layers of each block, of LAYERS.
        head: the layers before the output, of HEAD. Where `dense` comes before `flatten` it sees
            the channels of one pixel at a time, like a 1x1 convolution.
        filters, kernels: channels out and window edge in pixels of each convolution, all of step 1.
        dense_units: units of the first dense layer.
        dropout: share of activations dropped, one number for each dropout in the order of the
            layers.
        padding: of the convolutions, "valid" or "same".
        activation, dense_activation: of the convolutions and of the first dense layer: "relu",
            "elu" or "linear".
        initializer: of every kernel, by its Keras name: "glorot_uniform", "he_uniform" or
            "he_normal"; None is Keras' default (with keras_defaults) or PyTorch's.
        keras_defaults: Glorot-uniform kernels, zero biases and Keras' BatchNorm constants;
            otherwise PyTorch's initialisation and constants. Padding and order stay Keras'.

    Raises:
        ConfigError: a volume, an image that is too small, a list of the wrong length, a size that
            is not a positive integer, a dropout outside [0, 1) or a name that is not listed.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        blocks: Sequence[Sequence[str]],
        head: Sequence[str],
        filters: Sequence[int],
        kernels: Sequence[int],
        dense_units: int,
        dropout: Sequence[float] = (),
        padding: str = "valid",
        activation: str = "relu",
        dense_activation: str = "relu",
        initializer: str | None = None,
        keras_defaults: bool = True,
    ) -> None:
        super().__init__()
        require_data(num_classes, in_channels, image_size)
        named: list[tuple[str, str, Sequence[str]]] = [
            *(("blocks", layer, LAYERS) for block in blocks for layer in block),
            *(("head", layer, HEAD) for layer in head),
            ("padding", padding, PADDINGS),
            ("activation", activation, tuple(ACTIVATIONS)),
            ("dense_activation", dense_activation, tuple(ACTIVATIONS)),
            ("initializer", initializer or INITIALIZERS[0], INITIALIZERS),
        ]
        for key, name, names in named:
            one_of(f"model.{key}", name, names)
        require_sizes("model.filters", filters, length=len(blocks))
        require_sizes("model.kernels", kernels, length=len(blocks))
        require_sizes("model.dense_units", [dense_units])
        dropouts = [layer for layers in (*blocks, head) for layer in layers if layer == "dropout"]
        require_rates("model.dropout", dropout, length=len(dropouts))
        height, width = _extents(image_size, blocks, kernels, padding)

        rates = iter(dropout)
        convolution = Conv2dSame if padding == "same" else nn.Conv2d
        channels = [in_channels, *filters]
        self.features = nn.Sequential()
        for k, block in enumerate(blocks):
            make: dict[str, Callable[[], nn.Module]] = {
                "conv": partial(convolution, channels[k], channels[k + 1], kernels[k]),
                "activation": partial(ACTIVATIONS[activation], inplace=True),
                "norm": partial(batch_norm, channels[k + 1], keras_defaults),
                "dropout": lambda: nn.Dropout(next(rates)),
                "pool": partial(nn.MaxPool2d, POOL),
            }
            for layer in block:
                self.features.add_module(f"{layer}{k + 1}", make[layer]())

        self.by_pixel = list(head).index("dense") < list(head).index("flatten")
        pixels = height * width
        units = channels[-1] if self.by_pixel else pixels * channels[-1]
        make = {
            "dense": partial(nn.Linear, units, dense_units),
            "activation": partial(ACTIVATIONS[dense_activation], inplace=True),
            "dropout": lambda: nn.Dropout(next(rates)),
        }
        self.head = nn.Sequential()
        for layer in head:
            if layer != "flatten":
                self.head.add_module(f"{layer}1", make[layer]())
            elif self.by_pixel:
                self.head.add_module("flatten", nn.Flatten())
        units = pixels * dense_units if self.by_pixel else dense_units
        self.head.add_module("output", nn.Linear(units, num_classes))
        if keras_defaults:
            keras_init_(self)
        if initializer is not None:
            _initialize_(self, initializer)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) float -> logits (N, num_classes)."""
        x = self.features(x)  # (N, filters[-1], h, w)
        # Keras' order: (N, h, w, filters[-1]) for a dense layer by pixel, else flattened
        x = x.permute(0, 2, 3, 1) if self.by_pixel else flatten_channels_last(x)
        logits: Tensor = self.head(x)
        return logits


def _initialize_(module: nn.Module, initializer: str) -> None:
    """Keras' initializer of that name for every kernel; the biases stay."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            if initializer == "glorot_uniform":
                nn.init.xavier_uniform_(layer.weight)
            elif initializer == "he_uniform":
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            else:  # normal, cut at two standard deviations, its width corrected for the cut
                std = (2 / layer.weight[0].numel()) ** 0.5 / 0.87962566103423978
                nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)


def _extents(
    image_size: tuple[int, int],
    blocks: Sequence[Sequence[str]],
    kernels: Sequence[int],
    padding: str,
) -> tuple[int, int]:
    """(H, W) behind the blocks.

    Raises:
        ConfigError: nothing is left of the image; names the smallest that works.
    """
    valid = int(padding == "valid")  # a convolution then takes off kernel - 1 pixels
    steps = [
        (layer, kernel)
        for block, kernel in zip(blocks, kernels, strict=True)
        for layer in block
        if layer in ("conv", "pool")
    ]
    least = 1
    for layer, kernel in reversed(steps):
        least = least * POOL if layer == "pool" else least + (kernel - 1) * valid
    if min(image_size) < least:
        raise too_small(image_size, least, f"these model.kernels and model.padding={padding}")
    height, width = image_size
    for layer, kernel in steps:
        if layer == "pool":
            height, width = height // POOL, width // POOL
        else:
            height, width = height - (kernel - 1) * valid, width - (kernel - 1) * valid
    return height, width
