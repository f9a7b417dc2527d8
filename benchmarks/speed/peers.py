"""Whom medexp is measured against, and who of them cannot take part here."""

import importlib.util
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Peer:
    """One whom medexp is measured against; `script` with its argument runs it on a job file."""

    about: str
    script: tuple[str, ...]
    needs: tuple[str, ...] = ()  # modules
    pip: str = ""
    natives_only: bool = False  # its networks are written by hand


TORCH_PEER = ("-m", "benchmarks.speed.torch_peers")
KERAS_PEER = ("-P", str(Path(__file__).with_name("keras_peer.py")))
PEERS = {
    "bare": Peer("the step alone on one batch, medexp's upper bound", (*TORCH_PEER, "bare")),
    "loop": Peer("a plain PyTorch loop over a DataLoader", (*TORCH_PEER, "loop")),
    "lightning": Peer(
        "Lightning's Trainer over that DataLoader",
        (*TORCH_PEER, "lightning"),
        ("lightning",),
        "lightning",
    ),
    "keras-torch": Peer(
        "Keras on torch, fit()", (*KERAS_PEER, "torch"), ("keras",), "keras", natives_only=True
    ),
    "tf-keras": Peer(
        "Keras on TensorFlow, fit() over tf.data",
        (*KERAS_PEER, "tensorflow"),
        ("tensorflow", "h5py"),
        "tensorflow h5py",
        natives_only=True,
    ),
}


def reason_to_leave_out(name: str, settings: Mapping[str, Any], python: str) -> str | None:
    """Why a peer cannot take part in a run with these settings; `python` is to run it."""
    peer = PEERS[name]
    if not has_modules(python, peer.needs):
        install = "pip" if python == sys.executable else f"{python} -m pip"
        return f"not installed. {install} install {peer.pip}"
    if not peer.natives_only:
        return None
    model, optimizer = settings["model"], settings["optimizer"]
    stages = (model.get("stages") or {}).values()
    if model["_target_"] != "medexp.models.pcam.NativeCNN":
        return "written for the native networks only"
    if optimizer["_target_"] not in ("torch.optim.SGD", "medexp.train.optimizers.SGD"):
        return "written for optimizer=sgd only"
    if any(stage.get("frozen") for stage in stages):
        return "written for networks without a frozen stage only"
    return None


def has_modules(python: str, names: Sequence[str]) -> bool:
    if python == sys.executable:
        return all(importlib.util.find_spec(name) for name in names)
    look = "import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, sys.argv[1:])))"
    return subprocess.run([python, "-c", look, *names], capture_output=True).returncode == 0
