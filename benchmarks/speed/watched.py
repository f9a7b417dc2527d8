"""`medexp` as it is on the command line, noting when its first step ends and what it held on CUDA.

    python -m benchmarks.speed.watched NOTES.json train dataset=pcam ...

The note is a hook of torch's own behind every optimizer step, which does nothing after the first.
"""

import json
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook


def main() -> None:
    notes: dict[str, float | int | None] = {"first_step": None, "device_memory": None}

    def first_step(*_: Any) -> None:
        if notes["first_step"] is None:
            if torch.cuda.is_available() and not torch.cuda.is_current_stream_capturing():
                torch.cuda.synchronize()
            notes["first_step"] = time.time()

    register_optimizer_step_post_hook(first_step)
    target, sys.argv = sys.argv[1], ["medexp", *sys.argv[2:]]
    try:
        runpy.run_module("medexp", run_name="__main__")
    finally:
        if torch.cuda.is_available():
            notes["device_memory"] = torch.cuda.max_memory_allocated() or None  # 0: not used
        Path(target).write_text(json.dumps(notes))


if __name__ == "__main__":
    main()
