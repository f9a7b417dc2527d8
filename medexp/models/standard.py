"""The standard networks that the papers compare with, as torchvision builds them.

AlexNet, VGG16, ResNet50 and InceptionV3 (Mir and Nissa 2019, ALL, section 3.4), ResNet101 (Nguyen
et al. 2017, cervix, section 5.3.3). The papers used Keras' and TF-Slim's; torchvision's differ:
AlexNet is that of "One weird trick" (64-192-384-256-256 filters); the ResNets have the stride in
the 3x3 convolution ("v1.5", where Keras' and Slim's have it elsewhere); AlexNet and VGG16 pool
adaptively to 6x6 and 7x7 before their dense layers, so that other sizes work. Initialisation is
torchvision's (for channels other than 3 the first convolution is drawn normal, of torchvision's
spread times sqrt(3 / channels)), input [0, 1], or by ImageNet's statistics with its weights.

Each function takes `num_classes`, `in_channels` and `image_size` (H, W) and returns a network
(N, in_channels, H, W) -> logits (N, num_classes) with the stages `features`, `dense` (the hidden
dense layers of AlexNet and VGG16) and `head`, the last layer alone. ConfigError: a volume, or a
size below the smallest that the network's strides leave something of.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from medexp.models.checks import require_image, require_rates, require_sizes

IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Standard(nn.Module):
    """torchvision's modules under the names of stages, one after another.

    imagenet: torchvision's name of the weights that fit; renames: prefix of its keys -> of ours.
    """

    statistics = IMAGENET_STATISTICS  # mean and standard deviation that the weights expect
    leading = ("features",)  # the stages of `encode`: frozen, they see each image once

    def __init__(
        self, stages: Mapping[str, nn.Module], imagenet: str, renames: Mapping[str, str]
    ) -> None:
        super().__init__()
        for name, stage in stages.items():
            self.add_module(name, stage)
        self.imagenet, self.renames = imagenet, dict(renames)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) float -> logits (N, num_classes)."""
        return self.classify(self.encode(x))

    def encode(self, x: Tensor) -> Tensor:
        """The features that `classify` makes logits of."""
        for name in self.leading:
            x = self.get_submodule(name)(x)
        return x

    def classify(self, features: Tensor) -> Tensor:
        for name, stage in self.named_children():
            if name not in self.leading:
                features = stage(features)
        return features


def alexnet(
    *, num_classes: int, in_channels: int, image_size: tuple[int, int], dropout: float = 0.5
) -> Standard:
    """Krizhevsky 2014, "One weird trick"; 61,100,840 parameters at 1,000 classes."""
    require_image(image_size, 63)
    built = _built("alexnet", num_classes, in_channels, dropout=dropout)
    return _with_dense(built, "AlexNet_Weights.IMAGENET1K_V1")


def vgg16(
    *, num_classes: int, in_channels: int, image_size: tuple[int, int], dropout: float = 0.5
) -> Standard:
    """Simonyan and Zisserman 2015, configuration D; 138,357,544 parameters at 1,000 classes."""
    require_image(image_size, 32)
    built = _built("vgg16", num_classes, in_channels, dropout=dropout)
    return _with_dense(built, "VGG16_Weights.IMAGENET1K_V1")


def resnet50(*, num_classes: int, in_channels: int, image_size: tuple[int, int]) -> Standard:
    """He et al. 2016, "v1.5"; 25,557,032 parameters at 1,000 classes."""
    return _resnet("resnet50", num_classes, in_channels, image_size)


def resnet101(*, num_classes: int, in_channels: int, image_size: tuple[int, int]) -> Standard:
    """He et al. 2016, "v1.5"; 44,549,160 parameters at 1,000 classes."""
    return _resnet("resnet101", num_classes, in_channels, image_size)


class InceptionV3(nn.Module):
    """Szegedy et al. 2016; 23,834,568 parameters at 1,000 classes, 27,161,264 with `aux`.

    Stages: `features` (to Mixed_6e), `top` (Mixed_7a to the pooling), `head`, and `aux`, the
    auxiliary head on Mixed_6e. In training, forward returns (logits, auxiliary logits), and the
    loop adds the auxiliary loss times `aux_weight`; in evaluation, logits only. The auxiliary head
    needs 17x17 maps; where the image leaves less of it (below 299 pixels or so) there is none.
    """

    imagenet = "Inception_V3_Weights.IMAGENET1K_V1"
    # These weights are TensorFlow's, which saw pixels in [-1, 1].
    statistics = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        dropout: float = 0.5,
        aux_weight: float = 0.4,
    ) -> None:
        super().__init__()
        require_image(image_size, 75)
        built = _built(
            "inception_v3",
            num_classes,
            in_channels,
            dropout=dropout,
            aux_logits=min(_mixed_6e(side) for side in image_size) >= 17,
            transform_input=False,
            init_weights=True,
        )
        self.aux_weight = aux_weight
        names = [name for name, _ in built.named_children()]
        split = names.index("Mixed_6e") + 1
        body = [name for name in names if name not in ("AuxLogits", "fc")]
        self.features = _sequence(built, body[:split])
        self.top = _sequence(built, body[split:], flatten=nn.Flatten())
        self.head = built.fc
        # Empty where there is none: the stage is a child at every size.
        self.aux = built.AuxLogits or nn.Sequential()
        self.renames = {f"{name}.": f"features.{name}." for name in body[:split]}
        self.renames |= {f"{name}.": f"top.{name}." for name in body[split:]}
        self.renames |= {"fc.": "head.", "AuxLogits.": "aux."}

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(N, in_channels, H, W) float -> logits (N, num_classes); in training both heads'."""
        x = self.features(x)
        logits: Tensor = self.head(self.top(x))
        auxiliary = self.training and len(list(self.aux.children())) > 0
        return (logits, self.aux(x)) if auxiliary else logits


def _built(name: str, num_classes: int, in_channels: int, **arguments: Any) -> Any:
    """torchvision's network without weights, its first convolution for `in_channels`."""
    require_sizes("num_classes", [num_classes], least=2)
    require_sizes("in_channels", [in_channels])
    if "dropout" in arguments:
        require_rates("model.dropout", [arguments["dropout"]])
    import torchvision  # here: importing it takes seconds, and most networks do without

    make: Callable[..., nn.Module] = getattr(torchvision.models, name)
    network = make(weights=None, num_classes=num_classes, **arguments)
    if in_channels != 3:
        path, first = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
        owner = network.get_submodule(path.rpartition(".")[0])
        fresh = nn.Conv2d(
            in_channels,
            first.out_channels,
            first.kernel_size,  # type: ignore[arg-type]
            first.stride,  # type: ignore[arg-type]
            first.padding,  # type: ignore[arg-type]
            bias=first.bias is not None,
        )
        # As torchvision drew it, but for the number of inputs.
        if fresh.weight.device.type != "meta":
            share = (3 / in_channels) ** 0.5
            with torch.no_grad():
                fresh.weight.normal_(0, first.weight.std().item() * share)
                if fresh.bias is not None and first.bias is not None:
                    fresh.bias.copy_(first.bias)
        setattr(owner, path.rpartition(".")[2], fresh)
    return network


def _sequence(built: Any, names: list[str], **more: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict({name: getattr(built, name) for name in names} | more))


class AdaptivePool(nn.AdaptiveAvgPool2d):
    """torch's, which has no deterministic backward pass on CUDA: asked for one, `window_means`."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, *output_size)."""
        if x.is_cuda and torch.are_deterministic_algorithms_enabled():
            size: Any = self.output_size  # torchvision's are pairs
            return window_means(x, size)
        return super().forward(x)


def window_means(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Adaptive average pooling of x (N, C, H, W) to (N, C, *size) by two matrix products.

    Of n rows, output i of k is the mean of rows floor(i n / k) to ceil((i + 1) n / k). Maps of the
    very size stay as they are. Nothing is copied to the device, so a CUDA graph can hold it.
    """
    if tuple(x.shape[-2:]) == tuple(size):
        return x

    def means(n: int, k: int) -> Tensor:
        outputs, inputs = (torch.arange(m, device=x.device) for m in (k, n))
        first, end = outputs * n // k, ((outputs + 1) * n + k - 1) // k
        inside = (inputs >= first[:, None]) & (inputs < end[:, None])
        return inside.to(x.dtype) / (end - first)[:, None].to(x.dtype)

    (height, width), (rows, columns) = x.shape[-2:], size
    pooled: Tensor = means(height, rows) @ x @ means(width, columns).t()
    return pooled


def _with_dense(built: Any, imagenet: str) -> Standard:
    *hidden, last = built.classifier.children()
    # Not built.avgpool, of the same size.
    dense = nn.Sequential(AdaptivePool(built.avgpool.output_size), nn.Flatten(), *hidden)
    # Two modules stand before the hidden dense layers here.
    renames = {f"classifier.{k}.": f"dense.{k + 2}." for k in range(len(hidden))}
    renames[f"classifier.{len(hidden)}."] = "head."
    return Standard({"features": built.features, "dense": dense, "head": last}, imagenet, renames)


def _resnet(name: str, num_classes: int, in_channels: int, image_size: tuple[int, int]) -> Standard:
    require_image(image_size, 1)
    built = _built(name, num_classes, in_channels)
    names = [child for child, _ in built.named_children() if child != "fc"]
    features = _sequence(built, names, flatten=nn.Flatten())
    renames = {f"{child}.": f"features.{child}." for child in names} | {"fc.": "head."}
    weights = {"resnet50": "ResNet50_Weights", "resnet101": "ResNet101_Weights"}[name]
    return Standard({"features": features, "head": built.fc}, f"{weights}.IMAGENET1K_V1", renames)


def _mixed_6e(side: int) -> int:
    """Side of Mixed_6e's maps: the stem's convolutions and poolings without padding."""
    for stride in (2, 1, 2, 1, 2, 2):
        side = (side - 3) // stride + 1
    return side
