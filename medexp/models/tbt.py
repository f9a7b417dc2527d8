"""ViPTT-Net: VGG-16 on every slice, a recurrent layer over the slices (Zunair et al. 2021).

H. Zunair et al., ViPTT-Net: Video pretraining of spatio-temporal model for tuberculosis type
classification from chest CT scans, CLEF 2021.

Stated (section 3): a 1x1 convolution to three channels, VGG-16 with ImageNet weights on each slice,
512 features by global average pooling, an LSTM of 256 whose last step goes to a dense layer of 1024
(ReLU) and a softmax of 5 (10 on UCF50); a GRU was tried. From the authors' Keras code: the first
convolution has a bias and no activation, VGG's five poolings are all kept, no mean is subtracted,
the LSTM is Keras' (one bias vector): 15,770,443 parameters with 5 classes, 15,775,568 with 10, of
which 1,060,880 train while the VGG is frozen.

Chosen: Keras' defaults for everything without weights. A 1x1x1 convolution of a volume is a 1x1
convolution of its slices, and is computed so. Slices go through the VGG in chunks, so that memory
is that of a chunk; with `checkpointing` training keeps no activations of a chunk but computes them
again; where neither the VGG nor the first convolution trains, none are kept anyway.
"""

import math
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medexp.errors import ConfigError
from medexp.models.checks import require_image, require_sizes
from medexp.models.layers import keras_init_

# Configuration D of Simonyan and Zisserman 2015: filters of the 3x3 convolutions, 0 a pooling.
VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
SMALLEST = 32  # pixels that five halvings leave one of


class ViPTT(nn.Module):
    """Stages `colour` (1x1), `features` (VGG-16), `recurrent`, `dense`, `head` (the last layer).

    Args:
        num_classes: 2 or more; as many logits.
        in_channels: channels of x, 1 for CT.
        image_size: (D, H, W) of a volume, or (H, W): an image is a volume of one slice.
        cell: `lstm`, or `gru` (Keras' with reset_after, which is cuDNN's and PyTorch's).
        recurrent_units, dense: widths of the recurrent and the hidden dense layer.
        chunk: slices that go through the VGG at once.
        checkpointing: compute a chunk's activations again in the backward pass.
        keras_defaults: Keras' initialisation; else PyTorch's.

    Raises:
        ConfigError: slices below 32x32, or a width, chunk or cell that does not exist.
    """

    imagenet = "VGG16_Weights.IMAGENET1K_V1"
    renames = {"features.": "features."}  # noqa: RUF012  torchvision's VGG has these names
    leading = ("colour", "features")  # the stages of `encode`

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, ...],
        cell: Literal["lstm", "gru"] = "lstm",
        recurrent_units: int = 256,
        dense: int = 1024,
        chunk: int = 16,
        checkpointing: bool = False,
        keras_defaults: bool = True,
    ) -> None:
        super().__init__()
        require_sizes("image_size", image_size, length=3 if len(image_size) == 3 else 2)
        require_image(tuple(image_size[-2:]), SMALLEST)
        require_sizes("num_classes", [num_classes], least=2)
        require_sizes("in_channels", [in_channels])
        require_sizes("model.recurrent_units", [recurrent_units])
        require_sizes("model.dense", [dense])
        require_sizes("model.chunk", [chunk])
        if cell not in ("lstm", "gru"):
            raise ConfigError(f"model.cell={cell}: must be lstm or gru")
        self.chunk, self.checkpointing = chunk, checkpointing
        self.colour = nn.Conv2d(in_channels, 3, 1)
        self.features = vgg16_features()
        self.recurrent: nn.Module = (
            KerasLSTM(512, recurrent_units)
            if cell == "lstm"
            else nn.GRU(512, recurrent_units, batch_first=True)
        )
        self.dense = nn.Sequential(nn.Linear(recurrent_units, dense), nn.ReLU(inplace=True))
        self.head = nn.Linear(dense, num_classes)
        if keras_defaults:
            keras_init_(self)
            keras_recurrent_init_(self.recurrent)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, D, H, W) or (N, C, H, W) float -> logits (N, num_classes)."""
        return self.classify(self.encode(x))

    def encode(self, x: Tensor) -> Tensor:
        """(N, C, D, H, W) or (N, C, H, W) float -> what the VGG sees in each slice (N, D, 512)."""
        if x.ndim == 4:
            x = x.unsqueeze(2)  # (N, C, 1, H, W)
        n, depth = x.shape[0], x.shape[2]
        slices = x.transpose(1, 2).flatten(0, 1)  # (N * D, C, H, W)
        # An exported program has as many steps for any batch, so there all slices are one part.
        parts = [slices] if torch.compiler.is_exporting() else torch.split(slices, self.chunk)
        encoded = torch.cat([self._of_slices(part) for part in parts])
        return encoded.view(n, depth, -1)

    def classify(self, sequence: Tensor) -> Tensor:
        """(N, D, 512) -> logits (N, num_classes)."""
        # Float32: the recurrence is long and small, and PyTorch's casts differ between devices.
        meta = sequence.device.type == "meta"  # autocast knows no such device
        with nullcontext() if meta else torch.autocast(sequence.device.type, enabled=False):
            steps, _ = self.recurrent(sequence.float())  # (N, D, units)
        logits: Tensor = self.head(self.dense(steps[:, -1]))
        return logits

    def _of_slices(self, slices: Tensor) -> Tensor:
        """(n, C, H, W) -> (n, 512), keeping no more for the backward pass than it needs."""

        def run(part: Tensor) -> Tensor:
            maps: Tensor = self.features(self.colour(part))
            return maps.mean((2, 3))

        trained = [*self.colour.parameters(), *self.features.parameters()]
        if not slices.requires_grad and not any(p.requires_grad for p in trained):
            with torch.no_grad():
                return run(slices)
        if self.checkpointing and torch.is_grad_enabled():
            again: Tensor = checkpoint(run, slices, use_reentrant=False)
            return again
        return run(slices)


def vgg16_features() -> nn.Sequential:
    """VGG-16 up to its last pooling, under torchvision's names: (n, 3, H, W) to 512 channels."""
    layers: list[nn.Module] = []
    channels = 3
    for filters in VGG16:
        if filters:
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(inplace=True)]
            channels = filters
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


class KerasLSTM(nn.Module):
    """An LSTM with one bias vector, as Keras has it: (N, T, inputs) -> (N, T, units) and its state.

    PyTorch's has two biases that add up; here the second is a zero that is no parameter, so that
    its fused kernels run. Gates in the order input, forget, cell, output, which is Keras' too: its
    kernel (inputs, 4 units) is `kernel` transposed.
    """

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(units)
        self.kernel = nn.Parameter(torch.empty(4 * units, inputs).uniform_(-bound, bound))
        self.recurrent_kernel = nn.Parameter(torch.empty(4 * units, units).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(4 * units).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        zeros = x.new_zeros(1, x.shape[0], self.recurrent_kernel.shape[1])
        weights = [self.kernel, self.recurrent_kernel, self.bias, torch.zeros_like(self.bias)]
        # cuDNN differentiates only what ran in its training mode; without dropout it is the same.
        train = self.training or torch.is_grad_enabled()
        out: Any = torch.lstm(x, (zeros, zeros), weights, True, 1, 0.0, train, False, True)
        steps, hidden, cell = out
        return steps, (hidden, cell)

    def multiply_adds(self, x: Tensor) -> int:
        """Of a forward pass over x (N, T, inputs): both kernels at every step."""
        return x.shape[0] * x.shape[1] * (self.kernel.numel() + self.recurrent_kernel.numel())


def keras_recurrent_init_(layer: nn.Module) -> None:
    """Glorot-uniform kernel, orthogonal recurrent kernel, zero biases, an LSTM's forget bias one.

    Keras draws one matrix (inputs, gates * units), so the bounds are those of all gates together.
    """
    for name, parameter in layer.named_parameters():
        if "bias" in name:
            nn.init.zeros_(parameter)
            if isinstance(layer, KerasLSTM):
                units = len(parameter) // 4
                with torch.no_grad():
                    parameter[units : 2 * units] = 1.0
        elif name in ("recurrent_kernel", "weight_hh_l0"):
            nn.init.orthogonal_(parameter)
        else:
            nn.init.xavier_uniform_(parameter)
