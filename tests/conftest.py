"""What several test modules share: the command line in process, and the real data beside it."""

import json
import logging
import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import pytest
import torch

from medexp.cli import dispatch as cli

# Keras brings absl, whose log handler closes the stream it writes to, here pytest's, when Hydra
# sets up logging for a job.
try:
    from absl.logging import get_absl_handler
except ImportError:
    pass
else:
    get_absl_handler().python_handler.close = lambda: None

ROOT = Path(__file__).resolve().parents[1]
MINE = ROOT / "tests" / "mine"
# Later commands do not ask a run where its modules are: they are named each time.
OWN = ("--config-dir", MINE)
REAL = ROOT.parent / "shared" / "data"
# Two workers on two cores: more threads each only fight.
torch.set_num_threads(1)


@pytest.fixture
def real_data():
    if not REAL.is_dir():
        pytest.skip("the real images in ../shared/data are not here")
    return REAL


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty folder to run in, with a phantom cache and module path of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDEXP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("MEDEXP_DATA", raising=False)
    monkeypatch.delenv("MEDEXP_CONFIG_DIR", raising=False)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    return tmp_path


@pytest.fixture
def medexp(workplace, capsys, monkeypatch, request):
    """Run a command line in process: medexp("train", ...) -> exit code; .out and .err its texts.

    A run's own plots take a third of a small run's time, and so are drawn only for tests that are
    marked `plots`.
    """
    if not request.node.get_closest_marker("plots"):
        monkeypatch.setattr("medexp.report.figure.plots.write_plots", lambda folder: None)

    def run(*arguments):
        path = list(sys.path)
        run.code = cli.run(list(map(str, arguments)))
        sys.path[:] = path  # each command is a process of its own
        # Hydra's handlers of a job write to this test's stderr, which the next one finds closed.
        root = logging.getLogger()
        for handler in root.handlers.copy():
            if type(handler) in (logging.StreamHandler, logging.FileHandler):
                root.removeHandler(handler)
        captured = capsys.readouterr()
        run.out, run.err = captured.out, captured.err
        return run.code

    return run


@pytest.fixture
def toy(medexp):
    """`medexp train` of the out-of-tree data set and network; returns the run directory."""

    def train(*overrides, code=0):
        before = set(Path("outputs").glob("*/*"))
        arguments = ("--config-dir", MINE, "dataset=toy", "model=toynet", "trainer.epochs=3")
        got = medexp("train", *arguments, "trainer.resamples=20", *overrides)
        assert got == code, medexp.err
        new = sorted(set(Path("outputs").glob("*/*")) - before)
        return new[-1] if new else None

    return train


def read(path):
    return json.loads(Path(path).read_text())


@pytest.fixture
def fresh_workers():
    """joblib keeps its processes, which would go on in the folder of the test before."""
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)
    yield
    get_reusable_executor().shutdown(wait=True)
