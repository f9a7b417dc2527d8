"""Losses: `f(logits, labels) -> scalar tensor`, the mean over the batch."""

import torch
import torch.nn.functional as F
from torch import Tensor


def class_logits(logits: Tensor) -> Tensor:
    """(N, C) logits of the classes; one column z, a sigmoid output, becomes the two columns (0, z).

    softmax(0, z)[1] = sigmoid(z), so the cross-entropy of the pair is the binary cross-entropy of
    z, and everything downstream knows one form only.
    """
    if logits.shape[1] > 1:
        return logits
    return torch.cat([torch.zeros_like(logits), logits], dim=1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Categorical cross-entropy; binary for a network with one output.

    logits: (N, C) or (N, 1) float; labels: (N,) int64. Computed in float32.
    """
    return F.cross_entropy(class_logits(logits.float()), labels)
