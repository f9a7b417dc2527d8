"""The four networks for lung cancer in slices of low-dose CT (Alghamdi et al. 2021, section 3.1).

S. Alghamdi, M. Alabkari, F. Aljishi, G. Latif, A. Bashar, "Lung Cancer Detection from LDCT Images
Using Deep Convolutional Neural Networks", 2021.

Stated (section 3.1; M4 also section 4): 120x120x1 slices; filters, kernels and the order of the
layers as in each class below; M1: ReLU "in all the convolution layers", poolings 2x2/2, "the
flattened layer is added after the first dense layer"; M3: poolings 2x2/2; M4: ELU in the
convolutions and the first dense layer, `same` padding, dropout of .25, softmax of two classes, a
dense layer increased "from 10 to 128", an initializer that is not named, and a second flatten
that does nothing.

Counted: nothing, as the paper reports no parameter counts.

Chosen, where the paper leaves it open: `valid` padding in M1 to M3, Keras' default, as section 4
names padding among what M4 added; dense layers of 10 in M1 to M3, as M4's 128 were 10 before;
dropout of .25 in M2 and M3, the paper's only rate; ReLU in M2 and M3 and in the dense layer of M1;
BatchNorm behind the convolution's activation, as in the usual Keras `Conv2D(activation="relu")`,
`BatchNormalization()`; M3's last dense layer, which the text leaves out; poolings that drop an odd
pixel, and Keras' defaults elsewhere.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from medexp.errors import ConfigError
from medexp.models.checks import require_data, require_rates, require_sizes, too_small
from medexp.models.layers import Conv2dSame, batch_norm, flatten_channels_last, keras_init_

ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "linear": nn.Identity,
}
PADDINGS = ("valid", "same")
INITIALIZERS = ("glorot_uniform", "he_uniform", "he_normal")
POOL = 2  # edge and step of every max-pooling, in pixels

# Arguments that the four networks share:
#   num_classes: 2 or more; as many logits.
#   in_channels: channels of x.
#   image_size: (H, W) of x in pixels.
#   filters, kernels: channels out and window edge in pixels of each convolution, all of step 1.
#   dense_units: units of the first dense layer.
#   dropout: share of activations dropped, one number for each dropout in the order of the layers.
#   padding: of the convolutions, "valid" or "same".
#   activation, dense_activation: of the convolutions and of the first dense layer: "relu", "elu"
#       or "linear".
#   keras_defaults: Glorot-uniform kernels, zero biases and Keras' BatchNorm constants; otherwise
#       PyTorch's initialisation and constants. Padding and order stay Keras'.
# All raise ConfigError for a volume, an image that is too small, a list of the wrong length, a size
# that is not a positive integer, a dropout outside [0, 1) or a name that is not listed.


class LdctM1(nn.Module):
    """Three convolutions, two poolings (`features`), a dense layer on each pixel, output (`head`).

    The first dense layer lies before the flatten, so it sees the channels of one pixel at a time,
    like a 1x1 convolution. Arguments: see above.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        filters: Sequence[int] = (50, 120, 120),
        kernels: Sequence[int] = (11, 5, 3),
        dense_units: int = 10,
        padding: str = "valid",
        activation: str = "relu",
        dense_activation: str = "relu",
        keras_defaults: bool = True,
    ) -> None:
        super().__init__()
        require_data(num_classes, in_channels, image_size)
        _require_layers(3, filters, kernels, dense_units, padding, activation, dense_activation)
        steps = [kernels[0], kernels[1], None, kernels[2], None]
        height, width = _extents(image_size, steps, padding)

        self.features = nn.Sequential(
            OrderedDict(
                conv1=_convolution(in_channels, filters[0], kernels[0], padding),
                activation1=_activation(activation),
                conv2=_convolution(filters[0], filters[1], kernels[1], padding),
                activation2=_activation(activation),
                pool2=nn.MaxPool2d(POOL),
                conv3=_convolution(filters[1], filters[2], kernels[2], padding),
                activation3=_activation(activation),
                pool3=nn.MaxPool2d(POOL),
            )
        )
        self.head = nn.Sequential(
            OrderedDict(
                dense1=nn.Linear(filters[2], dense_units),
                activation1=_activation(dense_activation),
                flatten=nn.Flatten(),
                output=nn.Linear(height * width * dense_units, num_classes),
            )
        )
        if keras_defaults:
            keras_init_(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) float -> logits (N, num_classes)."""
        x = self.features(x)  # (N, filters[2], h, w)
        x = x.permute(0, 2, 3, 1)  # (N, h, w, filters[2]), Keras' order
        logits: Tensor = self.head(x)
        return logits


class LdctM2(nn.Module):
    """Two convolutions with BatchNorm and dropout (`features`), two dense layers (`head`).

    No pooling: at 120x120 the flatten has 891,136 units. Three dropouts, the last one between the
    dense layers. Arguments: see above.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        filters: Sequence[int] = (32, 64),
        kernels: Sequence[int] = (2, 2),
        dense_units: int = 10,
        dropout: Sequence[float] = (0.25, 0.25, 0.25),
        padding: str = "valid",
        activation: str = "relu",
        dense_activation: str = "relu",
        keras_defaults: bool = True,
    ) -> None:
        super().__init__()
        require_data(num_classes, in_channels, image_size)
        _require_layers(2, filters, kernels, dense_units, padding, activation, dense_activation)
        require_rates("model.dropout", dropout, length=3)
        height, width = _extents(image_size, [kernels[0], kernels[1]], padding)

        self.features = nn.Sequential(
            OrderedDict(
                conv1=_convolution(in_channels, filters[0], kernels[0], padding),
                activation1=_activation(activation),
                norm1=batch_norm(filters[0], keras_defaults),
                dropout1=nn.Dropout(dropout[0]),
                conv2=_convolution(filters[0], filters[1], kernels[1], padding),
                activation2=_activation(activation),
                norm2=batch_norm(filters[1], keras_defaults),
                dropout2=nn.Dropout(dropout[1]),
            )
        )
        self.head = nn.Sequential(
            OrderedDict(
                dense1=nn.Linear(height * width * filters[1], dense_units),
                activation1=_activation(dense_activation),
                dropout1=nn.Dropout(dropout[2]),
                output=nn.Linear(dense_units, num_classes),
            )
        )
        if keras_defaults:
            keras_init_(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) float -> logits (N, num_classes)."""
        x = self.features(x)  # (N, filters[1], h, w)
        x = flatten_channels_last(x)  # (N, h * w * filters[1]), Keras' order
        logits: Tensor = self.head(x)
        return logits


class LdctM3(nn.Module):
    """Two convolutions with BatchNorm, dropout and pooling (`features`), two dense layers (`head`).

    The dropouts lie between BatchNorm and pooling. Arguments: see above.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        filters: Sequence[int] = (50, 80),
        kernels: Sequence[int] = (11, 3),
        dense_units: int = 10,
        dropout: Sequence[float] = (0.25, 0.25),
        padding: str = "valid",
        activation: str = "relu",
        dense_activation: str = "relu",
        keras_defaults: bool = True,
    ) -> None:
        super().__init__()
        require_data(num_classes, in_channels, image_size)
        _require_layers(2, filters, kernels, dense_units, padding, activation, dense_activation)
        require_rates("model.dropout", dropout, length=2)
        height, width = _extents(image_size, [kernels[0], None, kernels[1], None], padding)

        self.features = nn.Sequential(
            OrderedDict(
                conv1=_convolution(in_channels, filters[0], kernels[0], padding),
                activation1=_activation(activation),
                norm1=batch_norm(filters[0], keras_defaults),
                dropout1=nn.Dropout(dropout[0]),
                pool1=nn.MaxPool2d(POOL),
                conv2=_convolution(filters[0], filters[1], kernels[1], padding),
                activation2=_activation(activation),
                norm2=batch_norm(filters[1], keras_defaults),
                dropout2=nn.Dropout(dropout[1]),
                pool2=nn.MaxPool2d(POOL),
            )
        )
        self.head = nn.Sequential(
            OrderedDict(
                dense1=nn.Linear(height * width * filters[1], dense_units),
                activation1=_activation(dense_activation),
                output=nn.Linear(dense_units, num_classes),
            )
        )
        if keras_defaults:
            keras_init_(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) float -> logits (N, num_classes)."""
        x = self.features(x)  # (N, filters[1], h, w)
        x = flatten_channels_last(x)  # (N, h * w * filters[1]), Keras' order
        logits: Tensor = self.head(x)
        return logits


class LdctM4(nn.Module):
    """The proposed network: two convolutions, poolings, dropouts (`features`), two dense (`head`).

    The dropouts lie behind the poolings. Arguments: see above, and
        initializer: of every kernel, by its Keras name: "glorot_uniform", "he_uniform" or
            "he_normal"; None is Keras' default (with keras_defaults) or PyTorch's.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        filters: Sequence[int] = (64, 64),
        kernels: Sequence[int] = (3, 3),
        dense_units: int = 128,
        dropout: Sequence[float] = (0.25, 0.25),
        padding: str = "same",
        activation: str = "elu",
        dense_activation: str = "elu",
        initializer: str | None = None,
        keras_defaults: bool = True,
    ) -> None:
        super().__init__()
        require_data(num_classes, in_channels, image_size)
        _require_layers(2, filters, kernels, dense_units, padding, activation, dense_activation)
        require_rates("model.dropout", dropout, length=2)
        if initializer is not None:
            _require_name("model.initializer", initializer, INITIALIZERS)
        height, width = _extents(image_size, [kernels[0], None, kernels[1], None], padding)

        self.features = nn.Sequential(
            OrderedDict(
                conv1=_convolution(in_channels, filters[0], kernels[0], padding),
                activation1=_activation(activation),
                pool1=nn.MaxPool2d(POOL),
                dropout1=nn.Dropout(dropout[0]),
                conv2=_convolution(filters[0], filters[1], kernels[1], padding),
                activation2=_activation(activation),
                pool2=nn.MaxPool2d(POOL),
                dropout2=nn.Dropout(dropout[1]),
            )
        )
        self.head = nn.Sequential(
            OrderedDict(
                dense1=nn.Linear(height * width * filters[1], dense_units),
                activation1=_activation(dense_activation),
                output=nn.Linear(dense_units, num_classes),
            )
        )
        if keras_defaults:
            keras_init_(self)
        if initializer is not None:
            _initialize_(self, initializer)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) float -> logits (N, num_classes)."""
        x = self.features(x)  # (N, filters[1], h, w)
        x = flatten_channels_last(x)  # (N, h * w * filters[1]), Keras' order
        logits: Tensor = self.head(x)
        return logits


def _convolution(in_channels: int, out_channels: int, kernel: int, padding: str) -> nn.Conv2d:
    layer = Conv2dSame if padding == "same" else nn.Conv2d
    return layer(in_channels, out_channels, kernel)


def _activation(name: str) -> nn.Module:
    return ACTIVATIONS[name](inplace=True)  # Identity takes any argument


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
    image_size: tuple[int, int], steps: Sequence[int | None], padding: str
) -> tuple[int, int]:
    """(H, W) after the steps: a convolution by its kernel, or None for a pooling.

    Raises:
        ConfigError: nothing is left of the image; names the smallest that works.
    """
    least = 1
    for kernel in reversed(steps):
        if kernel is None:
            least *= POOL
        elif padding == "valid":
            least += kernel - 1
    if min(image_size) < least:
        raise too_small(image_size, least, f"these model.kernels and model.padding={padding}")
    height, width = image_size
    for kernel in steps:
        if kernel is None:
            height, width = height // POOL, width // POOL
        elif padding == "valid":
            height, width = height - kernel + 1, width - kernel + 1
    return height, width


def _require_layers(
    convolutions: int,
    filters: Sequence[int],
    kernels: Sequence[int],
    dense_units: int,
    padding: str,
    activation: str,
    dense_activation: str,
) -> None:
    require_sizes("model.filters", filters, length=convolutions)
    require_sizes("model.kernels", kernels, length=convolutions)
    require_sizes("model.dense_units", [dense_units])
    _require_name("model.padding", padding, PADDINGS)
    _require_name("model.activation", activation, tuple(ACTIVATIONS))
    _require_name("model.dense_activation", dense_activation, tuple(ACTIVATIONS))


def _require_name(key: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise ConfigError(f"{key}={name}: must be one of {', '.join(names)}")
