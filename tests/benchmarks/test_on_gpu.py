"""The script for a GPU: its arithmetic, and the whole of it rehearsed on the CPU."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from benchmarks.networks import measure
from benchmarks.on_gpu import figures, gpu_tests, pcam, table
from benchmarks.on_gpu.figures import Figure
from tests.conftest import ROOT

SCRIPT = ROOT / "benchmarks" / "on_gpu.sh"
STEPS = (
    "ceilings", "tests", "phantom", "pcam", "peers", "streams", "stacked", "networks", "profile",
    "accuracy", "processes", "kernels",
)  # fmt: skip


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.setenv("OUT", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("value", "goal", "met"),
    [(1.9, "<= 2", True), (2.1, "<= 2", False), (0.9, ">= 0.9", True), (0.89, ">= 0.9", False),
     (5.0, "", None), ("failed: no", "<= 2", False)],
)  # fmt: skip
def test_a_goal_is_met_or_not(value, goal, met):
    assert Figure("pcam", "epoch", value, "s", goal).met() is met


def test_figures_are_kept_line_by_line(out):
    """A line that was cut, as of a step that was killed, does not lose the others."""
    figures.note("pcam", "epoch", 3.0, "s", "<= 2")
    with figures.attempt("pcam", "bare step"):
        raise RuntimeError("first\nno graph | here")
    figures.note("pcam", "epoch", 1.5, "s", "<= 2")
    with figures.file().open("a") as file:
        file.write('{"step": "pcam", "wh')
    assert figures.value_of("pcam", "epoch") == 1.5
    assert figures.value_of("pcam", "bare step") is None
    lines = table.markdown(figures.known()).splitlines()
    assert lines[2:] == [
        "| pcam | epoch | 3 s | <= 2 | **no** |",
        "| pcam | bare step | failed: RuntimeError: no graph \\| here |  |  |",
        "| pcam | epoch | 1.5 s | <= 2 | yes |",
    ]


def test_tests_are_counted(tmp_path):
    (tmp_path / "tests.xml").write_text(
        '<testsuites><testsuite><testcase classname="a" name="one"/>'
        '<testcase classname="a" name="two"><failure message="no"/></testcase>'
        '<testcase classname="b" name="three"><error/></testcase>'
        '<testcase classname="b" name="four"><skipped/></testcase></testsuite></testsuites>'
    )
    assert gpu_tests.counts(tmp_path / "tests.xml") == (1, ["a::two", "b::three"], 1)


def test_every_file_with_a_gpu_test_is_run():
    """pytest's own selection finds no other."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "gpu", "tests"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = {line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line}
    found -= {"tests/benchmarks/test_on_gpu.py"}
    assert "tests/train/test_cuda.py" in found and found <= set(gpu_tests.files(small=False))


def test_the_patches_are_written_once_and_are_rows_of_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(pcam, "WORK", tmp_path)
    data = pcam.patches(4096)
    assert (len(data.train), len(data.val)) == (4096, 512)
    assert data.train.images.shape == (4096, 96, 96, 3) and data.train.images.dtype == np.uint8
    means = np.asarray(data.train.images[::100]).mean((1, 2, 3))
    assert np.abs(means - 127.5).max() < 3 and len(np.unique(means)) > 40, "noise in every block"
    before = (tmp_path / "images.npy").stat().st_mtime_ns
    part = pcam.part_of(pcam.patches(4096), 1024)
    assert (tmp_path / "images.npy").stat().st_mtime_ns == before
    assert (len(part.train), len(part.val)) == (1024, 128)
    np.testing.assert_array_equal(part.val.images[:2], data.val.images[:2])


def test_a_networks_step_is_measured_with_its_operations():
    """native3: 14 million multiply-adds forward (conf/model/native3.yaml), two as many back."""
    found = measure("native3", "cpu", 0.01, {})
    assert found["batch"] == 32 and found["seconds"] > 0
    assert 2 * 14e6 * 2.2 * 32 < found["flops"] < 2 * 14e6 * 3.1 * 32


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="a rehearsal on a CPU")
def test_the_rehearsal_ends_with_every_step_done(tmp_path):
    done = subprocess.run(
        ["bash", str(SCRIPT), "--small"],
        env=os.environ | {"OUT": str(tmp_path / "out"), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    log = (tmp_path / "out" / "log.txt").read_text()
    assert done.returncode == 0, done.stderr + log
    found = figures.known(tmp_path / "out" / figures.NAME)
    steps = {f.step: f.value for f in found if f.what == "step"}
    assert list(steps) == list(STEPS)
    assert all(str(value).startswith("done") for value in steps.values()), (steps, log)
    failed = [f for f in found if str(f.value).startswith("failed")]
    if importlib.util.find_spec("lightning") is None:
        failed = [f for f in failed if "lightning" not in f.what]
    assert not failed, log
    named = {(f.step, f.what): f for f in found}
    assert named["tests", "failed"].value == 0 and named["tests", "passed"].value > 25
    assert named["phantom", "difference of AUC to the CPU"].value == 0
    assert [f.value for f in found if "job 0 differs" in f.what and f.met() is not True] == []
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["figures.jsonl", "log.txt", "profile.txt", "table.md"]
    assert done.stdout.endswith((tmp_path / "out" / "table.md").read_text())


def test_a_step_that_fails_or_takes_too_long_does_not_stop_the_next(tmp_path):
    """Packages are looked for first; the steps here are stand-ins for `python`."""
    fake = tmp_path / "python"
    fake.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        "*on_gpu.ceilings*) exit 3 ;;\n"
        "*on_gpu.gpu_tests*) exec sleep 60 ;;\n"
        '*on_gpu.table*) echo "the table" ;;\n'
        "esac\n"
    )
    fake.chmod(0o755)
    done = subprocess.run(
        ["bash", str(SCRIPT), "--small", "ceilings", "tests", "phantom"],
        env=os.environ | {"OUT": str(tmp_path / "out"), "PYTHON": str(fake), "BUDGET": "13"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = figures.known(tmp_path / "out" / figures.NAME)
    said = {f.step: str(f.value) for f in found}
    assert said["ceilings"] == "failed with status 3, see log.txt"
    assert said["tests"].startswith("ended by its limit of 1")
    assert said["phantom"] == "left out: the time was over"
    assert done.stdout.endswith("the table\n")
