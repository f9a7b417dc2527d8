"""Jobs of a sweep side by side, each in a process of its own."""

import importlib.util
from pathlib import Path

import pytest

from tests.conftest import MINE, read


@pytest.mark.skipif(
    importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") is None,
    reason='the launcher is not here: pip install "medexp[parallel]"',
)
@pytest.mark.slow
def test_jobs_side_by_side_give_the_numbers_of_one_after_another(fresh_workers, medexp):
    sweep = (
        *("train", "-m", "--config-dir", MINE, "dataset=toy", "model=toynet", "dataset.n=32"),
        *("trainer.epochs=2", "trainer.resamples=20", "trainer.threads=1", "seed=0,1"),
    )
    assert medexp(*sweep, "hydra.sweep.dir=one") == 0, medexp.err
    beside = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=two")
    assert medexp(*sweep, *beside) == 0, medexp.err
    jobs = sorted(path.name for path in Path("one").glob("*-toy-toynet"))
    assert len(jobs) == 2
    for job in jobs:
        for name in ("predictions.csv", "split.csv"):
            one, two = (Path(folder, job, name).read_bytes() for folder in ("one", "two"))
            assert one == two
        assert read(f"one/{job}/metrics.json")["test"] == read(f"two/{job}/metrics.json")["test"]
    # A job that fails loses no other.
    rest = (*sweep[:-1], "seed=0", "model.width=0,4", *beside[:-1], "hydra.sweep.dir=three")
    assert medexp(*rest) == 1
    states = [read(path)["state"] for path in sorted(Path("three").glob("*/status.json"))]
    assert states == ["failed", "done"] and "1 of 2 jobs failed" in medexp.err
