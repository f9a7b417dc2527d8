"""predict(): a network over a whole split, as arrays. Scores are metrics.score() of its result."""

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor, nn

from medexp.data.base import Split
from medexp.losses import class_logits


def to_input(images: Tensor, channels_last: bool = True) -> Tensor:
    """Stored images (B, H, W, C) uint8 or float -> network input (B, C, H, W) float32.

    uint8 becomes [0, 1] by division by 255. The permuted view is channels_last already.
    """
    x = images.float().div_(255) if images.dtype == torch.uint8 else images.float()
    x = x.movedim(-1, 1)
    return x if channels_last else x.contiguous()


@torch.inference_mode()
def predict(
    network: nn.Module, split: Split, *, device: torch.device, batch_size: int, channels_last: bool
) -> np.ndarray:
    """Logits of every image of a split in order: (N, outputs) float32.

    Always float32 arithmetic, whatever precision trained the network: bf16 logits have 8 bits,
    which ties scores and moves the AUC. The network is left in evaluation mode.
    """
    network.eval()
    logits = []
    for start in range(0, len(split), batch_size):
        batch = torch.from_numpy(split.images[start : start + batch_size]).to(device)
        logits.append(network(to_input(batch, channels_last)))
    return torch.cat(logits).float().cpu().numpy()


def probabilities(logits: np.ndarray) -> np.ndarray:
    """(N, C) float64 class probabilities of (N, C) logits, or of (N, 1) of a sigmoid output."""
    columns = class_logits(torch.from_numpy(logits)).numpy()
    return np.asarray(softmax(columns.astype(np.float64), axis=1))
