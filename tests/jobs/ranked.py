"""Trains the runs of test_several.py as one of several processes.

torchrun ... tests/jobs/ranked.py FOLDER FILE: the file is JSON, name of a run -> its overrides. In
a folder named `plain` they are trained as `medexp train` does; initial.pt has what they start from.
"""

import json
import sys
from pathlib import Path

import torch

from medexp.config.compose import compose
from medexp.config.settings import last_phase
from medexp.data.load import load_data
from medexp.jobs import build, several
from medexp.jobs.train import train
from medexp.runs.files import write_nothing
from medexp.train.state import set_seeds


def main(folder: Path, runs: dict[str, list[str]], arguments: list[str]) -> None:
    torch.set_num_threads(1)
    place = None if folder.name == "plain" else several.begin()
    if place and place.rank:
        write_nothing()
    for name, overrides in runs.items():
        settings, run = compose(overrides, arguments), folder / name
        run.mkdir(parents=True, exist_ok=True)
        if place:
            several.together(settings, run, place)
            continue
        train(settings, run, resume=False)
        set_seeds(settings.seed)
        drawn = build.build_network(last_phase(settings).model, load_data(settings))
        torch.save(drawn.state_dict(), run / "initial.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), sys.argv[3:])
