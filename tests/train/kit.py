"""What the tests of the loop share: fit() with few words, and weights as one vector."""

from functools import partial

import torch

from medexp import augment
from medexp.config.settings import Trainer
from medexp.train import loop, losses, schedules

CPU = torch.device("cpu")
SESSION = ("seed", "device", "precision", "earlier", "resume")
PARTS = ("optimizer", "schedule", "loss", "augment", "sampling", "stages")


def settings_of(**changes):
    """The settings of a small run on a CPU."""
    return Trainer(
        **{"epochs": 3, "batch_size": 16, "eval_batch_size": 64, "monitor": "val_auc", **changes}
    )


def fit(folder, network, dataset, /, **changes):
    """Train with the arguments of Session, Parts and Trainer in one; returns the Fitted."""
    session = {"seed": 0, "device": CPU} | {k: changes.pop(k) for k in SESSION if k in changes}
    parts = {
        "optimizer": partial(torch.optim.Adam, lr=0.01),
        "schedule": schedules.constant,
        "loss": losses.cross_entropy,
        "augment": augment.Identity(),
    } | {key: changes.pop(key) for key in PARTS if key in changes}
    observers = changes.pop("observers", ())
    return loop.fit(
        loop.Session(folder, **session),
        network,
        dataset,
        loop.Parts(**parts),
        settings_of(**changes),
        observers,
    )


def weights(network):
    """All of a network's state as one vector."""
    return torch.cat([tensor.detach().flatten() for tensor in network.state_dict().values()])
