"""Augmentation: per-sample, batched on the device, drawn ahead from the seed and the epoch.

An augmentation has `draw(n, generator) -> (n, k) float32 in [0, 1]`, called once an epoch on the
CPU, and `__call__(images, draws)` on a batch of the stored images (B, [D,] H, W, C), uint8 or
float, with its rows of draws; the batch is a copy that it may write to. Volumes are changed slice
by slice, all slices alike. One that mixes images has `mix(x, target, draws)` too, see Mixup.

A sample's draws depend on nothing but seed, epoch and position, so a resumed run, another device or
another data path sees the same images. On a CUDA device nothing here waits for the device: what is
drawn is never looked at, and no table is copied there. tests/test_augment.py holds this on torch's
meta device, whose tensors have no values to look at.
"""

from medexp.augment.base import Augment, Chain, Identity, where
from medexp.augment.places import Affine, PadCrop
from medexp.augment.symmetries import FlipsTurns, RightAngles
from medexp.augment.values import Blur, BrightnessContrast, Cutout, Mixup

__all__ = [
    "Affine",
    "Augment",
    "Blur",
    "BrightnessContrast",
    "Chain",
    "Cutout",
    "FlipsTurns",
    "Identity",
    "Mixup",
    "PadCrop",
    "RightAngles",
    "where",
]
