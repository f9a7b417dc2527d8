"""Losses: `f(logits, target) -> 0-dim float32 tensor`, the mean over the batch.

logits: (N, C) float of any precision, or (N, 1) for two classes; all is computed in float32.
target: (N,) int64 classes, or (N, C) float32 class probabilities (mixup), of which a loss is the
sum over classes of probability times the loss that this class would have as an integer.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from medexp.errors import ConfigError, one_of
from medexp.score.predict import class_logits

TINY = torch.finfo(torch.float32).tiny


def cross_entropy(logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Categorical cross-entropy; binary for a network with one output.

    label_smoothing: share s of the target that is spread evenly over all C classes, the true one
    among them: t (1 - s) + s / C, which is Keras' and torch's meaning alike.
    """
    return F.cross_entropy(class_logits(logits.float()), target, label_smoothing=label_smoothing)


class CrossEntropy:
    """Cross-entropy with class weights and label smoothing.

    class_weights: null for none, a weight per class, or `balanced`: N / (C n_c) from the training
        images' counts, as scikit-learn's compute_class_weight.
    label_smoothing: see cross_entropy, in [0, 1).
    normalise: what the weighted sum is divided by. `batch`, the number of images, is Keras'
        class_weight, which the papers used. `weights`, the sum of the images' weights, is the
        `weight` of torch's cross_entropy: there an image counts relative to the others of its
        batch (with trainer.accumulate, of its part), so that in a batch of one, or of one class,
        the weights do nothing.
    class_counts: training images of each class; medexp gives them.

    The weight belongs to the image, as in Keras: a smoothed target is weighted by its true class.
    (torch weights each class's share of a smoothed target.) Of a target of probabilities each
    class's part is weighted by its own weight, which is mixup of the weighted losses, and torch's
    `weight` too; Keras weights the whole by the likeliest class.

    Raises ConfigError for a value out of its range and for weights that do not fit the classes.
    """

    def __init__(
        self,
        *,
        class_weights: Literal["balanced"] | Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        normalise: Literal["batch", "weights"] = "batch",
        class_counts: Sequence[int] | None = None,
    ):
        if not 0 <= label_smoothing < 1:
            raise ConfigError(
                f"loss.label_smoothing={label_smoothing}: must be 0 or more and below 1"
            )
        one_of("loss.normalise", normalise, ("batch", "weights"))
        self.weights = weights_of("loss.class_weights", class_weights, class_counts)
        self.label_smoothing, self.normalise = label_smoothing, normalise

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.weights is None:
            return self.unweighted(logits, target)
        surprise = -F.log_softmax(class_logits(logits.float()), dim=1)
        check_fit("loss.class_weights", self.weights, surprise.shape[1])
        weights = on_device(self.weights, surprise.device).expand_as(surprise)
        s = self.label_smoothing
        smoothed = (1 - s) * surprise + s * surprise.mean(1, keepdim=True)
        losses = of_target(weights * smoothed, target)
        if self.normalise == "batch":
            return losses.mean()
        return losses.sum() / of_target(weights, target).sum().clamp_min(TINY)

    def unweighted(self, logits: Tensor, target: Tensor) -> Tensor:
        """The same without class weights. Keras weights the training only: this is its val_loss."""
        return cross_entropy(logits, target, label_smoothing=self.label_smoothing)


class Focal:
    """Focal loss: -alpha_t (1 - p_t)^gamma log p_t (Lin et al. 2017, equation 5).

    p_t is the probability of the true class: of the sigmoid for one output, as in the paper, of the
    softmax for C. The mean is over images (the paper's is over a picture's boxes with an object).

    gamma: how much images that are right already are held back, 0 or more; the paper's is 2.
    alpha: null for none; for two classes a number in (0, 1), the share of class 1, 1 - alpha being
        that of class 0; or class weights, a list or `balanced`, as CrossEntropy has them.
    class_counts: training images of each class; medexp gives them.

    Raises ConfigError for a value out of its range and for weights that do not fit the classes.
    """

    def __init__(
        self,
        *,
        gamma: float = 2.0,
        alpha: float | Literal["balanced"] | Sequence[float] | None = None,
        class_counts: Sequence[int] | None = None,
    ):
        if not 0 <= gamma < math.inf:
            raise ConfigError(f"loss.gamma={gamma}: must be a number of 0 or more")
        if isinstance(alpha, (int, float)):
            if not 0 < alpha < 1:
                raise ConfigError(
                    f"loss.alpha={alpha}: one number is the share of class 1 of two, between 0 and "
                    "1. Give a list of weights, balanced, or null for none"
                )
            alpha = [1 - alpha, alpha]
        self.gamma = gamma
        self.alpha = weights_of("loss.alpha", alpha, class_counts)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        surprise = -F.log_softmax(class_logits(logits.float()), dim=1)
        # 1 - p. Not 0 where p is 1 to the last bit: a power below 1 has no slope there.
        rest = -torch.expm1(-surprise)
        losses = rest.clamp_min(TINY) ** self.gamma * surprise
        if self.alpha is not None:
            check_fit("loss.alpha", self.alpha, surprise.shape[1])
            losses = on_device(self.alpha, losses.device) * losses
        return of_target(losses, target).mean()


def weights_of(
    key: str,
    weights: Literal["balanced"] | Sequence[float] | None,
    counts: Sequence[int] | None,
) -> tuple[float, ...] | None:
    """A loss's class weights; ConfigError names the key where they can be none."""
    if weights is None:
        return None
    if isinstance(weights, str):
        one_of(key, weights, ["balanced"])
        if counts is None:
            raise ConfigError(f"{key}=balanced: needs class_counts, the training images per class")
        if 0 in counts:
            raise ConfigError(
                f"{key}=balanced: class {list(counts).index(0)} has no training image. Give a list "
                "of weights, or change the split"
            )
        return tuple(sum(counts) / (len(counts) * count) for count in counts)
    values = tuple(float(weight) for weight in weights)
    if counts is not None:
        check_fit(key, values, len(counts))
    if not all(0 <= weight < math.inf for weight in values) or not any(values):
        raise ConfigError(
            f"{key}={list(weights)}: weights must be numbers of 0 or more, and not all 0"
        )
    return values


def check_fit(key: str, weights: tuple[float, ...], classes: int) -> None:
    """Raise ConfigError unless there is a weight for each class."""
    if len(weights) != classes:
        raise ConfigError(
            f"{key}={list(weights)}: {len(weights)} weights for {classes} classes. Give one for "
            "each, in the order of the data set's classes, or balanced"
        )


@cache
def on_device(weights: tuple[float, ...], device: torch.device) -> Tensor:
    """(C,) float32, copied to a device once: a copy in every step would make it wait."""
    with torch.inference_mode(False):  # else one that was made there could not be trained with
        return torch.tensor(weights, dtype=torch.float32, device=device)


def of_target(losses: Tensor, target: Tensor) -> Tensor:
    """(N,) of (N, C) losses, one for each class that could be true: the target's own."""
    if target.ndim == 2:
        return (losses * target).sum(1)
    return losses.gather(1, target.unsqueeze(1)).squeeze(1)
