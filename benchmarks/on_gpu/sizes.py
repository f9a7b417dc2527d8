"""Full size on a GPU; with SMALL set, what two cores do in a few minutes: the rehearsal."""

import os

import torch

SMALL = bool(os.environ.get("SMALL"))
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PATCHES = 1024 if SMALL else 262_144  # PCam's training images
PEERS = 256 if SMALL else 32_768  # of them for the loops beside: a rate is of an image
JOB_PATCHES = 128 if SMALL else 4096
JOBS = (1, 2) if SMALL else (1, 4, 16, 64)
PHANTOMS = 128 if SMALL else 4096
EPOCHS = 1 if SMALL else 20  # on phantoms
SEEDS = 2 if SMALL else 3
EDGE = (96, 96, 3)  # of a patch
